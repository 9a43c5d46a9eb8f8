"""Which kind a message is: told from its first bytes or its headers where they say so, or else by what it turns out to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from ingest.config.kinds import kinds
from ingest.core.delivery.commands import FIRST_MEMBER, Scalar, plain_name, refusal, require_version
from ingest.core.delivery.decoding import AtOnce, Counts, DecoderSettings, KindDecoder, KnownDigests
from ingest.core.delivery.envelope import read_command
from ingest.core.delivery.work import Descriptor
from ingest.errors import Rejected


class Decoders:
    """The decoders of all kinds in one process, and as one of them: it takes a message of any kind."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._by_command: dict[str, KindDecoder] = {}
        self._by_first: dict[bytes, KindDecoder] = {}
        self._versions: dict[str, range] = {}
        self._counting: list[Counts] = []
        # isinstance() of a protocol takes too long to be asked for each message.
        self._at_once: dict[KindDecoder, AtOnce] = {}
        for kind in kinds():
            decoder: KindDecoder = resolve_name(kind.decoder)(settings)
            self._by_command |= dict.fromkeys(kind.commands, decoder)
            self._by_first |= dict.fromkeys((command.encode() for command in kind.commands), decoder)
            self._versions |= kind.commands
            if kind.takes_unnamed:
                self._unnamed = decoder
            if isinstance(decoder, AtOnce):
                self._at_once[decoder] = decoder
            if isinstance(decoder, Counts):
                self._counting.append(decoder)

    @property
    def totals(self) -> Mapping[str, float]:
        """What they have measured, by the names of metrics."""
        return {name: total for decoder in self._counting for name, total in decoder.totals.items()}

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[Any]:
        """The work that a body makes, the last one given, and before it what a writer can have early. Raises Rejected."""
        decoder = self._guess(descriptor, body)
        if decoder is self._unnamed:
            # It parses no more than it must, so nobody parses before it. Refused, it may have been another kind.
            try:
                yield from decoder.decode(descriptor, body, known)
                return
            except Rejected:
                decoder = self._other(descriptor, body)
                if decoder is None:
                    raise
        else:
            ready = self._at_once.get(decoder) if decoder else None
            if ready is not None and (work := ready.at_once(descriptor, body)) is not None:
                yield work
                return
            decoder = self._named(*read_command(body, descriptor.headers))
        yield from decoder.decode(descriptor, body, known)

    def _guess(self, descriptor: Descriptor, body: memoryview) -> KindDecoder | None:
        """None: a command that only a parse of the message tells."""
        if first := FIRST_MEMBER.match(body):
            return self._by_first.get(first[1])
        name = descriptor.headers.get("command")
        return self._by_command.get(plain_name(name)) if name else self._unnamed

    def _other(self, descriptor: Descriptor, body: memoryview) -> KindDecoder | None:
        """That of another kind, by a parse of the whole; None: it is none. Raises Rejected."""
        try:
            name, version = read_command(body, descriptor.headers)
        except Rejected:
            return None
        return self._named(name, version) if self._by_command.get(name) not in (None, self._unnamed) else None

    def _named(self, name: str, version: Scalar) -> KindDecoder:
        """Raises Rejected for a command that no kind has."""
        decoder = self._by_command.get(name)
        if decoder is None:
            raise refusal(name, version)
        require_version(name, version, self._versions[name])
        return decoder
