"""What is packaged: units that are confined, a container that is no root's, a wheel with all of its files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "packaging/systemd").glob("*.service"))
EXPOSURE_MAX = 20  # of systemd-analyze security, in tenths


def unit_lines(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_confined(unit: Path) -> None:
    """systemd's own judgement: 2.0 or better."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_no_password_stands_in_a_unit(unit: Path) -> None:
    """They are credentials; and it is nobody's but its own user's."""
    lines = unit_lines(unit)
    assert "LoadCredential=ingest:/etc/puppet-ingest/credentials" in lines
    assert "User=puppet-ingest" in lines
    assert not any(
        "password" in line.lower() for line in lines if line.startswith(("ExecStart", "Environment"))
    )


def test_the_watchdog_leaves_time_for_a_slow_tick() -> None:
    """The supervisor tells every third of it, once a second at most."""
    lines = unit_lines(ROOT / "packaging/systemd/puppet-ingest.service")
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=30s", "Restart=on-failure"} <= set(lines)


def test_a_wheel_holds_all_that_the_program_reads(tmp_path: Path) -> None:
    """Migrations, statements, grammars, pages: a wheel installs alone."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "ingest"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "out", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("puppet_ingest-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    read = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "ingest").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert read - held == set()


def test_the_package_names_no_setting_that_is_none() -> None:
    """Variables in the container's files are settings of this program."""
    from ingest.config.settings import SETTINGS

    known = {setting.variable for setting in SETTINGS}
    for file in (ROOT / "packaging/container").iterdir():
        words = file.read_text().replace(":", " ").replace("=", " ").replace('"', " ").split()
        assert {word for word in words if word.startswith("INGEST_")} <= known


def test_the_container_is_no_roots() -> None:
    """An own user, a check of health, and a root that nobody writes to."""
    text = (ROOT / "packaging/container/Containerfile").read_text()
    assert "USER 10001" in text
    assert "HEALTHCHECK" in text
    assert "read_only: true" in (ROOT / "packaging/container/compose.yaml").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.11"
