"""``ingest publish``: catalogs from files to the queue."""

from __future__ import annotations

import os
import stat
import sys

import click

from ingest.cli.printing import say
from ingest.cli.settings import publisher, with_settings
from ingest.config.loading import Origins
from ingest.errors import Misconfigured


@click.command("publish")
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="a STOMP header for every message"
)
@with_settings
def publish_command(settings: Origins, files: tuple[str, ...], headers: tuple[str, ...]) -> None:
    """Send catalogs, in any format, to the queue; - reads one from standard input."""
    from rich.progress import Progress

    from ingest.transport.publisher import headers_of

    given = dict(_header(header) for header in headers)
    for file in files:
        _require_content(file, settings.config.body_bytes_max)
    if files.count("-") > 1:
        raise Misconfigured("FILE", "- is named twice, and standard input can be read once")
    with (
        publisher(settings.config) as opened,
        Progress(transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task("publishing", total=len(files))
        bodies = (_read(file, settings.config.body_bytes_max) for file in files)
        done = opened.publish(
            ((body, headers_of(body) | given) for body in bodies),
            lambda receipts: progress.update(task, completed=receipts),
        )
    say(f"published {done}, each with the broker's receipt")


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Misconfigured("--header", f"{text!r} is not NAME=VALUE")
    return name, value


def _require_content(file: str, bytes_max: int) -> None:
    """All files are looked at before the first is sent. Raises Misconfigured."""
    if file == "-":
        return
    try:
        found = os.stat(file or "\0")
        if stat.S_ISDIR(found.st_mode):
            raise Misconfigured(file, "is a directory: name the files in it")
        if stat.S_ISREG(found.st_mode):
            open(file, "rb").close()
            if not found.st_size:
                raise Misconfigured(file, "there is nothing in it to publish")
            _require_size(file, found.st_size, bytes_max)
        elif stat.S_ISSOCK(found.st_mode):
            raise Misconfigured(file, "is a socket")
    except OSError as error:
        raise Misconfigured(file, error.strerror or str(error)) from error
    except ValueError as error:
        raise Misconfigured("FILE", f"{file!r} is not the name of a file") from error


def _read(file: str, bytes_max: int) -> bytes:
    """No more than that: a file may have grown, and what is none may have no end."""
    try:
        if file == "-":
            body = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with open(file, "rb") as opened:
                body = opened.read(bytes_max + 1)
    except OSError as error:
        raise Misconfigured(file, error.strerror or str(error)) from error
    if not body:
        raise Misconfigured(file, "there is nothing in it to publish")
    _require_size(file, len(body), bytes_max)
    return body


def _require_size(file: str, size: int, bytes_max: int) -> None:
    if size > bytes_max:
        raise Misconfigured(file, f"has more than body_bytes_max={bytes_max} bytes")
