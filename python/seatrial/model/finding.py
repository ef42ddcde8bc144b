"""Judgements about a measurement: trouble in a measurement is data, not an exception."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from seatrial.model.scalar import Scalar


class Severity(StrEnum):
    """How much a finding weighs: an error makes the numbers beside it unusable."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_CODES: dict[str, str] = {
    "generator-bound": "The load engine could not send on time; the numbers are partly its own.",
    "saturated": "The target answered less than it was offered; delays grow with the duration.",
    "not-stationary": "Response times changed while they were measured.",
    "not-independent": "Response times depend on each other, so many are worth few.",
    "not-converged": "The interval did not become as narrow as was asked.",
    "corrupt-reply": "A payload did not arrive as it was sent.",
    "counter-mismatch": "Servers and clients counted different numbers of requests.",
    "cached": "Bytes came from or stayed in memory: the number is not the device's.",
    "device-unknown": "The files lie on no device whose bytes can be counted.",
    "exceeds-host": "It is better than the host itself by more than it can be.",
    "outliers": "Some repeats stand far apart from the others.",
    "tries-failed": "Some tries of a piece of work gave no number.",
    "skipped": "Something that the work needs is missing.",
    "clock-disagrees": "The sandbox's clock tells other lengths than the host's.",
    "noisy-host": "Other work, or the hypervisor, took CPU time during a timed window.",
    "drifting": "The machine became slower or faster while the run went on.",
    "cold-first-round": "The first round is not like the others; caches were cold.",
    "first-round-outlier": "The first batch is unlike those after it; a mean is of neither.",
    "confounded": "Other conditions differed as well; the ratio is not of the runtimes alone.",
    "broken-log": "An imported log is not whole; what is missing is left out, and named.",
    "too-few-samples": "There are too few samples for what was asked of them.",
    "leftovers": "Something that a trial made was still there after it.",
    "not-settled": "A reading was taken before it had come to rest.",
    "records-dropped": "More was measured than there was room to keep.",
    "request-failures": "Some requests got no correct reply.",
    "nothing-measured": "No request was due in the measured time.",
    "another-run": "Another run of Seatrial was at work on the machine.",
    "incomplete-reading": "A reading missed a part of what it was to read.",
    "stop-failures": "Some sandboxes did not end when they were asked to.",
    "start-failures": "Some sandboxes did not start.",
    "unsupported": "The driver cannot do what the trial needs.",
    "no-room": "The host cannot take what the trial asks for, so it was not tried.",
    "limit-not-enforced": "A limit that was asked for does not hold, so nothing can be compared.",
    "density-bound": "What ended the search for the largest count.",
    "release-skew": "The starts of a batch were not released together.",
    "cache-state": "The page cache did not hold what the point asked for.",
    "background-lost": "Sandboxes beside the measured ones ended while others were measured.",
    "rounds-drifting": "Each round took longer, or shorter, than the one before.",
    "degraded": "It works, but not as asked; the numbers are not comparable without care.",
    "trial-failed": "The trial ended with an error; what it had measured is kept.",
    "interrupted": "The run was stopped before the trial was complete.",
}

# {code: what it means}. Codes are stable: programs compare them.
FINDING_CODES: Final[Mapping[str, str]] = MappingProxyType(_CODES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A judgement with its evidence, about one trial, one driver, or the run as a whole."""

    code: str
    severity: Severity
    message: str
    # Numbers by name, with their unit in the name: {"pacing_lag_ns_p99": 41000}.
    evidence: Mapping[str, Scalar] = field(default_factory=dict)
    trial_id: str | None = None
    driver: str | None = None

    def __post_init__(self) -> None:
        """Refuse a code that is not registered: programs could not know what it means."""
        if self.code not in _CODES:
            message = f"finding code {self.code!r} is not registered; known: {', '.join(_CODES)}"
            raise ValueError(message)


def register_code(code: str, meaning: str) -> None:
    """Add a finding code; the same one twice is harmless.

    Raises:
        ValueError: the code is taken with another meaning.
    """
    if _CODES.setdefault(code, meaning) != meaning:
        message = f"finding code {code} is declared twice, with different meanings"
        raise ValueError(message)
