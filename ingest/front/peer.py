"""A PuppetDB that we are a client of, on a connection that is kept: for comparing with it, and for passing commands on to it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ingest.errors import IngestError, Misconfigured, Unavailable

PORTS = {"http": 8080, "https": 8081}  # PuppetDB's own
ANSWER_BYTES_MAX = 1024 * 1024 * 1024  # of a query about a few nodes


class Declined(IngestError):
    """It has answered, and does not want it: a query that it does not know, a command that it refuses."""

    def __init__(self, name: str, status: int, text: str) -> None:
        super().__init__(f"{name} answers {status} {text}")


class Peer:
    """``setting`` is named where the address or a file is wrong. Raises Misconfigured."""

    def __init__(
        self, url: str, *, setting: str, cert: str = "", key: str = "", ca: str = "", timeout_s: float = 60.0
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise Misconfigured(setting, f"{url!r} is no address: {error}") from error
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise Misconfigured(setting, f"{url!r} is not like https://puppetdb.example.com:8081")
        self.name = f"{parts.scheme}://{parts.hostname}:{port}"
        self._address = (parts.hostname, port)
        self._timeout_s = timeout_s
        self._tls = _context(setting, cert, key, ca) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def query(self, tree: Sequence[Any], **parameters: Any) -> list[dict[str, Any]]:
        """The rows. Raises Unavailable or Declined."""
        body = json.dumps({"query": tree} | parameters).encode()
        answer = self.post("/pdb/query/v4", body)
        try:
            rows = json.loads(answer)
        except ValueError as error:
            raise Unavailable(f"{self.name} answers what is not JSON") from error
        if not isinstance(rows, list):
            raise Unavailable(f"{self.name} answers with no rows: is it a PuppetDB?")
        return rows

    def post(self, path: str, body: bytes | memoryview) -> bytes:
        """Raises Unavailable or Declined. A connection may have died while nothing was sent: then a fresh one is tried."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        was_open = self._connection is not None
        try:
            return self._once(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not was_open:
                raise Unavailable(f"{self.name} does not answer: {_reason(error)}") from error
        try:
            return self._once(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(f"{self.name} does not answer: {_reason(error)}") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, path: str, body: bytes | memoryview, headers: Mapping[str, str]) -> bytes:
        if self._connection is None:
            host, port = self._address
            self._connection = (
                http.client.HTTPConnection(host, port, timeout=self._timeout_s)
                if self._tls is None
                else http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
            )
        self._connection.request(
            "POST", path, body, dict(headers) | {"Content-Length": str(memoryview(body).nbytes)}
        )
        answer = self._connection.getresponse()
        found = answer.read(ANSWER_BYTES_MAX)
        if answer.status >= 500:
            raise Unavailable(f"{self.name} answers {answer.status} {_line(found)}")
        if answer.status >= 300:
            raise Declined(self.name, answer.status, _line(found))
        return found


def _context(setting: str, cert: str, key: str, ca: str) -> ssl.SSLContext:
    """Only who has a certificate of that authority's is believed."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError, ValueError) as error:
        file = ca if getattr(error, "filename", None) == ca else cert
        reason = getattr(error, "strerror", None) or error
        raise Misconfigured(setting, f"its certificates ({file or ca}): {reason}") from error
    return context


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _line(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())
