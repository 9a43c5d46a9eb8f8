"""The live page: small, by itself, seen as a browser shows it; and its numbers are asked for once, and only for who looks."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.config.settings import Config
from ingest.core.metrics import Metric
from ingest.front import live
from ingest.front.live import Live
from ingest.front.readers import Readers
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe import exposition
from ingest.store.connection import Connection
from lab.browser import CHROMIUM, Browser, browser
from lab.front import Front
from tests.front.conftest import Serve
from tests.store.test_query import fleet

SHOWN = "document.querySelectorAll('#fleet dd').length > 3"

# All kinds are there, and there are rates.
RATES = """document.querySelectorAll('#kinds tr').length === 3 &&
        ['#room .big', '#kinds tr td:last-child'].every(s => !document.querySelector(s).textContent.includes('–'))"""

# The least contrast of a text with what is behind it.
CONTRAST = """(() => { const lum = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => { x /= 255;
        return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4 }); return .2126*v[0] + .7152*v[1] + .0722*v[2] };
        const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$|transparent/.test(c)) return c } };
        return Math.min(...[...document.querySelectorAll('h1,h2,dt,dd,td,th,p,caption,strong,button,#link,#trouble span')]
        .filter(e => e.textContent).map(e => { const [a, b] = [lum(getComputedStyle(e).color), lum(ground(e))];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) })) })()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Browser]:
    """Without a page of another test, whose server has gone."""
    chromium.events.clear()
    yield chromium
    chromium.show("about:blank")


def test_the_page_is_small_and_needs_nobody_else(front: Front) -> None:
    """Under 100 KB, nothing from elsewhere, and a policy that lets nothing else in."""
    answer = front.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert len(answer.body) < 100_000
    assert re.findall(r"(?:https?:)?//[\w.]+", answer.text) == []
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False)])
def test_a_browser_shows_it(front: Front, tab: Browser, width: int, dark: bool, tmp_path: Path) -> None:
    """The fleet's numbers, in light and dark and on a phone: nothing sticks out, each text's contrast
    is 4.5 or more, as WCAG AA has it, and the console has nothing to say."""
    tab.show(f"http://127.0.0.1:{front.port}/", width=width, height=800, dark=dark)
    tab.until(SHOWN)
    assert tab.value("document.querySelector('#fleet .big').textContent") == "2"
    assert "no engine" in tab.value("document.getElementById('trouble').textContent")
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    shade = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", shade)[:3])) < 64) == dark
    assert tab.value(CONTRAST) >= 4.5
    assert tab.complaints() == []
    tab.photograph(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


@pytest.mark.parametrize("planned", [True, False])
def test_it_tells_what_waits_and_what_is_used(
    serve: Serve, connection: Connection, tab: Browser, tmp_path: Path, planned: bool
) -> None:
    """Of each kind by itself; and how much of the plan the fleet uses, or, without one, what is busiest."""
    fleet(connection)
    names = ["receiver", "decoder-0", "writer-0"]
    table = MetricsTable(bytearray(MetricsTable.size(len(names))))
    table.row(0).set(Metric.UNSETTLED_REPORTS, 12)
    table.row(0).set(Metric.OLDEST_REPORT, 3)
    table.row(0).observe(Metric.SETTLE_REPORT, 1)
    table.row(2).set(Metric.REPORT_LAG, 45)
    busy_s = itertools.count()
    server = exposition.serve(
        "127.0.0.1", 0, table, names, lambda: exposition.Health(True, True), (), (),
        lambda: exposition.Usage(2, {"decoder-0": float(next(busy_s))}),
    )  # fmt: skip
    plan = tmp_path / "plan.json"
    plan.write_text(
        '{"at": "2026-01-01", "base": {"nodes": 3, "interval_s": 1800, "nodes_fit": 8}, "more": []}'
    )
    try:
        flags = ("--metrics-port", str(server.server_port), *(("--plan-file", str(plan)) if planned else ()))
        tab.show(f"http://127.0.0.1:{serve(*flags).port}/", width=360)
        # After the second sample there are rates.
        tab.until(RATES)
        rows = tab.value(
            "[...document.querySelectorAll('#kinds tr')].map(r => [...r.children].map(c => c.textContent).join('|'))"
        )
        assert rows == ["catalogs|0|–|–|0", "facts|0|–|–|0", "reports|12|3.0 s|45 s|0"]
        first = tab.value("document.querySelector('#room').firstChild.textContent")
        used = tab.value("document.querySelector('#room .big').textContent")
        note = tab.value("document.getElementById('planned').textContent")
        assert tab.value("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints() == []
    finally:
        server.close()
    if planned:
        assert (first, used) == ("of what the plan says fits", "25 %")  # two active nodes
        assert "2026-01-01" in note
    else:
        assert first == "busiest: decoders"
        assert "plan_file" in note


def test_it_can_be_used_without_a_mouse_and_without_eyes(
    serve: Serve, connection: Connection, tab: Browser
) -> None:
    """Tab goes to a link past the head and then to each button, which has a name; what changes is announced."""
    quarantined(connection)
    tab.show(f"http://127.0.0.1:{serve().port}/")
    tab.until("!!document.querySelector('#quarantine button')")
    tab.press("Tab", 9)
    assert tab.value("document.activeElement.className") == "skip"
    tab.press("Tab", 9)
    assert "unreadable" in tab.value("document.activeElement.getAttribute('aria-label')")
    assert tab.value("document.querySelectorAll('[role=status][aria-live]').length") == 2
    assert tab.value(
        "[...document.querySelectorAll('section')].every(s => document.getElementById(s.getAttribute('aria-labelledby')))"
    )
    assert tab.value("document.documentElement.lang") == "en"


def test_quarantine_is_given_back_with_a_button(serve: Serve, connection: Connection, tab: Browser) -> None:
    """The message is at the broker and no more in quarantine; the page says so."""
    quarantined(connection)
    tab.show(f"http://127.0.0.1:{serve().port}/")
    tab.until("!!document.querySelector('#quarantine button')")
    tab.value("document.querySelector('#quarantine button').click()")
    tab.until("document.getElementById('said').textContent.startsWith('1 given back')")
    assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b'{"reason": "unreadable"}', 403),
        ({"X-Puppet-Ingest": "page", "Origin": "http://evil.example"}, b'{"reason": "unreadable"}', 403),
        ({"X-Puppet-Ingest": "page", "Host": "evil.example"}, b'{"reason": "unreadable"}', 421),
        ({"X-Puppet-Ingest": "page"}, b"[]", 400),
        ({"X-Puppet-Ingest": "page"}, b"x" * 5000, 413),
    ],
)
def test_nobody_elses_page_may_give_back(
    serve: Serve, connection: Connection, headers: dict[str, str], body: bytes, status: int
) -> None:
    """A visitor's browser that was told to, by whatever name: refused, and nothing happens."""
    quarantined(connection)
    assert serve().get("/page/retry", method="POST", body=body, headers=headers).status == status
    assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (1,)


def quarantined(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO quarantine (digest, reason, detail, certname, headers, body, body_bytes)"
        " VALUES ('a', 'unreadable', 'd', 'n', '{}', '{bad', 4)"
    )


class _Here:
    async def is_disconnected(self) -> bool:
        return False


def test_who_leaves_is_noticed(front: Front, connection: Connection) -> None:
    """A viewer whose connection ends costs nothing more: no query of the page is made any more."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=60) as viewer:
        viewer.sendall(b"GET /page/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert viewer.makefile("rb").readline().split()[1] == b"200"
        while b"data: " not in viewer.recv(65536):
            pass
    last = "SELECT max(query_start) FROM pg_stat_activity WHERE application_name LIKE 'ingest serve%'"
    times = []
    deadline_s = time.monotonic() + 60
    while len(times) < 40 or len(set(times[-40:])) > 1:
        assert time.monotonic() < deadline_s, "somebody asks without end"
        times.append(connection.execute(last).fetchone())
        time.sleep(0.1)


def test_all_who_look_share_one_query_and_nobody_costs_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten viewers get the same events, the database is asked once for each; when they leave, nobody asks any more."""
    asked = itertools.count()
    truth = live.fleet_freshness

    def counted(connection: Connection) -> dict[str, Any]:
        next(asked)
        return truth(connection)

    monkeypatch.setattr(live, "fleet_freshness", counted)
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(live, "FLEET_S_PART", 1.0)

    async def look() -> list[list[bytes]]:
        readers = Readers(Config(database=database, metrics_port=1))
        page = Live(readers._config, readers)
        assert page._asking is None
        streams = [page._events(_Here()) for _ in range(10)]  # type: ignore[arg-type]
        seen = [list(found) for found in zip(*[
            await asyncio.gather(*(anext(stream) for stream in streams)) for _ in range(3)
        ], strict=True)]  # fmt: skip
        for stream in streams:
            await stream.aclose()
        assert page._asking is not None
        await page._asking
        readers.close()
        return seen

    seen = asyncio.run(look())
    assert next(asked) < 10
    assert all(
        json.loads(event.removeprefix(b"data: "))["fleet"]["nodes"] == 0 for one in seen for event in one
    )
