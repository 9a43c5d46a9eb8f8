"""Amounts as a person reads them, no more precise than a simulation is."""

from __future__ import annotations

KIB, MIB, GIB = 1024, 1024**2, 1024**3


def seconds(value: float) -> str:
    """As precise as a plan can be."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def about(count: int) -> str:
    """To three digits: a simulation is not more certain."""
    digits = max(0, len(str(count)) - 3)
    return f"{round(count, -digits):,}"


def times(factor: float) -> str:
    return f"{factor:,.1f} times" if factor < 10 else f"{about(round(factor))} times"


def duration(value: float) -> str:
    """As a person would have given it."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if value >= unit and value % unit == 0:
            return f"{value / unit:.0f} {name}"
    return f"{value:g} s"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def size(value: float) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if value >= unit:
            return f"{value / unit:,.1f} {name}"
    return f"{value:.0f} bytes"
