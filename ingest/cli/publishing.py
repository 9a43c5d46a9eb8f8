"""``ingest publish``: catalogs from files to the queue."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ingest.cli.settings import publisher, with_settings
from ingest.config.settings import Origins
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
    with (
        publisher(settings.config) as opened,
        Progress(transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task("publishing", total=len(files))
        bodies = map(_read, files)
        done = opened.publish(
            ((body, headers_of(body) | given) for body in bodies),
            lambda receipts: progress.update(task, completed=receipts),
        )
    click.echo(f"published {done}, each with the broker's receipt")


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Misconfigured("--header", f"{text!r} is not NAME=VALUE")
    return name, value


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Misconfigured(file, error.strerror or str(error)) from error
