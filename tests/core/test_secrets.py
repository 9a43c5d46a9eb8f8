"""No secret survives on its way to quarantine, however it is nested, wrapped, cut off or damaged."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core import secrets as module
from ingest.core.secrets import REDACTED, redact
from lab import real_catalogs as corpus

SECRET = "hunter2hunter2"
SECRETS = st.sampled_from([SECRET, [SECRET], {"a": SECRET}, f'"{SECRET}"', f"a\n{SECRET}\\"])


def resource(parameters: Any, names: Any, **members: Any) -> dict[str, Any]:
    return {"type": "User", "title": "u", "parameters": parameters, "sensitive_parameters": names} | members


@st.composite
def secrets(draw: st.DrawFn) -> Any:
    """A document with a secret that says that it is one."""
    secret = draw(SECRETS)
    value: Any = draw(
        st.sampled_from(
            [
                {"resources": [resource({"password": secret, "shell": "/bin/sh"}, ["password"])]},
                {"resources": [resource({"password": {"__ptype": "Sensitive", "__pvalue": secret}}, [])]},
                {"resources": [resource({"p": secret, "q": [{"r": secret}]}, ["q", "p", "none"])]},
                {"resources": [resource({"password": secret}, "password")]},
                {"resources": [resource({"password": secret}, {"password": True})]},
                {"resources": [resource({"password": secret}, ["password", 5])]},
                {"resources": [resource(["password", secret], ["password"])]},
                {"a": {"__ptype": "Hash", "__pvalue": [{"__ptype": "Sensitive", "__pvalue": secret}, 1]}},
            ]
        )
    )
    for wrap in draw(st.lists(st.sampled_from(["text", "member", "list", "parameter"]), max_size=3)):
        value = {
            "text": json.dumps(value),
            "member": {"data": value},
            "list": [1, value],
            "parameter": {"resources": [{"type": "File", "title": "f", "parameters": {"content": value}}]},
        }[wrap]
    return {"name": "n", "data": value}


@given(secrets(), st.booleans())
def test_a_readable_body_has_no_secret_left(document: Any, ascii_only: bool) -> None:
    """By name or by type; at any depth, and in documents that are strings of documents."""
    body, note = redact(json.dumps(document, ensure_ascii=ascii_only).encode())
    assert body is not None
    assert SECRET.encode() not in body
    assert note is not None
    assert json.loads(body)["name"] == "n"  # still readable


SNIPPETS = [
    b'"',
    b"\\",
    b":",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\xff",
    b"\0",
    b'":',
    b'","',
    b'\\"',
    b"x",
    b"'",
]
SHOWN = re.compile(rb'%s|"\.\.\."|\.\.\.|[\s\[\]{}:,0"]' % b"|".join(sorted(module._SHOWN)))


@settings(max_examples=400)
@given(
    secrets(),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(SNIPPETS)), max_size=3),
    st.floats(0, 1),
)
def test_an_unreadable_body_has_no_secret_left(
    document: Any, damages: list[tuple[float, int, bytes]], kept: float
) -> None:
    """Cut off anywhere, with stray quotes, backslashes and colons: nothing is shown but punctuation and names that
    every catalog has."""
    body = json.dumps(document).encode()
    for at, deleted, inserted in damages:
        place = int(at * len(body))
        body = body[:place] + inserted + body[place + deleted :]
    body = body[: int(kept * len(body))]
    try:
        json.loads(body)
    except ValueError:
        if b'"' in body:
            masked, note = redact(body)
            assert masked is not None
            assert SECRET.encode() not in masked
            assert SHOWN.sub(b"", masked) == b""
            assert note == (None if masked == body else "unreadable: values masked")


@pytest.mark.parametrize("cut", range(1, 120))
def test_a_body_cut_at_any_byte_has_no_secret_left(cut: int) -> None:
    """Also right behind a backslash."""
    body = json.dumps(resource({"password": f'{SECRET}\\"{SECRET}\n{SECRET}', "q": 1}, ["password"])).encode()
    assert SECRET.encode() not in (redact(body[:-cut])[0] or b"")


def test_a_body_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it could neither be read nor given back to the queue."""
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 100)
    body = json.dumps({"resources": [resource({"password": SECRET}, ["password"])] * 10}).encode()
    assert redact(body) == (None, "larger than 100 bytes: not kept")


MIB = 1024 * 1024
LARGE = {
    "empty objects": b'{"a":[' + b"{}," * (2 * MIB) + b"{}]}",
    "empty objects beside a secret": b'{"sensitive_parameters":["a"],"a":[' + b"{}," * (2 * MIB) + b"{}]}",
    "quotes": b'"' * (6 * MIB),
    "quotes and backslashes": b'"\\' * (3 * MIB),
    "escaped quotes": b'"' + b'\\"' * (3 * MIB),
    "backslashes": b"\\" * (6 * MIB),
    "brackets": b"[" * (6 * MIB),
    "words": b"a " * (3 * MIB),
    "numbers": b'["sensitive_parameters"' + b",1" * (3 * MIB) + b"]",
    "texts": b'["sensitive_parameters"' + b',"a"' * (MIB + MIB // 2) + b"]",
    "twins": b'{"sensitive_parameters":["a"]' + b',"a":1' * MIB + b"}",
    "documents in texts": json.dumps(
        [json.dumps({"__ptype": "Sensitive", "a": ["x"] * 1000})] * 900
    ).encode(),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_body_costs_little(kind: str) -> None:
    """Whatever it is made of: under a second of CPU time, and tens of MiB."""
    body = LARGE[kind]
    started_s = time.process_time()
    redact(body)
    assert time.process_time() - started_s < 1
    tracemalloc.start()
    try:
        redact(body)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_what_is_nested_too_deeply_is_not_kept_or_masked() -> None:
    """Nobody looked at all of it."""
    inner = json.dumps(resource({"password": SECRET}, ["password"]))
    for depth in (300, 900, 100_000):
        kept, _ = redact(("[" * depth + inner + "]" * depth).encode())
        assert SECRET.encode() not in (kept or b"")


def test_a_body_without_secrets_is_kept_as_it_is() -> None:
    """Byte for byte, without a note: it can be given back to the queue."""
    body = corpus.body("minimal-01", 1, "wire")
    assert redact(body) == (body, None)


@given(st.binary(max_size=300))
def test_whatever_arrives_leaves_no_words(body: bytes) -> None:
    """No exception; of what is no JSON only punctuation and the names that every catalog has."""
    kept, _ = redact(body)
    assert kept is not None
    try:
        json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        assert SHOWN.sub(b"", kept) == b""


@pytest.mark.parametrize(
    "body",
    [b"password: hunter2hunter2", b"{'password' => 'hunter2hunter2'}", b"hunter2hunter2", b"<p>hunter2hunter2</p>",
     '{"password": "hunter2hunter2"}'.encode("utf-16"), b"{password: hunter2hunter2}"],
)  # fmt: skip
def test_what_is_no_json_has_no_secret_left(body: bytes) -> None:
    """Another format says nowhere what is secret: its words are not kept."""
    kept, note = redact(body)
    assert kept is not None
    assert b"hunter2" not in kept.replace(b"\0", b"")
    assert note == "unreadable: values masked"


def test_only_secrets_are_hidden() -> None:
    """The rest stays as it was, in its order."""
    document = {
        "b": 1,
        "resources": [resource({"z": 1, "password": SECRET, "a": None}, ["password"])],
        "a": "é",
    }
    kept, note = redact(json.dumps(document).encode())
    document["resources"][0]["parameters"]["password"] = REDACTED  # type: ignore[index]
    assert kept == json.dumps(document, ensure_ascii=False).encode()
    assert note == "1 sensitive values redacted"
