"""What the module costs a compile: printed, for a healthy broker, a mute one, and against no module at all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.puppet import temper
from tests.puppet.site import Site
from tests.servers import embedded_broker

RESOURCES, ROUNDS, WARM_UP = 1000, 15, 3  # the first ones load code
# About a median web server's catalog: 1000 resources, 300 KB.
CODE = """
define bundle(Integer $n) {
  file { "/srv/${title}": ensure => file, mode => '0644', owner => 'root', content => inline_epp(@(EPP)) }
    <%- Integer[1, 5].each |$i| { -%>
    line <%= $i %> of a configuration file with a value of about this length
    <%- } -%>
    | EPP
  notify { "bundle ${title}": message => "number ${n}", require => File["/srv/${title}"] }
}
Integer[1, COUNT].each |$n| { bundle { "b${n}": n => $n } }
@@host { $trusted['certname']: ip => '10.0.0.1' }
""".replace("COUNT", str(RESOURCES // 3))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("behaviour", [None, temper.mute], ids=["healthy", "mute"])
def test_the_compile_time_with_and_without_the_module_is_printed(
    site: Site, stack: ExitStack, capsys: pytest.CaptureFixture[str], behaviour: temper.Behaviour | None
) -> None:
    """Medians of compiles with and without the module in turn, in one process, so that a busy machine and a
    growing heap disturb both alike; the difference is for a person."""
    broker = stack.enter_context(embedded_broker() if behaviour is None else temper.broker_that(behaviour))
    site.code(CODE)
    site.configure(broker=broker, flush_timeout_s=0)
    site.start()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    publishing: list[float] = []
    for round_ in range(ROUNDS + WARM_UP):
        for without in (True, False):
            answer = site.ask(do="compile", node="node", without=without)
            assert "error" not in answer, answer
            if round_ >= WARM_UP:
                seconds[without].append(answer["seconds"])
                if not without:
                    publishing.append(answer["publish_seconds"])
    without_ms, with_ms = (statistics.median(seconds[without]) * 1000 for without in (True, False))
    with capsys.disabled():
        print(
            f"\nbroker {'healthy' if behaviour is None else 'mute'}: compile of {len(answer['catalog']['resources'])} "
            f"resources, median of {ROUNDS}: {without_ms:.0f} ms without the module, {with_ms:.0f} ms with it: "
            f"{with_ms - without_ms:+.0f} ms, of which {statistics.median(publishing) * 1000:.0f} ms publishing "
            f"(slowest {max(seconds[True]) * 1000:.0f} and {max(seconds[False]) * 1000:.0f}; "
            f"publishing {max(publishing) * 1000:.0f})"
        )
    assert site.ask(do="counters")["counters"]["queued"] == ROUNDS + WARM_UP
