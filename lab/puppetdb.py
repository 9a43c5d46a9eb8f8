"""PuppetDB from Debian's package, in the foreground, in a temporary directory, on a loopback port."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from lab.servers import Postgres, free_port

JAR = Path("/usr/share/puppetdb/puppetdb.jar")
BOOTSTRAP = Path("/etc/puppetdb/bootstrap.cfg")
HEAP = "2g"
THREADS = 2  # command threads; the default of half the cores would be one
START_S_MAX = 400.0  # on two busy cores
_PROCESSED = "/metrics/v2/read/puppetlabs.puppetdb.mq:name=global.processed"
_DISCARDED = "/metrics/v2/read/puppetlabs.puppetdb.mq:name=global.discarded"

_LOGBACK = """<configuration>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>{log}</file><encoder><pattern>%d %-5p [%c{{2}}] %m%n</pattern></encoder>
  </appender>
  <root level="warn"><appender-ref ref="FILE"/></root>
</configuration>
"""
# The queue's counters are behind it, and only this machine can ask.
_AUTHORIZATION = """authorization: { version: 1, rules: [
  { match-request: { path: "/", type: path }, allow-unauthenticated: true, sort-order: 1, name: "all" }
] }
"""
_CONFIG = """[global]
vardir = {vardir}
logging-config = {logback}
[command-processing]
threads = {threads}
concurrent-writes = {threads}
[database]
subname = //127.0.0.1:{postgresql}/puppetdb
username = puppetdb
password = puppetdb
gc-interval = 0
[jetty]
host = 127.0.0.1
port = {port}
[puppetdb]
disable-update-checking = true
"""


def missing() -> str | None:
    """Why it cannot run here, or None."""
    if not JAR.exists():
        return f"PuppetDB is not installed ({JAR} is missing: apt-get install puppetdb)"
    return None


class PuppetDB:
    """A running server; ``process`` is the Java process."""

    def __init__(self, directory: Path, server: Postgres) -> None:
        self.port = free_port()
        self.log = directory / "puppetdb.log"
        server.execute("postgres", "CREATE ROLE puppetdb LOGIN PASSWORD 'puppetdb'")
        server.execute("postgres", "CREATE DATABASE puppetdb OWNER puppetdb")
        server.execute("puppetdb", "CREATE EXTENSION pg_trgm")
        vardir = directory / "puppetdb"
        vardir.mkdir()
        config = directory / "conf.d"
        config.mkdir()
        (config / "auth.conf").write_text(_AUTHORIZATION)
        logback = directory / "logback.xml"
        logback.write_text(_LOGBACK.format(log=self.log))
        (config / "config.ini").write_text(
            _CONFIG.format(
                vardir=vardir, logback=logback, threads=THREADS, postgresql=server.port, port=self.port
            )
        )
        output = (directory / "puppetdb.out").open("wb")
        self.process = subprocess.Popen(
            ["java", f"-Xmx{HEAP}", f"-Xms{HEAP}", "-Djava.security.egd=/dev/urandom", "-cp", str(JAR),
             "clojure.main", "-m", "puppetlabs.puppetdb.core", "services", "--config", str(config),
             "--bootstrap-config", str(BOOTSTRAP)],
            stdout=output, stderr=output, cwd=directory,
        )  # fmt: skip
        output.close()
        try:
            self._wait_running(directory / "puppetdb.out")
        except BaseException:  # a signal too: nobody else knows of the process yet
            self.stop()
            raise

    def store(self, bodies: Sequence[bytes]) -> float:
        """Sends commands and waits until all are processed; returns the seconds."""
        commands = [_command(body) for body in bodies]
        before = self._count(_PROCESSED)
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for query, payload in commands:
            connection.request(
                "POST",
                f"/pdb/cmd/v1?{query}",
                payload,
                {"Content-Type": "application/json", "Accept": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"PuppetDB refused a command: {answer.status} {text[:200]!r}")
        while self._count(_PROCESSED) - before < len(bodies):
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        connection.close()
        if discarded := self._count(_DISCARDED):
            raise RuntimeError(f"PuppetDB discarded {discarded} commands: {self.log}")
        return seconds

    def ask(self, path: str, query: object = None) -> Any:
        """The answer to a query, as JSON."""
        more = "" if query is None else f"?query={quote(json.dumps(query))}"
        return self._get(f"/pdb/query/v4/{path}{more}")

    def clean(self, *what: str) -> None:
        """Does now what its garbage collection would: ``expire_nodes``, ``purge_nodes``, ``purge_reports``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"command": "clean", "version": 1, "payload": what})
        connection.request("POST", "/pdb/admin/v1/cmd", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"PuppetDB did not clean: {answer.status} {text[:200]!r}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def version(self) -> str:
        return str(self._get("/pdb/meta/v1/version")["version"])

    def _count(self, path: str) -> int:
        return int(self._get(path).get("value", {}).get("Count", 0))

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def _wait_running(self, output: Path) -> None:
        deadline = time.monotonic() + START_S_MAX
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/status/v1/simple")
                if connection.getresponse().read() == b"running":
                    return
            except OSError:
                pass
            finally:
                connection.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PuppetDB does not come up: {output.read_text()[-2000:]}")
            time.sleep(0.5)


class _Payload(msgspec.Struct):
    certname: str
    producer_timestamp: str = ""


class _Command(msgspec.Struct):
    command: str
    version: int
    payload: msgspec.Raw


def _command(body: bytes) -> tuple[str, bytes]:
    """(query, payload) of a command: over HTTP the payload is the body and the rest is in the query. Source: PuppetDB's
    "Commands endpoint", version 1."""
    command = msgspec.json.decode(body, type=_Command)
    head = msgspec.json.decode(command.payload, type=_Payload)
    query = {
        "command": command.command.replace(" ", "_"),
        "version": command.version,
        "certname": head.certname,
        "producer-timestamp": head.producer_timestamp,
    }
    return urlencode(query), bytes(command.payload)
