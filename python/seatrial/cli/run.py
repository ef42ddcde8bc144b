"""``seatrial run``: run an experiment, store it, and show what came out."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from seatrial.model.experiment import Experiment
    from seatrial.run.runner import RunReport
    from seatrial.store.run_store import RunStore

DEFAULT_ROOT = "runs"
PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    from seatrial.cli.plan import add_drivers, add_scale

    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("experiment", metavar="PRESET|FILE", nargs="?", help="a preset or a file")
    what.add_argument("--resume", metavar="RUN", type=Path, help="go on with a killed run")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path(DEFAULT_ROOT),
        help=f"where run directories are made (default: {DEFAULT_ROOT})",
    )
    add_drivers(parser)
    parser.add_argument("--baseline", metavar="NAME", help="the driver that ratios compare with")
    parser.add_argument("--blocks", metavar="N", type=int, help="repeat every point N times")
    parser.add_argument("--seed", metavar="N", type=int, help="another order, other arrivals")
    add_scale(parser)
    parser.add_argument("--no-html", action="store_true", help="do not make the HTML page")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument(
        "--force", action="store_true", help="resume although machine or versions have changed"
    )
    parser.add_argument(
        "--allow-debug-core", action="store_true", help="run although the core is a debug build"
    )


def execute(args: argparse.Namespace) -> int:
    """Runs, reports, and returns the exit code."""
    from seatrial.cli import output
    from seatrial.cli.progress import Bar
    from seatrial.run.prepare import perform

    signal.signal(signal.SIGTERM, _interrupt)
    store = _resumed(args) if args.resume else _create(args)
    with store:
        output.talk(f"run directory: {store.path}")
        with Bar(output.stderr_console()) as bar:
            report = perform(store, bar)
    return _show(args, store, report)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _resumed(args: argparse.Namespace) -> RunStore:
    from seatrial.errors import ConfigError
    from seatrial.run.prepare import check_resume
    from seatrial.store.run_store import RunStore

    names = ("drivers", "baseline", "blocks", "seed", "scale")
    fixed = [f"--{name}" for name in names if getattr(args, name) is not None]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)} cannot change a run that was begun",
            hint="leave them out with --resume, or begin a new run",
        )
    store = RunStore.open(args.resume)
    check_resume(store, is_forced=args.force, allows_debug_core=args.allow_debug_core)
    return store


def _create(args: argparse.Namespace) -> RunStore:
    from seatrial.benches.load_request import check_load
    from seatrial.cli import output
    from seatrial.cli.available import parse_drivers, resolve
    from seatrial.cli.plan import estimate_of, scaling_lines, with_scale
    from seatrial.config.expand import expand
    from seatrial.config.load import parse_experiment, read_source
    from seatrial.drivers import registry
    from seatrial.run.prepare import create_run
    from seatrial.units import format_duration

    source = read_source(args.experiment)
    experiment = parse_experiment(source, known_drivers=registry.names(), check_load=check_load)
    experiment = with_scale(_changed(experiment, args), args.scale)
    for line in scaling_lines(experiment):
        output.talk(line)
    wanted = parse_drivers(args.drivers)
    output.talk("looking for what works here ...")
    available = resolve(experiment, wanted)
    for name, why in available.skipped.items():
        output.talk(f"left out: {name} ({why})")
    plan = expand(
        experiment, available.drivers, estimate_ns=estimate_of(experiment, available.cost)
    )
    output.talk(
        f"{len(plan.trials)} trials on {', '.join(plan.drivers)}: "
        f"about {format_duration(plan.estimated_ns)}"
    )
    return create_run(
        args.out,
        plan,
        text=source.text,
        source=str(args.experiment),
        skipped=available.skipped,
        probes=available.probes,
        allows_debug_core=args.allow_debug_core,
    )


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


def _show(args: argparse.Namespace, store: RunStore, report: RunReport) -> int:
    from seatrial.analysis.summarise import summarise
    from seatrial.cli import output
    from seatrial.cli.report import show, write_lines, write_page
    from seatrial.errors import ExitCode
    from seatrial.model.finding import Severity

    summary = summarise(store)
    if args.json:
        output.data_json(summary)
    else:
        show(summary, "table")
    if not args.no_html:
        write_lines(store)
        path = write_page(summary, store.path / PAGE)
        output.talk(f"page: {os.path.relpath(path)}")
    if report.was_interrupted:
        output.talk(f"stopped; go on with: seatrial run --resume {os.path.relpath(store.path)}")
        return ExitCode.INTERRUPTED
    is_sound = all(finding.severity is not Severity.ERROR for finding in summary.findings)
    return ExitCode.OK if is_sound else ExitCode.FINDING
