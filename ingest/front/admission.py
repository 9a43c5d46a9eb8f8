"""Who gets in, and what he may do: by a certificate's name or by a token; and for which node a certificate may speak."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from starlette.requests import Request

from ingest.config.settings import Config
from ingest.errors import Misconfigured
from ingest.front.refusal import Refusal

NOT_LISTED = (
    "The client certificate name {} doesn't appear in the certificate allowlist. "
    "Is your master's (or other PuppetDB client's) certname listed in PuppetDB's certificate-allowlist file?"
)
TOKEN_HEADER = "x-authentication"
TOKEN_BYTES_MAX = 1024
COMMANDS = "commands"
LOOK_AGAIN_S = 1.0  # how late a changed file of tokens may be noticed
_DIGEST_DIGITS = 64


class Person(NamedTuple):
    name: str
    sends_commands: bool


class Tokens:
    """The file of tokens as it is now: who is taken out of it is out."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._known = read_tokens(file)
        self._stamp = _stamp(file)
        self._looked_s = time.monotonic()

    def find(self, token: str) -> Person | None:
        self._look()
        # By the digest: how long the look-up takes tells nothing of a token.
        return self._known.get(hashlib.sha256(token.encode("latin-1", "replace")).hexdigest())

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_AGAIN_S:
            return
        self._looked_s = now_s
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._known = read_tokens(self._file)
            self._stamp = stamp
        except Misconfigured as error:  # those of before hold until it can be read
            structlog.get_logger().warning("tokens_not_read", reason=str(error))


class Admission:
    """Raises Misconfigured for files that cannot be read."""

    def __init__(self, config: Config) -> None:
        self._tokens = Tokens(config.tokens_file) if config.tokens_file else None
        self._is_bound = config.bind_submitters
        if self._is_bound and not config.ssl_cert:
            raise Misconfigured("--bind-submitters", "goes by certificates: name --ssl-cert too")
        if config.submitters_allowlist and not self._is_bound:
            raise Misconfigured(
                "--submitters-allowlist", "are exceptions from --bind-submitters: name that too"
            )
        self._submitters = (
            read_allowlist(config.submitters_allowlist, "--submitters-allowlist") or frozenset()
        )

    def require(self, request: Request) -> None:
        """Raises Refusal: 401 without a certificate or a token that is known, 403 for a name that is not listed."""
        scope: Any = request.scope
        if scope.get("is_let_in", True):
            return
        given = request.headers.get(TOKEN_HEADER)
        if self._tokens is not None and given is not None:
            person = self._tokens.find(given.strip()) if len(given) <= TOKEN_BYTES_MAX else None
            if person is None:
                raise Refusal(401, "the token of X-Authentication is not known here")
            scope["person"] = person
            return
        name = scope.get("client_cn")
        if name is None and self._tokens is not None:
            raise Refusal(401, "a client certificate is needed, or a token in the header X-Authentication")
        raise Refusal(403, NOT_LISTED.format(name))

    def require_commands(self, request: Request) -> None:
        """Raises Refusal, 403, for whoever may only ask."""
        person = request.scope.get("person")
        if person is not None and not person.sends_commands:
            raise Refusal(
                403, f"the token of {person.name} is for queries, and not for commands", is_json=True
            )

    def submits_for_itself_alone(self, request: Request) -> bool:
        """Whether its certificate's name has to be that of the node."""
        is_certificate = request.scope.get("person") is None
        return self._is_bound and is_certificate and request.scope.get("client_cn") not in self._submitters


def require_own(request: Request, certname: object, of_payload: object) -> None:
    """Raises Refusal, 403, unless both the command and its payload are about the node of the certificate's name."""
    name = request.scope.get("client_cn")
    if name is None or certname != name or of_payload != name:
        raise Refusal(
            403,
            f"the certificate of {name} sends commands for {name} alone, and not for "
            f"{str(certname if certname != name else of_payload)[:200]} (submitters_allowlist has the exceptions)",
            is_json=True,
        )


def read_allowlist(file: str, setting: str = "--certificate-allowlist") -> frozenset[str] | None:
    """A name a line; None without a file. Raises Misconfigured."""
    if not file:
        return None
    return frozenset(_lines(file, setting))


def read_tokens(file: str) -> dict[str, Person]:
    """The people by the digests of their tokens. Raises Misconfigured; what is wrong is told without what might be a token."""
    found: dict[str, Person] = {}
    for number, line in enumerate(_lines(file, "--tokens-file"), 1):
        name, *rest = line.split()
        digest = rest[0].lower() if rest else ""
        is_digest = len(digest) == _DIGEST_DIGITS and not set(digest) - set("0123456789abcdef")
        if not is_digest or rest[1:] not in ([], [COMMANDS]):
            raise Misconfigured(
                "--tokens-file",
                f"{file}: line {number} is not NAME SHA256-OF-THE-TOKEN, with or without 'commands'",
            )
        found[digest] = Person(name, bool(rest[1:]))
    return found


def _lines(file: str, setting: str) -> list[str]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Misconfigured(setting, f"{file}: {reason}") from error
    return [found for line in text.splitlines() if (found := line.strip()) and not found.startswith("#")]


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
