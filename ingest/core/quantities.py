"""Durations and sizes as people write them: ``30m``, ``64MiB``."""

from __future__ import annotations

import re

_SECONDS = {None: 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def duration_s(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``30m``, ``12h`` or ``7d``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(text: str) -> int:
    """Bytes from ``1000``, ``64KiB``, ``64MiB`` or ``1GiB``. Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([KMG]iB|B)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _BYTES[match[2]]


def duration_text(seconds: float) -> str:
    """In the largest unit of which there are two: ``45 s``, ``30 min``, ``26 h``, ``3 d``."""
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"


def bytes_text(count: float) -> str:
    for name, size in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count:.0f} B"
