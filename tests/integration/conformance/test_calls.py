"""Pods whose guests call by TCP: the conformance suite again, strangers, and a machine's handler.

It is how guests of Kata reach their host. Kata itself needs KVM; here runc and gVisor call so.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from seatrial.benches.room import descriptor_count
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.cri.driver import CriSession
from seatrial.drivers.cri.handlers import HANDLERS, ChannelKind
from seatrial.errors import DriverError
from seatrial.launch import Outcome
from seatrial.loadgen import LoadRequest, run_load
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import BOX, Cgroup
from tests.integration.conformance.conftest import Shared
from tests.integration.conformance.test_conformance import (  # noqa: F401 - collected here again
    end,
    hold,
    test_a_guest_that_dies_early,
    test_a_guest_that_never_gets_ready,
    test_a_start_that_is_not_held,
    test_conversation,
    test_data_directory,
    test_host_network,
    test_out_of_memory,
    test_release_of_a_running_sandbox,
    test_roles,
    test_start_reply_stop,
    test_stop_by_kill,
    test_veth,
    test_what_is_not_supported_is_refused,
)
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.drivers.base import DriverSession

pytestmark = pytest.mark.driver

NS_PER_S = 1_000_000_000
DEADLINE_NS = 60 * NS_PER_S
PORT = 7000
OVERHEAD_BYTES = 64 << 20
IDLE = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)
BY_TCP = {"channel": "tcp"}


@pytest.fixture(params=("cri/runc", "cri/runsc"), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    """A driver that works here, and can give its pods a network."""
    driver_name: str = request.param
    needs_driver(driver_name)
    return driver_name


@pytest.fixture(scope="module")
def shared(name: str) -> Iterator[Shared]:
    """A session of that driver over the other channel."""
    with contextlib.closing(Shared(name, BY_TCP)) as kept:
        kept.open()
        yield kept


def port_of(session: DriverSession) -> tuple[str, int]:
    """Where a session's guests without a network of their own call."""
    assert isinstance(session, CriSession)
    daemon = session._daemon
    assert daemon is not None
    assert daemon.gateway is not None
    return daemon.gateway, session.launcher.listen(daemon.gateway)


def test_what_a_run_keeps_says_how_guests_call(session: DriverSession) -> None:
    """And that no network is not none."""
    assert session.flags["channel"] == "TCP over the pod's network"
    assert session.flags["network none"].startswith("not empty: CNI ptp")


def test_a_token_is_not_for_everybody_to_read(session: DriverSession) -> None:
    """It is in no command line of the host and in no text about the plan."""
    plan = hold(session, IDLE)
    token = plan.channel_token
    assert token is not None
    assert len(token) == 64
    assert token not in repr(plan)
    lines = [leaks.command_line(pid) for pid in session.processes(plan.id)]
    assert not any(token in line for line in lines)
    assert token not in plan.argv
    other = session.plan(IDLE, 1)
    assert other.channel_token not in {None, token}
    session.release(other.id)
    end(session, plan.id)


def test_strangers_harm_no_start(session: DriverSession) -> None:
    """Silent ones, garbage and wrong tokens at the very port; each start is as it would be."""
    held = hold(session, IDLE)  # the first pod brings the address
    address = port_of(session)
    is_over = threading.Event()
    met = []

    def disturb() -> None:
        said = (b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", secrets.token_hex(32).encode())
        with contextlib.ExitStack() as open_ones:
            while not is_over.is_set():
                for text in said:
                    with contextlib.suppress(OSError):
                        stream = socket.create_connection(address, timeout=10)
                        open_ones.enter_context(stream)
                        met.append(text)
                        stream.sendall(text)
                if len(met) % 100 == 0:
                    open_ones.close()

    stranger = threading.Thread(target=disturb)
    stranger.start()
    try:
        plans = [session.plan(IDLE, index) for index in range(4)]
        batch = session.launcher.start(plans, wait_for="reply", hold=True, timeout_ns=DEADLINE_NS)
    finally:
        is_over.set()
        stranger.join()
    assert [result.outcome for result in batch.results] == [Outcome.OK] * 4, batch
    assert len(met) > 4
    late = socket.create_connection(address, timeout=10)
    # Nobody is expected: the line is cut whatever is said.
    with late, contextlib.suppress(ConnectionError):
        late.sendall(cast("str", plans[0].channel_token).encode())
        assert late.recv(1) == b""
    end(session, held.id, *(plan.id for plan in plans))


def test_a_guest_that_cannot_reach_its_host(session: DriverSession) -> None:
    """It ends by itself and says whom it could not call; nothing waits for a deadline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.launcher, "listen", lambda _: 1)
        plan = session.plan(IDLE, 0)
    address, _ = port_of(session)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    result = batch.results[0]
    assert result.outcome is Outcome.EXITED_EARLY, (result, address)
    assert result.first_byte_at_ns is None
    session.release(plan.id)
    assert session.audit() == ()


def test_close_leaves_nothing_and_nobody_listens(name: str) -> None:
    """With live pods too."""
    context = DriverContext.for_run(new_run_id(), options=BY_TCP)
    with registry.get(name).open(context) as session:
        plan = hold(session, IDLE)
        address = port_of(session)
        pids = session.processes(plan.id)
        session.close()
        assert not any(leaks.is_alive(pid) for pid in pids)
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(address, timeout=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[CriSession]:
    """A handler with everything that the data say of Kata's, and runc behind it."""
    needs_driver("cri/runc")
    like_kata = replace(
        HANDLERS["runc"],
        channel=ChannelKind.TCP,
        is_machine=True,
        shares_host_clock=False,
        overhead_bytes=OVERHEAD_BYTES,
    )
    monkeypatch.setitem(cast("dict[str, object]", HANDLERS), "like-kata", like_kata)
    with registry.get("cri/like-kata").open(DriverContext.for_run(new_run_id())) as session:
        assert isinstance(session, CriSession)
        yield session


def test_a_machines_handler_calls_by_tcp_unasked(machine: CriSession) -> None:
    """It is never given the host's network, its limit has room for a monitor, its clock is own."""
    assert machine.flags["guest clock"] == "its own"
    assert not machine.capabilities.shares_host_clock
    assert machine.capabilities.network_modes == (NetworkMode.NONE, NetworkMode.VETH)
    with pytest.raises(DriverError, match="network mode host is not supported") as caught:
        machine.plan(replace(IDLE, network=NetworkMode.HOST), 0)
    assert caught.value.code == "unsupported"
    limit = 256 << 20
    plan = hold(machine, replace(IDLE, memory_limit_bytes=limit))
    assert plan.channel_token is not None
    books = machine.cgroups(plan.id)
    assert isinstance(books, Cgroup)
    place = books.directory("memory")
    assert place is not None
    # The container's own group has what was asked for; a monitor is in the pod's, around it.
    name = "memory.limit_in_bytes" if books.host.joined else "memory.max"
    assert int((place / BOX / name).read_text()) == limit + OVERHEAD_BYTES
    end(machine, plan.id)


def test_load_on_a_machines_handler(machine: CriSession) -> None:
    """Its servers are reached over the network that also carries the channel."""
    role = ("serve", "--protocol", "rpc", "--listen", f"tcp:0.0.0.0:{PORT}")
    spec = SandboxSpec(role=role, network=NetworkMode.VETH, deadline_ns=DEADLINE_NS)
    plans = [hold(machine, spec) for _ in range(2)]
    targets = tuple(machine.endpoint(plan.id, PORT) for plan in plans)
    result = run_load(LoadRequest(targets=targets, connections=2, measure_ns=NS_PER_S // 5))
    assert [target.counts.ok_count > 0 for target in result.targets] == [True, True]
    # Every correct reply was one that the server counted, told over the same channel.
    for plan, target in zip(plans, result.targets, strict=True):
        assert machine.server_stats(plan.id).replies >= target.counts.ok_count
    end(machine, *(plan.id for plan in plans))


def test_nothing_grows_over_calls(session: DriverSession) -> None:
    """Descriptors of the launcher are those of before, after cycles of batches."""
    counts = []
    for _ in range(3):
        plans = [session.plan(IDLE, index) for index in range(2)]
        batch = session.launcher.start(plans, wait_for="reply", hold=True, timeout_ns=DEADLINE_NS)
        assert [result.outcome for result in batch.results] == [Outcome.OK] * 2
        end(session, *(plan.id for plan in plans))
        counts.append(descriptor_count(session.launcher.pid))
    assert counts[-1] <= counts[0]
