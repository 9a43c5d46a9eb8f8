"""Which decoder gets a message."""

from __future__ import annotations

import zlib

import pytest

from ingest.core.delivery.routing import END_BYTES, PATIENCE, START_BYTES, choose, routing_key
from lab import real_catalogs as corpus

DECODERS = ["decoder-0", "decoder-1", "decoder-2"]


@pytest.mark.parametrize("form", ["wire", "native"])
@pytest.mark.parametrize("role", corpus.ROLES)
def test_a_nodes_messages_have_one_key_whatever_the_form(role: str, form: str) -> None:
    """The certname is found where Puppet and PuppetDB's terminus put it, in every round."""
    bodies = [corpus.body(role, round_, form) for round_ in corpus.ROUNDS]
    keys = {routing_key({}, body[:START_BYTES], body[-END_BYTES:]) for body in bodies}
    assert len(keys) == 1
    assert keys != {zlib.crc32(b"")}


def test_the_header_wins() -> None:
    """A producer that says the certname saves the search."""
    assert routing_key({"certname": "a"}, b'{"name":"b"}', b"") == zlib.crc32(b"a")


def test_a_node_keeps_its_decoder_while_that_one_keeps_up() -> None:
    """Up to PATIENCE more messages than the idlest may wait at the node's own decoder; then the idlest gets it."""
    load = dict.fromkeys(DECODERS, 0)
    load["decoder-1"] = PATIENCE
    assert choose(1, DECODERS, load.__getitem__) == "decoder-1"
    load["decoder-1"] += 1
    assert choose(1, DECODERS, load.__getitem__) == "decoder-0"
