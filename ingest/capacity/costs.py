"""Service times from a calibration: what a message of some kind and size costs in each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ingest.capacity.calibration import KINDS, Calibration, Round, Sample

NEW_FACTOR_MAX = 20.0  # more would be a disturbance
REST_FACTOR_MAX = 3.0  # this too
NOISE_MIN, NOISE_MAX = 0.2, 8.0  # of one message against its kind's mean; beyond that it was a disturbance
ALONE = ("single", "calm")  # modes in which a message meets nobody


class Line(NamedTuple):
    """CPU seconds of a message: so much each, so much a byte."""

    each_s: float
    byte_s: float

    def at(self, body_bytes: float) -> float:
        return self.each_s + self.byte_s * body_bytes

    def slower(self, factor: float) -> Line:
        return Line(self.each_s * factor, self.byte_s * factor)


class BatchCosts(NamedTuple):
    """CPU seconds of a transaction in one place (writer or PostgreSQL)."""

    batch_s: float
    idle_s: float  # more for a batch whose writer had been idle
    content_s: float  # more for a batch that brings any content
    message: dict[str, Line]

    def slower(self, factor: float) -> BatchCosts:
        return BatchCosts(
            self.batch_s * factor,
            self.idle_s * factor,
            self.content_s * factor,
            _slower(self.message, factor),
        )


class Lesser(NamedTuple):
    """What facts, or reports, cost elsewhere than in a decoder."""

    receiver: Line
    broker: Line
    writer: BatchCosts
    postgresql: BatchCosts

    def slower(self, factor: float) -> Lesser:
        return Lesser(*(part.slower(factor) for part in self))  # type: ignore[arg-type]


class Costs(NamedTuple):
    """Everything the model takes from a calibration."""

    receiver: Line
    broker: Line
    broker_in: float  # the share of it before the message is in the queue
    decoder: dict[str, Line]  # by kind
    at_rest: dict[str, float]  # by stage: times as much for a message that finds the machine at rest
    noise: dict[str, tuple[float, ...]]  # by kind: single messages against the mean of their kind and size
    writer: BatchCosts
    postgresql: BatchCosts
    commit_s: float  # of a transaction: neither writer nor PostgreSQL computes
    crowding: float
    lesser: Mapping[int, Lesser] = MappingProxyType({})  # by rank: facts and reports

    def receiver_of(self, rank: int) -> Line:
        return self.lesser[rank].receiver if rank in self.lesser else self.receiver

    def broker_of(self, rank: int) -> Line:
        return self.lesser[rank].broker if rank in self.lesser else self.broker

    def batches_of(self, rank: int) -> tuple[BatchCosts, BatchCosts]:
        """Of a writer, and of PostgreSQL."""
        part = self.lesser.get(rank, self)
        return part.writer, part.postgresql

    def rest_factor(self, stage: str, found_rest: bool) -> float:
        """For a message that found the machine at rest, or did not."""
        return self.at_rest[stage] if found_rest else 1.0

    def slower(self, factor: float) -> Costs:
        """The same while the machine's cores are slower by that factor; the disk is not."""
        return self._replace(
            receiver=self.receiver.slower(factor), broker=self.broker.slower(factor),
            decoder=_slower(self.decoder, factor), writer=self.writer.slower(factor),
            postgresql=self.postgresql.slower(factor),
            lesser={rank: part.slower(factor) for rank, part in self.lesser.items()},
        )  # fmt: skip


def costs_of(calibration: Calibration) -> Costs:
    """The costs that explain the calibration's rounds best, none of them negative."""
    rounds, samples = calibration.rounds, calibration.samples
    crowding = calibration.crowding
    fleet_rounds = [r for r in rounds if r.name != "roles"]  # the others are nodes like many
    backlog = [r for r in fleet_rounds if r.mode == "backlog"]
    receiver = lines_of(backlog, "receiver", crowding, dict.fromkeys(KINDS, "any"))["any"]
    broker = lines_of(
        [with_cpu(r, "broker", r.cpu_s["broker"] + r.cpu_s["broker_in"]) for r in backlog],
        "broker", crowding, dict.fromkeys(KINDS, "any"),
    )["any"]  # fmt: skip
    flow = [r for r in rounds if r.mode == "flow"]
    # What a message takes that does not wait, of what one of a backlog takes: new memory is what costs.
    receiver = receiver.slower(factor_of(flow, "receiver", dict.fromkeys(KINDS, receiver), crowding))
    broker = broker.slower(factor_of(flow, "broker", dict.fromkeys(KINDS, broker), crowding))
    by_kind = {kind: kind for kind in KINDS}
    decoder = lines_of(backlog, "decoder", crowding, by_kind, _new_factor(samples, "decoder_s"))
    _as_in_life(decoder, flow, crowding)
    calm = [r for r in rounds if r.mode == "calm"]
    stages = {
        "receiver": dict.fromkeys(KINDS, receiver), "broker": dict.fromkeys(KINDS, broker), "decoder": decoder,
    }  # fmt: skip
    singles = [r for r in rounds if r.mode == "single"]
    waits = [(r.batch_s - r.cpu_s["writer"] - r.cpu_s["postgresql"]) / max(1, r.batches) for r in singles]
    return Costs(
        receiver=receiver,
        broker=broker,
        broker_in=_share_before_the_queue(backlog),
        decoder=decoder,
        # Caches are cold then, and cores asleep.
        at_rest={
            stage: min(max(1.0, factor_of(calm, stage, lines)), REST_FACTOR_MAX)
            for stage, lines in stages.items()
        },
        noise={kind: _noise([s for s in samples if s.kind == kind], decoder[kind]) for kind in KINDS},
        writer=batch_costs(fleet_rounds, "writer", crowding, _new_factor(samples, "writer_s")),
        postgresql=batch_costs(fleet_rounds, "postgresql", crowding, _new_factor(samples, "postgresql_s")),
        commit_s=max(float(np.median(calibration.commit_s)), min(waits)),
        crowding=crowding,
    )


def _new_factor(samples: Sequence[Sample], stage: str) -> float:
    """How many times more an upgrade costs whose content is new. Told from single messages, since rounds have too
    few of them; what any message costs is taken off both."""

    def mean(kind: str) -> float:
        found = [getattr(s, stage) / s.body_bytes for s in samples if s.kind == kind]
        return float(np.mean(found)) if found else 0.0

    any_ = mean("unchanged")
    shared, new = mean("upgrade") - any_, mean("upgrade_new") - any_
    return min(max(1.0, new / shared), NEW_FACTOR_MAX) if shared > 0 else 1.0


def lines_of(
    rounds: Sequence[Round], stage: str, crowding: float, groups: dict[str, str], new_factor: float = 1.0
) -> dict[str, Line]:
    """A line for each group of kinds. Relative errors are least: a round of small catalogs counts as much as one
    of large ones."""
    names = list(dict.fromkeys(groups.values()))
    rows = []
    for r in rounds:
        row = [0.0] * (2 * len(names))
        for kind, messages, body_bytes in _weighted(r, new_factor):
            place = 2 * names.index(groups[kind])
            row[place] += messages
            row[place + 1] += body_bytes
        rows.append([value * crowding / r.cpu_s[stage] for value in row])
    found = nonnegative(np.array(rows), np.ones(len(rows)))
    lines = {name: Line(found[2 * n], found[2 * n + 1]) for n, name in enumerate(names)}
    if "upgrade" in lines:
        lines["upgrade_new"] = lines["upgrade"].slower(new_factor)
    return lines


def _weighted(round_: Round, new_factor: float) -> list[tuple[str, float, float]]:
    """(kind, messages, bytes); new upgrades stand as so many more of the others."""
    found = []
    for kind, messages in round_.kinds.items():
        name, factor = ("upgrade", new_factor) if kind == "upgrade_new" else (kind, 1.0)
        found.append((name, messages * factor, round_.kind_bytes[kind] * factor))
    return found


def with_cpu(round_: Round, stage: str, seconds: float) -> Round:
    return msgspec.structs.replace(round_, cpu_s=round_.cpu_s | {stage: seconds})


def _share_before_the_queue(backlog: Sequence[Round]) -> float:
    """Of a broker's work: a backlog's is measured in two parts."""
    before_s = sum(r.cpu_s["broker_in"] for r in backlog)
    return before_s / (before_s + sum(r.cpu_s["broker"] for r in backlog))


def factor_of(rounds: Sequence[Round], stage: str, lines: Mapping[str, Line], crowding: float = 1.0) -> float:
    """What these rounds took, of what lines by kind say."""
    predicted_s = sum(
        lines[kind].each_s * messages + lines[kind].byte_s * r.kind_bytes[kind]
        for r in rounds
        for kind, messages in r.kinds.items()
    )
    measured_s = sum(r.cpu_s[stage] + r.cpu_s.get(f"{stage}_in", 0.0) for r in rounds)
    return measured_s / crowding / predicted_s if predicted_s else 1.0


def _as_in_life(decoder: dict[str, Line], mixed: Sequence[Round], crowding: float) -> None:
    """Where kinds and roles come mixed, a decoder's cache holds less of what each needs than in a round of one kind:
    one factor for all catalogs with content makes the mixed rounds come true."""

    def predicted_s(kinds: Sequence[str]) -> float:
        return sum(
            decoder[kind].each_s * r.kinds.get(kind, 0) + decoder[kind].byte_s * r.kind_bytes.get(kind, 0)
            for r in mixed
            for kind in kinds
        )

    content = [kind for kind in KINDS if kind != "unchanged"]
    measured_s = sum(r.cpu_s["decoder"] for r in mixed) / crowding
    if mixed and predicted_s(content):
        factor = max(0.5, (measured_s - predicted_s(["unchanged"])) / predicted_s(content))
        for kind in ("few", "upgrade", "upgrade_new"):
            decoder[kind] = decoder[kind].slower(factor)


def batch_costs(
    rounds: Sequence[Round], stage: str, crowding: float, new_factor: float, kinds: Sequence[str] = KINDS
) -> BatchCosts:
    rows, totals = [], []
    for r in rounds:
        idle_batches = r.batches if r.mode in ALONE else 0
        row = [float(r.batches), float(idle_batches), float(r.content_batches), *[0.0] * (2 * len(kinds))]
        for kind, messages, body_bytes in _weighted(r, new_factor):
            place = 3 + 2 * kinds.index(kind)
            row[place] += messages
            row[place + 1] += body_bytes
        rows.append(row)
        totals.append(r.cpu_s[stage] / (1.0 if r.mode in ALONE else crowding))
    matrix, total = np.array(rows), np.array(totals)
    found = nonnegative(matrix / total[:, None], np.ones(len(rows)))
    lines = {kind: Line(found[3 + 2 * n], found[4 + 2 * n]) for n, kind in enumerate(kinds)}
    if "upgrade" in lines:
        lines["upgrade_new"] = lines["upgrade"].slower(new_factor)
    costs = BatchCosts(found[0], found[1], found[2], lines)
    # Among other work, and with fewer messages a batch, the same takes more than in a backlog.
    in_flow = np.array([r.mode == "flow" for r in rounds])
    explained_s = float((matrix @ np.array(found))[in_flow].sum())
    return costs.slower(float(total[in_flow].sum()) / explained_s) if explained_s else costs


def _noise(samples: Sequence[Sample], line: Line) -> tuple[float, ...]:
    """What single messages took against the line, with a mean of one."""
    ratios = [s.decoder_s / line.at(s.body_bytes) for s in samples if line.at(s.body_bytes)]
    if not ratios:
        return (1.0,)
    kept = np.clip(np.array(ratios) / np.median(ratios), NOISE_MIN, NOISE_MAX)
    return tuple(sorted(float(value) for value in kept / kept.mean()))


def _slower(lines: Mapping[str, Line], factor: float) -> dict[str, Line]:
    return {kind: line.slower(factor) for kind, line in lines.items()}


def nonnegative(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> list[float]:
    """Least squares with no negative coefficient, by coordinate descent: the problem is convex and has a dozen
    unknowns."""
    # Columns differ by orders of magnitude (bytes beside messages); equal norms make the descent quick.
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    a = matrix / scale
    gram, right = a.T @ a, a.T @ target
    x = np.zeros(a.shape[1])
    for _ in range(20_000):
        before = x.copy()
        for i in range(len(x)):
            if gram[i, i] > 0:
                x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
        if np.abs(x - before).max() < 1e-9:
            break
    return [float(value) for value in x / scale]
