"""All that commands print goes through here: foreign text is made harmless, whoever reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from ingest.core.passwords import hide_passwords
from ingest.core.printable import escape_json, escape_lines, escape_unprintable

WIDE = 10_000  # columns: more than any line has


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


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Sequence[str] = ()) -> None:
    """As wide as the terminal: the first column gives way. Into a file or a pipe, nothing is cut.

    ``styles``: of each row, and none where there is no terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=12 if place == 0 else len(name))
    for place, row in enumerate(rows):
        style = styles[place] if place < len(styles) else ""
        table.add_row(*(Text(escape_unprintable(cell)) for cell in row), style=style)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())
