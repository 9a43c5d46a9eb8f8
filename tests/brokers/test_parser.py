"""Frames out of bytes: the same whatever the socket does to them, refused when they are wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.embedded.broker.parser import READ_BYTES, Frame, HangUp, Limits, Parser
from ingest.transport.stomp.codec import write_head
from tests.brokers.headers import NAMES, VALUES

BODIES = st.one_of(
    st.binary(max_size=200),
    # Around the size of the small buffer, where a body begins to get memory of its own.
    st.builds(
        lambda n, byte: bytes([byte]) * n,
        st.integers(READ_BYTES - 300, READ_BYTES + 300),
        st.integers(0, 255),
    ),
)


@st.composite
def frames(draw: st.DrawFn) -> tuple[Frame, bytes]:
    """A frame and its bytes in STOMP 1.2, with or without content-length."""
    headers = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    body = draw(BODIES)
    if draw(st.booleans()):
        headers["content-length"] = str(len(body))
    else:
        body = body.replace(b"\0", b"0")
    data = write_head("SEND", headers, "1.2") + body + b"\0"
    return Frame("SEND", headers, body), data + draw(st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]))


def parser_of(version: str | None = "1.2", **limits: int) -> Parser:
    parser = Parser(Limits(**limits))
    parser.version = version
    return parser


def plain(frames: list[Frame]) -> list[Frame]:
    return [frame._replace(body=bytes(frame.body)) for frame in frames]


def feed(parser: Parser, *pieces: bytes) -> list[Frame]:
    return plain([frame for piece in pieces for frame in parser.feed(piece)])


def outcome(parser: Parser, *pieces: bytes) -> tuple[list[Frame], str]:
    """The frames up to the point where the parser hangs up, and why it does."""
    found: list[Frame] = []
    try:
        for piece in pieces:
            for frame in parser.feed(piece):
                found.append(frame)
    except HangUp as error:
        return plain(found), error.text
    return plain(found), ""


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@given(st.lists(frames(), min_size=1, max_size=4), st.data())
def test_a_frame_arrives_whole_however_it_is_cut(
    written: list[tuple[Frame, bytes]], data: st.DataObject
) -> None:
    """Where the socket splits the bytes never changes the frames."""
    stream = b"".join(wire for _, wire in written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert feed(parser_of(), *pieces) == [frame for frame, _ in written]


@pytest.mark.parametrize("length_told", [True, False])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_a_frame_arrives_whole_byte_by_byte(length_told: bool, eol: bytes) -> None:
    """One byte at a time is enough, with either line end and either way to end a body."""
    lines = [
        b"SEND",
        b"destination:/queue/catalog",
        *([b"content-length:5"] if length_told else []),
        b"",
        b"hello\0",
    ]
    (frame,) = feed(parser_of(), *byte_by_byte(eol.join(lines)))
    assert frame.command == "SEND"
    assert frame.headers["destination"] == "/queue/catalog"
    assert frame.body == b"hello"


def test_a_body_may_begin_with_line_ends() -> None:
    """The first empty line ends the headers, whichever line end it has."""
    for eol in (b"\n", b"\r\n"):
        for body in (b"\nx", b"\n\nx", b"\r\n\r\nx"):
            wire = eol.join([b"SEND", b"a:b", b"", b""]) + body + b"\0"
            assert (
                feed(parser_of(), wire)
                == feed(parser_of(), *byte_by_byte(wire))
                == [Frame("SEND", {"a": "b"}, body)]
            )


@given(frames(), st.binary(min_size=1, max_size=20))
def test_trailing_bytes_belong_to_the_next_frame(written: tuple[Frame, bytes], trailing: bytes) -> None:
    """A frame is complete with its NUL, and what follows is kept for the next one."""
    frame, wire = written
    follower = write_head("SEND", {"x": "y"}, "1.2")
    trailing = trailing.replace(b"\0", b"0")
    parser = parser_of()
    assert feed(parser, wire + follower + trailing) == [frame]
    assert feed(parser, b"\0") == [Frame("SEND", {"x": "y"}, trailing)]


MALFORMED = {
    "no empty line": (b"SEND\ndestination:/queue/a\0", "before the empty line"),
    "a NUL in the headers": (b"SEND\nna\0me:x\n\n\0", "before the empty line"),
    "a header without colon": (b"SEND\ndestination\n\n\0", "no colon"),
    "a length that is no number": (b"SEND\ncontent-length:-1\n\n\0", "not a number"),
    "a length of 5000 digits": (b"SEND\ncontent-length:" + b"9" * 5000 + b"\n\n\0", "not a number"),
    "a length that is too short": (b"SEND\ncontent-length:2\n\nabc\0", "no NUL"),
    "an undefined escape": (b"SEND\na:\\t\n\n\0", "undefined escape"),
    "an escape cut off": (b"SEND\na:b\\\n\n\0", "undefined escape"),
    "a body over the limit": (b"SEND\ncontent-length:1001\n\n", "limit of 1000 bytes"),
    "an open body over the limit": (b"SEND\n\n" + b"x" * 1001, "limit of 1000 bytes"),
    "headers over the limit": (b"SEND\na:" + b"x" * 6000, "longer than 5100 bytes"),
    "one byte of headers too many": (b"SEND\na:" + b"x" * 5094 + b"\n\n\0", "longer than 5100 bytes"),
    "too many headers": (b"SEND\n" + b"a:b\n" * 11 + b"\n\0", "more than 10 headers"),
}


@pytest.mark.parametrize(("data", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
def test_wrong_bytes_are_refused_however_they_are_cut(data: bytes, reason: str) -> None:
    """A parser hangs up for the same reason after the same frames: whole, byte by byte, with more behind."""
    good = b"SEND\nx:y\n\n\0"
    expected = [Frame("SEND", {"x": "y"}, b"")]
    limits = {"head_bytes_max": 5100, "headers_max": 10, "body_bytes_max": 1000}
    whole = outcome(parser_of(**limits), good + data)
    assert whole[0] == expected
    assert reason in whole[1]
    assert outcome(parser_of(**limits), *byte_by_byte(good + data)) == whole
    assert outcome(parser_of(**limits), good + data + good) == whole


PIECES = [
    b"SEND",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\0",
    b":",
    b"a",
    b"a:b\n",
    b"\\",
    b"\\c",
    b"content-length:2\n",
    b"\xff",
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.lists(st.integers(0, 300), max_size=5)
)
def test_any_bytes_have_one_meaning(noise: bytes, cuts: list[int]) -> None:
    """Whatever arrives, the outcome is the same frames and the same refusal for every cut."""
    edges = [0, *sorted(min(cut, len(noise)) for cut in cuts), len(noise)]
    pieces = [noise[start:stop] for start, stop in itertools.pairwise(edges)]
    assert (
        outcome(parser_of(), *pieces)
        == outcome(parser_of(), noise)
        == outcome(parser_of(), *byte_by_byte(noise))
    )


def test_limits_let_in_what_just_fits() -> None:
    """The limits themselves are allowed; only one more is too much."""
    parser = parser_of(head_bytes_max=5100, headers_max=1, body_bytes_max=1000)
    head = b"SEND\na:" + b"x" * 5093
    (frame,) = feed(parser, head + b"\n\n" + b"y" * 1000 + b"\0")
    assert len(frame.body) == 1000


def test_the_refusal_of_a_large_body_names_its_receipt() -> None:
    """The ERROR can answer the receipt although the body never came."""
    with pytest.raises(HangUp) as caught:
        feed(parser_of(body_bytes_max=10), b"SEND\nreceipt:r-1\ncontent-length:11\n\n")
    assert caught.value.receipt == "r-1"


def test_heart_beats_are_no_frames() -> None:
    """Line ends between frames mean nothing but life."""
    assert feed(parser_of(), b"\n\n\r\n", b"\n", b"\nSEND\n\n\0\n\n\r", b"\n\n") == [Frame("SEND", {}, b"")]


def test_a_held_frame_takes_no_memory_and_comes_when_admitted() -> None:
    """Until its owner admits it, a body is left outside; then nothing of it is missing."""
    asked = []
    answers = iter([False, False, True])

    def admit(head: object) -> bool:
        asked.append(head)
        return next(answers)

    parser = Parser(Limits(), admit)
    body = bytes(range(256)) * 1000
    wire = b"SEND\ncontent-length:%d\n\n" % len(body) + body + b"\0"
    first = wire[: len(parser.buffer())]
    assert feed(parser, first) == []
    assert parser.held
    assert parser.next_frame() is None
    assert len(parser.buffer()) == 0
    assert parser.next_frame() is None
    assert not parser.held
    (frame,) = feed(parser, wire[len(first) :])
    assert frame.body == body
    assert len(asked) == 3


def test_a_long_body_is_read_into_its_own_memory() -> None:
    """The socket is offered exactly the rest of the frame, and the frame keeps that memory."""
    parser = parser_of()
    length = 10 * READ_BYTES
    assert feed(parser, b"SEND\ncontent-length:%d\n\nabc" % length) == []
    target = parser.buffer()
    assert len(target) == length - 3 + 1
    target[:] = b"x" * (length - 3) + b"\0"
    parser.received(len(target))
    frame = parser.next_frame()
    assert frame is not None
    assert isinstance(frame.body, memoryview)
    assert frame.body.obj is target.obj


def test_the_first_of_repeated_headers_counts() -> None:
    """STOMP 1.2, "Repeated Header Entries"."""
    (frame,) = feed(parser_of(), b"SEND\na:1\na:2\n\n\0")
    assert frame.headers == {"a": "1"}


def test_a_carriage_return_ends_lines_in_1_2_only() -> None:
    """Before the version is agreed and in 1.2 it belongs to the line end; in 1.0 and 1.1 to the header."""
    wire = b"SEND\r\na:b\r\n\r\n\0"
    assert feed(parser_of(None), wire) == feed(parser_of("1.2"), wire) == [Frame("SEND", {"a": "b"}, b"")]
    (frame,) = feed(parser_of("1.1"), b"SEND\na:b\r\n\n\0")
    assert frame.headers == {"a": "b\r"}
