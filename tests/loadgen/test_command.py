"""``bench/loadgen`` as a person runs it, against the real engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.store.connection import Connection, connect
from lab.engine import Engine
from lab.servers import embedded_broker
from tools.loadgen.cli import main
from tools.loadgen.results import Results

SCRIPT = Path(__file__).parents[2] / "bench" / "loadgen"

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LOADGEN_PYTHON": sys.executable}


def loadgen(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=cwd,
        env=ENVIRONMENT,
    )  # fmt: skip


@pytest.fixture
def broker(database: str, tmp_path: Path) -> Iterator[str]:
    """With an engine that stores what comes."""
    with embedded_broker() as url:
        engine = Engine(url, database, "--workers", "1", log=tmp_path / "log")
        try:
            engine.wait_ready()
            yield url
        finally:
            engine.kill()


def test_a_fleet_is_sent_stored_and_compared(broker: str, database: str, tmp_path: Path) -> None:
    """All forms and all changes: everything is seen, nothing differs, and the report says so."""
    done = loadgen(
        "--nodes", "12", "--interval", "60s", "--speed", "20", "--runs", "2", "--formats", "wire,native,legacy",
        "--mix", "unchanged=0.25,parameters=0.25,upgrade=0.25,lines=0.25", "--resources", "150",
        "--broker", broker, "--database", database,
        "--output", tmp_path / "results", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 nodes compared with what was sent: no differences." in done.stdout
    results = Results(tmp_path / "results")
    runs = {(entry.node, entry.run) for entry in results.sent()}
    assert len(runs) == 24
    assert {(entry.node, entry.run) for entry in results.stored()} == runs
    page = (tmp_path / "results" / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    again = loadgen("report", tmp_path / "results", cwd=tmp_path)
    assert again.stdout == done.stdout


def test_a_difference_is_found(broker: str, database: str, connection: Connection, tmp_path: Path) -> None:
    """A database that lost one resource of one node while the fleet ran makes the command fail, by name."""
    with connect(database) as vandal:
        vandal.execute(
            """CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.resource_ids := NEW.resource_ids[1:cardinality(NEW.resource_ids) - 1] || NEW.resource_ids[1];
                 RETURN NEW;
               END $$"""
        )
        vandal.execute(
            "CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON catalog_resources FOR EACH ROW "
            "WHEN (NEW.node_id = 1 AND NEW.chunk = 0) EXECUTE FUNCTION lose()"
        )
    done = loadgen(
        "--nodes", "3", "--interval", "20s", "--speed", "20", "--resources", "150",
        "--broker", broker, "--database", database,
        "--output", tmp_path / "results", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 nodes compared with what was sent: 1 differences." in done.stdout
    assert "the stored rows are not what was sent" in done.stderr


def test_a_database_with_newer_catalogs_of_the_fleet_is_refused(
    broker: str, database: str, tmp_path: Path
) -> None:
    """Its nodes' first catalogs would be stale there; at once after a run the next one is fine."""
    flags = ("--nodes", "2", "--interval", "10s", "--speed", "10", "--resources", "150", "--broker", broker,
             "--database", database)  # fmt: skip
    for results in ("one", "other"):
        done = loadgen(*flags, "--output", tmp_path / results, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    refused = loadgen(*flags, "--scenario", "backlog", "--output", tmp_path / "backlog", cwd=tmp_path)
    assert refused.returncode == 2
    assert "has catalogs of 2 of these nodes that are newer" in refused.stderr


def test_ctrl_c_leaves_a_report(tmp_path: Path) -> None:
    """What was sent until then is in it, and it says that it is not all."""
    with embedded_broker() as url:
        process = subprocess.Popen(
            [SCRIPT, "--nodes", "50", "--interval", "30m", "--speed", "60", "--resources", "150", "--no-prime",
             "--broker", url, "--output", tmp_path / "results"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        wait_for_lines(process, tmp_path / "results" / "sent.jsonl")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The run was interrupted" in output
    assert loadgen("report", tmp_path / "results", cwd=tmp_path).stdout == output
    assert len(Results(tmp_path / "results").sent()) < 50


def test_a_broker_that_goes_away_is_one_line_and_leaves_results(tmp_path: Path) -> None:
    """Exit code 3; what was sent until then can be reported."""
    with embedded_broker() as url:
        process = subprocess.Popen(
            [SCRIPT, "--nodes", "300", "--speed", "60", "--resources", "150", "--no-prime", "--broker", url,
             "--output", tmp_path / "results"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        wait_for_lines(process, tmp_path / "results" / "sent.jsonl")
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 3, complaint
    assert complaint.splitlines()[-1].startswith("loadgen: ")
    assert "Traceback" not in complaint
    assert "The run was interrupted" in loadgen("report", tmp_path / "results", cwd=tmp_path).stdout


def wait_for_lines(process: subprocess.Popen[str], file: Path) -> None:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_generator_alone_says_what_it_can_do(tmp_path: Path) -> None:
    """Into a sink: every catalog got a receipt, and the rate is printed."""
    done = loadgen("--nodes", "30", "--drop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["catalogs"] == 30
    assert found["per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "0"], "--nodes"),
        (["--nodes", "many"], "--nodes"),
        (["--interval", "soon"], "--interval"),
        (["--interval", "0s"], "--interval"),
        (["--speed", "0"], "--speed"),
        (["--nodes", "3000", "--speed", "100000"], "run again after 18 ms"),
        (["--nodes", "30000", "--speed", "1000"], "16667 catalogs a second"),
        (["--runs", "-1"], "--runs"),
        (["--runs", "1", "--duration", "60s"], "--duration"),
        (["--duration", "long"], "--duration"),
        (["--resources", "3"], "--resources"),
        (["--scenario", "sunny"], "--scenario"),
        (["--mix", "unchanged=2"], "--mix"),
        (["--formats", "xml"], "--formats"),
        (["--kinds", "catalog,inputs"], "--kinds"),
        (["--templates", "/nowhere"], "--templates"),
        (["--nodes", "1", "--broker", "http://x"], "--broker: "),
        (["report", "/nowhere"], "DIR"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """It names the flag; the exit code is that of a wrong setting."""
    monkeypatch.setattr(sys, "argv", ["bench/loadgen", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("loadgen: ")
    assert words in line
