"""Measured and predicted side by side: the table, the verdict, the plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUIET_CORES = 0.15  # what the kernel, PostgreSQL's background and a look at the clock use


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


HEAD = (
    f"{'workers':>7} {'load':>5} {'offered/s':>9} | {'measured/s':>10} {'model/s':>8} {'error':>6} | "
    f"{'p50 ms':>7} {'model':>7} {'error':>6} | {'p99 ms':>7} {'model':>7} {'error':>6} | "
    f"{'cores':>5} {'model':>5} {'others':>6} {'unseen':>6} {'late ms':>7} {'slower':>6}"
)


def line_of(row: dict[str, Any]) -> str:
    def pair(name: str, factor: float, digits: int) -> str:
        measured, model = row[name] * factor, row[f"model_{name}"] * factor
        return f"{measured:>7.{digits}f} {model:>7.{digits}f} {error(row, name):>+6.0%}"

    return (
        f"{row['workers']:>7} {row['load']:>5.0%} {row['rate'] or 0:>9.1f} |    {pair('per_s', 1, 1)}  | "
        f"{pair('p50', 1000, 0)} | {pair('p99', 1000, 0)} | "
        f"{row['cores_busy']:>5.2f} {row['model_cores_busy']:>5.2f} {row['elsewhere']:>6.2f} {row['unseen']:>6} "
        f"{row['late_s'] * 1000:>7.0f} {row['slower']:>6.2f}"
    )


def stages_of(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{stage} {measured:.2f} ({row['model_cpu_ms'].get(stage, float('nan')):.2f})"
        for stage, measured in row["cpu_ms"].items()
    )


def error(row: dict[str, Any], name: str) -> float:
    return float(row[f"model_{name}"] / row[name] - 1)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How many of the goals hold: throughput within 10 %, p99 within 30 %; of all rows, and of those that had the
    machine to themselves."""
    lines = []
    for what, chosen in (
        ("all rows", rows),
        (
            f"others used less than {QUIET_CORES} cores",
            [row for row in rows if row["elsewhere"] < QUIET_CORES],
        ),
    ):
        loads = [row for row in chosen if row["load"] < 1]
        throughput = sum(abs(error(row, "per_s")) <= 0.1 for row in chosen)
        tails = sum(abs(error(row, "p99")) <= 0.3 for row in loads)
        lines.append(
            f"{what}: throughput within 10 %: {throughput} of {len(chosen)}; p99 within 30 %: {tails} of {len(loads)}"
        )
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, name, title, factor in zip(
        axes,
        ("per_s", "p50", "p99"),
        ("catalogs/s", "p50 freshness, ms", "p99 freshness, ms"),
        (1, 1000, 1000),
        strict=True,
    ):
        for number, workers in enumerate(sorted({row["workers"] for row in rows})):
            mine = [row for row in rows if row["workers"] == workers and (row["load"] < 1 or name == "per_s")]
            mine.sort(key=lambda row: row["load"])
            loads = [row["load"] * 100 for row in mine]
            colour = f"C{number}"
            axis.plot(
                loads,
                [row[name] * factor for row in mine],
                "o",
                color=colour,
                label=f"{workers} workers, measured",
            )
            axis.plot(
                loads, [row[f"model_{name}"] * factor for row in mine], "-", color=colour, label="model"
            )
        axis.set_title(title)
        axis.set_xlabel("load, % of the limit")
        if name != "per_s":
            axis.set_yscale("log")
        axis.legend(fontsize=7)
    figure.savefig(file)
