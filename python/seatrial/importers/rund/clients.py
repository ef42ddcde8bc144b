"""Reads the files ``clientNNN.txt`` of one cell: a line a round, joined by time and never by line.

A client appends ``ID BEGIN END LATENCY`` (64 hexadecimal digits; milliseconds since 1970, twice;
milliseconds) once a round. The next round begins when every client is ready and everything was
removed, so between two rounds nothing is under way, and times alone tell the rounds apart. A line
that is missing is then missing from its own round, and shifts no other.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.importers.rund.rows import Starts
from seatrial.importers.source import Notice
from seatrial.units import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.importers.rund.rows import Integers

_LINE: Final = re.compile(
    rb"(?P<id>[0-9a-f]{64}) (?P<begin>\d{1,15}) (?P<end>\d{1,15}) (?P<span>\d{1,12})"
)
_WHOLE: Final = re.compile(rb"(?:[0-9a-f]{64} \d{1,15} \d{1,15} \d{1,12}\n)*")
_CLIENT: Final = re.compile(r"client0*(?P<number>\d+)\.txt\Z")
WORDS: Final = 4
SHOWN_MAX: Final = 60


class RoundsUnclear(Exception):
    """The rows of a cell cannot be told apart by round."""


@dataclass(slots=True)
class Rows:
    """Rows of all clients, before their rounds are known; ``lines`` counts from 1 in each file."""

    ids: list[bytes] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


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
    contents = [data for _, (_, data) in members]
    joined = b"".join(contents)
    if all(data.endswith(b"\n") for data in contents) and _WHOLE.fullmatch(joined):
        words = joined.split()
        counts = [data.count(b"\n") for data in contents]
        rows = Rows(
            ids=words[0::WORDS],
            clients=[
                n for (n, _), count in zip(members, counts, strict=True) for _ in range(count)
            ],
            lines=[line for count in counts for line in range(1, count + 1)],
            begins=list(map(int, words[1::WORDS])),
            ends=list(map(int, words[2::WORDS])),
        )
        spans = list(map(int, words[3::WORDS]))
        is_right = all(e - b == s for b, e, s in zip(rows.begins, rows.ends, spans, strict=True))
        if is_right and len(set(rows.ids)) == len(rows.ids):
            return rows
    return _line_by_line(members, place, notices)


def _line_by_line(
    members: Sequence[tuple[int, tuple[str, bytes]]], place: str, notices: list[Notice]
) -> Rows:
    """Returns the rows that are whole, and names each line that is not."""
    rows = Rows()
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
                rows.ids.append(match["id"])
                rows.clients.append(client)
                rows.lines.append(number)
                rows.begins.append(begin)
                rows.ends.append(end)
    return rows


def _joined(rows: Rows, place: str, concurrency: int, notices: list[Notice]) -> Starts:
    clients = np.array(rows.clients, dtype=np.int64)
    begins, ends = (np.array(side, dtype=np.int64) for side in (rows.begins, rows.ends))
    rounds = rounds_of(clients, begins, ends)
    count = int(rounds.max()) + 1
    if rounds.size != count * concurrency:
        notices += _gaps(rows, rounds, place, concurrency)
    order = np.lexsort((clients, rounds))
    return Starts(
        ids=tuple(rows.ids[position].decode() for position in order.tolist()),
        clients=clients[order],
        rounds=rounds[order],
        began_at_ns=begins[order] * NS_PER_MS,
        ready_at_ns=ends[order] * NS_PER_MS,
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
    most = max(Counter(clients.tolist()).values())
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
    for client, number in zip(rows.clients, rounds.tolist(), strict=True):
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
