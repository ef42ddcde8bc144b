"""The page of one load: what it found and how sure that is, on one screen; then why, then how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.model.estimate import Estimate
from seatrial.model.finding import Severity
from seatrial.report.load_text import (
    HEADINGS,
    OBJECTIVE_MARKS,
    cpus_of,
    heading_of,
    kind_of,
    rate_rows,
    sample_text,
    shown_times,
    stamps_of,
    writes_of,
)
from seatrial.report.page import render_template
from seatrial.report.view import SEVERITY_GLYPHS
from seatrial.units import format_bytes, format_count, format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.loadtest.result import LoadTestResult, Quantile, TimeSummary
    from seatrial.report.parts import Figure

#: Its name in a directory of `seatrial load --out`.
PAGE: Final = "report.html"
#: Percentiles that a reader looks at first.
HEADLINES: Final = ("p50", "p99", "p99.9")
#: {outcome: its counter}.
OUTCOMES: Final = {
    "timeout": "timeout_count",
    "refused": "refused_count",
    "reset": "reset_count",
    "protocol-error": "protocol_error_count",
    "application-error": "application_error_count",
    "unsent": "unsent_count",
}
METHOD: Final = {
    "Response time": """\
From the instant a request was due to its last byte, whatever the replies before it did. Waiting for
a free place and the generator's own lateness are in it; the columns beside it say how much.""",
    "Service time": """\
From sending a request to its last byte. It is shorter than what a user feels when requests have to
wait before they are sent; a closed loop has nothing else.""",
    "Intervals": """\
Between two order statistics, at 95 %, by the number of independent values that the sample is worth.
~ marks a percentile of this sample alone, which is worth no interval.""",
    "Offered, achieved": """\
Offered is what was due in the measured time, achieved the correct replies that came in it. Requests
that fail have no time, so they are in no percentile, but they count against every objective.""",
}
#: {end of a setting's name: how its value is told}.
FORMATS: Final = {"ns": format_duration, "rps": format_rate, "bytes": format_bytes}
#: Settings by which processes agree on their parts; nobody asks for them.
INTERNAL: Final = frozenset({"agent", "agents", "start_at_ns"})
#: Where there is no number.
ABSENT: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number at the top, what stands under it, and why it may not be believed."""

    name: str
    value: str
    note: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place of the table of times."""

    value: str
    interval: str
    explanation: str
    is_estimate: bool


def render_load_page(result: LoadTestResult, *, figures: Sequence[Figure] | None = None) -> str:
    """The whole page as text.

    Raises:
        StoreError: a stored histogram is damaged.
    """
    from seatrial.report.load_charts import load_figures  # Altair takes a second to import

    drawn = load_figures(result) if figures is None else figures
    times = shown_times(result)
    return render_template(
        "load.html.j2",
        figures=drawn,
        findings=result.verdicts,
        result=result,
        kind=kind_of(result),
        writes=writes_of(result.settings.protocol, result.settings.options),
        tiles=_tiles(result),
        rates=rate_rows(result),
        objectives=[(OBJECTIVE_MARKS[one.holds], one) for one in result.objectives],
        headings=[heading_of(time, times) for time in times],
        rows=list(_rows(times)),
        outcomes=_outcomes(result),
        events=[(format_duration(one.at_ns), one) for one in result.events],
        targets=list(_targets(result)),
        agents=list(_agents(result)),
        method=METHOD,
        settings=dict(_settings(result)),
        measured=format_duration(result.measure_length_ns),
        cpus=cpus_of(result),
    )


def _tiles(result: LoadTestResult) -> Iterable[Tile]:
    yield _verdict(result)
    if result.offered_rps is not None:
        yield Tile(name="offered", value=format_rate(result.offered_rps), note=_asked(result))
    share = (
        "" if not result.offered_rps else f"{result.achieved_rps / result.offered_rps:.1%} of it"
    )
    yield Tile(
        name="achieved",
        value=format_rate(result.achieved_rps),
        note=share or "as fast as it answered",
    )
    for quantile in result.headline.quantiles:
        if quantile.name in HEADLINES:
            place = _place(quantile)
            yield Tile(
                name=f"{quantile.name} {HEADINGS[result.headline.kind]}",
                value=place.value,
                note=place.interval,
                tone="" if place.is_estimate else "quiet",
            )
    measured = result.measured
    of = f"of {format_count(measured.intended_count)}"
    yield Tile(
        name="failed",
        value=format_count(measured.failed_count),
        note=of,
        tone="error" if measured.failed_count else "",
    )


def _asked(result: LoadTestResult) -> str:
    """The rates that were asked for; the pattern where that says them itself."""
    asked = [part.asked_rps for part in result.parts] or [result.settings.rate_rps]
    told = [format_rate(one) for one in asked if one is not None]
    return f"asked for {' + '.join(told)}" if told else result.settings.pattern


def _verdict(result: LoadTestResult) -> Tile:
    worst = next(
        (
            one
            for severity in (Severity.ERROR, Severity.WARNING)
            for one in result.verdicts
            if one.severity is severity
        ),
        None,
    )  # fmt: skip - the two loops are one sentence
    if worst is None:
        return Tile(name="verdict", value="✓ ok", note="nothing speaks against it", tone="calm")
    others = sum(one.severity is not Severity.INFO for one in result.verdicts) - 1
    return Tile(
        name="verdict",
        value=f"{SEVERITY_GLYPHS[worst.severity]} {worst.code}",
        note=f"and {others} more, see Findings" if others else "see Findings",
        tone=worst.severity.value,
    )


def _rows(times: Sequence[TimeSummary]) -> Iterable[tuple[str, list[Place]]]:
    yield "mean", [_moment(time.mean_ns) for time in times]
    for number, quantile in enumerate(times[0].quantiles):
        yield quantile.name, [_place(time.quantiles[number]) for time in times]
    yield "max", [_moment(time.max_ns) for time in times]
    yield (
        "values",
        [
            Place(value=format_count(time.count), interval="", explanation="", is_estimate=True)
            for time in times
        ],
    )


def _moment(value_ns: float | None) -> Place:
    value = ABSENT if value_ns is None else format_duration(value_ns)
    return Place(value=value, interval="", explanation="", is_estimate=value_ns is not None)


def _place(quantile: Quantile) -> Place:
    value = quantile.value
    if isinstance(value, Estimate):
        return Place(
            value=format_duration(value.point),
            interval=f"[{format_duration(value.low)}, {format_duration(value.high)}]",
            explanation=value.method,
            is_estimate=True,
        )
    return Place(
        value=sample_text(quantile),
        interval=f"no interval: needs {format_count(value.n_needed)}" if value.n_needed else "",
        explanation=value.reason,
        is_estimate=False,
    )


def _outcomes(result: LoadTestResult) -> list[tuple[str, int, int]]:
    """Outcomes that occurred: in the measured time, and in the whole run."""
    found = [
        (name, getattr(result.measured, field), getattr(result.counts, field))
        for name, field in OUTCOMES.items()
    ]
    return [one for one in found if one[2]]


def _targets(result: LoadTestResult) -> Iterable[tuple[str, str, int, list[Place]]]:
    for target in result.targets:
        quantiles = {one.name: one for one in target.response.quantiles}
        shown = [_place(quantiles[name]) for name in ("p50", "p99") if name in quantiles]
        yield target.target, format_rate(target.achieved_rps), target.failed_count, shown


def _agents(result: LoadTestResult) -> Iterable[dict[str, str]]:
    for agent in result.agents:
        length_ns = max(1, agent.ended_at_ns - agent.started_at_ns)
        busy = (agent.user_ns + agent.system_ns) / length_ns
        yield {
            "name": agent.name,
            "threads": str(agent.threads_count),
            "connections": str(agent.connections_count),
            "wait": agent.wait,
            "CPUs seen": ",".join(str(cpu) for cpu in agent.cpus_seen) or "?",
            "of a CPU": f"{busy:.0%}",
            "preempted": format_count(agent.involuntary_switch_count),
            "time stamps": stamps_of(agent),
        }


def _settings(result: LoadTestResult) -> Iterable[tuple[str, str]]:
    """Names without their unit, values with it."""
    for name, value in dataclasses.asdict(result.settings).items():
        if name in INTERNAL:
            continue
        stem, _, unit = name.rpartition("_")
        told, shown = name, _plain(value)
        if unit in FORMATS and isinstance(value, int | float):
            told, shown = stem, FORMATS[unit](value)
        elif unit in FORMATS:
            told = stem
        yield told.replace("_", " "), shown


def _plain(value: object) -> str:
    """A setting as it was written; what was not set stays so."""
    if value is None:
        return ABSENT
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items()) or ABSENT
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value) or ABSENT
    return str(value)
