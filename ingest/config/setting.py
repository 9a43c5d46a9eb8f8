"""What is said about a setting beside its type and its limits, and how it is found in the class that declares them all."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec


class About(NamedTuple):
    """What a setting is for, why its default is what it is, and how it may be used."""

    help: str
    choices: tuple[str, ...] = ()
    is_secret: bool = False  # may hold a password
    reloads: bool = False  # SIGHUP changes it at work
    by_machine: bool = False  # its default is made from what this machine has; the help says how


class Setting(NamedTuple):
    """A field of ``Config`` with what is said about it."""

    name: str
    type: type
    default: Any
    limits: msgspec.Meta  # ge and le, where it has any
    about: About

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"INGEST_{self.name.upper()}"

    def out_of_limits(self, value: float) -> str:
        """What it should be instead; empty: it is within its limits."""
        if self.limits.ge is not None and value < self.limits.ge:
            return f"at least {self.limits.ge:.10g}"
        if self.limits.le is not None and value > self.limits.le:
            return f"at most {self.limits.le:.10g}"
        return ""


def settings_of(config: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """Each field: ``Annotated[type, Meta(...), About(...)]``, of which the middle one may be missing."""
    hints = get_type_hints(config, include_extras=True)
    found = []
    for field in msgspec.structs.fields(config):
        type_, *limits, about = get_args(hints[field.name])
        found.append(
            Setting(field.name, type_, field.default, limits[0] if limits else msgspec.Meta(), about)
        )
    return tuple(found)
