"""A load test in a terminal: verdict first, then rates, then percentiles side by side."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from rich.console import Group as Stack
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from seatrial.agents.outcome import Tally
from seatrial.model.estimate import Estimate
from seatrial.report.text import SEVERITY_STYLES
from seatrial.report.view import SEVERITY_GLYPHS
from seatrial.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from seatrial.agents.outcome import AgentFacts
    from seatrial.loadtest.result import LoadTestResult, PartSummary, Quantile, TimeSummary

#: Kinds of time in the order of their columns, and what each heading says.
HEADINGS: Final = {
    "response": "response time",
    "service": "service time",
    # Only there if it was asked for, by --timestamps.
    "wire": "wire and server",
    "queue": "waited for a place",
    "send_lag": "sent after due",
    "pacing_lag": "of that, pacing lag",
    "wake": "wake-up",
}
#: The heading of our own lag where no column before it shows the lag that it is a part of.
OWN_LAG_ALONE: Final = "pacing lag"
#: Wider than any table: Rich's measures are cut to the width that it is told.
WIDTH_ENDLESS: Final = 10_000
NS_PER_US: Final = 1_000
OBJECTIVE_MARKS: Final = {True: "✓ holds", False: "✖ fails", None: "? open"}
OBJECTIVE_STYLES: Final = {True: "green", False: "bold red", None: "yellow"}
#: Protocols whose requests change what a server keeps.
STORES: Final = frozenset({"resp", "memcached"})
BARS: Final = " ▁▂▃▄▅▆▇█"
#: A column of fewer values tells nothing.
COUNT_MIN: Final = 100
#: Targets that are listed one by one; with more, the best and the worst.
TARGETS_MAX: Final = 12


def render_result(result: LoadTestResult) -> RenderableType:
    """The result as something that Rich can print."""
    parts: list[RenderableType] = [_head(result), "", _verdicts(result), "", _rates(result), ""]
    parts.append(_Times(result))
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


def kind_of(result: LoadTestResult) -> str:
    """What was offered, in words: open or closed, the law, the rates, by whom, for how long."""
    settings = result.settings
    if result.offered_rps is not None:
        at = "" if settings.rate_rps is None else f" at {format_rate(settings.rate_rps)}"
        kind = f"open loop, {settings.arrival} arrivals{at}"
        if settings.pattern != "fixed":
            kind = f"{kind}, {settings.pattern}"
    else:
        kind = "closed loop: tells capacity, not what users feel"
    length = format_duration(result.measure_length_ns)
    if result.was_interrupted:
        length = f"{length}, then interrupted"
    return f"{kind}, {settings.connections} connections{_agents(result)}, measured for {length}"


def _agents(result: LoadTestResult) -> str:
    told = [
        f", {_who(part)} beside them at {format_rate(part.asked_rps)}"
        if part.role == "latency" and part.asked_rps is not None
        else f" of {_who(part)}"
        for part in result.parts
    ]
    if told:
        return "".join(told)
    return f" of {len(result.agents)} agents" if len(result.agents) > 1 else ""


def _who(part: PartSummary) -> str:
    return f"{part.agents_count} {part.role} agent{'s' if part.agents_count > 1 else ''}"


def writes_of(protocol: str, options: Mapping[str, str]) -> str:
    """What loads write into a store, as a sentence without its end; empty for nothing."""
    if protocol not in STORES or "command" in options:
        return ""
    keys = options.get("keys", "10000")
    share = 1.0 - float(options.get("read_ratio", "0.9"))
    told = []
    if share > 0:
        told.append(
            f"{share * 100:.3g}% of the requests write: they set one of {keys} keys on the server "
            "(--option read_ratio=1 only reads)"
        )
    if options.get("preload") == "true":
        told.append(f"all {keys} keys were set before the load")
    return "; ".join(told)


def _head(result: LoadTestResult) -> Text:
    writes = writes_of(result.settings.protocol, result.settings.options)
    head = Text.assemble((result.url, "bold"), f"  {kind_of(result)}")
    return head.append(f"\n{writes}", style="yellow") if writes else head


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RateRow:
    """Rates and counts of all agents together, or of those of one role."""

    who: str
    offered: str
    achieved: str
    measured: Tally
    failed: str
    received: str
    sent: str


def rate_rows(result: LoadTestResult) -> tuple[RateRow, ...]:
    """One row; where some agents only measure, one for each role and one for all."""
    rows = [_rate_row(_who(part), part, part.offered_rps) for part in result.parts]
    return (*rows, _rate_row("together" if rows else "", result, result.offered_rps))


def _rate_row(who: str, of: LoadTestResult | PartSummary, offered_rps: float | None) -> RateRow:
    measured = of.measured
    share = measured.failed_count / measured.intended_count if measured.intended_count else 0.0
    return RateRow(
        who=who,
        offered="-" if offered_rps is None else format_rate(offered_rps),
        achieved=format_rate(of.achieved_rps),
        measured=measured,
        failed=f"{format_count(measured.failed_count)} ({share:.2%})",
        received=f"{format_bytes(of.received_bytes_per_s)}/s",
        sent=f"{format_bytes(of.sent_bytes_per_s)}/s",
    )


def _rates(result: LoadTestResult) -> Table:
    rows = rate_rows(result)
    who = [""] if result.parts else []
    table = _plain_table(
        *who, "offered", "achieved", "due", "correct", "failed", "received", "sent"
    )
    for row in rows:
        style = "bold red" if row.measured.failed_count else ""
        table.add_row(
            *([row.who] if result.parts else []),
            row.offered,
            row.achieved,
            str(row.measured.intended_count),
            str(row.measured.ok_count),
            Text(row.failed, style=style),
            row.received,
            row.sent,
        )
    return table


def shown_times(result: LoadTestResult) -> list[TimeSummary]:
    """The kinds of time in the order of their columns, the headline first; few values are none."""
    told = (result.time(kind) for kind in HEADINGS)
    shown = [time for time in told if time is not None and time.count >= COUNT_MIN]
    return [result.headline, *(time for time in shown if time is not result.headline)]


class _Times:
    """Percentiles of the kinds of time side by side, as many kinds as fit into the width."""

    def __init__(self, result: LoadTestResult) -> None:
        self._shown = shown_times(result)
        self._headline = result.headline

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Leaves out columns from the right rather than break a number; the JSON has them all."""
        count = len(self._shown)
        table = self._table(count)
        endless = options.update(max_width=WIDTH_ENDLESS)
        while count > 1 and Measurement.get(console, endless, table).maximum > options.max_width:
            count -= 1
            table = self._table(count)
        yield table
        if count < len(self._shown):
            left_out = ", ".join(heading_of(time, self._shown) for time in self._shown[count:])
            yield Text(f"not shown for want of width: {left_out} (--json has them)", style="dim")

    def _table(self, count: int) -> Table:
        shown = self._shown[:count]
        table = _plain_table("", *(heading_of(time, self._shown) for time in shown))
        for column in table.columns:
            column.no_wrap = True
        table.add_row("mean", *(_moment(time.mean_ns) for time in shown))
        for number, quantile in enumerate(self._headline.quantiles):
            cells = [_cell(time.quantiles[number]) for time in shown]
            table.add_row(Text(quantile.name, style="bold"), *cells)
        table.add_row("max", *(_moment(time.max_ns) for time in shown))
        return table


def heading_of(time: TimeSummary, shown: Sequence[TimeSummary]) -> str:
    """The kind beside others, and of how many where it is not every request: those that waited."""
    if time.kind == "pacing_lag" and not any(one.kind == "send_lag" for one in shown):
        return OWN_LAG_ALONE
    heading = HEADINGS[time.kind]
    if time.kind != "queue" or time.count >= shown[0].count:
        return heading
    return f"{heading} ({format_count(time.count)})"


def _moment(value_ns: float | None) -> str:
    return "-" if value_ns is None else format_duration(value_ns)


def _cell(quantile: Quantile) -> Text:
    value = quantile.value
    if not isinstance(value, Estimate):
        # Why so many are needed is in the JSON; here it would push the columns apart.
        needed = "" if value.n_needed is None else f" (need {value.n_needed})"
        return Text(f"{sample_text(quantile)}{needed}", style="dim")
    text = Text(format_duration(value.point))
    text.append(f" [{format_duration(value.low)}, {format_duration(value.high)}]", style="dim")
    return text


def sample_text(quantile: Quantile) -> str:
    """What the sample has at a percentile, marked as worth no interval."""
    return "n/a" if quantile.sample_ns is None else f"~{format_duration(quantile.sample_ns)}"


def _targets(result: LoadTestResult) -> Table:
    table = _plain_table("server", "achieved", "failed", "p50", "p99")
    by_tail = sorted(
        result.targets, key=lambda target: _named(target.response, "p99").sample_ns or 0
    )
    shown = by_tail if len(by_tail) <= TARGETS_MAX else [by_tail[0], by_tail[-1]]
    for target in shown:
        table.add_row(
            target.target,
            format_rate(target.achieved_rps),
            str(target.failed_count),
            _point(_named(target.response, "p50")),
            _point(_named(target.response, "p99")),
        )
    if len(shown) < len(by_tail):
        table.caption = f"the best and the worst of {len(by_tail)} by p99"
        table.caption_justify = "left"
    return table


def _named(time: TimeSummary, name: str) -> Quantile:
    return next(one for one in time.quantiles if one.name == name)


def _point(quantile: Quantile) -> str:
    """A percentile without its interval."""
    value = quantile.value
    return format_duration(value.point) if isinstance(value, Estimate) else sample_text(quantile)


def _failures(result: LoadTestResult) -> Table:
    """What was said, over the whole run: what fails in the warm-up is worth knowing too."""
    table = _plain_table("in the whole run", "count", "what was said")
    table.columns[2].justify = "left"
    for failure in result.failures:
        style = "" if failure.outcome == "ok" else "red"
        table.add_row(Text(failure.outcome, style=style), str(failure.count), Text(failure.text))
    return table


def _objectives(result: LoadTestResult) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for objective in result.objectives:
        word = OBJECTIVE_MARKS[objective.holds]
        style = OBJECTIVE_STYLES[objective.holds]
        grid.add_row(Text(word, style=style), Text(objective.text), Text(objective.evidence))
    return grid


def _events(result: LoadTestResult) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for event in result.events:
        grid.add_row(Text(format_duration(event.at_ns), style="dim"), event.kind, event.reason)
    return grid


def cpus_of(result: LoadTestResult) -> str:
    """The processors on which the engine was seen."""
    seen = sorted({cpu for agent in result.agents for cpu in agent.cpus_seen})
    return ",".join(str(cpu) for cpu in seen) or "?"


def stamps_of(agent: AgentFacts) -> str:
    """Who stamped packets, and why not whoever was asked to."""
    told = agent.timestamps
    used, asked = told.get("used", "user"), told.get("requested", "user")
    if used == asked:
        return str(used)
    return f"{used} instead of {asked} ({told.get('reason') or 'no reason given'})"


def _footnote(result: LoadTestResult) -> str:
    first = result.agents[0]
    return (
        f"\n[low, high]: 95 % intervals; ~: of this sample, which is worth no interval "
        f"(need so many values); wait {first.wait}, engine on CPU {cpus_of(result)}, "
        f"{stamps_of(first)} time stamps; METHODOLOGY.md defines each number"
    )
