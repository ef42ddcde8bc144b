"""Stopping many sandboxes at once while looking when nothing of each is left."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from seatrial.drivers.base import LauncherLike, Stopped
from seatrial.errors import SeatrialError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class WatchedStop(ABC):
    """Gives a session ``stop_watched``, from its launcher and its ``wait_all_gone``."""

    @property
    @abstractmethod
    def launcher(self) -> LauncherLike:
        """What the sandboxes are held by."""

    @abstractmethod
    def wait_all_gone(self, plan_ids: Sequence[str], deadline_ns: int) -> Mapping[str, int | None]:
        """Wait until nothing of each is left."""

    def stop_watched(
        self, plan_ids: Sequence[str], *, grace_ns: int, gone_timeout_ns: int
    ) -> Stopped:
        """Ask all that are held to stop at once, and see each of ``plan_ids`` go.

        The looking has a thread of its own: done afterwards, the last exit would delay the instants
        of all others. Signals stay with the calling thread.
        """
        deadline_ns = time.monotonic_ns() + grace_ns + gone_timeout_ns
        watch = _Watch(self, plan_ids, deadline_ns)
        watch.start()
        try:
            stops = self.launcher.stop(how="request", grace_ns=grace_ns)
        finally:
            watch.join()
        if watch.error is not None:
            raise watch.error
        return Stopped(stops=stops, gone_at_ns=watch.gone_at_ns)


class _Watch(threading.Thread):
    def __init__(self, session: WatchedStop, ids: Sequence[str], deadline_ns: int) -> None:
        super().__init__(name="watch-gone")
        self._session = session
        self._ids = ids
        self._deadline_ns = deadline_ns
        self.gone_at_ns: Mapping[str, int | None] = dict.fromkeys(ids)
        self.error: SeatrialError | None = None

    def run(self) -> None:
        """Look; an error waits for whoever joins the thread."""
        try:
            self.gone_at_ns = self._session.wait_all_gone(self._ids, self._deadline_ns)
        except SeatrialError as error:
            self.error = error
