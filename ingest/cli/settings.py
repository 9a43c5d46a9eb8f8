"""What commands have in common: a flag for every setting, and the connections they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ingest.config.settings import SETTINGS, Config, load, redact
from ingest.errors import Misconfigured


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a flag for each setting, and gives the command ``settings``: the configuration and its origins."""

    @click.pass_context
    def command(
        context: click.Context, /, config_file: Path | None, puppet_conf: Path | None, **given: Any
    ) -> Any:
        flags = {setting.name: given.pop(setting.name) for setting in SETTINGS}
        settings = load(flags, os.environ, config_file, puppet_conf)
        return context.invoke(function, settings=settings, **given)

    command.__doc__ = function.__doc__
    command.__click_params__ = list(getattr(function, "__click_params__", ()))  # type: ignore[attr-defined]
    for setting in reversed(SETTINGS):
        name = f"{setting.flag}/--no-{setting.flag[2:]}" if setting.type is bool else setting.flag
        text = f"{setting.help}  [default: {redact(setting.name, setting.default)}]"
        # Values are checked where all sources are: one rule, one message.
        kind = {} if setting.type is bool else {"type": str, "metavar": setting.type.__name__.upper()}
        click.option(name, setting.name, default=None, help=text, **kind)(command)
    click.option(
        "--puppet-conf",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="take queue and database from a puppet.conf",
    )(command)
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="instead of ./ingest.toml",
    )(command)
    command.__name__ = function.__name__
    return command


@contextmanager
def database(config: Config, *, writes: bool = False) -> Iterator[Any]:
    """A connection to the named database; none is embedded for a command. One that only reads may do so on a standby."""
    from ingest.engine.run import open_database

    if not config.database:
        raise Misconfigured("--database", "name the database, as a libpq conninfo or a URI")
    connection = open_database(config, writes=writes)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def publisher(config: Config) -> Iterator[Any]:
    """A connection to the named broker that only sends."""
    from ingest.transport.publisher import Publisher

    if not config.queue_source:
        raise Misconfigured("--queue-source", "name the broker, for example stomp://127.0.0.1:61613")
    opened = Publisher(config)
    try:
        yield opened
    finally:
        opened.close()
