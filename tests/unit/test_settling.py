"""Memory counts as settled when several whole readings in a row agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from seatrial.benches import settling
from seatrial.benches.settling import read_until_settled, settled_memory
from seatrial.probes.memory import ProcessMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seatrial.drivers.base import DriverSession

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


class Pods:
    """A session in which a second process joins the only sandbox at the third look."""

    def __init__(self, *, processes_count: int = 1) -> None:
        self.looks_count = 0
        self._first = dict.fromkeys(range(processes_count), "guest")

    def processes(self, plan_id: str) -> dict[int, str]:
        assert plan_id == "a"
        self.looks_count += 1
        return (
            self._first if self.looks_count < 3 or not self._first else {7: "shim", **self._first}
        )


def memory_of(pids: Iterable[int], *, unreadable_count: int = 0) -> ProcessMemory:
    """A thousand bytes for each process."""
    count = len(set(pids))
    pss_bytes = 1000 * count
    return ProcessMemory(
        pss_bytes=pss_bytes,
        uss_bytes=pss_bytes,
        rss_bytes=pss_bytes,
        private_dirty_bytes=pss_bytes,
        process_count=count,
        unreadable_count=unreadable_count,
    )


def test_a_process_that_joins_late_is_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod's shims do, after the guest has answered."""
    monkeypatch.setattr(settling, "read_processes_memory", memory_of)
    found = settled_memory(cast("DriverSession", Pods()), ["a"])
    assert found is not None
    assert (found.pss_bytes, found.process_count) == (2000, 2)


def test_what_has_no_process_or_cannot_be_read_whole_has_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No number rather than one of some of them."""
    monkeypatch.setattr(settling, "read_processes_memory", memory_of)
    nobody = Pods(processes_count=0)
    assert settled_memory(cast("DriverSession", nobody), ["a"]) is None
    assert nobody.looks_count == 1
    monkeypatch.setattr(settling, "SETTLE_TIMEOUT_NS", 0)
    monkeypatch.setattr(
        settling, "read_processes_memory", lambda pids: memory_of(pids, unreadable_count=1)
    )
    assert settled_memory(cast("DriverSession", Pods()), ["a"]) is None
