"""Debian's Puppet with its own PuppetDB terminus, over TLS: facts, catalogs, exported resources, queries in a manifest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.engine import Start
from lab.front import Front
from lab.servers import Postgres
from tests.engine.conftest import start as start
from tests.front.conftest import Serve
from tests.front.test_clients import eventually

TERMINUS = Path("/usr/lib/ruby/vendor_ruby/puppet/indirector/catalog/puppetdb.rb")
ROUTES = """---
apply:
  catalog: {terminus: compiler, cache: puppetdb}
  resource: {terminus: puppetdb}
  facts: {terminus: facter, cache: puppetdb_apply}
"""
MANIFEST = """
@@notify { "from ${trusted['certname']}": message => 'exported', tag => 'Hello' }
Notify <<| tag == 'hello' and message == 'exported' |>>
$nodes = puppetdb_query('nodes[certname]{ order by certname }').map |$one| { $one['certname'] }
$facts_of = puppetdb_query(['from', 'facts', ['=', 'name', 'kernel']]).map |$one| { $one['value'] }
notify { "known: ${nodes.join(',')} ${facts_of.unique.join(',')}": }
"""

pytestmark = pytest.mark.skipif(
    shutil.which("puppet") is None or not TERMINUS.exists(),
    reason="puppet-terminus-puppetdb is not installed",
)


class Site:
    """A directory with all that Puppet needs to believe that it speaks to PuppetDB."""

    def __init__(self, directory: Path, port: int, authority: trustme.CA) -> None:
        self.directory = directory
        self.authority = authority
        self.ask(port)
        (directory / "routes.yaml").write_text(ROUTES)
        (directory / "site.pp").write_text(MANIFEST)
        for name in ("certs", "private_keys"):
            (directory / "ssl" / name).mkdir(parents=True)
        authority.cert_pem.write_to_path(directory / "ssl" / "certs" / "ca.pem")

    def ask(self, *ports: int) -> None:
        """Of several servers, the first that serves."""
        urls = ",".join(f"https://localhost:{port}" for port in ports)
        (self.directory / "puppetdb.conf").write_text(
            f"[main]\nserver_urls = {urls}\nsoft_write_failure = false\n"
        )

    def puppet(self, certname: str, *words: str) -> str:
        """What the command said, both streams."""
        ssl = self.directory / "ssl"
        key = ssl / "private_keys" / f"{certname}.pem"
        if not key.exists():
            leaf = self.authority.issue_cert(common_name=certname)
            leaf.private_key_pem.write_to_path(key)
            leaf.cert_chain_pems[0].write_to_path(ssl / "certs" / f"{certname}.pem")
        (self.directory / "puppet.conf").write_text(
            f"[main]\ncertname = {certname}\nssldir = {ssl}\nvardir = {self.directory}/var\n"
            "certificate_revocation = false\nstoreconfigs = true\nstoreconfigs_backend = puppetdb\n"
            "report = true\nreports = puppetdb\n"
        )
        done = subprocess.run(
            ["puppet", *words, "--confdir", str(self.directory), "--color", "false"],
            capture_output=True, text=True, timeout=180, check=False, env=os.environ | {"LANG": "C.UTF-8"},
        )  # fmt: skip
        return done.stdout + done.stderr

    def apply(self, certname: str) -> str:
        return self.puppet(certname, "apply", str(self.directory / "site.pp"))


@pytest.fixture
def site(serve: Serve, tmp_path: Path) -> tuple[Site, Front]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "allowlist").write_text("a.example.com\nb.example.com\n")
    front = serve(*_tls(tmp_path))
    (tmp_path / "puppet").mkdir()
    return Site(tmp_path / "puppet", front.port, authority), front


def _tls(directory: Path) -> tuple[str, ...]:
    return (
        "--ssl-cert", str(directory / "cert.pem"), "--ssl-key", str(directory / "key.pem"),
        "--ssl-ca-cert", str(directory / "ca.pem"), "--certificate-allowlist", str(directory / "allowlist"),
    )  # fmt: skip


def stored(connection: Connection, certname: str) -> bool:
    row: Any = connection.execute(
        "SELECT count(*) FROM nodes n JOIN catalogs c ON c.node_id = n.id JOIN node_facts f ON f.node_id = n.id"
        " WHERE n.certname = %s",
        [certname],
    ).fetchone()
    return bool(row[0])


def test_a_node_collects_what_another_exported(
    site: tuple[Site, Front], start: Start, connection: Connection
) -> None:
    """Facts and catalogs go in by the terminus, collectors and puppetdb_query() read them, `puppet node` knows the nodes."""
    puppet, _ = site
    start()
    first = puppet.apply("a.example.com")
    assert not [line for line in first.splitlines() if line.startswith("Error:") and "Facter:" not in line], (
        first
    )
    eventually(lambda: stored(connection, "a.example.com"), "a is stored", 60)
    second = puppet.apply("b.example.com")
    assert "Notice: exported" in second, second
    assert re.search(r"from a\.example\.com\]", second)
    assert re.search(r"known: a\.example\.com(,b\.example\.com)? Linux", second), second
    eventually(lambda: stored(connection, "b.example.com"), "b is stored", 60)
    status = puppet.puppet("a.example.com", "node", "status", "b.example.com")
    assert "Currently active" in status, status
    assert "Submitted 'deactivate node'" in puppet.puppet(
        "a.example.com", "node", "deactivate", "b.example.com"
    )
    gone = "SELECT deactivated IS NOT NULL FROM nodes WHERE certname = 'b.example.com'"
    deadline = time.monotonic() + 30
    while not connection.execute(gone).fetchone()[0]:  # type: ignore[index]
        assert time.monotonic() < deadline, "it is not deactivated"
        time.sleep(0.1)
    assert "Deactivated at" in puppet.puppet("a.example.com", "node", "status", "b.example.com")
    assert "Failed to find" in puppet.puppet("a.example.com", "node", "status", "nowhere")


def test_who_is_not_listed_is_told_so(site: tuple[Site, Front], start: Start) -> None:
    """A certificate of the authority's is not enough where there is an allowlist."""
    puppet, _ = site
    said = puppet.puppet("c.example.com", "node", "status", "a.example.com")
    assert "certificate allowlist" in said, said


def test_the_next_server_of_the_list_is_asked(
    site: tuple[Site, Front], serve: Serve, start: Start, connection: Connection, tmp_path: Path
) -> None:
    """The first has died: facts and catalog go by the second."""
    puppet, first = site
    start()
    second = serve(*_tls(tmp_path))
    puppet.ask(first.port, second.port)
    first.process.kill()
    said = puppet.apply("a.example.com")
    assert not [line for line in said.splitlines() if line.startswith("Error:") and "Facter:" not in line]
    eventually(lambda: stored(connection, "a.example.com"), "a is stored", 60)


def test_the_next_server_is_asked_where_one_has_lost_its_database(
    site: tuple[Site, Front], serve: Serve, start: Start, connection: Connection, tmp_path: Path
) -> None:
    """It answers 503, and the terminus puts its query to the other; so a compile gets on."""
    puppet, second = site
    start()
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    own = Postgres(directory)
    try:
        own.start()
        with connect(own.conninfo("postgres")) as other:
            migrate(other)
        first = serve(*_tls(tmp_path), "--database", own.conninfo("postgres"))
        own.stop(immediate=True)
        puppet.ask(first.port, second.port)
        puppet.apply("a.example.com")
        eventually(lambda: stored(connection, "a.example.com"), "a is stored", 60)
        said = puppet.apply("b.example.com")
        assert "Notice: exported" in said, said
        assert f"on {first.port} at route" in said, said
        assert "Failing over to the next PuppetDB" in said, said
        assert "Currently active" in puppet.puppet("a.example.com", "node", "status", "a.example.com")
    finally:
        own.stop(immediate=True)
        shutil.rmtree(directory)
