"""Ruby's view equals the engine's: a native body, normalised, is what PuppetDB's own terminus makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest.core.catalog.wire import to_wire
from ingest.store.catalog.reading import read_catalog
from ingest.store.connection import connect
from lab.servers import Postgres, embedded_broker
from tests.puppet import temper
from tests.puppet.site import Site, messages, problems
from tests.puppet.world import World

TERMINUS = Path("/usr/lib/ruby/vendor_ruby/puppet/indirector/catalog/puppetdb.rb")

PLAIN = """
file { '/x': ensure => file, content => 'x', alias => 'the x', mode => '0644' }
file { 'named': path => '/named', require => File['/x/'], tag => ['Zeta', 'alpha'] }
file { '/dir/': ensure => directory, subscribe => [File['named'], File['the x']] }
exec { 'run it': command => '/bin/true', before => File['/x'], onlyif => ['/bin/b', '/bin/a'] }
package { 'title': name => 'real name', ensure => installed, notify => Exec['run it'] }
cron { 'c': command => '/bin/true', minute => [1, 2], hour => 3 }
notify { 'rich': message => { 'b' => /re.*x/, 'c' => Timestamp('2020-01-01T00:00:00 UTC'), 'd' => default, 'e' => undef,
  'f' => 1.5, 'g' => [true, SemVer('1.2.3')], 'h' => { 1 => 2 } } }
file { '/secret': content => Sensitive('topsecret'), backup => false }
file { '/bin': content => Binary('/wD+') }
class one { include two }
class two { notify { 'two': } }
class { 'one': before => Notify['rich'] }
define d(Integer $n) { notify { "d ${title}": require => File['/x'] } }
d { 'first': n => 1 } -> d { 'second': n => 2 }
@notify { 'virtual and realised': }
realize(Notify['virtual and realised'])
@@host { 'exported': ip => '10.0.0.1', tag => 'lab' }
@@host { 'exported and collected': ip => '10.0.0.2', require => File['/x'] }
Host <<| title == 'exported and collected' |>>
"""

VIRTUAL = """
file { '/x': ensure => file }
@@file { '/exported': require => File['/x'], notify => Exec['elsewhere'] }
@@file { '/exported too': before => File['/x'] }
"""

OWN_TYPE = """
thing { 'title': key => 'another name' }
notify { 'n': require => Thing['another name'] }
many { 'm1': key => 'same' }
many { 'm2': key => 'same' }
"""

# Two types of a module that no table of the engine can know: named by `key`, the second one not uniquely.
TYPES = {
    "thing": "newparam(:key, namevar: true)",
    "many": "newparam(:key, namevar: true)\n  def self.isomorphic?\n    false\n  end",
}

CASES = [
    pytest.param(PLAIN, id="plain"),
    pytest.param(VIRTUAL, id="virtual"),
    pytest.param(OWN_TYPE, id="own-type"),
]


@pytest.fixture
def world(puppet_installed: None, postgres: Postgres, tmp_path: Path) -> Iterator[World]:
    if not TERMINUS.exists():
        pytest.skip("no oracle: apt-get install puppet-terminus-puppetdb")
    with ExitStack() as stack:
        made = World(stack, postgres, stack.enter_context(embedded_broker()), tmp_path, "")
        for name, body in TYPES.items():
            folder = made.site.modules / "own" / "lib" / "puppet" / "type"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.rb").write_text(f"Puppet::Type.newtype(:{name}) do\n  {body}\nend\n")
        yield made


@pytest.mark.parametrize("code", CASES)
def test_the_stored_state_is_what_puppetdbs_terminus_makes(world: World, code: str) -> None:
    """Resources, parameters, aliases, tags and edges of the stored catalog equal the terminus' own."""
    world.site.code(code)
    answer = world.compile("node")
    assert problems(answer) == []
    theirs = world.site.ask(do="munge")["catalog"]
    assert world.settle()["stored"] == 1
    with connect(world.database) as connection:
        ours = to_wire(read_catalog(connection, "node"))
    assert comparable(ours) == comparable(theirs)


def comparable(wire: dict[str, Any]) -> dict[str, Any]:
    """What two wire forms of one compile must share, in a fixed order."""
    # A rich Sensitive inside a parameter: the terminus writes an object id, which differs from run to run.
    wire = json.loads(re.sub(r"#?<?Sensitive \[value redacted\](:\d+>)?", "redacted", json.dumps(wire)))
    for resource in wire["resources"]:
        resource["tags"].sort()
    return {
        "resources": {f"{r['type']}[{r['title']}]": r for r in wire["resources"]},
        "edges": sorted(json.dumps(edge, sort_keys=True) for edge in wire["edges"]),
    } | {
        name: wire[name]
        for name in ("certname", "version", "environment", "catalog_uuid", "code_id", "producer")
    }


@pytest.fixture
def body(site: Site) -> Iterator[Any]:
    """Compiles code and gives the message's body as it lies in the spool, with the log's problems."""
    with temper.broker_that(None) as away:
        site.configure(broker=away, flush_timeout_s="0")
        site.start()

        def compiled(code: str, node: str = "node", **request: object) -> tuple[bytes, list[str]]:
            site.code(code)
            answer = site.ask(do="compile", node=node, **request)
            assert "error" not in answer, answer
            site.flush()
            return messages(site.spool)[-1], problems(answer)

        yield compiled


def test_a_native_body_is_puppets_own_with_two_hints(site: Site, body: Any) -> None:
    """Without the members ``aliases`` and ``virtual`` of resources the body is the catalog as Puppet itself
    serialises it."""
    raw, _ = body(VIRTUAL)
    document = json.loads(raw)
    native = site.ask(do="native")["catalog"]
    assert {r["title"] for r in document["resources"] if r.pop("virtual", False)} == {
        "/exported",
        "/exported too",
    }
    # Puppet keeps the main stage's title as a symbol, which its name, a string, does not equal.
    assert {r["title"] for r in document["resources"] if r.pop("aliases")} == {"main"}
    assert document == native


def test_headers_say_who_when_and_where(site: Site, body: Any) -> None:
    """certname, producer, producer_timestamp, environment, transaction_uuid and content-type, as agreed."""
    uuid = "6f1de0c0-0000-4000-8000-000000000001"
    body("notify { 'x': }", node="node.example", transaction_uuid=uuid)
    head = json.loads(next(site.spool.glob("*.msg")).read_bytes().split(b"\n", 1)[0])["headers"]
    moment = datetime.fromisoformat(head.pop("producer_timestamp"))
    assert moment.tzinfo == UTC
    assert head == {
        "certname": "node.example", "producer": "server.example", "environment": "production",
        "transaction_uuid": uuid, "content-type": "application/json",
    }  # fmt: skip


def test_secrets_never_leave_the_puppet_server(body: Any) -> None:
    """Sensitive parameters, and Sensitive values inside others, are in no message; their names are."""
    raw, _ = body(
        "file { '/a': content => Sensitive('topsecret') }\n"
        "notify { 'b': message => { 'x' => [Sensitive('topsecret'), Sensitive({'y' => 'topsecret'})] } }\n"
    )
    assert b"topsecret" not in raw
    resources = {r["title"]: r for r in json.loads(raw)["resources"]}
    assert resources["/a"]["sensitive_parameters"] == ["content"]


def test_contents_that_are_not_utf8_survive_and_fail_no_compile(world: World) -> None:
    """Latin-1 and binary file contents reach the database byte for byte, and come back so to a collector."""
    contents = (
        bytes(range(256))
        + b"\xed\xb2\x80\xff \xed\xa0\x80\xff\xed\xa0\xbd\xed\xb8\x80"
        + 'café \\ "quoted" \u2028'.encode()
        + "café".encode("latin-1")
    )
    (world.site.directory / "odd").write_bytes(contents)
    world.site.code(
        f"""
        if $trusted['certname'] == 'exporter' {{
          @@file {{ '/odd': content => file('{world.site.directory / "odd"}') }}
        }} else {{ File <<| |>> }}
        """
    )
    answer = world.site.ask(do="compile", node="exporter")
    world.published += 1
    assert "error" not in answer
    assert any("not UTF-8" in text for text in problems(answer))
    assert world.settle()["stored"] == 1
    with connect(world.database) as connection:
        found = {r.title: r for r in read_catalog(connection, "exporter").resources}["/odd"]
    assert found.parameters["content"].encode("utf-8", "surrogateescape") == contents
    world.site.ask(do="compile", node="collector")
    world.published += 1
    world.settle()
    with connect(world.database) as connection:
        found = {r.title: r for r in read_catalog(connection, "collector").resources}["/odd"]
    assert found.parameters["content"].encode("utf-8", "surrogateescape") == contents
