"""Commands that only look at what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from ingest.cli.printing import say_json
from ingest.cli.settings import database, with_settings
from ingest.cli.values import not_empty
from ingest.config.loading import Origins
from ingest.errors import Misconfigured, Refused


@click.command("show")
@click.argument("certname", callback=not_empty)
@click.option("--facts", "shows_facts", is_flag=True, help="its facts and packages instead of its catalog")
@click.option("--reports", "lists_reports", is_flag=True, help="its reports, a line each, the newest first")
@click.option("--report", "report", metavar="HASH", help="one of its reports, whole")
@with_settings
def show_command(
    settings: Origins, certname: str, shows_facts: bool, lists_reports: bool, report: str | None
) -> None:
    """Print a node's stored catalog as wire-form JSON."""
    from ingest.core.catalog.wire import canonical, canonical_json
    from ingest.store.catalog.reading import read_catalog
    from ingest.store.facts.reading import read_factset
    from ingest.store.report.reading import read_report, read_reports

    if shows_facts + lists_reports + (report is not None) > 1:
        raise Misconfigured("--facts, --reports, --report", "one of them at a time")
    with database(settings.config) as connection:
        if shows_facts:
            say_json(canonical_json(read_factset(connection, certname)))
        elif report is not None:
            found = read_report(connection, report)
            if found["certname"] != certname:
                raise Refused(f"the report {report[:64]} is not one of {certname}")
            say_json(canonical_json(found))
        elif lists_reports:
            _print_lines(read_reports(connection, certname=certname))
        else:
            say_json(canonical(read_catalog(connection, certname)))


@click.group("query")
def query_group() -> None:
    """Ask what is stored."""


@query_group.command("exported")
@click.option(
    "--type", "type_", required=True, metavar="T", callback=not_empty, help="resource type, capitalised"
)
@click.option("--tag", "tags", multiple=True, help="must be among its tags; several: all of them")
@click.option("--title")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="must have that value, or an array with it; VALUE is JSON where it can be (80, true, '\"80\"'), else text",
)
@with_settings
def exported_command(
    settings: Origins, type_: str, tags: tuple[str, ...], title: str | None, parameters: tuple[str, ...]
) -> None:
    """What a collector would get: one JSON object a line, ordered by certname and title."""
    from ingest.store.catalog.reading import exported_resources

    wanted = dict(map(_parameter, parameters))
    with database(settings.config) as connection:
        _print_lines(exported_resources(connection, type_, tags=tags, title=title, parameters=wanted))


@query_group.command("who-has")
@click.argument("type_", metavar="TYPE", callback=not_empty)
@click.argument("title")
@with_settings
def who_has_command(settings: Origins, type_: str, title: str) -> None:
    """The active nodes that have a resource, and where it is declared: one JSON object a line, by certname."""
    from ingest.store.catalog.reading import who_has

    with database(settings.config) as connection:
        _print_lines(who_has(connection, type_, title))


@query_group.command("facts")
@click.argument("name", callback=not_empty)
@click.argument("value", required=False)
@with_settings
def facts_command(settings: Origins, name: str, value: str | None) -> None:
    """What a fact is on the active nodes: one JSON object a line, by certname. VALUE asks for those that have it; it is JSON
    where it can be (80, true, '"80"'), else text."""
    from ingest.store.facts.reading import facts_named

    with database(settings.config) as connection:
        _print_lines(facts_named(connection, name, *(() if value is None else (_value(value),))))


@query_group.command("reports")
@click.option("--status", metavar="S", help="changed, unchanged, failed, or what else Puppet says")
@click.option("--since", metavar="TIME", help="no older than that: 30m, 2h, 7d")
@with_settings
def reports_command(settings: Origins, status: str | None, since: str | None) -> None:
    """Which reports are stored: one JSON object a line, the newest first."""
    from datetime import timedelta

    from ingest.core.quantities import duration_s
    from ingest.store.report.reading import read_reports

    try:
        age = None if since is None else timedelta(seconds=duration_s(since))
    except (ValueError, OverflowError) as error:
        raise Misconfigured("--since", f"{since!r} is not a time like 30m or 2h") from error
    with database(settings.config) as connection:
        _print_lines(read_reports(connection, status=status, since=age))


def _print_lines(found: Iterable[dict[str, Any]]) -> None:
    from ingest.core.catalog.wire import canonical_json

    for one in found:
        say_json(canonical_json(one))


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--parameter")
    return name, _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
