"""Facts and reports for a calibration: made up in real proportions, or an operator's own with holes.

Proportions are those of Facter 4 and Puppet 7.23: 760 leaves and 17 KB of facts, of which 37 leaves (memory, load, uptime,
mountpoints) move with every run; 156 metrics and three log lines in a report of a run that changed nothing, 40 changed
resources where there were changes, an event for each of 1150 where a node is built anew.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ingest.errors import Misconfigured

ROLES = 4
CHANGED = {"report_unchanged": 0, "report_few": 40, "report_worst": 1150}
CUSTOM_FACTS, CUSTOM_LEAVES = 110, 6
TIMES = 134  # metrics of the category time; with the others 156
RUN = timedelta(seconds=20)
# Facts that Facter's agents see move; in an operator's own facts their numbers are what the next run changes.
MOVING = (
    "load_averages",
    "memory",
    "memoryfree",
    "memoryfree_mb",
    "mountpoints",
    "swapfree",
    "system_uptime",
    "uptime_seconds",
)
_HOLE = re.compile(r'"@@move:([^:"]+):([^"]*)@@"')


class Bodies(NamedTuple):
    """What nodes send beside catalogs."""

    named: str
    facts: Sequence[dict[str, Any]]  # the values, of each role
    reports: Sequence[dict[str, Any]]  # payloads of an operator's own unchanged runs; none: made up


class RunNode:
    """One node of the calibration's fleet, and how many runs it had."""

    def __init__(self, bodies: Bodies, number: int) -> None:
        self.certname = f"run-{number:03d}.calibration.example.com"
        self._bodies = bodies
        self._chance = random.Random(number)
        self._facts = _Facts(bodies.facts[number % len(bodies.facts)])
        self._runs = 0

    def next_parts(self, kind: str, at: datetime | None = None) -> list[bytes]:
        return [self.next(kind, at)]

    def next(self, kind: str, at: datetime | None = None) -> bytes:
        """What its next run sends of that kind."""
        self._runs += 1
        at = at or datetime.now(UTC)
        if kind.startswith("facts"):
            return self._facts.body(self.certname, at, self._chance)
        if kind == "report_unchanged" and self._bodies.reports:
            return _own_report(self._chance.choice(self._bodies.reports), self.certname, at, self._chance)
        return report(self.certname, at, CHANGED[kind], f"{self.certname} {self._runs}", self._chance)


class _Facts:
    """A role's factset with holes."""

    def __init__(self, values: dict[str, Any]) -> None:
        holed = {name: _with_holes(value) if name in MOVING else value for name, value in values.items()}
        self._text = json.dumps(holed, ensure_ascii=False, separators=(",", ":"))

    def body(self, certname: str, at: datetime, chance: random.Random) -> bytes:
        """``replace facts`` of version 5."""

        def moved(hole: re.Match[str]) -> str:
            value = float(hole[1]) * chance.uniform(0.9, 1.1)
            return f"{value:.{hole[2]}f}"

        head = {
            "certname": certname, "environment": "production", "producer": "puppet.example.com",
            "producer_timestamp": at.isoformat(),
        }  # fmt: skip
        values = _HOLE.sub(moved, self._text).replace("@@certname@@", certname)
        return (
            f'{{"command":"replace facts","version":5,"certname":{json.dumps(certname)},'
            f'"payload":{json.dumps(head)[:-1]},"values":{values}}}}}'
        ).encode()


def _with_holes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_holes(one) for name, one in value.items()}
    if isinstance(value, float):
        return f"@@move:{value}:2@@"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"@@move:{value}:0@@"
    return value


def made_up() -> Bodies:
    return Bodies("made up", [_values(role) for role in range(ROLES)], ())


def from_directory(directory: Path) -> Bodies:
    """An operator's own beside the catalogs: ``*/run-1/facts-wire.json`` or ``facts/*.json``, and the same of reports; made
    up where there are none. Raises Misconfigured for what is neither."""
    facts = _payloads(directory, "facts", "facts", lambda payload: dict(payload["values"]))
    reports = _payloads(directory, "report", "reports", _as_unchanged)
    made = made_up()
    whose = " and ".join(name for name, found in (("facts", facts), ("reports", reports)) if found)
    named = f"{whose} of {directory}" if whose else made.named
    return Bodies(named, facts or made.facts, reports)


def _payloads(
    directory: Path, what: str, folder: str, take: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    found = []
    files = sorted(directory.glob(f"*/run-1/{what}-wire.json")) or sorted(directory.glob(f"{folder}/*.json"))
    for file in files:
        try:
            document = json.loads(file.read_bytes())
            payload = document.get("payload", document)
            text = json.dumps(take(payload)).replace(payload["certname"], "@@certname@@")
            found.append(json.loads(text))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misconfigured("--templates", f"{file} is not {what} in wire form: {error!r}") from error
    return found


def _as_unchanged(payload: dict[str, Any]) -> dict[str, Any]:
    logs, metrics = payload["logs"], payload["metrics"]
    return payload | {"resources": [], "logs": logs[:5], "metrics": metrics, "status": "unchanged"}


def _own_report(payload: dict[str, Any], certname: str, at: datetime, chance: random.Random) -> bytes:
    """Other times in the metrics, another run."""
    metrics = [
        one | ({"value": one["value"] * chance.uniform(0.9, 1.1)} if isinstance(one["value"], float) else {})
        for one in payload["metrics"]
    ]
    times = {
        "start_time": (at - RUN).isoformat(), "end_time": at.isoformat(), "producer_timestamp": at.isoformat(),
        "transaction_uuid": str(uuid.UUID(int=chance.getrandbits(128))), "metrics": metrics,
        "logs": [one | {"time": at.isoformat()} for one in payload["logs"]],
    }  # fmt: skip
    document = {"command": "store report", "version": 8, "certname": certname, "payload": payload | times}
    return json.dumps(document, separators=(",", ":")).replace("@@certname@@", certname).encode()


def report(certname: str, at: datetime, changed: int, release: str, chance: random.Random) -> bytes:
    """``store report`` of version 8 in which so many resources changed; what their events say is that ``release``'s own."""
    start = at - RUN
    resources = [_changed(place, release, start) for place in range(changed)]
    applied = f"Applied catalog in {chance.uniform(1, 20):.2f} seconds"
    lines = ("Loading facts", "Requesting catalog from puppet.example.com:8140", applied)
    logs = [_line(one["events"][0]["message"], one, start) for one in resources]
    payload = {
        "certname": certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": f"v{release}", "start_time": start.isoformat(), "end_time": at.isoformat(),
        "producer_timestamp": at.isoformat(), "producer": "puppet.example.com", "corrective_change": False,
        "transaction_uuid": str(uuid.UUID(int=chance.getrandbits(128))),
        "catalog_uuid": str(uuid.UUID(int=chance.getrandbits(128))), "code_id": None, "job_id": None,
        "cached_catalog_status": "not_used", "status": "changed" if changed else "unchanged", "noop": False,
        "noop_pending": False, "resources": resources, "metrics": _metrics(changed, chance),
        "logs": logs + [_line(message, None, start) for message in lines],
    }  # fmt: skip
    document = {"command": "store report", "version": 8, "certname": certname, "payload": payload}
    return json.dumps(document, separators=(",", ":")).encode()


def _changed(place: int, release: str, start: datetime) -> dict[str, Any]:
    title, module = f"/etc/module{place // 40}/conf.d/{place:04d}.conf", f"module{place // 40}"
    old, new = (
        f"{{md5}}{random.Random(f'{place} {one}').getrandbits(128):032x}"
        for one in (release, "new " + release)
    )
    at = (start + timedelta(seconds=1 + place / 100)).isoformat()
    return {
        "skipped": False, "timestamp": at, "resource_type": "File", "resource_title": title,
        "file": f"/etc/puppetlabs/code/environments/production/modules/{module}/manifests/init.pp", "line": 7 + place,
        "containment_path": ["Stage[main]", module.capitalize(), f"File[{title}]"], "corrective_change": False,
        "events": [{
            "status": "success", "timestamp": at, "name": "content_changed", "property": "content", "new_value": new,
            "old_value": old, "corrective_change": False, "message": f"content changed '{old}' to '{new}'",
        }],
    }  # fmt: skip


def _line(message: str, resource: dict[str, Any] | None, start: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {"level": "notice", "message": message, "time": start.isoformat()}
    if resource is None:
        return found | {"file": None, "line": None, "source": "Puppet", "tags": ["notice"]}
    return found | {
        "file": resource["file"], "line": resource["line"], "time": resource["timestamp"],
        "source": f"/Stage[main]/File[{resource['resource_title']}]/content",
        "tags": ["notice", "file", "class", "node", "default", "module"],
    }  # fmt: skip


def _metrics(changed: int, chance: random.Random) -> list[dict[str, Any]]:
    names = [("changes", "total"), *(("events", name) for name in ("total", "failure", "success", "noop"))]
    names += [("resources", f"state_{number}") for number in range(17)]
    found = [
        {"category": category, "name": name, "value": changed if name in ("total", "success") else 0}
        for category, name in names
    ]
    times = [
        {"category": "time", "name": f"type_{number}", "value": round(chance.random(), 9)}
        for number in range(TIMES)
    ]
    return found + times


def _values(role: int) -> dict[str, Any]:
    """A role's facts: Facter's that move, and what else a node has."""
    chance = random.Random(f"facts {role}")
    gib = 1024**3
    room: dict[str, Any] = {
        "available": "12.50 GiB",
        "available_bytes": 12 * gib,
        "used_bytes": 7 * gib,
        "size_bytes": 19 * gib,
        "filesystem": "ext4",
    }
    facts: dict[str, Any] = {
        "load_averages": {"1m": 0.51, "5m": 0.42, "15m": 0.33},
        "memory": {part: {"available_bytes": 3 * gib, "used_bytes": gib, "capacity_mb": 81.25} for part in ("system", "swap")},
        "memoryfree_mb": 2911.33, "uptime_seconds": 912_345,
        "system_uptime": {"seconds": 912_345, "hours": 253, "days": 10},
        "mountpoints": dict.fromkeys(("/", "/boot", "/tmp", "/var", "/srv", "/home"), room),
        "fqdn": "@@certname@@", "clientcert": "@@certname@@", "networking": {"fqdn": "@@certname@@"},
        "trusted": {"certname": "@@certname@@", "authenticated": "remote", "extensions": {"pp_role": f"role{role}"}},
        "kernel": "Linux", "os": {"family": "Debian", "name": "Debian", "release": {"full": "12.11", "major": "12"}},
    }  # fmt: skip
    for number in range(CUSTOM_FACTS):
        facts[f"custom_{number:03d}"] = {
            f"leaf_{leaf}": f"{chance.getrandbits(40):010x}" if leaf % 3 else chance.getrandbits(16)
            for leaf in range(CUSTOM_LEAVES)
        }
    return facts
