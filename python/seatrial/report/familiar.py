"""The bench `fleet` in the columns of Lancet: what was offered and achieved, and latency.

Unlike there, percentiles are of all requests together and never averaged, a bound that is not known
is never printed as 0, and what was offered stands beside what was achieved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import Statistic
from seatrial.report.view import point_title

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.model.estimate import NotAvailable
    from seatrial.model.summary import RunSummary

FLEET = "fleet"
NS_PER_US = 1_000
RATE_AXIS = "rate_rps"
THROUGHPUT = ("#ReqCount", "QPS", "RxBw", "TxBw")
PERCENTILES = (
    ("50th", Statistic.P50),
    ("90th", Statistic.P90),
    ("95th", Statistic.P95),
    ("99th", Statistic.P99),
)
LATENCY = ("#Avg Lat", *(name for name, _ in PERCENTILES))


@dataclass(frozen=True, slots=True, kw_only=True)
class FamiliarRow:
    """One driver at one point, in Lancet's columns; texts as they are printed."""

    driver: str
    point: Point
    offered: str
    answered: str
    throughput: tuple[str, ...]
    """Replies, replies a second, bytes a second received and sent."""
    latency: tuple[str, ...]
    """Mean and percentiles in us, each percentile as ``value(low, high)``."""


def familiar_rows(summary: RunSummary) -> tuple[FamiliarRow, ...]:
    """Every driver at every point of the bench, loads growing."""
    cells = {
        (cell.point.key, cell.driver, cell.metric, cell.statistic): cell.estimate
        for cell in summary.cells
        if cell.bench == FLEET
    }
    places = {
        (cell.point.key, cell.driver): cell.point
        for cell in summary.cells
        if cell.bench == FLEET and cell.metric == "fleet_offered_rps"
    }
    blocks = {
        (cell.point.key, cell.driver): cell.blocks_count
        for cell in summary.cells
        if cell.metric == "replies_count"
    }
    rows: list[FamiliarRow] = []
    for (key, driver), point in places.items():

        def mean(metric: str, key: str = key, driver: str = driver) -> float | None:
            return _point_of(cells.get((key, driver, metric, Statistic.MEAN)))

        def percentile(name: Statistic, key: str = key, driver: str = driver) -> str:
            return _interval_of(cells.get((key, driver, "response_time_ns", name)))

        replies, count = mean("replies_count"), blocks.get((key, driver), 0)
        average = mean("response_mean_ns")
        rows.append(
            FamiliarRow(
                driver=driver,
                point=point,
                offered=_number(mean("fleet_offered_rps")),
                answered=_share(mean("answered_ratio")),
                throughput=(
                    "n/a" if replies is None else str(round(replies * count)),
                    _number(mean("fleet_achieved_rps")),
                    _number(mean("received_bytes_per_s")),
                    _number(mean("sent_bytes_per_s")),
                ),
                latency=(
                    "n/a" if average is None else f"{average / NS_PER_US:.3f}",
                    *(percentile(name) for _, name in PERCENTILES),
                ),
            )
        )
    return tuple(rows)


def familiar_text(rows: Iterable[FamiliarRow]) -> str:
    """The rows as Lancet prints them, which `seatrial import lancet` reads."""
    lines: list[str] = []
    for row in rows:
        lines += [
            f"{row.driver}, {point_title(row.point)}",
            f"Offered {row.offered} QPS, achieved {row.throughput[1]} QPS ({row.answered})",
            "\t".join(THROUGHPUT),
            "\t".join(row.throughput),
            "\t".join(LATENCY),
            "\t".join(row.latency),
            "",
        ]
    return "\n".join(lines)


def familiar_tables(summary: RunSummary) -> list[Table]:
    """One table for each way of having so many servers, a row a driver and load."""
    groups: dict[str, list[FamiliarRow]] = {}
    for row in familiar_rows(summary):
        held = {name: value for name, value in row.point.values.items() if name != RATE_AXIS}
        groups.setdefault(point_title(Point(bench=FLEET, values=held)), []).append(row)
    order = {driver.name: number for number, driver in enumerate(summary.drivers)}
    return [
        _table(title, sorted(rows, key=lambda row: (order.get(row.driver, len(order)), _rate(row))))
        for title, rows in groups.items()
    ]


def _table(title: str, rows: Iterable[FamiliarRow]) -> Table:
    table = Table(
        title=escape(f"{title} (bandwidths in bytes a second, latencies in us with intervals)"),
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("runtime", header_style="dim", no_wrap=True)
    for heading in ("offered", "answered", *THROUGHPUT, *LATENCY):
        table.add_column(heading, justify="right", header_style="dim")
    previous = ""
    for row in rows:
        name = row.driver if row.driver != previous else ""
        previous = row.driver
        short = tuple(text.replace("(", "\n(") for text in row.latency)
        whole = tuple(text.partition(".")[0] for text in row.throughput)
        offered = row.offered.partition(".")[0]
        table.add_row(name, offered, row.answered, *whole, *short)
    return table


def _rate(row: FamiliarRow) -> float:
    return float(row.point.values[RATE_AXIS])


def _point_of(estimate: Estimate | NotAvailable | None) -> float | None:
    return estimate.point if isinstance(estimate, Estimate) else None


def _interval_of(estimate: Estimate | NotAvailable | None) -> str:
    if not isinstance(estimate, Estimate):
        return "n/a"
    point, low, high = (
        f"{value / NS_PER_US:.3f}" for value in (estimate.point, estimate.low, estimate.high)
    )
    return f"{point}({low}, {high})"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"
