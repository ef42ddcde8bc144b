"""Reads ``cpu.txt`` and ``latency.txt`` of one cell.

``cpu.txt`` has a line a round: busy ticks, all ticks (both of the whole host) and their ratio in
per cent. ``latency.txt`` has the mean of all latencies, printed with six digits; running a cell
again puts a second line below the first.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from seatrial.importers.rund.rows import HostCpu
from seatrial.importers.source import Notice

_LINE: Final = re.compile(rb"(?P<busy>\d{1,15}) (?P<total>\d{1,15}) (?P<share>[0-9.e+-]{1,24})")
#: Both files have numbers of six digits: what awk prints.
PRINTED_TOLERANCE: Final = 1e-5


def read_cpu(
    data: bytes | None, *, place: str, rounds_count: int
) -> tuple[HostCpu | None, list[Notice]]:
    """Returns the ticks of every round; None when lines are missing or torn, which is said."""
    if data is None:
        text = f"{place}/cpu.txt is missing: there is no CPU time for this cell"
        return None, [Notice(code="missing-file", message=text)]
    notices: list[Notice] = []
    busy: list[int] = []
    total: list[int] = []
    for number, line in enumerate(data.splitlines(), 1):
        match = _LINE.fullmatch(line)
        pair = (int(match["busy"]), int(match["total"])) if match else (0, 0)
        if match is None or not _is_share(match["share"], *pair):
            shown = line[:60].decode("utf-8", "replace")
            text = (
                f"{place}/cpu.txt, line {number}: got '{shown}', expected 'BUSY TOTAL PERCENT' "
                "that fit together; there is no CPU time for this cell"
            )
            notices.append(Notice(code="torn-line", message=text, line_number=number))
        busy.append(pair[0])
        total.append(pair[1])
    if rounds_count and len(busy) != rounds_count:
        text = (
            f"{place}/cpu.txt has {len(busy)} lines and the clients have {rounds_count} rounds; "
            "there is no CPU time for this cell"
        )
        notices.append(Notice(code="round-mismatch", message=text))
    if notices or not busy:
        return None, notices
    ticks = (np.array(side, dtype=np.int64) for side in (busy, total))
    return HostCpu(busy_ticks=next(ticks), total_ticks=next(ticks)), notices


def _is_share(text: bytes, busy: int, total: int) -> bool:
    try:
        share = float(text)
    except ValueError:
        return False
    return total > 0 and abs(share - busy / total * 100) <= PRINTED_TOLERANCE * max(share, 1)


def check_latency(data: bytes | None, *, place: str, mean: float | None) -> list[Notice]:
    """Holds the printed mean (in ms) against the rows; it is used for nothing else."""
    if data is None or mean is None:
        # The rows say more than their mean.
        return []
    lines = data.split()
    if len(lines) > 1:
        text = (
            f"{place}/latency.txt has {len(lines)} values, as after a second run into the same "
            "directory; latencies are taken from the clients' rows"
        )
        return [Notice(code="appended", message=text, line_number=2)]
    try:
        printed = float(lines[0]) if lines else None
    except ValueError:
        printed = None
    if printed is not None and abs(printed - mean) <= PRINTED_TOLERANCE * mean:
        return []
    shown = data[:60].decode("utf-8", "replace").strip()
    text = f"{place}/latency.txt says '{shown}'; the mean of the clients' rows is {mean:.6g}"
    return [Notice(code="mean-mismatch", message=text)]
