"""All catalogs of a directory, in both forms, through the whole engine: for fleets that are not in this repository.

INGEST_TEST_CATALOGS names a directory of NODE/run-K/catalog-wire.json and catalog-native.json (K from 1 to 4).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.core.catalog.wire import canonical_json
from lab.engine import Start, publish
from lab.store_model import expected

DIRECTORY = os.environ.get("INGEST_TEST_CATALOGS")
MEMBERS = ("certname", "version", "environment", "resources", "edges")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(DIRECTORY is None, reason="INGEST_TEST_CATALOGS names no directory"),
]


def bodies(round_: int, form: str) -> list[bytes]:
    files = sorted(Path(DIRECTORY or "").glob(f"*/run-{round_}/catalog-{form}.json"))
    assert files, f"no catalogs of round {round_} in {DIRECTORY}"
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize("form", ["wire", "native"])
@pytest.mark.parametrize("rounds", [(1, 2, 3, 4), (4, 3, 2, 1)], ids=["forwards", "backwards"])
def test_what_show_prints_is_the_canonical_wire_form(
    start: Start, broker: str, database: str, form: str, rounds: tuple[int, ...]
) -> None:
    """After every round each node's catalog is that of the newest run, whichever form it came in."""
    engine = start("--workers", "2")
    sent = 0
    for round_ in rounds:
        # A native catalog's time is its version, which two runs in one second share: the header tells.
        for native_or_wire, wire in zip(bodies(round_, form), bodies(round_, "wire"), strict=True):
            timestamp = json.loads(wire)["payload"]["producer_timestamp"]
            publish(broker, native_or_wire, headers={"producer_timestamp": timestamp})
            sent += 1
        engine.wait_settled(sent)
        newest = round_ if rounds[0] == 1 else 4
        for wire in bodies(newest, "wire"):
            wanted = expected(wire)
            found = _shown(database, wanted["certname"])
            for member in MEMBERS:
                assert canonical_json(found[member]) == canonical_json(wanted[member])
    assert engine.settled()["quarantined"] == 0


def _shown(database: str, certname: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "show", certname, "--database", database],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found
