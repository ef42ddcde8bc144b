"""The model's own rules: what its objects refuse to be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from seatrial import errors
from seatrial.model import codec, finding, metric
from seatrial.model.columns import TABLES
from seatrial.model.estimate import Estimate
from seatrial.model.finding import Finding, Severity
from seatrial.model.fingerprint import Fingerprint
from seatrial.model.metric import Direction, Metric
from seatrial.model.plan import Point
from seatrial.model.table import ArrowType
from seatrial.model.trial import ArrowStream, TrialStatus
from tests.support.requests import FULL


def a_metric(name: str = "test_thing_ns", unit: str = "ns", meaning: str = "a thing") -> Metric:
    """A metric that no bench declares."""
    return Metric(name=name, unit=unit, direction=Direction.LOWER, meaning=meaning, method="")


def test_metric_is_found_again() -> None:
    """What is registered is found; declaring it again changes nothing."""
    metric.register(a_metric())
    metric.register(a_metric())
    assert metric.metric("test_thing_ns") == a_metric()


def test_unknown_metric_lists_the_known_ones() -> None:
    """Asking for an undeclared metric is an error that helps."""
    metric.register(a_metric())
    with pytest.raises(errors.ConfigError, match=r"known metrics: .*test_thing_ns") as caught:
        metric.metric("thing")
    assert caught.value.code == "metric-unknown"


def test_two_meanings_of_a_metric_are_refused() -> None:
    """One name never means two things."""
    metric.register(a_metric())
    with pytest.raises(ValueError, match="different definitions"):
        metric.register(a_metric(meaning="another thing"))


@pytest.mark.parametrize(
    ("name", "unit"), [("thing", "ns"), ("thing_ms", "ms"), ("thing_nsx", "ns"), ("a_ns", "bytes")]
)
def test_metric_carries_its_unit(name: str, unit: str) -> None:
    """A unit that nobody knows, or a name without its unit, is refused."""
    with pytest.raises(ValueError, match=name):
        a_metric(name, unit)


@pytest.mark.parametrize(
    ("name", "unit"), [("a_rps", "1/s"), ("b_bytes_per_s", "bytes/s"), ("c_ns_p99", "ns")]
)
def test_metric_units_with_their_names(name: str, unit: str) -> None:
    """A qualifier may follow the unit."""
    assert a_metric(name, unit).unit == unit


def test_unregistered_finding_code_is_refused() -> None:
    """Programs compare codes, so none is made up on the way."""
    with pytest.raises(ValueError, match="not registered"):
        Finding(code="strange", severity=Severity.INFO, message="")
    with pytest.raises(ValueError, match="different meanings"):
        finding.register_code("drifting", "something else")


def test_interval_holds_its_point() -> None:
    """An interval beside its point is a bug in its maker and is caught where it is made."""
    with pytest.raises(ValueError, match="does not hold"):
        Estimate(point=3, low=1, high=2, confidence=0.95, n=9, method="x", unit="ns")


def test_points_are_told_apart_by_value() -> None:
    """The key names bench and values, in an order of its own; equal points hash alike."""
    one = Point(bench="load", values={"rate_rps": 200.0, "connections": 8})
    other = Point(bench="load", values={"connections": 8, "rate_rps": 200.0})
    assert one.key == "load connections=8 rate_rps=200"
    assert len({one, other}) == 1
    assert Point(bench="inside").key == "inside"


def test_fingerprint_identity() -> None:
    """Hosts are told apart by what moves numbers, not by their names."""
    one = Fingerprint(facts={"kernel": "6.18", "hostname": "a"})
    same = Fingerprint(facts={"kernel": "6.18", "hostname": "b"})
    other = Fingerprint(facts={"kernel": "6.19", "hostname": "a"})
    assert one.identity == same.identity != other.identity
    assert one.differences(other) == ("kernel",)


def test_only_an_interrupted_trial_is_repeated() -> None:
    """Failed and unsupported trials are results."""
    assert [status for status in TrialStatus if not status.is_final] == [TrialStatus.INTERRUPTED]


def test_every_column_says_what_it_is() -> None:
    """A nanosecond column has the unit ns; names are unique; meanings are there."""
    for table in TABLES.values():
        assert len(set(table.names)) == len(table.names)
        for column in table.columns:
            assert column.meaning
            assert isinstance(column.type, ArrowType)
            if column.name.endswith("_ns"):
                assert column.unit.startswith("ns"), column.name
            if column.name.endswith("_bytes"):
                assert column.unit == "bytes", column.name


def test_arrow_streams_are_recognised() -> None:
    """Anything with the capsule method is a table; a list is not."""
    import polars as pl

    assert isinstance(pl.DataFrame(), ArrowStream)
    assert not isinstance([], ArrowStream)


def test_an_experiment_survives_json() -> None:
    """Tuples, enums, floats, mappings and missing benches come back as they were."""
    text = json.dumps(codec.encode(FULL), allow_nan=False)
    assert codec.decode(type(FULL), json.loads(text)) == FULL


def test_findings_with_strange_evidence_survive_json() -> None:
    """Numbers that JSON lacks are kept as texts rather than losing the finding."""
    found = Finding(
        code="drifting", severity=Severity.INFO, message="", evidence={"a_ratio": math.inf}
    )
    again = codec.decode(Finding, json.loads(json.dumps(codec.encode(found), allow_nan=False)))
    assert again.evidence == {"a_ratio": "inf"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Something to read back."""

    count: int
    share: float = 0.5
    name: str | None = None


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"count": 1, "extra": 2}, "unknown extra"),
        ({}, "count missing"),
        ({"count": "1"}, "Sample.count: got '1'; expected int"),
        ({"count": True}, "expected int"),
        ({"count": 1, "share": "x"}, "expected float"),
        ([], "expected dict"),
        ({"count": 1, "name": 3}, "expected str"),
    ],
)
def test_other_shapes_are_refused(value: codec.Json, part: str) -> None:
    """What was read names the place and what belongs there."""
    with pytest.raises(errors.StoreError, match="Sample") as caught:
        codec.decode(Sample, value)
    assert part in str(caught.value)


def test_numbers_are_widened() -> None:
    """A whole number is a float where a float belongs; infinity comes back from its text."""
    assert codec.decode(Sample, {"count": 1, "share": 1}) == Sample(count=1, share=1.0)
    assert codec.decode(Sample, {"count": 1, "share": "inf"}).share == math.inf


def test_what_json_cannot_say_is_refused() -> None:
    """An object of an unknown kind is a bug of ours."""
    with pytest.raises(TypeError, match="no JSON form"):
        codec.encode(object())


@pytest.mark.parametrize(
    ("kind", "exit_code", "code"),
    [
        (errors.SeatrialError, 4, "internal"),
        (errors.ConfigError, 2, "config"),
        (errors.UnitError, 2, "unit"),
        (errors.DriverUnavailable, 3, "driver-unavailable"),
        (errors.DriverError, 3, "driver"),
        (errors.TrialFailed, 1, "trial-failed"),
        (errors.StoreError, 3, "store"),
        (errors.ProtocolMismatch, 4, "protocol-mismatch"),
        (errors.EnvironmentTrouble, 3, "environment"),
    ],
)
def test_errors_have_codes(kind: type[errors.SeatrialError], exit_code: int, code: str) -> None:
    """Each class has its exit code and its slug; a message and a hint are kept apart."""
    error = kind("what", hint="do")
    assert (error.exit_code, error.code, str(error), error.hint) == (exit_code, code, "what", "do")
    assert kind("what", code="other").code == "other"
