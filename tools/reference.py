"""Writes the reference from what the program declares of itself: settings, metrics, views, commands; as pages and as man pages.

``python -m tools.reference DIRECTORY`` is what ``make docs`` and the package's build call, so that nothing of it can be out of
date. The columns of the views are those of a database that is migrated for it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import click

from ingest.cli.main import cli
from ingest.config.setting import Setting
from ingest.config.settings import SETTINGS
from ingest.config.writing import default_text, sections
from ingest.core.metrics import Declared, Metric
from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.servers import Postgres

_VIEW = re.compile(r"((?:^--[^\n]*\n)*)^CREATE (?:OR REPLACE )?VIEW ([\w.]+)", re.MULTILINE)
OF_SETTINGS = {setting.name for setting in SETTINGS}


class View(NamedTuple):
    name: str
    purpose: str
    columns: list[tuple[str, str]]  # name, type


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ingest-reference-") as made:
        place = Path(made)
        place.chmod(0o755)
        server = Postgres(place)
        server.start()
        try:
            with connect(server.conninfo("postgres")) as connection:
                migrate(connection)
                found = views(connection)
        finally:
            server.stop()
    pages = {
        "settings": settings_page(),
        "metrics": metrics_page(),
        "views": views_page(found),
        "commands": commands_page(),
    }
    for name, text in pages.items():
        (directory / f"{name}.md").write_text(text, encoding="utf-8")


def man_pages(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ingest.1").write_text(commands_man(), encoding="utf-8")
    (directory / "ingest.toml.5").write_text(settings_man(), encoding="utf-8")


# Settings


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Each is a flag (`--batch-linger-ms 50`), a variable (`INGEST_BATCH_LINGER_MS=50`) and a key of `ingest.toml`",
        "(`batch_linger_ms = 50`). Flags win over variables, those over a unit's credentials, those over `ingest.toml`.",
        "Times may be written as `30m`, sizes as `64MiB`.",
    ]
    for title, settings in sections():
        lines += ["", f"## {title}"]
        for each in settings:
            default = f"Default: `{default_text(each)}`. {_limits(each)}".rstrip()
            lines += ["", f"### `{each.name}`", "", _escape(_sentence(each)), "", default]
    return "\n".join(lines) + "\n"


def _sentence(setting: Setting) -> str:
    return setting.about.help[0].upper() + setting.about.help[1:] + "."


def _limits(setting: Setting) -> str:
    words = []
    if setting.about.choices:
        words.append("One of " + ", ".join(f"`{choice}`" for choice in setting.about.choices) + ".")
    if setting.limits.ge is not None:
        words.append(f"From {setting.limits.ge:.10g} to {setting.limits.le:.15g}.")
    words.append("Read again at SIGHUP." if setting.about.reloads else "Needs a restart.")
    return " ".join(words)


def _escape(text: str) -> str:
    """For Markdown: what looks like markup is none."""
    return re.sub(r"([*_<>~^\[\]|])", r"\\\1", text)


# Metrics


def metrics() -> list[Declared]:
    """Each once: counters that differ only in a label are one."""
    found: dict[str, Declared] = {}
    for metric in Metric:
        found.setdefault(metric.declared.name, metric.declared)
    return list(found.values())


def metrics_page() -> str:
    lines = ["# Metrics", "", "Served at `/metrics` of `--metrics-port`. `process` is a label of all of them.", "",
             "| name | kind | of | what it is | how to read it |", "|---|---|---|---|---|"]  # fmt: skip
    for each in metrics():
        outcomes = [m.declared.outcome for m in Metric if m.declared.name == each.name and m.declared.outcome]
        more = f" `outcome`: {', '.join(outcomes)}." if outcomes else ""
        cells = (f"`{each.name}`", each.kind, each.stage, _escape(each.help) + more, _escape(each.read))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# Views


def views(connection: Connection) -> list[View]:
    """Those of the migrations, as the newest leaves them, with what its text says before it."""
    purposes: dict[str, str] = {}
    for file in sorted(files("ingest.store").joinpath("migrations").iterdir(), key=lambda file: file.name):
        for comment, name in _VIEW.findall(file.read_text(encoding="utf-8")):
            text = " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
            purposes[name] = text or purposes.get(name, "")
    rows = connection.execute(_COLUMNS).fetchall()
    columns: dict[str, list[tuple[str, str]]] = {}
    for schema, view, column, kind in rows:
        name = f"{schema}.{view}" if schema == "storeconfigs" else str(view)
        columns.setdefault(name, []).append((str(column), str(kind)))
    return [View(name, purposes.get(name, ""), found) for name, found in columns.items()]


_COLUMNS = """
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY n.nspname, c.relname, a.attnum
"""


def views_page(found: Iterable[View]) -> str:
    lines = ["# Views", "", "What readers use; a role gets them by `ingest migrate --grant-read-to ROLE`. The tables under them",
             "may change with every version."]  # fmt: skip
    for view in found:
        lines += ["", f"## `{view.name}`", ""]
        lines += [_escape(view.purpose), ""] if view.purpose else []
        lines += [
            "| column | type |",
            "|---|---|",
            *(f"| `{name}` | {kind} |" for name, kind in view.columns),
        ]
    return "\n".join(lines) + "\n"


# Commands


def commands(
    group: click.Group = cli, path: tuple[str, ...] = ("ingest",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def _usage(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(path))
    return " ".join((" ".join(path), *command.collect_usage_pieces(context)))


def _own_options(command: click.Command) -> list[tuple[str, str]]:
    """Without those of the settings, which every command has."""
    context = click.Context(command)
    return [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in OF_SETTINGS
        if (record := parameter.get_help_record(context)) is not None
    ]


def _help(command: click.Command) -> str:
    return re.sub(r"\n[ \t]+", "\n", (command.help or "").replace("\b\n", "")).strip()


def commands_page() -> str:
    lines = [
        "# Commands",
        "",
        "Every command takes every [setting](settings.md) as a flag, too; `--help` lists both.",
    ]
    for path, command in commands():
        lines += [
            "",
            f"## `{' '.join(path)}`",
            "",
            f"    {_usage(path, command)}",
            "",
            _escape(_help(command)),
            "",
        ]
        options = _own_options(command)
        if options:
            lines += [
                "| option | |",
                "|---|---|",
                *(f"| `{name}` | {_escape(text)} |" for name, text in options),
            ]
    return "\n".join(lines) + "\n"


# Man pages


def _roff(text: str) -> str:
    return "\n".join(line.replace("\\", "\\e").replace("-", "\\-").lstrip(".'") for line in text.splitlines())


def commands_man() -> str:
    lines = ['.TH INGEST 1 "" "puppet\\-ingest"', ".SH NAME",
             "ingest \\- keeps PostgreSQL equal to the catalogs, facts and reports that Puppet sends",
             ".SH SYNOPSIS", ".B ingest", "COMMAND [OPTIONS]", ".SH COMMANDS"]  # fmt: skip
    for path, command in commands():
        lines += [".SS " + _roff(_usage(path, command)), _roff(_help(command))]
        for name, text in _own_options(command):
            lines += [".TP", ".B " + _roff(name), _roff(text) or "\\&"]
    lines += [".SH EXIT STATUS", "0: done. 2: a setting is wrong. 3: broker, database or engine cannot be reached.",
             "5: refused as things are. 7: a signal ended it before it had finished.",
             ".SH SEE ALSO", ".BR ingest.toml (5)"]  # fmt: skip
    return "\n".join(lines) + "\n"


def settings_man() -> str:
    lines = ['.TH INGEST.TOML 5 "" "puppet\\-ingest"', ".SH NAME", "ingest.toml \\- settings of puppet\\-ingest",
             ".SH DESCRIPTION", "Each is a key here, a variable INGEST_NAME and a flag.",
             "Flags win over variables, those over keys."]  # fmt: skip
    for title, settings in sections():
        lines.append(f'.SH "{_roff(title).upper()}"')
        for each in settings:
            default = f"Default: {default_text(each)}. {_limits(each)}".replace("`", "")
            lines += [".TP", ".B " + _roff(each.name), _roff(_sentence(each)), _roff(default)]
    lines += [".SH SEE ALSO", ".BR ingest (1)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "--man":
        man_pages(Path(sys.argv[2]))
    else:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        main(Path(sys.argv[1]))
