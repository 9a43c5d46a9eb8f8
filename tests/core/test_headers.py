"""What goes on with a message of its headers, and what does not."""

from __future__ import annotations

import pytest

from ingest.core.delivery.headers import KEPT, VALUE_BYTES_MAX, kept_headers, unacknowledgeable
from ingest.core.delivery.producers import PUBLISHER


def test_what_decoders_and_the_quarantine_need_is_kept_and_nothing_else() -> None:
    """A producer's own headers end here."""
    headers = {name: f"the {name}" for name in KEPT}
    assert {"certname", "command", "version", "producer_timestamp", "destination", "message-id"} <= KEPT
    assert kept_headers(headers | {"x-own": "1", "ack": "7", "subscription": "s"}, None) == headers


def test_the_publisher_is_the_one_the_broker_names_in_the_header_that_is_set() -> None:
    """And in no other: what a producer writes under our own name for it counts for nothing."""
    headers = {"JMSXUserID": "puppet", PUBLISHER: "forged", "user": "other"}
    assert kept_headers(headers, "JMSXUserID") == {PUBLISHER: "puppet"}
    assert kept_headers(headers, None) == {}
    assert kept_headers(headers, "absent") == {}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("a" * VALUE_BYTES_MAX, "a" * VALUE_BYTES_MAX),
        ("a" * (VALUE_BYTES_MAX + 1), "a" * VALUE_BYTES_MAX),
        ("é" * (VALUE_BYTES_MAX // 2), "é" * (VALUE_BYTES_MAX // 2)),
        ("é" * VALUE_BYTES_MAX, "é" * (VALUE_BYTES_MAX // 2)),
        ("a" + "é" * VALUE_BYTES_MAX, "a" + "é" * ((VALUE_BYTES_MAX - 1) // 2)),  # the half one is dropped
        ("n\udcffode", "n\ufffdode"),  # what was not UTF-8 in the frame
    ],
    ids=["fits", "too-long", "fits-in-two-bytes-each", "too-long-in-bytes", "cut-in-a-character", "not-utf8"],
)
def test_values_are_cut_in_bytes(value: str, kept: str) -> None:
    """A descriptor must fit into a pipe whatever characters are in it; the publisher's name too."""
    assert kept_headers({"certname": value}, None) == {"certname": kept}
    assert kept_headers({"user": value}, "user") == {PUBLISHER: kept}


def test_a_message_that_cannot_be_acknowledged_has_its_verdict() -> None:
    """Either header will do."""
    assert unacknowledgeable({"ack": "1"}) is None
    assert unacknowledgeable({"message-id": "1"}) is None
    verdict = unacknowledgeable({"destination": "/queue/catalog"})
    assert verdict == ("unacknowledgeable", "the broker sent neither an ack nor a message-id header")
