"""A Puppet server's confdir, vardir and code, and the process that compiles there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg.conninfo

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "puppet"
DRIVER = Path(__file__).parent / "ruby" / "driver.rb"
MODULES = Path("/usr/share/puppet/modules")  # Debian's puppet-module-* packages

Answer = dict[str, Any]


class Site:
    """Directories as `puppet config print` would name them; start() makes a compiling process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.confdir = directory / "conf"
        self.vardir = directory / "var"
        self.manifests = directory / "environments" / "production" / "manifests"
        self.modules = directory / "modules"
        for made in (self.confdir, self.vardir, self.manifests, self.modules):
            made.mkdir(parents=True)
        (self.modules / "catalog_queue").symlink_to(MODULE)
        self.stderr = directory / "stderr"
        # Most tests count catalogs; what a run sends besides is test_run.py's.
        self.publishes_facts = False
        self.process: subprocess.Popen[bytes] | None = None
        self.configure_puppet(storeconfigs=True)

    @property
    def spool(self) -> Path:
        return self.vardir / "catalog_queue"

    def configure_puppet(self, *, storeconfigs: bool) -> None:
        (self.confdir / "puppet.conf").write_text(
            f"[main]\nstoreconfigs = {str(storeconfigs).lower()}\nstoreconfigs_backend = catalog_queue\n"
            f"basemodulepath = {self.modules}:{MODULES}\nenvironmentpath = {self.directory / 'environments'}\n"
            "node_terminus = plain\ncertname = server.example\n"
        )

    def configure(self, *, broker: str = "", database: str = "", **settings: object) -> None:
        """Writes catalog_queue.conf; ``broker`` is a URL, ``database`` a libpq conninfo."""
        given: dict[str, object] = {"queue_source": broker} if broker else {}
        if database:
            parts = psycopg.conninfo.conninfo_to_dict(database)
            names = {"dbserver": "host", "dbport": "port", "dbname": "dbname", "dbuser": "user"}
            given |= {ours: parts[theirs] for ours, theirs in names.items()}
        if not self.publishes_facts:
            given["publish_facts"] = "false"
        lines = [f"{name} = {value}" for name, value in (given | settings).items()]
        (self.confdir / "catalog_queue.conf").write_text("\n".join(lines) + "\n")

    def code(self, manifest: str) -> None:
        (self.manifests / "site.pp").write_text(manifest)

    def start(self) -> Site:
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                ["ruby", DRIVER, "--confdir", self.confdir, "--vardir", self.vardir],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=os.environ | {"HOME": str(self.directory), "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        return self

    def ask(self, timeout_s: float = 60, **request: object) -> Answer:
        """One request to the compiling process; the answer may hold an error."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no answer to {request}"
            got = os.read(self.process.stdout.fileno(), 1 << 20)
            assert got, self.stderr.read_text()[-4000:]
            line += got
        answer: Answer = json.loads(line)
        return answer

    def compile(self, node: str, **facts: object) -> Answer:
        """The answer to a compile that must succeed."""
        answer = self.ask(do="compile", node=node, facts=facts)
        assert "error" not in answer, answer
        return answer

    def flush(self) -> None:
        """Delivers what can be delivered, writes the rest to disk; the next compile starts a new publisher."""
        self.ask(do="flush")

    def stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait(30)
            self.process.stdout.close()
            self.process = None


def refs(answer: Answer, *types: str) -> list[str]:
    """The resources of these types in the agent's catalog."""
    found = answer["catalog"]["resources"]
    return sorted(f"{r['type']}[{r['title']}]" for r in found if r["type"] in types)


def problems(answer: Answer) -> list[str]:
    """Warnings and errors of this module in the log of one request."""
    return [text for level, text in answer["logs"] if level in ("warning", "err") and "catalog_queue" in text]


def has(command: str) -> bool:
    return shutil.which(command) is not None


def messages(spool: Path) -> list[bytes]:
    """The bodies that wait in a spool directory, oldest first; without those that a sender has in its hands."""
    found = []
    for file in sorted(spool.glob("*.msg")) if spool.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # just taken
            found.append(re.split(rb"\n", file.read_bytes(), maxsplit=1)[1])
    return found
