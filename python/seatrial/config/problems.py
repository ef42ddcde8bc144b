"""What is wrong with a file, one line each: where, which value, what was expected."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# A header such as [start] or [driver.runsc], and a key at the beginning of a line.
_HEADER: Final = re.compile(r"\s*\[\s*([A-Za-z0-9_./\-\"' ]+?)\s*\]")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_\-]+|\"[^\"]+\")\s*(?:=|\.)")

# What pydantic calls an error, and what a user should have written instead.
_EXPECTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list in brackets",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "at least {min_length} value",
    "too_long": "at most {max_length} values",
}
VALUE_CHARACTERS_MAX: Final = 80
# In place of a line: the key was set by an option.
BY_OPTION: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake. ``key`` is a path such as ``start.concurrency[1]``, "" for the whole file."""

    key: str
    message: str
    line: int | None = None

    def text(self, file: str) -> str:
        """Give it as one line, in the form that editors understand: ``file:line: key: message``."""
        place = file if self.line is None else f"{file}:{self.line}"
        place = "--set" if self.line == BY_OPTION else place
        return ": ".join(part for part in (place, self.key, self.message) if part)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give `` (did you mean "X"?)`` when something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def unknown(kind: str, word: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, which one is close, and which ones exist."""
    return f'unknown {kind} "{word}"{did_you_mean(word, known)}; expected one of {", ".join(known)}'


def problems_of(
    error: ValidationError, *, keys_of: Mapping[str, Sequence[str]], lines: Mapping[str, int]
) -> list[Problem]:
    """Translate all that pydantic found.

    ``keys_of`` gives the known keys of a table by its path, ``lines`` the line of a key.
    """
    seen: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        key = path_of(_without_branches(detail["loc"]))
        table = key.rpartition(".")[0]
        message = _message(detail, key, keys_of.get(table, ()))
        # A value that fits no branch of a union is reported once for each branch.
        seen.setdefault(key, Problem(key=key, message=message, line=line_of(key, lines)))
    return list(seen.values())


def path_of(location: Iterable[str | int]) -> str:
    """Write a location as a path: ``("a", "b", 1)`` is ``a.b[1]``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def lines_of(text: str) -> dict[str, int]:
    """Find the line (from 1) of each table header and of each key at the beginning of a line.

    A scan by eye, not a parser: it may miss exotic spellings, and then a message has no line.
    """
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header is not None and "=" not in line.split("#")[0]:
            table = header.group(1).replace('"', "").replace(" ", "")
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            name = key.group(1).strip('"')
            lines.setdefault(f"{table}.{name}" if table else name, number)
    return lines


def line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """Find the line of a key or, when it is not in the file, that of its table."""
    path = key
    while path:
        found = lines.get(path)
        if found is not None:
            return found
        path = path.rpartition("[")[0] if path.endswith("]") else path.rpartition(".")[0]
    return None


def _without_branches(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # In `driver.NAME.OPTION` pydantic appends the name of the union's branch that failed.
    depth_of_option = 3
    is_option = len(location) > depth_of_option and location[0] == "driver"
    return location[:depth_of_option] if is_option else location


def _message(detail: ErrorDetails, key: str, known: Sequence[str]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        word = key.rpartition(".")[2]
        return f"unknown key{did_you_mean(word, known)}; expected one of {', '.join(known)}"
    if kind in {"missing", "missing_keyword_only_argument", "missing_argument"}:
        return "missing; expected a value"
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if key.startswith("driver.") and kind.endswith("_type"):
        expected = "a text, a number, true or false"
    else:
        expected = _EXPECTED.get(kind, detail["msg"]).format(**context)
    return f"got {_shown(detail['input'])}; expected {expected}"


def _shown(value: object) -> str:
    named = {True: "true", False: "false"}
    text = named[value] if isinstance(value, bool) else repr(value)
    if isinstance(value, str):
        text = f'"{value}"'
    if len(text) > VALUE_CHARACTERS_MAX:
        text = text[:VALUE_CHARACTERS_MAX] + "..."
    return text
