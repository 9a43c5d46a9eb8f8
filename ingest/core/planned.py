"""How much of what ``ingest capacity`` planned is used: by the fleet's pace, and right now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

FULL = 0.9  # of what fits: time to plan again, while there is some


class Planned(NamedTuple):
    """What a plan says of a machine."""

    at: str
    nodes: int  # that were planned for
    nodes_fit: int
    fits_per_s: float  # catalogs a second of as many nodes as fit: in time, and some to spare


def used(planned: Planned, pace_per_s: float | None, now_per_s: float | None) -> dict[str, Any]:
    """``pace_per_s``: catalogs that the fleet sends by its intervals; ``now_per_s``: that are settled at the moment. Either
    may be unknown."""

    def part(per_s: float | None) -> float | None:
        return None if per_s is None or not planned.fits_per_s else per_s / planned.fits_per_s

    return {
        "at": planned.at,
        "nodes_fit": planned.nodes_fit,
        "fits_per_s": planned.fits_per_s,
        "part": part(now_per_s if pace_per_s is None else pace_per_s),
        "now_part": part(now_per_s),
    }


def busy_text(plan: Mapping[str, Any] | None, busy: Mapping[str, float | None]) -> str:
    """The line of ``ingest status``: against the plan, and what is busiest."""
    told = []
    if plan is not None and plan["part"] is not None:
        told.append(f"{percent(plan['part'])} of what the plan says fits ({plan['nodes_fit']:,} nodes)")
    if (name := busiest(busy)) is not None:
        told.append(f"{name} the busiest, {percent(busy[name] or 0.0)} of their time")
    return ", ".join(told) or "not measured yet"


def busiest(busy: Mapping[str, float | None]) -> str | None:
    """Of kinds of processes, by the part of their time that they work."""
    known = {name: part for name, part in busy.items() if part is not None}
    return max(known, key=lambda name: known[name]) if known else None


def percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.1 else f"{part:.0%}".replace("%", " %")
