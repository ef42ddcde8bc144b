"""What dd, fio, iperf3, wget and curl print, read by pure functions; units come from the output.

A tool that says nothing usable, or that moved no byte, has failed, whatever its exit code: a zero
that looks like a result is the worst kind of number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

NS_PER_S: Final = 1_000_000_000
BITS_PER_BYTE: Final = 8
#: What the kernel says about an operation that it does not have (errno-base.h, errno.h): EINVAL,
#: ENOSYS, EOPNOTSUPP, and ENOENT of a program.
UNSUPPORTED_ERRORS: Final = frozenset({22, 38, 95})
_UNSUPPORTED_WORDS: Final = (
    "invalid argument",
    "function not implemented",
    "operation not supported",
    "not supported",
    "engine not loadable",
    "not loadable",
)
#: wget's prefixes are powers of 1024 (its manual, --report-speed).
_WGET_UNITS: Final[Mapping[str, int]] = {
    "B/s": 1,
    "KB/s": 1 << 10,
    "MB/s": 1 << 20,
    "GB/s": 1 << 30,
    "TB/s": 1 << 40,
}
_DD: Final = re.compile(r"^(\d+) bytes .*copied, ([0-9.e+-]+) s\b", re.MULTILINE)
_DD_RECORDS: Final = re.compile(r"^(\d+)\+(\d+) records out$", re.MULTILINE)
_WGET: Final = re.compile(r"\(([0-9.]+) ([KMGT]?B/s)\) - .* saved \[(\d+)(?:/(\d+))?\]")
_MESSAGE_CHARACTERS_MAX: Final = 400

Readings: TypeAlias = "dict[str, float]"


class ToolFailed(Exception):
    """A tool did not give a number; says why, and whether it never could."""

    def __init__(self, reason: str, *, is_unsupported: bool = False) -> None:
        """Keep the reason, cut to what a table can hold."""
        super().__init__(reason[-_MESSAGE_CHARACTERS_MAX:])
        self.is_unsupported = is_unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a tool says that it moved."""

    readings: Mapping[str, float] = field(default_factory=dict)
    """Values by metric, in the metric's unit."""
    read_bytes: int = 0
    written_bytes: int = 0


def is_unsupported(message: str) -> bool:
    """Tell whether a message says that an operation does not exist here; pure."""
    lowered = message.lower()
    return any(words in lowered for words in _UNSUPPORTED_WORDS)


def parse_dd(stderr: str, *, kind: str, is_write: bool, counts_operations: bool) -> Moved:
    """Read GNU dd's last words: bytes, seconds and records.

    ``kind`` is the metric's stem, ``dd_write``; with ``counts_operations`` the records a second
    are read as well, since with small blocks dd measures system calls rather than a disk.

    Raises:
        ToolFailed: there is no such line, or nothing was copied.
    """
    found, records = _DD.search(stderr), _DD_RECORDS.search(stderr)
    if found is None or records is None:
        raise ToolFailed(f"dd: {last_line(stderr)}", is_unsupported=is_unsupported(stderr))
    moved, seconds = int(found[1]), float(found[2])
    operations = int(records[1]) + int(records[2])
    if moved == 0 or seconds <= 0:
        raise ToolFailed(f"dd copied {moved} bytes in {seconds} s; expected more than 0")
    readings = {f"{kind}_bytes_per_s": moved / seconds}
    if counts_operations:
        readings[f"{kind}_ops_per_s"] = operations / seconds
    return Moved(
        readings=readings,
        read_bytes=0 if is_write else moved,
        written_bytes=moved if is_write else 0,
    )


def parse_fio(stdout: str, stderr: str, *, job: str) -> Moved:
    """Read fio's JSON with one group; ``job`` is its ``rw``.

    Raises:
        ToolFailed: an error of the job, no JSON, or no byte in a direction that the job has.
    """
    try:
        said = json.loads(stdout[stdout.index("{") :])
        one = said["jobs"][0]
        number = int(one["error"])
        sides = {side: (int(one[side]["io_bytes"]), float(one[side]["bw_bytes"])) for side in SIDES}
    except (ValueError, KeyError, IndexError, TypeError):
        words = f"{stderr.strip()} {stdout[:200].strip()}".strip()
        reason = f"fio: {words or 'no output'}"
        raise ToolFailed(reason, is_unsupported=is_unsupported(words)) from None
    if number:
        raise ToolFailed(
            f"fio: error {number}: {last_line(stderr) or last_line(stdout)}",
            is_unsupported=number in UNSUPPORTED_ERRORS or is_unsupported(stderr),
        )
    readings: dict[str, float] = {}
    for side in sides_of(job):
        moved, rate = sides[side]
        if moved == 0 or rate <= 0:
            raise ToolFailed(f"fio: {job} moved 0 bytes in direction {side}; that is no result")
        readings[fio_metric(job, side)] = rate
    return Moved(readings=readings, read_bytes=sides["read"][0], written_bytes=sides["write"][0])


SIDES: Final = ("read", "write")


def sides_of(job: str) -> tuple[str, ...]:
    """Give the directions that a job of fio has; pure."""
    if job == "randrw":
        return SIDES
    return ("read",) if job.endswith("read") else ("write",)


def fio_metric(job: str, side: str) -> str:
    """Give the name of the metric of one direction of a job; pure."""
    stem = f"fio_{job}_{side}" if job == "randrw" else f"fio_{job}"
    return f"{stem}_bytes_per_s"


def parse_iperf3(stdout: str, *, metric: str) -> Moved:
    """Read iperf3's JSON: what the receiver got, in bits a second by its own key.

    Raises:
        ToolFailed: it says that it failed, says nothing, or nothing arrived.
    """
    try:
        said = json.loads(stdout)
        if "error" in said:
            raise ToolFailed(f"iperf3: {said['error']}")
        total = said["end"]["sum_received"]
        moved, rate = int(total["bytes"]), float(total["bits_per_second"])
    except (ValueError, KeyError, TypeError):
        raise ToolFailed(f"iperf3: no result in its output: {stdout[:200]!r}") from None
    if moved == 0 or rate <= 0:
        raise ToolFailed("iperf3: 0 bytes arrived; that is no result")
    return Moved(readings={metric: rate / BITS_PER_BYTE})


def parse_wget(stderr: str, *, expected_bytes: int) -> Moved:
    """Read the last line of wget: its rate with its unit, and how much was saved.

    Raises:
        ToolFailed: there is no such line, its unit is unknown, or not everything came.
    """
    found = _WGET.search(stderr)
    if found is None:
        raise ToolFailed(f"wget: {last_line(stderr)}")
    number, unit, saved = float(found[1]), found[2], int(found[3])
    if saved != expected_bytes or number <= 0:
        raise ToolFailed(f"wget saved {saved} bytes at {number} {unit}; expected {expected_bytes}")
    return Moved(readings={"download_wget_bytes_per_s": number * _WGET_UNITS[unit]})


def parse_curl(stdout: str, stderr: str, *, upload: bool, expected_bytes: int) -> Moved:
    """Read what ``curl -w %{json}`` says: bytes a second by its own words.

    Raises:
        ToolFailed: it failed, the server did not say 200, or not everything was moved.
    """
    side = "upload" if upload else "download"
    try:
        said = json.loads(stdout)
        code, moved = int(said["http_code"]), int(said[f"size_{side}"])
        rate = float(said[f"speed_{side}"])
    except (ValueError, KeyError, TypeError):
        raise ToolFailed(f"curl: {last_line(stderr) or stdout[:200]!r}") from None
    if code != HTTP_OK or moved != expected_bytes or rate <= 0:
        words = said.get("errormsg") or last_line(stderr)
        raise ToolFailed(
            f"curl: status {code}, {moved} bytes at {rate} bytes/s; expected 200 and "
            f"{expected_bytes} bytes: {words}"
        )
    return Moved(readings={f"{side}_curl_bytes_per_s": rate})


HTTP_OK: Final = 200


def last_line(text: str) -> str:
    """Give the last line that says something; pure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
