"""The formulas and verdicts of the benches `fleet` and `rpc`, on tables that are done by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.benches.fleet import dealt, derive_fleet, judge_fleet
from seatrial.benches.rpc import corrupt_reply, derive_rpc, judge_rpc
from seatrial.importers.lancet import read_lancet
from seatrial.model.plan import Point, TrialSpec
from seatrial.report.client_lines import client_lines
from seatrial.report.familiar import FamiliarRow, familiar_text
from seatrial.stats.validity import check_answered

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from seatrial.benches.base import Samples

MS = 1_000_000
S = 1_000_000_000
FLEET = Point(
    bench="fleet",
    values={"layout": "sandboxes", "count": 2, "demand": "constant:100us", "rate_rps": 100.0},
)
RPC = Point(bench="rpc", values={"mode": "checksum", "threads": 1, "clients": 2})
Row = dict[str, object]


def load_row(agent: str, **changes: object) -> Row:
    """One agent whose measure phase is the second second."""
    row: Row = {
        "agent": agent,
        "started_at_ns": 0,
        "ended_at_ns": 2 * S,
        "threads_count": 1,
        "measure_start_ns": S,
        "measure_end_ns": 2 * S,
        "intended_count": 100,
        "sent_count": 100,
        "ok_count": 100,
        "timeout_count": 0,
        "error_count": 0,
        "generator_user_ns": 1,
        "generator_system_ns": 1,
        "pacing_lag_ns_p50": 10.0,
        "pacing_lag_ns_p99": 10.0,
        "application_error_count": 0,
        "measured_intended_count": 50,
        "measured_ok_count": 50,
    }
    return row | changes


def interval(agent: str, position: int, **changes: object) -> Row:
    """Half a second of one agent."""
    row: Row = {
        "agent": agent,
        "position": position,
        "started_at_ns": S + position * S // 2,
        "ended_at_ns": S + (position + 1) * S // 2,
        "intended_count": 50,
        "sent_count": 50,
        "ok_count": 50,
        "failed_count": 0,
        "sent_bytes": 1_000,
        "received_bytes": 2_000,
    }
    return row | changes


def target(position: int, **changes: object) -> Row:
    """One server that answered everything."""
    row: Row = {
        "position": position,
        "intended_count": 100,
        "ok_count": 100,
        "failed_count": 0,
        "response_ns_p50": 1_000.0,
        "response_ns_p99": 2_000.0,
    }
    return row | changes


def request(position: int, **changes: object) -> Row:
    """One request of a latency agent that took 300 ns to its reply, 100 of them to be sent."""
    due = S + position * MS
    row: Row = {
        "phase": 1,
        "outcome": 0,
        "intended_at_ns": due,
        "sent_at_ns": due + 100,
        "done_at_ns": due + 300,
    }
    return row | changes


def tables(**changes: list[Row]) -> Mapping[str, pl.DataFrame]:
    """A load agent and a latency agent on two servers, with all counts in agreement."""
    rows: dict[str, list[Row]] = {
        "loads": [load_row("load-0"), load_row("latency-0")],
        "intervals": [
            interval(agent, position)
            for agent in ("load-0", "latency-0")
            for position in (-1, 0, 1, 2)
        ],
        "targets": [target(0), target(1, response_ns_p50=1_500.0)],
        "servers": [
            {"requests_count": 120, "cpu_ns": 4_000},
            {"requests_count": 80, "cpu_ns": 6_000},
        ],
        "requests": [request(0), request(1), request(2, phase=0)],
    }
    return {name: pl.DataFrame(taken) for name, taken in (rows | changes).items() if taken}


def by_name(samples: tuple[Samples, ...]) -> dict[str, list[float]]:
    """The values by metric."""
    return {one.metric: list(one.values) for one in samples}


def codes(frames: Mapping[str, pl.DataFrame], point: Point = FLEET) -> list[str]:
    """What a bench has to say about the tables."""
    judge = judge_fleet if point.bench == "fleet" else judge_rpc
    return [finding.code for finding in judge(frames, point)]


def test_every_fleet_metric_is_what_methodology_says() -> None:
    """Times are the latency agents', rates are of whole intervals, and the spread is over servers.

    The last interval ends after the measure phase, and the one before it begins earlier.
    """
    assert by_name(derive_fleet(tables(), FLEET)) == {
        "response_time_ns": [300.0, 300.0],
        "service_time_ns": [200.0, 200.0],
        "send_lag_ns": [100.0, 100.0],
        "response_mean_ns": [300.0],
        "fleet_offered_rps": [200.0],
        "fleet_achieved_rps": [200.0],
        "answered_ratio": [1.0],
        "replies_count": [200.0],
        "received_bytes_per_s": [8_000.0],
        "sent_bytes_per_s": [4_000.0],
        "failed_ratio": [0.0],
        "best_target_ns": [1_000.0],
        "worst_target_ns": [1_500.0],
        "target_spread_ratio": [0.5],
        "request_cpu_ns": [50.0],
    }
    assert codes(tables()) == []


def test_a_server_without_a_reply_leaves_no_spread() -> None:
    """The slowest of the others is not the slowest of all."""
    silent = target(1, ok_count=0, failed_count=100, response_ns_p50=None)
    found = by_name(derive_fleet(tables(targets=[target(0), silent]), FLEET))
    assert "worst_target_ns" not in found


def test_requests_that_were_never_sent_have_failed() -> None:
    """They belong to no server, but they were due."""
    loads = [load_row("load-0", measured_ok_count=25), load_row("latency-0")]
    for derive, point in ((derive_fleet, FLEET), (derive_rpc, RPC)):
        assert by_name(derive(tables(loads=loads), point))["failed_ratio"] == [0.25]


def test_incomplete_cpu_books_give_no_cost() -> None:
    """The sum over some of the sandboxes is not the sum."""
    servers: list[Row] = [
        {"requests_count": 120, "cpu_ns": 4_000},
        {"requests_count": 80, "cpu_ns": None},
    ]
    assert "request_cpu_ns" not in by_name(derive_fleet(tables(servers=servers), FLEET))


def test_the_overload_of_the_original_is_called_by_its_name() -> None:
    """82,000/s were offered and 63,019/s answered in 5 s, and the tool of then said nothing."""
    finding = check_answered(due_count=82_000 * 5, answered_count=315_114)
    assert finding is not None
    assert finding.code == "saturated"
    assert "76.9%" in finding.message
    assert check_answered(due_count=12_000 * 5, answered_count=60_016) is None


def test_a_few_requests_under_way_are_no_overload() -> None:
    """Five of two hundred are missing: 2.5 %, but what chance does to so few."""
    assert check_answered(due_count=200, answered_count=195) is None
    assert check_answered(due_count=200, answered_count=150) is not None


def test_fleet_beyond_capacity_is_saturated() -> None:
    """Replies that come after the window do not count as kept up."""
    slow = [
        interval(agent, position, intended_count=1_000, ok_count=700)
        for agent in ("load-0", "latency-0")
        for position in (0, 1)
    ]
    assert codes(tables(intervals=slow)) == ["saturated"]


def test_servers_and_clients_that_disagree_are_an_error() -> None:
    """One request more or less on either side shows, with both numbers."""
    servers: list[Row] = [{"requests_count": 201, "cpu_ns": 1}]
    for point in (FLEET, RPC):
        assert codes(tables(servers=servers), point) == ["counter-mismatch"]
    (finding,) = judge_rpc(tables(servers=servers), RPC)
    assert "counted 201 requests, the clients sent 200 and got 200 replies" in finding.message


@pytest.mark.parametrize(("read", "expected"), [(189, 1), (190, 0), (200, 0), (201, 1)])
def test_requests_that_clients_gave_up_may_or_may_not_have_been_read(
    read: int, expected: int
) -> None:
    """Ten of two hundred had no reply by the end; all others must have been read."""
    loads = [load_row("client-0", ok_count=88, application_error_count=2), load_row("client-1")]
    servers: list[Row] = [{"requests_count": read, "cpu_ns": 1}]
    found = judge_rpc(tables(loads=loads, servers=servers), RPC)
    assert [finding.code for finding in found].count("counter-mismatch") == expected


def test_failures_name_their_most_frequent_reason() -> None:
    """Time-outs are told apart from what else went wrong."""
    loads = [load_row("client-0", ok_count=90, timeout_count=3), load_row("client-1")]
    failures: list[Row] = [
        {"agent": "client-0", "outcome": "reset", "reason": "hung up", "requests_count": 7},
        {"agent": "client-0", "outcome": "timeout", "reason": "too late", "requests_count": 3},
    ]
    (finding,) = judge_rpc(tables(loads=loads, failures=failures), RPC)
    assert finding.code == "request-failures"
    assert "10 of 200 requests got no correct reply, 3 of them no reply in time" in finding.message
    assert finding.message.endswith("most often reset: hung up")


def test_an_agent_without_idle_time_is_told_once() -> None:
    """The busiest speaks for all; its lateness is a second reason of the same name."""
    loads = [
        load_row("load-0", generator_user_ns=int(1.9 * S)),
        load_row("latency-0", generator_user_ns=int(1.95 * S)),
    ]
    (finding,) = judge_fleet(tables(loads=loads), FLEET)
    assert finding.code == "generator-bound"
    assert "98%" in finding.message


@pytest.mark.parametrize("kind", ["load", "latency"])
def test_agents_that_send_late_are_told_by_their_kind(kind: str) -> None:
    """The lateness of one kind is held against the times that are about it."""
    loads = [load_row("load-0"), load_row("latency-0")]
    late = [
        row | {"pacing_lag_ns_p50": 90_000.0} if str(row["agent"]).startswith(kind) else row
        for row in loads
    ]
    (finding,) = judge_fleet(tables(loads=late), FLEET)
    assert finding.code == "generator-bound"
    assert finding.message.startswith(f"{kind} agents: the p50 pacing lag is")


@pytest.mark.parametrize(
    ("sent_counts", "is_kept"),
    [((500, 500), True), ((450, 550), True), ((450, 450), False), ((560, 550), False)],
)
def test_agents_of_a_kind_have_one_rate_together(
    sent_counts: tuple[int, int],
    is_kept: bool,  # noqa: FBT001 - a case of the test
) -> None:
    """Three standard errors of 1000 requests by a Poisson schedule are 95 of them."""
    loads = [
        load_row(
            f"load-{number}",
            intended_count=50,
            sent_count=50,
            ok_count=50,
            offered_rps=500.0,
            measured_sent_count=count - 3,
            measured_unsent_count=3,
        )
        for number, count in enumerate(sent_counts)
    ]
    loads.append(
        load_row("latency-0", offered_rps=50.0, measured_sent_count=50, measured_unsent_count=0)
    )
    found = judge_fleet(tables(loads=loads), FLEET)
    if is_kept:
        assert found == ()
        return
    (finding,) = found
    assert finding.code == "generator-bound"
    assert finding.message.startswith("load agents: ")
    assert "were sent where 1.00 k/s were planned (limit 9.5%)" in finding.message
    behind = tables(loads=loads, intervals=[interval("load-0", 0, ok_count=1)])
    assert [one.code for one in judge_fleet(behind, FLEET)] == ["saturated"]


def test_every_rpc_metric_is_what_methodology_says() -> None:
    """The total is the sum over clients, each by its own time."""
    loads = [load_row("client-0"), load_row("client-1", timeout_count=2, application_error_count=1)]
    intervals = [interval("client-0", 0), interval("client-0", 1), interval("client-1", 0)]
    found = by_name(derive_rpc(tables(loads=loads, intervals=intervals), RPC))
    assert found == {
        "client_rps": [100.0, 100.0],
        "rpc_rps": [200.0],
        "service_time_ns": [200.0, 200.0],
        "timeouts_count": [2.0],
        "corrupt_count": [1.0],
        "failed_ratio": [0.0],
        "request_cpu_ns": [50.0],
    }


def test_a_corrupt_reply_is_told_in_the_words_of_who_found_it() -> None:
    """Time-outs are no corruption."""
    late: Row = {"agent": "client-0", "outcome": "timeout", "reason": "late", "requests_count": 4}
    assert corrupt_reply([late]) is None
    words = "request 7: the reply is corrupt: byte 3 of its 8 payload bytes is 0x01, expected 0x00"
    flipped: Row = {"agent": "client-1", "outcome": "x", "reason": words, "requests_count": 2}
    finding = corrupt_reply([late, flipped])
    assert finding is not None
    assert finding.code == "corrupt-reply"
    assert finding.message == f"2 payloads were corrupt; client-1: {words}"


@pytest.mark.parametrize(
    ("count", "hands", "expected"), [(10, 3, [4, 3, 3]), (4, 4, [1, 1, 1, 1]), (16, 1, [16])]
)
def test_connections_are_dealt_without_remainder(
    count: int, hands: int, expected: list[int]
) -> None:
    """None is dropped."""
    assert dealt(count, hands) == expected


def test_familiar_text_is_read_by_the_importer(tmp_path: Path) -> None:
    """What is printed in Lancet's columns is what Lancet's reader finds."""
    row = FamiliarRow(
        driver="runc",
        point=FLEET,
        offered="12000.000",
        answered="99.9%",
        throughput=("60016", "11998.500", "96019.608", "95994.010"),
        latency=("484.469", *("461.485(459.279, 463.854)",) * 4),
    )
    file = tmp_path / "lancet.log"
    file.write_text(familiar_text([row, row]))
    assert file.read_text().splitlines()[:2] == [
        "runc, 2 sandboxes, constant:100us, 100/s",
        "Offered 12000.000 QPS, achieved 11998.500 QPS (99.9%)",
    ]
    block, _ = read_lancet(file).blocks
    assert (block.request_count, block.achieved_rps) == (60016, 11998.5)
    assert block.mean_ns == 484_469
    assert [one.percentile for one in block.quantiles] == [50, 90, 95, 99]
    assert block.quantiles[0].low_ns == 459_279


def test_lines_of_clients_are_those_of_whole_intervals() -> None:
    """A line a client and interval in the original's form; sums are comments."""
    spec = TrialSpec(trial_id="t0001", index=0, block=0, driver="process", point=RPC, seed=1)
    odd = interval("client-1", 1, ok_count=25, ended_at_ns=2 * S - S // 8)
    frames = tables(
        loads=[load_row("client-0"), load_row("client-1")],
        intervals=[
            *(interval("client-0", at) for at in (-1, 0, 1, 2)),
            interval("client-1", 0),
            odd,
        ],
    )
    assert client_lines(spec, frames["intervals"], frames["loads"]).splitlines() == [
        "# t0001: process, block 0, checksum, threads 1, clients 2",
        "@client-0     passed: 500000us, thpt: 100 requests/s",
        "@client-1     passed: 500000us, thpt: 100 requests/s",
        "# interval 0: 2 of 2 clients, 200 requests/s",
        "@client-0     passed: 500000us, thpt: 100 requests/s",
        "@client-1     passed: 375000us, thpt: 66.667 requests/s",
        "# interval 1: 2 of 2 clients, 166.667 requests/s",
        "# total of 2 clients: 185.714 requests/s",
    ]
