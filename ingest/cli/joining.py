"""``ingest config puppet``: lets the Puppet of this machine publish to the engine that runs here."""

from __future__ import annotations

import contextlib
import grp
import os
from pathlib import Path

import click

from ingest.cli.printing import say
from ingest.cli.settings import with_settings
from ingest.config.loading import Origins
from ingest.core.passwords import hide_passwords
from ingest.errors import Misconfigured

CONFDIRS = (Path("/etc/puppetlabs/puppet"), Path("/etc/puppet"))  # of Puppet's own packages, of Debian's
GROUP = "puppet"  # the Puppet server's
SETTINGS_FILE = "catalog_queue.conf"
MODULE = Path(
    "/usr/share/puppet/modules/catalog_queue"
)  # where our package has it, and Debian's Puppet looks
TEXT = """\
# The Puppet module catalog_queue, written by 'ingest config puppet'. It holds a password.
queue_source = {source}
queue_destination = {destination}
facts_destination = {facts_destination}
reports_destination = {reports_destination}
"""
DATABASE_TEXT = """\
dbserver = {host}
dbport = {port}
dbname = {dbname}
dbuser = {user}
dbpassword = {password}
"""
NO_COLLECTING = (
    "collectors (<<| |>>) have no database to ask: set embedded_database_port in ingest.toml, start the engine anew and run "
    "this again, or write dbserver, dbname, dbuser and dbpassword into it"
)


@click.command("puppet")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@with_settings
def puppet_command(settings: Origins, directory: Path | None) -> None:
    """Let this machine's Puppet publish to the engine that runs here.

    Writes catalog_queue.conf in DIRECTORY, Puppet's confdir, and switches publishing on in the puppet.conf there. A broker
    that is not the embedded one is named with --queue-source, with the login that Puppet servers shall have.
    """
    from ingest.config.puppet_conf import with_publishing

    directory = _confdir(directory)
    puppet_conf = directory / "puppet.conf"
    try:
        before = puppet_conf.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Misconfigured("DIRECTORY", f"{puppet_conf}: {why}") from error
    after = with_publishing(before, puppet_conf)
    text = _module_settings(settings)
    collects = "dbserver" in text
    _write(directory / SETTINGS_FILE, text, 0o640 if _group() is not None else 0o600, _group())
    if after != before:
        _write(puppet_conf, after, 0o644, None)
    source = hide_passwords(text.splitlines()[1].partition(" = ")[2])
    say(
        f"written: {directory / SETTINGS_FILE} and puppet.conf; what a Puppet run sends goes to {source} from now on"
    )
    if not collects:
        say(NO_COLLECTING)
    if "puppetlabs" in directory.parts and MODULE.exists():
        say(f"Puppet has to find the module: ln -s {MODULE} {directory.parent}/code/modules/")


def _confdir(named: Path | None) -> Path:
    if named is not None:
        if not named.is_dir():
            raise Misconfigured(
                "DIRECTORY", f"{named} is not a directory: 'puppet config print confdir' tells"
            )
        return named
    for directory in CONFDIRS:
        if directory.is_dir():
            return directory
    raise Misconfigured(
        "DIRECTORY", f"no Puppet is here in {' or '.join(map(str, CONFDIRS))}: name its confdir"
    )


def _module_settings(settings: Origins) -> str:
    from ingest.cli.settings import DEFAULTS, of_running_engine
    from ingest.engine.running import running_engine

    config, source, database = settings.config, settings.config.queue_source, ""
    if not source:
        engine = running_engine("" if config.instance == DEFAULTS.instance else config.instance)
        if engine is None:
            raise Misconfigured(
                "--queue-source",
                "name the broker, with the login that Puppet servers shall have; no engine runs here",
            )
        source = engine.producers_source
        if not source:
            raise Misconfigured(
                "--queue-source",
                "the engine that runs here has a broker of yours: name it with the login that Puppet servers shall have",
            )
        database = engine.collectors_database
        config = of_running_engine(config)
    destinations = dict(
        zip(("destination", "facts_destination", "reports_destination"), config.destinations, strict=True)
    )
    parts = dict(pair.split("=", 1) for pair in database.split())
    return TEXT.format(source=source, **destinations) + (DATABASE_TEXT.format(**parts) if parts else "")


def _group() -> int | None:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(GROUP).gr_gid
    return None


def _write(file: Path, text: str, mode: int, group: int | None) -> None:
    """Whole or not at all; a file that was there keeps its owner and mode. Raises Misconfigured."""
    import tempfile  # not what every command waits for

    try:
        fd, made = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as opened:
                opened.write(text)
            owner = (-1, -1 if group is None else group)
            with contextlib.suppress(FileNotFoundError):
                found = file.stat()
                owner, mode = (found.st_uid, found.st_gid), found.st_mode & 0o777
            with contextlib.suppress(PermissionError):  # not root: ours then
                os.chown(made, *owner)
            os.chmod(made, mode)
            os.replace(made, file)
        except BaseException:
            os.unlink(made)
            raise
    except OSError as error:
        raise Misconfigured("DIRECTORY", f"cannot write {file}: {error.strerror}") from error
