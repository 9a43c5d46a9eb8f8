"""Commands that only look: at what is stored, and at a running engine."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import click

from ingest.commands.settings import database, with_settings
from ingest.config import Origins
from ingest.errors import Unavailable


@click.command("show")
@click.argument("certname")
@with_settings
def show_command(settings: Origins, certname: str) -> None:
    """Print a node's stored catalog as wire-form JSON."""
    from ingest.core.wire import canonical
    from ingest.store.reading import read_catalog

    with database(settings.config) as connection:
        sys.stdout.buffer.write(canonical(read_catalog(connection, certname)) + b"\n")


@click.group("query")
def query_group() -> None:
    """Ask what is stored."""


@query_group.command("exported")
@click.option("--type", "type_", required=True, metavar="T", help="resource type, capitalised")
@click.option("--tag", "tags", multiple=True, help="must be among its tags; several: all of them")
@click.option("--title")
@with_settings
def exported_command(settings: Origins, type_: str, tags: tuple[str, ...], title: str | None) -> None:
    """What a collector would get: one JSON object a line, ordered by certname and title."""
    from ingest.core.wire import canonical_json
    from ingest.store.reading import exported_resources

    with database(settings.config) as connection:
        for resource in exported_resources(connection, type_, tags=tags, title=title):
            sys.stdout.buffer.write(canonical_json(resource) + b"\n")


@click.command("status")
@with_settings
def status_command(settings: Origins) -> None:
    """What a running engine says about itself."""
    url = f"http://{settings.config.metrics_host}:{settings.config.metrics_port}/status.json"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status = json.load(answer)
        health, processes = status["health"], status["processes"]
        lines = ["ready" if health["ready"] else "not ready: " + "; ".join(health["reasons"])]
        for process, numbers in processes.items():
            lines += ["", process, *_lines(numbers)]
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "reason", None) or f"{type(error).__name__} in its answer"
        raise Unavailable(f"no engine answers at {url} (--metrics-port): {reason}") from error
    click.echo("\n".join(lines))
    if not health["healthy"]:
        raise Unavailable("; ".join(health["reasons"]))


def _lines(numbers: Mapping[str, Any]) -> list[str]:
    """A line for each number, of a histogram its mean."""
    found = []
    for name, value in numbers.items():
        shown = name.removeprefix("ingest_").removesuffix("_total").replace("_", " ")
        if name.endswith("_sum"):
            continue
        if name.endswith("_count"):
            base = name.removesuffix("_count")
            mean = numbers[f"{base}_sum"] / value if value else 0.0
            shown, value = f"{base.removeprefix('ingest_').replace('_', ' ')}, mean", mean
        found.append(f"  {shown:<28} {_number(value):>16}")
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
