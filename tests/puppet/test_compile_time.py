"""What the module costs a compile: printed, for a healthy broker, a mute one, and against no module at all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.servers import embedded_broker
from tests.puppet import temper
from tests.puppet.site import Answer, Site

MEASURED = ("seconds", "cpu_seconds", "publish_seconds")
RESOURCES, ROUNDS, WARM_UP = 1000, 10, 2  # the first ones load code
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
    """Compiles with and without the module in turn, in one process, each on a heap that was collected just before (not
    in the measured time), so that a busy machine and a growing heap disturb both alike; the median of the differences
    is for a person."""
    broker = stack.enter_context(embedded_broker() if behaviour is None else temper.broker_that(behaviour))
    site.code(CODE)
    site.configure(broker=broker, flush_timeout_s=0)
    site.start()
    answers: dict[bool, list[Answer]] = {True: [], False: []}
    for round_ in range(ROUNDS + WARM_UP):
        # Who comes second pays for the first one's garbage.
        for without in (True, False) if round_ % 2 else (False, True):
            answer = site.ask(do="compile", node="node", without=without)
            assert "error" not in answer, answer
            answers[without].append({key: answer[key] for key in MEASURED})
    resources = len(answer["catalog"]["resources"])
    with capsys.disabled():
        print(
            f"\nbroker {'healthy' if behaviour is None else 'mute'}, {resources} resources, {ROUNDS} compiles:"
        )
        for key in MEASURED:
            without_ms, with_ms = ([a[key] * 1000 for a in answers[w][WARM_UP:]] for w in (True, False))
            if key == "publish_seconds":
                print(f"  in save: median {statistics.median(with_ms):.0f} ms, slowest {max(with_ms):.0f} ms")
                continue
            difference = statistics.median(w - wo for w, wo in zip(with_ms, without_ms, strict=True))
            what = "elapsed" if key == "seconds" else "CPU of the compiling thread"
            print(
                f"  {what}: median {statistics.median(without_ms):.0f} ms without the module, "
                f"{statistics.median(with_ms):.0f} ms with it, of the differences {difference:+.0f} ms"
            )
    assert site.ask(do="counters")["counters"]["queued"] == ROUNDS + WARM_UP
