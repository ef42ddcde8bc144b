"""What every importer shares: lines with their numbers, and what was noticed on the way."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Larger logs are refused: these tools write a line a second.
LOG_BYTES_MAX: Final = 256 << 20

#: What remote shells put in front of a line: ``[host] out: `` and ``@host     ``.
_BRACKETED: Final = re.compile(r"^\[(?P<host>[^\]\s]+)\] (?:out|err): ?(?P<rest>.*)$")
_AT: Final = re.compile(r"^@(?P<host>\S+)\s+(?P<rest>.*)$")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a log, without what a remote shell put in front of it."""

    number: int
    host: str | None
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something about a log that a reader of its numbers has to know."""

    code: str
    message: str
    line_number: int | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """Yields the lines of a log; bytes that are no UTF-8 become a mark, CR LF becomes LF.

    Raises:
        ConfigError: the file cannot be read, or is longer than `LOG_BYTES_MAX`.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > LOG_BYTES_MAX:
            message = f"{path} has {size_bytes} bytes; expected a log of at most {LOG_BYTES_MAX}"
            raise ConfigError(message, hint="split the log by host, or cut it to one run")
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, raw in enumerate(file, 1):
                yield to_line(number, raw.rstrip("\r\n"))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigError(message, hint="give the path of a log file") from error


def to_line(number: int, raw: str) -> Line:
    """Returns a line with its host taken off, if one is named."""
    for pattern in (_BRACKETED, _AT):
        if match := pattern.match(raw):
            return Line(number=number, host=match["host"], text=match["rest"])
    return Line(number=number, host=None, text=raw)


def nothing_found(path: Path, expected: str) -> ConfigError:
    """Returns the error for a log in which nothing of the expected form was found."""
    return ConfigError(
        f"{path} holds no line of the expected form; expected {expected}",
        hint="check that the file is a log of that tool; `seatrial import --help` lists the forms",
        code="import-empty",
    )
