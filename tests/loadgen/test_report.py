"""The report of a run, from raw results written by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ingest.errors import Misconfigured
from tools.loadgen.page import page
from tools.loadgen.report import Summary, markdown, remarks, summarise, verdict
from tools.loadgen.results import VERSION, About, Ended, Results, Sent, Stored

ABOUT = About(
    VERSION, "2026-01-01T00:00:00+00:00", "steady", 10, 100.0, 10.0, 100.0, ("wire",), {"unchanged": 1.0}, 1, None,
    "stomp://broker", 0.05, 1000.0,
)  # fmt: skip


def results(
    directory: Path, sent: list[Sent], stored: list[Stored], ended: Ended | None, **about: object
) -> Results:
    found = Results(directory)
    found.begin(msgspec.structs.replace(ABOUT, **about))
    for name, lines in (("sent.jsonl", sent), ("stored.jsonl", stored)):
        writer = found.writer(name)
        for line in lines:
            writer.write(line)
        writer.close()
    if ended is not None:
        found.end(ended)
    return found


def sent(node: int, run: int = 1, due_s: float = 1.0, late_s: float = 0.0) -> Sent:
    return Sent(node, run, "unchanged", due_s, due_s + late_s, due_s + 10, 1000)


def ended(count: int, cpu_s: float = 1.0) -> Ended:
    return Ended(False, count, count, 10.0, cpu_s, 60.0, 0, count)


def test_delay_counts_from_when_a_catalog_was_due(tmp_path: Path) -> None:
    """A message that was sent two seconds late and stored at once is two seconds old."""
    summary = summarise(results(tmp_path / "r", [sent(1, late_s=2.0)], [Stored(1, 1, 3.01)], ended(1)))
    assert summary.freshness[0].max_s == pytest.approx(2.01, rel=0.002)
    assert any("after they were due" in remark for remark in remarks(summary))


@pytest.mark.parametrize(
    ("cpu_s", "who"), [(9.9, "the generator was itself the limit"), (1.0, "made the generator wait")]
)
def test_the_report_says_who_was_late(tmp_path: Path, cpu_s: float, who: str) -> None:
    """A generator whose core was busy was the limit itself; one that was idle had to wait."""
    summary = summarise(results(tmp_path / "r", [sent(1, late_s=2.0)], [Stored(1, 1, 3.01)], ended(1, cpu_s)))
    assert any(who in remark for remark in remarks(summary))


def test_every_message_is_accounted_for(tmp_path: Path) -> None:
    """In time, too late, superseded, never seen: each is one, and only the first is good."""
    lines = [sent(1), sent(2), sent(3), sent(3, 2, 11.0), sent(4)]
    seen = [Stored(1, 1, 1.5), Stored(2, 1, 11.5), Stored(3, 1, 11.6, True), Stored(3, 2, 11.6)]
    summary = summarise(results(tmp_path / "r", lines, seen, ended(5)))
    assert (summary.sent, summary.stored, summary.superseded, summary.unseen) == (5, 3, 1, 1)
    assert (summary.in_time, summary.judged) == (2, 5)
    assert verdict(summary).startswith("40.00% of 5 catalogs")
    text = " ".join(remarks(summary))
    assert "1 catalogs were never seen" in text
    assert "1 catalogs were replaced by a newer one" in text


@pytest.mark.parametrize(("slope", "said"), [(0.0, False), (0.5, True)])
def test_a_queue_that_grows_is_told(tmp_path: Path, slope: float, said: bool) -> None:
    """All in time, yet later and later: a longer run would fail, and the report says it."""
    lines = [sent(n, due_s=n / 10) for n in range(100)]
    seen = [Stored(n, 1, n / 10 * (1 + slope) + 0.1) for n in range(100)]
    summary = summarise(results(tmp_path / "r", lines, seen, ended(100)))
    assert summary.in_time == summary.judged
    assert any("Freshness grew" in remark for remark in remarks(summary)) is said


def test_a_backlog_says_when_it_was_drained(tmp_path: Path) -> None:
    """From the end of the outage, which is the start of the run."""
    lines = [sent(n, due_s=-5.0, late_s=5.0) for n in range(3)]
    found = results(
        tmp_path / "r", lines, [Stored(n, 1, 1.0 + n) for n in range(3)], ended(3), scenario="backlog"
    )
    text = " ".join(remarks(summarise(found)))
    assert "3 catalogs were due before the start, in the outage" in text
    assert "the last was stored 3.0 s after it" in text


def test_an_interrupted_run_can_be_reported(tmp_path: Path) -> None:
    """A line that was not written to its end, and no end of the run: the rest counts."""
    found = results(tmp_path / "r", [sent(n) for n in range(5)], [Stored(n, 1, 2.0) for n in range(5)], None)
    file = tmp_path / "r" / "sent.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    summary = summarise(found)
    assert summary.sent == 4
    assert summary.unseen == 0  # what was seen of the lost line accuses nobody
    assert any("interrupted" in remark for remark in remarks(summary))


def test_a_run_that_never_began_can_be_reported(tmp_path: Path) -> None:
    """Interrupted while the nodes were stored first: no lines at all."""
    found = Results(tmp_path / "r")
    found.begin(ABOUT)
    assert "Nothing was sent" in markdown(summarise(found))


def test_a_run_that_nobody_watched_says_so(tmp_path: Path) -> None:
    """Without a database nothing is called lost, and nothing stored."""
    summary = summarise(results(tmp_path / "r", [sent(1)], [], ended(1), poll_s=None))
    assert "Nobody watched" in verdict(summary)
    assert not any("never seen" in remark for remark in remarks(summary))


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_a_page_needs_nothing_else(tmp_path: Path, count: int) -> None:
    """No address of anything outside, pictures for no, one and many catalogs."""
    lines = [sent(n, due_s=n / 100) for n in range(count)]
    found = results(tmp_path / "r", lines, [Stored(n, 1, n / 100 + 0.05) for n in range(count)], ended(count))
    summary: Summary = summarise(found)
    html = page(summary)
    assert html.count("<svg") == (3 if count else 1)
    assert "http" not in html.replace("http-equiv", "")
    assert verdict(summary) in markdown(summary)


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    """One line instead of wrong figures."""
    found = results(tmp_path / "r", [], [], None, version=VERSION + 1)
    with pytest.raises(Misconfigured, match="version"):
        summarise(found)


def test_results_are_never_written_over(tmp_path: Path) -> None:
    """A directory that holds a run is refused."""
    results(tmp_path / "r", [], [], None)
    with pytest.raises(Misconfigured, match="has results already"):
        Results(tmp_path / "r").begin(ABOUT)
