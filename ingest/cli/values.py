"""Values as options and arguments take them."""

from __future__ import annotations

import math
from typing import Any

import click

from ingest.core.quantities import duration_s, size_bytes


class FiniteRange(click.FloatRange):
    """Click's own compares, and no limit is above "nan"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number in the range {self._describe_range()}.", param, ctx)
        return found


class Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = duration_s(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration like 30m", param, ctx)
        if found <= 0:
            self.fail(f"{value!r} is not a time", param, ctx)
        return found


class Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return size_bytes(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number of bytes like 500KiB or 2MiB", param, ctx)


class Rate(click.ParamType[float]):
    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number, unit = str(value)[:-4], str(value)[-4:].lower()
        try:
            found = float(number) * {"gbit": 1e9, "mbit": 1e6}[unit] / 8
        except (KeyError, ValueError):
            found = 0.0
        if not 0 < found < math.inf:
            self.fail(f"{value!r} is not a rate like 1Gbit or 500Mbit", param, ctx)
        return found


def not_empty(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A callback: for what names something."""
    if not value.strip():
        raise click.BadParameter("it is empty", context, parameter)
    return value
