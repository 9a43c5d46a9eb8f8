"""What a node's run sends beside its catalog: facts before it, a report after it. Made from a few numbers, so that what a node
must have at the end can be made again. Sizes and changes are those measured of real ones.

Facts are real ones (``lab.real_facts``) with a name, addresses and hardware of the node's own; the leaves that differ between
two rounds of a role there move with every run here, 37 of them. A report of a run that changed nothing has 156 metrics and
three log lines; each resource that was changed has an event, and a log line that repeats its message. What a run changes is
the same on all nodes, as a release is.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from lab import real_facts

# Resources with an event, by what changed. Few parameters of a made-up catalog are seen on a node, so that one report in fifty
# of the load generator's usual mix has changes.
EVENTS = {"few": 20, "upgrade": 41, "deploy": 41, "everything": 1000}
RUN = timedelta(seconds=20)  # from its start to its report
SPREAD = 0.2  # by so much of itself a leaf moves
TYPES = ("file", "package", "service", "exec", "user", "cron", "concat_file", "anchor", "notify", "schedule")
TIMES = 134  # metrics of the category time; with the others 156
_HOLE = re.compile(r'"@@moves(\d+)@@"')
_NUMBER = re.compile(r"\d+\.?\d*")


def facts(certname: str, number: int, at: datetime) -> bytes:
    """A ``replace facts`` command of version 5."""
    chance = random.Random(f"facts {certname} {at}").random
    text, moving = _pattern(real_facts.ROLES[number % len(real_facts.ROLES)])
    values = [leaf.text(chance()) for leaf in moving]
    body = _HOLE.sub(lambda hole: values[int(hole[1])], text)
    high, low = divmod(number % 62_500, 250)
    for hole, value in (
        ("@@certname@@", certname), ("@@host@@", certname.partition(".")[0]), ("@@at@@", at.isoformat()),
        ("@@net@@", f"10.{high}.{low}"), ("@@mac@@", f"52:{high:02x}:{low:02x}"),
    ):  # fmt: skip
        body = body.replace(hole, value)
    return body.encode()


def fact_values(certname: str, number: int, at: datetime) -> dict[str, Any]:
    """The facts that ``facts`` sends: name -> value."""
    values: dict[str, Any] = json.loads(facts(certname, number, at))["payload"]["values"]
    return values


def report(certname: str, run: int, change: str, at: datetime) -> bytes:
    """A ``store report`` command of version 8, of a run in which that changed: one of ``EVENTS``, or nothing."""
    chance = random.Random(f"report {certname} {run}")
    start = at - RUN
    resources = [_resource(place, run, start, chance) for place in range(EVENTS.get(change, 0))]
    changed = len(resources)
    head = {
        "certname": certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": f"v{run}", "start_time": start.isoformat(), "end_time": at.isoformat(),
        "producer_timestamp": at.isoformat(), "producer": "puppet.example.com", "corrective_change": False,
        "transaction_uuid": str(uuid.UUID(int=chance.getrandbits(128))),
        "catalog_uuid": str(uuid.UUID(int=chance.getrandbits(128))), "code_id": None, "job_id": None,
        "cached_catalog_status": "not_used", "status": "changed" if changed else "unchanged", "noop": False,
        "noop_pending": False, "type": "agent", "resources": resources,
    }  # fmt: skip
    logs = [_log(one, start) for one in _messages(chance, resources)]
    values = _metrics() % (changed, changed, *(chance.random() for _ in range(TIMES)))
    payload = f'{json.dumps(head, separators=(",", ":"))[:-1]},"metrics":{values},"logs":{json.dumps(logs)}}}'
    return b'{"command":"store report","version":8,"certname":%s,"payload":%s}' % (
        json.dumps(certname).encode(),
        payload.encode(),
    )


def report_payload(certname: str, run: int, change: str, at: datetime) -> dict[str, Any]:
    """The payload of ``report``."""
    payload: dict[str, Any] = json.loads(report(certname, run, change, at))["payload"]
    return payload


class _Leaf(NamedTuple):
    before: str
    value: float
    decimals: int
    behind: str

    def text(self, chance: float) -> str:
        moved = self.value * (1 - SPREAD / 2 + SPREAD * chance)
        return f"{self.before}{moved:.{self.decimals}f}{self.behind}"


@cache
def _pattern(role: str) -> tuple[str, list[_Leaf]]:
    """The role's factset with holes, and what moves in it."""
    documents = [json.loads(real_facts.body(role, round_)) for round_ in (2, 3)]
    name = documents[0]["payload"]["certname"]
    moving: list[_Leaf] = []
    one, other = (document["payload"]["values"] for document in documents)
    documents[0]["payload"]["values"] = _with_holes(one, other, moving)
    documents[0]["payload"]["producer_timestamp"] = "@@at@@"
    text = json.dumps(documents[0], separators=(",", ":"), ensure_ascii=False)
    text = text.replace(name, "@@certname@@").replace(f'"{name.partition(".")[0]}"', '"@@host@@"')
    text = re.sub(r"10\.0\.0(?=\.\d)", "@@net@@", text).replace("52:54:00", "@@mac@@")
    return text, moving


def _with_holes(one: Any, other: Any, moving: list[_Leaf]) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _with_holes(its, other.get(key), moving) for key, its in one.items()}
    if one == other or isinstance(one, dict | list | bool | None):
        return one
    text = json.dumps(one)
    if (number := _NUMBER.search(text)) is None:
        return one
    decimals = len(number[0].partition(".")[2])
    moving.append(_Leaf(text[: number.start()], float(number[0]), decimals, text[number.end() :]))
    return f"@@moves{len(moving) - 1}@@"


@cache
def _metrics() -> str:
    """Their JSON with a place for each value that moves."""
    found = [("changes", "total", "%d"), ("events", "total", "%d")]
    found += [("events", name, "0") for name in ("failure", "success", "noop")]
    resources = ("changed", "corrective_change", "failed", "failed_to_restart", "out_of_sync", "restarted")
    found += [("resources", name, "0") for name in (*resources, "scheduled", "skipped")]
    found += [("resources", "total", "1150")]
    found += [("events", f"of_{name}", "0") for name in TYPES[:8]]
    found += [("time", f"{TYPES[n % len(TYPES)]}_{n // len(TYPES)}", "%.9f") for n in range(TIMES)]
    text = ",".join(
        f'{{"category":"{category}","name":"{name}","value":{value}}}' for category, name, value in found
    )
    return f"[{text}]"


def _resource(place: int, run: int, start: datetime, chance: random.Random) -> dict[str, Any]:
    module = f"module{place // 40}"
    title = f"/etc/{module}/conf.d/{place:04d}.conf"
    old, new = (f"{{md5}}{random.Random(f'{place} {one}').getrandbits(128):032x}" for one in (run - 1, run))
    at = (start + timedelta(seconds=1 + chance.random())).isoformat()
    return {
        "skipped": False, "timestamp": at, "resource_type": "File", "resource_title": title,
        "file": f"/etc/puppetlabs/code/environments/production/modules/{module}/manifests/init.pp", "line": 7 + place,
        "containment_path": ["Stage[main]", module.capitalize(), f"File[{title}]"], "corrective_change": False,
        "events": [{
            "status": "success", "timestamp": at, "name": "content_changed", "property": "content", "new_value": new,
            "old_value": old, "corrective_change": False, "message": f"content changed '{old}' to '{new}'",
        }],
    }  # fmt: skip


def _messages(
    chance: random.Random, resources: list[dict[str, Any]]
) -> list[tuple[str, str, dict[str, Any] | None]]:
    """(message, source, resource) of each log line."""
    found: list[tuple[str, str, dict[str, Any] | None]] = [
        (each["events"][0]["message"], f"/Stage[main]/File[{each['resource_title']}]/content", each)
        for each in resources
    ]
    found += [
        ("Loading facts", "Puppet", None),
        ("Requesting catalog from puppet.example.com:8140", "Puppet", None),
        (f"Applied catalog in {chance.uniform(1, 20):.2f} seconds", "Puppet", None),
    ]
    return found


def _log(given: tuple[str, str, dict[str, Any] | None], start: datetime) -> dict[str, Any]:
    message, source, resource = given
    tags = ["notice"] if resource is None else ["notice", "file", "class", "node", "default", "module"]
    return {
        "file": resource and resource["file"], "line": resource and resource["line"], "level": "notice",
        "message": message, "source": source, "tags": tags,
        "time": resource["timestamp"] if resource else start.isoformat(),
    }  # fmt: skip
