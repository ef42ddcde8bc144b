"""``seatrial report``: tables, page, figures and exports of runs and loads that are stored."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.errors import ConfigError, ExitCode, StoreError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from seatrial.loadtest.result import LoadTestResult
    from seatrial.model.summary import Reference, RunSummary
    from seatrial.store.run_store import RunStore

FORMATS = ("table", "json", "csv", "markdown", "lancet")
#: Those that a single load has.
LOAD_FORMATS = ("table", "json", "lancet")
PAGE = "report.html"
FIGURES = Path("figures")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="directory of a run, such as runs/2026..., or of `seatrial load --out`",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="PATH",
        help=f"where to write the page (default: {PAGE} in the run's directory)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="what to print (default: table)"
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="same as --format json"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        nargs="?",
        const=FIGURES,
        metavar="DIR",
        help="also write the figures as SVG and PNG, and their data as CSV "
        f"(default: {FIGURES} in the run's directory)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="draw this run's numbers beside, dashed: an imported one (seatrial import rund "
        "--out), or one of another machine; may be repeated",
    )
    parser.add_argument("--no-html", action="store_true", help="print only; write no page")


def execute(args: argparse.Namespace) -> int:
    """Prints each run and writes its page; returns 0."""
    has_one_place = args.html or args.figures not in {None, FIGURES}
    if len(args.runs) > 1 and has_one_place:
        raise ConfigError(
            f"{len(args.runs)} runs and one place for their pages or figures",
            hint="give one run with --html PATH or --figures DIR; else each keeps its own",
        )
    from seatrial.loadtest.exports import is_load_directory

    references = tuple(line for other in args.reference for line in _references(other))
    for path in args.runs:
        if args.reference and is_load_directory(path):
            raise ConfigError(
                f"{path} is a single load, which has no figures for --reference",
                hint="give the directory of a run, such as runs/2026...",
            )
    _report_each(args.runs, args, references)
    return ExitCode.OK


def _report_each(
    paths: Sequence[Path], args: argparse.Namespace, references: tuple[Reference, ...]
) -> None:
    from seatrial.cli import output
    from seatrial.loadtest.exports import is_load_directory

    if not paths:
        return
    first, *rest = paths
    with output.finishing(partial(_report_each, rest, args, references)):
        if is_load_directory(first):
            _report_load(first, args)
        else:
            _report(first, args, references)


def write_page(summary: RunSummary, path: Path) -> Path:
    """Writes the page of a run and gives its path.

    Raises:
        StoreError: The file cannot be written.
    """
    from seatrial.report.page import render_page

    return _write(render_page(summary), path)


def _write(page: str, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, "utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write the page {path}: {error.strerror}",
            hint="give another place with --html PATH, or --no-html",
        ) from error
    return path


def write_lines(store: RunStore) -> None:
    """Writes the lines a client and interval, where the run has such clients.

    Raises:
        StoreError: A file cannot be written.
    """
    from seatrial.cli import output
    from seatrial.report.client_lines import write_client_lines

    written = write_client_lines(store)
    if written:
        output.talk(f"lines of clients: {len(written)} files in {written[0].parent}")


def show(summary: RunSummary, form: str) -> None:
    """Prints a summary in one of FORMATS."""
    from seatrial.cli import output
    from seatrial.report import export, text

    if form == "json":
        output.data(export.to_json(summary))
    elif form == "csv":
        output.data(export.to_csv(summary).rstrip("\n"))
    elif form == "markdown":
        output.data(export.to_markdown(summary).rstrip("\n"))
    elif form == "lancet":
        _show_familiar(summary)
    else:
        output.render(text.render_text(summary))


def _show_familiar(summary: RunSummary) -> None:
    from seatrial.cli import output
    from seatrial.report.familiar import FLEET, familiar_rows, familiar_text

    rows = familiar_rows(summary)
    if not rows:
        raise ConfigError(
            f"run {summary.run_id} has no numbers of the bench {FLEET}, which this format is for",
            hint="use --format table",
        )
    output.data(familiar_text(rows).rstrip("\n"))


def _references(path: Path) -> tuple[Reference, ...]:
    """Reads what another run has to stand beside.

    Raises:
        StoreError: It is no run, or cannot be read.
    """
    from seatrial.analysis.references import references_of
    from seatrial.analysis.summarise import summarise
    from seatrial.store.run_store import RunStore

    with RunStore.open(path) as store:
        return references_of(summarise(store))


def _report(path: Path, args: argparse.Namespace, references: tuple[Reference, ...]) -> None:
    from seatrial.analysis.summarise import summarise
    from seatrial.cli import output
    from seatrial.store.run_store import RunStore

    with RunStore.open(path) as store:
        summary = dataclasses.replace(summarise(store), references=references)
        if not args.no_html:
            write_lines(store)
    with output.finishing(partial(_write_files, summary, path, args)):
        show(summary, args.format)


def _write_files(summary: RunSummary, path: Path, args: argparse.Namespace) -> None:
    from seatrial.cli import output
    from seatrial.report.export import write_figures

    if not args.no_html:
        page = write_page(summary, args.html or path / PAGE)
        output.talk(f"page: {page}")
    if args.figures:
        directory = _figures_directory(path, args)
        written = write_figures(summary, directory)
        output.talk(f"figures: {len(written)} files in {directory}")


def _figures_directory(path: Path, args: argparse.Namespace) -> Path:
    chosen: Path = args.figures
    return path / FIGURES if chosen == FIGURES else chosen


def _report_load(path: Path, args: argparse.Namespace) -> None:
    from seatrial.cli import output
    from seatrial.loadtest.exports import read_directory

    if args.format not in LOAD_FORMATS:
        raise ConfigError(
            f"{path} is a single load, which has no --format {args.format}",
            hint=f"use one of {', '.join(LOAD_FORMATS)}",
        )
    result = read_directory(path)
    with output.finishing(partial(_write_load_files, result, path, args)):
        _show_load(result, args.format)


def _show_load(result: LoadTestResult, form: str) -> None:
    from seatrial.cli import output
    from seatrial.report.load_text import lancet_lines, render_result

    if form == "json":
        output.data_json(result)
    elif form == "lancet":
        for line in lancet_lines(result):
            output.data(line)
    else:
        output.render(render_result(result))


def _write_load_files(result: LoadTestResult, path: Path, args: argparse.Namespace) -> None:
    from seatrial.cli import output
    from seatrial.report.export import write_drawn
    from seatrial.report.load_charts import load_figures
    from seatrial.report.load_page import render_load_page

    figures = () if args.no_html and not args.figures else load_figures(result)
    if not args.no_html:
        page = _write(render_load_page(result, figures=figures), args.html or path / PAGE)
        output.talk(f"page: {page}")
    if args.figures:
        directory = _figures_directory(path, args)
        written = write_drawn(figures, directory)
        output.talk(f"figures: {len(written)} files in {directory}")
