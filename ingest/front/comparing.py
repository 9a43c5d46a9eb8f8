"""Compares what a PuppetDB and we have stored, a few nodes at a time: both are asked the same queries.

A node that differs is looked at a second time at the end, and only what differs then counts: while both take in commands,
one of them is always a little ahead.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from ingest.core.archive import comparing
from ingest.core.query.reading import read_query
from ingest.front.peer import Peer
from ingest.store.connection import Connection
from ingest.store.query.asked import compile_asked
from ingest.store.query.running import RunningQuery
from ingest.store.query.wire import finish

NODES_AT_ONCE = 10  # their catalogs and facts are in memory
PAGE = 1000  # names of nodes of one answer
KINDS = ("state", "catalog", "facts", "packages", "inputs", "reports")

Tree = list[Any]
Rows = list[dict[str, Any]]
Ask = Callable[[Tree], Rows]


class Difference(NamedTuple):
    """A node of which something differs: by kind, in words."""

    certname: str
    differs: dict[str, list[str]]


class Found(msgspec.Struct):
    """What has been compared so far."""

    nodes: int = 0
    differing: int = 0
    only_there: int = 0
    only_here: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)  # nodes that differ in it


class Comparison:
    """``run`` once, then ``found`` has the counts. ``since``: reports that are older (ISO 8601) are not compared."""

    def __init__(
        self,
        peer: Peer,
        connection: Connection,
        *,
        timeout_s: float,
        purge_ttl_s: float,
        since: str | None = None,
    ) -> None:
        self.found = Found()
        self.total = 0
        self._peer, self._connection = peer, connection
        self._asking = ThreadPoolExecutor(1, "asking")
        self._timeout_s, self._purge_ttl_s, self._since = timeout_s, purge_ttl_s, since

    def run(self, settle_s: float, told: Callable[[int], None] = lambda nodes: None) -> Iterator[Difference]:
        """Each node that differs. Raises Unavailable, Declined, BadQuery."""
        theirs, ours = self._states(self._peer.query), self._states(self._ours)
        certnames = sorted(theirs.keys() | ours.keys())
        self.total = len(certnames)
        doubtful: list[str] = []
        for at in range(0, len(certnames), NODES_AT_ONCE):
            few = certnames[at : at + NODES_AT_ONCE]
            doubtful += [one.certname for one in self._compare(few, theirs, ours)]
            told(at + len(few))
        if doubtful:
            time.sleep(settle_s)
            theirs, ours = self._states(self._peer.query), self._states(self._ours)
        self.found.nodes = len(theirs.keys() | ours.keys())
        self.found.only_there, self.found.only_here = (
            len(theirs.keys() - ours.keys()),
            len(ours.keys() - theirs.keys()),
        )
        for at in range(0, len(doubtful), NODES_AT_ONCE):
            for difference in self._compare(doubtful[at : at + NODES_AT_ONCE], theirs, ours):
                self.found.differing += 1
                self.found.kinds.update(difference.differs.keys())
                yield difference

    def _compare(
        self, certnames: Sequence[str], theirs: dict[str, str], ours: dict[str, str]
    ) -> Iterator[Difference]:
        differences: dict[str, dict[str, list[str]]] = {}
        for certname in certnames:
            there, here = theirs.get(certname), ours.get(certname)
            if there != here:
                differences[certname] = {"state": [f"{there or 'unknown'} there, {here or 'unknown'} here"]}
        both = [name for name in certnames if name in theirs and name in ours]
        for kind, certname, lines in self._parts(both):
            if lines:
                differences.setdefault(certname, {})[kind] = lines
        for certname in certnames:
            if certname in differences:
                yield Difference(certname, differences[certname])

    def _parts(self, certnames: list[str]) -> Iterator[tuple[str, str, list[str]]]:
        if not certnames:
            return
        for kind, entity, compare in (
            ("catalog", "catalogs", comparing.compare_catalogs),
            ("facts", "factsets", comparing.compare_factsets),
            ("inputs", "catalog_inputs", comparing.compare_inputs),
        ):
            theirs, ours = map(_one_each, self._both(_select(entity, certnames)))
            for certname in certnames:
                yield kind, certname, list(compare(theirs.get(certname), ours.get(certname)))
        there, here = map(_several, self._both(_select("package_inventory", certnames)))
        for certname in certnames:
            lines = comparing.compare_packages(there.get(certname, []), here.get(certname, []))
            yield "packages", certname, list(lines)
        yield from self._reports(certnames)

    def _reports(self, certnames: list[str]) -> Iterator[tuple[str, str, list[str]]]:
        """Which there are, and of each node the newest that both have, whole."""
        every: Tree = [
            ["null?", "type", False],
            ["=", "node_state", "any"],
        ]  # of plans and of inactive nodes, too
        needed: Tree = ["and", _any_of("certname", certnames), *every]
        if self._since is not None:
            needed.append([">=", "producer_timestamp", self._since])
        columns = ["hash", "certname", "producer_timestamp"]
        there, here = map(_several, self._both(["from", "reports", ["extract", columns, needed]]))
        hashes: dict[str, str] = {}
        for certname in certnames:
            theirs, ours = (
                {row["hash"]: row["producer_timestamp"] for row in rows.get(certname, [])}
                for rows in (there, here)
            )
            lines_of_hashes = list(comparing.compare_report_hashes(theirs, ours))
            if common := theirs.keys() & ours.keys():
                hashes[certname] = max(common, key=lambda one: (comparing.comparable(theirs[one]), one))
            if lines_of_hashes:
                yield "reports", certname, lines_of_hashes
        if not hashes:
            return
        tree = ["from", "reports", ["and", _any_of("hash", list(hashes.values())), *every]]
        theirs_whole, ours_whole = map(_one_each, self._both(tree))
        for certname in hashes:
            if certname in theirs_whole and certname in ours_whole:
                lines = list(comparing.compare_reports(theirs_whole[certname], ours_whole[certname]))
                yield "newest report", certname, lines

    def _both(self, tree: Tree) -> tuple[Rows, Rows]:
        """Theirs, and ours meanwhile."""
        asked = self._asking.submit(self._peer.query, tree)
        ours = self._ours(tree)
        return asked.result(), ours

    def _states(self, ask: Ask) -> dict[str, str]:
        """Of every node: active, deactivated or expired."""
        found: dict[str, str] = {}
        columns = ["certname", "deactivated", "expired"]
        while True:
            rows = ask(
                ["from", "nodes", ["extract", columns, ["=", "node_state", "any"]],
                 ["order_by", ["certname"]], ["limit", PAGE], ["offset", len(found)]]
            )  # fmt: skip
            for row in rows:
                found[row["certname"]] = (
                    "deactivated" if row["deactivated"] else "expired" if row["expired"] else "active"
                )
            if len(rows) < PAGE:
                return found

    def _ours(self, tree: Tree) -> list[dict[str, Any]]:
        running = RunningQuery(self._connection, self._timeout_s)
        try:
            rows = []
            piece = finish(
                self._connection, running.begin(compile_asked(read_query(tree), {}, self._purge_ttl_s))
            )
            while piece:
                rows += [msgspec.json.decode(row) for row in piece]
                piece = finish(self._connection, running.next_piece())
            return rows
        finally:
            finish(self._connection, running.close())


def _any_of(field: str, values: Sequence[str]) -> Tree:
    return ["in", field, ["array", list(values)]]


def _select(entity: str, certnames: Sequence[str]) -> Tree:
    return ["from", entity, ["and", _any_of("certname", certnames), ["=", "node_state", "any"]]]


def _one_each(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["certname"]: row for row in rows}


def _several(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["certname"], []).append(row)
    return found
