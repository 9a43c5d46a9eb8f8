"""The plain reference: what the database must hold, as a dict of nodes. And a small generator of catalogs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import to_wire
from ingest.core.delivery.arrival import believable
from ingest.core.delivery.batching import FUTURE_TOLERANCE
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import (
    UNPLACED,
    Claim,
    Deactivate,
    Descriptor,
    EarlyContents,
    Full,
    Outcome,
    SectionDigests,
    Settled,
)
from ingest.engine.decoders import Decoders
from ingest.engine.kinds import open_lane
from ingest.store.catalog.reading import read_catalog
from ingest.store.connection import Connection
from ingest.store.lane import LaneSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
LATE = START + timedelta(days=3650)  # after any time that a catalog of these tests names


def wire_body(
    certname: str,
    minute: int,
    resources: Sequence[Mapping[str, Any]],
    edges: Sequence[tuple[int, int, str]] = (),
    *,
    timed: bool = True,
) -> bytes:
    """A ``replace catalog`` command; edges are (source, target, relationship) by place in ``resources``. Without ``timed`` it
    does not say when it was made."""

    def ref(place: int) -> dict[str, Any]:
        return {"type": resources[place]["type"], "title": resources[place]["title"]}

    payload = {
        "certname": certname,
        "version": str(minute),
        "environment": "production",
        "transaction_uuid": f"00000000-0000-0000-0000-{minute:012d}",
        "catalog_uuid": None,
        "code_id": None,
        "job_id": None,
        "producer": "puppet.example.com",
        "producer_timestamp": at(minute).isoformat(),
        "resources": list(resources),
        "edges": [{"source": ref(s), "target": ref(t), "relationship": r} for s, t, r in edges],
    }
    if not timed:
        del payload["producer_timestamp"]
    return json.dumps(
        {"command": "replace catalog", "version": 9, "certname": certname, "payload": payload}
    ).encode()


def resource(title: str, *, type_: str = "File", **members: Any) -> dict[str, Any]:
    base = {"type": type_, "title": title, "exported": False, "tags": ["a", "b"], "file": "/m.pp", "line": 1}
    return base | {"parameters": {}} | members


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


class Pipeline:
    """Decoding and writing without processes: what a message does to the database.

    ``early_bytes``: so much of new content goes early, and arrives at once, with the rest, or never, in turn.
    """

    def __init__(self, connection: Connection, *, thin: bool = False, early_bytes: int | None = None) -> None:
        self.lane = open_lane(connection, LaneSettings(1000))
        self.early: list[EarlyContents] = []
        self.decoding = Decoders(
            DecoderSettings(cache_bytes_max=4 * 1024 * 1024, thin=thin, early_bytes=early_bytes)
        )
        self.known: dict[str, SectionDigests] = {}
        self._delivery = 0

    def take(self, *bodies: bytes, received_at: datetime | None = None) -> list[Outcome]:
        """Applies the messages as one batch, redoing what has to be; outcomes in the order given. They came in that
        order, the first one at ``received_at``."""
        first = received_at or LATE
        works = [
            self.decode(body, received_at=first + timedelta(microseconds=place))
            for place, body in enumerate(bodies)
        ]
        return self.settle(works, bodies)

    def settle(self, works: Sequence[Claim | Full | Deactivate], bodies: Sequence[bytes]) -> list[Outcome]:
        """Applies what was decoded, perhaps a while ago, as one batch; redoes what has to be."""
        settled = {s.delivery: s.outcome for s in self._apply(works)}
        for work, body in zip(works, bodies, strict=True):
            if settled[work.delivery] is Outcome.REDO:
                again = self.decode(
                    body,
                    complete=True,
                    received_at=work.received_at,
                    redelivered=work.producer_timestamp == UNPLACED,
                )
                settled[work.delivery] = self._apply([again])[0].outcome
        return [settled[work.delivery] for work in works]

    def _apply(self, works: Sequence[Claim | Full | Deactivate]) -> list[Settled]:
        settled = self.lane.apply([*self.early, *works])
        self.early.clear()
        for work in works:
            outcome = {s.delivery: s.outcome for s in settled}[work.delivery]
            if isinstance(work, Claim | Full) and outcome in (Outcome.STORED, Outcome.UNCHANGED):
                self.known[work.header.certname] = work.sections
        return settled

    def decode(
        self,
        body: bytes,
        *,
        complete: bool = False,
        received_at: datetime | None = None,
        redelivered: bool = False,
    ) -> Claim | Full | Deactivate:
        self._delivery += 1
        headers = {"redelivered": str(redelivered).lower()}
        descriptor = Descriptor(
            self._delivery, 1, 0, len(body), len(body), received_at or LATE, headers, complete
        )
        *early, work = self.decoding.decode(descriptor, memoryview(body), self.known)
        for piece in early:
            self._take_early(piece)
        counts: Claim | Full | Deactivate = believable(work, descriptor, FUTURE_TOLERANCE)
        return counts

    def _take_early(self, early: EarlyContents) -> None:
        if early.delivery % 3 == 0:
            assert self.lane.apply([early]) == []
        elif early.delivery % 3 == 1:
            self.early.append(early)


def expected(body: bytes, arrived_at: datetime = LATE) -> dict[str, Any]:
    """What must be read back after this body was stored."""
    skimmed = skim(body, {}, arrived_at)
    assert isinstance(skimmed, Skim)
    return to_wire(normalise(skimmed))


def stored(connection: Connection, certname: str) -> dict[str, Any]:
    return to_wire(read_catalog(connection, certname))
