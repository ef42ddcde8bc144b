"""A load test in a terminal: verdict first, then rates, then percentiles side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from seatrial.model.estimate import Estimate
from seatrial.report.text import SEVERITY_STYLES
from seatrial.report.view import SEVERITY_GLYPHS
from seatrial.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from seatrial.loadtest.result import LoadTestResult, Quantile, TimeSummary
    from seatrial.model.estimate import NotAvailable

#: Kinds of time in the order of their columns, and what each heading says.
HEADINGS: Final = {
    "response": "response time",
    "service": "service time",
    "queue": "waited for a place",
    "send_lag": "sent after due",
    "pacing_lag": "of that, our own",
    "wire": "wire and server",
    "wake": "wake-up",
}
#: More columns than these would not be read; the rest is in --json.
COLUMNS_MAX: Final = 4
NS_PER_US: Final = 1_000
BARS: Final = " ▁▂▃▄▅▆▇█"
#: A column of fewer values tells nothing.
COUNT_MIN: Final = 100
#: Targets that are listed one by one; with more, the best and the worst.
TARGETS_MAX: Final = 12


def render_result(result: LoadTestResult) -> RenderableType:
    """The result as something that Rich can print."""
    parts: list[RenderableType] = [_head(result), "", _verdicts(result), "", _rates(result), ""]
    parts.append(_times(result))
    if result.targets:
        parts += ["", _targets(result)]
    if result.failures:
        parts += ["", _failures(result)]
    if result.objectives:
        parts += ["", _objectives(result)]
    if result.events:
        parts += ["", _events(result)]
    parts.append(Text(_footnote(result), style="dim"))
    return Stack(*parts)


def lancet_lines(result: LoadTestResult) -> Iterable[str]:
    """The familiar columns; times in microseconds, bandwidths in bytes per second."""
    length_s = result.measure_length_ns / 1e9
    offered = "closed loop" if result.offered_rps is None else f"{result.offered_rps:.1f}/s"
    yield f"# offered {offered}, measured for {length_s:.1f} s, 95 % intervals"
    yield "#ReqCount\tQPS\tRxBw\tTxBw"
    yield (
        f"{result.measured.ok_count}\t{result.achieved_rps:.3f}\t"
        f"{result.received_bytes_per_s:.3f}\t{result.sent_bytes_per_s:.3f}"
    )
    headline = result.headline
    shown = [one for one in headline.quantiles if one.name in {"p50", "p90", "p95", "p99"}]
    yield "\t".join(["#Avg Lat", *(f"{one.share * 100:g}th" for one in shown)])
    mean = "n/a" if headline.mean_ns is None else f"{headline.mean_ns / NS_PER_US:.3f}"
    yield "\t".join([mean, *(_lancet_cell(one) for one in shown)])


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as bars, scaled to the largest of them; nothing for no values."""
    shown = list(values)[-width:]
    largest = max(shown, default=0.0)
    if largest <= 0:
        return BARS[0] * len(shown)
    steps = len(BARS) - 1
    return "".join(
        BARS[max(1, round(value / largest * steps)) if value > 0 else 0] for value in shown
    )


def _lancet_cell(quantile: Quantile) -> str:
    value = quantile.value
    if not isinstance(value, Estimate):
        return f"n/a (need >= {value.n_needed})" if value.n_needed else "n/a"
    low, point, high = (ns / NS_PER_US for ns in (value.low, value.point, value.high))
    return f"{point:.3f}({low:.3f}, {high:.3f})"


def _head(result: LoadTestResult) -> Text:
    settings = result.settings
    rate = settings.get("rate_rps")
    if isinstance(rate, int | float):
        kind = f"open loop, {settings.get('arrival')} arrivals at {format_rate(rate)}"
        if settings.get("pattern") != "fixed":
            kind = f"{kind}, {settings.get('pattern')}"
    else:
        kind = "closed loop: tells capacity, not what users feel"
    length = format_duration(result.measure_length_ns)
    agents = f", {len(result.agents)} agents" if len(result.agents) > 1 else ""
    return Text.assemble(
        (result.url, "bold"),
        f"  {kind}, {settings.get('connections')} connections{agents}, measured for {length}",
    )


def _verdicts(result: LoadTestResult) -> RenderableType:
    if not result.verdicts:
        return Text("✓ ok", style="bold green")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for finding in result.verdicts:
        glyph = f"{SEVERITY_GLYPHS[finding.severity]} {finding.code}"
        grid.add_row(Text(glyph, style=SEVERITY_STYLES[finding.severity]), Text(finding.message))
    return grid


def _plain_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, header_style="dim", justify="right" if number else "left")
    return table


def _rates(result: LoadTestResult) -> Table:
    measured = result.measured
    table = _plain_table("offered", "achieved", "due", "correct", "failed", "received", "sent")
    share = measured.failed_count / measured.intended_count if measured.intended_count else 0.0
    failed = f"{format_count(measured.failed_count)} ({share:.2%})"
    table.add_row(
        "-" if result.offered_rps is None else format_rate(result.offered_rps),
        format_rate(result.achieved_rps),
        str(measured.intended_count),
        str(measured.ok_count),
        Text(failed, style="bold red" if measured.failed_count else ""),
        f"{format_bytes(result.received_bytes_per_s)}/s",
        f"{format_bytes(result.sent_bytes_per_s)}/s",
    )
    return table


def _times(result: LoadTestResult) -> Table:
    told = (result.time(kind) for kind in HEADINGS)
    shown = [time for time in told if time is not None and time.count >= COUNT_MIN]
    shown = [result.headline, *(time for time in shown if time is not result.headline)]
    shown = shown[:COLUMNS_MAX]
    table = _plain_table("", *(HEADINGS[time.kind] for time in shown))
    table.add_row("mean", *(_moment(time.mean_ns) for time in shown))
    for number, quantile in enumerate(result.headline.quantiles):
        cells = [_cell(time.quantiles[number].value) for time in shown]
        table.add_row(Text(quantile.name, style="bold"), *cells)
    table.add_row("max", *(_moment(time.max_ns) for time in shown))
    return table


def _moment(value_ns: float | None) -> str:
    return "-" if value_ns is None else format_duration(value_ns)


def _cell(value: Estimate | NotAvailable) -> Text:
    if not isinstance(value, Estimate):
        # Why so many are needed is in the JSON; here it would push the columns apart.
        needed = "" if value.n_needed is None else f" (need >= {value.n_needed})"
        return Text(f"n/a{needed}", style="dim")
    text = Text(format_duration(value.point))
    text.append(f" [{format_duration(value.low)}, {format_duration(value.high)}]", style="dim")
    return text


def _targets(result: LoadTestResult) -> Table:
    table = _plain_table("server", "achieved", "failed", "p50", "p99")
    by_tail = sorted(result.targets, key=lambda target: _point(target.response, "p99"))
    shown = by_tail if len(by_tail) <= TARGETS_MAX else [by_tail[0], by_tail[-1]]
    for target in shown:
        table.add_row(
            target.target,
            format_rate(target.achieved_rps),
            str(target.failed_count),
            _moment(_point(target.response, "p50")),
            _moment(_point(target.response, "p99")),
        )
    if len(shown) < len(by_tail):
        table.caption = f"the best and the worst of {len(by_tail)} by p99"
        table.caption_justify = "left"
    return table


def _point(time: TimeSummary, name: str) -> float:
    """A percentile without its interval, for sorting; 0 where there is none."""
    value = next(one.value for one in time.quantiles if one.name == name)
    return value.point if isinstance(value, Estimate) else 0.0


def _failures(result: LoadTestResult) -> Table:
    table = _plain_table("failed with", "count", "what was said")
    table.columns[2].justify = "left"
    for outcome, text, count in result.failures:
        table.add_row(Text(outcome, style="red"), str(count), text)
    return table


def _objectives(result: LoadTestResult) -> Table:
    marks = {True: ("✓ holds", "green"), False: ("✖ fails", "bold red"), None: ("? open", "yellow")}
    grid = Table.grid(padding=(0, 2, 0, 0))
    for objective in result.objectives:
        word, style = marks[objective.holds]
        grid.add_row(Text(word, style=style), Text(objective.text), Text(objective.evidence))
    return grid


def _events(result: LoadTestResult) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for event in result.events:
        grid.add_row(Text(format_duration(event.at_ns), style="dim"), event.kind, event.reason)
    return grid


def _footnote(result: LoadTestResult) -> str:
    first = result.agents[0]
    cpus = ",".join(
        str(cpu) for cpu in sorted({cpu for one in result.agents for cpu in one.cpus_seen})
    )
    clock = first.timestamps.get("used", "user")
    return (
        f"\n[low, high]: 95 % intervals; wait {first.wait}, engine on CPU {cpus or '?'}, "
        f"{clock} time stamps; METHODOLOGY.md defines each number"
    )
