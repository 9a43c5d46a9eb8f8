"""The newest record of each suite as one page of tables: bench/records/report.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.records import DIRECTORY


def write(directory: Path = DIRECTORY) -> Path:
    """Generates the page; returns where it is."""
    newest: dict[str, Path] = {}
    for file in sorted(directory.glob("*-[0-9]*-[0-9]*.json")):
        newest[json.loads(file.read_text())["suite"]] = file
    parts = [
        "# Benchmarks\n\nGenerated from the newest record of each suite; compare figures of one record only.\n"
    ]
    for suite, file in sorted(newest.items()):
        parts.append(_section(suite, file, json.loads(file.read_text())))
    page = directory / "report.md"
    page.write_text("\n".join(parts))
    return page


def _section(suite: str, file: Path, document: dict[str, Any]) -> str:
    machine = document["machine"]
    settings = ", ".join(f"{name} {value}" for name, value in document["settings"].items() if value != "None")
    lines = [
        f"## {suite}\n",
        f"{document['at']}, commit {document['commit']}, {machine['cores']} cores, Python {machine['python']} "
        f"({file.name}). {settings}\n",
    ]
    # Rows of one suite may have different columns: a table for each set of them.
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        tables.setdefault(tuple(row), []).append(row)
    for columns, rows in tables.items():
        lines.append("| " + " | ".join(columns) + " |")
        lines.append("|" + "---|" * len(columns))
        lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return str(value)


if __name__ == "__main__":
    print(write())
