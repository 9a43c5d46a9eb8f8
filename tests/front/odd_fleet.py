"""Nodes with what is hard to keep: large numbers, edges of Unicode, rich values, names that look like something else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from lab.peer_fleet import Sent
from lab.peer_fleet import fleet as plain_fleet
from lab.store_model import resource

VALUES: dict[str, Any] = {
    "large": 2**63 - 1, "small": -(2**63), "exponent": 1.5e300, "tiny": 5e-324, "fraction": 0.1, "whole": 3.0,
    "empty_text": "", "empty_array": [], "empty_hash": {}, "nothing": None, "yes": True,
    "letters": "\u00fc\u2603\U0001f600\u202e\ufeff\uffff", "lines": "a\r\nb\tc\u2028d", "quotes": "\"'\\/$%{}",
    "escape": "\u001b[31m", "looks_like_json": '{"a": [1]}', "looks_like_a_time": "2026-11-01T10:00:00.000Z",
    "deep": [[[[{"a": [{"b": [None, [True]]}]}]]]],
    "rich": {"__ptype": "Binary", "__pvalue": "AP8="}, "hash": {"__ptype": "Hash", "__pvalue": [1, "one"]},
}  # fmt: skip
# What PuppetDB does not keep: U+0000 becomes U+FFFD, and text that is not UTF-8 is refused.
OURS_ALONE: dict[str, Any] = {
    "zero": "a\u0000b", "beyond": 2**70, "surrogate": "\ud800", "precise": 0.1234567890123456789,
}  # fmt: skip
TITLES = ("", " ", "../../etc/passwd", "a]b[c", "x" * 3000, "\u00e4\u0301", "'; DROP TABLE nodes; --")


def odd_fleet(now: datetime, *, for_puppetdb: bool) -> list[Sent]:
    """The plain fleet as well, which has reports, inputs and deactivated nodes."""
    values = VALUES if for_puppetdb else VALUES | OURS_ALONE
    return [
        *plain_fleet(now),
        _catalog("odd.example.com", now, values),
        _catalog("UPPER_and-\u00fcmlaut.example.com", now, {}),
        Sent("replace facts", 5, "odd.example.com", _facts("odd.example.com", now, values)),
        Sent("replace facts", 5, "twice.example.com", _facts("twice.example.com", now, {"run": 1})),
        _expiration("odd.example.com", now, expires=False),
        _expiration("twice.example.com", now, expires=True),
        Sent("store report", 8, "odd.example.com", _report("odd.example.com", now, values)),
    ]


def _catalog(certname: str, now: datetime, values: dict[str, Any]) -> Sent:
    titles = TITLES[1:]
    resources = [
        resource("main", type_="Stage"),
        resource("odd", type_="Notify", parameters=values, line=None, file=None),
        *(resource(title, type_="Odd::Thing", exported=True) for title in titles),
    ]
    for one in resources:
        for name in ("file", "line"):
            if one[name] is None:
                del one[name]
    ends = [{"type": one["type"], "title": one["title"]} for one in resources]
    edges = [{"source": ends[0], "target": end, "relationship": "contains"} for end in ends[1:]]
    payload = {
        "certname": certname, "version": "v\u00fc", "environment": "production", "producer": "puppet.example.com",
        "producer_timestamp": now.isoformat(), "transaction_uuid": "00000000-0000-4000-8000-000000000001",
        "catalog_uuid": None, "code_id": "abc", "job_id": None, "resources": resources, "edges": edges,
    }  # fmt: skip
    return Sent("replace catalog", 9, certname, payload)


def _facts(certname: str, now: datetime, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "certname": certname, "environment": "production", "producer": "puppet.example.com",
        "producer_timestamp": now.isoformat(), "values": values | {"a.b": {"c": 1}, "\u00fc": "x"},
        "package_inventory": [["bash", "5.2-1", "apt"], ["\u00fcber", "", "gem"]],
    }  # fmt: skip


def _expiration(certname: str, now: datetime, *, expires: bool) -> Sent:
    payload = {"certname": certname, "expire": {"facts": expires}, "producer_timestamp": now.isoformat()}
    return Sent("configure expiration", 1, certname, payload)


def _report(certname: str, now: datetime, values: dict[str, Any]) -> dict[str, Any]:
    def time(seconds: int) -> str:
        return (now - timedelta(seconds=100 - seconds)).isoformat()

    events = [
        {"status": "success", "timestamp": time(5), "name": f"n{place}", "property": f"p{place}", "new_value": value,
         "old_value": [value, {"was": value}], "message": "\u2603", "corrective_change": False}
        for place, value in enumerate(values.values())
    ]  # fmt: skip
    common = {
        "file": None,
        "line": None,
        "containment_path": ["Stage[main]", "Odd"],
        "corrective_change": False,
    }
    return {
        "certname": certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": "\u00fc", "start_time": time(0), "end_time": time(50), "producer_timestamp": time(51),
        "producer": "puppet.example.com", "corrective_change": None, "catalog_uuid": None, "code_id": None, "job_id": None,
        "transaction_uuid": "00000000-0000-4000-8000-000000000002", "cached_catalog_status": "not_used", "status": "changed",
        "noop": False, "noop_pending": False, "type": "agent",
        "resources": [
            common | {"skipped": False, "timestamp": time(5), "resource_type": "Odd", "resource_title": "a]b",
                      "events": events},
            common | {"skipped": True, "timestamp": time(6), "resource_type": "Odd", "resource_title": "later", "events": []},
        ],
        "metrics": [{"category": "time", "name": "total", "value": 1e-7}, {"category": "x", "name": "y", "value": 2**53}],
        "logs": [{"file": "/x.pp", "line": 1, "level": "warning", "message": "a\nb\u0007", "source": "Odd[x]/p",
                  "tags": ["warning", "odd::thing"], "time": time(9)}],
    }  # fmt: skip
