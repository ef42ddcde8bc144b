"""``seatrial plan``: what would run, in which order, for how long.

Nothing is measured; a sandbox of each driver is started, to see what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from seatrial.config.expand import EstimateNs
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment
    from seatrial.model.plan import Plan, Point

TRIALS_SHOWN = 20
#: What a trial costs besides its bench: quiet gate, opening and closing drivers, the leak audit.
TRIAL_OVERHEAD_NS = 250_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("experiment", metavar="PRESET|FILE", help="a preset or a TOML file")
    add_drivers(parser)
    add_scale(parser)
    parser.add_argument("--all", action="store_true", help="print every trial, however many")
    parser.add_argument("--json", action="store_true", help="print the whole plan as JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the plan; give 0."""
    from seatrial.benches.load_request import check_load
    from seatrial.cli import output
    from seatrial.cli.available import parse_drivers, resolve
    from seatrial.config.expand import expand
    from seatrial.config.load import load_experiment
    from seatrial.drivers import registry

    experiment = load_experiment(
        args.experiment, known_drivers=registry.names(), check_load=check_load
    )
    experiment = with_scale(experiment, args.scale)
    available = resolve(experiment, parse_drivers(args.drivers))
    plan = expand(
        experiment, available.drivers, estimate_ns=estimate_of(experiment, available.cost)
    )
    if args.json:
        output.data_json(plan)
        return 0
    _print(plan, shows_all=args.all)
    for name, why in available.skipped.items():
        output.talk(f"left out: {name} ({why})")
    for result in (available.probes[name] for name in plan.drivers):
        if not result.status.is_usable:
            output.talk(f"cannot run here: {result.name} ({result.status}: {result.detail})")
    return 0


def add_drivers(parser: argparse.ArgumentParser) -> None:
    """Declare ``--drivers``."""
    parser.add_argument(
        "--drivers",
        metavar="A,B",
        help="run on these instead of the experiment's own; available: all that work here, except "
        "emulated machines",
    )


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Declare ``--scale``."""
    parser.add_argument(
        "--scale",
        metavar="X",
        help="multiply counts of sandboxes and amounts of work by X, or by what this machine is "
        "of the one that the experiment is sized for: auto",
    )


def with_scale(experiment: Experiment, scale: str | None) -> Experiment:
    """Give the experiment as ``--scale`` makes it."""
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


def scaling_lines(experiment: Experiment) -> tuple[str, ...]:
    """Say what was scaled."""
    scaling = experiment.scaling
    if scaling is None:
        return ()
    return (f"scaled by {scaling.factor:g}", *(f"  {change}" for change in scaling.changes))


def estimate_of(experiment: Experiment, cost: Callable[[str], Cost]) -> EstimateNs:
    """Make an estimate from what each bench says about itself, with what a trial costs besides."""
    from seatrial.benches import registry as benches

    def estimate(point: Point, driver: str) -> int:
        bench_ns = benches.get(point.bench).estimate_ns(experiment, point, cost(driver))
        return TRIAL_OVERHEAD_NS + bench_ns

    return estimate


def _print(plan: Plan, *, shows_all: bool) -> None:
    from seatrial.cli import output
    from seatrial.units import format_duration

    experiment = plan.experiment
    facts = {
        "experiment": experiment.name,
        "drivers": ", ".join(plan.drivers),
        "baseline": experiment.baseline,
        "benches": ", ".join(experiment.benches),
        "trials": f"{len(plan.trials)} = {experiment.blocks} blocks x {len(plan.drivers)} drivers"
        f" x {len(plan.points)} points",
        "seed": str(plan.seed),
        "hash": plan.plan_hash,
        "time": f"about {format_duration(plan.estimated_ns)}",
    }
    width = max(len(name) for name in facts)
    for name, text in facts.items():
        output.data(f"{name:<{width}}  {text}")
    for line in scaling_lines(experiment):
        output.data(line)
    output.data("")
    shown = plan.trials if shows_all else plan.trials[:TRIALS_SHOWN]
    output.table(
        ("trial", "block", "driver", "point"),
        [(trial.trial_id, str(trial.block), trial.driver, trial.point.key) for trial in shown],
    )
    left = len(plan.trials) - len(shown)
    if left:
        output.data(f"... and {left} more (--all prints them)")
