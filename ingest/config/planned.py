"""Reads what ``ingest capacity --output FILE.json`` wrote, as far as it says how much fits."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ingest.core.planned import Planned
from ingest.errors import Misconfigured


class _Base(msgspec.Struct, frozen=True):
    nodes: int
    interval_s: float
    nodes_fit: int


class _Plan(msgspec.Struct, frozen=True):
    at: str
    base: _Base


def load_plan(file: str) -> Planned | None:
    """None without a file. Raises Misconfigured."""
    if not file:
        return None
    try:
        plan = msgspec.json.decode(Path(file).read_bytes(), type=_Plan)
    except OSError as error:
        raise Misconfigured("--plan-file", f"{file}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise Misconfigured(
            "--plan-file", f"{file} is no plan: 'ingest capacity --output FILE.json' writes one"
        ) from error
    base = plan.base
    if base.interval_s <= 0 or base.nodes_fit < 0:
        raise Misconfigured("--plan-file", f"{file} plans for no fleet: make it anew with 'ingest capacity'")
    return Planned(plan.at, base.nodes, base.nodes_fit, base.nodes_fit / base.interval_s)
