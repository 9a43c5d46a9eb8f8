"""Facts for the tests and benchmarks, and what a message of them does to the database without processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ingest.core.delivery.arrival import believable
from ingest.core.delivery.batching import FUTURE_TOLERANCE
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Descriptor, Outcome
from ingest.core.facts.decoding import FactsDecoder
from ingest.core.facts.work import Factset
from ingest.core.json_text import parse_json
from ingest.engine.kinds import open_lane
from ingest.store.connection import Connection
from ingest.store.lane import LaneSettings
from lab.store_model import LATE, at


def facts_body(
    certname: str,
    minute: int,
    values: Mapping[str, Any],
    packages: Sequence[Sequence[str]] | None = None,
    **more: Any,
) -> bytes:
    """A ``replace facts`` command of version 5."""
    payload = {
        "certname": certname,
        "environment": "production",
        "producer": "puppet.example.com",
        "producer_timestamp": at(minute).isoformat(),
        "values": dict(values),
    } | more
    if packages is not None:
        payload["package_inventory"] = list(packages)
    return json.dumps(
        {"command": "replace facts", "version": 5, "certname": certname, "payload": payload}
    ).encode()


class FactsPipeline:
    """Decoding and writing without processes."""

    def __init__(
        self, connection: Connection, *, blocklist: Sequence[str] = (), volatile: Sequence[str] = ()
    ) -> None:
        self.lane = open_lane(connection, LaneSettings(4000))
        self.decoder = FactsDecoder(
            DecoderSettings(
                cache_bytes_max=64 * 1024 * 1024,
                facts_blocklist=tuple(blocklist),
                facts_volatile=tuple(volatile),
            )
        )
        self._delivery = 0

    def take(self, *bodies: bytes, received_at: datetime | None = None) -> list[Outcome]:
        """Applies the messages as one batch, redoing what has to be; outcomes in the order given."""
        first = received_at or LATE
        works = [
            self.decode(body, received_at=first + timedelta(microseconds=place))
            for place, body in enumerate(bodies)
        ]
        settled = {s.delivery: s.outcome for s in self.lane.apply(works)}
        for work, body in zip(works, bodies, strict=True):
            if settled[work.delivery] is Outcome.REDO:
                again = self.decode(body, received_at=work.received_at, complete=True)
                settled[work.delivery] = self.lane.apply([again])[0].outcome
        return [settled[work.delivery] for work in works]

    def decode(self, body: bytes, *, received_at: datetime = LATE, complete: bool = False) -> Factset:
        self._delivery += 1
        descriptor = Descriptor(self._delivery, 1, 0, len(body), len(body), received_at, {}, complete)
        *_, work = self.decoder.decode(descriptor, memoryview(body), {})
        return believable(work, descriptor, FUTURE_TOLERANCE)


def sent(body: bytes) -> dict[str, Any]:
    """The values that a ``replace facts`` carries."""
    values: dict[str, Any] = parse_json(body)["payload"]["values"]
    return values
