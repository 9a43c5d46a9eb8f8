"""Reports and inputs of the fleet that PuppetDB is compared with: each status, each kind of event, a plan's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple


class Run(NamedTuple):
    certname: str
    hours_ago: int
    status: str
    noop: bool = False
    environment: str = "production"
    more: dict[str, Any] = {}  # noqa: RUF012  of a NamedTuple, and never changed


RUNS = (
    Run("web-1.example.com", 30, "unchanged"),
    Run("web-1.example.com", 20, "changed", more={"type": "plan", "job_id": "plan-1"}),
    Run("web-1.example.com", 2, "changed", more={"job_id": "17", "code_id": "abc"}),
    Run("web-2.example.com", 3, "failed", environment="testing"),
    Run(
        "db-1.example.com",
        4,
        "unchanged",
        noop=True,
        more={"noop_pending": True, "cached_catalog_status": "on_failure"},
    ),
    Run("gone.example.com", 5, "changed"),
)


def payloads(now: datetime) -> list[tuple[str, dict[str, Any]]]:
    """(certname, ``store report`` of version 8), the oldest first."""
    return [(run.certname, _report(run, number, now)) for number, run in enumerate(RUNS)]


def inputs(now: datetime) -> dict[str, Any]:
    """``replace catalog inputs`` of version 1."""
    return {
        "certname": "web-1.example.com", "producer_timestamp": now.isoformat(),
        "catalog_uuid": "53b72442-3b73-11e3-94a8-1b34ef7fdc01", "inputs": [["hiera", "puppetdb::port"], ["hiera", "ntp"]],
    }  # fmt: skip


def _report(run: Run, number: int, now: datetime) -> dict[str, Any]:
    start = (now - timedelta(hours=run.hours_ago)).replace(microsecond=123_000)

    def time(seconds: int) -> str:
        return (start + timedelta(seconds=seconds)).isoformat()

    return {
        "certname": run.certname, "environment": run.environment, "puppet_version": "7.23.0", "report_format": 12,
        "configuration_version": f"v{number % 3}", "start_time": time(0), "end_time": time(20),
        "producer_timestamp": time(21), "producer": "puppet.example.com", "corrective_change": None,
        "transaction_uuid": f"68b08e2a-eeb1-4322-b241-bfdf151d30{number:02}",
        "catalog_uuid": f"53b72442-3b73-11e3-94a8-1b34ef7fe0{number:02}", "code_id": None, "job_id": None,
        "cached_catalog_status": "not_used", "status": run.status, "noop": run.noop, "noop_pending": False,
        "type": "agent", "resources": _resources(run, time),
        "metrics": [{"category": "resources", "name": "total", "value": 12 + number},
                    {"category": "time", "name": "total", "value": 1.5}],
        "logs": [{"file": None, "line": None, "level": "notice", "message": f"Applied \u00fc {number}", "source": "Puppet",
                  "tags": ["notice"], "time": time(20)}],
    } | run.more  # fmt: skip


def _resources(run: Run, time: Any) -> list[dict[str, Any]]:
    if run.status == "unchanged" and not run.noop:
        return []
    event = {"failed": "failure", "changed": "success"}.get(run.status, "noop")
    found = [
        _resource(
            "File",
            "/etc/motd",
            time,
            [(event, "ensure", "present", "absent"), (event, "mode", "0644", "0600")],
        ),
        _resource(
            "Service",
            "apache2",
            time,
            [("success" if event == "success" else event, "ensure", "running", "stopped")],
        ),
        _resource(
            "Notify", "said", time, [(event, "message", {"a": [1, None]}, "absent")], path=["Stage[main]"]
        ),
    ]
    if run.status == "failed":
        found.append(_resource("Exec", "later", time, [], skipped=True))
    return found


def _resource(
    type_: str, title: str, time: Any, events: list[tuple[str, str, Any, Any]], *, skipped: bool = False,
    path: list[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "skipped": skipped, "timestamp": time(3), "resource_type": type_, "resource_title": title, "file": "/site.pp",
        "line": 7, "containment_path": path or ["Stage[main]", "Apache", f"{type_}[{title}]"], "corrective_change": False,
        "events": [
            {"status": status, "timestamp": time(4 + place), "name": f"{property_}_event", "property": property_,
             "new_value": new, "old_value": old, "message": f"{property_} of {title}", "corrective_change": False}
            for place, (status, property_, new, old) in enumerate(events)
        ],
    }  # fmt: skip
