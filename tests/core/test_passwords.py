"""Passwords in any text: of several addresses, of conninfos in every spelling, beside each other."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.core.passwords import HIDDEN, hide_passwords, is_readable, show_addresses, show_conninfo

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


# What a password may have in it that ends it too early.
SHARP = [
    "/",
    "@",
    "#",
    "?",
    ":",
    " ",
    ",",
    "%zz",
    "%",
    "[",
    "]",
    "'",
    '"',
    "\\",
    "&",
    "=",
    "\n",
    "://",
    "12/",
    "1,2",
    ";",
    "{",
]


@given(
    st.lists(st.sampled_from([*SHARP, "x", "7"]), max_size=3),
    st.lists(st.sampled_from([*SHARP, "x"]), max_size=3),
)
@example(["tOp/"], [])
@example(["@"], ["/"])
def test_no_part_of_a_password_is_shown_of_a_setting(before: list[str], after: list[str]) -> None:
    """However it is mistyped, in whatever it stands: hidden in its place, or nothing is shown at all."""
    password = "".join(before) + SECRET + "".join(after)
    for text in (
        f"stomp://u:{password}@h:61613",
        f"stomp://h:1,stomp+ssl://u:{password}@i,stomp://j",
        f"stomp://{password}",
    ):
        if text != f"stomp://{SECRET}":  # that is a host
            assert SECRET not in show_addresses(text) or is_host(password)
    for text in (
        f"postgresql://u:{password}@h/d", f"postgresql://u:{password}@h:5432,i:5433/d?sslmode=require",
        f"postgresql://h/d?password={password}", f"postgresql://h/d?user=u&sslpassword={password}&sslmode=require",
        f"host=h password={quoted(password)} dbname=d", f"host=h sslpassword = {quoted(password)}",
        f"passfile={quoted(password)} host=h",
    ):  # fmt: skip
        assert SECRET not in show_conninfo(text)


def is_host(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+(:\d*)?(/[^@?#]*)?|[^:/]*", text) is not None


UNREADABLE = [
    "host=h password = a b", "password=a b host=h", "password='a", "passwrd=a", "host=h password", "PASSWORD=a", "a", "=a",
    "host=h password='a'b", "dbname='postgresql://u:a@h/d'", "dbname='host=h password=a'",
    "postgresql://u:50%zz@h/d", "postgresql://u:a@b@h/d", "postgresql://u:a/b@h/d", "postgresql://u:a#b@h/d",
    "postgresql://u:a?b@h/d", "postgresql://u:a b@h/d", "postgresql://h/d?pasword=a", "postgresql://h/d?password",
    "postgresql://u:1/a@h", "postgres:/u:a@h", "postgresql://u:a@h:x/d", "mysql://u:a@h/d",
]  # fmt: skip


@pytest.mark.parametrize("conninfo", UNREADABLE)
def test_of_a_conninfo_that_cannot_be_read_nothing_is_shown(conninfo: str) -> None:
    """What somebody takes for a host or a port may be a part of the password."""
    assert show_conninfo(conninfo) == HIDDEN
    assert not is_readable(conninfo)


READABLE = {
    "": "",
    "host=h port=5432 dbname=d user=me@server": None,
    "host='a b' sslmode=verify-full  ": None,
    "host=/tmp": None,
    "postgresql://": None,
    "postgresql:///d?host=/tmp&port=5433": None,
    "postgresql://%2Ftmp/d": None,
    "postgresql://u@[::1]:5432,h2:5433,h3/d?target_session_attrs=read-write": None,
    "postgres://u:a%2Fb@h": f"postgres://u:{HIDDEN}@h",
    "postgresql://u:@h/d": f"postgresql://u:{HIDDEN}@h/d",
    r"user=u password='a b\'c' host=h": f"user=u password={HIDDEN} host=h",
    r"password=a\ b\'c host=h": f"password={HIDDEN} host=h",
    "password = a=b host = h": f"password = {HIDDEN} host = h",
    "options=-csearch_path=a host=h": f"options={HIDDEN} host=h",
    "postgresql://h/d?password=a%20b&sslmode=require&passfile=/a": (
        f"postgresql://h/d?password={HIDDEN}&sslmode=require&passfile={HIDDEN}"
    ),
}


@pytest.mark.parametrize(("conninfo", "shown"), READABLE.items())
def test_of_a_conninfo_all_but_its_secrets_is_shown(conninfo: str, shown: str | None) -> None:
    """In each of libpq's forms."""
    assert show_conninfo(conninfo) == (conninfo if shown is None else shown)
    assert is_readable(conninfo)


@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        ("", ""),
        ("stomp://h:61613/vhost", "stomp://h:61613/vhost"),
        ("stomp+ssl://u:a%2Cb@[::1]:61612, stomp://h", f"stomp+ssl://u:{HIDDEN}@[::1]:61612, stomp://h"),
        ("stomp://u@h", "stomp://u@h"),
        ("stomp://guest:tOp/SeCrEt@h:61613", HIDDEN),
        ("stomp://guest:12/SeCrEt@h:61613", HIDDEN),
        ("stomp://guest:12,SeCrEt@h:61613", HIDDEN),
        ("stomp://guest:50%zz@h", HIDDEN),
        ("stomp://guest:a@b@h", HIDDEN),
        ("stomp://guest%3ASeCrEt@h", HIDDEN),
        ("guest:a@h", HIDDEN),
        ("stomp://guest:SeCrEt", HIDDEN),
        ("stomp://h,stomp://guest:a b@i", HIDDEN),
    ],
)
def test_of_addresses_all_but_their_passwords_is_shown(addresses: str, shown: str) -> None:
    """If one of them cannot be read, none is: commas may stand in a password."""
    assert show_addresses(addresses) == shown


@given(st.text(max_size=60))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    """What is hidden looks like no password any more."""
    once = hide_passwords(text)
    assert hide_passwords(once) == once


@pytest.mark.parametrize("rest", ["a b c", "a b, and more", "a\nb"])
def test_a_password_that_is_not_quoted_hides_what_follows(rest: str) -> None:
    """Up to the next name: nobody can tell where it ends."""
    assert hide_passwords(f"unexpected argument (password = {rest} host=h)") == (
        f"unexpected argument (password = {HIDDEN} host=h)"
    )
    assert hide_passwords(f"sslpassword={rest}") == f"sslpassword={HIDDEN}"


@pytest.mark.parametrize(
    "text",
    ["stomp://host:61613", "failover:(stomp://a,stomp://b)", "at 12:30: mail for a@b.example.com", "no passwords here",
     "http://127.0.0.1:8080/metrics", "host=h dbname=d"],
)  # fmt: skip
def test_what_is_no_password_stays(text: str) -> None:
    """Ports, times and mail addresses are none."""
    assert hide_passwords(text) == text


@pytest.mark.parametrize(
    "text",
    ["password=" + " " * 200_000, "://a:" * 40_000, "password='" * 20_000, "a " * 100_000 + "password=a "],
)
def test_hiding_costs_by_the_length_of_a_text(text: str) -> None:
    """A second is a hundred times what it takes."""
    started_s = time.process_time()
    hide_passwords(text)
    show_addresses(text)
    show_conninfo(text)
    assert time.process_time() - started_s < 1
