"""`seatrial load` blames the right one: failures, slow services and slow generators."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seatrial.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Runs the command and returns its exit code and its result."""
    code = main(["load", *words, "--json"])
    captured = capsys.readouterr()
    assert captured.out, captured.err
    return code, json.loads(captured.out)


@pytest.fixture
def hangs_up() -> Iterator[int]:
    """A port whose server takes connections and closes each when something comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        ends = threading.Event()
        server.settimeout(0.1)
        thread = threading.Thread(target=_hang_up, args=(server, ends))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ends.set()
            thread.join()


def _hang_up(server: socket.socket, ends: threading.Event) -> None:
    open_ones: list[socket.socket] = []
    while not ends.is_set():
        try:
            client, _ = server.accept()
        except TimeoutError:
            continue
        client.shutdown(socket.SHUT_RDWR)
        open_ones.append(client)
    for client in open_ones:
        client.close()


def test_a_load_without_a_correct_reply_is_never_ok(
    hangs_up: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every request fails: the verdict is an error, and so is the exit code without --strict."""
    url = f"http://127.0.0.1:{hangs_up}/"
    words = ["--rate", "50/s", "--duration", "500ms", "--warm-up", "0s", "-c", "2"]
    code, result = run_json(capsys, url, *words)
    assert result["measured"]["ok_count"] == 0
    found = {finding["code"]: finding for finding in result["verdicts"]}
    assert found["request-failures"]["severity"] == "error"
    assert "got no correct reply (100.00%)" in found["request-failures"]["message"]
    # It is not slow but broken: what was cut off at once does not pile up.
    assert "saturated" not in found
    assert code == 1


def test_some_failures_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """A stall longer than the time-out fails some: said, and an error only with --strict."""
    url = "fake://?service=constant:10us&stall_at=1s&stall=500ms"
    words = ["--rate", "200/s", "--duration", "2s", "--warm-up", "0s", "--timeout", "100ms"]
    code, result = run_json(capsys, url, *words)
    found = {finding["code"]: finding for finding in result["verdicts"]}
    assert found["request-failures"]["severity"] == "warning"
    assert "of the others only" in found["request-failures"]["message"]
    assert code == 0
    assert run_json(capsys, url, *words, "--strict")[0] == 1


def test_a_frozen_service_does_not_bend_the_arrivals(capsys: pytest.CaptureFixture[str]) -> None:
    """While the service stands still all places fill up; what leaves late is not our lateness."""
    url = "fake://?service=constant:10us&stall_at=1s&stall=1s"
    words = ["--rate", "500/s", "--duration", "4s", "--warm-up", "0s", "-c", "4", "--timeout", "5s"]
    _, result = run_json(capsys, url, *words)
    (queue,) = (time for time in result["times"] if time["kind"] == "queue")
    assert queue["count"] > 0.1 * result["measured"]["intended_count"]
    told = [finding["message"] for finding in result["verdicts"]]
    assert not [message for message in told if "as the poisson process has it" in message]


def test_a_service_that_is_not_there_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, as --help says; 1 would tell a pipeline that an objective failed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["load", f"http://127.0.0.1:{port}/", "--rate", "10/s"]) == 3
    assert "refused" in capsys.readouterr().err


def test_a_full_disk_is_no_bug() -> None:
    """What cannot be written ends with exit code 3 and the reason."""
    command = [sys.executable, "-m", "seatrial.cli.main", "list"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert ended.returncode == 3
    assert "cannot write the output: No space left on device" in ended.stderr
    assert "internal error" not in ended.stderr


def test_a_count_is_not_eaten_by_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    """As many requests as asked for are measured."""
    code, result = run_json(capsys, "fake://?service=constant:10us", "--count", "500", "-c", "4")
    assert (code, result["measured"]["intended_count"]) == (0, 500)


def test_nothing_measured_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A warm-up that takes all requests leaves no numbers, and the verdict is not ok."""
    words = ["--count", "50", "-c", "4", "--warm-up", "1s"]
    code, result = run_json(capsys, "fake://?service=constant:10us", *words)
    assert result["measured"]["intended_count"] == 0
    assert result["verdicts"][0]["code"] == "nothing-measured"
    assert code == 1


@pytest.mark.parametrize(
    ("pattern", "rate"),
    [
        ("step:from=1k/s,to=3k/s,by=1k/s,every=100ms", []),
        ("ramp:from=60k/min,to=2k/s,over=200ms", []),
        ("square:low=100/s,high=500,period=200ms", []),
        ("spike:at=100ms,for=50ms,factor=5", ["--rate", "500/s"]),
    ],
)
def test_patterns_take_rates_with_units(
    pattern: str, rate: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As --help writes them; and a pattern with its own rates is an open loop."""
    words = ["--pattern", pattern, *rate, "--duration", "400ms", "--warm-up", "0s"]
    assert main(["load", "fake://?service=constant:10us", *words]) == 0
    assert "open loop" in capsys.readouterr().out.splitlines()[0]


def test_a_trace_is_held_against_its_own_instants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gaps follow no law: a regular trace on time is not the generator's fault."""
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{at}\n" for at in range(0, 10**9, 5 * 10**6)))
    words = ["--arrival", f"trace:{trace}", "--duration", "900ms", "--warm-up", "0s"]
    _, result = run_json(capsys, "fake://?service=constant:10us", *words)
    told = [finding["message"] for finding in result["verdicts"]]
    assert not [message for message in told if "process has it" in message]


def test_a_table_without_all_intervals_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small sample has n/a in its --lancet table; `seatrial import lancet` takes the others."""
    words = ["--rate", "200/s", "--duration", "500ms", "--warm-up", "0s", "--lancet"]
    assert main(["load", "fake://?service=constant:1ms", *words]) == 0
    table = capsys.readouterr().out
    assert "n/a (need >= 368)" in table
    log = tmp_path / "log"
    log.write_text(table)
    main(["import", "lancet", str(log), "--json"])
    captured = capsys.readouterr()
    assert "error" not in captured.err
    (block,) = json.loads(captured.out)["blocks"]
    assert 50 in [one["percentile"] for one in block["quantiles"]]
    assert 99 not in [one["percentile"] for one in block["quantiles"]]


def blamed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What is held against the generator before a service that takes no time to speak of."""
    _, result = run_json(capsys, "fake://?service=constant:10us&workers=8", *words)
    return [one["message"] for one in result["verdicts"] if one["code"] == "generator-bound"]


def test_bursts_are_not_held_against_the_generator(capsys: pytest.CaptureFixture[str]) -> None:
    """The number and the gaps of an mmpp scatter far more than those of independent gaps."""
    bursts = ["--arrival", "mmpp:factor=5,burst=10ms,calm=100ms", "--rate", "5k/s"]
    for seed in range(10):
        words = [*bursts, "--duration", "3s", "--warm-up", "0s", "--seed", str(seed)]
        assert blamed(capsys, *words) == []


def test_a_trace_has_as_many_requests_as_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred gaps have 101 ends; where the trace ends the phase, the last is in it."""
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"{at * 1_000_000}\n" for at in range(101)), "utf-8")
    for duration in ("100ms", "50ms", "2s"):
        words = ["--arrival", f"trace:{trace}", "--duration", duration, "--warm-up", "0s"]
        assert blamed(capsys, *words) == []
    words = ["--arrival", f"trace:{trace}", "--duration", "50ms", "--warm-up", "50ms"]
    assert blamed(capsys, *words) == []
