"""What the decoder of a kind of message is given, and what it has to give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from ingest.core.delivery.work import Descriptor, SectionDigests


class DecoderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the decoders of all kinds in a process may need to know."""

    cache_bytes_max: int
    seed: int = 0  # of fingerprints: 64 bits that the authors of messages do not know
    lanes: int = 1  # writers
    thin: bool = False  # only what collectors need is stored
    early_bytes: int | None = None  # of new content, to go before the rest, in pieces; None: with it
    facts_blocklist: tuple[str, ...] = ()  # patterns of facts that are not stored
    facts_volatile: tuple[str, ...] = ()  # and of those that change with every run


class KnownDigests(Protocol):
    """What was stored last, by certname. A mapping is one."""

    def get(self, certname: str, /) -> SectionDigests | None: ...


class KindDecoder(Protocol):
    """From a message's bytes to a writer's work: pure but for caches, which are bounded in bytes and only ever save work.
    There is one for each kind in each decoder process."""

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[Any]:
        """The work that a body makes: the last one given. Before it comes what a writer can have early, each with
        ``is_early``. Raises Rejected.

        Work is a msgspec Struct (array_like, frozen, a tag of its own) with ``delivery``, ``certname``, ``received_at`` and
        ``is_early``; where its order is decided by a time that may lie in the future, that is ``producer_timestamp``."""


@runtime_checkable
class AtOnce(Protocol):
    """A decoder that can read a whole message in one go, where others have its command told first."""

    def at_once(self, descriptor: Descriptor, body: memoryview) -> Any:
        """The work of one whose first member is a command of this kind. None: it may be something else after all, or is not
        as nearly everybody writes it; it is decoded as any other then. Raises Rejected."""


@runtime_checkable
class Counts(Protocol):
    """A decoder that measures something: totals since it was made, by the names of metrics."""

    @property
    def totals(self) -> Mapping[str, float]: ...
