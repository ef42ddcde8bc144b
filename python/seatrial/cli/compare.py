"""``seatrial compare``: two runs side by side, with an exit code for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.errors import ExitCode

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("before", type=Path, metavar="A", help="directory of the older run")
    parser.add_argument("after", type=Path, metavar="B", help="directory of the newer run")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare although machine, flags or settings differ, and warn of each",
    )


def execute(args: argparse.Namespace) -> int:
    """Prints what differs; returns 1 if anything became slower, worse or impossible."""
    from seatrial.analysis.compare import compare_runs
    from seatrial.cli import output
    from seatrial.model.metric import METRICS
    from seatrial.report.text import render_comparison
    from seatrial.store.run_store import RunStore

    with RunStore.open(args.before) as before, RunStore.open(args.after) as after:
        comparison = compare_runs(before, after, is_forced=args.force)
    if args.json:
        output.data_json(comparison)
    else:
        output.render(render_comparison(comparison, metrics=dict(METRICS)))
    return ExitCode.FINDING if comparison.regressions else ExitCode.OK
