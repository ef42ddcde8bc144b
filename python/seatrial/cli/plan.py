"""``seatrial plan``: what would run, in which order, for how long.

Nothing is measured; a sandbox of each driver is started, to see what it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from seatrial.model.plan import Plan

TRIALS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from seatrial.cli.request import add_changes

    parser.add_argument("experiment", metavar="PRESET|FILE", help="a preset or a TOML file")
    add_changes(parser)
    parser.add_argument("--all", action="store_true", help="print every trial, however many")
    parser.add_argument("--json", action="store_true", help="print the whole plan as JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the plan; give 0."""
    from seatrial.cli import output
    from seatrial.cli.request import make_plan, read_request, skipped_lines, unused_lines

    _source, experiment = read_request(args)
    available, plan = make_plan(experiment, args.drivers)
    if args.json:
        output.data_json(plan)
        return 0
    _print(plan, shows_all=args.all)
    for line in (*skipped_lines(available), *unused_lines(plan)):
        output.talk(line)
    for result in (available.probes[name] for name in plan.drivers):
        if not result.status.is_usable:
            output.talk(f"cannot run here: {result.name} ({result.status}: {result.detail})")
    return 0


def _print(plan: Plan, *, shows_all: bool) -> None:
    from seatrial.cli import output
    from seatrial.cli.request import scaling_lines
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
