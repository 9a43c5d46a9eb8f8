"""The pure core, one stage at a time: skim, glance, digest, whole decoding of each round, diff, rows.

CPU of this process; the best of several passes, since the machine may be shared.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from xxhash import xxh3_128

from bench.catalogs import ROUND_NAMES, fleet
from bench.records import record
from ingest.core import pgcopy
from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.diff import diff_chunks
from ingest.core.catalog.formats import Skim, skim, slices
from ingest.core.delivery.work import Descriptor, SectionDigests
from lab.decoding import work_of

AT = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    rounds = fleet(options.catalogs, options.clones)
    found = [
        *stages(rounds[2], options.passes),
        *whole(rounds, options.passes),
    ]
    for row in found:
        print(f"{row['stage']:<28} {row['cpu_ms']:>8.3f} ms a catalog")
    print("record:", record("core", vars(options), found))


def stages(bodies: list[bytes], passes: int) -> list[dict[str, Any]]:
    """Each step by itself, over the same bodies."""
    skims = [skim(body, {}, AT) for body in bodies]
    sections = [bytes(found.resources) for found in skims if isinstance(found, Skim)]
    ids = array("i", range(1000))
    stored = dict(diff_chunks({}, ids).added)
    moved = array("i", [*ids[:500], 5000, *ids[500:]])
    steps: dict[str, Callable[[int], object]] = {
        "skim": lambda at: skim(bodies[at], {}, AT),
        "fingerprint of resources, XXH3": lambda at: xxh3_128(sections[at]).digest(),
        "digest of resources, BLAKE3": lambda at: blake3(sections[at]).digest(),
        "digest of resources, SHA-256": lambda at: hashlib.sha256(sections[at]).digest(),
        "cut into resources": lambda at: slices(sections[at]),
        "diff of 1000 slots, one new": lambda _: diff_chunks(stored, moved),
        "int4[] of 1000": lambda _: pgcopy.int4_array(ids),
    }
    return [{"stage": name, "cpu_ms": _best_ms(step, len(bodies), passes)} for name, step in steps.items()]


def whole(rounds: dict[int, list[bytes]], passes: int) -> list[dict[str, Any]]:
    """Decoding as a decoder does it, with what it learned in the rounds before."""
    best: dict[int, float] = {}
    for _ in range(passes):
        decoding = Decoding(256 << 20)
        known: dict[str, SectionDigests] = {}
        for round_, bodies in rounds.items():
            start = time.process_time()
            for body in bodies:
                descriptor = Descriptor(1, 1, 0, len(body), len(body), AT, {})
                work = work_of(decoding, descriptor, body, known)
                known[work.header.certname] = work.sections
            used_ms = (time.process_time() - start) * 1000 / len(bodies)
            best[round_] = min(best.get(round_, used_ms), used_ms)
    return [
        {"stage": f"decode: {ROUND_NAMES[round_]}", "round": round_, "cpu_ms": ms}
        for round_, ms in best.items()
    ]


def _best_ms(step: Callable[[int], object], count: int, passes: int) -> float:
    best = float("inf")
    for _ in range(passes):
        start = time.process_time()
        for at in range(count):
            step(at)
        best = min(best, (time.process_time() - start) * 1000 / count)
    return best


if __name__ == "__main__":
    main()
