"""What commands have in common: a flag for every setting, and the connections they need."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec

from ingest.cli.printing import complain
from ingest.config.loading import Origins, load, redact
from ingest.config.settings import RETIRED, SETTINGS, Config
from ingest.errors import Misconfigured

DEFAULTS = Config()
TOLD = "ingest.passwords_told"
_PASSFILE = re.compile(r"\bpassfile\s*=\s*(?:'(?:[^'\\]|\\.)*'|[^&\s]*)")
# Where a password may stand instead, by setting.
BETTER = {
    "database": "use a passfile (passfile=FILE in it, or PGPASSFILE), the variable INGEST_DATABASE, or ingest.toml",
    "http_database": "use a passfile (passfile=FILE in it, or PGPASSFILE), the variable INGEST_HTTP_DATABASE, or ingest.toml",
    "queue_source": "use --queue-password-file, the variable INGEST_QUEUE_SOURCE, or ingest.toml",
}


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a flag for each setting, and gives the command ``settings``: the configuration and its origins."""

    @click.pass_context
    def command(
        context: click.Context, /, config_file: Path | None, puppet_conf: Path | None, **given: Any
    ) -> Any:
        flags = {name: given.pop(name) for name in (*[setting.name for setting in SETTINGS], *RETIRED)}
        settings = load(flags, os.environ, config_file, puppet_conf)
        for line in settings.retired if context.info_name != "run" else ():  # that one logs it
            complain(f"warning: {line}")
        return _invoke(context, function, settings, given)

    command.__doc__ = function.__doc__
    # click turns them round: the command's own come first in its help.
    own = getattr(function, "__click_params__", ())
    command.__click_params__ = [*reversed(_options()), *own]  # type: ignore[attr-defined]
    command.__name__ = function.__name__
    return command


@cache
def _options() -> list[click.Option]:
    """One for each setting, of all commands alike: a thousand would be made, most of them for commands that nobody called."""
    options = [
        click.Option(
            ["--config", "config_file"], type=click.Path(path_type=Path), metavar="FILE",
            help="instead of ./ingest.toml",
        ),
        click.Option(
            ["--puppet-conf"], type=click.Path(path_type=Path), metavar="FILE",
            help="take queue and database from a puppet.conf",
        ),
    ]  # fmt: skip
    for setting in SETTINGS:
        name = f"{setting.flag}/--no-{setting.flag[2:]}" if setting.type is bool else setting.flag
        text = f"{setting.about.help}  [default: {redact(setting.name, setting.default)}]"
        # Values are checked where all sources are: one rule, one message.
        kind: Any = {} if setting.type is bool else {"type": str, "metavar": setting.type.__name__.upper()}
        options.append(click.Option([name, setting.name], default=None, help=text, **kind))
    for name in RETIRED:
        options.append(click.Option([f"--{name.replace('_', '-')}", name], default=None, hidden=True))
    return options


def _invoke(context: click.Context, function: Callable[..., Any], settings: Origins, given: Any) -> Any:
    """Calls the command; what it said of itself comes before what there is to say of its passwords."""
    try:
        result = context.invoke(function, settings=settings, **given)
    except Exception as error:
        for line in _exposed(context, settings):
            error.add_note(line)
        raise
    for line in _exposed(context, settings):
        complain(f"warning: {line}")
    return result


def _exposed(context: click.Context, settings: Origins) -> list[str]:
    """A line for each flag with a password: it stands in the process list, for everybody on this machine."""
    if context.meta.get(TOLD):
        return []
    return [
        f"the password in {setting.flag} stands in the process list for everybody: {BETTER[setting.name]}"
        for setting in SETTINGS
        if setting.about.is_secret
        and settings.origins[setting.name] == setting.flag
        and _tells_a_password(setting.name, getattr(settings.config, setting.name))
    ]


def _tells_a_password(name: str, value: str) -> bool:
    """Where a passfile lies is not shown either, but it is what is recommended."""
    rest = _PASSFILE.sub("", value)
    return redact(name, rest) != rest


def warn_of_passwords(settings: Origins) -> None:
    """The same in the log, and at the beginning, for a command that runs until it is ended."""
    import structlog

    from ingest.observe.log import configure

    context = click.get_current_context()
    lines = _exposed(context, settings)
    context.meta[TOLD] = True
    if lines:
        configure(settings.config.log_format, settings.config.log_level, process="supervisor")
    for line in lines:
        structlog.get_logger().warning("password_on_command_line", reason=line)


def of_running_engine(config: Config, *, by_metrics: bool = False, may_be_away: bool = False) -> Config:
    """With what is not named as the engine that runs here has it, and a line that says so. ``by_metrics``: where an address of
    metrics is named, nothing is taken of an engine that has another. Raises Misconfigured for an ``--instance`` that does not
    run here, unless it ``may_be_away``."""
    from ingest.engine.running import RunningEngine, require_running, running_engine

    named = config.instance if config.instance != DEFAULTS.instance else ""
    metrics = (config.metrics_host, config.metrics_port)
    is_named = by_metrics and metrics != (DEFAULTS.metrics_host, DEFAULTS.metrics_port)
    engine = running_engine(named, metrics if is_named and not named else None)
    if engine is None:
        if named and not is_named and not may_be_away:
            require_running(named)
        return config
    complain(f"talking to the engine {engine.instance!r}, process {engine.pid}")
    taken = {
        name: getattr(engine, name)
        for name in RunningEngine.__struct_fields__
        if name in DEFAULTS.__struct_fields__
        and name != "instance"
        and getattr(config, name) == getattr(DEFAULTS, name)
        and not (
            config.queue_source and name.endswith("destination")
        )  # another broker's have their own names
    }
    return msgspec.structs.replace(config, **taken)


@contextmanager
def database(config: Config, *, writes: bool = False) -> Iterator[Any]:
    """A connection to the named database, or to that of the engine that runs here; none is embedded for a command. One that
    only reads may do so on a standby."""
    from ingest.engine.run import open_database

    if not config.database:
        config = of_running_engine(config)
    if not config.database:
        raise Misconfigured(
            "--database", "name the database, as a libpq conninfo or a URI; no engine runs here"
        )
    connection = open_database(config, writes=writes)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def publisher(config: Config) -> Iterator[Any]:
    """A connection to the named broker, or to that of the engine that runs here, that only sends."""
    from ingest.transport.publisher import Publisher

    if not config.queue_source:
        config = of_running_engine(config)
    if not config.queue_source:
        raise Misconfigured(
            "--queue-source", "name the broker, for example stomp://127.0.0.1:61613; no engine runs here"
        )
    opened = Publisher(config)
    try:
        yield opened
    finally:
        opened.close()
