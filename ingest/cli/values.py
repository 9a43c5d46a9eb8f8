"""Values as options and arguments take them."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """Click's own compares, and no limit is above "nan"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number in the range {self._describe_range()}.", param, ctx)
        return found


def not_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A callback: for what names something."""
    if not value.strip():
        raise click.BadParameter("it is empty", context, parameter)
    return value
