"""Pictures as SVG that stands inside a page: its colours are the page's, in light, dark and on paper."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot

# Stand-ins that no picture has otherwise, and the page's variables that take their places.
_COLOURS = {
    "#010203": "var(--ink)",
    "#040506": "var(--faint)",
    "#070809": "var(--first)",
    "#0a0b0c": "var(--second)",
    "#0d0e0f": "var(--mark)",
}
INK, FAINT, FIRST, SECOND, MARK = _COLOURS
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ingest",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        drawn, axis = pyplot.subplots(figsize=(width, height), layout="constrained")
        try:
            yield drawn, axis
        finally:
            pyplot.close(drawn)


def svg(drawn: Any, name: str, label: str) -> str:
    """The figure as an element: without a prologue and metadata, its ids its own, its colours variables."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    width, height = drawn.get_size_inches() * 72
    return re.sub(
        r"<svg [^>]*>",
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}"><title>{label}</title>',
        text,
        count=1,
    )


def seconds(value: float) -> str:
    if 0 < value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:g} s"
    return f"{value / 60:g} min" if value < 7200 else f"{value / 3600:g} h"
