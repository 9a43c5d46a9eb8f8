"""What is said about a setting where it is declared."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """What a setting is for, why its default is what it is, and which values make sense."""

    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_secret: bool = False  # may hold a password
    reloads: bool = False  # SIGHUP changes it at work
