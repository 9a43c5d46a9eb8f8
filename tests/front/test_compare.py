"""``ingest compare`` by itself: over TLS, what it cannot ask, and what it says of a node that differs. Our own front is the peer:
the real PuppetDB is in test_switching."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.certificates import Certificates
from lab.front import Front
from lab.servers import Postgres
from tests.front.conftest import Serve
from tests.store.test_query import fleet


@pytest.fixture
def other(postgres: Postgres) -> Iterator[str]:
    """Another database, with nothing in it."""
    postgres.execute("postgres", "CREATE DATABASE other TEMPLATE template_ingest")
    yield postgres.conninfo("other")
    postgres.execute("postgres", "DROP DATABASE other WITH (FORCE)")


def compare(url: str, database: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", "compare", url, "--database", database, "--settle", "0", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)


def test_nothing_differs_from_oneself(front: Front, database: str) -> None:
    """Exit code 0, and one line that says how much was compared; the same in JSON."""
    told = compare(f"http://127.0.0.1:{front.port}", database)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"compared 3 nodes with http://127.0.0.1:{front.port}: 3 equal, 0 differ\n"
    told = compare(f"http://127.0.0.1:{front.port}/", database, "--json", "--since", "7d")
    assert json.loads(told.stdout) == {
        "compared": 3, "equal": 3, "differ": 0, "only_there": 0, "only_here": 0, "by_kind": {},
    }  # fmt: skip


def test_each_node_that_is_missing_is_named(front: Front, other: str) -> None:
    """Exit code 1."""
    told = compare(f"http://127.0.0.1:{front.port}", other)
    assert (told.returncode, told.stderr) == (1, "")
    *nodes, counts = told.stdout.splitlines()
    assert len([line for line in nodes if not line.startswith(" ")]) == 3
    assert any(line.startswith("  state: ") and line.endswith(" there, unknown here") for line in nodes)
    assert counts.endswith("0 equal, 3 differ (3 in state)")


def test_over_tls_each_knows_the_other(
    serve: Serve, connection: Connection, database: str, tmp_path: Path
) -> None:
    """With a certificate of the authority's; whoever has none, or believes another authority, is told in a line."""
    fleet(connection)
    files = Certificates(tmp_path)
    server, client, ca = map(str, (files.server_file, files.client_file, files.ca_file))
    front = serve("--ssl-cert", server, "--ssl-key", server, "--ssl-ca-cert", ca)
    url = f"https://localhost:{front.port}"
    told = compare(url, database, "--cert", client, "--key", client, "--ca", ca)
    assert (told.returncode, told.stderr) == (0, "")
    for flags, word in (
        (["--ca", ca], "does not answer"),
        (["--cert", client, "--ca", str(files.other_ca_file)], "certificate verify failed"),
        (["--cert", str(files.other_client_file), "--ca", ca], "does not answer"),
        (["--cert", "/nowhere", "--ca", ca], "URL: its certificates"),
        (["--ca", "/nowhere"], "URL: its certificates"),
    ):
        told = compare(url, database, *flags)
        assert (told.returncode, told.stdout) == (2, ""), flags
        assert word in told.stderr, flags
        assert told.stderr.count("\n") == 1, flags


@pytest.mark.parametrize("url", ["puppetdb", "http://", "ftp://a", "https://a/pdb/query", "http://a:b"])
def test_what_is_no_address_is_told(url: str) -> None:
    """Before anything is asked."""
    told = compare(url, "host=127.0.0.1 port=9 dbname=x")
    assert told.returncode == 2
    assert "is not like https://" in told.stderr or "is no address" in told.stderr


def test_what_is_no_puppetdb_is_told(database: str, broker: str) -> None:
    """Something else answers, or nothing that is HTTP."""
    told = compare(f"http://{broker.removeprefix('stomp://')}", database)
    assert told.returncode == 2
    assert "does not answer" in told.stderr
