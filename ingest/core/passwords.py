"""Hides the passwords of addresses and conninfos: in settings, and in any text.

Of a setting only what can be read for sure is shown. A password that is not quoted as it must be is taken for something
else, by us and by whoever connects: for a port, a host, a database; so of such a value nothing is shown at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HIDDEN = "********"

_IN_URL = re.compile(r"(://[^\s:/@,]*):(?:(?!://)\S)*@")
# What is not quoted goes on until the next name.
_IN_CONNINFO = re.compile(
    r"(pass(?:word|code|phrase)\s*=\s*)('(?:[^'\\]|\\.)*'|(?:\\.|(?!\s\w+\s*=).)+)", re.IGNORECASE | re.DOTALL
)

# Of an address, and nothing else: what has to be percent-encoded there is.
_PART = r"(?:[^\s:/@,?#%\[\]'\"\\]|%[0-9A-Fa-f]{2})"
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\])"
_ADDRESS = re.compile(
    rf"(?P<before>[a-z][a-z0-9+.-]*://(?:(?:{_PART}+|(?=:))(?P<colon>:(?P<password>{_PART}*))?@)?)"
    rf"(?P<after>{_HOST}(?::\d{{1,5}})?(?:/{_PART}*)?)"
)
_URI_HOST = r"(?:(?:[\w.-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::\d{0,5})?"
_URI = re.compile(
    rf"(?P<before>postgres(?:ql)?://(?:(?:{_PART}+|(?=:))(?P<colon>:(?P<password>{_PART}*))?@)?)"
    rf"(?P<after>{_URI_HOST}(?:,{_URI_HOST})*(?:/{_PART}*)?)(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_PAIR = re.compile(r"\s*(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|\Z)", re.DOTALL)
_DOCUMENT = re.compile("://|=")  # a database may be named by another conninfo
_QUERY_PAIR = re.compile(rf"(\w+)=((?:{_PART}|[:/,])*)")
# libpq's words for what is no secret; others are hidden, or no words of libpq's.
_SHOWN = frozenset((
    "host", "hostaddr", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl",
    "sslcrldir", "sslsni", "sslnegotiation", "sslcompression", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "requirepeer", "require_auth", "channel_binding", "connect_timeout",
    "client_encoding", "application_name", "fallback_application_name", "keepalives", "keepalives_idle",
    "keepalives_interval", "keepalives_count", "tcp_user_timeout", "target_session_attrs", "load_balance_hosts",
    "gssencmode", "krbsrvname", "gsslib", "gssdelegation", "service", "servicefile", "replication",
    "min_protocol_version", "max_protocol_version",
))  # fmt: skip
_HIDDEN = frozenset((
    "password", "sslpassword", "passfile", "options", "scram_client_key", "scram_server_key", "oauth_issuer",
    "oauth_client_id", "oauth_client_secret", "oauth_scope",
))  # fmt: skip


def hide_passwords(text: str) -> str:
    """Any text with asterisks for ``scheme://user:password@`` and ``password=``."""
    if "://" in text:
        text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    return _IN_CONNINFO.sub(rf"\1{HIDDEN}", text)


def show_addresses(text: str) -> str:
    """A list of addresses for a person's eyes; of one that cannot be read, none."""
    parts = re.split(r"([,\s]+)", text)
    shown = [
        part if at % 2 or re.fullmatch(r"[\w.-]*", part) else _shown_url(_ADDRESS, part)
        for at, part in enumerate(parts)
    ]
    return "".join(map(str, shown)) if None not in shown else HIDDEN


def show_conninfo(text: str) -> str:
    """A conninfo or a URI of libpq for a person's eyes; of one that cannot be read, nothing."""
    shown = _shown_url(_URI, text) if "://" in text.partition("=")[0] else _shown_pairs(text)
    return HIDDEN if shown is None else shown


def is_readable(conninfo: str) -> bool:
    """Whether everybody reads it alike, so that no part of its passwords is taken for something else, and quoted."""
    return show_conninfo(conninfo) != HIDDEN


def _shown_url(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.fullmatch(text)
    if match is None:
        return None
    before = match["before"]
    if "%3a" in before.lower():
        return None  # an encoded colon ends no user's name: what follows may have been meant as the password
    if match["colon"] is not None:
        before = before.removesuffix(f"{match['colon']}@") + f":{HIDDEN}@"
    query = match.groupdict().get("query")
    if query is None:
        return before + match["after"]
    shown = _shown_query(query)
    return None if shown is None else f"{before}{match['after']}?{shown}"


def _shown_query(query: str) -> str | None:
    found = []
    for pair in query.split("&"):
        match = _QUERY_PAIR.fullmatch(pair)
        if match is None or match[1] not in _SHOWN | _HIDDEN:
            return None
        found.append(pair if match[1] in _SHOWN else f"{match[1]}={HIDDEN}")
    return "&".join(found)


def _shown_pairs(text: str) -> str | None:
    shown, at = "", 0
    for match in _pairs(text):
        name, equals, value = match.groups()
        if name not in _SHOWN | _HIDDEN or (name in _SHOWN and _DOCUMENT.search(value)):
            return None
        shown += text[at : match.start(1)] + name + equals + (value if name in _SHOWN else HIDDEN)
        at = match.end()
    return shown + text[at:] if not text[at:].strip() else None


def _pairs(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while match := _PAIR.match(text, at):
        yield match
        at = match.end()
