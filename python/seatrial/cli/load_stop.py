"""What Ctrl-C and SIGTERM do to a load: it ends early, and what was measured is kept."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """In its ``with`` block both signals are a `KeyboardInterrupt` for the load that runs.

    After `hold` there is a result to be told and written, which takes a bounded time: neither
    signal breaks into that, but for a second Ctrl-C. SIGTERM counts once, since some who send it
    (`timeout`, say) send it to the process and then to its group.
    """

    def __init__(self) -> None:
        """Changes nothing yet."""
        self._counts: Counter[int] = Counter()
        self._is_held = False
        self._before: dict[signal.Signals, object] = {}

    def hold(self) -> None:
        """Says that the load is over."""
        self._is_held = True

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._counts[number] += 1
        is_first = self._counts[number] == 1
        if (is_first and self._is_held) or (number == signal.SIGTERM and not is_first):
            return
        raise KeyboardInterrupt

    def __enter__(self) -> Self:
        """Takes both signals."""
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives both back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
