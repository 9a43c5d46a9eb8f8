"""Commands find the engine that runs here, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ingest.cli.settings import of_running_engine
from ingest.config.settings import Config
from ingest.engine.running import RunningEngine, _directory, running_engine, told_of
from ingest.errors import Misconfigured
from lab.servers import embedded_broker


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this test's own."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


def ingest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_an_engine_is_found_while_it_runs(runtime: Path) -> None:
    """And not longer; its file is for its user alone."""
    config = Config(database="host=db", queue_source="stomp://u:p@broker:61613", metrics_port=1234)
    with told_of(config):
        assert running_engine("") == RunningEngine(
            "main", os.getpid(), "stomp://u:p@broker:61613", "host=db", "127.0.0.1", 1234
        )
        assert (runtime / "main.engine").stat().st_mode & 0o777 == 0o600
        assert runtime.stat().st_mode & 0o777 == 0o700
    assert running_engine("") is None
    assert not list(runtime.iterdir())


def test_what_a_killed_engine_left_is_nobodys(runtime: Path) -> None:
    """No lock is on it; the next engine of that name takes the file."""
    with told_of(Config(database="host=old")):
        left = (runtime / "main.engine").read_bytes()
    (runtime / "main.engine").write_bytes(left)
    assert running_engine("") is None
    with told_of(Config(database="host=new")):
        found = running_engine("")
        assert found is not None
        assert found.database == "host=new"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"instance": 1}', b"\xff\xfe", b"null"])
def test_a_file_that_is_none_of_ours_is_passed_over(runtime: Path, content: bytes) -> None:
    """Also one that somebody holds a lock on."""
    import fcntl

    runtime.mkdir(mode=0o700)
    (runtime / "x.engine").write_bytes(content)
    with (runtime / "x.engine").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running_engine("") is None


def test_of_several_one_is_named() -> None:
    """Without a name a command cannot know which is meant, and says which there are."""
    with told_of(Config(instance="a", database="host=a")), told_of(Config(instance="b", database="host=b")):
        with pytest.raises(Misconfigured, match="--instance: several engines run here: a, b"):
            running_engine("")
        found = running_engine("b")
        assert found is not None
        assert found.database == "host=b"
        assert running_engine("c") is None


def test_a_second_engine_of_the_name_runs_without_being_found(capsys: pytest.CaptureFixture[str]) -> None:
    """It says so; the first is still the one that is found after the second has ended."""
    with told_of(Config(database="host=first")):
        with told_of(Config(database="host=second")):
            pass
        found = running_engine("")
        assert found is not None
        assert found.database == "host=first"
    assert "another engine has this --instance" in capsys.readouterr().out


@pytest.mark.parametrize("instance", ["", "a/b", "..", ".hidden", "a b", "é", "x" * 65, "a\n"])
def test_an_instance_that_cannot_be_a_file_is_refused(instance: str) -> None:
    """By name, before anything starts."""
    with pytest.raises(Misconfigured, match="--instance"), told_of(Config(instance=instance)):
        pass


def test_a_directory_that_others_can_write_to_is_not_looked_at(runtime: Path) -> None:
    """Somebody might name a database of his own there."""
    with told_of(Config(database="host=db")):
        runtime.chmod(0o777)
        assert running_engine("") is None
        runtime.chmod(0o700)
        assert running_engine("") is not None


def test_commands_take_what_they_are_not_told(tmp_path: Path) -> None:
    """The broker from the engine's file; a flag wins; one line says whom they talk to."""
    (tmp_path / "a.json").write_text("{}")
    with embedded_broker() as url, told_of(Config(queue_source=url)):
        done = ingest("publish", str(tmp_path / "a.json"))
        assert done.stdout == "published 1, each with the broker's receipt\n", done.stderr
        assert done.stderr == f"ingest: talking to the engine 'main', process {os.getpid()}\n"
        named = ingest("publish", str(tmp_path / "a.json"), "--queue-source", url)
        assert (named.returncode, named.stderr) == (0, "")
    nobody = ingest("publish", str(tmp_path / "a.json"))
    assert nobody.returncode == 2
    assert "--queue-source: name the broker" in nobody.stderr


def test_nothing_is_taken_of_an_engine_with_other_metrics() -> None:
    """Of several, the one whose metrics are named; of one that has others, not its database: its fleet is another."""
    watched = partial(of_running_engine, by_metrics=True)
    a, b = (
        Config(instance=name, database=f"host={name}", metrics_port=port)
        for name, port in (("a", 1), ("b", 2))
    )
    with told_of(a), told_of(b):
        assert watched(Config(metrics_port=2)).database == "host=b"
        assert watched(Config(metrics_port=3)).database == ""
        assert watched(Config(metrics_port=1, database="host=c")).database == "host=c"
        with pytest.raises(Misconfigured, match="several"):
            watched(Config())
    with told_of(a):
        assert watched(Config(metrics_port=2)).database == ""
        assert watched(Config(metrics_port=2, instance="a")).database == "host=a"


def test_a_status_without_an_engine_says_so() -> None:
    """With the address that was asked."""
    with told_of(Config(metrics_host="127.0.0.1", metrics_port=1)):
        asked = ingest("status")
    assert asked.returncode == 3
    assert "http://127.0.0.1:1" in asked.stderr


@pytest.mark.parametrize("session", ["", "missing", "open"])
def test_without_a_private_place_it_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    """Where no session's directory is there, or others may write in it, and never in /tmp by a name that others can guess;
    nothing is said about it."""
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 4711)
    monkeypatch.setattr("ingest.engine.running._is_private", lambda directory: False)
    if session:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / session))
    assert _directory() == tmp_path / "state/puppet-ingest/run"


def test_a_command_says_nothing_of_missing_directories(tmp_path: Path) -> None:
    """Not a word about XDG_RUNTIME_DIR in the terminal."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ingest", "show", "a", "--instance", "nobodys"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    # There may be an engine of the same user: then the command says so in a line, and whom it asked has no such node.
    assert all(line.startswith("ingest: ") for line in done.stderr.splitlines())
    assert done.stderr
    assert "XDG" not in done.stderr


def test_root_writes_in_no_directory_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/run/puppet-ingest is root's own while it is nobody else's; the one of a service's user is only read."""
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("ingest.engine.running.SERVICE_DIRECTORY", tmp_path / "puppet-ingest")
    owner: dict[str, int | None] = {"is": None}
    monkeypatch.setattr("ingest.engine.running._owner", lambda _: owner["is"])
    for owner["is"], place in (
        (None, "puppet-ingest"),
        (0, "puppet-ingest"),
        (4711, "state/puppet-ingest/run"),
    ):
        assert _directory() == tmp_path / place
