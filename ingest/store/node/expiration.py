"""Which nodes may expire, from a writer's side."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.delivery.work import Outcome, Settled
from ingest.core.node.expiration import ConfigureExpiration
from ingest.store.engines import Placing
from ingest.store.lane import LaneSettings
from ingest.store.node.nodes import read_nodes
from ingest.store.queries import query
from ingest.store.session import Session


class ExpirationWriter:
    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._placing = Placing(settings.asking)

    def write(self, session: Session, works: Sequence[ConfigureExpiration]) -> list[Settled]:
        works = self._placing.place(session, works)
        newest: dict[str, ConfigureExpiration] = {}
        for command in sorted(works, key=lambda one: one.producer_timestamp):
            newest[command.certname] = command
        read_nodes(session, "read_node_ids", list(newest))
        session.cursor.execute(
            query("configure_expirations"),
            {
                "certnames": list(newest),
                "expires": [one.expires for one in newest.values()],
                "producer_timestamps": [one.producer_timestamp for one in newest.values()],
                "future_tolerance": self._future_tolerance,
            },
        )
        done = {row[0] for row in session.cursor}
        session.counts.rows_written += len(done)
        session.execute(
            "reactivate_configured_nodes",
            {"certnames": list(done), "future_tolerance": self._future_tolerance},
        )
        return [Settled(one.delivery, _outcome(one, newest, done)) for one in works]

    def committed(self) -> None:
        pass  # it remembers nothing

    def rolled_back(self) -> None:
        pass

    def forget(self) -> None:
        pass


def _outcome(command: ConfigureExpiration, newest: dict[str, ConfigureExpiration], done: set[str]) -> Outcome:
    if newest[command.certname] is not command:
        return Outcome.SUPERSEDED
    return Outcome.STORED if command.certname in done else Outcome.STALE
