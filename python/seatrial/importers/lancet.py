"""Lancet's result tables: throughput and latency blocks, as its coordinator prints them.

A block is a throughput table (``#ReqCount QPS RxBw TxBw``, bandwidths in bytes per second) and a
latency table (``#Avg Lat 50th 90th ...``, microseconds, each percentile as ``value(low, high)``
with a 95 % interval). Lancet prints 0 for a bound whose rank lies outside of the sample; here it
becomes unknown. Its percentiles over several agents are means of the agents' percentiles, which
are not percentiles of anything; a log does not tell how many agents there were.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError
from seatrial.importers.source import Notice, nothing_found, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from seatrial.importers.source import Line

NS_PER_US: Final = 1_000
#: Replies below this share of the requests that were sent: the server did not keep up.
ANSWERED_SHARE_MIN: Final = 0.99
EXPECTED: Final = "Lancet's tables '#ReqCount QPS RxBw TxBw' and '#Avg Lat 50th ...'"

_THROUGHPUT_HEADER: Final = ("#ReqCount", "QPS", "RxBw", "TxBw")
_QUANTILE: Final = re.compile(r"(?P<value>\S+?)\((?P<low>[^,()\s]+),\s*(?P<high>[^,()\s]+)\)")
_DURATION: Final = re.compile(r"^Will run for (?P<seconds>\d+(?:\.\d+)?) sec")
_ARRIVALS: Final = re.compile(r"^Check inter-arrival: \[(?P<answers>.*)\]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LancetQuantile:
    """One percentile with its 95 % interval; a bound is None when Lancet could not tell it."""

    percentile: float
    point_ns: float
    low_ns: float | None
    high_ns: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LancetBlock:
    """One measurement: what was offered and answered, and the latencies."""

    line_number: int
    # None: the log does not say how long the window was to be.
    planned_s: float | None
    request_count: int
    achieved_rps: float
    received_bytes_per_s: float
    sent_bytes_per_s: float
    # None: nothing was checked, which is what an empty list means.
    is_arrival_right: bool | None
    mean_ns: float | None
    quantiles: tuple[LancetQuantile, ...]

    @property
    def answered_ratio(self) -> float | None:
        """Bytes received by bytes sent: the answered share, if replies are as long as requests."""
        if self.sent_bytes_per_s == 0:
            return None
        return self.received_bytes_per_s / self.sent_bytes_per_s


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LancetLog:
    """All measurements of one log, in their order, and what is odd about them."""

    blocks: tuple[LancetBlock, ...]
    notices: tuple[Notice, ...]


@dataclasses.dataclass(slots=True)
class _Reading:
    """What was read of the log so far."""

    planned_s: float | None = None
    header: tuple[str, ...] = ()
    blocks: list[LancetBlock] = dataclasses.field(default_factory=list)


def read_lancet(path: Path) -> LancetLog:
    """Returns the measurements of a log.

    Raises:
        ConfigError: the file cannot be read, holds no table, or a table is cut or not numeric; the
            message names the line.
    """
    reading = _Reading()
    for line in read_lines(path):
        _take(reading, line, path)
    if reading.header:
        raise _broken(path, "the end of the file", " ".join(reading.header), "a row of numbers")
    if not reading.blocks:
        raise nothing_found(path, EXPECTED)
    return LancetLog(blocks=tuple(reading.blocks), notices=tuple(_notices(reading.blocks)))


def _take(reading: _Reading, line: Line, path: Path) -> None:
    text = line.text.strip()
    if reading.header:
        header, reading.header = reading.header, ()
        take = _take_throughput if header == _THROUGHPUT_HEADER else _take_latency
        take(reading, header, line, path)
    elif text.startswith("#ReqCount"):
        reading.header = tuple(text.split())
        if reading.header != _THROUGHPUT_HEADER:
            raise _broken(path, f"line {line.number}", text, " ".join(_THROUGHPUT_HEADER))
    elif text.startswith("#Avg Lat"):
        reading.header = tuple(text.removeprefix("#Avg Lat").split()) or ("",)
    elif match := _DURATION.match(text):
        reading.planned_s = float(match["seconds"])
    elif (match := _ARRIVALS.match(text)) and reading.blocks:
        words = match["answers"].replace(",", " ").split()
        answer = all(word.lower() in {"true", "1"} for word in words) if words else None
        reading.blocks[-1] = dataclasses.replace(reading.blocks[-1], is_arrival_right=answer)


def _take_throughput(reading: _Reading, header: tuple[str, ...], line: Line, path: Path) -> None:
    words = line.text.split()
    numbers = [_number(word) for word in words]
    if len(words) != len(header) or None in numbers:
        raise _broken(path, f"line {line.number}", line.text, "four numbers")
    count, rate, received, sent = (float(number or 0.0) for number in numbers)
    reading.blocks.append(
        LancetBlock(
            line_number=line.number,
            planned_s=reading.planned_s,
            request_count=int(count),
            achieved_rps=rate,
            received_bytes_per_s=received,
            sent_bytes_per_s=sent,
            is_arrival_right=None,
            mean_ns=None,
            quantiles=(),
        )
    )
    reading.planned_s = None


def _take_latency(reading: _Reading, header: tuple[str, ...], line: Line, path: Path) -> None:
    where = f"line {line.number}"
    if not reading.blocks:
        raise _broken(path, where, line.text, "a throughput table before the latencies")
    mean = _number((line.text.split() or [""])[0])
    # Our own tables have n/a where the sample was too small; Lancet's never have.
    cells = line.text.strip().split("\t")[1:]
    if len(cells) == len(header):
        told = [name for name, cell in zip(header, cells, strict=True) if cell[:3] != "n/a"]
        header = tuple(told)
    matches = list(_QUANTILE.finditer(line.text))
    if mean is None or len(matches) != len(header):
        expected = f"the mean and {len(header)} times value(low, high)"
        raise _broken(path, where, line.text, expected)
    quantiles = [
        _quantile(name, match, path, where) for name, match in zip(header, matches, strict=True)
    ]
    reading.blocks[-1] = dataclasses.replace(
        reading.blocks[-1], mean_ns=mean * NS_PER_US, quantiles=tuple(quantiles)
    )


def _quantile(name: str, match: re.Match[str], path: Path, where: str) -> LancetQuantile:
    percentile = _number(name.removesuffix("th"))
    point, low, high = (_number(match[part]) for part in ("value", "low", "high"))
    if percentile is None or point is None or low is None or high is None:
        raise _broken(path, where, f"{name}: {match[0]}", "numbers as value(low, high)")
    return LancetQuantile(
        percentile=percentile,
        point_ns=point * NS_PER_US,
        low_ns=low * NS_PER_US if 0 < low <= point else None,
        high_ns=high * NS_PER_US if high >= point else None,
    )


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _broken(path: Path, where: str, got: str, expected: str) -> ConfigError:
    return ConfigError(
        f"{path}, {where}: got {got.strip()[:120]!r}; expected {expected}",
        hint="the log seems cut or mixed with other output; remove the incomplete table",
        code="import-broken",
    )


def _notices(blocks: Iterable[LancetBlock]) -> Iterable[Notice]:
    for number, block in enumerate(blocks, 1):
        ratio = block.answered_ratio
        if ratio is not None and ratio < ANSWERED_SHARE_MIN:
            yield Notice(
                code="saturated",
                message=f"measurement {number}: received {block.received_bytes_per_s:,.0f} B/s of "
                f"{block.sent_bytes_per_s:,.0f} B/s sent ({ratio:.1%}): if replies are as long as "
                "requests, the server did not keep up and the latencies grow with the duration",
                line_number=block.line_number,
            )
        unknown = [
            f"p{quantile.percentile:g}"
            for quantile in block.quantiles
            if quantile.low_ns is None or quantile.high_ns is None
        ]
        if unknown:
            yield Notice(
                code="too-few-samples",
                message=f"measurement {number}: a bound of {', '.join(unknown)} was printed as 0: "
                "the sample was too small for it, so it is unknown",
                line_number=block.line_number,
            )
        if block.is_arrival_right is not True:
            state = "was not checked" if block.is_arrival_right is None else "failed the check"
            yield Notice(
                code="arrivals-unchecked",
                message=f"measurement {number}: the process of arrivals {state}",
                line_number=block.line_number,
            )
