"""Service times of facts and reports from the rounds of a calibration, added to those of its catalogs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from ingest.capacity.calibration import FACTS_KINDS, REPORT_KINDS, Calibration, Round, Runs
from ingest.capacity.costs import Costs, Lesser, Line, batch_costs, costs_of, factor_of, lines_of, with_cpu
from ingest.core.delivery.importance import FACTS, REPORT

KINDS_OF = {FACTS: FACTS_KINDS, REPORT: REPORT_KINDS}
BUILT_IN = Path(__file__).parent / "data" / "runs.json"


def runs_of(calibration: Calibration) -> Runs:
    """The calibration's, or, where it has catalogs alone, those that were measured when this program was made."""
    return calibration.runs or built_in()


@cache
def built_in() -> Runs:
    return msgspec.json.decode(BUILT_IN.read_bytes(), type=Runs)


def all_costs_of(calibration: Calibration) -> Costs:
    """Of catalogs, facts and reports."""
    costs, rounds, crowding = costs_of(calibration), runs_of(calibration).rounds, calibration.crowding
    receiver, broker = _carrying(rounds, crowding)
    decoder, noise = dict(costs.decoder), dict(costs.noise)
    lesser = {}
    for rank, kinds in KINDS_OF.items():
        own = [r for r in rounds if any(kind in r.kinds for kind in kinds)]
        lines = lines_of(_backlog(own), "decoder", crowding, {kind: kind for kind in kinds})
        flow = factor_of([r for r in own if r.mode == "flow"], "decoder", lines, crowding)
        decoder |= {kind: line.slower(flow) for kind, line in lines.items()}
        noise |= dict.fromkeys(kinds, (1.0,))
        writer, postgresql = (
            batch_costs(own, stage, crowding, 1.0, kinds) for stage in ("writer", "postgresql")
        )
        lesser[rank] = Lesser(receiver, broker, writer, postgresql)
    return costs._replace(decoder=decoder, noise=noise, lesser=lesser)


def _carrying(rounds: tuple[Round, ...], crowding: float) -> tuple[Line, Line]:
    """What receiver and broker take, which look into no body: from 10 KB to over a megabyte one line for all."""
    kinds = (*FACTS_KINDS, *REPORT_KINDS)
    backlog = _backlog(rounds)
    flow = [r for r in rounds if r.mode == "flow"]
    whole = [with_cpu(r, "broker", r.cpu_s["broker"] + r.cpu_s["broker_in"]) for r in backlog]
    found = []
    for stage, of in (("receiver", backlog), ("broker", whole)):
        line = lines_of(of, stage, crowding, dict.fromkeys(kinds, "any"))["any"]
        found.append(line.slower(factor_of(flow, stage, dict.fromkeys(kinds, line), crowding)))
    return found[0], found[1]


def _backlog(rounds: tuple[Round, ...] | list[Round]) -> list[Round]:
    return [r for r in rounds if r.mode == "backlog"]
