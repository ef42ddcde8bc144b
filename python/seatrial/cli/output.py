"""The only printer: standard output carries data, standard error carries talk.

With ``NO_COLOR`` set, or when the stream is no terminal, nothing is coloured. A reader that went
away (``seatrial list | head -1``) is reported once as ``OutputClosed`` and is no error.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from seatrial.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, RenderableType

RED: Final = "\x1b[31m"
BOLD: Final = "\x1b[1m"
RESET: Final = "\x1b[0m"

# A page wide enough for every table, when nobody says how wide the reader's is.
WIDTH_WITHOUT_TERMINAL: Final = 160
#: Bounds of what COLUMNS may ask for.
WIDTH_MIN: Final = 40
WIDTH_MAX: Final = 10_000


class OutputClosed(Exception):
    """Whoever read our output has gone; there is nobody left to write to."""


def data(text: str) -> None:
    """Print what was asked for, as a line on standard output."""
    _write(sys.stdout, f"{text}\n")


def data_json(value: object) -> None:
    """Print a model object, or a container of them, as JSON on standard output."""
    from seatrial.model.codec import encode

    data(json.dumps(encode(value), indent=2, ensure_ascii=False, allow_nan=False))


def data_line(value: object) -> None:
    """Print a JSON value as one line on standard output."""
    data(json.dumps(value, ensure_ascii=False, allow_nan=False))


def render(renderable: RenderableType) -> None:
    """Print something that Rich lays out, such as a table, on standard output."""
    try:
        _print_trimmed(renderable)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        raise _unwritable(error) from error


def _print_trimmed(renderable: RenderableType) -> None:
    """Without the blanks at the ends of lines that Rich fills a file or pipe with."""
    console = stdout_console()
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as capture:
        console.print(renderable)
    for line in capture.get().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")


def talk(text: str) -> None:
    """Tell a person something, on standard error."""
    _write(sys.stderr, f"{text}\n")


def error(message: str, hint: str | None = None) -> None:
    """Tell what went wrong and what to do about it, on standard error."""
    first, *rest = message.splitlines() or [""]
    lines = [f"{_styled('error:', RED + BOLD)} {first}", *(f"  {line}" for line in rest)]
    if hint:
        lines.append(f"{_styled('hint:', BOLD)} {hint}")
    talk("\n".join(lines))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns on standard output; the last one is left as wide as it is."""
    lines = [tuple(headers), *(tuple(row) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        cells = [
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ]
        data("  ".join(cells).rstrip())


def stdout_console() -> Console:
    """Give a Rich console on standard output; import of Rich is paid for only here."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """Give a Rich console on standard error, for progress."""
    return _console(sys.stderr)


def flush() -> None:
    """Hand over what is still buffered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError as gone:
            raise OutputClosed from gone


@contextmanager
def finishing(finish: Callable[[], None]) -> Iterator[None]:
    """Do what belongs after a print, such as writing files, also when its reader has gone."""
    try:
        yield
    except OutputClosed:
        finish()
        raise
    finish()


def abandon_stdout() -> None:
    """Let Python's own flush at exit go nowhere, after the reader has gone."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else _width_without_terminal()
    # Rich itself obeys NO_COLOR. Its guesses about numbers and paths in texts are not wanted.
    return Console(file=stream, width=width, highlight=False, emoji=False)


def _width_without_terminal() -> int:
    """As COLUMNS says, which a shell does not pass on unless somebody wants that."""
    told = os.environ.get("COLUMNS", "")
    if not told.isascii() or not told.isdecimal():
        return WIDTH_WITHOUT_TERMINAL
    return min(max(int(told), WIDTH_MIN), WIDTH_MAX)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError as gone:
        raise OutputClosed from gone
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> StoreError:
    """A full disk, mostly; nothing that was buffered is tried again at exit."""
    abandon_stdout()
    message = f"cannot write the output: {error.strerror}"
    return StoreError(message, hint="send it to a place that has room for it")


def _styled(text: str, style: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"{style}{text}{RESET}"


def _width(text: str) -> int:
    """How many cells of a terminal a text takes; wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
