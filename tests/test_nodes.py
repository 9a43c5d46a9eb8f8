"""``ingest nodes``, ``ingest node`` and ``ingest completion`` as they are typed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from tests.store.test_freshness import FLEET, play
from tests.test_cli import complaint, ingest


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nodes_are_a_table_for_people_and_lines_for_programs(database: str, connection: Connection) -> None:
    """The longest silent first; the same nodes in both; nothing is cut where there is no terminal."""
    play(connection)
    connection.execute("UPDATE nodes SET certname = %s WHERE certname = 'back'", ["a\x1b[31m" + "long" * 60])
    done = ingest("nodes", "--database", database)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split() == ["NODE", "STATE", "HEARD", "EVERY", "CATALOG", "LAG", "REPORT"]
    assert len(lines) == len(FLEET) + 1
    assert "stopped" in next(line for line in lines if "overdue" in line)
    assert "long" * 60 in done.stdout.decode()
    assert "\x1b" not in done.stdout.decode()
    found = [
        json.loads(line) for line in ingest("nodes", "--database", database, "--json").stdout.splitlines()
    ]
    assert [node["silent_s"] for node in found] == sorted((node["silent_s"] for node in found), reverse=True)
    assert {node["certname"]: node["state"] for node in found}["stopped"] == "overdue"


def test_scripts_go_by_the_exit_code(database: str, connection: Connection) -> None:
    """4 when there are such nodes and that was asked for, else 0; a wrong flag is 2, with its remedy in the line."""
    play(connection)
    assert ingest("nodes", "--database", database, "--overdue", "--exit-code").returncode == 4
    assert ingest("nodes", "--database", database, "--overdue").returncode == 0
    assert ingest("nodes", "--database", database, "--failed", "--exit-code").returncode == 0
    assert "2h" in complaint(ingest("nodes", "--database", database, "--stale", "soon"), 2)
    assert "--overdue" in complaint(ingest("nodes", "--overdu"), 2)
    assert "forget" in complaint(ingest("node", "forgt", "a"), 2)


def test_a_node_is_one_page(database: str, connection: Connection) -> None:
    """By its name alone; what is not known is refused."""
    play(connection)
    done = ingest("node", "stopped", "--database", database)
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "overdue" in text
    assert "30 min" in text
    assert "1 resources" in text
    found = json.loads(ingest("node", "stopped", "--database", database, "--json").stdout)
    assert (found["state"], found["usual_s"], found["catalog"]["resources"]) == ("overdue", 1800, 1)
    assert "nobody.example" in complaint(ingest("node", "nobody.example", "--database", database), 5)


def test_a_node_is_deactivated_brought_back_and_forgotten(database: str, connection: Connection) -> None:
    """Forgetting must be meant: where nobody can be asked it takes --yes."""
    play(connection)
    where = ["--database", database]
    assert ingest("node", "deactivate", "new", *where).returncode == 0
    assert json.loads(ingest("node", "new", "--json", *where).stdout)["state"] == "deactivated"
    assert json.loads(ingest("node", "reactivate", "new", "--json", *where).stdout)["certname"] == "new"
    assert json.loads(ingest("node", "new", "--json", *where).stdout)["state"] == "active"
    assert "--yes" in complaint(ingest("node", "forget", "new", *where), 2)
    assert ingest("node", "forget", "new", "--yes", *where).returncode == 0
    assert "new" in complaint(ingest("node", "forget", "new", "--yes", *where), 5)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_given_what_they_complete_by(shell: str) -> None:
    """The script asks our own program, which answers with commands and flags."""
    script = ingest("completion", shell).stdout.decode()
    assert "_INGEST_COMPLETE" in script
    if shell == "bash":
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    asked = {
        "_INGEST_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "ingest nodes --ov",
        "COMP_CWORD": "--ov" if shell == "fish" else "2",
    }
    assert "--overdue" in ingest(environment=asked).stdout.decode()
