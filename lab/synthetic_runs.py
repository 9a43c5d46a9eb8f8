"""What a node's run sends beside its catalog: facts before it, a report after it. Made from a few numbers, so that what a node
must have at the end can be made again.

Facts are real ones with a name, an address and hardware of the node's own, and those leaves moved that move with every run
of a real node (up-time, load, memory, free space). Reports have the metrics, events and logs of real ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec

from lab import real_facts

EVENTS = {
    "first": 40,
    "parameters": 3,
    "upgrade": 25,
    "deploy": 25,
}  # of a run, by what changed in the catalog
RUN_S = 20  # how long a run takes
_TYPES = (
    "anchor", "augeas", "catalog_application", "concat_file", "config_retrieval", "convert_catalog", "cron", "exec",
    "fact_generation", "file", "file_line", "filebucket", "group", "host", "mailalias", "node_retrieval", "notify", "package",
    "plugin_sync", "schedule", "service", "ssh_authorized_key", "sysctl", "total", "transaction_evaluation", "user",
)  # fmt: skip
_RESOURCE_STATES = (
    "changed",
    "corrective_change",
    "failed",
    "failed_to_restart",
    "out_of_sync",
    "restarted",
    "scheduled",
    "skipped",
    "total",
)


def facts(certname: str, number: int, at: datetime) -> bytes:
    """A ``replace facts`` command of version 5."""
    payload = _template(number % len(real_facts.ROLES)) | {
        "certname": certname,
        "producer_timestamp": at.isoformat(),
        "values": fact_values(certname, number, at),
    }
    return _command("replace facts", 5, certname, payload)


def fact_values(certname: str, number: int, at: datetime) -> dict[str, Any]:
    """The facts that ``facts`` sends: name -> value."""
    values = dict(_template(number % len(real_facts.ROLES))["values"])
    seconds = int((at - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds())
    high, low = divmod(number, 256)
    address, mac = f"10.{high % 256}.{low}.7", f"52:54:00:{high // 256 % 256:02x}:{high % 256:02x}:{low:02x}"
    values |= {
        "fqdn": certname, "clientcert": certname, "hostname": certname.partition(".")[0],
        "ipaddress": address, "macaddress": mac,
        "load_averages": {"15m": _moving(certname, at, "15", 400) / 100, "1m": _moving(certname, at, "1", 800) / 100,
                          "5m": _moving(certname, at, "5", 600) / 100},
        "memoryfree_mb": _moving(certname, at, "memory", 16_000) + 0.25, "uptime_seconds": seconds,
        "system_uptime": {"days": seconds // 86400, "hours": seconds // 3600, "seconds": seconds,
                          "uptime": f"{seconds // 86400} days"},
    }  # fmt: skip
    return values


def report(certname: str, run: int, change: str, at: datetime) -> bytes:
    """A ``store report`` command of version 8, of a run in which that changed: a change of ``tools.loadgen.fleet``."""
    payload = report_payload(certname, run, change, at)
    return _command("store report", 8, certname, payload)


def report_payload(certname: str, run: int, change: str, at: datetime) -> dict[str, Any]:
    """The payload of ``report``."""
    start = at - timedelta(seconds=RUN_S)
    resources = [_resource(place, certname, start, run) for place in range(EVENTS.get(change, 0))]
    uuid = hashlib.md5(f"{certname} {run}".encode(), usedforsecurity=False).hexdigest()
    dashed = f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}"
    return {
        "certname": certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": str(int(at.timestamp())), "start_time": start.isoformat(), "end_time": at.isoformat(),
        "producer_timestamp": at.isoformat(), "producer": "puppet.example.com", "corrective_change": False,
        "transaction_uuid": dashed, "catalog_uuid": dashed, "code_id": None, "job_id": None,
        "cached_catalog_status": "not_used", "status": "changed" if resources else "unchanged", "noop": False,
        "noop_pending": False, "type": "agent", "resources": resources,
        "metrics": _metrics(certname, at, len(resources)), "logs": _logs(certname, resources, at),
    }  # fmt: skip


def _resource(place: int, certname: str, start: datetime, run: int) -> dict[str, Any]:
    """Which resource it is, is the same on many nodes."""
    time = (start + timedelta(milliseconds=400 * place)).isoformat()
    title = f"/etc/service-{place}/main.conf"
    old, new = f"{{md5}}{place:032x}", f"{{md5}}{hash_of(certname, run, place)}"
    return {
        "skipped": False, "timestamp": time, "resource_type": "File", "resource_title": title,
        "file": "/etc/puppetlabs/code/environments/production/modules/service/manifests/config.pp", "line": 10 + place,
        "containment_path": ["Stage[main]", "Service::Config", f"File[{title}]"], "corrective_change": False,
        "events": [{"status": "success", "timestamp": time, "name": "content_changed", "property": "content",
                    "new_value": new, "old_value": old, "message": f"content changed '{old}' to '{new}'",
                    "corrective_change": False}],
    }  # fmt: skip


def hash_of(certname: str, run: int, place: int) -> str:
    """Of a file's content: half of them are the same on all nodes."""
    whose = certname if place % 2 else ""
    return hashlib.md5(f"{whose} {run} {place}".encode(), usedforsecurity=False).hexdigest()


def _metrics(certname: str, at: datetime, changes: int) -> list[dict[str, Any]]:
    found = [
        {"category": "time", "name": name, "value": _moving(certname, at, name, 9_000_000) / 1_000_000}
        for name in _TYPES
    ]
    counts = {"changed": changes, "out_of_sync": changes, "total": 250}
    found += [
        {"category": "resources", "name": name, "value": counts.get(name, 0)} for name in _RESOURCE_STATES
    ]
    found += [{"category": "events", "name": name, "value": value}
              for name, value in (("failure", 0), ("success", changes), ("total", changes))]  # fmt: skip
    return [*found, {"category": "changes", "name": "total", "value": changes}]


def _logs(certname: str, resources: list[dict[str, Any]], at: datetime) -> list[dict[str, Any]]:
    found = [
        _log(
            at,
            f"/Stage[main]/Service::Config/File[{one['resource_title']}]/content",
            one["events"][0]["message"],
        )
        for one in resources
    ]
    applied = f"Applied catalog in {_moving(certname, at, 'applied', 2000) / 100} seconds"
    return [*found, _log(at, "Puppet", applied)]


def _log(at: datetime, source: str, message: str) -> dict[str, Any]:
    return {
        "file": None, "line": None, "level": "notice", "message": message, "source": source, "tags": ["notice"],
        "time": at.isoformat(),
    }  # fmt: skip


def _moving(certname: str, at: datetime, what: str, below: int) -> int:
    """A number that is another one at every run."""
    found = hashlib.blake2b(f"{certname} {at.isoformat()} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(found) % below


def _command(command: str, version: int, certname: str, payload: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(
        {"command": command, "version": version, "certname": certname, "payload": payload}
    )


@cache
def _template(place: int) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(real_facts.body(real_facts.ROLES[place], 1))["payload"]
    return found
