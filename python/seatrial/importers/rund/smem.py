"""Reads the tables of smem in the trees ``mem_*``, and checks whose processes are in them.

smem was told a pattern of command lines, so what it lists depends on where a runtime is installed.
Each sandbox of a runtime has a fixed set of processes: a table that does not have that many of
each is no measurement of so many sandboxes, and is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.importers.rund.rows import Processes
from seatrial.importers.source import Notice
from seatrial.units import KIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS: Final = ("Name", "USS", "PSS", "RSS", "VSS")
#: The processes of one sandbox, by the runtime's name in the data. Names have at most 15 letters.
EXPECTED: Final[Mapping[str, Mapping[str, int]]] = {
    "kata": {"qemu-virtiofs-s": 1, "virtiofsd": 2, "containerd-shim": 1},
    "katafc": {"firecracker": 1, "containerd-shim": 1},
    "katatemplate": {"qemu-system-x86": 1, "containerd-shim": 1},
    "rund": {"rund": 1},
}
#: RunD's processes have the begin of the sandbox's id in their name.
_NAMED_BY_ID: Final = re.compile(r"^rund-[0-9a-f]{8}$", re.MULTILINE)
_ROW: Final = re.compile(rb"(?P<name>\S.*?) +(?P<numbers>\d+ +\d+ +\d+ +\d+) *")
_WHOLE: Final = re.compile(rb"Name +USS +PSS +RSS +VSS *\n(?:[^ \n]+ +\d+ +\d+ +\d+ +\d+ ?\n)*")


class NoTable(Exception):
    """The file is not such a table, or not of the sandboxes that its name promises."""


def read_table(data: bytes, *, place: str) -> tuple[Processes, list[Notice]]:
    """Returns the processes in a table.

    Raises:
        NoTable: a line is torn, a process is listed twice, or nothing is in it.
    """
    names, numbers = _fast(data) if _WHOLE.fullmatch(data) else _line_by_line(data)
    if not names:
        raise NoTable("no process in it")
    if len(set(names)) < len(names):
        for name, count in Counter(names).items():
            if count > 1 and _NAMED_BY_ID.match(name):
                raise NoTable(f"process {name} is listed twice")
    table = np.array(numbers, dtype=np.int64).reshape(len(names), len(COLUMNS) - 1) * KIB
    uss, pss, rss, vss = table.T
    processes = Processes(
        names=tuple(names), uss_bytes=uss, pss_bytes=pss, rss_bytes=rss, vss_bytes=vss
    )
    if bool(np.any(uss > pss)) or bool(np.any(pss > rss)):
        text = f"{place}: a process has USS above PSS, or PSS above RSS"
        return processes, [Notice(code="implausible", message=text)]
    return processes, []


def _fast(data: bytes) -> tuple[list[str], list[int]]:
    words = data.split()
    width = len(COLUMNS)
    names = b" ".join(words[width::width]).decode().split(" ") if len(words) > width else []
    del words[::width]
    return names, list(map(int, words[width - 1 :]))


def _line_by_line(data: bytes) -> tuple[list[str], list[int]]:
    """Names the line that is not whole; also takes names with blanks in them."""
    names: list[str] = []
    numbers: list[int] = []
    lines = data.split(b"\n")
    if tuple(lines[0].decode("utf-8", "replace").split()) != COLUMNS:
        shown = lines[0][:60].decode("utf-8", "replace")
        raise NoTable(f"line 1: got '{shown}', expected '{' '.join(COLUMNS)}'")
    if lines[-1]:
        raise NoTable(f"line {len(lines)}: the file ends in the middle of a line")
    for number, line in enumerate(lines[1:-1], 2):
        match = _ROW.fullmatch(line)
        if match is None:
            shown = line[:60].decode("utf-8", "replace")
            raise NoTable(f"line {number}: got '{shown}', expected a name and four numbers")
        names.append(match["name"].decode("utf-8", "replace"))
        numbers += map(int, match["numbers"].split())
    return names, numbers


def kinds_of(names: Sequence[str]) -> Counter[str]:
    """Counts processes by kind, ids taken off their names."""
    # All names at once: a table may have thousands, each another.
    return Counter(_NAMED_BY_ID.sub("rund", "\n".join(names)).split("\n"))


def check_processes(runtime: str, names: Sequence[str], *, count: int) -> None:
    """Makes sure that the table has the processes of ``count`` sandboxes, and nothing else.

    Of a runtime that is not known, the processes of each kind must be a multiple of ``count``.

    Raises:
        NoTable: processes are missing, or too many.
    """
    found = kinds_of(names)
    expected = EXPECTED.get(runtime)
    if expected is not None:
        wrong = [
            f"{found[kind]} of {kind} where {each * count} are expected"
            for kind, each in expected.items()
            if found[kind] != each * count
        ]
        wrong += [f"{found[kind]} of {kind}" for kind in sorted(set(found) - set(expected))]
    else:
        wrong = [
            f"{number} of {kind}, no multiple of {count}"
            for kind, number in sorted(found.items())
            if number % count
        ]
    if wrong:
        raise NoTable(f"not the processes of {count} sandboxes: {', '.join(wrong)}")
