"""A small fleet's commands with something of everything that queries are about, for PuppetDB and for us alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from lab.peer_reports import inputs, payloads

PRODUCER = "puppet.example.com"


class Sent(NamedTuple):
    """One command as it is sent over HTTP."""

    command: str
    version: int
    certname: str
    payload: Any


def fleet(now: datetime) -> list[Sent]:
    """Six nodes; one was deactivated long ago and one just now, one has facts alone."""
    return [
        _catalog("web-1.example.com", 1, [*_common("web-1"), *_web()], [(0, 1), (1, 2), (0, 3)]),
        _catalog(
            "web-2.example.com",
            2,
            [*_common("web-2"), *_web(port="81")],
            [(0, 1), (2, 3)],
            environment="testing",
        ),
        _catalog(
            "db-1.example.com", 3, [*_common("db-1"), *_database()], [(0, 1)], code_id="abc", job_id="7"
        ),
        _catalog("old.example.com", 4, _common("old"), []),
        _facts("web-1.example.com", 1, "Debian", 4, load=[0.5, 1, 2.25]),
        _facts("web-2.example.com", 2, "Debian", 8, environment="testing", load=[]),
        _facts(
            "db-1.example.com", 3, "RedHat", 64, packages=[["bash", "5.2", "dpkg"], ["zsh", "5.9", "rpm"]]
        ),
        _facts("old.example.com", 4, "Solaris", 1, packages=[["bash", "4.0", "pkg"]]),
        _facts("facts-only.example.com", 5, "Debian", 4, packages=[["bash", "5.2", "dpkg"]]),
        Sent(
            "deactivate node",
            3,
            "old.example.com",
            {"certname": "old.example.com", "producer_timestamp": _at(9)},
        ),
        _facts("gone.example.com", 6, "Debian", 2),
        *(Sent("store report", 8, certname, payload) for certname, payload in payloads(now)),
        Sent("replace catalog inputs", 1, "web-1.example.com", inputs(now)),
        Sent(
            "deactivate node",
            3,
            "gone.example.com",
            {"certname": "gone.example.com", "producer_timestamp": now.isoformat()},
        ),
    ]


def _at(minute: int) -> str:
    return f"2026-11-01T10:{minute:02}:00.123Z"


def _resource(
    type_: str, title: str, parameters: dict[str, Any] | None = None, *, tags: tuple[str, ...] = (), exported: bool = False,
    file: str | None = "/etc/puppetlabs/code/site.pp", line: int | None = 1,
) -> dict[str, Any]:  # fmt: skip
    found = {
        "type": type_, "title": title, "exported": exported, "tags": sorted({type_.lower(), *tags}),
        "parameters": parameters or {},
    }  # fmt: skip
    return found | ({"file": file} if file else {}) | ({"line": line} if line is not None else {})


def _common(name: str) -> list[dict[str, Any]]:
    return [
        _resource("Stage", "main", file=None, line=None),
        _resource("Class", "Main", {"name": "main"}, tags=("class",), file=None, line=None),
        _resource("Class", "Ssh::Server", {"ports": [22, 2222], "options": {"a": {"b": [1, {"c": "deep"}]}, "x.y": 1}},
                  tags=("ssh", "ssh::server"), line=10),
        _resource("File", f"/etc/{name}", {"ensure": "present", "mode": "0644", "content": 'a"b\\c\n\u00e9\u2028'},
                  tags=("ssh", name), line=20),
        _resource("File", "/etc/motd", {"ensure": "file", "backup": False, "size": 12, "ratio": 1.5, "owner": None},
                  line=2_000_000_000),
        _resource("Sshkey", f"{name}.example.com", {"type": "rsa", "key": f"AAAA{name}"}, tags=("ssh",), exported=True),
        _resource("Notify", "UPPER title / with 'quotes' \"and\" %s", {"message": ""}),
    ]  # fmt: skip


def _web(port: str = "80") -> list[dict[str, Any]]:
    return [
        _resource("Class", "Apache", {"port": port}, tags=("apache", "web")),
        _resource(
            "Service", "apache2", {"ensure": "running", "enable": True}, tags=("apache", "web"), line=7
        ),
        _resource("Nagios_host", f"web{port}", {"address": "10.0.0.1"}, exported=True, tags=("web",)),
    ]


def _database() -> list[dict[str, Any]]:
    return [
        _resource("Class", "Postgresql::Server", {"listen": "*"}, tags=("postgresql",)),
        _resource("User", "postgres", {"uid": 1000, "groups": ["a", "b"]}, tags=("postgresql",)),
    ]


def _catalog(
    certname: str, minute: int, resources: list[dict[str, Any]], edges: list[tuple[int, int]], **more: Any
) -> Sent:
    kinds = ("contains", "before", "required-by", "notifies", "subscription-of")
    payload = {
        "certname": certname, "version": f"v{minute}", "environment": "production", "producer": PRODUCER,
        "transaction_uuid": f"68b08e2a-eeb1-4322-b241-bfdf151d29{minute:02}",
        "catalog_uuid": f"53b72442-3b73-11e3-94a8-1b34ef7fdc{minute:02}", "code_id": None, "job_id": None,
        "producer_timestamp": _at(minute), "resources": resources,
        "edges": [
            {"source": {"type": resources[s]["type"], "title": resources[s]["title"]},
             "target": {"type": resources[t]["type"], "title": resources[t]["title"]},
             "relationship": kinds[(s + t) % 5]}
            for s, t in edges
        ],
    } | more  # fmt: skip
    return Sent("replace catalog", 9, certname, payload)


def _facts(
    certname: str, minute: int, os: str, cores: int, *, environment: str = "production",
    load: list[Any] | None = None, packages: list[list[str]] | None = None,
) -> Sent:  # fmt: skip
    payload: dict[str, Any] = {
        "certname": certname, "environment": environment, "producer": PRODUCER, "producer_timestamp": _at(minute),
        "values": {
            "kernel": "SunOS" if os == "Solaris" else "Linux", "is_virtual": cores < 8, "uptime_days": minute * 1.5,
            "processorcount": cores, "processors": {"count": cores, "models": ["Xeon"] * min(cores, 2)},
            "os": {"family": os, "name": os, "release": {"major": str(cores), "full": f"{cores}.1"}},
            "empty": {}, "nothing": None, "text": "", "5": {"6": "digits"}, "a.b": {"c d": "dots", 'q"t': 1},
            "load": load if load is not None else [1], "unicode": "\u00fc\u2603", "number_text": "64",
            "trusted": {"certname": certname, "authenticated": "remote", "extensions": {"pp_role": os.lower()}},
            "big": 12345678901234, "nested": [[1, [2, {"x": [3]}]], "y"],
        },
    }  # fmt: skip
    if packages is not None:
        payload["package_inventory"] = packages
    return Sent("replace facts", 5, certname, payload)
