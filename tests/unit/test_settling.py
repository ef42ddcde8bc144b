"""Memory counts as settled when several whole readings in a row agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.benches import settling
from seatrial.benches.settling import read_until_settled

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_NS = 60_000_000_000


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLE_INTERVAL_NS", 0)


def reader(*values: float | None) -> tuple[Callable[[], float | None], list[float | None]]:
    """Gives these readings one after another, the last one for ever; and what was taken."""
    taken: list[float | None] = []

    def read() -> float | None:
        taken.append(values[min(len(taken), len(values) - 1)])
        return taken[-1]

    return read, taken


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ((100.0,), 3),
        ((100.0, 100.5, 100.9), 3),
        ((100.0, 100.0, 1300.0), 5),
        ((100.0, 90.0, 99.5, 99.9, 100.2), 5),
        ((100.0, 100.0, None, 100.0), 6),
        ((0.0,), 3),
    ],
)
def test_three_in_a_row_agree(values: tuple[float | None, ...], count: int) -> None:
    """What joins late, and what could not be read whole, starts the count anew."""
    read, taken = reader(*values)
    assert read_until_settled(read, timeout_ns=LONG_NS)
    assert len(taken) == count


@pytest.mark.parametrize("values", [(None,), (1.0, 2.0, 4.0, 8.0)])
def test_what_does_not_settle_in_time_is_told(values: tuple[float | None, ...]) -> None:
    """No time at all is time for one reading, which agrees with nothing."""
    read, taken = reader(*values)
    assert not read_until_settled(read, timeout_ns=0)
    assert len(taken) == 1
