"""Heads of frames to and from bytes: what each version of STOMP can say, read leniently and strictly."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")
from stomp.utils import parse_frame

from ingest.transport.stomp.codec import (
    Malformed,
    content_length,
    end_of_head,
    read_head,
    read_head_strictly,
    write_acks,
    write_head,
)
from tests.brokers.headers import NAMES, VALUES

VERSIONS = ("1.0", "1.1", "1.2")


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_headers_survive_being_written_and_read(version: str, data: st.DataObject) -> None:
    """What a version can express comes back unchanged."""
    names, values = NAMES, VALUES
    if version == "1.0":
        names = names.map(str.strip).filter(lambda text: text and ":" not in text and "\n" not in text)
        values = values.map(str.strip).filter(lambda text: "\n" not in text)
    headers = data.draw(st.dictionaries(names, values, max_size=5))
    head = write_head("MESSAGE", headers, version)
    assert head.endswith(b"\n\n")
    if version == "1.1" and any("\r" in text for pair in headers.items() for text in pair):
        assert b"\\r" not in head.replace(b"\\\\r", b"")  # 1.1 knows no such escape
    assert read_head_strictly(head[:-2], version, headers_max=10) == ("MESSAGE", headers)


def test_each_version_escapes_as_it_should() -> None:
    """1.0 only what would forge a header; 1.1 colon, line feed, backslash; 1.2 carriage return too."""
    headers = {"a": "x:y\\\r\nz"}
    assert write_head("MESSAGE", headers, "1.0") == b"MESSAGE\na:x:y\\\r\\nz\n\n"
    assert write_head("MESSAGE", headers, "1.1") == b"MESSAGE\na:x\\cy\\\\\r\\nz\n\n"
    assert write_head("MESSAGE", headers, "1.2") == b"MESSAGE\na:x\\cy\\\\\\r\\nz\n\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_connect_is_never_escaped(version: str) -> None:
    """A passcode with a backslash means the same to every version."""
    assert write_head("CONNECTED", {"server": "a\\b:c"}, version) == b"CONNECTED\nserver:a\\b:c\n\n"
    assert read_head_strictly(b"CONNECT\npasscode:a\\nb", version, headers_max=9)[1] == {"passcode": "a\\nb"}


def test_1_1_keeps_unknown_escapes_and_1_0_knows_none() -> None:
    """Only 1.2 calls an undefined escape fatal."""
    assert read_head_strictly(b"SEND\na:\\t\\r\\n", "1.1", headers_max=9)[1] == {"a": "\\t\\r\n"}
    assert read_head_strictly(b"SEND\na:\\t\\n\\c", "1.0", headers_max=9)[1] == {"a": "\\t\\n\\c"}


def test_1_0_ignores_blanks_around_headers() -> None:
    """Its specification itself writes "login: user"."""
    assert read_head_strictly(b"SEND\ndestination: /queue/a ", "1.0", headers_max=9)[1] == {
        "destination": "/queue/a"
    }
    assert read_head_strictly(b"SEND\na: b", "1.1", headers_max=9)[1] == {"a": " b"}


@pytest.mark.parametrize("version", VERSIONS)
def test_header_bytes_that_are_not_utf_8_pass_unchanged(version: str) -> None:
    """A broker has no reason to lose them."""
    _, headers = read_head_strictly(b"SEND\na:\xff\xfe\xc3\xa9", version, headers_max=9)
    assert write_head("SEND", headers, version) == b"SEND\na:\xff\xfe\xc3\xa9\n\n"


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_both_ways_of_reading_agree_on_what_is_right(version: str, data: st.DataObject) -> None:
    """What the strict one accepts the lenient one reads alike; a carriage return before a line feed aside."""
    values = VALUES.filter(lambda text: "\r" not in text)
    headers = data.draw(st.dictionaries(NAMES.filter(lambda text: "\r" not in text), values, max_size=5))
    head = write_head("SEND", headers, version)[:-2]
    assert read_head(head, version) == read_head_strictly(head, version, headers_max=10)


@given(
    st.lists(st.sampled_from([b"a", b":", b"\\", b"\\c", b"\n", b"\r\n", b"\0", b"\xff", b"b:c\n"])).map(
        b"".join
    )
)
def test_any_bytes_are_read_leniently(head: bytes) -> None:
    """No head stops the engine, and in each version its command is the first line."""
    for version in (None, "1.0", "1.1", "1.2", "9"):
        command, headers = read_head(head, version)
        assert command.encode("utf-8", "surrogateescape") == head.replace(b"\r\n", b"\n").split(b"\n")[0]
        assert all(isinstance(text, str) for pair in headers.items() for text in pair)


@pytest.mark.parametrize(
    ("head", "version", "headers"),
    [
        (b"MESSAGE\na", "1.2", {"a": ""}),
        (b"MESSAGE\na:\\t\\", "1.2", {"a": "\\t\\"}),
        (b"MESSAGE\na:\\\\c\\c\\\\\\n", "1.2", {"a": "\\c:\\\n"}),
        (b"MESSAGE\na:\\r", "1.2", {"a": "\r"}),
        (b"MESSAGE\na:\\r", "1.1", {"a": "\\r"}),
        (b"MESSAGE\na:\\c", "1.0", {"a": "\\c"}),
        (b"MESSAGE\r\na:1\r\nb:2\r", "1.1", {"a": "1", "b": "2"}),
        (b"MESSAGE\na:\0", "1.2", {"a": "\0"}),
        (b"MESSAGE\na\\cb:\\n\na\\cb:2", "1.2", {"a:b": "\n"}),
        (b"CONNECTED\na:\\c", "1.2", {"a": "\\c"}),
    ],
)
def test_oddities_of_a_broker_have_a_meaning(head: bytes, version: str, headers: dict[str, str]) -> None:
    """Where the strict one would hang up, the message can still be told."""
    assert read_head(head, version)[1] == headers


@pytest.mark.parametrize(
    ("head", "version", "told"),
    [
        (b"SEND\na:\\t", "1.2", r"escape \\t$"),
        (b"SEND\na:\\\\\\", "1.2", r"escape \\$"),
        (b"SEND\n\\x:a", "1.2", r"escape \\x$"),
        (b"SEND\na:b\nc", "1.1", "no colon"),
        (b"SEND\na:b\0", None, "before the empty line"),
        (b"SEND\na:b\nc:d\ne:f", "1.0", "more than 2 headers"),
    ],
)
def test_what_is_wrong_is_said(head: bytes, version: str | None, told: str) -> None:
    """A client of the embedded broker learns why it is hung up on."""
    with pytest.raises(Malformed, match=told):
        read_head_strictly(head, version, headers_max=2)


@pytest.mark.parametrize(
    ("after", "version", "found"),
    [
        (b"\n\nbody", "1.2", b"body"),
        (b"\r\n\r\nbody", "1.2", b"body"),
        (b"\r\n\r\n\nbody", "1.2", b"\nbody"),
        (b"\n\r\n\nbody", None, b"\nbody"),
        (b"\n\n\r\nbody", "1.2", b"\r\nbody"),
        (b"\n\r\n\nbody", "1.1", b"body"),
        (b"\n\r\nbody", "1.1", None),
        (b"\n", "1.2", None),
        (b"\n\r", "1.2", None),
    ],
)
def test_the_first_empty_line_ends_a_head(after: bytes, version: str | None, found: bytes | None) -> None:
    """Whichever line end it has, as far as the version knows it; the body may begin with line ends."""
    data = bytearray(b"SEND\na:b" + after)
    head_end, body_start = end_of_head(data, 0, len(data), version)
    assert (data[body_start:] if head_end >= 0 else None) == found


@pytest.mark.parametrize(
    ("text", "length"),
    [("0", 0), (" 12 ", 12), ("007", 7), ("9" * 15, 10**15 - 1), ("9" * 16, None), ("", None), ("-1", None),
     ("+1", None), ("1_0", None), ("0x1", None), ("\u0663", None), ("\u00b2", None), ("9" * 5000, None)],
)  # fmt: skip
def test_a_length_is_decimal_digits(text: str, length: int | None) -> None:
    """Everything else is none: a NUL ends the body."""
    assert content_length({"content-length": text}) == length
    assert content_length({}) is None


@pytest.mark.parametrize("version", VERSIONS)
@given(ids=st.lists(st.tuples(VALUES, VALUES), max_size=3), subscription=VALUES)
def test_acknowledgements_are_frames_like_all_others(
    version: str, ids: list[tuple[str, str]], subscription: str
) -> None:
    """Written apart for speed, with the same bytes."""

    def headers(ack: str, id_: str) -> dict[str, str]:
        if version == "1.2":
            return {"id": ack}
        return {"message-id": id_} | ({"subscription": subscription} if version == "1.1" else {})

    frames = [write_head("ACK", headers(*pair), version) + b"\0" for pair in ids]
    assert write_acks(ids, subscription, version) == b"".join(frames)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@given(value=VALUES.filter(lambda text: "\r" not in text and text == text.strip()))
def test_stomp_py_reads_what_is_written_here(version: str, value: str) -> None:
    """Another reading of the specification comes to the same headers."""
    frame = parse_frame(write_head("MESSAGE", {"a": value, "b": "c"}, version) + b"body\0")
    assert frame.headers == {"a": value, "b": "c"}
