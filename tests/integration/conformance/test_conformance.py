"""What every driver of real sandboxes has to do, whatever is behind it."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id, tools_path
from seatrial.errors import SeatrialError
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from tests.integration.conformance.conftest import AT_ONCE_MAX
from tests.support.channel import ERROR, RUN, STOP, Channel
from tests.support.needs import probe

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverSession
    from seatrial.launch import StartPlan, StartResult
    from tests.integration.conformance.conftest import Shared

pytestmark = pytest.mark.driver

NS_PER_S = 1_000_000_000
DEADLINE_NS = 60 * NS_PER_S
#: Drivers whose sandboxes boot a kernel each, for seconds where it is emulated.
BOOTING = frozenset({"qemu"})
GONE_NS = 20 * NS_PER_S
PORT = 7000
IDLE = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)


def hold(session: DriverSession, spec: SandboxSpec) -> StartPlan:
    """Start one sandbox that is ready and stays."""
    plan = session.plan(spec, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    assert batch.results[0].outcome is Outcome.OK, batch.results[0]
    return plan


def end(session: DriverSession, *ids: str) -> None:
    """Stop sandboxes, see them gone, release them, and find nothing left."""
    session.launcher.stop(list(ids), how="request")
    gone = session.wait_all_gone(ids, time.monotonic_ns() + GONE_NS)
    assert None not in gone.values(), gone
    for plan_id in ids:
        session.release(plan_id)
    assert session.audit() == ()


def assert_ordered(result: StartResult) -> None:
    """The instants of one start follow each other."""
    instants = [
        result.due_at_ns,
        result.invoked_at_ns,
        result.first_byte_at_ns,
        result.ready_at_ns,
        result.ping_sent_at_ns,
        result.first_reply_at_ns,
    ]
    known = [instant for instant in instants if instant is not None]
    assert known == sorted(known)
    assert len(known) == len(instants)
    # The thread that cloned may be woken after the guest has spoken, so only this much is sure.
    assert result.accepted_at_ns is not None
    assert result.accepted_at_ns >= (result.invoked_at_ns or 0)


def test_the_probe_says_what_works(name: str) -> None:
    """A usable driver names its version and at least the mode without a network."""
    result = probe(name)
    assert result.version
    assert NetworkMode.NONE in result.capabilities.network_modes
    assert result.elapsed_ns > 0


@pytest.mark.parametrize("is_alone", [True, False])
def test_start_reply_stop(session: DriverSession, is_alone: bool) -> None:  # noqa: FBT001 - a case
    """All come up, answer a ping, stop when asked, and leave nothing behind."""
    count = 1 if is_alone else 3 if session.name in BOOTING else AT_ONCE_MAX
    plans = [session.plan(IDLE, index) for index in range(count)]
    assert len({plan.id for plan in plans}) == count
    assert len({len(plan.id) for plan in plans}) == 1
    batch = session.launcher.start(plans, wait_for="reply", hold=True, timeout_ns=DEADLINE_NS)
    assert [result.outcome for result in batch.results] == [Outcome.OK] * count
    for result in batch.results:
        assert_ordered(result)
    # By name: what an earlier test released while it ran is still the launcher's to tell of.
    stops = session.launcher.stop([plan.id for plan in plans], how="request")
    assert {stop.id for stop in stops} == {plan.id for plan in plans}
    gone = session.wait_all_gone([plan.id for plan in plans], time.monotonic_ns() + GONE_NS)
    for stop in stops:
        gone_at_ns = gone[stop.id]
        assert gone_at_ns is not None
        assert stop.stop_requested_at_ns is not None
        assert gone_at_ns > stop.stop_requested_at_ns
        session.release(stop.id)
    assert session.audit() == ()


def test_a_start_that_is_not_held(session: DriverSession) -> None:
    """Without holding, a start is stopped as soon as it has reached its goal."""
    plan = session.plan(IDLE, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=False, timeout_ns=DEADLINE_NS)
    result = batch.results[0]
    assert (result.outcome, result.exit_code) == (Outcome.OK, 0)
    assert session.wait_gone(plan.id, time.monotonic_ns() + GONE_NS) is not None
    session.release(plan.id)
    assert session.audit() == ()


def test_conversation(session: DriverSession) -> None:
    """The channel carries pings, a probe and a command; the guest obeys its stop."""
    plan = hold(session, IDLE)
    with Channel(session.launcher.channel(plan.id)) as channel:
        assert channel.ping(b"x" * 4096) == b"x" * 4096
        measured = channel.run({"probe": "syscall", "iterations": 100, "batches": 3})
        assert measured["operations_per_batch"] == 100
        assert [ns > 0 for ns in measured["batch_ns"]] == [True] * 3
        said = channel.run({"probe": "exec", "argv": [session.guest_path, "version"]})
        assert "seatrial-guest" in str(said)
        channel.send(STOP)
        assert session.wait_gone(plan.id, time.monotonic_ns() + GONE_NS) is not None
    end(session, plan.id)


def test_stop_by_kill(session: DriverSession) -> None:
    """A sandbox that is killed takes everything that belongs to it along."""
    plan = hold(session, IDLE)
    (stop,) = session.launcher.stop([plan.id], how="kill")
    assert stop.id == plan.id
    session.release(plan.id)
    assert session.audit() == ()


def test_release_of_a_running_sandbox(session: DriverSession) -> None:
    """Release alone is enough, whatever state a sandbox is in; a second one does nothing."""
    plan = hold(session, IDLE)
    pids = session.processes(plan.id)
    assert pids
    session.release(plan.id)
    session.release(plan.id)
    assert session.audit() == ()
    assert not any(leaks.is_alive(pid) for pid in pids)


def test_a_guest_that_dies_early(session: DriverSession) -> None:
    """A guest that ends before it is ready is a failure of its own kind, with its last words."""
    spec = SandboxSpec(role=("serve", "--listen", "nonsense"), deadline_ns=DEADLINE_NS)
    plan = session.plan(spec, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    result = batch.results[0]
    assert result.outcome is Outcome.EXITED_EARLY, result
    assert result.exit_code not in {0, None}
    assert not result.censored
    session.release(plan.id)
    assert session.audit() == ()


def test_a_guest_that_never_gets_ready(session: DriverSession, shared: Shared) -> None:
    """The deadline censors the start, and nothing of it stays."""
    serve_for_ever = ("exec", "--", session.guest_path, "--channel-fd", "none", "idle")
    # Long enough for the guest's first words, which come well before it is ready.
    deadline_ns = NS_PER_S + 3 * shared.start_ns // 2
    plan = session.plan(SandboxSpec(role=serve_for_ever, deadline_ns=deadline_ns), 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    result = batch.results[0]
    assert result.outcome is Outcome.TIMED_OUT, result
    assert result.censored
    assert result.first_byte_at_ns is not None
    assert result.ready_at_ns is None
    session.release(plan.id)
    assert session.audit() == ()


def test_veth(session: DriverSession) -> None:
    """What a sandbox serves in its own network is reached from here, and only by its address."""
    need(session, NetworkMode.VETH)
    role = ("serve", "--protocol", "echo", "--listen", f"tcp:0.0.0.0:{PORT}")
    spec = SandboxSpec(role=role, network=NetworkMode.VETH, deadline_ns=DEADLINE_NS)
    plans = [hold(session, spec) for _ in range(2)]
    endpoints = {session.endpoint(plan.id, PORT) for plan in plans}
    assert len(endpoints) == 2
    for endpoint in endpoints:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as stream:
            stream.sendall(b"over the sea")
            assert stream.recv(64) == b"over the sea"
    end(session, *(plan.id for plan in plans))


def test_host_network(session: DriverSession) -> None:
    """In host mode the sandbox serves on the host's own loopback."""
    need(session, NetworkMode.HOST)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    role = ("serve", "--protocol", "echo", "--listen", f"tcp:127.0.0.1:{port}")
    plan = hold(session, SandboxSpec(role=role, network=NetworkMode.HOST, deadline_ns=DEADLINE_NS))
    assert session.endpoint(plan.id, port) == f"tcp://127.0.0.1:{port}"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
        stream.sendall(b"hello")
        assert stream.recv(64) == b"hello"
    end(session, plan.id)


def test_data_directory(session: DriverSession, tmp_path: Path) -> None:
    """A sandbox writes where the host can see it."""
    plan = hold(session, SandboxSpec(role=("idle",), data_dir=tmp_path, deadline_ns=DEADLINE_NS))
    request: dict[str, object] = {
        "probe": "file-write",
        "path": session.data_path(plan.id),
        "bytes": 65536,
        "block_bytes": 4096,
        "sync": True,
        "batches": 1,
    }
    before = changed_at_ns(tmp_path)
    with Channel(session.launcher.channel(plan.id)) as channel:
        assert channel.run(request)["bytes_per_batch"] == 65536
    assert changed_at_ns(tmp_path) > before
    end(session, plan.id)


def test_tools_can_be_run_and_not_changed(session: DriverSession, tmp_path: Path) -> None:
    """A sandbox that says so runs what lies in the directory of tools, and cannot write there."""
    if not session.capabilities.can_bind_tools:
        pytest.skip(f"{session.name} cannot bind a directory of tools")
    tool = tmp_path / "tool"
    shutil.copyfile(guest_binary(), tool)
    tool.chmod(0o755)
    spec = SandboxSpec(role=("idle",), tools_dir=tmp_path, deadline_ns=DEADLINE_NS)
    plan = hold(session, spec)
    at = tools_path(session.capabilities, tmp_path)
    with Channel(session.launcher.channel(plan.id)) as channel:
        argv = [f"{at}/tool", "--channel-fd", "none", "version"]
        said = channel.run({"probe": "exec", "argv": argv, "env": {"WORD": "x"}})
        assert (said["exit_code"], str(said["stdout"])[:14]) == (0, "seatrial-guest")
        if session.capabilities.has_own_root:
            wish = {"probe": "file-write", "path": at, "bytes": 1, "block_bytes": 1}
            channel.send(RUN, json.dumps(wish).encode())
            kind, refusal = channel.receive()
            assert kind == ERROR
            assert b"create /tools/" in refusal
    end(session, plan.id)
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_limits_and_books(session: DriverSession) -> None:
    """A memory limit reaches the kernel, and CPU and memory are booked on the sandbox."""
    if not session.capabilities.can_limit:
        pytest.skip("limits cannot be set here")
    limit = 512 << 20
    spec = SandboxSpec(
        role=("idle",), memory_limit_bytes=limit, cpu_limit=1.0, deadline_ns=DEADLINE_NS
    )
    plan = hold(session, spec)
    books = session.cgroups(plan.id)
    assert books.memory_limit_bytes() == limit + session.capabilities.limit_overhead_bytes
    cpu, memory = books.read_cpu(), books.read_memory()
    assert cpu is not None
    assert cpu.total_ns > 0
    assert memory is not None
    assert memory.usage_bytes > 0
    with Channel(session.launcher.channel(plan.id)) as channel:
        channel.run({"probe": "spin", "cpu_ns": 20_000_000})
    later = books.read_cpu()
    assert later is not None
    assert later.total_ns - cpu.total_ns >= 20_000_000 * 0.9
    end(session, plan.id)


def test_out_of_memory(session: DriverSession) -> None:
    """A guest that takes more than its limit is killed, alone; the error says that it went."""
    if not session.capabilities.can_limit:
        pytest.skip("limits cannot be set here")
    spec = SandboxSpec(role=("idle",), memory_limit_bytes=96 << 20, deadline_ns=DEADLINE_NS)
    files = set(Path.cwd().glob("[!.]*"))
    doomed, bystander = hold(session, spec), hold(session, IDLE)
    pages = (256 << 20) // 4096
    with GuestChannel(session.launcher.channel(doomed.id)) as channel, pytest.raises(SeatrialError):
        channel.run({"probe": "page-fault", "pages": pages}, timeout_ns=DEADLINE_NS)
    session.launcher.stop([doomed.id], how="request")
    assert session.wait_gone(doomed.id, time.monotonic_ns() + GONE_NS) is not None
    session.release(doomed.id)
    assert session.processes(bystander.id), "only the one that took too much is killed"
    end(session, bystander.id)
    assert set(Path.cwd().glob("[!.]*")) == files, "nothing is left where we work"


def test_roles(session: DriverSession) -> None:
    """Every live process of a sandbox is known, and one of them is the payload, or runs it."""
    plan = hold(session, IDLE)
    roles = session.processes(plan.id)
    assert {"payload", "vmm"} & set(roles.values())
    known = {"payload", "runtime", "gofer", "sentry", "vmm", "pause", "shim", "monitor"}
    assert set(roles.values()) <= known
    end(session, plan.id)


def test_what_is_not_supported_is_refused(session: DriverSession) -> None:
    """An id that was never planned is an error that names it."""
    from seatrial.errors import DriverError

    with pytest.raises(DriverError, match="st-none"):
        session.processes("st-none")
    plan = hold(session, IDLE)
    with pytest.raises(DriverError, match="no endpoint"):
        session.endpoint(plan.id, PORT)
    with pytest.raises(DriverError, match="no data directory"):
        session.data_path(plan.id)
    end(session, plan.id)


def test_close_alone_leaves_nothing(name: str) -> None:
    """Closing with live sandboxes removes them; the suite's last fixture looks at the machine."""
    with registry.get(name).open(DriverContext.for_run(new_run_id())) as session:
        plan = hold(session, IDLE)
        pids = session.processes(plan.id)
        session.close()
        session.close()
        assert not any(leaks.is_alive(pid) for pid in pids)


def changed_at_ns(directory: Path) -> int:
    """The latest change of a directory or what is in it."""
    return max(path.stat().st_mtime_ns for path in (directory, *directory.iterdir()))


def need(session: DriverSession, mode: NetworkMode) -> None:
    """Skip where the driver has no such network."""
    if mode not in session.capabilities.network_modes:
        pytest.skip(f"no network mode {mode} here")
