"""What the module costs a compile: printed, for a healthy broker, a mute one, and against no module at all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.puppet import temper
from tests.puppet.site import Site
from tests.servers import embedded_broker

RESOURCES, ROUNDS = 1000, 15
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


def test_the_compile_time_with_and_without_the_module_is_printed(
    puppet_installed: None, stack: ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Median of compiles in turn, so that a busy machine disturbs all alike; the difference is for a person."""
    brokers = {
        "without": None,
        "healthy": stack.enter_context(embedded_broker()),
        "mute": stack.enter_context(temper.broker_that(temper.mute)),
    }
    sites = {}
    for name, broker in brokers.items():
        site = sites[name] = Site(tmp_path / name)
        stack.callback(site.stop)
        site.code(CODE)
        site.configure_puppet(storeconfigs=broker is not None)
        site.configure(broker=broker or "stomp://127.0.0.1:1", flush_timeout_s=0)
        site.start()
    seconds: dict[str, list[float]] = {name: [] for name in sites}
    for round_ in range(ROUNDS + 2):
        for name, site in sites.items():
            answer = site.compile("node")
            if round_ >= 2:  # the first ones load code
                seconds[name].append(answer["seconds"])
    medians = {name: statistics.median(values) * 1000 for name, values in seconds.items()}
    with capsys.disabled():
        print(
            f"\ncompile of {len(answer['catalog']['resources'])} resources, median of {ROUNDS}, ms: "
            f"without {medians['without']:.0f}, broker healthy +{medians['healthy'] - medians['without']:.0f}, "
            f"broker mute +{medians['mute'] - medians['without']:.0f} (slowest {max(seconds['mute']) * 1000:.0f})"
        )
    assert sites["healthy"].ask(do="counters")["counters"]["queued"] == ROUNDS + 2
    assert sites["mute"].ask(do="counters")["counters"]["queued"] == ROUNDS + 2
