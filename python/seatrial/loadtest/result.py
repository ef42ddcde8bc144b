"""The result of a load test: one frozen object that becomes JSON, tables and files.

Times in ns; rates per second. Percentiles carry their interval, or say why there is none.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from seatrial.agents.outcome import AgentFacts, Tally
from seatrial.errors import StoreError
from seatrial.loadgen import LoadRequest
from seatrial.model.codec import decode, encode
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import Finding
from seatrial.model.fingerprint import Fingerprint

if TYPE_CHECKING:
    from seatrial.agents.outcome import LoadOutcome

#: 1: failures were lists of three, and the instant at which measuring began was not told.
SCHEMA_VERSION: Final = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """One percentile of one kind of time."""

    name: str
    share: float
    value: Estimate | NotAvailable
    # Of the sample, whatever it is worth; None if it has not even one value beyond.
    sample_ns: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimeSummary:
    """What a kind of time looked like: exact moments, and percentiles with intervals."""

    # response, service, send_lag, ...
    kind: str
    count: int
    mean_ns: float | None
    min_ns: int | None
    max_ns: int | None
    quantiles: tuple[Quantile, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetSummary:
    """One of several servers."""

    target: str
    ok_count: int
    failed_count: int
    achieved_rps: float
    response: TimeSummary


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveResult:
    """Whether something holds that has to: True, False, or None when the sample cannot tell."""

    text: str
    holds: bool | None
    evidence: str
    # Requests of the measured time; those over the limit or failed; what all are worth.
    requests_count: int | None = None
    over_count: int | None = None
    effective_count: float | None = None
    # Interval of the share over the limit, and what the objective allows.
    low_ratio: float | None = None
    high_ratio: float | None = None
    allowed_ratio: float | None = None
    # Requests like these that would have decided; None: no number would.
    needed_count: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """What agents of one role offered, where some load and others measure beside them."""

    # load or latency.
    role: str
    agents_count: int
    # None: the pattern says the rates itself.
    asked_rps: float | None
    offered_rps: float
    achieved_rps: float
    sent_bytes_per_s: float
    received_bytes_per_s: float
    measured: Tally


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """How often something was said; an outcome of ok is a remark, such as a miss in a cache."""

    outcome: str
    text: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that the test decided while it ran, and why."""

    at_ns: int
    kind: str
    reason: str
    evidence: Mapping[str, float | int | str | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """One stretch of time; by completion."""

    start_ns: int
    end_ns: int
    intended_count: int
    ok_count: int
    failed_count: int
    sent_bytes: int
    received_bytes: int
    p50_ns: int | None
    p99_ns: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadTestResult:
    """Everything that a load test found out and how it was made."""

    schema_version: int = SCHEMA_VERSION
    seatrial_version: str
    url: str
    # As the engine was asked; passwords left out.
    settings: LoadRequest
    started_at: str
    fingerprint: Fingerprint
    # Instants like those of the series.
    measure_start_ns: int
    measure_length_ns: int
    # None: a closed loop offers what it gets answered.
    offered_rps: float | None
    achieved_rps: float
    sent_bytes_per_s: float
    received_bytes_per_s: float
    counts: Tally
    measured: Tally
    # Over the whole run, warm-up included.
    failures: tuple[FailureCount, ...]
    queued_count: int
    late_reply_count: int
    # Sendings on another connection, after the peer had ended the first one and left them alone.
    resent_count: int
    times: tuple[TimeSummary, ...]
    targets: tuple[TargetSummary, ...]
    verdicts: tuple[Finding, ...]
    objectives: tuple[ObjectiveResult, ...]
    events: tuple[Event, ...]
    agents: tuple[AgentFacts, ...]
    series: tuple[SeriesPoint, ...]
    # Seatrial's own stored form, base64; `seatrial.loadgen.read_histogram` reads it.
    histograms: Mapping[str, str]
    was_interrupted: bool
    # Empty if all agents do the same. Rates above are of all of them, times of those that measure.
    parts: tuple[PartSummary, ...] = ()

    def time(self, kind: str) -> TimeSummary | None:
        """The summary of one kind of time, if there is one."""
        return next((summary for summary in self.times if summary.kind == kind), None)

    @property
    def headline(self) -> TimeSummary:
        """What a reader looks at first: response time of an open loop, service time of a closed."""
        return self.times[0]


def result_text(result: LoadTestResult) -> str:
    """Returns the result as JSON; `read_result` reads it back."""
    return json.dumps(encode(result), indent=2, ensure_ascii=False, allow_nan=False)


def read_result(text: str, *, where: str = "the result of a load") -> LoadTestResult:
    """Returns what `result_text` wrote, of this or an earlier schema.

    Raises:
        StoreError: it is no such JSON, or of a newer version; the message says what is wrong.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StoreError(
            f"{where} is no JSON: {error}", hint="the file was cut or changed"
        ) from error
    if not isinstance(found, dict) or "schema_version" not in found:
        raise StoreError(
            f"{where} has no schema_version; expected what `seatrial load --json` prints"
        )
    version = found["schema_version"]
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise StoreError(
            f"{where} is of schema {version!r}; expected 1 to {SCHEMA_VERSION}",
            hint="read it with the version of Seatrial that wrote it, or a newer one",
        )
    return decode(LoadTestResult, _upgraded(found) if version == 1 else found, where=where)


def _upgraded(found: dict[str, Any]) -> dict[str, Any]:
    """The same in the present schema; what has another shape than expected, `decode` names."""
    upgraded = {**found, "schema_version": SCHEMA_VERSION}
    names = [field.name for field in dataclasses.fields(FailureCount)]
    upgraded["failures"] = [
        dict(zip(names, one, strict=False)) for one in found.get("failures", ())
    ]
    try:
        starts = [agent["started_at_ns"] for agent in found["agents"]]
        upgraded["measure_start_ns"] = min(starts) + found["settings"]["warm_up_ns"]
    except (KeyError, TypeError, ValueError):
        return upgraded
    return upgraded


def failure_counts(outcome: LoadOutcome) -> tuple[FailureCount, ...]:
    """Returns what was said and how often, the most frequent first."""
    return tuple(
        FailureCount(outcome=kind, text=text, count=count) for kind, text, count in outcome.failures
    )


def histogram_texts(outcome: LoadOutcome) -> dict[str, str]:
    """Returns the stored histograms as base64, those without a value left out."""
    return {
        kind: base64.b64encode(histogram.to_bytes()).decode("ascii")
        for kind, histogram in outcome.histograms.items()
        if histogram.count
    }


def series_of(outcome: LoadOutcome) -> tuple[SeriesPoint, ...]:
    """Returns the load over time, as plain numbers."""
    return tuple(
        SeriesPoint(
            start_ns=interval.start_ns,
            end_ns=interval.end_ns,
            intended_count=interval.intended_count,
            ok_count=interval.ok_count,
            failed_count=interval.failed_count,
            sent_bytes=interval.sent_bytes,
            received_bytes=interval.received_bytes,
            p50_ns=interval.response.quantile(0.5),
            p99_ns=interval.response.quantile(0.99),
        )
        for interval in outcome.intervals
    )
