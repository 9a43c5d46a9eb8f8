"""Which brokers the settings name, and by which protocol: ``queue_type`` is looked up among entry points.

A package adds a protocol with an entry point in the group ``puppet_ingest.transports``: a callable that takes
the Config and gives a Broker for each address to try, in order. The engine asks no more of a protocol than what
stands here; ``stomp`` is ``ingest.transport.stomp``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Protocol

from ingest.config.settings import Config
from ingest.errors import Misconfigured, Unavailable
from ingest.transport.message import Message, Space

GROUP = "puppet_ingest.transports"


class Link(Protocol):
    """One connection to a broker, for one thread and its selector: nothing in it waits. Everything that talks
    raises Unavailable when the connection has ended."""

    @property
    def server(self) -> str: ...  # what the broker calls itself, or ""
    @property
    def protocol(self) -> str: ...  # and its version, for the log
    @property
    def acknowledges_cumulatively(self) -> bool: ...  # one acknowledgement settles the earlier messages too
    @property
    def receipts(self) -> set[str]: ...  # that came; whoever reads them removes them

    def fileno(self) -> int: ...
    @property
    def listens(self) -> bool: ...  # wants to know when the socket can be read
    @property
    def wants_write(self) -> bool: ...
    @property
    def unread(self) -> bool: ...  # messages may be here that no event of the socket will tell of
    def next_beat_s(self) -> float: ...

    def subscribe(
        self, destination: str, subscription: str, prefetch_messages: int, window_bytes: int
    ) -> None: ...  # for each destination; a message says by its header ``subscription`` on which it came
    def read(self) -> Iterator[Message]: ...
    def listen(self) -> None: ...  # instead of ``read``, when no message is wanted: heart-beats
    def acknowledge(self, messages: list[tuple[str, str]], subscription: str) -> None: ...
    def send_message(self, destination: str, body: bytes | memoryview, headers: dict[str, str]) -> None: ...
    def flush(self) -> None: ...
    def beat(self) -> None: ...
    def disconnect(self, receipt: str) -> None: ...
    def close(self) -> None: ...


class Broker(Protocol):
    """Where a broker is and how to get in; its text is for the log and names no password."""

    def __str__(self) -> str: ...
    def connect(self, space: Space | None = None, *, heartbeats: bool = True) -> Link:
        """Bodies go into ``space``; without one nobody may subscribe. Raises Unavailable, or Misconfigured for a
        login or a certificate that is refused."""


def brokers(config: Config) -> Sequence[Broker]:
    """The brokers in the order in which to try them. Raises Misconfigured."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if config.queue_type not in known:
        names = ", ".join(sorted(known)) or "none: is the package installed?"
        raise Misconfigured(
            "--queue-type", f"no transport is called {config.queue_type!r}; known are: {names}"
        )
    found: Sequence[Broker] = known[config.queue_type].load()(config)
    if config.queue_source and not found:
        raise Misconfigured("--queue-source", "it names no broker: stomp://HOST:PORT, or nothing at all")
    return found


def connect_first(config: Config, *, heartbeats: bool = True) -> Link:
    """A connection to the first broker that lets us in, for sending. Raises what the first one said if none does."""
    failure: Unavailable | Misconfigured | None = None
    for broker in brokers(config):
        try:
            return broker.connect(heartbeats=heartbeats)
        except (Unavailable, Misconfigured) as error:
            failure = failure or error
    raise failure or Misconfigured("--queue-source", "it names no broker")
