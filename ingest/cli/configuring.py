"""``ingest config``: every setting and where its value comes from; ``ingest config init``: a file to begin with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from ingest.cli.printing import say, say_lines
from ingest.cli.settings import with_settings
from ingest.config.loading import DEFAULT_TOML, Origins, redact
from ingest.config.settings import SETTINGS
from ingest.errors import Misconfigured


@click.group("config", invoke_without_command=True)
@with_settings
@click.pass_context
def config_group(context: click.Context, /, settings: Origins) -> None:
    """Print every setting, and where its value comes from; 'config init' writes a file to begin with."""
    if context.invoked_subcommand is not None:
        return
    width = max(len(setting.name) for setting in SETTINGS)
    for setting in SETTINGS:
        value = getattr(settings.config, setting.name)
        shown = json.dumps(redact(setting.name, value)) if setting.type is str else json.dumps(value)
        say(f"{setting.name:<{width}} = {shown}  # {settings.origins[setting.name]}")


@config_group.command("init")
@click.argument("file", default=str(DEFAULT_TOML), type=click.Path(path_type=Path, allow_dash=True))
@click.option("--force", is_flag=True, help="also where there is a file already")
@click.option("--generic", is_flag=True, help="for other machines: no default that depends on this one")
@with_settings
def init_command(settings: Origins, file: Path, force: bool, generic: bool) -> None:
    """Write an ingest.toml with every setting, what it is for and its default; FILE may be - for standard output.

    What is given as a flag, a variable or an ingest.toml here is in force in it; everything else is commented out:

    \b
    ingest config init /etc/puppet-ingest/ingest.toml --database 'host=db user=ingest dbname=puppet'
    """
    from ingest.config.writing import as_toml

    text = as_toml(settings.config, settings.origins, is_for_here=not generic)
    if str(file) == "-":
        say_lines(text)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(file, flags, 0o600), "w", encoding="utf-8") as opened:  # a password may stand in it
            opened.write(text)
    except FileExistsError:
        raise Misconfigured(
            "FILE", f"{file} is there already: name another, or --force to write over it"
        ) from None
    except (OSError, ValueError) as error:
        raise Misconfigured(
            "FILE", f"cannot write {file}: {getattr(error, 'strerror', None) or error}"
        ) from error
    say(f"written: {file}; 'ingest doctor --config {file}' tells whether it works")
