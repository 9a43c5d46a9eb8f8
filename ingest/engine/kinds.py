"""What the engine's processes have of the kinds of message (``config/kinds.py``): each loads what it needs of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from pkgutil import resolve_name
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from ingest.config.kinds import kinds
from ingest.core.delivery.work import Quarantine
from ingest.core.metrics import declare

if TYPE_CHECKING:  # a decoder loads nothing of the store
    from ingest.store.connection import Connection
    from ingest.store.lane import KindWriter, Lane, LaneSettings


def works_type() -> Any:
    """The type of what a decoder sends to a writer: a list of work of all kinds, and of what goes to quarantine."""
    classes = [class_ for kind in kinds() for class_ in resolve_name(kind.works)]
    return GenericAlias(list, (reduce(or_, classes, Quarantine),))


def ranks_of_works() -> dict[type, int]:
    """How important each class of work is."""
    return {class_: kind.rank for kind in kinds() for class_ in resolve_name(kind.works)}


def open_lane(connection: Connection, settings: LaneSettings) -> Lane:
    """A lane with the writers of all kinds. Raises Unavailable."""
    from ingest.store.lane import Lane

    writers: dict[type, Any] = {}
    for kind in kinds():
        writer: KindWriter = resolve_name(kind.writer)(settings)
        writers |= dict.fromkeys(resolve_name(kind.works), writer)
    return Lane(connection, writers, settings.quarantine_limits, settings.commit_timeout_s)


def declare_metrics() -> None:
    """In every process, before it counts anything."""
    declare(metric for kind in kinds() for metric in kind.metrics)


def housekeeping() -> list[Callable[[Connection, Any], dict[str, int]]]:
    """What each kind has to be done from time to time. Content goes last: what used it went before."""
    return [resolve_name(kind.housekeeping) for kind in reversed(kinds()) if kind.housekeeping]
