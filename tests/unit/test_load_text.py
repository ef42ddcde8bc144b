"""The result of a load in words: nothing broken, nothing hidden, nothing claimed too much."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.cli import output
from seatrial.loadtest.perform import perform
from seatrial.loadtest.result import FailureCount
from seatrial.loadtest.settings import LoadTestSettings
from seatrial.loadtest.target import parse_target
from seatrial.report.load_page import render_load_page
from seatrial.report.load_text import render_result

if TYPE_CHECKING:
    from seatrial.loadtest.result import LoadTestResult

NS_PER_MS = 1_000_000
STALLED = "fake://?service=constant:10us&stall_at=1s&stall=1s"


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that makes pages; it keeps threads and descriptors for good."""
    vl_convert.javascript_bundle("")


@pytest.fixture(scope="module")
def stalled() -> LoadTestResult:
    """A load on a service that stood still for a second of three."""
    settings = LoadTestSettings(
        target=parse_target([STALLED]),
        rate_rps=500.0,
        duration_ns=3000 * NS_PER_MS,
        warm_up_ns=0,
        drain_ns=5000 * NS_PER_MS,
        request_timeout_ns=5000 * NS_PER_MS,
        connections=4,
    )
    return perform(settings).result


def text_of(result: LoadTestResult, width: int) -> list[str]:
    """The lines that a terminal of a width would show."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        console.print(render_result(result))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_percentiles_without_an_interval_are_told_as_such(stalled: LoadTestResult) -> None:
    """A stall makes the sample worth few values; its p99 is shown all the same, marked."""
    (line,) = (line for line in text_of(stalled, 160) if line.startswith("p99 "))
    told = line.split()[1]
    assert told.startswith("~")
    (p99,) = (one for one in stalled.headline.quantiles if one.name == "p99")
    # Those due in the stalled second waited for its end: a third of all, evenly from 0 to 1 s.
    assert p99.sample_ns == pytest.approx(970 * NS_PER_MS, rel=0.05)
    assert any("~: of this sample" in text for text in text_of(stalled, 160))


def test_a_percentile_beyond_the_sample_is_not_shown(stalled: LoadTestResult) -> None:
    """Of 1500 values none lies beyond p99.99."""
    (line,) = (line for line in text_of(stalled, 160) if line.startswith("p99.99"))
    assert line.split()[1] == "n/a"
    assert stalled.headline.quantiles[-1].sample_ns is None


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_is_broken_at_any_width(stalled: LoadTestResult, width: int) -> None:
    """Columns are left out rather than wrapped, and what was left out is named."""
    lines = text_of(stalled, width)
    begin = next(number for number, line in enumerate(lines) if line.startswith("mean"))
    names = [line.split()[0] for line in lines[begin : begin + 8]]
    assert names == ["mean", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"]
    is_short = any("not shown for want of width" in line for line in lines)
    assert is_short == (width < 110)


def test_those_who_waited_are_counted(stalled: LoadTestResult) -> None:
    """A mean over those who waited is larger than that over all; the heading says of how many."""
    (queue,) = (time for time in stalled.times if time.kind == "queue")
    assert any(f"waited for a place ({queue.count})" in line for line in text_of(stalled, 160))


def test_an_interrupted_load_says_so(stalled: LoadTestResult) -> None:
    """A shorter window is not taken for the one that was asked for."""
    cut = dataclasses.replace(stalled, was_interrupted=True)
    assert "then interrupted" in text_of(cut, 160)[0]


def test_remarks_are_no_failures(stalled: LoadTestResult) -> None:
    """A miss in a cache is a correct reply; counts are of the whole run, which the heading says."""
    remarked = dataclasses.replace(
        stalled, failures=(FailureCount(outcome="ok", text="miss", count=7),)
    )
    lines = text_of(remarked, 160)
    assert not any("failed with" in line for line in lines)
    assert any(line.split() == ["ok", "7", "miss"] for line in lines)
    assert any("in the whole run" in line for line in lines)


@pytest.mark.parametrize(
    ("protocol", "options", "told"),
    [
        ("resp", {}, "10% of the requests write: they set one of 10000 keys on the server"),
        ("memcached", {"read_ratio": "0.25", "keys": "7"}, "75% of the requests write"),
        ("resp", {"read_ratio": "1", "preload": "true"}, "all 10000 keys were set before"),
        ("resp", {"read_ratio": "1"}, ""),
        ("resp", {"command": "PING"}, ""),
        ("rpc", {}, ""),
    ],
)
def test_a_load_that_writes_says_so(
    stalled: LoadTestResult, protocol: str, options: dict[str, str], told: str
) -> None:
    """Whoever loads a store in use has to see that its content was changed, and how not to."""
    settings = dataclasses.replace(stalled.settings, protocol=protocol, options=options)
    result = dataclasses.replace(stalled, settings=settings)
    head = " ".join(text_of(result, 160)[:3])
    page = render_load_page(result, figures=())
    assert ("write" in head or "keys" in head) == bool(told)
    assert told in head
    assert told[3:] in page


def test_our_own_lag_is_named_by_what_stands_beside_it() -> None:
    """What is called a part of send lag has that beside it, which a closed loop has not."""
    settings = LoadTestSettings(
        target=parse_target(["fake://?service=constant:1ms"]), warm_up_ns=0, requests_max=500
    )
    closed = perform(settings).result
    heading = next(line for line in text_of(closed, 200) if "service time" in line)
    assert "of that" not in heading
    assert "pacing lag" in heading
    assert "of that" not in render_load_page(closed)


def test_every_time_is_shown_or_named(stalled: LoadTestResult) -> None:
    """Kernel time stamps add columns; none that was measured goes without a word."""
    (service,) = (time for time in stalled.times if time.kind == "service")
    kinds = {"response", "service", "send_lag", "pacing_lag"}
    kept = tuple(time for time in stalled.times if time.kind in kinds)
    stamped = [dataclasses.replace(service, kind=kind) for kind in ("wire", "wake")]
    result = dataclasses.replace(stalled, times=(*kept, *stamped))
    words = [
        "response time",
        "service time",
        "wire and server",
        "sent after due",
        "of that, pacing lag",
        "wake-up",
    ]
    for width in (80, 120, 160, 300):
        lines = text_of(result, width)
        told = " ".join(
            line for line in lines if "response time" in line or "for want of width" in line
        )
        assert [word for word in words if word not in told] == [], width
    assert not any("for want of width" in line for line in lines)


def test_a_fallback_of_time_stamps_is_told_with_its_reason(stalled: LoadTestResult) -> None:
    """Whoever asked for the device's stamps has to see that they are the kernel's."""
    (agent,) = stalled.agents
    stamps = {"requested": "hardware", "used": "kernel", "reason": "the device stamps no packets"}
    other = dataclasses.replace(agent, timestamps=stamps)
    result = dataclasses.replace(stalled, agents=(other,))
    told = "kernel instead of hardware (the device stamps no packets)"
    assert told in " ".join(" ".join(text_of(result, 160)).split())
    assert told in render_load_page(result, figures=())


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("", 160), ("wide", 160), ("1", 40)])
def test_a_pipe_is_as_wide_as_columns_says(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables fit where the reader says how wide that is."""
    monkeypatch.setenv("COLUMNS", columns)
    assert output.stdout_console().width == width
