"""Hides the passwords of addresses and conninfos in any text."""

from __future__ import annotations

import re

HIDDEN = "********"
_IN_URL = re.compile(r"(://[^\s:/@,]*):(?:(?!://)\S)*@")
# The same for a text that holds nothing but addresses: there a space ends no password.
_IN_ADDRESSES = re.compile(r"(://[^:/@,]*):(?:(?!://).)*@", re.DOTALL)
_IN_CONNINFO = re.compile(
    r"(password\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])+)", re.IGNORECASE | re.DOTALL
)


def hide_passwords(text: str) -> str:
    """The text with asterisks for ``scheme://user:password@`` and ``password=``."""
    if "://" in text:
        text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    return _IN_CONNINFO.sub(rf"\1{HIDDEN}", text)


def hide_passwords_of_addresses(text: str) -> str:
    """The same for a list of addresses or a conninfo, mistyped ones included."""
    return hide_passwords(_IN_ADDRESSES.sub(rf"\1:{HIDDEN}@", text))
