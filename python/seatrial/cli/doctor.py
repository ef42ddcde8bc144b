"""``seatrial doctor``: what this machine can measure, what not, why, and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.table import Table

    from seatrial.drivers.base import ProbeResult
    from seatrial.probes.host import Check

MARKS = {
    "good": "[green]✓[/] good",
    "works": "[green]✓[/] works",
    "degraded": "[yellow]![/] degraded",
    "bad": "[red]✗[/] bad",
    "broken": "[red]✗[/] broken",
    "missing": "[red]✗[/] missing",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--drivers", metavar="A,B", help="start only these (default: all)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    """Looks and tries; returns 0, or 3 when the baseline itself does not work."""
    from seatrial.cli import output
    from seatrial.cli.available import parse_drivers
    from seatrial.drivers import registry
    from seatrial.errors import ExitCode
    from seatrial.probes.host import check_host

    wanted = parse_drivers(args.drivers) or tuple(
        name for name in registry.names() if name not in registry.AUXILIARY
    )
    output.talk("looking at the host ...")
    checks = check_host(Path("runs"))
    results: list[ProbeResult] = []
    for name in wanted:
        output.talk(f"starting a sandbox with {name} ...")
        results.append(registry.get(name).probe())
    if args.json:
        output.data_json({"host": checks, "drivers": results})
    else:
        output.render(_host_table(checks))
        output.render(_driver_table(results))
        _advise(checks, results)
    works = all(r.status.is_usable for r in results if r.name == "process")
    return ExitCode.OK if works else ExitCode.ENVIRONMENT


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _host_table(checks: Sequence[Check]) -> Table:
    from rich.markup import escape

    table = _table("Host", "check", "verdict", "evidence", "consequence")
    for check in checks:
        table.add_row(
            check.name, MARKS[check.verdict], escape(check.evidence), escape(check.consequence)
        )
    return table


def _driver_table(results: Sequence[ProbeResult]) -> Table:
    from rich.markup import escape

    from seatrial.units import format_duration

    table = _table(
        "Drivers, each tried by starting a sandbox",
        "driver",
        "verdict",
        "version",
        "network",
        "took",
        "evidence",
    )
    for result in results:
        modes = ", ".join(mode.value for mode in result.capabilities.network_modes)
        table.add_row(
            result.name,
            MARKS[result.status],
            escape(result.version or ""),
            modes,
            format_duration(result.elapsed_ns),
            escape(result.detail),
        )
    return table


def _advise(checks: Sequence[Check], results: Sequence[ProbeResult]) -> None:
    from seatrial.cli import output

    advice = [f"{check.name}: {check.fix}" for check in checks if check.fix]
    advice += [
        f"{result.name}: {result.hint}"
        for result in results
        if result.hint and result.status.value != "works"
    ]
    if advice:
        output.data("How to improve it:")
        for line in advice:
            output.data(f"  {line}")
