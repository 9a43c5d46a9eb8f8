"""Passwords in any text: of several addresses, of conninfos in every spelling, beside each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.passwords import HIDDEN, hide_passwords, hide_passwords_of_addresses

SECRET = "hunter2"
# Around a secret that can be recognised: everything that might end it too early.
around = st.text(st.sampled_from("x@:/'\"\\ %=?,;é{}"), max_size=4)


def quoted(value: str) -> str:
    """As libpq wants a value with spaces or quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@given(
    around,
    around,
    st.sampled_from(["password={}", "password = {}", "PASSWORD={}", "host=h sslpassword={} user=u"]),
)
def test_no_quoted_password_of_a_conninfo_survives(before: str, after: str, text: str) -> None:
    """Whatever is in it; what stands behind it stays."""
    shown = hide_passwords(f"connecting with {text.format(quoted(before + SECRET + after))} failed")
    assert SECRET not in shown
    assert shown == f"connecting with {text.format(HIDDEN)} failed"


@given(around, around)
def test_no_escaped_password_of_a_conninfo_survives(before: str, after: str) -> None:
    """Without quotes, each space and backslash behind a backslash, as libpq allows."""
    value = "".join("\\" + c if c in " '\\" else c for c in before + SECRET + after)
    assert hide_passwords(f"host=h password={value} user=u") == f"host=h password={HIDDEN} user=u"


@given(st.lists(st.text(st.sampled_from("x@:'\"\\ %=?,;é"), max_size=4), min_size=1, max_size=3))
def test_no_password_of_a_list_of_addresses_survives(parts: list[str]) -> None:
    """Also with a space or an @ in it, which no address may have; every host stays."""
    addresses = [f"stomp+ssl://user{at}:{part}{SECRET}{part}@host{at}:61613" for at, part in enumerate(parts)]
    shown = hide_passwords_of_addresses(",".join(addresses))
    assert SECRET not in shown
    for at in range(len(parts)):
        assert f"user{at}:{HIDDEN}@host{at}" in shown


@given(st.text(max_size=60))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    """What is hidden looks like no password any more."""
    once = hide_passwords(text)
    assert hide_passwords(once) == once


@pytest.mark.parametrize(
    "text",
    ["stomp://host:61613", "failover:(stomp://a,stomp://b)", "at 12:30: mail for a@b.example.com", "no passwords here",
     "http://127.0.0.1:8080/metrics", "host=h dbname=d"],
)  # fmt: skip
def test_what_is_no_password_stays(text: str) -> None:
    """Ports, times and mail addresses are none."""
    assert hide_passwords(text) == hide_passwords_of_addresses(text) == text
