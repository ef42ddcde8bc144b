"""What became of a trial: its status, its findings, and its tables of raw readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

from seatrial.model.finding import Finding
from seatrial.model.scalar import Scalar


class Phase(StrEnum):
    """The parts of a trial, in their order."""

    SETUP = "setup"
    WARM_UP = "warm-up"
    MEASURE = "measure"
    DRAIN = "drain"
    TEARDOWN = "teardown"


class TrialStatus(StrEnum):
    """How a trial ended."""

    OK = "ok"
    FAILED = "failed"
    # The driver lacks a power that the trial needs: a result, never a silent skip.
    UNSUPPORTED = "unsupported"
    # The host has no room for it, which was found out before it was tried: a result as well.
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether a resumed run must leave the trial alone; only an interrupted one is repeated."""
        return self is not TrialStatus.INTERRUPTED


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that hands out its columns through the Arrow C stream interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give a capsule that holds an ``ArrowArrayStream``."""


# The columns of one table: lists by name (None: unknown), or an Arrow stream taken without a copy.
Columns: TypeAlias = Mapping[str, Sequence[object]] | ArrowStream


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """A finished trial. The tables obey ``seatrial.model.columns`` and hold raw readings only."""

    trial_id: str
    status: TrialStatus
    # Why it is not ok, in a sentence; None when it is.
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    tables: Mapping[str, Columns] = field(default_factory=dict)
    # Single readings that belong to the whole trial, with their unit in the name.
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    # On the host's monotonic clock; None when the trial was never begun.
    started_at_ns: int | None = None
    ended_at_ns: int | None = None
