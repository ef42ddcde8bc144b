"""Outcomes and orders as they travel between processes: a JSON object and named bytes."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from seatrial.agents.frames import Frame, FrameError, Kind
from seatrial.agents.live import LoadSnapshot
from seatrial.agents.outcome import (
    HISTOGRAMS,
    PLAIN_OF_INTERVAL,
    AgentFacts,
    IntervalOutcome,
    LoadOutcome,
    Tally,
    TargetOutcome,
)
from seatrial.errors import SeatrialError
from seatrial.loadgen import LoadRequest, read_histogram
from seatrial.model.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seatrial.loadgen import Histogram

#: Pieces are cut to this length, well below what a frame may hold.
PIECE_BYTES_MAX: Final = 8 << 20
#: What all pieces of one outcome may hold together.
CARGO_BYTES_MAX: Final = 2 << 30
_LENGTH: Final = struct.Struct("<I")
_PLAIN: Final = (
    "started_at_ns",
    "measure_start_ns",
    "measure_end_ns",
    "counted_until_ns",
    "ended_at_ns",
    "records_stride",
    "sent_bytes",
    "received_bytes",
    "achieved_count",
    "queued_count",
    "late_reply_count",
    "resent_count",
    "was_interrupted",
    "was_finished_early",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    """All of an outcome but its bytes."""

    plain: Mapping[str, int]
    counts: Tally
    measured: Tally
    failures: tuple[tuple[str, ...], ...]
    intervals: tuple[tuple[int, ...], ...]
    targets: tuple[str, ...]
    targets_measured: tuple[Tally, ...]
    targets_achieved: tuple[int, ...]
    agents: tuple[AgentFacts, ...]


def order_of(request: LoadRequest) -> dict[str, object]:
    """Returns a request as it travels."""
    return dataclasses.asdict(request)


def request_of(fields: Mapping[str, object]) -> LoadRequest:
    """Returns the request that `order_of` made.

    Raises:
        FrameError: it is none of this version.
    """
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    try:
        return LoadRequest(**values)  # type: ignore[arg-type]  # checked by the plan made from it
    except TypeError as error:
        raise FrameError(f"not a load of this version: {error}") from error


def pack_snapshot(snapshot: LoadSnapshot) -> Frame:
    """Returns the frame that carries a snapshot."""
    histograms = [snapshot.response, *(interval.response for interval in snapshot.intervals)]
    fields = {
        "elapsed_ns": snapshot.elapsed_ns,
        "measured": encode(snapshot.measured),
        "intervals": [
            [getattr(interval, name) for name in PLAIN_OF_INTERVAL]
            for interval in snapshot.intervals
        ],
    }
    return Frame(Kind.SNAPSHOT, fields, _joined(histograms))


def unpack_snapshot(frame: Frame) -> LoadSnapshot:
    """Returns the snapshot that a frame carries.

    Raises:
        FrameError: it carries none, or a damaged one.
    """
    try:
        fields = decode(_SnapshotFields, frame.fields, where="snapshot")  # type: ignore[arg-type]  # JSON
        response, *others = _split(frame.data)
        rows = zip(fields.intervals, others, strict=True)
        return LoadSnapshot(
            elapsed_ns=fields.elapsed_ns,
            measured=fields.measured,
            response=response,
            intervals=tuple(_interval(row, histogram) for row, histogram in rows),
        )
    except (SeatrialError, ValueError, struct.error) as error:
        raise FrameError(f"a snapshot that cannot be read: {error}") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _SnapshotFields:
    """All of a snapshot but its histograms."""

    elapsed_ns: int
    measured: Tally
    intervals: tuple[tuple[int, ...], ...]


def pack(outcome: LoadOutcome) -> Iterator[Frame]:
    """Yields the frames that carry an outcome; the last one is a REPORT."""
    for kind in HISTOGRAMS:
        yield from _pieces(kind, outcome.histograms[kind].to_bytes())
    yield from _pieces("intervals", _joined([item.response for item in outcome.intervals]))
    yield from _pieces("targets", _joined([item.response for item in outcome.targets]))
    table = io.BytesIO()
    outcome.records.write_ipc_stream(table)
    yield from _pieces("records", table.getvalue())
    manifest = _Manifest(
        plain={name: int(getattr(outcome, name)) for name in _PLAIN},
        counts=outcome.counts,
        measured=outcome.measured,
        failures=tuple((kind, text, str(count)) for kind, text, count in outcome.failures),
        intervals=tuple(
            tuple(getattr(interval, name) for name in PLAIN_OF_INTERVAL)
            for interval in outcome.intervals
        ),
        targets=tuple(target.target for target in outcome.targets),
        targets_measured=tuple(target.measured for target in outcome.targets),
        targets_achieved=tuple(target.achieved_count for target in outcome.targets),
        agents=outcome.agents,
    )
    encoded = encode(manifest)
    assert isinstance(encoded, dict)  # a dataclass becomes an object
    yield Frame(Kind.REPORT, encoded)


class Gathered:
    """The pieces of one outcome that have come so far."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._pieces: dict[str, bytearray] = {}
        self._held_bytes = 0
        self._manifest: Mapping[str, object] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the REPORT has come."""
        return self._manifest is not None

    def take(self, frame: Frame) -> None:
        """Keeps a PART or the REPORT.

        Raises:
            FrameError: it is more than an outcome may hold.
        """
        if frame.kind is Kind.REPORT:
            self._manifest = frame.fields
            return
        self._held_bytes += len(frame.data)
        if self._held_bytes > CARGO_BYTES_MAX:
            message = f"an outcome of more than {CARGO_BYTES_MAX} bytes"
            raise FrameError(message, hint="keep fewer records: lower records_max")
        self._pieces.setdefault(str(frame.fields.get("name")), bytearray()).extend(frame.data)

    def outcome(self) -> LoadOutcome:
        """Returns the outcome.

        Raises:
            FrameError: it is not whole, or damaged.
        """
        try:
            return self._outcome()
        except (KeyError, ValueError, struct.error, pl.exceptions.PolarsError) as error:
            raise FrameError(f"a report that cannot be read: {error!r}") from error
        except SeatrialError as error:
            raise FrameError(f"a report that cannot be read: {error}") from error

    def _outcome(self) -> LoadOutcome:
        if self._manifest is None:
            message = "it is not whole"
            raise ValueError(message)
        manifest = decode(_Manifest, self._manifest, where="report")  # type: ignore[arg-type]  # JSON
        plain = dict(manifest.plain)
        was_interrupted = bool(plain.pop("was_interrupted"))
        was_finished_early = bool(plain.pop("was_finished_early"))
        return LoadOutcome(
            **plain,  # the whole numbers of an outcome, by name
            was_interrupted=was_interrupted,
            was_finished_early=was_finished_early,
            counts=manifest.counts,
            measured=manifest.measured,
            failures=tuple((kind, text, int(count)) for kind, text, count in manifest.failures),
            histograms={kind: self._histogram(kind) for kind in HISTOGRAMS},
            intervals=tuple(
                _interval(row, histogram)
                for row, histogram in zip(
                    manifest.intervals, _split(bytes(self._pieces["intervals"])), strict=True
                )
            ),
            targets=tuple(
                TargetOutcome(
                    target=name, measured=measured, achieved_count=achieved, response=histogram
                )
                for name, measured, achieved, histogram in zip(
                    manifest.targets,
                    manifest.targets_measured,
                    manifest.targets_achieved,
                    _split(bytes(self._pieces["targets"])),
                    strict=True,
                )
            ),
            records=pl.read_ipc_stream(io.BytesIO(self._pieces["records"])),
            agents=manifest.agents,
        )

    def _histogram(self, name: str) -> Histogram:
        return read_histogram(bytes(self._pieces[name]))


def _interval(row: Sequence[int], histogram: Histogram) -> IntervalOutcome:
    return IntervalOutcome(response=histogram, **dict(zip(PLAIN_OF_INTERVAL, row, strict=True)))


def _split(data: bytes) -> list[Histogram]:
    """The histograms that `_joined` put together."""
    found, start = [], 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        found.append(read_histogram(data[start : start + length]))
        start += length
    return found


def _joined(histograms: Sequence[Histogram]) -> bytes:
    pieces = [histogram.to_bytes() for histogram in histograms]
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in pieces)


def _pieces(name: str, data: bytes) -> Iterator[Frame]:
    for start in range(0, max(1, len(data)), PIECE_BYTES_MAX):
        yield Frame(Kind.PART, {"name": name}, data[start : start + PIECE_BYTES_MAX])
