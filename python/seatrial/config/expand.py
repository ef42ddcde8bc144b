"""From an ``Experiment`` to a ``Plan``: which trials, in which order, with which seeds. Pure.

A block holds every (driver, point) once, in an order of its own: whatever drifts on the machine
hits all drivers alike, and a block is a fair sample of everything. The order comes from hashes
rather than from a random number generator, so that a seed means the same plan in every version of
Python and on every machine.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from seatrial.errors import ConfigError
from seatrial.model.codec import encode
from seatrial.model.columns import SCHEMA_VERSION
from seatrial.model.experiment import (
    OWN_BACKGROUND,
    CacheState,
    DensitySettings,
    Experiment,
    FleetSettings,
    InsideSettings,
    InsideTest,
    LoadSettings,
    RpcSettings,
    StartSettings,
)
from seatrial.model.plan import Plan, Point, TrialSpec
from seatrial.model.scalar import Scalar

# How long one trial of a point on a driver takes, roughly.
EstimateNs: TypeAlias = Callable[[Point, str], int]

CLOSED: Final = "closed"
OPEN: Final = "open"
# The axis of the bench `start` that counts the sandboxes beside the measured ones.
BACKGROUND_AXIS: Final = "background"
# The value of the axis `fill` of the bench `density`: as many sandboxes as fit.
FILL: Final = "bound"

# A plan larger than this is a slip in the file: it would run for weeks.
TRIALS_MAX: Final = 100_000


def points_of(experiment: Experiment) -> tuple[Point, ...]:
    """Give every point of every bench that was asked for, in the order of the file's lists."""
    points: list[Point] = []
    if experiment.start is not None:
        points += _start_points(experiment.start)
    if experiment.density is not None:
        points += _density_points(experiment.density)
    if experiment.load is not None:
        points += points_of_load(experiment.load)
    if experiment.fleet is not None:
        points += _fleet_points(experiment.fleet)
    if experiment.rpc is not None:
        points += _rpc_points(experiment.rpc)
    if experiment.inside is not None:
        points += _inside_points(experiment.inside)
    return tuple(points)


def expand(
    experiment: Experiment,
    drivers: Sequence[str] | None = None,
    *,
    estimate_ns: EstimateNs | None = None,
) -> Plan:
    """Make the plan of an experiment.

    ``drivers`` replaces the experiment's own, and must be given where those are "available";
    ``estimate_ns`` tells how long one trial takes, and moves nothing but the ETA (without it: 0).

    Raises:
        ConfigError: no driver is left, the baseline is not among them, or the plan is too large.
    """
    resolved = dataclasses.replace(
        experiment, drivers=_resolved_drivers(experiment, drivers), driver_options=_used(experiment)
    )
    points = points_of(resolved)
    count = len(points) * len(resolved.drivers) * resolved.blocks
    if not 0 < count <= TRIALS_MAX:
        raise ConfigError(
            f"the plan has {count} trials; expected between 1 and {TRIALS_MAX}",
            hint="ask for fewer blocks, drivers or points",
        )
    trials = _trials(resolved, points)
    return Plan(
        experiment=resolved,
        trials=trials,
        seed=resolved.seed,
        plan_hash=_digest(
            json.dumps([SCHEMA_VERSION, encode(resolved), encode(trials)], sort_keys=True)
        ),
        estimated_ns=0
        if estimate_ns is None
        else sum(estimate_ns(trial.point, trial.driver) for trial in trials),
    )


def _resolved_drivers(experiment: Experiment, drivers: Sequence[str] | None) -> tuple[str, ...]:
    if drivers is None and experiment.wants_available_drivers:
        raise ConfigError(
            'drivers = "available" is still to be resolved: which drivers work here?',
            hint="probe the machine first and hand the names of the working drivers over",
        )
    names = tuple(experiment.drivers if drivers is None else drivers)
    check_drivers(names, experiment.baseline)
    return names


def check_drivers(names: Sequence[str], baseline: str) -> None:
    """Check that drivers can be compared with their baseline.

    Raises:
        ConfigError: there are none, one is named twice, or the baseline is not among them.
    """
    if not names:
        raise ConfigError(
            "no driver to run on; expected at least one", hint="run 'seatrial doctor'"
        )
    if baseline not in names:
        raise ConfigError(
            f'the baseline "{baseline}" is not among the drivers {", ".join(names)}',
            hint="add it to the drivers, or name another one with --baseline",
        )
    if len(set(names)) != len(names):
        raise ConfigError(f"a driver is named twice among {', '.join(names)}")


def _used(experiment: Experiment) -> Mapping[str, Mapping[str, Scalar]]:
    return {name: dict(options) for name, options in sorted(experiment.driver_options.items())}


def points_of_load(settings: LoadSettings) -> tuple[Point, ...]:
    """Give the points of the bench `load`: closed loops, then open ones."""
    closed = [_point("load", mode=CLOSED, connections=count) for count in settings.connections]
    # An open loop needs room for what is under way at once, hence the most connections there are.
    widest = max(settings.connections)
    opened = [
        _point("load", mode=OPEN, connections=widest, rate_rps=rate) for rate in settings.rates_rps
    ]
    if settings.has_own_rates:
        course = settings.arrival if settings.pattern == "fixed" else settings.pattern
        opened.append(_point("load", mode=OPEN, connections=widest, rates=course))
    return (*closed, *opened)


def _start_points(settings: StartSettings) -> list[Point]:
    # An axis with its usual value alone is not named: most runs have warm caches and no company.
    has_caches = settings.caches != (CacheState.WARM,)
    has_background = settings.background_counts != (0,)
    axes = itertools.product(settings.background_counts, settings.caches, settings.concurrency)
    return [
        _point(
            "start",
            concurrency=concurrency,
            **({"cache": cache.value} if has_caches else {}),
            **({BACKGROUND_AXIS: background} if has_background else {}),
        )
        for background, cache, concurrency in axes
    ]


def _density_points(settings: DensitySettings) -> list[Point]:
    points: list[Point] = []
    for memory_bytes in settings.memory_bytes:
        limit = {} if memory_bytes is None else {"memory_bytes": memory_bytes}
        points += [_point("density", count=count, **limit) for count in settings.count]
        if settings.bound is not None:
            points.append(_point("density", fill=FILL, **limit))
    return points


def _fleet_points(settings: FleetSettings) -> list[Point]:
    axes = itertools.product(
        settings.layouts, settings.counts, settings.demands, settings.rates_rps
    )
    return [
        _point("fleet", layout=layout.value, count=count, demand=demand, rate_rps=rate)
        for layout, count, demand, rate in axes
        # One server in one sandbox is the same in both layouts, and is measured once.
        if count > 1 or layout is settings.layouts[0]
    ]


def _inside_points(settings: InsideSettings) -> list[Point]:
    points: list[Point] = []
    for test in settings.tests:
        if test is InsideTest.PROBES:
            points.append(_point("inside"))
        elif test is InsideTest.FIO:
            points += [
                _point("inside", test=test.value, variant=variant.value)
                for variant in settings.fio_variants
            ]
        else:
            points.append(_point("inside", test=test.value))
    return points


def _rpc_points(settings: RpcSettings) -> list[Point]:
    axes = itertools.product(settings.modes, settings.threads, settings.clients)
    return [
        _point("rpc", mode=mode.value, threads=threads, clients=clients)
        for mode, threads, clients in axes
    ]


def _point(bench: str, **values: Scalar) -> Point:
    return Point(bench=bench, values=values)


def _trials(experiment: Experiment, points: Sequence[Point]) -> tuple[TrialSpec, ...]:
    order = [
        (block, driver, point)
        for block in range(experiment.blocks)
        for driver, point in _shuffled(experiment, points, block)
    ]
    # At least four digits, and the same number for all, so that ids sort as they run.
    width = max(4, len(str(len(order))))
    return tuple(
        TrialSpec(
            trial_id=f"t{index + 1:0{width}d}",
            index=index,
            block=block,
            driver=driver,
            point=point,
            seed=_trial_seed(experiment.seed, block, point),
        )
        for index, (block, driver, point) in enumerate(order)
    )


def _shuffled(
    experiment: Experiment, points: Sequence[Point], block: int
) -> list[tuple[str, Point]]:
    pairs = [(driver, point) for driver in experiment.drivers for point in points]
    # Sorting by independent uniform keys is a uniform shuffle.
    mixed = sorted(
        pairs, key=lambda pair: _digest(f"{experiment.seed}|{block}|{pair[0]}|{pair[1].key}")
    )
    return sorted(mixed, key=lambda pair: _background_rank(experiment, *pair, block=block))


def _background_rank(
    experiment: Experiment, driver: str, point: Point, *, block: int
) -> tuple[int, str, int]:
    """Give the place of a trial among those with other company; equal ones stay shuffled.

    A background is kept and topped up from trial to trial, so equal ones stand side by side. It
    grows in one block and shrinks in the next, so that time is not mistaken for density.
    """
    count = int(point.values.get(BACKGROUND_AXIS, 0))
    if experiment.start is None or count == 0:
        return (0, "", 0)
    sign = 1 if block % 2 == 0 else -1
    is_own = experiment.start.background == OWN_BACKGROUND
    return (sign, _digest(f"{experiment.seed}|{block}|{driver}") if is_own else "", sign * count)


def _trial_seed(seed: int, block: int, point: Point) -> int:
    # 63 bits: fits a signed 64-bit column and the core's unsigned seed alike.
    return int(_digest(f"{seed}|{block}|{point.key}")[:16], 16) >> 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
