"""Context switches of processes: what an idle sandbox does although it does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROC: Final = Path("/proc")
FIELDS: Final = frozenset({"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"})


def read_switches(pids: Iterable[int], *, proc: Path = PROC) -> dict[int, int]:
    """Maps each live thread of some processes to its context switches so far, of both kinds."""
    found: dict[int, int] = {}
    for pid in pids:
        try:
            folders = list((proc / str(pid) / "task").iterdir())
        except OSError:
            continue
        for folder in folders:
            try:
                text = (folder / "status").read_text()
            except OSError:
                continue
            found[int(folder.name)] = count_switches(text)
    return found


def count_switches(status: str) -> int:
    """Adds up both kinds in the text of a ``status`` file."""
    pairs = (line.partition(":") for line in status.splitlines())
    return sum(int(value) for name, _, value in pairs if name in FIELDS)


def switches_between(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Context switches between two readings, of threads that lived at the second.

    A thread that began in between counts whole; what one did that ended in between is not known.
    """
    return sum(max(count - before.get(thread, 0), 0) for thread, count in after.items())
