"""A search for capacity in a terminal: a line a trial, then the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from seatrial.report.load_text import writes_of
from seatrial.stats.objective import Side
from seatrial.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from seatrial.loadtest.capacity import CapacityResult
    from seatrial.stats.capacity import CapacityRate, TrialWish
    from seatrial.stats.capacity_trial import Judged

STYLES: Final = {Side.KEEPS: "green", Side.BREAKS: "red", Side.UNDECIDED: "yellow"}


class TrialLines:
    """Tells each trial as it begins and ends."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._number = 0

    def begin(self, wish: TrialWish) -> None:
        """Says what is tried."""
        self._number += 1
        length = format_duration(wish.length_ns)
        self._say(f"trial {self._number}: {format_rate(wish.rate_rps)} for {length} ({wish.why})")

    def end(self, judged: Judged) -> None:
        """Says what it decided."""
        self._say(f"  {judged.side}: {judged.why}")


def render_capacity(result: CapacityResult) -> RenderableType:
    """The answer first, then every trial."""
    capacity = result.capacity
    parts: list[RenderableType] = [
        Text.assemble((result.url, "bold"), f"  highest rate with {', '.join(result.objectives)}")
    ]
    writes = writes_of(result.protocol, result.options)
    if writes:
        parts.append(Text(writes, style="yellow"))
    rate = capacity.rate
    if rate is None:
        parts.append(Text(f"{capacity.verdict}: {capacity.reason}", style="yellow"))
    else:
        parts.append(_answer(rate))
        parts.append(Text(f"{capacity.verdict}: {capacity.reason}"))
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("rate", "length", "", "why", "doubts"):
        table.add_column(heading, header_style="dim")
    for number, trial in enumerate(capacity.trials):
        table.add_row(
            format_rate(trial.rate_rps),
            format_duration(trial.length_ns),
            Text(str(trial.side), style=STYLES[trial.side]),
            trial.why,
            Text(", ".join(result.doubts.get(str(number), ())), style="yellow"),
        )
    parts += ["", table]
    parts.append(
        Text(
            f"\n{len(capacity.trials)} trials, {format_duration(capacity.measured_ns)} measured",
            style="dim",
        )
    )
    return Stack(*parts)


def _answer(rate: CapacityRate) -> Text:
    """The rate with its interval; what is open at one end is not told like a number found."""
    if rate.low is not None and rate.high is not None and rate.point is not None:
        interval = f" [{format_rate(rate.low)}, {format_rate(rate.high)}]"
        return Text.assemble((format_rate(rate.point), "bold green"), (interval, "dim"))
    end = f"at least {format_rate(rate.low)}" if rate.low is not None else ""
    if rate.high is not None:
        end = f"less than {format_rate(rate.high)}"
    about = "" if rate.point is None else f", about {format_rate(rate.point)}"
    return Text.assemble((end, "bold yellow"), (about, "dim"))
