"""Service times out of rounds."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ingest.capacity.costs import costs_of, nonnegative
from tests.capacity import made_up
from tests.capacity.made_up import LARGE, SMALL


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_costs_that_made_the_rounds_are_found_again(size: int) -> None:
    """From totals of rounds, what one message of each kind and size costs in each stage."""
    costs = costs_of(made_up.calibration())
    assert costs.receiver.at(size) == pytest.approx(made_up.RECEIVER_S * size, rel=0.02)
    assert costs.broker.at(size) == pytest.approx(made_up.BROKER_S * size, rel=0.02)
    assert costs.broker_in == pytest.approx(0.5)
    for kind, byte_s in made_up.DECODER_S.items():
        assert costs.decoder[kind].at(size) == pytest.approx(byte_s * size, rel=0.05), kind
    for kind in ("few", "upgrade", "first"):
        whole_s = costs.writer.batch_s + costs.writer.content_s + costs.writer.message[kind].at(size)
        assert whole_s == pytest.approx(made_up.WRITER_BATCH_S + made_up.WRITER_S[kind] * size, rel=0.05), (
            kind
        )
    assert costs.postgresql.batch_s == pytest.approx(made_up.POSTGRESQL_BATCH_S, rel=0.05)
    assert costs.commit_s == pytest.approx(made_up.COMMIT_S, rel=0.05)


def test_work_measured_on_crowded_cores_is_taken_as_it_is_on_idle_ones() -> None:
    """The simulation slows it down again where cores are busy."""
    idle, crowded = (costs_of(made_up.calibration(crowding=factor)) for factor in (1.0, 1.25))
    assert crowded.decoder["few"].at(LARGE) == pytest.approx(idle.decoder["few"].at(LARGE) / 1.25, rel=0.02)


def test_slower_cores_make_all_work_longer_and_the_disk_no_slower() -> None:
    costs = costs_of(made_up.calibration())
    slower = costs.slower(1.5)
    assert slower.receiver.at(LARGE) == pytest.approx(1.5 * costs.receiver.at(LARGE))
    assert slower.broker.at(LARGE) == pytest.approx(1.5 * costs.broker.at(LARGE))
    assert slower.decoder.keys() == costs.decoder.keys()
    for kind, line in costs.decoder.items():
        assert slower.decoder[kind].at(LARGE) == pytest.approx(1.5 * line.at(LARGE)), kind
    assert slower.postgresql.batch_s == pytest.approx(1.5 * costs.postgresql.batch_s)
    assert slower.writer.message["few"].at(LARGE) == pytest.approx(
        1.5 * costs.writer.message["few"].at(LARGE)
    )
    assert (slower.commit_s, slower.crowding) == (costs.commit_s, costs.crowding)


def test_mixed_rounds_decide_how_much_content_costs() -> None:
    """Where mixed rounds took half as much again, catalogs with content do."""
    plain = made_up.calibration()
    more = tuple(
        r
        if r.name != "mixed"
        else msgspec.structs.replace(r, cpu_s=r.cpu_s | {"decoder": r.cpu_s["decoder"] * 1.5})
        for r in plain.rounds
    )
    before, after = costs_of(plain), costs_of(made_up.calibration(rounds=more))
    assert after.decoder["few"].at(LARGE) > 1.4 * before.decoder["few"].at(LARGE)
    assert after.decoder["unchanged"].at(LARGE) == pytest.approx(before.decoder["unchanged"].at(LARGE))


@pytest.mark.parametrize("stage", ["broker", "receiver"])
def test_flow_decides_what_a_message_costs_that_does_not_wait(stage: str) -> None:
    """A backlog's bodies are put into new memory; where they pass through, they take less."""
    plain = made_up.calibration()
    less = tuple(
        msgspec.structs.replace(
            r, cpu_s=r.cpu_s | {name: r.cpu_s[name] / 2 for name in r.cpu_s if name.startswith(stage)}
        )
        if r.mode == "flow"
        else r
        for r in plain.rounds
    )
    before, after = (
        getattr(costs_of(plain), stage),
        getattr(costs_of(made_up.calibration(rounds=less)), stage),
    )
    assert after.at(LARGE) == pytest.approx(before.at(LARGE) / 2)


@pytest.mark.parametrize("stage", ["broker", "receiver", "decoder"])
def test_calm_decides_what_a_machine_at_rest_costs(stage: str) -> None:
    """What a message takes more then, and never less."""
    plain = made_up.calibration()

    def factor(times: float) -> float:
        rounds = tuple(
            msgspec.structs.replace(
                r, cpu_s=r.cpu_s | {name: r.cpu_s[name] * times for name in r.cpu_s if name.startswith(stage)}
            )
            if r.mode == "calm"
            else r
            for r in plain.rounds
        )
        return costs_of(made_up.calibration(rounds=rounds)).at_rest[stage]

    assert factor(1.5) == pytest.approx(1.5, rel=0.05)
    assert factor(0.5) == 1.0


def test_a_calibration_without_a_calm_round_knows_no_rest() -> None:
    rounds = tuple(r for r in made_up.calibration().rounds if r.mode != "calm")
    assert set(costs_of(made_up.calibration(rounds=rounds)).at_rest.values()) == {1.0}


def test_no_cost_is_negative() -> None:
    """Where the unconstrained solution has a negative part, that part is nothing."""
    matrix = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert nonnegative(matrix, np.array([3.0, 2.0, 1.0])) == pytest.approx([2.0, 0.0])
    assert nonnegative(matrix, np.array([3.0, 5.0, 7.0])) == pytest.approx([1.0, 2.0], rel=1e-4)
