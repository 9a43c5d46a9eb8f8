"""Who may enter the embedded broker: the engine and its commands, and those who only send."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NamedTuple


class Credentials(NamedTuple):
    login: str
    passcode: str


class Logins(NamedTuple):
    """Without the first everybody may enter, and do anything."""

    all_rights: Credentials | None = None
    only_sends: Credentials | None = None
    destinations: frozenset[str] = frozenset()  # where the second may send; empty: anywhere

    def may_enter(self, headers: Mapping[str, str]) -> bool:
        return self.all_rights is None or self._is(self.all_rights, headers) or self.is_restricted(headers)

    def is_restricted(self, headers: Mapping[str, str]) -> bool:
        return self.only_sends is not None and self._is(self.only_sends, headers)

    @staticmethod
    def _is(known: Credentials, headers: Mapping[str, str]) -> bool:
        given = (headers.get("login", ""), headers.get("passcode", ""))
        # Not ==, which takes the longer the more is right.
        return all(
            hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
            for one, other in zip(given, known, strict=True)
        )


def credentials_of(line: str) -> Credentials | None:
    """``USER:PASSWORD``; None: it is not."""
    login, colon, passcode = line.rstrip("\r\n").partition(":")
    return Credentials(login, passcode) if login and colon else None
