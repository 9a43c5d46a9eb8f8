"""``ingest capacity`` as a person has it: reports from a saved calibration, one line for what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from ingest.capacity import calibrate as calibrating
from ingest.capacity import calibration as saved
from ingest.capacity import plan as planning
from ingest.capacity.calibration import Calibration
from ingest.cli import capacity as command
from ingest.cli.main import cli
from ingest.config.settings import Config
from ingest.errors import IngestError, Misconfigured, Refused
from lab.store_model import Pipeline, resource, wire_body
from tests.capacity import made_up


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "LOAD_MESSAGES", 500)
    monkeypatch.setattr(planning, "LIMIT_MESSAGES", 500)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "calibration.json"
    saved.save(made_up.calibration(), found)
    return found


def run(*arguments: str | Path) -> str:
    """What it prints; raises what ``ingest`` turns into one line and an exit code."""
    done = CliRunner().invoke(cli, ["capacity", *map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def refusal(*arguments: str | Path) -> str:
    """The one line."""
    with pytest.raises((IngestError, click.UsageError)) as caught:
        run(*arguments)
    found = caught.value
    text = found.format_message() if isinstance(found, click.UsageError) else str(found)
    assert "\n" not in text
    return text


def test_a_report_is_written_for_each_output(file: Path, tmp_path: Path) -> None:
    """The ending decides which form; without any, Markdown goes to the terminal."""
    fleet = ("--calibration", file, "--nodes", "3000", "--interval", "30m")
    outputs = [tmp_path / f"plan.{ending}" for ending in ("html", "md", "json")]
    said = run(*fleet, *(word for output in outputs for word in ("--output", output)))
    assert said.splitlines() == [f"report: {output}" for output in outputs]
    assert outputs[0].read_text().startswith("<!doctype html>")
    assert outputs[1].read_text().startswith("# Capacity for 3,000 nodes every 30 min")
    assert json.loads(outputs[2].read_text())["base"]["nodes"] == 3000
    assert run(*fleet).startswith("# Capacity for 3,000 nodes every 30 min")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--nodes", "0"), "--nodes: 0 is no fleet: at least 1"),
        (("--nodes", "-5"), "--nodes: -5 is no fleet: at least 1"),
        (("--nodes", "99999999"), "--nodes: 99999999 is more than 10000000"),
        ((), "--nodes: say how many nodes there are, or --from-database"),
        (("--nodes", "5", "--from-database"), "--nodes: say how many nodes there are, or --from-database"),
        (
            ("--nodes", "5", "--interval", "10s"),
            "--interval: 10 s is not longer than a run of the agent, 20 s",
        ),
        (("--nodes", "5", "--interval", "2m", "--run", "3m"), "--interval: 120 s is not longer than a run"),
        (("--nodes", "5", "--interval", "soon"), "'soon' is not a duration like 30m"),
        (("--nodes", "5", "--interval", "0s"), "'0s' is not a time"),
        (("--nodes", "5", "--unchanged", "1.2"), "--unchanged: 1.2 is not a share: between 0 and 1"),
        (("--nodes", "5", "--unchanged", "nan"), "--unchanged: nan is not a share"),
        (("--nodes", "5", "--upgrade", "-0.1"), "--upgrade: -0.1 is not a share"),
        (("--nodes", "5", "--unchanged", "0.9", "--parameters", "0.2"), "are 1.1, not 1"),
        (("--nodes", "5", "--catalog-size", "10"), "--catalog-size: 10 bytes is not a catalog"),
        (("--nodes", "5", "--catalog-size", "100MiB"), "over body_bytes_max=67108864"),
        (("--nodes", "5", "--catalog-size", "big"), "'big' is not a number of bytes"),
        (("--nodes", "5", "--network", "fast"), "'fast' is not a rate like 1Gbit"),
        (("--nodes", "5", "--network", "nanGbit"), "'nanGbit' is not a rate"),
        (("--nodes", "5", "--disk", "0"), "--disk"),
        (("--nodes", "5", "--roles", "6"), "--roles: 6 roles for 5 nodes"),
        (("--nodes", "5", "--growth", "-2"), "--growth: -2 is not between -1 (no fleet left) and 100"),
        (("--nodes", "5", "--growth", "inf"), "--growth: inf"),
        (("--nodes", "5", "--output", "plan.pdf"), "--output: plan.pdf ends in none of .html, .md, .json"),
        (("--nodes", "5", "--output", "/nowhere/plan.md"), "--output: cannot write /nowhere/plan.md"),
        (("--from-database",), "--database: name the database"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], wanted: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Impossible fleets and targets; told before anything is measured, with a calibration and without."""
    monkeypatch.setattr(command, "_calibrate", lambda *_, **__: pytest.fail("measured all the same"))
    assert wanted in refusal("--calibration", file, *arguments)
    assert wanted in refusal(*arguments)


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda text: text.replace('"schema": 2', '"schema": 7'), "has schema 7, this program reads 2"),
        (lambda text: text[: len(text) // 2], "is no calibration"),
        (lambda text: "", "is no calibration"),
        (lambda text: "[1, 2]", "is no calibration"),
        (lambda text: "{}", "is no calibration: it has no schema version"),
        (lambda text: text.replace('"rounds"', '"circles"'), "is no calibration"),
        (lambda text: text.replace('"cores": 2', '"cores": "two"'), "is no calibration"),
    ],
)
def test_another_calibration_is_one_line(spoil: Callable[[str], str], wanted: str, file: Path) -> None:
    """Another schema version, a torn file, another document."""
    file.write_text(spoil(file.read_text()))
    text = refusal("--calibration", file, "--nodes", "5")
    assert text.startswith(f"--calibration: {file}")
    assert wanted in text


def test_a_calibration_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """A missing file, and a directory."""
    assert "No such file" in refusal("--calibration", tmp_path / "none", "--nodes", "5")
    assert "cannot read" in refusal("--calibration", tmp_path, "--nodes", "5")


def test_without_the_extra_it_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in: the report and the calibration."""
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "simpy" else object())
    for arguments in (("--calibration", file, "--nodes", "5"), ("calibrate", "--output", "x.json")):
        assert "simpy is missing: pip install 'puppet-ingest[capacity]'" in refusal(*arguments)


def test_templates_that_are_none_are_one_line(tmp_path: Path) -> None:
    """An empty directory, and JSON that is no catalog."""
    measure = ("calibrate", "--output", tmp_path / "x.json", "--templates", tmp_path / "catalogs")
    (tmp_path / "catalogs").mkdir()
    assert "holds neither *.json nor */run-1/catalog-wire.json" in refusal(*measure)
    (tmp_path / "catalogs" / "a.json").write_text('{"payload": []}')
    assert "is not a catalog in wire form" in refusal(*measure)


def test_the_fleet_is_read_from_the_database(
    database: str, connection: object, file: Path, tmp_path: Path
) -> None:
    """Nodes, interval (twice the median age) and sizes as stored; nothing is written there."""
    assert "the database holds no catalogs" in refusal(
        "--calibration", file, "--from-database", "--database", database
    )
    pipeline = Pipeline(connection)  # type: ignore[arg-type]
    for node in range(11):
        resources = [resource(f"/{node}/{number}") for number in range(20)]
        pipeline.take(wire_body(f"n{node}.example.com", 6 * node, resources))
    output = tmp_path / "plan.json"
    run("--calibration", file, "--from-database", "--database", database, "--output", output)
    fleet = json.loads(output.read_text())["fleet"]
    assert fleet["nodes"] == 11
    assert fleet["interval_s"] == 2 * 30 * 60
    calibration = made_up.calibration()
    mean_resources = calibration.sizes.resources / calibration.sizes.nodes
    assert fleet["body_bytes"] == pytest.approx(1_250_000 * 20 / mean_resources, rel=0.01)
    assert fleet["database_bytes"] > 1_000_000


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        (("--nodes", "5"), ""),
        (("--nodes", "5", "--database", "host=flag"), ""),
        (("calibrate", "--output", "c.json"), ""),
        (("calibrate", "--output", "c.json", "--database", "host=flag"), "host=flag"),
    ],
)
def test_the_database_at_work_is_not_measured(
    arguments: tuple[str, ...], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``calibrate --database`` goes to a server that is there already, whatever other settings name one."""
    measured: list[str] = []

    def calibrate(config: Config, *_: object, **__: object) -> Calibration:
        measured.append(config.database)
        return made_up.calibration()

    monkeypatch.setenv("INGEST_DATABASE", "host=at-work")
    monkeypatch.setattr(calibrating, "calibrate", calibrate)
    run(*arguments)
    assert measured == [server]


def test_a_calibration_read_back_is_the_one_saved(file: Path) -> None:
    """Nothing is lost in the file; one that cannot be written is told."""
    assert saved.load(file) == made_up.calibration()
    with pytest.raises(Misconfigured, match="cannot write"):
        saved.save(made_up.calibration(), file / "below")


def test_a_schema_change_cannot_be_forgotten() -> None:
    """Whoever changes the record's shape raises SCHEMA and changes this line."""
    fields = {
        struct.__name__: [field.name for field in msgspec.structs.fields(struct)]
        for struct in (saved.Calibration, saved.Runs, saved.Round, saved.Sample, saved.Sizes, saved.Machine)
    }
    assert (saved.SCHEMA, sum(map(len, fields.values()))) == (2, 61)
    assert Refused  # the way an empty database is told
