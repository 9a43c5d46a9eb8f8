"""All of it together: half a minute here, ten minutes with ``make test-hostile-long``."""

from __future__ import annotations

import os

from ingest.store.connection import Connection
from lab.engine import Start
from tests.hostile.soak import FLAGS, Soak

SECONDS = float(os.environ.get("INGEST_TEST_HOSTILE_SECONDS", "30"))
SEED = int(os.environ.get("INGEST_TEST_HOSTILE_SEED", "1"))


def test_good_catalogs_between_hostile_messages_and_kills(
    start: Start, broker: str, connection: Connection
) -> None:
    """Every good one is stored, every process stays below its bound, nobody dies but of a kill, exit code 0."""
    outcome = Soak(start(*FLAGS), broker, connection, SEED).run(SECONDS)
    print(outcome)
    assert outcome.complaints() == []
    assert outcome.good > 0
    assert outcome.hostile
