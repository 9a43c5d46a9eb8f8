"""Producers that others wrote: Perl's Net::Stomp and Ruby's stomp gem, as Debian packages them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.store.connection import Connection
from lab import real_catalogs as corpus
from lab.brokers import PASSWORD, USER, Broker
from lab.engine import Start
from lab.store_model import expected, stored

FOREIGN = Path(__file__).parent / "foreign"


class Producer(NamedTuple):
    """One way of sending; which of Puppet's forms it sends."""

    command: tuple[str, ...]
    script: str
    options: tuple[str, ...]
    form: str


def producers(version: str) -> dict[str, Producer]:
    """By what they are called; ``version`` is the newest STOMP that the broker speaks."""
    return {
        "Perl, no content-length": Producer(("perl",), "produce.pl", ("text",), "wire"),
        "Ruby, no content-length": Producer(("ruby",), "produce.rb", (version, "without-length"), "wire"),
        # Last: they name no time, so they count as of their arrival, and what is dated earlier is stale then.
        "Perl, bytes": Producer(("perl",), "produce.pl", ("bytes",), "native"),
        "Ruby, as Puppet": Producer(("ruby",), "produce.rb", ("1.0", "with-length"), "native"),
    }


@pytest.fixture(scope="session")
def installed() -> None:
    for command, package in ((["perl", "-MNet::Stomp", "-e1"], "libnet-stomp-perl"),
                             (["ruby", "-rstomp", "-e0"], "ruby-stomp")):  # fmt: skip
        if (
            shutil.which(command[0]) is None
            or subprocess.run(command, check=False, capture_output=True).returncode
        ):
            pytest.skip(f"no {' '.join(command[:2])}: apt-get install {package}")


def test_what_foreign_producers_send_is_stored_as_it_was(
    installed: None, broker: Broker, queue: str, start: Start, connection: Connection, tmp_path: Path
) -> None:
    """Real catalogs with UTF-8 in them, one round from each producer, with and without content-length: what is read
    back equals the canonical wire form."""
    engine = start(broker.url())
    sent = 0
    for round_, (name, producer) in zip(corpus.ROUNDS, producers(broker.versions[-1]).items(), strict=True):
        files = []
        for role in corpus.ROLES:
            files.append(tmp_path / f"{round_}-{role}.json")
            files[-1].write_bytes(corpus.body(role, round_, producer.form))
            assert not files[-1].read_bytes().isascii()
        done = subprocess.run(
            [*producer.command, FOREIGN / producer.script, str(broker.port), USER, PASSWORD, queue,
             *producer.options, *files],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        sent += len(files)
        settled = engine.wait_settled(sent)
        assert settled["quarantined"] == 0, name
        for role in corpus.ROLES:
            wire = expected(corpus.body(role, round_, "wire"))
            found = stored(connection, wire["certname"])
            for member in ("resources", "edges", "version", "environment"):
                assert found[member] == wire[member], name
    assert engine.stop() == 0
