"""All that a run sends: facts, reports and inputs are published as PuppetDB's terminus makes them, member by member."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.servers import embedded_broker
from lab.stomp_client import Client
from tests.puppet import temper
from tests.puppet.site import MODULES, Answer, Site, problems
from tests.puppet.test_same_state import TERMINUS

Document = dict[str, Any]

# PuppetDB's report processor, which writes down what it would send.
ORACLE = """
require 'puppet/reports/puppetdb'
Puppet::Transaction::Report.class_eval { def noop; end } if ENV['OLD_AGENT']
Puppet::Reports.register_report(:oracle) do
  def process
    extend(Puppet::Reports.report(:puppetdb))
    File.write(ENV['ORACLE'], JSON.generate(report_to_hash(Time.now)))
  end
end
"""

FACTS: dict[str, Document] = {
    "plain": {"os": {"name": "Debian", "release": {"major": "12"}}, "processors": {"count": 4}},
    "every type": {
        "t": True, "f": False, "n": None, "i": 2**63, "neg": -1, "x": 1.5e-7, "empty": {}, "none": [],
        "nested": [{"a": [1, [2, {"b": None}]]}], "caf\u00e9 \u2028": "\U0001f600", "dotted.name": "\u0000",
    },
    "packages": {"_puppet_inventory_1": {"packages": [["bash", "5.2", "apt"], ["x", "1", "gem"]]}},
    "no packages": {"_puppet_inventory_1": {"other": 1}},
    "inventory is no hash": {"_puppet_inventory_1": "odd"},
    "inventory is null": {"_puppet_inventory_1": None},
    "a fact called trusted": {"trusted": {"authenticated": "remote", "certname": "evil"}},
}  # fmt: skip

RUNS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "nothing to do": ("", [], {}),
    "changes": (
        "notify { ['a', 'caf\u00e9']: }\nclass c { notify { 'in c': tag => 'zeta' } }\ninclude c",
        [],
        {},
    ),
    "a file": ("file { '%(dir)s/f': content => \"x\\n\", mode => '0600' }", [], {}),
    "a secret": ("file { '%(dir)s/s': content => Sensitive('topsecret') }", [], {}),
    "noop": ("notify { 'a': }", ["--noop"], {}),
    "one resource noop": ("notify { 'a': noop => true }\nnotify { 'b': }", [], {}),
    "failure and skipped": (
        "exec { '/bin/false': } -> notify { 'after': }\nnotify { 'tagged': schedule => 'never' }\n"
        "schedule { 'never': period => never }",
        [],
        {},
    ),
    "an old agent, noop": ("notify { 'a': noop => true }", [], {"OLD_AGENT": "1"}),
    "an old agent": ("notify { 'a': noop => true }\nnotify { 'b': }", [], {"OLD_AGENT": "1"}),
    "an old agent, nothing": ("", [], {"OLD_AGENT": "1"}),
}


@pytest.fixture
def away(site: Site) -> Iterator[Site]:
    """The broker is away, so that all that is published lies in the spool."""
    if not TERMINUS.exists():
        pytest.skip("no oracle: apt-get install puppet-terminus-puppetdb")
    site.publishes_facts = True
    with temper.broker_that(None) as broker:
        site.configure(broker=broker, flush_timeout_s="0")
        yield site


def spooled(site: Site) -> list[tuple[dict[str, str], Document]]:
    """Headers and bodies of what waits in the spool, oldest first."""
    site.flush()
    found = []
    for file in sorted(site.spool.glob("*.msg")):
        head, body = file.read_bytes().split(b"\n", 1)
        found.append((json.loads(head)["headers"], json.loads(body)))
    return found


def of_command(site: Site, command: str) -> tuple[dict[str, str], Document]:
    return next(found for found in spooled(site) if found[1].get("command") == command)


def lost(answer: Answer) -> list[str]:
    """What the log of one request says is lost; that the broker is away is no loss."""
    found = [text.split("lost the ", 1)[1] for text in problems(answer) if "lost the " in text]
    return [text.split(" of ")[0] for text in found]


def without_time(payload: Document) -> Document:
    return {name: value for name, value in payload.items() if name != "producer_timestamp"}


@pytest.mark.parametrize("facts", FACTS)
def test_facts_are_what_puppetdbs_terminus_sends(away: Site, facts: str) -> None:
    """By default, with trusted and the packages moved; only the time is finer, and the headers say what it is."""
    away.code("notify { 'x': }")
    away.start()
    away.ask(do="keep_facts")
    assert lost(away.compile("node", **FACTS[facts])) == []
    theirs = away.ask(do="munge_facts")["facts"]
    headers, ours = of_command(away, "replace facts")
    assert without_time(ours["payload"]) == without_time(theirs["payload"])
    assert (ours["command"], ours["version"], ours["certname"]) == ("replace facts", 5, "node")
    assert datetime.fromisoformat(ours["payload"]["producer_timestamp"]).tzinfo == UTC
    assert headers["producer_timestamp"] == ours["payload"]["producer_timestamp"]
    assert (headers["command"], headers["version"], headers["certname"]) == ("replace facts", "5", "node")


@pytest.mark.parametrize(
    ("run", "unchanged"), [(run, False) for run in RUNS] + [("failure and skipped", True), ("a file", True)]
)
def test_a_report_is_what_puppetdbs_processor_sends(away: Site, run: str, unchanged: bool) -> None:
    """A real run of `puppet apply` with both processors: every member is the same, times to the millisecond."""
    code, options, variables = RUNS[run]
    oracle = away.modules / "oracle" / "lib" / "puppet" / "reports"
    oracle.mkdir(parents=True)
    (oracle / "oracle.rb").write_text(ORACLE)
    word = str(unchanged).lower()
    with (away.confdir / "catalog_queue.conf").open("a") as settings:
        settings.write(f"include_unchanged_resources = {word}\n")
    (away.confdir / "puppetdb.conf").write_text(f"[main]\ninclude_unchanged_resources = {word}\n")
    apply(away, code % {"dir": away.directory} if "%(" in code else code, options, variables)
    theirs = json.loads((away.directory / "oracle.json").read_text())
    away.start()
    headers, ours = of_command(away, "store report")
    assert comparable(ours["payload"]) == comparable(theirs)
    assert (ours["command"], ours["version"]) == ("store report", 8)
    assert headers["producer_timestamp"] == ours["payload"]["producer_timestamp"]
    assert (headers["command"], headers["version"]) == ("store report", "8")
    assert "topsecret" not in json.dumps(ours)


def apply(site: Site, code: str, options: list[str], variables: dict[str, str]) -> None:
    done = subprocess.run(
        ["puppet", "apply", "--confdir", site.confdir, "--vardir", site.vardir, "--reports", "oracle,catalog_queue",
         "--modulepath", f"{site.modules}:{MODULES}", *options, "-e", code],
        env=os.environ | variables
        | {"HOME": str(site.directory), "LC_ALL": "C.UTF-8", "ORACLE": str(site.directory / "oracle.json")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost" not in done.stderr


def comparable(report: Document) -> Document:
    """The same instant is written in the server's zone there and in UTC here; to the digit, it is the same."""

    def walk(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: walk(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        if name in ("time", "timestamp", "start_time", "end_time") and isinstance(value, str):
            assert len(value.partition(".")[2].rstrip("Z").partition("+")[0]) == 3
            return datetime.fromisoformat(value).astimezone(UTC)
        return value

    walked: Document = walk(without_time(report))
    return walked


def test_inputs_are_published_with_their_catalogs_time_where_puppet_records_them(away: Site) -> None:
    """'replace catalog inputs' 1 as the terminus makes it; without a recorder, or with an empty one, nothing."""
    uuid = "6f1de0c0-0000-4000-8000-000000000001"
    away.code("notify { 'x': }")
    away.start()
    away.ask(do="compile", node="before", transaction_uuid=uuid)
    away.ask(do="record", keys=[])
    away.ask(do="compile", node="empty", transaction_uuid=uuid)
    away.ask(do="record", keys=["a::b", "c"])
    away.ask(do="compile", node="node", transaction_uuid=uuid)
    found = spooled(away)
    inputs = [body for _, body in found if body.get("command") == "replace catalog inputs"]
    times = [headers["producer_timestamp"] for headers, body in found if body.get("name") == "node"]
    assert [(body["version"], body["certname"]) for body in inputs] == [(1, "node")]
    assert inputs[0]["payload"].pop("catalog_uuid")
    assert inputs[0]["payload"] == {
        "certname": "node", "producer_timestamp": times[0], "inputs": [["hiera", "a::b"], ["hiera", "c"]],
    }  # fmt: skip


def test_nothing_that_fails_in_publishing_fails_a_run(away: Site) -> None:
    """Facts, catalog, inputs, report: each is lost with one error in the log, and the agent has its catalog."""
    away.code("notify { 'x': }")
    away.start()
    away.ask(do="record", keys=["a"])
    away.compile("node")
    away.ask(do="break")
    answer = away.compile("node")
    assert [
        resource["title"] for resource in answer["catalog"]["resources"] if resource["type"] == "Notify"
    ] == ["x"]
    assert lost(answer) == ["replace facts", "catalog", "replace catalog inputs"]
    report = away.ask(do="report", node="node")
    assert "error" not in report
    assert lost(report) == ["store report"]


def test_each_kind_goes_to_its_own_queue_over_one_connection(site: Site) -> None:
    """Where facts and reports have a queue each; a kind without goes to the catalogs'."""
    site.code("notify { 'x': }")
    site.publishes_facts = True
    with embedded_broker() as broker:
        site.configure(broker=broker, facts_destination="/queue/facts", reports_destination="/queue/reports")
        site.start()
        site.compile("node")
        assert "error" not in site.ask(do="report", node="node")
        site.flush()
        assert waiting(broker, "/queue/facts", 1) == ["replace facts"]
        assert waiting(broker, "/queue/catalog", 1) == ["catalog"]
        assert waiting(broker, "/queue/reports", 1) == ["store report"]
        site.configure(broker=broker, facts_destination="", reports_destination="/queue/mine")
        site.ask(do="reset")
        site.compile("node")
        assert "error" not in site.ask(do="report", node="node")
        site.flush()
        assert waiting(broker, "/queue/catalog", 2) == ["replace facts", "catalog"]
        assert waiting(broker, "/queue/mine", 1) == ["store report"]


def waiting(broker: str, destination: str, count: int) -> list[str]:
    """Takes this many messages from a queue; their commands."""
    with Client(int(broker.rpartition(":")[2]), "", "") as client:
        client.subscribe(destination)
        found = []
        for _ in range(count):
            message = client.message()
            client.acknowledge(message)
            found.append(str(json.loads(message.body).get("command", "catalog")))
        client.disconnect()
    return found
