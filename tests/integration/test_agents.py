"""Load agents as real processes: one load from many hands, and none of them dies unnoticed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.agents.frames import Decoder
from seatrial.agents.outcome import LoadOutcome
from seatrial.agents.peer import AGENT_VARIABLE, PeerLost
from seatrial.agents.team import Team
from seatrial.errors import SeatrialError, TrialFailed
from seatrial.loadgen import LoadRequest, arrivals, run_load
from tests.support.echo_server import EchoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

NS_PER_S = 1_000_000_000
RATE_RPS = 400.0


@pytest.fixture
def server() -> Iterator[EchoServer]:
    """A real echo server on loopback."""
    with EchoServer() as running:
        yield running


def part_of(server: EchoServer, number: int, count: int, **changes: object) -> LoadRequest:
    """Returns one agent's part of an open loop of 64-byte echoes."""
    request = LoadRequest(
        targets=(server.target,),
        protocol="echo",
        payload_bytes=64,
        arrival="poisson",
        rate_rps=RATE_RPS,
        connections=4,
        agent=number,
        agents=count,
        measure_ns=NS_PER_S,
        request_timeout_ns=20 * NS_PER_S,
        drain_ns=20 * NS_PER_S,
        wait="block",
        seed=3,
    )
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]  # its own fields


def test_agents_offer_one_schedule_together(server: EchoServer) -> None:
    """Three agents send what one process would have sent, at the same instants, nothing twice."""
    names = ("a", "b", "c")
    requests = {name: part_of(server, k, 3) for k, name in enumerate(names)}
    seen = []
    with Team.local(names) as team:
        found = team.run(requests, observe=lambda snapshot: bool(seen.append(snapshot)))
    merged = found.merged()
    planned = arrivals("poisson", RATE_RPS, seed=3, n=2000)
    due = [offset for offset in planned if offset < NS_PER_S]
    offsets = (merged.records["intended_at_ns"] - merged.started_at_ns).to_list()
    assert offsets == due
    assert sorted(merged.records["request_id"].to_list()) == list(range(len(due)))
    assert merged.measured.ok_count == len(due)
    assert merged.histograms["response"].count == len(due)
    assert [facts.name for facts in merged.agents] == list(names)
    assert len({outcome.started_at_ns for outcome in found.by_agent.values()}) == 1
    assert seen
    assert sum(interval.ok_count for interval in merged.intervals) == len(due)


def test_merging_is_the_same_as_having_seen_it_all(server: EchoServer) -> None:
    """Counts and histograms of two outcomes together equal those of their values together."""
    outcomes = [
        LoadOutcome.of(run_load(part_of(server, k, 2)), name=str(k), threads=1, connections=4)
        for k in range(2)
    ]
    merged = LoadOutcome.merged(outcomes)
    both = outcomes[0].histograms["response"].merge(outcomes[1].histograms["response"])
    assert merged.histograms["response"] == both
    ok = merged.records.filter(merged.records["outcome"] == 0)
    response_ns = (ok["done_at_ns"] - ok["intended_at_ns"]).sort()
    assert both.count == response_ns.len()
    assert (both.min_ns, both.max_ns) == (response_ns[0], response_ns[-1])
    assert both.quantile(0.5) == pytest.approx(response_ns[(response_ns.len() - 1) // 2], rel=0.002)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_silent_agent_is_named_in_time(server: EchoServer, how: signal.Signals) -> None:
    """Whether it died or hangs: the load ends within three seconds and says who it was."""
    requests = {
        name: part_of(server, k, 2, measure_ns=60 * NS_PER_S) for k, name in enumerate("ab")
    }
    with Team.local(tuple(requests)) as team:
        pid = team.pid_of("b")
        struck_at: list[float] = []

        def strike() -> None:
            time_left = threading.Event()
            time_left.wait(timeout=1.0)
            struck_at.append(time.monotonic())
            os.kill(pid, how)

        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.raises(TrialFailed, match=rf"agent b \(process {pid}") as caught:
            team.run(requests)
        took_s = time.monotonic() - struck_at[0]
        thread.join()
        pids = [team.pid_of(name) for name in team.names]
    assert caught.value.code == "agent-lost"
    assert took_s < 3.0
    for left in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(left, 0)
    with Team.local(tuple(requests)) as team:
        again = {name: part_of(server, k, 2) for k, name in enumerate("ab")}
        assert team.run(again).merged().measured.failed_count == 0


def test_an_agent_that_cannot_connect_fails_the_load_by_name(server: EchoServer) -> None:
    """The others are ended too, and the message is the engine's own."""
    requests = {
        "good": part_of(server, 0, 2),
        "bad": part_of(server, 1, 2, targets=("tcp://127.0.0.1:1",)),
    }
    with (
        Team.local(tuple(requests)) as team,
        pytest.raises(TrialFailed, match=r"agent bad .*127\.0\.0\.1:1") as caught,
    ):
        team.run(requests)
    assert caught.value.code == "connect-failed"


def test_finishing_early_keeps_what_was_measured(server: EchoServer) -> None:
    """An observer that has seen enough ends the load everywhere, and nothing is lost."""
    requests = {
        name: part_of(server, k, 2, measure_ns=60 * NS_PER_S) for k, name in enumerate("ab")
    }
    with Team.local(tuple(requests)) as team:
        found = team.run(requests, observe=lambda snapshot: snapshot.elapsed_ns > NS_PER_S)
    merged = found.merged()
    assert merged.was_finished_early
    assert not merged.was_interrupted
    assert merged.measured.ok_count == merged.measured.intended_count > 100


def test_agents_of_a_dead_coordinator_end() -> None:
    """Nobody goes on loading when the one who asked for it is gone."""
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.ExitStack() as stack:
        argv = ["-m", "seatrial.cli.main", "agent", "--name", "a", "--fd", str(theirs.fileno())]
        process = proc.spawn(
            [sys.executable, *argv],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, AGENT_VARIABLE: "ab" * 32},
            stderr="pipe",
        )
        stack.callback(process.close)
        theirs.close()
        ours.close()
        assert process.wait(timeout_s=10.0) is not None


def test_strangers_are_not_admitted() -> None:
    """A peer that says nothing, nonsense or the wrong proof never becomes an agent."""
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"SEAG" + bytes(60)):
        team, (ours, theirs) = Team(), socket.socketpair()
        theirs.sendall(words)
        theirs.shutdown(socket.SHUT_WR)
        with theirs, pytest.raises(SeatrialError) as caught:
            team.admit(ours)
        assert isinstance(caught.value, PeerLost) or caught.value.code == "agent-protocol"
        assert team.names == ()


def test_an_interrupt_in_the_middle_of_a_frame_loses_nothing(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes when bytes have been read and not yet been kept."""
    requests = {
        name: part_of(server, k, 2, measure_ns=60 * NS_PER_S) for k, name in enumerate("ab")
    }
    add, is_raised = Decoder.add, threading.Event()

    def added(decoder: Decoder, data: bytes) -> None:
        if data and server.was_reached.is_set() and not is_raised.is_set():
            is_raised.set()
            signal.raise_signal(signal.SIGINT)
        add(decoder, data)

    with Team.local(tuple(requests)) as team:
        monkeypatch.setattr(Decoder, "add", added)
        found = team.run(requests)
    assert is_raised.is_set()
    assert found.was_interrupted
    merged = found.merged()
    assert merged.was_interrupted
    assert sorted(found.by_agent) == ["a", "b"]
    assert merged.counts.ok_count > 0
