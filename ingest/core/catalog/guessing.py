"""Whom a reference means that is neither a title nor an alias: a resource that its type names by another parameter.

Puppet has found it when it compiled, so this is asked only where the type is none that this program must know, and hardly ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ingest.core.catalog.model import Json, Ref
from ingest.core.catalog.namevars import OF_PUPPET

# The slot of the resource that a reference means; None: there are some of that type, and nobody can tell which; MISSING: it
# is not in the catalog.
Guess = Callable[[Ref], int | None]
MISSING = -1
_METAPARAMETERS = frozenset(
    ("alias", "audit", "before", "check", "loglevel", "noop", "notify", "require", "schedule", "stage", "subscribe", "tag")
)  # fmt: skip
_SEVERAL = -2  # resources have that value


class Guessing:
    """Guesses within one catalog. Each of its resources is looked at once at most, however many references there are: a sender
    decides how many of both."""

    def __init__(self, refs: Sequence[Ref], parameters_of: Callable[[int], Mapping[str, Json]]) -> None:
        """``refs`` by slot; ``parameters_of`` a slot."""
        self._refs = refs
        self._parameters_of = parameters_of
        self._slots: dict[str, list[int]] = {}  # by type
        self._named: dict[str, _Named] = {}  # by type
        self.was_asked = False

    def __call__(self, other: Ref) -> int | None:
        if not self.was_asked:
            self.was_asked = True
            for slot, ref in enumerate(self._refs):
                self._slots.setdefault(ref.type, []).append(slot)
        if other.type in OF_PUPPET or "::" in other.type:  # a defined type is named by its title
            return MISSING
        named = self._named.get(other.type)
        if named is None:
            slots = self._slots.get(other.type, ())
            named = self._named[other.type] = _named((slot, self._parameters_of(slot)) for slot in slots)
        slot = named.slots.get(other.title, _SEVERAL)
        if slot != _SEVERAL:
            return slot
        return None if named.may_be_named else MISSING


class _Named(NamedTuple):
    """A type's resources by what they may be called."""

    slots: Mapping[str, int]
    may_be_named: bool  # by anything at all


def _named(resources: Iterable[tuple[int, Mapping[str, Json]]]) -> _Named:
    slots: dict[str, int] = {}
    may_be_named = False
    for slot, parameters in resources:
        own = [value for name, value in parameters.items() if name not in _METAPARAMETERS]
        may_be_named = may_be_named or bool(own)
        for value in {value for value in own if isinstance(value, str)}:
            slots[value] = _SEVERAL if value in slots else slot
    return _Named(slots, may_be_named)
