"""MITOSIS' stress logs: a line a client and interval, summed over clients that ran side by side.

Three forms are known: the kernel module's ``passed: 1023995us, thpt: 130888 requests/s``, the
fork bench's ``[name] Throughput: 120.04 containers/sec, latency 8.33 ms``, and the user-level
bench's ``epoch @ 3: thpt: 1000 reqs/sec.1000 msec passed since last epoch. 4.16 us``. A *source* is
one client: the host, and for the fork bench the process on it.

The total is the sum over sources of each one's rate, which is its operations by its time after
the first and the last intervals were left out; the original tool's reader averages one machine
and multiplies by the number of machines.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError
from seatrial.importers.source import Notice, nothing_found, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from seatrial.importers.source import Line

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
#: An interval of a source below this share of the median of its intervals is a drop.
DROP_SHARE: Final = 0.1
EXPECTED: Final = (
    "'passed: Nus, thpt: N requests/s', '[name] Throughput: N containers/sec, latency N ms' or "
    "'epoch @ N: thpt: N reqs/sec.N msec passed since last epoch.'"
)

_RPC: Final = re.compile(r"passed: (?P<us>\d+)\s?us, thpt: (?P<rate>\d+(?:\.\d+)?) requests/s")
_FORK: Final = re.compile(
    r"\[(?P<name>[^\]\s]+)\] Throughput: (?P<rate>\d+(?:\.\d+)?) containers/sec, "
    r"latency (?P<ms>\S+) ms"
)
_EPOCH: Final = re.compile(
    r"epoch @ (?P<index>\d+): thpt: (?P<rate>\d+(?:\.\d+)?) reqs/sec\.\s?"
    r"(?P<ms>\d+(?:\.\d+)?) msec passed since last epoch\.(?:\s*(?P<us>\d+(?:\.\d+)?) us)?"
)
_TROUBLE: Final = re.compile(r"\bERROR\b|\bpanicked\b|Error\(Fatal\)|\bBUG\b")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MitosisInterval:
    """What one source did in one interval."""

    source: str
    # Position among the intervals of its source, from 0.
    index: int
    # None: the line does not tell; these benches report once a second or a little less often.
    length_ns: int | None
    rate_per_s: float
    latency_ns: float | None
    line_number: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MitosisSource:
    """The rate of one source over the intervals that count."""

    source: str
    intervals_count: int
    counted_count: int
    rate_per_s: float
    latency_ns: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MitosisLog:
    """All intervals of one log, the rate of each source, and the total."""

    unit: str
    intervals: tuple[MitosisInterval, ...]
    sources: tuple[MitosisSource, ...]
    notices: tuple[Notice, ...]

    @property
    def total_rate_per_s(self) -> float:
        """The sum over all sources, which ran at the same time."""
        return sum(source.rate_per_s for source in self.sources)


def read_mitosis(path: Path, *, skip_first: int = 0, skip_last: int = 0) -> MitosisLog:
    """Returns the intervals and rates of a log.

    The first `skip_first` and the last `skip_last` intervals of each source are left out of the
    rates (warm-up, and the tail in which others have ended); they stay in `intervals`.

    Raises:
        ConfigError: the file cannot be read, holds no such line, mixes two kinds of bench, or a
            source has too few intervals for what is to be skipped.
    """
    intervals: list[MitosisInterval] = []
    units: set[str] = set()
    notices: list[Notice] = []
    counts: dict[str, int] = {}
    for line in read_lines(path):
        found = _interval(line, counts)
        if found is not None:
            units.add(found[0])
            intervals.append(found[1])
        elif _TROUBLE.search(line.text):
            message = f"line {line.number}: {line.text.strip()[:160]}"
            notices.append(Notice(code="error-line", message=message, line_number=line.number))
    if not intervals:
        raise nothing_found(path, EXPECTED)
    if len(units) > 1:
        message = f"{path} mixes {' and '.join(sorted(units))}; expected the log of one bench"
        raise ConfigError(message, hint="cut the log into one file a bench", code="import-mixed")
    sources = [
        _summed(path, name, rows, (skip_first, skip_last))
        for name, rows in _by_source(intervals).items()
    ]
    notices += _drops(intervals)
    return MitosisLog(
        unit=units.pop(),
        intervals=tuple(intervals),
        sources=tuple(sources),
        notices=tuple(notices),
    )


def _interval(line: Line, counts: dict[str, int]) -> tuple[str, MitosisInterval] | None:
    host = line.host or "host"
    if match := _RPC.search(line.text):
        unit, source, length_ns = "requests", host, int(match["us"]) * NS_PER_US
        latency_ns = None
    elif match := _FORK.search(line.text):
        unit, source, length_ns = "containers", f"{host}/{match['name']}", None
        latency_ns = _milliseconds(match["ms"])
    elif match := _EPOCH.search(line.text):
        unit, source = "requests", host
        length_ns = round(float(match["ms"]) * NS_PER_MS)
        latency_ns = None if match["us"] is None else float(match["us"]) * NS_PER_US
    else:
        return None
    index = counts.get(source, 0)
    counts[source] = index + 1
    return unit, MitosisInterval(
        source=source,
        index=index,
        length_ns=length_ns,
        rate_per_s=float(match["rate"]),
        latency_ns=latency_ns,
        line_number=line.number,
    )


def _milliseconds(word: str) -> float | None:
    """A latency in ns; the tool prints a word when nothing was finished in the interval."""
    try:
        return float(word) * NS_PER_MS
    except ValueError:
        return None


def _by_source(intervals: Iterable[MitosisInterval]) -> dict[str, list[MitosisInterval]]:
    groups: dict[str, list[MitosisInterval]] = {}
    for interval in intervals:
        groups.setdefault(interval.source, []).append(interval)
    return groups


def _summed(
    path: Path, source: str, rows: Sequence[MitosisInterval], skipped: tuple[int, int]
) -> MitosisSource:
    first, last = skipped
    counted = rows[first : len(rows) - last]
    if not counted:
        message = (
            f"{path}: {source} has {len(rows)} intervals; expected more than {first + last}, as "
            f"{first} at the begin and {last} at the end are to be skipped"
        )
        hint = "skip fewer with --skip-first and --skip-last, or import a longer log"
        raise ConfigError(message, hint=hint, code="import-short")
    # Weighted by time, since an interval may be longer than asked for.
    lengths = [row.length_ns or NS_PER_S for row in counted]
    operations = sum(row.rate_per_s * ns for row, ns in zip(counted, lengths, strict=True))
    known = [
        (row.latency_ns, row.rate_per_s * ns)
        for row, ns in zip(counted, lengths, strict=True)
        if row.latency_ns is not None and row.rate_per_s > 0
    ]
    weight = sum(count for _, count in known)
    return MitosisSource(
        source=source,
        intervals_count=len(rows),
        counted_count=len(counted),
        rate_per_s=operations / sum(lengths),
        latency_ns=sum(ns * count for ns, count in known) / weight if weight else None,
    )


def _drops(intervals: Sequence[MitosisInterval]) -> Iterable[Notice]:
    """Names the intervals in which a source nearly stood still."""
    for source, rows in _by_source(intervals).items():
        rates = sorted(row.rate_per_s for row in rows)
        median = rates[len(rates) // 2]
        for row in rows:
            if row.rate_per_s <= DROP_SHARE * median or row.rate_per_s < DROP_SHARE:
                yield Notice(
                    code="stalled",
                    message=f"line {row.line_number}: {source} did {row.rate_per_s:g}/s in "
                    f"interval {row.index}; its median is {median:g}/s",
                    line_number=row.line_number,
                )
