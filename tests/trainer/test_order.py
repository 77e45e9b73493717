"""Every sample of an epoch is seen exactly once, whatever happens to the number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_trainer.config.training import from_mapping
from inception_trainer.data.counter_rng import uniforms
from inception_trainer.data.sampler import (
    BatchPlan,
    LengthPlan,
    evaluation_indices,
    micro_batches_of_epoch,
    permutation,
)
from inception_trainer.train.schedule import learning_rate

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(1, 500), SEEDS, st.integers(0, 1000))
def test_order_is_a_permutation(length, seed, epoch) -> None:
    order = permutation(length, seed, epoch)
    assert sorted(order.tolist()) == list(range(length))
    assert np.array_equal(order, permutation(length, seed, epoch))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {
        tuple(permutation(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_order_is_the_same_for_ever() -> None:
    """A change here breaks the promise that a checkpoint of an older version continues exactly."""
    assert permutation(10, 0, 0).tolist() == [2, 0, 5, 7, 3, 6, 4, 1, 8, 9]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_samples_are_seen_once_across_world_sizes(data) -> None:
    batch = data.draw(st.integers(16, 40))
    samples = data.draw(st.integers(batch, 200))
    worlds = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    steps = samples // batch
    cuts = sorted(
        data.draw(
            st.lists(st.integers(0, steps), min_size=len(worlds) - 1, max_size=len(worlds) - 1)
        )
    )
    bounds = [0, *cuts, steps]
    seen: list[int] = []
    for world, first, last in zip(worlds, bounds, bounds[1:], strict=False):
        plan = BatchPlan(batch, world)
        for rank in range(world):
            parts = micro_batches_of_epoch(plan, rank, samples, 7, 3, first, last)
            seen += [int(i) for part in parts for i in part]
    assert len(seen) == len(set(seen)) == steps * batch
    assert set(seen) == set(permutation(samples, 7, 3)[: steps * batch].tolist())


@given(st.integers(1, 6), st.integers(1, 4), st.integers(2, 8))
def test_micro_batches_do_not_depend_on_who_computes_them(world, accumulation, per_device) -> None:
    batch = world * accumulation * per_device
    alone = BatchPlan(batch, 1, per_device).micro_slices(0)
    shared = BatchPlan(batch, world, per_device)
    assert shared.micro_batches == accumulation
    assert alone == [part for rank in range(world) for part in shared.micro_slices(rank)]


@given(st.integers(0, 100), st.integers(1, 20))
def test_evaluation_shares_cover_everything_once(samples, world) -> None:
    shares = [evaluation_indices(samples, rank, world) for rank in range(world)]
    assert np.concatenate(shares).tolist() == list(range(samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=50, unique=True),
    SEEDS,
    st.integers(0, 99),
)
def test_augmentation_depends_on_the_sample_only(indices, seed, epoch) -> None:
    together = uniforms(np.array(indices), seed, epoch, 3)
    single = np.concatenate([uniforms(np.array([index]), seed, epoch, 3) for index in indices])
    assert np.array_equal(together, single)
    assert ((together >= 0) & (together < 1)).all()


def mixed(value: int) -> int:
    """splitmix64 as it was published, in whole numbers."""
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@given(
    st.lists(st.integers(0, 2**40), max_size=9),
    st.integers(-(2**63), 2**63),
    st.integers(0, 99),
    st.integers(1, 12),
)
def test_draws_of_a_batch_are_those_of_the_definition(indices, seed, epoch, count) -> None:
    """Column by column and sample by sample, as a checkpoint of an older version drew them."""
    together = uniforms(np.array(indices, np.int64), seed, epoch, count, 7)
    assert together.shape == (len(indices), count)
    for column in range(count):
        key = 0
        for counter in (seed, epoch, 7, column):
            key = mixed(key ^ (counter % 2**64))
        wanted = [mixed(mixed(index) ^ key) / 2.0**64 for index in indices]
        assert together[:, column].tolist() == wanted


def rates(extra) -> list[float]:
    config = from_mapping(
        {"data": {"kind": "Digits"}, "batch": {"global": 10}, "epochs": 4, **extra}
    )
    length = LengthPlan.of(config, 105)
    peak = config.optimizer.learning_rate
    return [
        learning_rate(peak, config.schedule, length, step) for step in range(length.total_steps)
    ]


def test_cosine_with_warm_up() -> None:
    found = rates(
        {"optimizer": {"learningRate": 1}, "schedule": {"name": "Cosine", "warmupEpochs": 1}}
    )
    assert len(found) == 40
    assert found[:10] == [(step + 1) / 10 for step in range(10)]
    assert found[10] == 1
    assert found[25] == 0.5
    assert found == found[:10] + sorted(found[10:], reverse=True)
    assert found[-1] < 0.01


def test_steps() -> None:
    found = rates(
        {
            "optimizer": {"learningRate": 1},
            "schedule": {"name": "Step", "milestones": [1, 3], "gamma": 0.5},
        }
    )
    assert found == [1.0] * 10 + [0.5] * 20 + [0.25] * 10
    found = rates(
        {
            "optimizer": {"learningRate": 1},
            "schedule": {"name": "Step", "stepEpochs": 2, "gamma": 0.5},
        }
    )
    assert found == [1.0] * 20 + [0.5] * 20


def test_linear() -> None:
    schedule = {"name": "Linear", "warmupEpochs": 1, "finalLearningRate": 0.4}
    found = rates({"optimizer": {"learningRate": 1}, "schedule": schedule})
    assert found[9:11] == [1, 1]
    assert found[10:] == pytest.approx([1 - 0.6 * step / 30 for step in range(30)])
    assert rates({"optimizer": {"learningRate": 1}, "schedule": {"name": "Linear"}})[20] == 0.5


def mlperf_rate(step: int, warmup: int, steps: int, peak: float, end: float) -> float:
    """The rate of MLPerf's reference for ResNet-50 (mlcommons/training, tensorflow2/lars_util.py):
    a linear warm-up, and behind it TensorFlow's polynomial decay with power 2.
    """
    if step <= warmup:
        return peak * step / warmup
    decay_steps = steps - warmup + 1
    done = min(step - warmup, decay_steps)
    return (peak - end) * (1 - done / decay_steps) ** 2 + end


def test_polynomial_is_that_of_mlperf() -> None:
    schedule = {"name": "Polynomial", "warmupEpochs": 1, "finalLearningRate": 0.1}
    found = rates({"optimizer": {"learningRate": 10}, "schedule": schedule})
    # The reference counts from a step whose rate is 0.
    expected = [mlperf_rate(step + 1, 10, 40, 10, 0.1) for step in range(40)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[9] == 10
    assert found[39] > 0.1


def test_power_bends_the_polynomial() -> None:
    def middle(power: float) -> float:
        schedule = {"name": "Polynomial", "power": power}
        return rates({"optimizer": {"learningRate": 1}, "schedule": schedule})[20]

    assert middle(1) == pytest.approx(20 / 41)
    assert middle(3) == pytest.approx((20 / 41) ** 3)


@pytest.mark.parametrize(
    ("evaluation", "steps"),
    [
        ({}, [10, 20, 30, 35]),
        ({"everyEpochs": 2}, [20, 35]),
        ({"everySteps": 8}, [8, 16, 24, 32, 35]),
    ],
    ids=["default", "epochs", "steps"],
)
def test_when_the_network_is_evaluated(evaluation, steps) -> None:
    config = from_mapping(
        {
            "data": {"kind": "Digits"},
            "batch": {"global": 10},
            "maxSteps": 35,
            "epochs": 4,
            "evaluation": evaluation,
        }
    )
    length = LengthPlan.of(config, 105)
    assert [step for step in range(36) if length.evaluates_at(step, config.evaluation)] == steps


def test_max_steps_interrupts_without_bending_the_schedule() -> None:
    assert rates({"maxSteps": 7}) == rates({})[:7]
