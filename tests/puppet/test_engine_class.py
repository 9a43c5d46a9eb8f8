"""The class that installs the engine: it compiles, changes what it should, and keeps passwords out of sight."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "puppet"
SETTINGS = """{'workers' => 4, 'report_ttl_s' => '30d', 'migrate' => false, 'batch_linger_ms' => 0.5,
  'facts_blocklist' => ['a.*', '"a.b".c', '~^\\d'], 'destination' => "/q\\\\u \\"x\\"\\n\\t"}"""


@pytest.fixture(autouse=True)
def _puppet() -> None:
    if shutil.which("puppet") is None:
        pytest.skip("no Puppet: apt-get install puppet-agent")


def puppet(tmp_path: Path, *arguments: str) -> str:
    modules = tmp_path / "modules"
    modules.mkdir(exist_ok=True)
    if not (modules / "catalog_queue").exists():
        (modules / "catalog_queue").symlink_to(MODULE)
    places = [f"--{name}={tmp_path / name}" for name in ("vardir", "confdir")]
    done = subprocess.run(
        ["puppet", *arguments, *places, f"--modulepath={modules}", "--color=false"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_it_would_do(tmp_path: Path) -> None:
    """Package, settings, credentials, units; no password in what Puppet says."""
    manifest = tmp_path / "site.pp"
    manifest.write_text(
        "class { 'catalog_queue::engine': queue_source => 'stomp://ingest@h', broker_password => Sensitive('geheim'),"
        f" database => Sensitive('password=geheim'), serve => true, settings => {SETTINGS} }}\n"
    )
    said = puppet(tmp_path, "apply", "--noop", "--show_diff", str(manifest))
    for changed in (
        "Package[puppet-ingest]/ensure", "File[/etc/puppet-ingest/ingest.toml]/ensure", "Service[puppet-ingest]/ensure",
        "File[/etc/puppet-ingest/credentials/broker-password]", "File[/etc/puppet-ingest/credentials/database]",
        "Service[puppet-ingest-serve]/ensure",
    ):  # fmt: skip
        assert changed in said
    assert "geheim" not in said


def test_the_settings_that_it_writes_are_read_as_given(tmp_path: Path) -> None:
    """Texts with quotes, backslashes and line ends, numbers, lists, yes and no."""
    text = puppet(
        tmp_path,
        "epp",
        "render",
        "catalog_queue/ingest.toml.epp",
        "--values",
        f"{{'settings' => {SETTINGS}}}",
    )
    assert tomllib.loads(text) == {
        "workers": 4,
        "report_ttl_s": "30d",
        "migrate": False,
        "batch_linger_ms": 0.5,
        "facts_blocklist": ["a.*", '"a.b".c', "~^\\d"],
        "destination": '/q\\u "x"\n\t',
    }
