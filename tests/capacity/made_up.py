"""A calibration with known costs, so that a test knows what must come out."""

from __future__ import annotations

import itertools

from ingest.capacity.calibration import KINDS, SCHEMA, Calibration, Machine, Round, Sample, Sizes

SMALL, LARGE = 500_000, 2_000_000
RECEIVER_S, BROKER_S = 0.2e-9, 0.8e-9  # a byte
DECODER_S = {"unchanged": 0.2e-9, "few": 4e-9, "upgrade": 5e-9, "upgrade_new": 15e-9, "first": 5e-9}
WRITER_BATCH_S, POSTGRESQL_BATCH_S = 0.001, 0.002
WRITER_S = {"unchanged": 0.0, "few": 1e-9, "upgrade": 1e-9, "upgrade_new": 3e-9, "first": 1e-9}
POSTGRESQL_S = {kind: cost / 2 for kind, cost in WRITER_S.items()}
WAL_BYTES = {"unchanged": 300, "few": 8000, "upgrade": 20_000, "upgrade_new": 20_000, "first": 100_000}
COMMIT_S = 0.001


def calibration(**changes: object) -> Calibration:
    """As if measured on two idle cores; ``changes`` replaces fields."""
    rounds = [
        *(_round(f"first {size}", {"first": 48}, size, 4) for size in (SMALL, LARGE)),
        *(
            _round(f"{kind} {size}", {kind: 48}, size, batches, fresh_pages=batches == 4)
            for kind, size, batches in itertools.product(("unchanged", "few"), (SMALL, LARGE), (4, 12))
        ),
        *(
            _round(
                f"upgrade {size}", {"upgrade": 44, "upgrade_new": 4}, size, batches, fresh_pages=batches == 4
            )
            for size, batches in itertools.product((SMALL, LARGE), (4, 12))
        ),
        _round("mixed", {"unchanged": 200, "few": 36, "upgrade": 4}, SMALL, 40, mode="flow"),
        _round("calm", {"unchanged": 40, "few": 8}, SMALL, 48, mode="calm"),
        _round("singles", {"unchanged": 40, "few": 8}, LARGE, 48, mode="single"),
    ]
    samples = [
        Sample(
            kind, size, RECEIVER_S * size, DECODER_S[kind] * size, WRITER_BATCH_S + WRITER_S[kind] * size,
            POSTGRESQL_BATCH_S + POSTGRESQL_S[kind] * size, 0.03,
        )
        for kind, size in itertools.product(KINDS, (SMALL, LARGE))
    ]  # fmt: skip
    values: dict[str, object] = {
        "schema": SCHEMA,
        "at": "2026-01-01T00:00:00+00:00",
        "program": "0.1.0",
        "commit": "abcdef0",
        "machine": Machine(2, "A Processor", 8 << 30, "Linux", "3.11.0", "15.0"),
        "templates": "made up",
        "workers": 2,
        "writers": 2,
        "seconds": 30.0,
        "rounds": tuple(rounds),
        "samples": tuple(samples),
        "commit_s": (COMMIT_S,),
        "crowding": 1.0,
        "private_bytes": {
            "receiver": 20 << 20, "decoder": 100 << 20, "writer": 50 << 20, "supervisor": 30 << 20, "postgresql": 12 << 20,
        },
        "sizes": Sizes(
            nodes=96, roles=8, resources=96 * 1400, role_bytes={"resources": 8_000_000}, first_bytes={"resources": 10_640_000},
            changed_bytes={"resources": 11_000_000}, collected_bytes={"resources": 13_832_000}, catalogs_pages=5,
        ),
        "checkpoint_s": 300,
    }  # fmt: skip
    return Calibration(**(values | changes))  # type: ignore[arg-type]


def _round(
    name: str,
    kinds: dict[str, int],
    size: int,
    batches: int,
    *,
    mode: str = "backlog",
    fresh_pages: bool = False,
) -> Round:
    messages = sum(kinds.values())

    def cpu_s(costs: dict[str, float], batch_s: float = 0.0) -> float:
        return batch_s * batches + sum(costs[kind] * size * count for kind, count in kinds.items())

    writer_s, postgresql_s = cpu_s(WRITER_S, WRITER_BATCH_S), cpu_s(POSTGRESQL_S, POSTGRESQL_BATCH_S)
    return Round(
        name=name,
        kinds=kinds,
        kind_bytes={kind: count * size for kind, count in kinds.items()},
        mode=mode,
        fresh_pages=fresh_pages,
        messages=messages,
        body_bytes=messages * size,
        batches=batches,
        content_batches=0 if set(kinds) == {"unchanged"} else batches,
        batch_s=writer_s + postgresql_s + COMMIT_S * batches,
        settle_s=0.03 * messages,
        seconds=1.0,
        cpu_s={
            "receiver": RECEIVER_S * size * messages,
            "decoder": cpu_s(DECODER_S),
            "writer": writer_s,
            "postgresql": postgresql_s,
            "broker": BROKER_S * size * messages / 2,
            "broker_in": BROKER_S * size * messages / 2,
        },
        elsewhere_s=0.0,
        wal_bytes=sum(WAL_BYTES[kind] * count for kind, count in kinds.items())
        + (16_384 * messages if fresh_pages else 0),
        copy_bytes=1000 * messages,
        rows=messages,
    )
