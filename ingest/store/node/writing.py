"""Deactivations, from a writer's side."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.delivery.work import Deactivate, Outcome, Settled
from ingest.store.engines import Placing
from ingest.store.lane import LaneSettings
from ingest.store.node.nodes import read_nodes
from ingest.store.queries import query
from ingest.store.session import Session


class DeactivationWriter:
    """Takes nodes out of what collectors see, unless something newer of them is stored."""

    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._placing = Placing(settings.asking)

    def write(self, session: Session, works: Sequence[Deactivate]) -> list[Settled]:
        works = self._placing.place(session, works)
        newest: dict[str, Deactivate] = {}
        for command in sorted(works, key=lambda c: c.producer_timestamp):
            newest[command.certname] = command
        read_nodes(session, "read_node_ids", list(newest))
        session.cursor.execute(
            query("deactivate_nodes"),
            {
                "certnames": list(newest),
                "producer_timestamps": [c.producer_timestamp for c in newest.values()],
                "received_at": [c.received_at for c in newest.values()],
                "future_tolerance": self._future_tolerance,
            },
        )
        done = {row[0] for row in session.cursor}
        session.counts.rows_written += len(done)
        return [
            Settled(
                c.delivery,
                Outcome.SUPERSEDED
                if newest[c.certname] is not c
                else Outcome.STORED
                if c.certname in done
                else Outcome.STALE,
            )
            for c in works
        ]

    def committed(self) -> None:
        pass  # it remembers nothing

    def rolled_back(self) -> None:
        pass

    def forget(self) -> None:
        pass
