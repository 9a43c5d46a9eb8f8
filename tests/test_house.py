"""The house itself: imports point one way, and each library has its room."""

from __future__ import annotations

import ast
import re
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
NAMES_MAX, LINES_MAX, FUNCTION_LINES_MAX = 13, 300, 50
# Words of the project's own that were given up for those of the field: they shall not come back.
OLD_WORDS = re.compile(
    r"(?<!\^)\b(?:board|Board|wires|Wires|Handover|handover|lineups?|Lineups?|Met|MetSet|LastSlots|answering_within|_hands"
    r"|elder|Alike|Ahead|Advance|Hands|Passed|_losing|_taken|telemetry|puppetconf|(?:met|rows|redact|frames|contents?)\.py)\b"
    r"|\b(?:meaning|visible)\(\)|\bdef (?:_of|_again)\b"
)
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


def test_the_listing_is_short() -> None:
    """Whoever opens the package sees the floors, and nothing else."""
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "__init__.py", "py.typed"}
    assert {name.removesuffix(".py") for name in names} == set(FLOORS)
    assert len(names) <= NAMES_MAX


def long_ones(source: str) -> list[str]:
    """The functions of a module that nobody can see whole, and the module if it is one."""
    found = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    return found + ["too long"] * (source.count("\n") > LINES_MAX)


@pytest.mark.parametrize(("module", "file"), _modules(), ids=str)
def test_files_and_functions_can_be_seen_whole(module: str, file: Path) -> None:
    """At most 300 lines a file, 50 a function."""
    assert long_ones(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", ["\n" * 301, "def f() -> None:\n" + "    f()\n" * 50])
def test_what_is_too_long_is_found(source: str) -> None:
    """The check finds what it is there to find."""
    assert long_ones(source) != []


def test_old_words_do_not_come_back() -> None:
    """In code, tests, docs, settings and metrics; the glossary has the words that are used."""
    project = PACKAGE.parent
    files = [*PACKAGE.rglob("*.sql"), *(project / "docs").rglob("*.md"), *project.glob("*.md")]
    for folder in ("ingest", "lab", "bench", "tools", "tests"):
        files += [file for file in (project / folder).rglob("*.py") if file != Path(__file__)]
    found = [
        f"{file.relative_to(project)}: {match[0]}"
        for file in files
        for match in OLD_WORDS.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []


QUESTIONS = (
    (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Where to look")[2]
)


@pytest.mark.parametrize(
    ("file", "names"), re.findall(r"`([\w/]+\.(?:py|sql))`(?: \(([^)]*)\))?", QUESTIONS), ids=str
)
def test_where_to_look_is_where_it_stands(file: str, names: str) -> None:
    """Each file that docs/architecture.md sends a reader to exists, and has the functions and statements named there."""
    source = (PACKAGE / file).read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+)`", names):
        assert re.search(rf"\b(?:def|name:) ?{name}\b|^    {name}: ", source, re.MULTILINE), name
