"""What ``seatrial run`` and ``seatrial plan`` have in common: an experiment, changed by options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from seatrial.cli.available import Available
    from seatrial.config.expand import EstimateNs
    from seatrial.config.load import Source
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment
    from seatrial.model.plan import Plan, Point

#: The options that change an experiment, by the names of their values.
CHANGES = ("drivers", "baseline", "blocks", "seed", "scale", "set")
#: What a trial costs besides its bench: quiet gate, opening and closing drivers, the leak audit.
TRIAL_OVERHEAD_NS = 250_000_000


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Declare the options that change an experiment."""
    parser.add_argument(
        "--drivers",
        metavar="A,B",
        help="run on these instead of the experiment's own; available: all that work here, except "
        "emulated machines",
    )
    parser.add_argument("--baseline", metavar="NAME", help="the driver that ratios compare with")
    parser.add_argument("--blocks", metavar="N", type=int, help="repeat every point N times")
    parser.add_argument("--seed", metavar="N", type=int, help="another order, other arrivals")
    parser.add_argument(
        "--scale",
        metavar="X",
        help="multiply counts of sandboxes and amounts of work by X, or by what this machine is "
        "of the one that the experiment is sized for: auto",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="replace a value of the experiment, in the words of its file: density.count=[1,5], "
        "start.rounds=3; may be repeated",
    )


def read_request(args: argparse.Namespace) -> tuple[Source, Experiment]:
    """Give the experiment's text, and the experiment as the options make it.

    Raises:
        ConfigError: the file or an option has a mistake.
    """
    from seatrial.benches.load_request import check_load
    from seatrial.config.load import parse_experiment, read_source
    from seatrial.drivers import registry

    source = dataclasses.replace(read_source(args.experiment), changes=tuple(args.set or ()))
    experiment = parse_experiment(
        source,
        known_drivers=registry.names(),
        check_load=check_load,
        check_options=registry.option_problems,
        are_drivers_replaced=args.drivers is not None or args.baseline is not None,
    )
    experiment = _changed(experiment, args)
    _check_drivers(experiment, args)
    return source, _scaled(experiment, args.scale)


def make_plan(experiment: Experiment, drivers: str | None) -> tuple[Available, Plan]:
    """Probe the drivers, and lay out the trials with the time that they will take.

    Raises:
        ConfigError: ``drivers``, the value of ``--drivers``, has a mistake.
        DriverUnavailable: the baseline does not work here.
    """
    from seatrial.cli.available import parse_drivers, resolve
    from seatrial.config.expand import expand

    available = resolve(experiment, parse_drivers(drivers))
    estimate_ns = estimate_of(experiment, available.cost)
    return available, expand(experiment, available.drivers, estimate_ns=estimate_ns)


def scaling_lines(experiment: Experiment) -> tuple[str, ...]:
    """Say what was scaled."""
    scaling = experiment.scaling
    if scaling is None:
        return ()
    return (f"scaled by {scaling.factor:g}", *(f"  {change}" for change in scaling.changes))


def skipped_lines(available: Available) -> tuple[str, ...]:
    """Say which drivers are left out, and why."""
    return tuple(f"left out: {name} ({why})" for name, why in available.skipped.items())


def unused_lines(plan: Plan) -> tuple[str, ...]:
    """Say which drivers' options are of no use, since these drivers do not run."""
    experiment = plan.experiment
    used = {*plan.drivers, experiment.start.background if experiment.start else ""}
    return tuple(
        f"not used: [driver.{name}] ({name} is not among the drivers)"
        for name, options in experiment.driver_options.items()
        if options and name not in used
    )


def estimate_of(experiment: Experiment, cost: Callable[[str], Cost]) -> EstimateNs:
    """Make an estimate from what each bench says about itself, with what a trial costs besides."""
    from seatrial.benches import registry as benches

    def estimate(point: Point, driver: str) -> int:
        bench_ns = benches.get(point.bench).estimate_ns(experiment, point, cost(driver))
        return TRIAL_OVERHEAD_NS + bench_ns

    return estimate


def _changed(experiment: Experiment, args: argparse.Namespace) -> Experiment:
    from seatrial.errors import ConfigError

    for name, value, least in (("blocks", args.blocks, 1), ("seed", args.seed, 0)):
        if value is not None and value < least:
            raise ConfigError(f"--{name}: {value}; expected {least} or more")
    return dataclasses.replace(
        experiment,
        blocks=experiment.blocks if args.blocks is None else args.blocks,
        seed=experiment.seed if args.seed is None else args.seed,
        baseline=args.baseline or experiment.baseline,
    )


def _check_drivers(experiment: Experiment, args: argparse.Namespace) -> None:
    """Check what can be known before anything is probed."""
    from seatrial.cli.available import check_driver, parse_drivers
    from seatrial.config.expand import check_drivers
    from seatrial.model.experiment import AVAILABLE

    if args.baseline is not None:
        check_driver("--baseline", args.baseline)
    wanted = parse_drivers(args.drivers)
    names = experiment.drivers if wanted is None else wanted
    if AVAILABLE not in names:
        check_drivers(names, experiment.baseline)


def _scaled(experiment: Experiment, scale: str | None) -> Experiment:
    if scale is None:
        return experiment
    from seatrial.config.scale import read_factor, scaled
    from seatrial.probes.fingerprint import read_fingerprint

    facts = read_fingerprint().facts
    factor = read_factor(
        scale,
        experiment,
        processors_count=int(facts["processors_usable_count"] or 1),
        memory_bytes=int(facts["memory_bytes"] or 1),
    )
    return scaled(experiment, factor)
