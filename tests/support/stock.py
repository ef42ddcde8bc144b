"""What a process owns at one instant: descriptors, threads and children."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Descriptors that libraries open once, on first use, and keep for the life of the process.
KEPT_BY_LIBRARIES = ("/dev/urandom", "/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]")
#: A native thread of what draws figures. It starts with the first figure, together with a pair of
#: sockets, and both stay for the life of the process.
DRAWING_THREAD = "tokio-runtime-w"


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What a process owns at one instant."""

    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]
    children: dict[int, str]
    has_drawn: bool = False


def has_drawn() -> bool:
    """Whether this process has drawn a figure before."""
    for comm in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # a thread may end while we look
            if comm.read_text().strip() == DRAWING_THREAD:
                return True
    return False


def open_descriptors() -> dict[int, str]:
    """Every open descriptor of this process and what it points to."""
    found: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)  # noqa: PTH115 - targets like socket:[1] are no paths
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def own_children() -> dict[int, str]:
    """Pid and name of each child of this process, zombies included."""
    found: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid():
            found[int(stat.parent.name)] = f"{name} ({state})"
    return found


def take_stock() -> Belongings:
    """What this process owns now."""
    return Belongings(
        descriptors=open_descriptors(),
        threads=frozenset(threading.enumerate()),
        children=own_children(),
        has_drawn=has_drawn(),
    )


def differences(before: Belongings, after: Belongings) -> list[str]:
    """One line for each thing that `after` has and `before` had not."""
    kept: tuple[str, ...] = KEPT_BY_LIBRARIES
    if after.has_drawn and not before.has_drawn:
        kept = (*kept, "socket:")
    lines = [
        f"descriptor {number} -> {target}"
        for number, target in after.descriptors.items()
        if before.descriptors.get(number) != target and not target.startswith(kept)
    ]
    lines += [f"thread {thread.name}" for thread in after.threads - before.threads]
    lines += [
        f"child {pid} {name}" for pid, name in after.children.items() if pid not in before.children
    ]
    return lines
