"""``seatrial run``: run an experiment, store it, and show what came out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from seatrial.model.summary import RunSummary
    from seatrial.run.runner import RunReport
    from seatrial.store.run_store import RunStore

DEFAULT_ROOT = "runs"
PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    from seatrial.cli.request import add_changes

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
    add_changes(parser)
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
    return tell(args, store, report)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _resumed(args: argparse.Namespace) -> RunStore:
    from seatrial.cli.request import CHANGES
    from seatrial.errors import ConfigError
    from seatrial.run.prepare import check_resume
    from seatrial.store.run_store import RunStore

    fixed = [f"--{name}" for name in CHANGES if getattr(args, name) is not None]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)} cannot change a run that was begun",
            hint="leave them out with --resume, or begin a new run",
        )
    store = RunStore.open(args.resume)
    check_resume(store, is_forced=args.force, allows_debug_core=args.allow_debug_core)
    return store


def _create(args: argparse.Namespace) -> RunStore:
    from seatrial.cli import output
    from seatrial.cli.request import (
        make_plan,
        read_request,
        scaling_lines,
        skipped_lines,
        unused_lines,
    )
    from seatrial.run.prepare import create_run
    from seatrial.units import format_duration

    source, experiment = read_request(args)
    for line in scaling_lines(experiment):
        output.talk(line)
    output.talk("looking for what works here ...")
    available, plan = make_plan(experiment, args.drivers)
    for line in (*skipped_lines(available), *unused_lines(plan)):
        output.talk(line)
    output.talk(
        f"{len(plan.trials)} trials on {', '.join(plan.drivers)}: "
        f"about {format_duration(plan.estimated_ns)}"
    )
    return create_run(
        args.out,
        plan,
        text=source.whole_text,
        source=str(args.experiment),
        skipped=available.skipped,
        probes=available.probes,
        allows_debug_core=args.allow_debug_core,
    )


def tell(args: argparse.Namespace, store: RunStore, report: RunReport) -> int:
    """Prints what a run gave and writes its page; returns the exit code."""
    from seatrial.analysis.summarise import summarise
    from seatrial.cli import output
    from seatrial.cli.report import show
    from seatrial.errors import ExitCode
    from seatrial.model.finding import Severity

    summary = summarise(store)
    with output.finishing(lambda: None if args.no_html else _write_page(summary, store)):
        if args.json:
            output.data_json(summary)
        else:
            show(summary, "table")
    if report.was_interrupted:
        output.talk(f"stopped; go on with: seatrial run --resume {os.path.relpath(store.path)}")
        return ExitCode.INTERRUPTED
    is_sound = all(finding.severity is not Severity.ERROR for finding in summary.findings)
    return ExitCode.OK if is_sound else ExitCode.FINDING


def _write_page(summary: RunSummary, store: RunStore) -> None:
    from seatrial.cli import output
    from seatrial.cli.report import write_lines, write_page

    write_lines(store)
    path = write_page(summary, store.path / PAGE)
    output.talk(f"page: {os.path.relpath(path)}")
