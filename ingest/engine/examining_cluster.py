"""Looks at what only clusters of databases have: lists of hosts, standbys, replicas, engines beside each other, Patroni."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ingest.core.quantities import bytes_text, duration_text
from ingest.engine.finding import Finding, State, found_wrong, wrong
from ingest.errors import IngestError
from ingest.store.connection import Connection
from ingest.store.examining import Asked, Member, ask_hosts, examine_member, named
from ingest.store.patroni import ask_patroni

WRITABLE = ("read-write", "primary")
BEHIND_NOTE_S, BEHIND_WRONG_S = (
    10.0,
    300.0,
)  # a dashboard's patience; longer than between two runs is no replica

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
    told = next(filter(None, (ask_patroni(host.hostaddr or host.host) for host in hosts)), None)
    if told is not None:
        yield from patroni_findings(told)


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

    if (hosts > 1 or member.standbys) and not member.can_rewind:
        yield Finding(
            "standbys",
            State.NOTE,
            "wal_log_hints and data checksums are off: after a failover pg_rewind refuses the former primary, which then "
            "comes back by a copy of everything",
            "wal_log_hints: on (under Patroni by patronictl edit-config), and a restart",
        )


def patroni_findings(told: Mapping[str, Any]) -> Iterator[Finding]:
    """``told``: its configuration, as every member has it."""
    postgresql = told.get("postgresql")
    rewinds = isinstance(postgresql, dict) and bool(postgresql.get("use_pg_rewind"))
    if told.get("pause"):
        yield wrong(
            "patroni",
            "it is paused: nobody is promoted when the primary fails",
            "patronictl resume",
        )
    if not rewinds:
        yield Finding(
            "patroni",
            State.NOTE,
            "use_pg_rewind is off: a former primary comes back by a copy of everything, or by hand",
            "patronictl edit-config: postgresql: use_pg_rewind: true",
        )
    if not told.get("synchronous_mode"):
        yield Finding(
            "patroni",
            State.NOTE,
            "synchronous_mode is off: a failover loses what the promoted one did not have",
            "patronictl edit-config: synchronous_mode: true; docs/clusters.md",
        )
    if rewinds and told.get("synchronous_mode") and not told.get("pause"):
        yield Finding("patroni", State.OK, f"synchronous_mode, use_pg_rewind, ttl {told.get('ttl', 30)} s")


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
