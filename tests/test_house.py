"""The house itself: imports point one way, and each library has its room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ingest"

# The listing of ingest/, from the top floor down: a module imports from its own room, or from rooms below it.
FLOORS = (
    "__main__",
    "cli",
    "capacity",
    "front",
    "engine",
    "embedded",
    "transport",
    "store",
    "observe",
    "ipc",
    "config",
    "core",
    "errors",
)
FLOOR = {room: len(FLOORS) - at for at, room in enumerate(FLOORS)}
PROCESSES = {"engine.receiver", "engine.decoder", "engine.writer"}
LIBRARIES = {
    "psycopg": {"store"},
    "stomp": {"transport"},
    "multiprocessing": {"ipc", "engine"},
    "prometheus_client": {"observe"},
    "click": {"cli"},
    "lark": {"core"},
    "starlette": {"front"},
    "uvicorn": {"front"},
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
            other_module = ".".join(rest.split(".")[:2])
            if module != other_module and {module, other_module} <= PROCESSES:
                found.append(f"{module} imports {name}: processes talk, they do not import")
            if other == room:
                continue
            if other not in FLOOR:
                found.append(f"{module}: {other} has no floor")
            elif FLOOR[other] > FLOOR[room]:
                found.append(f"{module} imports {other}, which stands above it")
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
        ("core.catalog.diff", "import psycopg"),
        ("core.catalog.diff", "import time"),
        ("core.catalog.diff", "from ingest.store import reading"),
        ("engine.writer", "from ingest.engine.receiver import run"),
        ("cli", "import stomp"),
        ("store.writing", "from ingest import cli"),
    ],
)
def test_the_rule_can_be_broken(module: str, source: str) -> None:
    """The check finds what it is there to find."""
    assert complaints(module, source) != []
