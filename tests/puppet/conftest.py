"""Collects the Ruby unit tests as what they are, one item each; fixtures around real Puppet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from tests.puppet.site import MODULES, Site

RUBY = shutil.which("ruby")
MINITEST_LINE = re.compile(r"^(Test\w+)#(test_\w+) = [\d.]+ s = ([.FES])$", re.MULTILINE)


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    if file_path.suffix == ".rb" and file_path.name.startswith("test_"):
        return RubyFile.from_parent(parent, path=file_path)
    return None


class RubyFile(pytest.File):
    """One Ruby file; it runs once, at its first item, and each item reads its own line of the result."""

    def collect(self) -> Iterator[pytest.Item]:
        for name in re.findall(r"^  def (test_\w+)", self.path.read_text(encoding="utf-8"), re.MULTILINE):
            yield RubyTest.from_parent(self, name=name)

    @cached_property
    def output(self) -> str:
        assert RUBY is not None
        done = subprocess.run(
            [RUBY, "-w", self.path, "--verbose"], capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"RUBYOPT": ""},
        )  # fmt: skip
        return done.stdout + done.stderr

    @cached_property
    def results(self) -> dict[str, str]:
        return {test: result for _, test, result in MINITEST_LINE.findall(self.output)}

    def story(self, name: str) -> str:
        """What minitest says about one test; all of its output where it got no further than loading."""
        parts = re.split(r"^ +\d+\) ", self.output, flags=re.MULTILINE)
        return next(
            (part for part in parts if re.search(rf"#{name}\b[: ]", part.partition("\n\n")[0])), self.output
        )


class RubyTest(pytest.Item):
    parent: RubyFile

    def runtest(self) -> None:
        if RUBY is None:
            pytest.skip("no ruby: apt-get install ruby")
        result = self.parent.results.get(self.name, "did not run")
        if result == "S":
            pytest.skip("the Ruby test says skip")
        assert result == ".", self.parent.story(self.name)
        # -w: a warning about our own files is an error, as in the Python tests.
        warnings = [
            line for line in self.parent.output.splitlines() if "warning:" in line and "puppet_x" in line
        ]
        assert not warnings

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return f"{self.name}: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


@pytest.fixture(scope="session")
def puppet_installed() -> None:
    if RUBY is None or shutil.which("puppet") is None:
        pytest.skip("no puppet: apt-get install puppet-agent ruby-pg")
    if not MODULES.is_dir():
        pytest.skip("no types: apt-get install puppet-module-puppetlabs-{sshkeys,host,cron}-core")


@pytest.fixture
def site(puppet_installed: None, tmp_path: Path) -> Iterator[Site]:
    """A Puppet server's directories, with the module installed and no code yet."""
    made = Site(tmp_path / "site")
    yield made
    made.stop()
