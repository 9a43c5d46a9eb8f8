"""Which kind of message has which queue, and from which of them an engine takes."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.delivery.importance import RANKS


def kinds_of(text: str) -> tuple[int, ...]:
    """The ranks of the kinds that a text names, separated by commas. Raises ValueError with what is not understood."""
    found = set()
    for word in text.replace(",", " ").split():
        # A person says reports as well as report.
        rank = next((rank for rank, name in enumerate(RANKS) if word.lower() in (name, f"{name}s")), None)
        if rank is None:
            raise ValueError(word)
        found.add(rank)
    if not found:
        raise ValueError(text)
    return tuple(sorted(found))


def taken(destinations: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    """The queues of these kinds, each once, the most important first, with the rank of the most important kind in it.
    ``destinations`` are the kinds' queues by rank."""
    found: dict[str, int] = {}
    for rank in sorted(kinds):
        # Another kind that is not asked for may share the queue: what comes there is taken, as what it is.
        found.setdefault(destinations[rank], destinations.index(destinations[rank]))
    return found
