"""What catalogs were made from, from a writer's side: the inputs are written when they changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ingest.core.delivery.work import Outcome, Settled
from ingest.core.node.inputs import ReplaceInputs
from ingest.store.engines import Placing
from ingest.store.lane import LaneSettings
from ingest.store.node.nodes import reactivate, read_nodes
from ingest.store.session import Session


class InputsWriter:
    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._placing = Placing(settings.asking)

    def write(self, session: Session, works: Sequence[ReplaceInputs]) -> list[Settled]:
        works = self._placing.place(session, works)
        newest: dict[str, ReplaceInputs] = {}
        for one in sorted(works, key=lambda work: (work.producer_timestamp, work.digest)):
            newest[one.certname] = one
        stored = {row[0]: row[1:] for row in read_nodes(session, "read_inputs", sorted(newest))}
        outcomes: dict[int, Outcome] = {}
        same: list[tuple[object, ...]] = []
        asleep: list[tuple[int, datetime, datetime]] = []
        for certname, one in newest.items():
            node_id, is_out, since, digest = stored[certname]
            if (
                since is not None
                and one.producer_timestamp < since <= one.received_at + self._future_tolerance
            ):
                outcomes[one.delivery] = Outcome.STALE
            elif digest is not None and bytes(digest) == one.digest:
                outcomes[one.delivery] = Outcome.UNCHANGED
                same.append((node_id, one.producer_timestamp, one.received_at, one.catalog_uuid))
            else:
                outcomes[one.delivery] = Outcome.STORED
                row = (node_id, one.producer_timestamp, one.received_at, one.catalog_uuid, one.digest)
                session.execute("put_inputs", [*row, list(one.types), list(one.names)])
            if is_out and outcomes[one.delivery] is not Outcome.STALE:
                asleep.append((node_id, one.producer_timestamp, one.received_at))
        if same:
            session.execute("touch_inputs", [list(column) for column in zip(*same, strict=True)])
        reactivate(session, asleep, self._future_tolerance)
        return [Settled(one.delivery, outcomes.get(one.delivery, Outcome.SUPERSEDED)) for one in works]

    def committed(self) -> None:
        pass  # it remembers nothing

    def rolled_back(self) -> None:
        pass

    def forget(self) -> None:
        pass
