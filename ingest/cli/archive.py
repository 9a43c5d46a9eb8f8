"""``ingest export`` and ``ingest import``: all that is stored, in the archive that ``puppet db export`` writes."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import click

from ingest.cli.printing import complain, say
from ingest.cli.settings import database, with_settings
from ingest.config.loading import Origins
from ingest.config.settings import Config
from ingest.core.archive.anonymize import PROFILES
from ingest.errors import Misconfigured, Unavailable

if TYPE_CHECKING:  # what 'ingest run' does not need is loaded when it is asked for
    from ingest.cli.importing import Importing

EXIT_UNFIT = 5  # some of it did not fit; docs/operating.md lists the codes
PIECE_BYTES = 256 * 1024


@click.command("export")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--anonymize",
    "profile",
    type=click.Choice(PROFILES),
    default="none",
    show_default=True,
    help="what is replaced, as in PuppetDB's profiles: names and values of which nothing shall get out",
)
@with_settings
def export_command(settings: Origins, file: str, profile: str) -> None:
    """Write all that is stored to FILE, a .tgz as 'puppet db export' writes it; - writes to standard output."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from ingest.store.archive.exporting import Export
    from ingest.store.archive.reading import count_archived

    with (
        database(settings.config) as connection,
        _written(file) as output,
        Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            transient=True, disable=not sys.stderr.isatty(), redirect_stdout=False,
        ) as progress,
    ):  # fmt: skip
        task = progress.add_task("exporting", total=count_archived(connection))
        export = Export(profile, secrets.token_bytes(32), time.time())
        for piece in export.pieces(connection):
            output.write(piece)
            progress.update(task, completed=export.tally.total())
    counts = ", ".join(
        f"{count} {folder.replace('_', ' ')}" for folder, count in sorted(export.tally.items())
    )
    if file != "-":
        say(f"exported {counts or 'nothing'}")


@contextmanager
def _written(file: str) -> Iterator[BinaryIO]:
    """It has its name only when it is whole."""
    if file == "-":
        if sys.stdout.isatty():
            raise Misconfigured("FILE", "- writes an archive to standard output, which is a terminal")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.isdir(file):
        raise Misconfigured("FILE", f"{file} is a directory: name a file in it")
    partial = f"{file}.part"
    try:
        # Nobody else's: it has whatever nodes keep in parameters and facts.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Misconfigured("FILE", f"cannot write {partial}: {why}") from error
    try:
        with open(descriptor, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.replace(partial, file)
    except OSError as error:
        raise Misconfigured("FILE", f"cannot write {file}: {error.strerror or error}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


@click.command("import")
@click.argument("file", metavar="FILE|-|URL")
@click.option("--cert", default="", metavar="FILE", help="our certificate, for a PuppetDB at a URL with TLS")
@click.option("--key", default="", metavar="FILE", help="its key")
@click.option("--ca", default="", metavar="FILE", help="who signed PuppetDB's certificate")
@click.option("--again", is_flag=True, help="begin anew what was interrupted: nothing that came in is harmed")
@with_settings
def import_command(settings: Origins, file: str, cert: str, key: str, ca: str, again: bool) -> int:
    """Bring in an archive of 'ingest export' or 'puppet db export', or all that the PuppetDB at a URL has; - reads an archive
    from standard input.

    It goes to the queue, for a running engine to store. An archive that is interrupted goes on where it stopped.
    """
    from ingest.cli.settings import of_running_engine

    config = settings.config if settings.config.queue_source else of_running_engine(settings.config)
    if not config.queue_source:
        raise Misconfigured(
            "--queue-source", "name the broker, for example stomp://127.0.0.1:61613; no engine runs here"
        )
    if file.startswith(("http://", "https://")):
        importing = _from_peer(config, file, (cert, key, ca))
    else:
        importing = _from_archive(config, file, again)
    return _told(importing)


def _from_peer(config: Config, url: str, files: tuple[str, str, str]) -> Importing:
    from rich.progress import Progress

    from ingest.cli.importing import Importing
    from ingest.front import moving
    from ingest.front.peer import Peer

    cert, key, ca = files
    peer = Peer(url, setting="URL", cert=cert, key=key, ca=ca, timeout_s=config.query_timeout_s)
    importing = Importing(config, None, lambda: datetime.now(UTC))
    with Progress(transient=True, disable=not sys.stderr.isatty(), redirect_stdout=False) as progress:
        task = progress.add_task("importing nodes", total=None)
        try:
            for one in moving.files(
                peer, lambda done, total: progress.update(task, completed=done, total=total)
            ):
                importing.take(one)
            importing.finish()
        finally:
            importing.close()
    return importing


def _from_archive(config: Config, file: str, again: bool) -> Importing:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from ingest.cli.importing import Importing, Progressed

    with (
        _read(file) as (source, size),
        Progress(
            "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            transient=True, disable=not sys.stderr.isatty(), redirect_stdout=False,
        ) as progress,
    ):  # fmt: skip
        task = progress.add_task("importing", total=size)
        done = Progressed(config, "" if file == "-" else file, source)
        if again:
            done.forget()
        if done.members:
            complain(f"note: going on after {done.members} files that are in already (--again begins anew)")
        importing = Importing(config, done, lambda: datetime.now(UTC))
        read = 0
        try:
            while piece := source.read(PIECE_BYTES):
                read += len(piece)
                importing.feed(piece)
                progress.update(task, completed=read)
            importing.finish()
        except Unavailable as error:
            raise Unavailable(f"{error}; {done.members} files are in: the same command goes on") from error
        finally:
            importing.close()
    if importing.is_broken and not importing.seen:
        problem = importing.tally.problems[-1].text.partition(":")[0]
        raise Misconfigured(
            "FILE", f"{file} is no archive of 'ingest export' or 'puppet db export': {problem}"
        )
    if not importing.tally.fit and not importing.tally.missed:
        complain(
            "note: there is nothing in it: PuppetDB 7 writes such an archive when one of its nodes is deactivated; "
            "'ingest import URL' asks it for all that it has instead"
        )
    return importing


def _told(importing: Importing) -> int:
    from ingest.engine.archiving import summary

    for problem in importing.tally.problems:
        complain(str(problem))
    first, *rest = summary(importing.tally)
    say(f"imported {first}")
    for line in rest:
        complain(line)
    return EXIT_UNFIT if importing.tally.missed or importing.is_broken else 0


@contextmanager
def _read(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """It, and its size where it has one."""
    if file == "-":
        yield sys.stdin.buffer, None
        return
    try:
        source = open(file, "rb")  # noqa: SIM115  closed below
    except (OSError, ValueError) as error:
        raise Misconfigured(file, getattr(error, "strerror", None) or str(error)) from error
    with source:
        try:
            yield source, os.fstat(source.fileno()).st_size or None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise Misconfigured(file, error.strerror or str(error)) from error
