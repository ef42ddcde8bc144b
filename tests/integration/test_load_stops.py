"""Stopping `seatrial load`: by SIGTERM as by Ctrl-C, alone and with agents; and losing an agent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from tests.support.echo_server import EchoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED = 130
DEADLINE_S = 30.0
LONG = ["--rate", "400/s", "--warm-up", "0s", "--duration", "60s", "-c", "4"]


@pytest.fixture
def server() -> Iterator[EchoServer]:
    """A real echo server on loopback."""
    with EchoServer() as running:
        yield running


@contextlib.contextmanager
def load(*words: str) -> Iterator[proc.Spawned]:
    """Runs the command beside the test."""
    argv = [sys.executable, "-m", "seatrial.cli.main", "load", *words]
    with proc.spawn(argv, stdout="pipe", stderr="pipe") as process:
        yield process


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def agents_of(process: proc.Spawned) -> list[int]:
    """The agents that a load has started; it may have other helpers for a moment."""
    return [pid for pid in children_of(process.pid) if _is_agent(pid)]


def _is_agent(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\0agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def said(process: proc.Spawned) -> tuple[str, str]:
    """What it has put out until its end."""
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout.read().decode(), process.stderr.read().decode()


@pytest.mark.parametrize("agents_count", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_measured_is_told_and_kept(
    number: signal.Signals, agents_count: int, server: EchoServer, tmp_path: Path
) -> None:
    """SIGTERM comes twice, as from `timeout`, and to the agents too, as from who stops a group."""
    words = [server.target, *LONG, "--json", "--out", str(tmp_path / "kept")]
    with load(*words, *(["--agents", str(agents_count)] if agents_count else [])) as process:
        server.wait_for_replies(400, timeout_s=DEADLINE_S)
        if number == signal.SIGTERM:
            for pid in agents_of(process):
                os.kill(pid, number)
        process.signal(number)
        if number == signal.SIGTERM:
            process.signal(number)
        code = process.wait(timeout_s=DEADLINE_S)
        out, err = said(process)
    assert code == INTERRUPTED, err
    result = json.loads(out)
    assert result["was_interrupted"]
    assert result["measured"]["ok_count"] >= 200
    assert len(result["agents"]) == max(1, agents_count)
    assert json.loads((tmp_path / "kept" / "result.json").read_text()) == result
    assert err == ""


@pytest.mark.parametrize("agents", [[], ["--agents", "2"]])
def test_a_search_that_is_ended_tells_its_trials(agents: list[str], server: EchoServer) -> None:
    """The trial that was cut short is none of them."""
    words = ["--find-capacity", "--slo", "p50<1s", "--rate", "100/s", "--duration", "2s"]
    with load(server.target, "--warm-up", "0s", *words, *agents, "--json") as process:
        assert process.stderr is not None
        told = b""
        while b"trial 3" not in told:
            told += process.stderr.readline()
        process.signal(signal.SIGTERM)
        code = process.wait(timeout_s=DEADLINE_S)
        out, _ = said(process)
    assert code == INTERRUPTED
    found = json.loads(out)["capacity"]
    assert found["verdict"] == "interrupted"
    assert [one["rate_rps"] for one in found["trials"]] == [100.0, 200.0]
    assert found["rate"]["low"] == 200.0
    assert found["rate"]["high"] is None


def test_a_search_that_is_ended_at_once_has_no_answer(server: EchoServer) -> None:
    """It says so, in the same form."""
    words = ["--find-capacity", "--slo", "p50<1s", "--rate", "100/s", "--duration", "60s"]
    with load(server.target, "--quiet", *words) as process:
        server.wait_for_replies(1, timeout_s=DEADLINE_S)
        process.signal(signal.SIGINT)
        code = process.wait(timeout_s=DEADLINE_S)
        out, _ = said(process)
    assert code == INTERRUPTED
    assert "interrupted: no trial had ended" in out
    assert "0 trials" in out


def test_a_lost_agent_is_no_verdict_on_the_service(server: EchoServer) -> None:
    """Exit code 3, who it was, and what becomes of the others' part."""
    words = [server.target, *LONG, "--agents", "2", "--slo", "p50<10s", "--quiet"]
    with load(*words) as process:
        server.wait_for_replies(50, timeout_s=DEADLINE_S)
        lost, *_ = agents_of(process)
        os.kill(lost, signal.SIGKILL)
        code = process.wait(timeout_s=DEADLINE_S)
        out, err = said(process)
    assert code == 3
    assert out == ""
    assert f"(process {lost} on " in err
    assert "is lost" in err
    assert "what the other agents measured is not kept" in err
    assert "fewer --agents" in err
