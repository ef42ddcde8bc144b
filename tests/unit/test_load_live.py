"""What is kept and drawn of a load while it runs does not grow with its length."""

from __future__ import annotations

from itertools import pairwise

from seatrial.agents.live import STRETCHES_MAX, IntervalBook
from seatrial.agents.outcome import IntervalOutcome
from seatrial.loadgen import Histogram
from seatrial.report.load_live import NS_PER_S, SPARK_WIDTH, by_second, drawn

STRETCH_NS = 100_000_000


def stretch(number: int, width_ns: int = STRETCH_NS) -> IntervalOutcome:
    """One in which as many replies came as its number says."""
    return IntervalOutcome(
        start_ns=number * width_ns,
        end_ns=(number + 1) * width_ns,
        intended_count=1,
        sent_count=1,
        ok_count=number,
        failed_count=0,
        sent_bytes=0,
        received_bytes=0,
        response=Histogram(),
    )


def test_a_long_load_keeps_no_more_stretches_and_loses_nothing() -> None:
    """Pairs become one, on the grid of the first; what they counted stays."""
    book = IntervalBook()
    count = 5 * STRETCHES_MAX
    for number in range(count):
        book.add([stretch(number)])
    kept = book.merged()
    assert STRETCHES_MAX / 2 <= len(kept) <= STRETCHES_MAX
    assert sum(one.ok_count for one in kept) == sum(range(count))
    assert {one.end_ns - one.start_ns for one in kept} == {8 * STRETCH_NS}
    assert all(one.end_ns == two.start_ns for one, two in pairwise(kept))


def test_only_what_the_bars_show_is_put_together() -> None:
    """The bars are those of the whole load, whatever its length."""
    for count in (0, 5, 1234, 5678):
        stretches = tuple(stretch(number) for number in range(count))
        bars = [one.ok_count for one in by_second(stretches)][-SPARK_WIDTH:]
        assert [one.ok_count for one in by_second(drawn(stretches))][-SPARK_WIDTH:] == bars
        assert len(drawn(stretches)) <= (SPARK_WIDTH + 2) * NS_PER_S // STRETCH_NS


def test_bars_of_wide_stretches_are_as_many() -> None:
    """Stretches of three seconds are a bar each."""
    stretches = tuple(stretch(number, 3 * NS_PER_S) for number in range(1000))
    assert len(by_second(drawn(stretches))) >= SPARK_WIDTH
