"""The hosts of a conninfo as values: in which order they are tried, and which of two that call themselves primary is right.

libpq begins at the head of a list with each connection, and takes whoever lets it write: after a failover that may be an
orphan, a former primary that nobody told. So the order is ours: whoever was slow, silent or wrong comes last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

# The longest that an orphan lives after it was told to replicate to nobody: Patroni 3.0 took 50 to 110 ms from there to its
# demotion, and what was committed between the two is thrown away. A hundred times that.
DOUBT_S = 10.0


class Host(NamedTuple):
    """One of a list, as libpq writes it; empty where the list does not say."""

    host: str
    hostaddr: str
    port: str

    def __str__(self) -> str:
        return ":".join(part for part in (self.host or self.hostaddr or "default host", self.port) if part)


class Standing(NamedTuple):
    """What a server says of itself."""

    is_primary: bool
    timeline: int  # one more with each promotion
    is_guarded: bool  # a commit waits for a standby


def with_environment(given: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
    """libpq takes what a conninfo leaves out from PGHOST and its like; what a service file says comes before those."""
    if "service" in given or "PGSERVICE" in environment:
        return dict(given)
    named = {
        key: environment[f"PG{key.upper()}"] for key in Host._fields if f"PG{key.upper()}" in environment
    }
    return named | dict(given)


def hosts_of(given: Mapping[str, object]) -> tuple[Host, ...]:
    """The hosts of a parsed conninfo, in its order. One that has none, or leaves them to a service file, is one host."""
    names, addresses, ports = (_list(given.get(key)) for key in ("host", "hostaddr", "port"))
    count = max(len(names), len(addresses), 1)
    if len(ports) == 1:
        ports *= count
    columns = (part + [""] * (count - len(part)) for part in (names, addresses, ports))
    return tuple(Host(*host) for host in zip(*columns, strict=False))


def with_target(given: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
    """Of several hosts the one that can be written to is meant, where nothing else is said: the first may be a
    replica."""
    is_service = "service" in given or "PGSERVICE" in environment
    said = given.get("target_session_attrs") or environment.get("PGTARGETSESSIONATTRS") or is_service
    several = len(hosts_of(with_environment(given, environment))) > 1
    return {**given, "target_session_attrs": "read-write"} if several and not said else dict(given)


def only(given: Mapping[str, object], host: Host) -> dict[str, object]:
    """The same for one of its hosts."""
    rest = {key: value for key, value in given.items() if key not in Host._fields}
    return rest | {key: value for key, value in host._asdict().items() if value}


def last(order: Sequence[Host], host: Host) -> tuple[Host, ...]:
    """The others first."""
    return (*(each for each in order if each != host), host)


def first(order: Sequence[Host], host: Host) -> tuple[Host, ...]:
    return (host, *(each for each in order if each != host))


def by_answer(order: Sequence[Host], silent: Collection[Host]) -> tuple[Host, ...]:
    """Who did not answer a moment ago costs another connect_timeout, so they come after those who did."""
    return tuple(sorted(order, key=lambda host: host in silent))


def is_left_behind(mine: Standing, others: Sequence[Standing | None], newest: int = 0) -> bool:
    """Whether another is primary on a newer timeline, or was (``newest``). None is one that did not answer."""
    primaries = [other.timeline for other in others if other is not None and other.is_primary]
    return not mine.is_primary or mine.timeline < max([newest, *primaries])


class Guard:
    """Notices that a primary that waited for its standbys does so no more. Either it lost them, or it is an orphan about
    to be demoted: for ``DOUBT_S`` nobody can tell, but whoever keeps the lock."""

    def __init__(self) -> None:
        self._timeline = 0
        self._was_guarded = False
        self._since_s: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether it waits for what comes next."""
        return self._was_guarded

    def is_in_doubt(self, standing: Standing, now_s: float) -> bool:
        # Who was promoted is no orphan of the time before; its standbys are to be found first.
        is_new = standing.timeline > self._timeline
        self._timeline = max(self._timeline, standing.timeline)
        if standing.is_guarded or is_new or not self._was_guarded:
            self._was_guarded, self._since_s = standing.is_guarded, None
            return False
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s < DOUBT_S:
            return True
        self.end_doubt()
        return False

    def end_doubt(self) -> None:
        """It goes on without them."""
        self._was_guarded, self._since_s = False, None


def _list(value: object) -> list[str]:
    return str(value).split(",") if value not in (None, "") else []
