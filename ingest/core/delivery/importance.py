"""What goes first: a catalog is waited for by other nodes' compiles, facts by queries, a report by nobody.

The rule, of decoders and of writers: the most important that waits is next, unless something less important has let
``PASSED_MAX`` others pass; then that has its turn. So whatever waits gets on, however much comes of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingest.core.delivery.commands import FIRST_MEMBER

# A rank is a place in this list, and its name that of the kind that it is named after.
RANKS = ("catalog", "facts", "report")
CATALOG, FACTS, REPORT = range(len(RANKS))
FIRST_BYTES = 512  # of a body, where its command stands
PASSED_MAX = 16  # one in seventeen: what a flood of catalogs leaves of a decoder for the others


class Importance:
    """Which rank each message has, by its command: the kinds say it. What nobody knows goes with the catalogs."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        # As headers and bodies have them, which is asked for every message: old senders write underscores.
        self._by_command = {**ranks, **{name.replace(" ", "_"): rank for name, rank in ranks.items()}}

    def of_command(self, command: str | None) -> int:
        """Of a command's name, as headers or bodies have it."""
        return self._by_command.get(command, CATALOG) if command else CATALOG

    def is_known(self, command: str) -> bool:
        """Whether a kind of message has that command."""
        return command in self._by_command

    def of_message(self, headers: Mapping[str, str], start: bytes, otherwise: int = CATALOG) -> int:
        """Of one that nobody has parsed; ``otherwise``: where nothing tells, that of the queue it came from."""
        command = headers.get("command")
        if command is not None:
            return self._by_command.get(command, CATALOG)
        first = FIRST_MEMBER.match(start)
        return otherwise if first is None else self._by_command.get(first[1].decode(), CATALOG)


class Turns:
    """Whose turn it is, by what has passed whom."""

    def __init__(self) -> None:
        self._passed = [0] * len(RANKS)

    def order(self, waits: Sequence[bool]) -> list[int]:
        """The ranks that have something waiting, the one whose turn it is first."""
        waiting = [rank for rank, one in enumerate(waits) if one]
        return sorted(waiting, key=lambda rank: (not self.is_owed(rank), rank))

    def is_owed(self, rank: int) -> bool:
        """So many have passed it that it does not wait any longer."""
        return self._passed[rank] >= PASSED_MAX

    def took(self, rank: int, waits: Sequence[bool], count: int = 1) -> None:
        """So many of that rank were taken while those waited."""
        self._passed[rank] = 0
        for other in range(rank + 1, len(self._passed)):
            self._passed[other] = self._passed[other] + count if waits[other] else 0
