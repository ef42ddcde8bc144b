"""`seatrial load` from its command line to its exit code, against a modelled server."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

import polars as pl
import pytest
import vl_convert

from seatrial.cli.main import main
from seatrial.loadgen import LoadRequest
from seatrial.loadtest.perform import agent_requests
from seatrial.loadtest.settings import LoadTestSettings
from seatrial.loadtest.target import parse_target
from seatrial.report.load_live import whole_length

if TYPE_CHECKING:
    from pathlib import Path

# A queue with one server at half load: M/M/1, whose response time is exponential with mean 2 ms.
QUEUE = "fake://?service=exponential:1ms"
HALF = ["--rate", "500/s", "--duration", "60s", "--warm-up", "2s", "-c", "200", "--timeout", "1min"]
MEAN_RESPONSE_NS = 2e6


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that makes pages; it keeps threads and descriptors for good."""
    vl_convert.javascript_bundle("")


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    """Runs the command and returns its exit code and its result."""
    code = main(["load", *words, "--json"])
    captured = capsys.readouterr()
    assert captured.out, captured.err
    return code, json.loads(captured.out)


def test_known_queue_is_found_within_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """The analytic percentiles of an M/M/1 queue lie in the intervals, and the verdict is ok."""
    code, result = run_json(capsys, QUEUE, *HALF, "--seed", "7")
    assert code == 0
    (headline, *_) = result["times"]
    assert headline["kind"] == "response"
    for quantile in headline["quantiles"][:4]:
        truth_ns = -math.log(1 - quantile["share"]) * MEAN_RESPONSE_NS
        value = quantile["value"]
        assert value["low"] * 0.95 <= truth_ns <= value["high"] * 1.05, quantile["name"]
    assert result["offered_rps"] == pytest.approx(500, rel=0.05)
    assert result["achieved_rps"] == pytest.approx(result["offered_rps"], rel=0.02)
    assert result["measured"]["ok_count"] == result["measured"]["intended_count"]
    codes = {finding["code"] for finding in result["verdicts"] if finding["severity"] != "info"}
    assert codes == set()


def test_saturated_service_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the capacity: the verdict says so, and with --strict so does the exit code."""
    words = [QUEUE, "--rate", "2k/s", "--duration", "5s", "-c", "50", "--timeout", "30s"]
    code, result = run_json(capsys, *words)
    assert code == 0
    assert "saturated" in {finding["code"] for finding in result["verdicts"]}
    assert result["achieved_rps"] < 0.7 * result["offered_rps"]
    assert run_json(capsys, *words, "--strict")[0] == 1


def test_a_load_shorter_than_an_interval_is_not_credited_with_later_replies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All 50 requests are sent at once, and one server answers them in a second."""
    words = ["fake://?service=constant:20ms", "--count", "50", "-c", "50", "--timeout", "9s"]
    _, result = run_json(capsys, *words, "--warm-up", "0s")
    assert result["measured"]["ok_count"] == 50
    assert result["achieved_rps"] == pytest.approx(50, rel=0.01)


def test_a_request_for_each_user_has_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """All are sent at once in a closed loop, which ends when the last of them is answered."""
    words = [
        "fake://?service=constant:20ms&workers=8",
        "--count",
        "8",
        "-c",
        "8",
        "--warm-up",
        "0s",
    ]
    _, result = run_json(capsys, *words)
    assert result["measured"]["ok_count"] == result["measured"]["intended_count"] == 8
    assert result["achieved_rps"] == pytest.approx(8 / 0.020)


def test_a_load_that_ends_in_its_warm_up_is_not_ok(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, and nobody may take that for a good result."""
    words = ["--rate", "500/s", "--count", "5", "--warm-up", "1s", "--strict"]
    code, result = run_json(capsys, QUEUE, *words)
    assert code == 1
    assert result["measured"]["intended_count"] == 0
    assert "nothing-measured" in {finding["code"] for finding in result["verdicts"]}


def test_agents_are_told_the_bound_of_all_of_them() -> None:
    """The engine offers an agent's part of the bound; a part of that part would be too little."""
    settings = LoadTestSettings(target=parse_target([QUEUE]), agents_count=3, requests_max=10)
    request = LoadRequest(targets=(QUEUE,), measure_ns=1, connections=8, requests_max=10)
    agents = agent_requests(settings, request).values()
    assert [agent.requests_max for agent in agents] == [10, 10, 10]
    assert sum(agent.connections for agent in agents) == 8


def test_a_short_load_on_a_slow_service_is_not_saturated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is under way when the phase ends is no backlog as long as it does not grow."""
    words = ["fake://?service=constant:5ms&workers=50", "--rate", "1k/s", "--duration", "300ms"]
    _, result = run_json(capsys, *words, "-c", "50", "--warm-up", "100ms")
    assert result["measured"]["ok_count"] == result["measured"]["intended_count"] > 200
    assert "saturated" not in {finding["code"] for finding in result["verdicts"]}


def test_objectives_decide_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """An objective that holds passes, one that does not fails, and one that is open fails too."""
    rows = [
        (["p50<20ms,failed<1%"], 0, [True, True]),
        (["p99<2ms"], 1, [False]),
        (["p99.99<1s"], 1, [None]),
    ]
    for objectives, expected, holds in rows:
        words = [word for objective in objectives for word in ("--slo", objective)]
        code, result = run_json(capsys, QUEUE, *HALF, *words)
        assert code == expected, objectives
        assert [one["holds"] for one in result["objectives"]] == holds


def test_closed_loop_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a rate there is no offered rate and no response time, and the text says why."""
    words = [QUEUE, "-c", "1", "--duration", "5s", "--warm-up", "0s"]
    code, result = run_json(capsys, *words)
    assert code == 0
    assert result["offered_rps"] is None
    assert result["times"][0]["kind"] == "service"
    assert result["achieved_rps"] == pytest.approx(1000, rel=0.1)
    assert main(["load", *words]) == 0
    assert "closed loop" in capsys.readouterr().out


def test_precision_extends_the_load_until_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """--ci goes on beyond --duration, tells each extension, and ends as converged."""
    words = [QUEUE, *HALF, "--ci", "p90=10%", "--budget", "20min"]
    words[words.index("60s")] = "10s"
    code, result = run_json(capsys, *words)
    assert code == 0
    assert result["measure_length_ns"] > 10e9
    assert result["events"][-1]["kind"] == "converged"
    quantile = next(one for one in result["times"][0]["quantiles"] if one["name"] == "p90")
    value = quantile["value"]
    assert (value["high"] - value["low"]) / value["point"] < 0.12


def test_precision_out_of_reach_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A budget that is too small ends as such, with the length that it would have taken."""
    words = [QUEUE, "--rate", "500/s", "-c", "200", "--duration", "5s", "--budget", "6s"]
    code, result = run_json(capsys, *words, "--ci", "p99=0.5%", "--strict", "--timeout", "1min")
    assert code == 1
    extended, ended = result["events"]
    assert extended["reason"] == "p99=0.5%: 5.00 s -> 6.00 s"
    assert [extended["evidence"][f"{name}_duration_ns"] for name in ("old", "new")] == [5e9, 6e9]
    assert (extended["at_ns"], ended["at_ns"], result["measure_length_ns"]) == (5e9, 6e9, 6e9)
    assert ended["kind"] == "budget"
    assert ended["evidence"]["needed_ns"] > 6e9
    assert "not-converged" in {finding["code"] for finding in result["verdicts"]}


def test_capacity_of_a_known_queue_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """M/M/1 keeps p90 below 10 ms up to 1000 - ln(10)/10ms = 770 per second."""
    code, result = run_json(
        capsys,
        QUEUE,
        "--find-capacity",
        *["--slo", "p90<10ms", "--rate", "200/s", "--duration", "120s", "-c", "500"],
        *["--timeout", "1min", "--quiet"],
    )
    assert code == 0
    rate = result["capacity"]["rate"]
    truth_rps = 1000 - math.log(10) / 0.010
    assert rate["point"] == pytest.approx(truth_rps, rel=0.07)
    assert rate["low"] * 0.95 <= truth_rps <= rate["high"] * 1.05


@pytest.mark.parametrize(
    ("words", "open_end", "told", "advice"),
    [
        # Too short to see that 800/s is too much.
        ([QUEUE, "p90<10ms", "200/s", "3s"], "high", "at least 566 /s", "--duration "),
        # Down to rates of which four seconds have no request at all.
        (
            ["fake://?service=constant:1ms", "p99<1us", "100/s", "1s"],
            "low",
            "less than ",
            "does a single request keep them",
        ),
    ],
)
def test_an_open_end_of_a_capacity_is_not_found(
    words: list[str],
    open_end: str,
    told: str,
    advice: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Null in JSON, never a rate that was not tried; exit code 1 and what would help."""
    url, slo, rate, length = words
    options = ["--find-capacity", "--slo", slo, "--rate", rate, "--duration", length, "--quiet"]
    words = [url, *options, "-c", "500", "--timeout", "1min"]
    code, result = run_json(capsys, *words)
    assert code == 1
    found = result["capacity"]
    assert found["verdict"] == "undecided"
    tried = {one["rate_rps"] for one in found["trials"]}
    ends = {name: found["rate"][name] for name in ("low", "high")}
    assert ends.pop(open_end) is None
    assert tried.issuperset(ends.values())
    assert advice in found["reason"]
    assert main(["load", *words]) == 1
    answer = capsys.readouterr().out.splitlines()[1]
    assert answer.startswith(told)
    assert "[" not in answer


def test_a_percentile_among_the_failed_requests_is_no_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 800 requests five time out: the p99.9 of the others is not that of all that were due."""
    stall = "fake://?service=constant:1ms&stall_at=103ms&stall=30ms"
    words = ["--find-capacity", "--slo", "p99.9<1s", "--timeout", "10ms", "--warm-up", "0s"]
    rate = ["--arrival", "fixed", "--rate", "200/s", "--duration", "1s", "--quiet"]
    code, result = run_json(capsys, stall, *words, *rate)
    assert code == 1
    told = [(one["rate_rps"], one["side"], one["excess"]) for one in result["capacity"]["trials"]]
    assert told == [(200, "breaks", None), (100, "undecided", None)]
    why = result["capacity"]["trials"][0]["why"]
    assert why.startswith("p99.9<1.00 s: 0.625% over it [")
    found = result["capacity"]["rate"]
    assert (found["point"], found["low"], found["high"]) == (None, None, 200)


def test_a_search_survives_one_request_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """It breaks a p99.9 for certain and has no response time: there is no number, and no crash."""
    slow = ["fake://?service=constant:10s", "--timeout", "100ms", "--warm-up", "0s", "--quiet"]
    rate = ["--arrival", "fixed", "--rate", "1/s", "--duration", "1s"]
    code, result = run_json(capsys, *slow, "--find-capacity", "--slo", "p99.9<1ms", *rate)
    assert code == 1
    (single,) = (one for one in result["capacity"]["trials"] if one["rate_rps"] == 0.25)
    assert (single["side"], single["excess"]) == ("breaks", None)


def test_files_are_written_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every export holds what the result holds; a second run refuses before it offers load."""
    names = {"--out": "all", "--hdr": "r.hlog", "--k6": "r.ndjson", "--parquet": "r.parquet"}
    words = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    short = ["--rate", "500/s", "--duration", "2s", "--warm-up", "1s", "-c", "100"]
    _, result = run_json(capsys, QUEUE, *short, *words)
    stored = json.loads((tmp_path / "all" / "result.json").read_text())
    assert stored == result
    due_count = result["measured"]["intended_count"]
    requests = pl.read_parquet(tmp_path / "r.parquet")
    assert requests.filter(pl.col("phase") == 1).height == due_count
    points = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    failed = [p for p in points if p["type"] == "Point" and p["metric"] == "rpc_req_failed"]
    assert len(failed) == due_count
    log = (tmp_path / "r.hlog").read_text().splitlines()
    assert log[0] == "#[Histogram log format version 1.3]"
    assert log[-1].split(",")[-1].startswith("HISTFAAA")
    # Its length is that of the measured time alone.
    (line,) = (line for line in log if "HISTFAAA" in line)
    assert float(line.split(",")[1]) == pytest.approx(2, abs=0.001)
    assert main(["load", QUEUE, *short, *words]) == 2
    assert "exists" in capsys.readouterr().err


def test_familiar_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """--lancet prints the seed's columns, offered beside achieved; our own importer reads them."""
    assert main(["load", QUEUE, *HALF, "--lancet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# offered")
    assert lines[1].split("\t") == ["#ReqCount", "QPS", "RxBw", "TxBw"]
    assert lines[3].split("\t") == ["#Avg Lat", "50th", "90th", "95th", "99th"]
    assert lines[4].count("(") == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ftp://x"], "known schemes"),
        ([QUEUE, "--rate", "5"], "expected"),
        ([QUEUE, "--find-capacity"], "--slo"),
        ([QUEUE, "--find-capacity", "--slo", "p99<5ms", "--count", "3"], "leave --count out"),
        ([QUEUE, "--rate", "1/s", "--think", "constant:1ms"], "--think"),
        ([QUEUE, "--pattern", "spike:at=1s,for=1s,factor=2"], "--rate"),
        ([QUEUE, "--latency-agents", "1", "--rate", "1/s"], "--agents"),
        ([QUEUE, "--rate", "1/s", "--ci", "p99"], 'has no "="'),
        ([QUEUE, "--rate", "1/s", "--slo", "p99>1ms"], 'has no "<"'),
        ([QUEUE, "--rate", "1/s", "--arrival", "sometimes"], "poisson"),
        ([QUEUE, "-X", "POST"], "belongs to http"),
        ([QUEUE, "--option", "pace"], "NAME=VALUE"),
        ([QUEUE, "--ci", "p99=1%", "--budget", "1s"], "--budget"),
        ([QUEUE, "--out", "/nowhere/at/all"], "no directory"),
    ],
)
def test_mistakes_are_explained(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be meant ends with exit code 2 before anything is sent."""
    try:
        code = main(["load", *words])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["load", QUEUE, "--rate"], "--rate: no value; expected --rate N/s"),
        (["load", QUEUE, "--dration", "5s"], "unknown option --dration (did you mean --duration?)"),
        (["load", QUEUE, "--wait", "slowly"], "--wait: got 'slowly'; expected one of 'spin'"),
        (["run", "--blocks", "x", "quick"], "--blocks: got 'x'; expected a whole number"),
        (["load"], "the following arguments are required: URL"),
    ],
)
def test_a_wrong_option_is_told_in_two_lines(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was given, what was expected, where to look; no page of usage."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert told in error
    assert hint == f"hint: see `seatrial {words[0]} --help`"


def test_the_live_table_shows_the_budget_of_ci() -> None:
    """With --ci the first look is not when the load ends."""
    settings = LoadTestSettings(target=parse_target([QUEUE]), rate_rps=1.0, warm_up_ns=0)
    assert whole_length(settings) == "10.0 s"
    sure = dataclasses.replace(settings, precision=("p99=2%",), budget_ns=60_000_000_000)
    assert whole_length(sure) == "at most 1.00 min, until p99=2%"


def test_help_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option, form of URL, verdict and exit code is explained by --help."""
    with pytest.raises(SystemExit) as end:
        main(["load", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "--slo",
        "--ci",
        "grpc://",
        "redis://",
        "saturated",
        "exit codes",
        "examples",
        "TIME",
        "wrk2",
    ):
        assert word in text
