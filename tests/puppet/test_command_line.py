"""Puppet's own commands with the module: what an operator types."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from lab.servers import Postgres, embedded_broker
from tests.puppet.site import MODULE, Site, messages
from tests.puppet.world import World


def puppet(site: Site, *arguments: str) -> str:
    done = subprocess.run(
        ["puppet", *arguments, "--confdir", site.confdir, "--vardir", site.vardir],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"HOME": str(site.directory), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_catalog_compile_publishes_and_node_deactivate_too(
    puppet_installed: None, postgres: Postgres, tmp_path: Path
) -> None:
    """`puppet catalog compile NODE` ends with its catalog at the broker; `puppet node deactivate NODE` likewise."""
    with ExitStack() as stack:
        world = World(stack, postgres, stack.enter_context(embedded_broker()), tmp_path, "notify { 'x': }")
        printed = puppet(world.site, "catalog", "compile", "node.example", "--render-as", "json")
        assert '"node.example"' in printed
        assert world.engine.wait_settled(1)["stored"] == 1
        printed = puppet(world.site, "node", "deactivate", "node.example")
        assert "Submitted 'deactivate node' for node.example" in printed
        assert world.engine.wait_settled(2)["quarantined"] == 0
        assert messages(world.site.spool) == []


def test_the_module_has_the_metadata_that_the_forge_wants() -> None:
    """metadata.json names the module as its files do, with a version, a licence and the Puppets it is for."""
    metadata = json.loads((MODULE / "metadata.json").read_text())
    assert metadata["name"].endswith("-catalog_queue")
    assert metadata["license"] == "Apache-2.0"
    assert {r["name"] for r in metadata["requirements"]} >= {"puppet"}
    assert {
        "author",
        "summary",
        "source",
        "dependencies",
        "operatingsystem_support",
        "version",
    } <= metadata.keys()


def test_reports_and_facts_are_published_as_puppetdb_commands(site: Site) -> None:
    """By default, and with reports = catalog_queue: 'store report' and 'replace facts' with what they need."""
    site.code("notify { 'x': }")
    site.publishes_facts = True
    site.configure(broker="stomp://127.0.0.1:1", flush_timeout_s=0)
    site.start()
    site.compile("node", _puppet_inventory_1={"packages": [["bash", "5", "apt"]]})
    assert "error" not in site.ask(do="report", node="node")
    site.flush()
    found = {body.get("command", "catalog"): body for body in map(json.loads, messages(site.spool))}
    assert set(found) == {"replace facts", "catalog", "store report"}
    facts = found["replace facts"]
    assert (facts["version"], facts["certname"]) == (5, "node")
    payload = facts["payload"]
    assert payload["values"]["trusted"]["authenticated"] == "local"
    assert payload["package_inventory"] == [["bash", "5", "apt"]]
    assert "_puppet_inventory_1" not in payload["values"]
    report = found["store report"]["payload"]
    assert report["certname"] == "node"
    assert [r["events"][0]["status"] for r in report["resources"]] == ["success"]
