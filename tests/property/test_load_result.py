"""The JSON of a load test says everything: what is read back equals what was written."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from seatrial.loadtest.result import SCHEMA_VERSION, LoadTestResult, read_result, result_text
from seatrial.model.estimate import Estimate
from seatrial.model.finding import FINDING_CODES

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN: dict[object, st.SearchStrategy[object]] = {
    str: st.text(max_size=8),
    int: st.integers(-(1 << 62), 1 << 62),
    float: NUMBERS,
    bool: st.booleans(),
    type(None): st.none(),
    Estimate: st.builds(
        lambda ends, n: Estimate(
            point=ends[1], low=ends[0], high=ends[2], confidence=0.95, n=n, method="m", unit="ns"
        ),
        st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted),
        st.integers(0, 1 << 40),
    ),
}
#: {field: values}, where not every value of its type can be meant.
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "code": st.sampled_from(sorted(FINDING_CODES)),
    "schema_version": st.just(SCHEMA_VERSION),
}


def values_of(kind: object) -> st.SearchStrategy[object]:
    """Any value that a field of this type may have."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if origin in {typing.Union, types.UnionType}:
        return st.one_of(*(values_of(one) for one in arguments))
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin in {dict, Mapping}:
        return st.dictionaries(st.text(max_size=4), values_of(arguments[1]), max_size=2)
    assert isinstance(kind, type)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        drawn = {name: FIELDS[name] if name in FIELDS else values_of(hints[name]) for name in names}
        return st.builds(kind, **drawn)
    return st.sampled_from(list(kind))  # type: ignore[call-overload]  # an enumeration


@given(values_of(LoadTestResult))
def test_what_was_written_is_read_back(result: LoadTestResult) -> None:
    """Every field of every part survives, with its type."""
    text = result_text(result)
    assert read_result(text) == result
    json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
