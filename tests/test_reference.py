"""The reference is what the program declares of itself: nothing is missing in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from ingest.cli.main import cli
from ingest.config.settings import SETTINGS
from ingest.core.metrics import Metric
from ingest.store.connection import Connection
from tools.reference import (
    commands,
    commands_man,
    commands_page,
    man_pages,
    metrics_page,
    settings_man,
    settings_page,
    views,
    views_page,
)

ROOT = Path(__file__).parent.parent


def test_every_setting_is_described() -> None:
    """In the page and in the man page, with nothing of the machine that made them."""
    for setting in SETTINGS:
        assert f"### `{setting.name}`" in settings_page()
        assert f".B {setting.name}".replace("-", "\\-") in settings_man()
    assert str(Path.home()) not in settings_page() + settings_man()


def test_every_metric_is_described() -> None:
    """One row each, however many outcomes it has."""
    rows = re.findall(r"^\| `(\w+)` \|", metrics_page(), re.MULTILINE)
    assert sorted(rows) == sorted({metric.declared.name for metric in Metric})


def test_every_command_is_described() -> None:
    """With its own options; those of the settings are a page of their own."""
    page = commands_page()
    paths = [" ".join(path) for path, _ in commands()]
    assert len(paths) > len(cli.commands)
    assert [path for path in paths if f"## `{path}`\n" not in page] == []
    assert "--grant-to ROLE" in page
    assert "--batch-linger-ms" not in page
    assert all(f".SS {path}".replace("-", "\\-") in commands_man() for path in paths)


def test_every_view_is_described(connection: Connection) -> None:
    """With its columns and types, and no table."""
    found = {view.name: view for view in views(connection)}
    assert {"exported_resources", "reports", "inventory", "storeconfigs.hosts"} <= found.keys()
    assert "catalogs" not in found
    assert ("certname", "text") in found["exported_resources"].columns
    assert [view.name for view in found.values() if not view.columns] == []
    assert all(f"## `{name}`" in views_page(found.values()) for name in found)


def test_man_reads_the_pages(tmp_path: Path) -> None:
    """Without a warning."""
    man_pages(tmp_path)
    for page in tmp_path.iterdir():
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], capture_output=True, text=True, check=True
        )  # fmt: skip
        assert done.stderr == ""


def test_every_link_of_the_site_leads_somewhere(tmp_path: Path) -> None:
    """mkdocs is strict: pages, anchors, the list of pages."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("reference"))
    (tmp_path / "docs/reference").mkdir()
    pages = {
        "settings": settings_page(),
        "metrics": metrics_page(),
        "commands": commands_page(),
        "views": views_page([]),
    }
    for name, text in pages.items():
        (tmp_path / f"docs/reference/{name}.md").write_text(text)
    (tmp_path / "mkdocs.yml").write_bytes((ROOT / "mkdocs.yml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", tmp_path / "mkdocs.yml"],
        capture_output=True, text=True, check=False, env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site/install/index.html").exists()
    # Nothing is fetched from elsewhere when somebody reads it.
    pages_html = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    assert re.findall(r'(?:src="|rel="(?:stylesheet|preconnect)"[^>]*href=")https?://[^"]*', pages_html) == []
