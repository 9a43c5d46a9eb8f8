"""Whom a reference means that is neither a title nor an alias: a resource that its type names by another parameter.

Puppet has found it when it compiled, so this is asked only where the type is none that this program must know, and hardly ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ingest.core.catalog.model import Json, Ref
from ingest.core.catalog.namevars import OF_PUPPET

# The slot of the resource that a reference means; None: there are some of that type, and nobody can tell which; MISSING: it
# is not in the catalog.
Guess = Callable[[Ref], int | None]
MISSING = -1
_METAPARAMETERS = frozenset(
    ("alias", "audit", "before", "check", "loglevel", "noop", "notify", "require", "schedule", "stage", "subscribe", "tag")
)  # fmt: skip


def guess(other: Ref, of_its_type: Callable[[], Iterable[tuple[int, dict[str, Json]]]]) -> int | None:
    """``of_its_type``: the slots and parameters of the resources of that type."""
    if other.type in OF_PUPPET or "::" in other.type:  # a defined type is named by its title
        return MISSING
    found: list[int] = []
    may_be_named = False
    for slot, parameters in of_its_type():
        own = [value for name, value in parameters.items() if name not in _METAPARAMETERS]
        may_be_named = may_be_named or bool(own)
        if other.title in (value for value in own if isinstance(value, str)):
            found.append(slot)
    if len(found) == 1:
        return found[0]
    return None if may_be_named else MISSING
