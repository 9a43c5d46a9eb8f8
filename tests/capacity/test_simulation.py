"""The simulation against queueing theory, and against itself under more and less load."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import simpy

from ingest.capacity.cores import Cores
from ingest.capacity.costs import BatchCosts, Costs, Line, costs_of
from ingest.capacity.instance import Stage
from ingest.capacity.plan import quantile
from ingest.capacity.simulation import simulate
from ingest.capacity.world import Arrival, Setup
from tests.capacity import made_up

FREE = BatchCosts(0.0, 0.0, 0.0, {"unchanged": Line(0.0, 0.0)})


def _sojourns(arrive: Callable[[simpy.Environment, Callable[[float], None]], None]) -> list[float]:
    """How long each job of a demand took, from its arrival to its end."""
    env = simpy.Environment()
    found: list[float] = []
    cores = Cores(env, 1)

    def job(demand_s: float) -> None:
        start_s = env.now
        cores.run(demand_s, lambda: found.append(env.now - start_s))

    arrive(env, job)
    env.run()
    return found


def test_jobs_share_a_core_as_theory_says() -> None:
    """M/M/1 with processor sharing: a mean sojourn of S / (1 - rho), here 1 / (1 - 0.7)."""
    chance = random.Random(3)

    def arrive(env: simpy.Environment, job: Callable[[float], None]) -> None:
        def source() -> simpy.events.ProcessGenerator:
            for _ in range(60_000):
                yield env.timeout(chance.expovariate(0.7))
                job(chance.expovariate(1.0))

        env.process(source())

    found = _sojourns(arrive)
    assert len(found) == 60_000
    assert sum(found) / len(found) == pytest.approx(1 / 0.3, rel=0.05)


@pytest.mark.parametrize(
    ("cores", "crowding", "ends_s"),
    [
        (2, 1.0, [1.0]),
        (2, 1.0, [1.0] * 2),
        (2, 1.0, [1.0] + [2.0] * 2),
        (2, 1.0, [4.0] * 8),
        (1, 1.0, [5.0] * 5),
        (2, 1.5, [1.0, 1.5]),
        (3, 1.5, [1.0, 1.25, 1.5]),
    ],
)
def test_jobs_stay_on_the_core_that_had_least_to_do(cores: int, crowding: float, ends_s: list[float]) -> None:
    """Equal ones that come together: n on a core end after n times their demand, also where another core becomes idle;
    who comes when others are busy is slowed by them."""
    env = simpy.Environment()
    machine = Cores(env, cores, crowding)
    ends: list[float] = []
    for _ in ends_s:
        machine.run(1.0, lambda: ends.append(env.now))
    env.run()
    assert ends == pytest.approx(ends_s)
    assert machine.busy_s == pytest.approx(
        len(ends_s) * (1.0 if crowding == 1 else sum(ends_s) / len(ends_s))
    )


def test_a_stage_alone_on_its_core_is_m_d_1() -> None:
    """Deterministic service, random arrivals: a mean wait of rho * S / (2 * (1 - rho)), and busy for rho."""
    env = simpy.Environment()
    stage = Stage(env, Cores(env, 1))
    chance = random.Random(5)
    waits: list[float] = []

    def submit() -> None:
        start_s = env.now
        stage.serve(1.0, lambda: waits.append(env.now - start_s - 1.0))

    def source() -> simpy.events.ProcessGenerator:
        for _ in range(60_000):
            yield env.timeout(chance.expovariate(0.8))
            submit()

    env.process(source())
    env.run()
    assert sum(waits) / len(waits) == pytest.approx(0.8 / (2 * 0.2), rel=0.06)
    assert stage.served_s / env.now == pytest.approx(0.8, rel=0.02)


def _costs(**changes: object) -> Costs:
    nothing = Line(0.0, 0.0)
    values: dict[str, object] = {
        "receiver": nothing, "broker": nothing, "decoder": {"unchanged": nothing},
        "at_rest": {"receiver": 1.0, "broker": 1.0, "decoder": 1.0},
        "broker_in": 0.5, "noise": {"unchanged": (1.0,)}, "writer": FREE, "postgresql": FREE,
        "commit_s": 0.0, "crowding": 1.0,
    }  # fmt: skip
    return Costs(**(values | changes))  # type: ignore[arg-type]


def _unchanged(count: int, per_s: float, seed: int = 1) -> list[Arrival]:
    chance = random.Random(seed)
    at_s = 0.0
    found = []
    for _ in range(count):
        at_s += chance.expovariate(per_s)
        found.append(Arrival(at_s, "unchanged", 1_000_000, chance.getrandbits(32)))
    return found


def test_a_lone_catalog_takes_the_sum_of_its_stages() -> None:
    """Receiver, decoder, writer, PostgreSQL, commit: nothing else, nothing twice, and no waiting for company."""
    costs = _costs(
        receiver=Line(0.001, 0.0),
        decoder={"unchanged": Line(0.0, 2e-9)},
        writer=BatchCosts(0.003, 0.0007, 9.0, {"unchanged": Line(0.0005, 0.0)}),
        postgresql=BatchCosts(0.004, 0.0003, 9.0, {"unchanged": Line(0.0, 1e-9)}),
        commit_s=0.006,
    )
    outcome = simulate(costs, Setup(cores=4, workers=4, writers=2, linger_s=0.02), _unchanged(1, 1.0))
    assert outcome.freshness_s == pytest.approx([0.001 + 0.002 + 0.0042 + 0.0053 + 0.006])


def test_a_body_streams_from_one_to_the_next() -> None:
    """Generator and broker are at work at once, then broker and receiver: the slower of each two counts."""
    costs = _costs(broker=Line(0.010, 0.0), broker_in=0.4, receiver=Line(0.003, 0.0))
    setup = Setup(cores=4, workers=1, writers=1, broker_here=True)
    (arrival,) = _unchanged(1, 1.0)
    assert simulate(costs, setup, [arrival]).freshness_s == pytest.approx([0.004 + 0.006])
    with_generator = setup._replace(publisher=Line(0.005, 0.0))
    outcome = simulate(costs, with_generator, [arrival])
    assert outcome.freshness_s == pytest.approx([0.005 + 0.006])
    assert [outcome.served_s[stage] for stage in ("publisher", "broker", "receiver")] == pytest.approx(
        [0.005, 0.010, 0.003]
    )


def test_who_finds_the_machine_at_rest_wakes_it() -> None:
    """The first of two catalogs that come at once; the second one meets it at work."""
    costs = _costs(
        receiver=Line(0.001, 0.0), broker=Line(0.004, 0.0), decoder={"unchanged": Line(0.002, 0.0)},
        at_rest={"receiver": 2.0, "broker": 3.0, "decoder": 4.0},
    )  # fmt: skip
    both = [Arrival(0.0, "unchanged", 1000, 1), Arrival(0.0001, "unchanged", 1000, 1)]
    for here in (False, True):
        setup = Setup(cores=4, workers=1, writers=1, broker_here=here)
        served_s = simulate(costs, setup, both).served_s
        assert served_s["receiver"] == pytest.approx(0.001 * 2 + 0.001)
        assert served_s["decoder"] == pytest.approx(0.002 * 4 + 0.002)
        assert served_s["broker"] == pytest.approx((0.004 * 3 + 0.004) * here)


def test_stages_are_busy_for_the_work_they_get() -> None:
    """Utilisation is rate times demand, whatever the arrivals."""
    costs = _costs(receiver=Line(0.002, 0.0), decoder={"unchanged": Line(0.005, 0.0)})
    outcome = simulate(costs, Setup(cores=8, workers=1, writers=1), _unchanged(20_000, 100.0))
    assert outcome.busy["receiver"] == pytest.approx(0.2, rel=0.03)
    assert outcome.busy["decoders"] == pytest.approx(0.5, rel=0.03)
    assert outcome.busy["cores"] == pytest.approx(0.7 / 8, rel=0.03)


def test_every_catalog_is_stored_once_and_none_before_it_was_due() -> None:
    """At any load, also over the limit."""
    costs = costs_of(made_up.calibration())
    for per_s in (5.0, 200.0, 5000.0):
        arrivals = _unchanged(3000, per_s)
        outcome = simulate(costs, Setup(cores=2, workers=2, writers=2, broker_here=True), arrivals)
        assert len(outcome.finished_s) == len(outcome.freshness_s) == len(arrivals)
        assert outcome.finished_s == sorted(outcome.finished_s)
        assert min(outcome.freshness_s) > 0.004  # a batch alone


def test_more_load_is_never_fresher() -> None:
    """Median and p99 grow with the load, under the same demands; a linger would spread them at low load."""
    costs = costs_of(made_up.calibration())
    setup = Setup(cores=2, workers=2, writers=2, linger_s=0.0)
    found = [
        simulate(costs, setup, _unchanged(6000, per_s)).freshness_s for per_s in (20.0, 400.0, 1200.0, 2000.0)
    ]
    for share in (0.5, 0.99):
        quantiles = [quantile(values, share) for values in found]
        assert quantiles == sorted(quantiles)


def test_more_cores_and_instances_never_store_less() -> None:
    """A backlog is through sooner with more of either, or as soon."""
    costs = costs_of(made_up.calibration())
    backlog = [Arrival(0.0, "few", 1_000_000, n * 7919) for n in range(1500)]

    def seconds(cores: int, instances: int = 1) -> float:
        setup = Setup(cores=cores, workers=cores, writers=2, instances=instances)
        return simulate(costs, setup, backlog).duration_s

    found = [seconds(cores) for cores in (2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert seconds(2, instances=2) < 0.7 * seconds(2)


def test_the_window_bounds_what_lies_in_memory() -> None:
    """However long the queue: bodies in shared memory keep to both limits."""
    costs = costs_of(made_up.calibration())
    backlog = [Arrival(0.0, "few", 1_000_000, n) for n in range(500)]
    setup = Setup(cores=2, workers=2, writers=2)
    assert simulate(costs, setup._replace(window_messages_max=10), backlog).window_bytes_max == 10_000_000
    assert simulate(costs, setup._replace(window_bytes_max=5_500_000), backlog).window_bytes_max == 5_000_000


def test_batches_keep_to_their_limit() -> None:
    """A writer that falls behind takes ``batch_messages_max`` at a time, no more."""
    costs = _costs(writer=BatchCosts(0.5, 0.0, 0.0, {"unchanged": Line(0.0, 0.0)}))
    backlog = [Arrival(0.0, "unchanged", 1000, 1) for _ in range(1000)]
    setup = Setup(cores=2, workers=1, writers=1, batch_messages_max=100)
    assert simulate(costs, setup, backlog).batches == 1 + 10  # the first one finds nobody to wait for
