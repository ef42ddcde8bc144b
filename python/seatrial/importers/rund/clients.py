"""Reads the files ``clientNNN.txt`` of one cell: a line a round, joined by time and never by line.

A client appends ``ID BEGIN END LATENCY`` (64 hexadecimal digits; milliseconds since 1970, twice;
milliseconds) once a round. The next round begins when every client is ready and everything was
removed, so between two rounds nothing is under way, and times alone tell the rounds apart. A line
that is missing is then missing from its own round, and shifts no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.importers.rund.rows import Integers, Starts
from seatrial.importers.source import Notice
from seatrial.units import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LINE: Final = re.compile(
    rb"(?P<id>[0-9a-f]{64}) (?P<begin>\d{1,15}) (?P<end>\d{1,15}) (?P<span>\d{1,12})"
)
_CLIENT: Final = re.compile(r"client0*(?P<number>\d+)\.txt\Z")
WORDS: Final = 4
#: Letters in the words of a line, as in `_LINE`.
WIDTHS_MIN: Final = (64, 1, 1, 1)
WIDTHS_MAX: Final = (64, 15, 15, 12)
SHOWN_MAX: Final = 60


class RoundsUnclear(Exception):
    """The rows of a cell cannot be told apart by round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of all clients, before their rounds are known."""

    ids: list[str]
    clients: Integers
    begins: Integers
    ends: Integers


def read_clients(
    files: Mapping[str, bytes], *, place: str, concurrency: int
) -> tuple[Starts | None, list[Notice]]:
    """Returns the starts of a cell and what was odd.

    Args:
        files: Content by name, such as ``client001.txt``; other names are left alone.
        place: Tree and directory, for what is said.
        concurrency: How many clients there should be.

    Raises:
        RoundsUnclear: rows overlap so that no round can be told from the next.
    """
    notices: list[Notice] = []
    numbered = {
        int(match["number"]): (name, data)
        for name, data in files.items()
        if (match := _CLIENT.match(name))
    }
    notices += [
        Notice(
            code="missing-file",
            message=f"{place}/client{number:03d}.txt is missing; expected a file for each of "
            f"{concurrency} clients",
        )
        for number in range(1, concurrency + 1)
        if number not in numbered
    ]
    for number in sorted(numbered):
        if not 1 <= number <= concurrency:
            name = numbered.pop(number)[0]
            text = f"{place}/{name} is of no client from 1 to {concurrency}; it is left out"
            notices.append(Notice(code="unexpected-file", message=text))
    rows = _rows(numbered, place, notices)
    if not rows.ids:
        return None, notices
    starts = _joined(rows, place, concurrency, notices)
    return starts, notices


def _rows(numbered: Mapping[int, tuple[str, bytes]], place: str, notices: list[Notice]) -> Rows:
    """Returns all rows, a file's in their order; all content is taken as one if it can be."""
    members = sorted(numbered.items())
    whole = _as_one([(client, data) for client, (_, data) in members])
    return _line_by_line(members, place, notices) if whole is None else whole


def _as_one(members: Sequence[tuple[int, bytes]]) -> Rows | None:
    """Returns all rows if every line is one of `_LINE`, at a tenth of the cost of matching each."""
    joined = b"".join(data for _, data in members)
    if not all(data.endswith(b"\n") for _, data in members) or not _is_laid_out(joined):
        return None
    words = joined.split()
    ids = b" ".join(words[0::WORDS]).decode().split(" ")
    try:
        begins, ends, spans = (
            np.array(list(map(int, words[at::WORDS])), dtype=np.int64) for at in (1, 2, 3)
        )
    except ValueError:  # a letter among the digits
        return None
    if not bool(np.all(ends - begins == spans)) or len(set(ids)) < len(ids):
        return None
    counts = [data.count(b"\n") for _, data in members]
    clients = np.repeat([client for client, _ in members], counts)
    return Rows(ids=ids, clients=clients, begins=begins, ends=ends)


def _is_laid_out(joined: bytes) -> bool:
    """Whether every line has four words of the right widths, of digits and a to f."""
    letters = np.frombuffer(joined, dtype=np.uint8)
    borders = np.flatnonzero(letters <= ord(" "))
    if not borders.size or borders.size % WORDS:
        return False
    is_ordered = np.all(letters[borders].reshape(-1, WORDS) == list(b"   \n"))
    widths = (np.diff(borders, prepend=-1) - 1).reshape(-1, WORDS)
    is_wide = np.all((widths >= WIDTHS_MIN) & (widths <= WIDTHS_MAX))
    return bool(is_ordered and is_wide) and not joined.translate(None, b"0123456789abcdef \n")


def _line_by_line(
    members: Sequence[tuple[int, tuple[str, bytes]]], place: str, notices: list[Notice]
) -> Rows:
    """Returns the rows that are whole, and names each line that is not."""
    found: list[tuple[int, int, int]] = []
    seen: dict[bytes, str] = {}

    def note(code: str, name: str, number: int, why: str) -> None:
        text = f"{place}/{name}, line {number}: {why}; the line is left out"
        notices.append(Notice(code=code, message=text, line_number=number))

    for client, (name, data) in members:
        for number, line in enumerate(data.splitlines(), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                shown = line[:SHOWN_MAX].decode("utf-8", "replace")
                note("torn-line", name, number, f"got '{shown}', expected 'ID BEGIN END LATENCY'")
                continue
            begin, end, span = (int(match[key]) for key in ("begin", "end", "span"))
            if end - begin != span or span < 0:
                note("torn-line", name, number, f"{end} - {begin} is not the latency {span}")
            elif match["id"] in seen:
                note("duplicate-line", name, number, f"its id was in {seen[match['id']]} already")
            else:
                seen[match["id"]] = f"{name}, line {number}"
                found.append((client, begin, end))
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return Rows(
        ids=[identity.decode() for identity in seen],
        clients=table[:, 0],
        begins=table[:, 1],
        ends=table[:, 2],
    )


def _joined(rows: Rows, place: str, concurrency: int, notices: list[Notice]) -> Starts:
    rounds = rounds_of(rows.clients, rows.begins, rows.ends)
    count = int(rounds.max()) + 1
    if rounds.size != count * concurrency:
        notices += _gaps(rows, rounds, place, concurrency)
    order = np.lexsort((rows.clients, rounds))
    return Starts(
        ids=tuple(map(rows.ids.__getitem__, order.tolist())),
        clients=rows.clients[order],
        rounds=rounds[order],
        began_at_ns=rows.begins[order] * NS_PER_MS,
        ready_at_ns=rows.ends[order] * NS_PER_MS,
    )


def rounds_of(clients: Integers, begins: Integers, ends: Integers) -> Integers:
    """Returns the round of each row, from 0, by times alone.

    A round begins where something begins after all earlier ones had ended. Where the first start
    of a round had ended before its last one began, pieces whose clients differ are put together
    again, those with the shortest gap first, as long as there are more pieces than the busiest
    client has rows.

    Raises:
        RoundsUnclear: a client has two rows in one round, or pieces are left over.
    """
    order = np.argsort(begins, kind="stable")
    latest = np.maximum.accumulate(ends[order])
    is_new = begins[order][1:] > latest[:-1]
    pieces = np.concatenate(([0], np.cumsum(is_new)))
    most = int(np.bincount(clients).max())
    if int(pieces[-1]) + 1 > most:
        gaps = begins[order][1:] - latest[:-1]
        pieces = _put_together(pieces, clients[order], gaps, most)
    rounds = np.empty_like(begins)
    rounds[order] = pieces
    pairs = rounds * (int(clients.max()) + 1) + clients
    if np.unique(pairs).size != pairs.size:
        raise RoundsUnclear("rows of two rounds overlap in time")
    return rounds


def _put_together(pieces: Integers, clients: Integers, gaps: Integers, most: int) -> Integers:
    members = [set(clients[pieces == n].tolist()) for n in range(int(pieces[-1]) + 1)]
    borders = [int(n) for n in np.flatnonzero(np.diff(pieces))]
    # The piece that each piece was put into.
    owner = list(range(len(members)))
    left = len(members)
    for border in sorted(borders, key=lambda n: int(gaps[n])):
        if left <= most:
            break
        one, two = owner[int(pieces[border])], int(pieces[border]) + 1
        if members[one] & members[two]:
            continue
        members[one] |= members[two]
        members[two] = members[one]
        owner = [one if at == owner[two] else at for at in owner]
        left -= 1
    if left > most:
        raise RoundsUnclear(f"times give {left} rounds, but no client has more than {most} lines")
    numbers = {at: n for n, at in enumerate(dict.fromkeys(owner))}
    return np.array([numbers[owner[n]] for n in pieces.tolist()], dtype=np.int64)


def _gaps(rows: Rows, rounds: Integers, place: str, concurrency: int) -> list[Notice]:
    """Names each client that lacks a line for a round, and where it would stand."""
    had: dict[int, set[int]] = {}
    for client, number in zip(rows.clients.tolist(), rounds.tolist(), strict=True):
        had.setdefault(client, set()).add(number)
    notices: list[Notice] = []
    for client, own in sorted(had.items()):
        for number in sorted(set(range(int(rounds.max()) + 1)) - own):
            line = sum(one < number for one in own) + 1
            others = sum(number in theirs for theirs in had.values())
            notices.append(
                Notice(
                    code="round-mismatch",
                    message=f"{place}/client{client:03d}.txt, line {line}: nothing for round "
                    f"{number + 1}, which {others} of {concurrency} clients have; the round is "
                    "left out of batch times, and no other is moved",
                    line_number=line,
                )
            )
    return notices
