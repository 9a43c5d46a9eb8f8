"""Sends statements to PostgreSQL and takes their rows as they come.

Nothing here waits: it is steps that yield where PostgreSQL has to be waited for, and who carries them out waits as he likes, an
event loop or a thread (``finish``). A statement that a connection is asked for again is prepared there: most take longer to be
planned than to be carried out.
"""

from __future__ import annotations

import re
import select
from collections import OrderedDict
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from ingest.store.connection import Connection
from ingest.store.queries import NamedQuery, query

T = TypeVar("T")
Steps = Generator[int, None, T]  # what it yields is waited for: select.POLLIN, or that and POLLOUT
READ, WRITE = select.POLLIN, select.POLLIN | select.POLLOUT

PLANS_MAX = 64  # that a connection keeps: 360 kB each, all that dashboards and compiles ask for (docs/decisions/0016-front.md)
SEEN_MAX = 256  # texts that were asked for once
TEXT_MAX = 32 * 1024  # characters of a statement that is remembered
CHUNKED = psycopg.capabilities.has_stream_chunked()  # libpq 17; else rows come singly

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")
_ROWS = (ExecStatus.TUPLES_OK, ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_CHUNK, ExecStatus.COMMAND_OK)


class Plans:
    """The statements that a connection has prepared, those used last at the end."""

    def __init__(self) -> None:
        self.seen: OrderedDict[tuple[bytes, tuple[int, ...]], None] = OrderedDict()
        self.names: OrderedDict[tuple[bytes, tuple[int, ...]], bytes] = OrderedDict()
        self.made = 0

    def is_wanted(self, key: tuple[bytes, tuple[int, ...]]) -> bool:
        """Whether it is asked for again."""
        if key in self.seen:
            del self.seen[key]
            return True
        self.seen[key] = None
        if len(self.seen) > SEEN_MAX:
            self.seen.popitem(last=False)
        return False


class Wire:
    """Of one connection. Raises psycopg's errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self.is_under_way = False

    def send(
        self, text: str, parameters: Mapping[str, object], *, rows: int = 0, is_kept: bool = True
    ) -> Steps[None]:
        """``rows``: so many at once, and not all together. ``is_kept``: it may be prepared."""
        sent, names = _numbered(self._connection.home, text)
        types, values, formats = self._dumped([parameters[name] for name in names])
        name = (yield from self._plan(sent, types)) if is_kept and len(sent) <= TEXT_MAX else None
        if name is None:
            self._pgconn.send_query_params(sent, values, types, formats)
        else:
            self._pgconn.send_query_prepared(name, values, formats)
        if rows and CHUNKED:
            self._pgconn.set_chunked_rows_mode(rows)
        elif rows:
            self._pgconn.set_single_row_mode()
        self.is_under_way = True
        yield from self._flush()

    def next_result(self) -> Steps[PGresult | None]:
        """The next rows; None: that was all."""
        yield from self.await_result()
        result = self._pgconn.get_result()
        if result is None:
            self.is_under_way = False
            return None
        if result.status not in _ROWS:
            yield from self.drain()
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
        return result

    def await_result(self) -> Steps[None]:
        """Until the next result is there."""
        while self._pgconn.is_busy():
            yield READ
            self._pgconn.consume_input()

    def can_go_on(self) -> bool:
        """Whether the next result is there already."""
        return not self._pgconn.is_busy()

    def drain(self) -> Steps[None]:
        """Whatever is still to come."""
        while self.is_under_way:
            yield from self.await_result()
            self.is_under_way = self._pgconn.get_result() is not None

    def run(self, text: str, parameters: Mapping[str, object] | None = None) -> Steps[PGresult]:
        """A statement whose rows are few."""
        yield from self.send(text, parameters or {}, is_kept=parameters is not None)
        result = yield from self.next_result()
        assert result is not None
        yield from self.drain()
        return result

    def run_named(self, name: str, parameters: Mapping[str, object] | None = None) -> Steps[PGresult]:
        return (yield from self.run(query(name).as_string(), parameters))

    def _dumped(self, values: list[object]) -> tuple[tuple[int, ...], list[Buffer | None], list[int]]:
        if not values:
            return (), [], []
        transformer = Transformer(self._connection)
        found = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        return transformer.types or (), list(found), list(transformer.formats or ())

    def _plan(self, sent: bytes, types: tuple[int, ...]) -> Steps[bytes | None]:
        """The name that it is prepared by, from the second time on."""
        plans, key = self._connection.plans, (sent, types)
        if plans is None:
            return None
        name: bytes | None = plans.names.get(key)
        if name is not None:
            plans.names.move_to_end(key)
            return name
        if not plans.is_wanted(key):
            return None
        plans.made += 1
        name = b"ingest_%d" % plans.made
        self._pgconn.send_prepare(name, sent, types)
        yield from self._ended()
        plans.names[key] = name
        if len(plans.names) > PLANS_MAX:
            _, oldest = plans.names.popitem(last=False)
            self._pgconn.send_query_params(b"DEALLOCATE " + oldest, None)
            yield from self._ended()
        return name

    def _ended(self) -> Steps[None]:
        self.is_under_way = True
        yield from self._flush()
        yield from self.next_result()
        yield from self.drain()

    def _flush(self) -> Steps[None]:
        while self._pgconn.flush():
            yield WRITE
            self._pgconn.consume_input()


def finish(connection: Connection, steps: Steps[T]) -> T:
    """Carries them out in this thread."""
    poll = select.poll()
    while True:
        try:
            wanted = next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        poll.register(connection.fileno(), wanted)
        poll.poll()


def _numbered(home: str | None, text: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement as PostgreSQL takes it, and which parameters $1, $2, ... are."""
    return (_remembered if len(text) <= TEXT_MAX else _remembered.__wrapped__)(home, text)


@lru_cache(SEEN_MAX)
def _remembered(home: str | None, text: str) -> tuple[bytes, tuple[str, ...]]:
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${places.setdefault(name, len(places) + 1)}"

    named = NamedQuery(text).in_schema_of(home)
    return _PLACEHOLDER.sub(place, named).encode(), tuple(places)
