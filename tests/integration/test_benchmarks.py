"""The benchmarks' own programs and harness, end to end. Nothing here is about speed."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import ctr, engine, frozen, yardstick
from benchmarks.servers import Address, arrival_log, echo_server, read_arrivals
from benchmarks.settings import Settings, smoke
from benchmarks.starter import Starter
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.drivers.base import DriverContext, new_run_id
from seatrial.errors import EnvironmentTrouble, ProcessFailed
from seatrial.guest.binary import guest_binary
from tests.integration.conformance.conftest import left_of
from tests.support.needs import needs_driver, needs_root
from tests.support.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 90


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Short runs, programs compiled once."""
    return smoke(tmp_path_factory.mktemp("build"))


@pytest.fixture
def server(settings: Settings) -> Iterator[Address]:
    """The C echo server."""
    with echo_server(settings) as address:
        yield address


@pytest.mark.parametrize(("connections", "depth"), [(1, 1), (16, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize("wait", ["block", "spin"])
def test_c_client_counts_what_it_measures(
    settings: Settings, server: Address, connections: int, depth: int, wait: str
) -> None:
    """Rate and count are of the same time, and quantiles do not cross."""
    figures = yardstick.closed_loop(
        settings, server, connections=connections, depth=depth, wait=wait
    )
    assert figures["ok_count"] > 0
    assert figures["rate_rps"] == pytest.approx(figures["ok_count"] / settings.seconds, abs=1e-2)
    check_order(figures, "service")


@pytest.mark.parametrize("arrival", ["fixed", "poisson"])
@pytest.mark.parametrize("wait", ["spin", "hybrid", "block"])
def test_c_open_loop_gets_every_reply(
    settings: Settings, server: Address, arrival: str, wait: str
) -> None:
    """What was sent came back, and no response is shorter than its lateness."""
    figures = yardstick.open_loop(settings, server, rate_rps=2000, wait=wait, arrival=arrival)
    length = settings.seconds + settings.warm_up
    assert figures["sent_count"] == figures["received_count"]
    if arrival == "fixed":
        assert figures["sent_count"] == pytest.approx(2000 * length, abs=1)
    check_order(figures, "late")
    check_order(figures, "response")
    assert figures["response_p50_ns"] >= figures["late_p50_ns"]


def test_c_programs_refuse_what_they_cannot_do(settings: Settings, server: Address) -> None:
    """A wrong word on the command line ends with a usage line, not with a measurement."""
    for name in ("echo_client", "open_loop", "echo_server"):
        done = proc.run([str(compiled(name, settings.build)), "x"], check=False)
        assert done.exit_code == 2
        assert "usage: " in done.stderr_tail
    with pytest.raises(ProcessFailed):
        yardstick.closed_loop(settings, server, connections=0, depth=1, wait="block")


def test_the_clone_floor_has_a_time_for_each_child(settings: Settings) -> None:
    """Each child is born after its clone began; a kind that is none is refused."""
    needs_root("make namespaces without one of its own user's")
    program = str(compiled("clone_floor", settings.build))
    for kinds in ("-", "mpuin"):
        lines = proc.run([program, "3", kinds], timeout_s=PATIENCE_S).text.split()
        assert len(lines) == 3
        assert all(int(line) > 0 for line in lines)
    with pytest.raises(ProcessFailed, match="KINDS"):
        proc.run([program, "3", "px"], timeout_s=PATIENCE_S)


def test_the_spawning_loop_hears_a_guest_on_both_kinds_of_channel(
    settings: Settings, tmp_path: Path
) -> None:
    """Inherited or called, the first byte comes before the end; each start has its line."""
    program, guest = str(compiled("spawn_wait", settings.build)), str(guest_binary())
    words = [program, "2"]
    for number in range(3):
        path = str(tmp_path / str(number))
        words += ["--", "", path, guest, "--channel-path", path, "idle"]
        words += ["--", "", "-", guest, "--channel-fd", "3", "idle"]
    lines = proc.run(words, timeout_s=PATIENCE_S).text.splitlines()
    assert len(lines) == 6
    for line in lines:
        first_byte_ns, ended_ns = map(int, line.split())
        assert 0 < first_byte_ns <= ended_ns
    silent = proc.run([program, "1", "--", "", str(tmp_path / "s"), "/bin/true"]).text.split()
    assert silent[0] == "-1"
    with pytest.raises(ProcessFailed, match="name too long"):
        proc.run([program, "1", "--", "", str(tmp_path / ("x" * 108)), "/bin/true"])


def test_both_launchers_start_containers_by_ctr(settings: Settings) -> None:
    """Either sees the guests' first bytes, a pod does beside them; nothing of it stays."""
    needs_driver("cri/runc")
    context = DriverContext.for_run(new_run_id())
    program = compiled("spawn_wait", settings.build)
    with ExitStack() as stack:
        session, pods = (stack.enter_context(one) for one in ctr.opened(context))
        own = ctr.own_cpu(context.run_id, session, pods)
        starter, pod_starter = (Starter(one, program, batches={2: 1}) for one in (session, pods))
        for start in (starter.ours, starter.theirs, pod_starter.ours):
            before_ns = own.read_ns() - time.process_time_ns()
            figures = start(2)
            assert 0 < figures["first_byte_ns"] <= figures["makespan_ns"]
            # The work of the daemon and of its shims is known for ours, too.
            assert own.read_ns() - time.process_time_ns() > before_ns
        assert session.audit() == ()
    assert left_of(context.run_id, context.state_dir) == []


def test_a_server_of_others_is_no_place_for_ctr(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says why it has no number, and the other rows are measured all the same."""
    monkeypatch.setenv("SEATRIAL_CRI_ENDPOINT", "unix:///run/nowhere.sock")
    (row,) = ctr.rows(settings)
    assert row.verdict == "not measured"
    assert "SEATRIAL_CRI_ENDPOINT is set" in row.ours


def test_the_arrival_log_counts_each_request_once(settings: Settings) -> None:
    """Requests count when their last byte has come, however they were cut; reading empties it."""
    request = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
    with arrival_log(settings) as server:
        with socket.create_connection((server.host, server.port)) as client:
            begun_ns = time.monotonic_ns()
            for piece in (request[:-2], request[-2:] + request, request[:1], request[1:]):
                client.sendall(piece)
            replies = b""
            while replies.count(b"ok\n") < 3:
                replies += client.recv(4096)
            ended_ns = time.monotonic_ns()
        instants = read_arrivals(server)
        assert len(instants) == 3
        assert [begun_ns, *instants, ended_ns] == sorted([begun_ns, *instants, ended_ns])
        assert read_arrivals(server) == []


def test_our_side_is_the_real_engine(settings: Settings, server: Address) -> None:
    """A load by a child process: every request has a correct reply."""
    figures = engine.load(settings, server.tcp, connections=3, depth=2)
    assert figures["ok_count"] == figures["intended_count"] > 0
    assert figures["failed_count"] == 0
    for name in ("service", "response", "late"):
        check_order(figures, name)


def test_our_side_verifies_unless_told_otherwise(settings: Settings) -> None:
    """Rows that say `replies verified` ask for nothing special: a flipped byte fails the run."""
    with flipping_server() as target, pytest.raises(EnvironmentTrouble, match="no correct reply"):
        engine.load(settings, target, request_timeout_ns=200_000_000)


def test_our_refusal_is_told(settings: Settings, server: Address) -> None:
    """A request that the engine does not know gives its own words, for the table."""
    with pytest.raises(EnvironmentTrouble, match=r"the engine refused: .*protocol"):
        engine.load(settings, server.tcp, protocol="carrier-pigeon")


def test_the_truth_about_a_frozen_server() -> None:
    """The quantile q is F - (1 - q) T, with the freeze F as long as it really was."""
    with closing(proc.spawn(["sleep", str(PATIENCE_S)])) as sleeper:
        address = Address(host="", port=0, pid=sleeper.pid)

        def run(_: float) -> dict[str, float]:
            for is_frozen in (True, False):
                while (state_of(sleeper.pid) == "T") != is_frozen:
                    assert sleeper.wait(timeout_s=0.005) is None
            return {"response_p99_ns": 0.9e9, "response_max_ns": 1.0e9}

        judged = frozen.judged(address, run, seconds=0.2)()
    frozen_ns = judged["true_max_ns"]
    assert frozen_ns >= 1e9
    assert judged["true_p99_ns"] == pytest.approx(frozen_ns - 0.01 * 0.2e9)
    assert judged["error_max_ratio"] == pytest.approx((frozen_ns - 1.0e9) / frozen_ns)
    assert "error_p999_ratio" not in judged


def test_a_run_that_ends_early_leaves_no_frozen_server() -> None:
    """The freezer ends with the run."""
    with closing(proc.spawn(["sleep", str(PATIENCE_S)])) as sleeper:
        with frozen.Freezer(sleeper.pid, after=PATIENCE_S) as freezer:
            pass
        assert freezer.frozen_ns == 0
        assert state_of(sleeper.pid) != "T"


def test_smoke_run_of_the_harness() -> None:
    """`--smoke` gives a table with both sides, and leaves the published results alone."""
    before = (ROOT / "benchmarks" / "RESULTS.md").read_bytes()
    done = command("--smoke", "--only", "echo", "open")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| T")]
    assert {row[0].removeprefix("| ") for row in rows} == {
        "T1", "T2", "T3", "T4", "T8", "T9", "T12",
    }  # fmt: skip
    assert all(row[3].startswith("C") and "none" not in row[3] for row in rows)
    assert (ROOT / "benchmarks" / "RESULTS.md").read_bytes() == before


def test_list_names_every_family() -> None:
    """What `--only` takes is what `--list` lists."""
    listed = [line.split()[0] for line in command("--list").stdout.splitlines()]
    load = ["echo", "open", "cost", "http", "grpc", "paced", "audit", "frozen"]
    assert listed == ["runc", "ctr", "lean", *load, "import"]
    refused = command("--only", "speed")
    assert refused.returncode == 2
    assert "invalid choice: 'speed'" in refused.stderr
    assert "--rounds 0: expected more than 0" in command("--rounds", "0").stderr


def test_endurance_in_short() -> None:
    """Nothing is lost and both ends count the same; memory is read of both processes."""
    words = ["--minutes", "0.03", "--rate", "500", "--connections", "100"]
    done = command(*words, module="benchmarks.endurance")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| holds |") == 16
    assert "not hold" not in done.stdout


def command(*words: str, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    """Runs the benchmarks as a user does."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=PATIENCE_S,
    )


@contextmanager
def flipping_server() -> Iterator[str]:
    """An echo server that changes the last byte of what it read; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError):
                        while data := client.recv(65536):
                            client.sendall(data[:-1] + bytes([data[-1] ^ 1]))

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield f"tcp://{host}:{port}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def check_order(figures: dict[str, float], name: str) -> None:
    """Quantiles grow with their share."""
    found = [figures[f"{name}_{word}_ns"] for word in ("p50", "p90", "p99", "p999", "max")]
    assert found == sorted(found)
    assert found[0] >= 0


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
