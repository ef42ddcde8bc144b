"""What a person sees of a load while it runs: a table that follows it, on standard error."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from seatrial.report.load_text import sparkline
from seatrial.units import format_count, format_duration, format_rate

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from seatrial.agents.live import LoadSnapshot
    from seatrial.agents.outcome import IntervalOutcome
    from seatrial.loadtest.settings import LoadTestSettings

NS_PER_S: Final = 1_000_000_000
#: Drawing takes CPU that the load may need; more often than this nobody can read anyway.
REDRAWS_PER_S: Final = 2
SPARK_WIDTH: Final = 40


class LiveTable:
    """A table on standard error that follows the load; nothing at all without a terminal."""

    def __init__(self, console: Console, settings: LoadTestSettings, *, is_quiet: bool) -> None:
        self._settings = settings
        self._is_on = console.is_terminal and not is_quiet
        self._live = Live(console=console, refresh_per_second=REDRAWS_PER_S, transient=True)
        self._drawn_at_ns = 0

    def __enter__(self) -> Self:
        """Begins to draw."""
        if self._is_on:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the table away again."""
        if self._is_on:
            self._live.stop()

    def show(self, snapshot: LoadSnapshot, stretches: tuple[IntervalOutcome, ...]) -> None:
        """Draws what has been found so far, unless it was drawn just now."""
        now_ns = time.monotonic_ns()
        if not self._is_on or now_ns - self._drawn_at_ns < NS_PER_S // REDRAWS_PER_S:
            return
        self._drawn_at_ns = now_ns
        self._live.update(self._table(snapshot, by_second(drawn(stretches))))

    def _table(self, snapshot: LoadSnapshot, seconds: list[IntervalOutcome]) -> Table:
        settings = self._settings
        table = Table.grid(padding=(0, 2, 0, 0))
        elapsed = f"{format_duration(snapshot.elapsed_ns)} of {whole_length(settings)}"
        phase = "warming up" if snapshot.elapsed_ns < settings.warm_up_ns else "measuring"
        table.add_row(Text(phase, style="bold"), elapsed, "")
        measured = snapshot.measured
        failed_style = "bold red" if measured.failed_count else ""
        table.add_row("correct", format_count(measured.ok_count), "")
        table.add_row("failed", Text(format_count(measured.failed_count), style=failed_style), "")
        rates = [
            second.ok_count * NS_PER_S / max(1, second.end_ns - second.start_ns)
            for second in seconds
        ]
        tails = [float(second.response.quantile(0.99) or 0) for second in seconds]
        last_rate = format_rate(rates[-1]) if rates else "-"
        last_tail = format_duration(tails[-1]) if tails else "-"
        table.add_row("rate", last_rate, sparkline(rates, SPARK_WIDTH))
        table.add_row("p99 now", last_tail, sparkline(tails, SPARK_WIDTH))
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value_ns = snapshot.response.quantile(share)
            table.add_row(name, "-" if value_ns is None else format_duration(value_ns), "")
        return table


def whole_length(settings: LoadTestSettings) -> str:
    """How long all of it lasts; with --ci it is known only how long at most."""
    around_ns = settings.warm_up_ns + settings.cool_down_ns
    if not settings.precision:
        return format_duration(around_ns + settings.duration_ns)
    most = format_duration(around_ns + settings.budget_ns)
    return f"at most {most}, until {', '.join(settings.precision)}"


def drawn(stretches: tuple[IntervalOutcome, ...]) -> tuple[IntervalOutcome, ...]:
    """The last ones, of which bars are made: all of a long load would take the load's CPU."""
    if not stretches:
        return ()
    last = stretches[-1]
    bar_ns = max(NS_PER_S, last.end_ns - last.start_ns)
    # On a grid, so that bars stay what they are while time goes on; the last is unfinished.
    from_ns = (last.end_ns // bar_ns - SPARK_WIDTH - 1) * bar_ns
    return stretches[bisect_left(stretches, from_ns, key=lambda one: one.start_ns) :]


def by_second(stretches: tuple[IntervalOutcome, ...]) -> list[IntervalOutcome]:
    """Puts stretches together to about a second each; the last, unfinished one is left out."""
    seconds: list[IntervalOutcome] = []
    for stretch in stretches:
        if seconds and seconds[-1].end_ns - seconds[-1].start_ns < NS_PER_S:
            seconds[-1] = seconds[-1].merged(stretch)
        else:
            seconds.append(stretch)
    return seconds[:-1]
