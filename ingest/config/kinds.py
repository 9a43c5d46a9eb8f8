"""The kinds of message, and all that is done with each of them.

A kind is a folder in ``core``, a folder in ``store``, and a line here. Another distribution brings one by an entry point
in the group ``puppet_ingest.kinds`` that leads to a ``Kind``. What a kind needs is named, not imported: a decoder
shall not load what only writers use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

import msgspec

from ingest.core.delivery.commands import PUPPETDB
from ingest.core.delivery.importance import CATALOG, FACTS, REPORT, Importance
from ingest.core.metrics import Declared

GROUP = "puppet_ingest.kinds"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind. The values with a colon are ``module:name``, as of entry points."""

    name: str
    commands: Mapping[str, range]  # PuppetDB's command names, and the versions of each that are understood
    rank: int = CATALOG  # whom it goes before, and whose queue it has: core/delivery/importance.py
    works: str  # the classes of what its decoder gives a writer
    decoder: str  # a callable that takes DecoderSettings and gives a KindDecoder
    writer: str  # a callable that takes LaneSettings and gives a KindWriter
    housekeeping: str = (
        ""  # takes a connection and HousekeepingSettings; deletes what is too old, counts it by name
    )
    takes_unnamed: bool = False  # also a body in which nobody names a command; one kind does
    metrics: tuple[Declared, ...] = ()  # of another distribution's; ours stand in core/metrics.py


def _puppetdb(command: str) -> Mapping[str, range]:
    return {command: PUPPETDB[command]}


KINDS = (
    Kind(
        name="catalog",
        commands=_puppetdb("replace catalog"),
        works="ingest.core.delivery.work:CATALOG_WORKS",
        decoder="ingest.core.catalog.decoding:open_decoder",
        writer="ingest.store.catalog.writing:CatalogWriter",
        housekeeping="ingest.store.catalog.housekeeping:keep_catalogs",
        takes_unnamed=True,
    ),
    Kind(
        name="facts",
        commands=_puppetdb("replace facts"),
        rank=FACTS,
        works="ingest.core.facts.work:FACTS_WORKS",
        decoder="ingest.core.facts.decoding:FactsDecoder",
        writer="ingest.store.facts.writing:FactsWriter",
    ),
    Kind(
        name="deactivation",
        commands=_puppetdb("deactivate node"),
        works="ingest.core.delivery.work:DEACTIVATION_WORKS",
        decoder="ingest.core.node.decoding:DeactivationDecoder",
        writer="ingest.store.node.writing:DeactivationWriter",
        housekeeping="ingest.store.housekeeping:end_silent_nodes",
    ),
    Kind(
        name="expiration",
        commands=_puppetdb("configure expiration"),
        works="ingest.core.node.expiration:EXPIRATION_WORKS",
        decoder="ingest.core.node.expiration:ExpirationDecoder",
        writer="ingest.store.node.expiration:ExpirationWriter",
    ),
    Kind(
        name="inputs",
        commands=_puppetdb("replace catalog inputs"),
        works="ingest.core.node.inputs:INPUTS_WORKS",
        decoder="ingest.core.node.inputs:InputsDecoder",
        writer="ingest.store.node.inputs:InputsWriter",
    ),
    # The last: what makes a new day waits for whoever else does, and nobody shall wait for it meanwhile.
    Kind(
        name="report",
        commands=_puppetdb("store report"),
        rank=REPORT,
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


@cache
def importance() -> Importance:
    """How important messages are, by what their kinds say."""
    return Importance({command: kind.rank for kind in kinds() for command in kind.commands})
