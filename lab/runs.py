"""Made-up facts and reports of a node's runs, from a seed: the sizes and changes are those of real ones.

Facts are Facter's own (``lab.real_facts``) with another node's names and addresses; the leaves that differ between two
rounds of a role there move with every run here. A report of a run that changed nothing has 156 metrics and three log lines; each
resource that was changed has an event, and a log line that repeats its message.
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

RUN = timedelta(seconds=20)  # from its start to its report
SPREAD = 0.2  # by so much of itself a leaf moves
TYPES = ("file", "package", "service", "exec", "user", "cron", "concat_file", "anchor", "notify", "schedule")
TIMES = 134  # metrics of the category time; with the others 156
_HOLE = re.compile(r'"@@moves(\d+)@@"')
_NUMBER = re.compile(r"\d+\.?\d*")


class Run(NamedTuple):
    """Whose it is, and when; the same four make the same facts and the same report."""

    certname: str
    number: int  # of the node
    run: int
    at: datetime
    seed: int = 1

    def chance(self, what: str) -> random.Random:
        return random.Random(f"{self.seed} {what} {self.number} {self.run}")


def facts_of(run: Run) -> bytes:
    """``replace facts`` of version 5."""
    chance = run.chance("facts").random
    text, moving = _pattern(real_facts.ROLES[run.number % len(real_facts.ROLES)])
    values = [leaf.text(chance()) for leaf in moving]
    body = _HOLE.sub(lambda hole: values[int(hole[1])], text)
    high, low = divmod(run.number, 250)
    for hole, value in (
        ("@@certname@@", run.certname), ("@@host@@", run.certname.partition(".")[0]), ("@@at@@", run.at.isoformat()),
        ("@@net@@", f"10.{high}.{low}"), ("@@mac@@", f"52:{high:02x}:{low:02x}"),
    ):  # fmt: skip
        body = body.replace(hole, value)
    return body.encode()


def report_of(run: Run, *, changed: int = 0, release: int = 0) -> bytes:
    """``store report`` of version 8. ``changed`` resources have an event; what it says is the same on all nodes for the
    same ``release``."""
    chance = run.chance("report")
    start = run.at - RUN
    names, metrics = _metrics()
    times = [chance.random() for _ in range(TIMES)]
    resources = [_resource(place, release, start, chance) for place in range(changed)]
    head = {
        "certname": run.certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": f"v{release}", "start_time": start.isoformat(), "end_time": run.at.isoformat(),
        "producer_timestamp": run.at.isoformat(), "producer": "puppet.example.com", "corrective_change": False,
        "transaction_uuid": str(uuid.UUID(int=chance.getrandbits(128))),
        "catalog_uuid": str(uuid.UUID(int=chance.getrandbits(128))), "code_id": None, "job_id": None,
        "cached_catalog_status": "not_used", "status": "changed" if changed else "unchanged", "noop": False,
        "noop_pending": False,
        "resources": resources,
    }  # fmt: skip
    logs = [_log(one, start) for one in _messages(chance, resources)]
    values = metrics % (changed, changed, *times)
    payload = f'{json.dumps(head, separators=(",", ":"))[:-1]},"metrics":{values},"logs":{json.dumps(logs)}}}'
    assert names == values.count('"name"')
    return b'{"command":"store report","version":8,"certname":%s,"payload":%s}' % (
        json.dumps(run.certname).encode(),
        payload.encode(),
    )


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
def _metrics() -> tuple[int, str]:
    """How many there are, and their JSON with a place for each value that moves."""
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
    return len(found), f"[{text}]"


def _resource(place: int, release: int, start: datetime, chance: random.Random) -> dict[str, Any]:
    module = f"module{place // 40}"
    title = f"/etc/{module}/conf.d/{place:04d}.conf"
    old, new = (
        f"{{md5}}{random.Random(f'{place} {one}').getrandbits(128):032x}" for one in (release - 1, release)
    )
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
