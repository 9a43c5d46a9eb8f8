"""``ingest serve`` as a person would start it, and a client that shows what came back."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lab.servers import free_port


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    port: int,
    path: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> Answer:
    """One request over a connection of its own; parameters that are no strings become JSON."""
    if parameters:
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in parameters.items()}
        path += "?" + urlencode(texts)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


class Front:
    """A running one; ``flags`` are more of the command line."""

    def __init__(self, database: str, broker: str, *flags: str, log: Path) -> None:
        self.port = free_port()
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest", "serve", "--database", database, "--queue-source", broker,
                 "--listen", f"127.0.0.1:{self.port}", "--log-format", "json", *flags],
                stderr=file, env=os.environ,
            )  # fmt: skip

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while '"serving"' not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not serving: {self.log.read_text()}"
            time.sleep(0.02)

    def get(self, path: str, parameters: Mapping[str, Any] | None = None, **more: Any) -> Answer:
        return ask(self.port, path, parameters, **more)

    def post(self, path: str, value: Any, **more: Any) -> Answer:
        headers = {"Content-Type": "application/json"} | dict(more.pop("headers", {}))
        return ask(self.port, path, method="POST", body=json.dumps(value).encode(), headers=headers, **more)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)
