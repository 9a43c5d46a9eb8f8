"""Looks at what only clusters have: lists of hosts, standbys, replicas, engines beside each other, queues that are copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ingest.core.quantities import bytes_text, duration_text
from ingest.engine.finding import Finding, State, found_wrong, wrong
from ingest.errors import IngestError
from ingest.store.connection import Connection
from ingest.store.examining import Asked, Member, ask_hosts, examine_member, named
from ingest.transport.protocol import Broker

WRITABLE = ("read-write", "primary")
BEHIND_NOTE_S, BEHIND_WRONG_S = (
    10.0,
    300.0,
)  # a dashboard's patience; longer than between two runs is no replica
DELIVERY_LIMIT_MIN = 20  # RabbitMQ's own; docs/brokers.md says what an outage takes of it
MEMBERS_MIN = 3  # of a quorum queue: two of them can be lost to nobody
QUEUE, AMQ_QUEUE = "/queue/", "/amq/queue/"

Open = Callable[[str], Connection]


# The database


def examine_hosts(conninfo: str, open_: Open) -> Iterator[Finding]:
    """Of a list: nothing where there is one host."""
    hosts, target = named(conninfo)
    if len(hosts) < 2:
        return
    if target and target not in WRITABLE:
        yield wrong(
            "hosts",
            f"target_session_attrs={target} may take a standby of the {len(hosts)} hosts, which is read-only",
            "target_session_attrs=read-write",
            "--database",
        )
    elif not target:
        yield Finding(
            "hosts",
            State.NOTE,
            f"{len(hosts)} hosts and no target_session_attrs: the one that can be written to is taken, as "
            "read-write says; other programs with this conninfo take the first that answers",
            "add target_session_attrs=read-write",
            "--database",
        )
    yield from host_findings(ask_hosts(conninfo, open_))


def host_findings(asked: Sequence[Asked]) -> Iterator[Finding]:
    primaries = [
        (each.host, each.standing.timeline) for each in asked if each.standing and each.standing.is_primary
    ]
    for host, standing, why in asked:
        if standing is None:
            yield Finding(
                "hosts",
                State.AWAY,
                f"{host} does not let in: {why}",
                "start it, or mend host, port and pg_hba.conf; a failover to it would go nowhere",
                "--database",
            )
    if len(primaries) > 1:
        told = ", ".join(f"{host} on timeline {timeline}" for host, timeline in primaries)
        yield wrong(
            "hosts",
            f"{len(primaries)} hosts call themselves primary: {told}",
            "end the server on the older timeline, and let its Patroni rewind it (a watchdog does so by itself: "
            "watchdog: mode: required)",
            "--database",
        )
    elif any(each.standing for each in asked) and not primaries:
        yield Finding(
            "hosts",
            State.AWAY,
            "none of the hosts is a primary just now",
            "patronictl list says who should be; nothing is lost meanwhile",
            "--database",
        )
    elif all(each.standing for each in asked):
        yield Finding("hosts", State.OK, f"{len(asked)} hosts, {primaries[0][0]} is primary")


def member_findings(member: Member, hosts: int) -> Iterator[Finding]:
    """Whether what is acknowledged is where the site wants it."""
    wanted = member.synchronous_wanted
    if wanted > member.synchronous + member.hidden:
        yield wrong(
            "standbys",
            f"a commit waits for {wanted} synchronous standby{'s' * (wanted != 1)} ({member.synchronous_names}), and "
            f"{member.synchronous} of {member.standbys} attached is one: nothing can be stored",
            "start it; pg_stat_replication says who is there; or ALTER SYSTEM SET synchronous_standby_names (under "
            "Patroni: synchronous_mode, not strict, does so by itself)",
        )
    elif wanted > member.synchronous:
        yield Finding(
            "standbys",
            State.NOTE,
            f"a commit waits for {wanted} synchronous, and this role may not see who of {member.standbys} is",
            "GRANT pg_monitor, or ask pg_stat_replication as another role",
        )
    elif wanted:
        yield Finding("standbys", State.OK, f"{member.synchronous} synchronous of {member.standbys} attached")
    elif hosts > 1:
        yield Finding(
            "standbys",
            State.NOTE,
            "no synchronous replication: a failover loses what was acknowledged and the promoted one did not have",
            "synchronous_mode: true under Patroni, or synchronous_standby_names: docs/clusters.md",
        )


def version_findings(engines: Mapping[str | None, int], own: str) -> Iterator[Finding]:
    """``engines``: how many of each version are at work on the database; None is one that does not say it."""
    told = ", ".join(f"{count} of {name or 'an earlier version'}" for name, count in engines.items())
    if len(engines) > 1:
        yield Finding(
            "engines",
            State.NOTE,
            f"of different versions on this database: {told}",
            f"fine while an upgrade rolls on; afterwards restart those that are not {own}",
        )
    elif engines:
        yield Finding("engines", State.OK, f"{told} at work on this database")


def examine_replica(conninfo: str, primary: Member | None, open_: Open) -> Iterator[Finding]:
    """The front's own database, where it has one."""
    try:
        connection = open_(conninfo)
        try:
            member = examine_member(connection)
        finally:
            connection.close()
    except IngestError as error:
        yield found_wrong("replica", error)
        return
    yield replica_finding(member, primary)


def replica_finding(member: Member, primary: Member | None) -> Finding:
    setting = "--http-database"
    if not member.is_standby:
        return Finding("replica", State.OK, "the front asks a server that is no standby")
    if not member.receives:
        return wrong(
            "replica",
            f"it receives nothing from another server; its newest transaction is {duration_text(member.behind_s)} old",
            "look at primary_conninfo, its slot and the primary's pg_hba.conf; the log of the replica has the reason",
            setting,
        )
    behind_bytes = max(0, primary.wal_bytes - member.wal_bytes) if primary else 0
    if not behind_bytes or member.behind_s < BEHIND_NOTE_S:
        return Finding("replica", State.OK, "it is where the primary is")
    return Finding(
        "replica",
        State.WRONG if member.behind_s > BEHIND_WRONG_S else State.NOTE,
        f"answers to queries are {duration_text(member.behind_s)} old: {bytes_text(behind_bytes)} of WAL are to be replayed",
        "look for long queries there (max_standby_streaming_delay), recovery_min_apply_delay, its disk and network",
        setting,
    )


# Queues


def examine_queues(broker: Broker, destinations: Iterable[str], brokers: int) -> Iterator[Finding]:
    """``broker`` is a RabbitMQ, one of so many."""
    yield from destination_findings(destinations, brokers)
    ask = getattr(broker, "queue", None)  # not every transport's has it
    for destination in destinations:
        name = destination.removeprefix(AMQ_QUEUE).removeprefix(QUEUE)
        kept = ask(name) if ask and name != destination else None
        if kept is not None:
            yield from queue_findings(name, kept, brokers)


def destination_findings(destinations: Iterable[str], brokers: int) -> Iterator[Finding]:
    """At a RabbitMQ of which several are named."""
    declared = [each for each in destinations if each.startswith(QUEUE)]
    if brokers > 1 and declared:
        names = ", ".join(AMQ_QUEUE + each.removeprefix(QUEUE) for each in declared)
        yield wrong(
            "queues",
            f"{', '.join(declared)} at {brokers} brokers: RabbitMQ declares a classic queue of that name, which lives on one "
            "of them, and refuses one that is a quorum queue",
            f"declare quorum queues, and take from {names}: docs/clusters.md",
            "--destination",
        )


def queue_findings(name: str, kept: Mapping[str, Any], brokers: int) -> Iterator[Finding]:
    """``kept``: what RabbitMQ's management says of a queue."""
    kind = str(kept.get("type", ""))
    if kind != "quorum":
        if brokers > 1:
            yield wrong(
                "queues",
                f"{name} is a {kind or 'classic'} queue, which lives on one of {brokers} brokers",
                "declare another with x-queue-type: quorum, let producers and engines use that one, drain this",
                "--destination",
            )
        return
    members = kept.get("members")
    if brokers >= MEMBERS_MIN and isinstance(members, list) and len(members) < MEMBERS_MIN:
        yield wrong(
            "queues",
            f"{name} has {len(members)} member{'s' * (len(members) != 1)}: with one of them lost it stops",
            f"rabbitmq-queues grow NODE all --queue-pattern '^{name}$' for each broker without one",
            "--destination",
        )
    yield _limit_finding(name, kept)


def _limit_finding(name: str, kept: Mapping[str, Any]) -> Finding:
    policy, arguments = (_object(kept.get(key)) for key in ("effective_policy_definition", "arguments"))
    limits = [
        found
        for found in (policy.get("delivery-limit"), arguments.get("x-delivery-limit"))
        if isinstance(found, int) and found >= 0
    ]
    has_target = "dead-letter-exchange" in policy or "x-dead-letter-exchange" in arguments
    limit = min(limits, default=None)
    what = "moves to its dead-letter target" if has_target else "drops"
    if limit is not None and limit < DELIVERY_LIMIT_MIN:
        return Finding(
            "queues",
            State.NOTE,
            f"{name} {what} what was delivered more than {limit} times",
            f"{DELIVERY_LIMIT_MIN} or more: rabbitmqctl set_policy ingest '^{name}$' "
            f"'{{\"delivery-limit\":{DELIVERY_LIMIT_MIN}}}' --apply-to queues",
            "--destination",
        )
    return Finding(
        "queues",
        State.OK,
        f"{name} is a quorum queue{'' if limit is None else f', its delivery-limit {limit}'}",
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
