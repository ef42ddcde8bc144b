"""``seatrial compare``: two runs side by side, with an exit code for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("before", type=Path, metavar="A", help="directory of the older run")
    parser.add_argument("after", type=Path, metavar="B", help="directory of the newer run")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare although conditions differ, warn of each and mark what it weighs on",
    )
    parser.add_argument(
        "--despite",
        metavar="NAME",
        action="append",
        default=[],
        help="accept that this condition differs, such as kernel; repeat it, or divide by commas",
    )
    parser.add_argument(
        "--factor",
        metavar="NAME",
        action="append",
        default=[],
        help="this condition is what is compared: it is neither refused nor marked",
    )
    parser.add_argument(
        "--pair",
        metavar="A=B",
        action="append",
        default=[],
        help="driver A of the older run against driver B of the newer; only such pairs then",
    )
    parser.add_argument(
        "--adjusted",
        action="store_true",
        help="count as different only what stands after Holm's correction",
    )


def execute(args: argparse.Namespace) -> int:
    """Prints what differs; returns 1 if anything became slower, worse or impossible."""
    from seatrial.analysis.compare import Terms, compare_runs
    from seatrial.cli import output
    from seatrial.model.metric import METRICS
    from seatrial.report.compared import render_comparison
    from seatrial.store.run_store import RunStore

    terms = Terms(
        pairs=dict(_pair(text) for text in args.pair),
        despite=frozenset(_names(args.despite)),
        factors=frozenset(_names(args.factor)),
        is_forced=args.force,
    )
    with RunStore.open(args.before) as before, RunStore.open(args.after) as after:
        comparison = compare_runs(before, after, terms=terms)
    if args.json:
        output.data_json(comparison)
    else:
        output.render(
            render_comparison(comparison, metrics=dict(METRICS), is_adjusted=args.adjusted)
        )
    worse = comparison.adjusted_regressions if args.adjusted else comparison.regressions
    return ExitCode.FINDING if worse else ExitCode.OK


def _names(texts: Sequence[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _pair(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise ConfigError(
            f"--pair {text!r}; expected A=B, a driver of the older run and one of the newer",
            hint="for example --pair kata=katafc",
        )
    return old, new
