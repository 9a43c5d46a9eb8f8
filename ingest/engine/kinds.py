"""The kinds of message that the engine stores, and all that it does with each of them.

A kind is a folder in ``core``, a folder in ``store``, and a line here. Another distribution brings one by an entry point
in the group ``puppet_ingest.kinds`` that leads to a ``Kind``. What a kind needs is named, not imported: a decoder
shall not load what only writers use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, reduce
from importlib.metadata import entry_points
from operator import or_
from pkgutil import resolve_name
from types import GenericAlias
from typing import TYPE_CHECKING, Any

import msgspec

from ingest.core.delivery.importance import CATALOG, rank_of_command
from ingest.core.delivery.work import Quarantine
from ingest.core.metrics import Declared, declare

if TYPE_CHECKING:  # a decoder loads nothing of the store
    from ingest.store.connection import Connection
    from ingest.store.lane import KindWriter, Lane, LaneSettings

GROUP = "puppet_ingest.kinds"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind. The values with a colon are ``module:name``, as of entry points."""

    name: str
    commands: Mapping[str, range]  # PuppetDB's command names, and the versions of each that are understood
    works: str  # the classes of what its decoder gives a writer
    decoder: str  # a callable that takes DecoderSettings and gives a KindDecoder
    writer: str  # a callable that takes LaneSettings and gives a KindWriter
    housekeeping: str = (
        ""  # takes a connection and HousekeepingSettings; deletes what is too old, counts it by name
    )
    takes_unnamed: bool = False  # also a body in which nobody names a command; one kind does
    metrics: tuple[Declared, ...] = ()  # of another distribution's; ours stand in core/metrics.py


KINDS = (
    Kind(
        name="catalog",
        commands={"replace catalog": range(4, 10)},
        works="ingest.core.delivery.work:CATALOG_WORKS",
        decoder="ingest.core.catalog.decoding:open_decoder",
        writer="ingest.store.catalog.writing:CatalogWriter",
        housekeeping="ingest.store.housekeeping:delete_unused_content",
        takes_unnamed=True,
    ),
    Kind(
        name="facts",
        commands={"replace facts": range(2, 6)},
        works="ingest.core.facts.work:FACTS_WORKS",
        decoder="ingest.core.facts.decoding:FactsDecoder",
        writer="ingest.store.facts.writing:FactsWriter",
    ),
    Kind(
        name="deactivation",
        commands={"deactivate node": range(1, 4)},
        works="ingest.core.delivery.work:DEACTIVATION_WORKS",
        decoder="ingest.core.node.decoding:DeactivationDecoder",
        writer="ingest.store.node.writing:DeactivationWriter",
        housekeeping="ingest.store.housekeeping:end_silent_nodes",
    ),
    Kind(
        name="expiration",
        commands={"configure expiration": range(1, 2)},
        works="ingest.core.node.expiration:EXPIRATION_WORKS",
        decoder="ingest.core.node.expiration:ExpirationDecoder",
        writer="ingest.store.node.expiration:ExpirationWriter",
    ),
    Kind(
        name="inputs",
        commands={"replace catalog inputs": range(1, 2)},
        works="ingest.core.node.inputs:INPUTS_WORKS",
        decoder="ingest.core.node.inputs:InputsDecoder",
        writer="ingest.store.node.inputs:InputsWriter",
    ),
    # The last: what makes a new day waits for whoever else does, and nobody shall wait for it meanwhile.
    Kind(
        name="report",
        commands={"store report": range(3, 9)},
        works="ingest.core.report.work:REPORT_WORKS",
        decoder="ingest.core.report.decoding:ReportDecoder",
        writer="ingest.store.report.writing:ReportWriter",
        housekeeping="ingest.store.report.housekeeping:end_old_reports",
    ),
)


@cache
def kinds() -> tuple[Kind, ...]:
    """Ours, then those of other distributions by their names: the order in which a batch is written."""
    others = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return (*KINDS, *(point.load() for point in others))


def works_type() -> Any:
    """The type of what a decoder sends to a writer: a list of work of all kinds, and of what goes to quarantine."""
    classes = [class_ for kind in kinds() for class_ in resolve_name(kind.works)]
    return GenericAlias(list, (reduce(or_, classes, Quarantine),))


def ranks_of_works() -> dict[type, int]:
    """How important each class of work is: by the commands of its kind."""
    return {
        class_: max(map(rank_of_command, kind.commands), default=CATALOG)
        for kind in kinds()
        for class_ in resolve_name(kind.works)
    }


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
