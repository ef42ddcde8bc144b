"""Daemons that several sessions of a run share: made by the first, ended after the last.

A run opens a session a trial; it keeps its daemons between them with ``keep``, so that each trial
meets a daemon that is warm, and the same one.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Daemon(Protocol):
    """What is shared."""

    @property
    def is_alive(self) -> bool:
        """Whether it can still serve."""
        ...

    def close(self) -> None:
        """End it and remove what it made."""
        ...


_Kind = TypeVar("_Kind", bound=Daemon)


@dataclass(slots=True)
class _Entry:
    daemon: Daemon
    users: int = 0


_lock: Final = threading.Lock()
_live: Final[dict[tuple[str, str], _Entry]] = {}
_kept: Final[Counter[str]] = Counter()


def acquire(run_id: str, kind: str, make: Callable[[], _Kind]) -> _Kind:
    """Give a run's daemon of a kind, made now if there is none, or none that lives."""
    with _lock:
        entry = _live.get((run_id, kind))
        if entry is not None and not entry.daemon.is_alive and entry.users == 0:
            del _live[run_id, kind]
            entry.daemon.close()
            entry = None
        if entry is None:
            entry = _live[run_id, kind] = _Entry(make())
        entry.users += 1
        # Whoever names a kind makes it too, so all of a kind are of one type.
        return cast("_Kind", entry.daemon)


def release(run_id: str, kind: str) -> None:
    """Give it back; the last one ends it, unless the run keeps its daemons."""
    with _lock:
        entry = _live.get((run_id, kind))
        if entry is None:
            return
        entry.users -= 1
        if entry.users <= 0 and not _kept[run_id]:
            del _live[run_id, kind]
            entry.daemon.close()


@contextlib.contextmanager
def keep(run_id: str) -> Iterator[None]:
    """Keep the daemons of a run between its sessions, and end them afterwards."""
    _kept[run_id] += 1
    try:
        yield
    finally:
        _kept[run_id] -= 1
        with _lock:
            unused = [
                key
                for key, entry in _live.items()
                if key[0] == run_id and entry.users <= 0 and not _kept[run_id]
            ]
            for key in unused:
                _live.pop(key).daemon.close()
