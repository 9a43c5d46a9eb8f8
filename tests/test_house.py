"""The house itself: imports point one way, and each library has its room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ingest"

# A module may import from rooms of its own floor or below it, but a process never from another process.
FLOORS = (
    ("errors",),
    ("core",),
    ("channels", "store", "puppetconf", "broker", "metrics"),
    ("board", "log", "telemetry", "connection", "config"),
    ("transports", "processes"),
    ("subscription",),
    ("receiver", "decoder", "writer"),
    ("child", "supervisor", "publish", "embedded"),
    ("run",),
    ("demo", "capacity"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PROCESSES = {"receiver", "decoder", "writer"}
LIBRARIES = {
    "psycopg": {"store"},
    "stomp": {"connection"},
    "multiprocessing": {"channels", "supervisor", "child", "receiver", "decoder", "writer"},
    "prometheus_client": {"telemetry"},
    "click": {"cli", "commands"},
}
CORE_FORBIDDEN = {"socket", "os", "time", "subprocess", "threading", "selectors", "multiprocessing", "random"}


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with a module's imports; ``module`` is dotted, without the package's name."""
    room = module.partition(".")[0]
    found = []
    for name in _imports(source):
        top, _, rest = name.partition(".")
        if top == "ingest" and rest:
            other = rest.partition(".")[0]
            if other == room:
                continue
            if other not in FLOOR:
                found.append(f"{module}: {other} has no floor")
            elif FLOOR[other] > FLOOR[room]:
                found.append(f"{module} imports {other}, which stands above it")
            elif {room, other} <= PROCESSES:
                found.append(f"{module} imports {other}: processes talk, they do not import")
        elif top in LIBRARIES and room not in LIBRARIES[top]:
            found.append(f"{module} imports {top}")
        elif room == "core" and top in CORE_FORBIDDEN:
            found.append(f"{module} imports {top}: the core needs no world")
    return found


def _imports(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [
                f"{node.module}.{alias.name}" if node.module == "ingest" else node.module
                for alias in node.names
            ]
    return names


def _modules() -> list[tuple[str, Path]]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        if module != "__init__":
            found.append((module.removesuffix(".__init__"), file))
    return found


@pytest.mark.parametrize(("module", "file"), _modules(), ids=str)
def test_imports_point_one_way(module: str, file: Path) -> None:
    """Every module stands on a floor and imports only what is below it."""
    assert module.partition(".")[0] in FLOOR
    assert complaints(module, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.diff", "import psycopg"),
        ("core.diff", "import time"),
        ("core.diff", "from ingest.store import reading"),
        ("writer", "from ingest.receiver import run"),
        ("cli", "import stomp"),
        ("store.writing", "from ingest import cli"),
    ],
)
def test_the_rule_can_be_broken(module: str, source: str) -> None:
    """The check finds what it is there to find."""
    assert complaints(module, source) != []
