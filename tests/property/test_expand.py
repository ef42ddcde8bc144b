"""Plans: complete, interleaved, fixed by the seed, and told apart by their hash."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.config.expand import expand, points_of
from seatrial.errors import ConfigError
from seatrial.model import codec
from seatrial.model.experiment import AVAILABLE, CacheState, DensityBound, StartSettings
from seatrial.model.plan import Plan, Point
from tests.support.requests import FULL, MS

if TYPE_CHECKING:
    from seatrial.model.experiment import Experiment

DRIVERS = ("process", "lean", "bwrap", "crun", "runc", "runsc")


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Experiments of one to several benches, drivers and blocks."""
    drivers = draw(st.lists(st.sampled_from(DRIVERS), min_size=1, unique=True))
    counts = st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True).map(tuple)
    start = StartSettings(concurrency=draw(counts), rounds=draw(st.integers(1, 9)), deadline_ns=MS)
    return dataclasses.replace(
        FULL,
        seed=draw(st.integers(0, (1 << 63) - 1)),
        blocks=draw(st.integers(1, 5)),
        drivers=tuple(drivers),
        baseline=drivers[0],
        start=start,
        load=draw(st.sampled_from([FULL.load, None])),
        inside=draw(st.sampled_from([FULL.inside, None])),
    )


@given(experiments())
def test_every_block_holds_everything_once(experiment: Experiment) -> None:
    """A block is a fair sample: each driver at each point, neither more nor less."""
    plan = expand(experiment)
    expected = {(d, p) for d in experiment.drivers for p in points_of(experiment)}
    for block in range(experiment.blocks):
        counts = Counter((t.driver, t.point) for t in plan.trials if t.block == block)
        assert set(counts) == expected
        assert set(counts.values()) == {1}
    assert [t.index for t in plan.trials] == list(range(len(plan.trials)))
    assert [t.block for t in plan.trials] == sorted(t.block for t in plan.trials)


@given(experiments())
def test_same_seed_same_plan(experiment: Experiment) -> None:
    """A plan is a function of its experiment alone."""
    assert expand(experiment) == expand(experiment)


@given(experiments())
def test_ids_are_of_one_width(experiment: Experiment) -> None:
    """Ids sort as the trials run, and none is the beginning of another."""
    ids = [trial.trial_id for trial in expand(experiment).trials]
    assert ids == sorted(set(ids))
    assert len({len(trial_id) for trial_id in ids}) == 1


@given(experiments())
def test_drivers_see_the_same_load(experiment: Experiment) -> None:
    """In a block all drivers share the seed of a point, and points and blocks do not."""
    trials = expand(experiment).trials
    seeds = {(t.block, t.point): t.seed for t in trials}
    assert all(seeds[t.block, t.point] == t.seed for t in trials)
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds.values())


@given(experiments(), st.integers(0, 1 << 62))
def test_another_seed_is_another_plan(experiment: Experiment, seed: int) -> None:
    """The hash depends on the seed, even where the order happens to agree."""
    other = dataclasses.replace(experiment, seed=seed)
    same = other.seed == experiment.seed
    assert (expand(other).plan_hash == expand(experiment).plan_hash) is same


@given(experiments())
def test_a_plan_survives_json(experiment: Experiment) -> None:
    """What the manifest keeps is the plan, to the last bit."""
    plan = expand(experiment)
    assert codec.decode(Plan, json.loads(json.dumps(codec.encode(plan)))) == plan


def test_another_seed_is_another_order() -> None:
    """The order within a block differs between seeds and between blocks."""
    orders = {
        tuple((t.driver, t.point.key) for t in expand(other).trials if t.block == block)
        for other in (dataclasses.replace(FULL, seed=seed) for seed in range(5))
        for block in range(FULL.blocks)
    }
    assert len(orders) == 5 * FULL.blocks


def test_the_order_is_the_same_on_every_machine() -> None:
    """The shuffle does not depend on Python's own generator: this order is for ever."""
    experiment = dataclasses.replace(
        FULL, seed=1, blocks=1, density=None, load=None, inside=None, driver_options={}
    )
    order = [(t.driver, t.point.key) for t in expand(experiment).trials]
    assert order == EXPECTED_ORDER


EXPECTED_ORDER = [
    ("runc", "start concurrency=1"),
    ("process", "start concurrency=8"),
    ("runc", "start concurrency=8"),
    ("process", "start concurrency=1"),
]


def changed() -> list[Experiment]:
    """The full experiment with one setting changed, for every setting there is."""
    variants: list[Experiment] = [
        dataclasses.replace(FULL, name="other"),
        dataclasses.replace(FULL, seed=8),
        dataclasses.replace(FULL, blocks=3),
        dataclasses.replace(FULL, baseline="runc"),
        dataclasses.replace(FULL, drivers=("process", "runc", "lean")),
        dataclasses.replace(FULL, confidence=0.9),
        dataclasses.replace(FULL, network="none"),
        dataclasses.replace(FULL, driver_options={"runc": {"platform": "y"}}),
    ]
    for bench in ("start", "density", "load", "inside"):
        variants.append(dataclasses.replace(FULL, **{bench: None}))
        settings = getattr(FULL, bench)
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            other = other_than(value)
            new = dataclasses.replace(settings, **{field.name: other})
            variants.append(dataclasses.replace(FULL, **{bench: new}))
    return variants


def other_than(value: object) -> object:
    """A value of the same kind that is another."""
    if isinstance(value, tuple):
        return value[:1] if len(value) > 1 else value * 2
    if value is None:
        return DensityBound(count=9, memory_reserve_bytes=1, ready_ns=MS)
    if isinstance(value, int):
        return value + 1
    return "other" if value == "none" else "none"


def test_the_hash_changes_with_every_setting() -> None:
    """No two of these experiments may be taken for the same."""
    hashes = [expand(experiment).plan_hash for experiment in (FULL, *changed())]
    assert len(hashes) > 30
    assert len(set(hashes)) == len(hashes)


def test_company_is_grouped_and_turns_round() -> None:
    """Equal backgrounds stand side by side, so that they are kept; they grow, then shrink."""
    start = dataclasses.replace(FULL.start, background_counts=(0, 20, 5), background="runsc")
    experiment = dataclasses.replace(FULL, start=start, density=None, load=None, inside=None)
    for trials in ([t for t in expand(experiment).trials if t.block == block] for block in (0, 1)):
        counts = [trial.point.values["background"] for trial in trials]
        runs = [count for count, _ in itertools.groupby(counts)]
        assert runs == ([0, 5, 20] if trials[0].block == 0 else [20, 5, 0])
    own = dataclasses.replace(experiment, start=dataclasses.replace(start, background="own"))
    pairs = [(t.driver, t.point.values["background"]) for t in expand(own).trials if t.block == 0]
    kept = [pair for pair, _ in itertools.groupby(pairs[4:])]
    assert [count for _, count in pairs[:4]] == [0] * 4
    assert kept == [(kept[0][0], 5), (kept[0][0], 20), (kept[2][0], 5), (kept[2][0], 20)]


def test_points_of_caches_limits_and_bounds() -> None:
    """An axis is named where it has more than its usual value."""
    start = dataclasses.replace(
        FULL.start, concurrency=(1,), caches=(CacheState.WARM, CacheState.COLD)
    )
    density = dataclasses.replace(
        FULL.density,
        count=(4,),
        memory_bytes=(None, 1 << 27),
        bound=DensityBound(count=9, memory_reserve_bytes=1, ready_ns=MS),
    )
    full = dataclasses.replace(FULL, start=start, density=density, load=None, inside=None)
    assert [point.key for point in points_of(full)] == [
        "start cache=warm concurrency=1",
        "start cache=cold concurrency=1",
        "density count=4",
        "density fill=bound",
        "density count=4 memory_bytes=134217728",
        "density fill=bound memory_bytes=134217728",
    ]


def test_points() -> None:
    """Closed loop per number of connections, open loop per rate with the most of them."""
    assert [point.key for point in points_of(FULL)] == [
        "start concurrency=1",
        "start concurrency=8",
        "density count=1",
        "density count=4",
        "load connections=1 mode=closed",
        "load connections=16 mode=closed",
        "load connections=16 mode=open rate_rps=200",
        "load connections=16 mode=open rate_rps=1500.5",
        "inside",
    ]
    assert set(expand(FULL).points) == set(points_of(FULL))
    assert expand(FULL).points[0] == Point(bench="start", values={"concurrency": 1})


def test_estimates_add_up_and_move_nothing_else() -> None:
    """The time is the sum over the trials, and no part of the hash."""
    plan = expand(FULL, estimate_ns=lambda point, driver: len(point.bench) + len(driver))
    total = sum(len(t.point.bench) + len(t.driver) for t in plan.trials)
    assert plan.estimated_ns == total
    assert plan.plan_hash == expand(FULL).plan_hash
    assert expand(FULL).estimated_ns == 0


def test_available_drivers_are_the_callers_to_find() -> None:
    """Expanding knows no machine: it is told which drivers work."""
    experiment = dataclasses.replace(FULL, drivers=(AVAILABLE,))
    plan = expand(experiment, ("process", "crun"))
    assert plan.drivers == ("process", "crun")
    assert plan.experiment.drivers == ("process", "crun")
    with pytest.raises(ConfigError, match="still to be resolved"):
        expand(experiment)


@pytest.mark.parametrize(
    ("drivers", "part"),
    [
        ((), "no driver to run on"),
        (("runc",), 'the baseline "process" is not among'),
        (("process", "process"), "named twice"),
    ],
)
def test_drivers_that_make_no_plan(drivers: tuple[str, ...], part: str) -> None:
    """A comparison needs its baseline, and each driver once."""
    with pytest.raises(ConfigError, match=part):
        expand(FULL, drivers)


def test_endless_plans_are_refused() -> None:
    """A slip of the pen does not run for weeks."""
    with pytest.raises(ConfigError, match=r"has 180000 trials; expected between 1 and 100000"):
        expand(dataclasses.replace(FULL, blocks=10_000))
