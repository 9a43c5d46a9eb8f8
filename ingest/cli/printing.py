"""All that commands print goes through here: foreign text is made harmless, whoever reads it."""

from __future__ import annotations

import sys

import click

from ingest.core.passwords import hide_passwords
from ingest.core.printable import escape_json, escape_lines, escape_unprintable


def say(line: str) -> None:
    """A line on standard output."""
    click.echo(escape_unprintable(line))


def say_lines(text: str) -> None:
    click.echo(escape_lines(text.removesuffix("\n")))


def say_json(document: bytes) -> None:
    sys.stdout.buffer.write(escape_json(document) + b"\n")


def complain(text: str) -> None:
    """One line on standard error, whatever the text had to say, and never a password."""
    click.echo(f"ingest: {escape_unprintable(hide_passwords(' '.join(text.split())))}", err=True)
