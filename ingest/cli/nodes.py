"""``ingest nodes`` and ``ingest node``: who was heard of when, who is overdue, and all that is known of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ingest.cli.printing import say, say_json, say_table
from ingest.cli.settings import database, with_settings
from ingest.cli.values import not_empty
from ingest.config.loading import Origins
from ingest.errors import Misconfigured, Refused

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from ingest.store.node.freshness import NodeFreshness

EXIT_FOUND = 4  # with --exit-code, when there are such nodes
STYLES = {"overdue": "red", "deactivated": "dim", "expired": "dim"}


@click.command("nodes")
@click.option(
    "--overdue", is_flag=True, help="silent for more than twice their usual interval and ten minutes"
)
@click.option("--failed", is_flag=True, help="whose last report says that the run failed")
@click.option("--stale", metavar="TIME", help="whose catalog was stored longer ago than that: 30m, 2h, 7d")
@click.option("--inactive", is_flag=True, help="deactivated or expired, instead of active")
@click.option("--exit-code", is_flag=True, help="end with 4 when there are any, for scripts")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@with_settings
def nodes_command(
    settings: Origins,
    overdue: bool,
    failed: bool,
    stale: str | None,
    inactive: bool,
    exit_code: bool,
    as_json: bool,
) -> int:
    """When each node was last heard of, the longest silent first; several conditions must all hold."""
    from ingest.store.node.freshness import list_nodes

    age = None if stale is None else _age(stale)
    with database(settings.config) as connection:
        found = list_nodes(connection, overdue=overdue, failed=failed, stale=age, inactive=inactive)
    if as_json:
        for node in found:
            say_json(msgspec.json.encode(_as_json(node)))
    elif found:
        _say_nodes(found)
    else:
        say("no such node" if overdue or failed or stale or inactive else "no node has been heard of yet")
    return EXIT_FOUND if exit_code and found else 0


def _age(text: str) -> timedelta:
    from datetime import timedelta

    from ingest.core.quantities import duration_s

    try:
        return timedelta(seconds=duration_s(text))
    except (ValueError, OverflowError) as error:
        raise Misconfigured("--stale", f"{text!r} is not a time like 30m, 2h or 7d") from error


def _say_nodes(found: list[NodeFreshness]) -> None:
    from ingest.core.quantities import duration_text

    rows = [
        (
            node.certname,
            node.state,
            f"{duration_text(max(0.0, node.silent_s))} ago",
            duration_text(node.usual_s) + ("" if node.is_learnt else "?"),
            _ago(node.catalog_stored_at, node),
            "-" if node.catalog_lag_s is None else duration_text(node.catalog_lag_s),
            node.report_status or "-",
        )
        for node in found
    ]
    styles = [STYLES.get(node.state, "yellow" if node.report_status == "failed" else "") for node in found]
    say_table(("NODE", "STATE", "HEARD", "EVERY", "CATALOG", "LAG", "REPORT"), rows, styles=styles)


def _ago(then: datetime | None, node: NodeFreshness) -> str:
    """By the database's clock, which ``silent_s`` is by."""
    from ingest.core.quantities import duration_text

    if then is None:
        return "none"
    return f"{duration_text(max(0.0, node.silent_s + (node.heard_at - then).total_seconds()))} ago"


def _as_json(node: NodeFreshness) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(node)
    return {"certname": node.certname, "state": node.state} | members


class _NodeGroup(click.Group):
    """A name that is no command is a node's: ``ingest node NODE`` is ``ingest node show NODE``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            if any(not word.startswith("-") for word in args[1:2]):
                raise click.UsageError(
                    f"{args[0]!r} is no command for a node: {', '.join(self.commands)} are", ctx=ctx
                )
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group("node", cls=_NodeGroup)
def node_group() -> None:
    """All that is known of a node ('ingest node NODE'), and what a person may do with it."""


@node_group.command("show")
@click.argument("certname", metavar="NODE", callback=not_empty)
@click.option("--json", "as_json", is_flag=True, help="as one JSON object")
@with_settings
def show_command(settings: Origins, certname: str, as_json: bool) -> None:
    """One page: when it was heard of, its catalog, facts and report, and what of it is in quarantine."""
    from ingest.store.node.freshness import list_nodes, node_details

    if "\0" in certname:
        raise Misconfigured("NODE", "a name has no NUL in it")
    with database(settings.config) as connection:
        found = list_nodes(connection, certname=certname)
        if not found:
            raise Refused(
                f"nothing has been heard of a node {certname}: 'ingest nodes' lists those that have been"
            )
        details = node_details(connection, certname)
    if as_json:
        say_json(msgspec.json.encode(_as_json(found[0]) | details))
    else:
        _say_node(found[0], details)


def _say_node(node: NodeFreshness, details: dict[str, Any]) -> None:
    from ingest.core.quantities import duration_text

    learnt = "" if node.is_learnt else " (not learnt yet: what the others have)"
    since = node.deactivated or node.expired
    say(f"{node.certname}  {node.state}{f' since {since:%Y-%m-%d %H:%M:%S}' if since else ''}")
    say(f"  heard of     {node.heard_at:%Y-%m-%d %H:%M:%S}, {duration_text(max(0.0, node.silent_s))} ago")
    say(
        f"  interval     {duration_text(node.usual_s)}{learnt}; overdue after {duration_text(node.overdue_after_s)}"
    )
    catalog = details["catalog"]
    if catalog and node.catalog_stored_at and node.catalog_timestamp and node.catalog_lag_s is not None:
        say(
            f"  catalog      stored {node.catalog_stored_at:%Y-%m-%d %H:%M:%S}, {duration_text(node.catalog_lag_s)} "
            f"after {node.catalog_timestamp:%H:%M:%S} by its producer's clock"
        )
        say(
            f"               {catalog['resources']} resources, {catalog['exported']} exported, environment "
            f"{node.catalog_environment or '-'}, version {catalog['version']}, from {catalog['producer'] or '-'}"
        )
    else:
        say("  catalog      none")
    say(
        f"  facts        {node.facts_timestamp:%Y-%m-%d %H:%M:%S}"
        if node.facts_timestamp
        else "  facts        none"
    )
    report = details["last_report"]
    if report and node.report_timestamp:
        say(
            f"  report       {node.report_timestamp:%Y-%m-%d %H:%M:%S}, {report['status']}: {report['successes']} changed, "
            f"{report['failures']} failed, {report['skips']} skipped"
        )
        say(f"               ingest show {node.certname} --report {node.report_hash}")
    else:
        say("  report       none")
    for row in details["quarantine"]:
        say(
            f"  quarantine   {row['number']}: {row['reason']}, {row['messages']} messages, the last one "
            f"{row['last_seen'][:19]}; 'ingest quarantine show {row['number']}'"
        )


def _changing(name: str, doc: str, say_done: str) -> Callable[..., Any]:
    """A command that changes one node."""

    @node_group.command(name, help=doc)
    @click.argument("certname", metavar="NODE", callback=not_empty)
    @click.option("--json", "as_json", is_flag=True, help="what was done as one JSON object")
    @with_settings
    def command(settings: Origins, certname: str, as_json: bool) -> None:
        from ingest.store.node import freshness

        change = {"deactivate": freshness.deactivate_node, "reactivate": freshness.reactivate_node}[name]
        with database(settings.config, writes=True) as connection:
            change(connection, certname)
        _say_done(certname, say_done, as_json)

    return command


deactivate_command = _changing(
    "deactivate",
    "Take a node out of what collectors see; its next catalog brings it back.",
    "deactivated: no collector sees it until its next catalog",
)
reactivate_command = _changing(
    "reactivate", "Bring a node back that was deactivated or has expired.", "active again"
)


@node_group.command("forget")
@click.argument("certname", metavar="NODE", callback=not_empty)
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--json", "as_json", is_flag=True, help="what was done as one JSON object")
@with_settings
def forget_command(settings: Origins, certname: str, yes: bool, as_json: bool) -> None:
    """Delete a node with all that is stored of it, as if it had never been; its next message makes it anew."""
    import sys

    from ingest.store.node.freshness import forget_node

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("forget deletes what is stored: say --yes where nobody can be asked")
    if not yes and not click.confirm(f"Delete all that is stored of {certname!r}?"):
        raise click.Abort
    with database(settings.config, writes=True) as connection:
        forget_node(connection, certname)
    _say_done(certname, "forgotten", as_json)


def _say_done(certname: str, done: str, as_json: bool) -> None:
    if as_json:
        say_json(msgspec.json.encode({"certname": certname, "done": done}))
    else:
        say(f"{certname} {done}")
