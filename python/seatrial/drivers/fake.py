"""A driver that obeys a scripted model: no process, no clock but the one it moves itself.

Starts get instants that are sums of a start and durations drawn from the model, seeded, so that
what the whole chain reports can be compared with what was put in. The timeline begins at the real
monotonic clock and never falls behind it, but nothing is ever waited for: a stop of five seconds
takes none. Instances carry no endpoints but modelled ones (``fake://``, for the load engine).
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self

from seatrial import __version__
from seatrial.drivers.base import (
    CHANNEL_FD,
    DATA_PATH,
    Capabilities,
    DriverContext,
    ProbeResult,
    ProbeStatus,
    SandboxSpec,
    Stopped,
)
from seatrial.drivers.fake_guest import FakeGuest
from seatrial.drivers.fake_model import Draws, FakeModel, Fate, Script, model_from_options
from seatrial.errors import DriverError
from seatrial.launch import Outcome, StartBatch, StartPlan, StartResult, StopResult
from seatrial.model.experiment import NetworkMode
from seatrial.probes.cgroup_books import CpuReading, MemoryReading
from seatrial.probes.leaks import Leak, LeakKind

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from seatrial.drivers.base import Shared
    from seatrial.model.scalar import Scalar

#: The pids of fake processes; above what the kernel gives (PID_MAX_LIMIT is 2**22).
FAKE_PID_MIN: Final = 1 << 23
CAPABILITIES: Final = Capabilities(
    network_modes=(NetworkMode.NONE, NetworkMode.HOST, NetworkMode.VETH),
    has_own_cgroup=True,
    can_limit=True,
    has_own_root=True,
    shares_host_clock=True,
)


class FakeDriver:
    """A runtime that exists on paper."""

    name = "fake"

    def __init__(self, model: FakeModel | None = None) -> None:
        """Obey a model, or the plain default one."""
        self.model = model or FakeModel()

    def probe(self) -> ProbeResult:
        """Say that a model always works."""
        return ProbeResult(
            name=self.name,
            status=ProbeStatus.WORKS,
            version=__version__,
            detail="a scripted model; it measures nothing",
            capabilities=CAPABILITIES,
        )

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse what has no meaning."""
        model_from_options(self.model, options)

    def open(self, context: DriverContext) -> FakeSession:
        """Begin a script; the experiment's options change the model."""
        return FakeSession(context, model=model_from_options(self.model, context.options))


@dataclass(slots=True, kw_only=True)
class _Sandbox:
    """One fake sandbox; mutable, since its life is played by the launcher."""

    plan: StartPlan
    spec: SandboxSpec
    script: Script
    cpu_ns: int = 0
    is_running: bool = False
    gone_at_ns: int | None = None
    """None: it never started, still runs, or leaks."""
    guest: FakeGuest | None = None


class Timeline:
    """An instant that only moves forward and never falls behind the monotonic clock."""

    def __init__(self) -> None:
        """Begin now."""
        self._now_ns = time.monotonic_ns()

    def now(self) -> int:
        """Give the present instant (ns)."""
        self._now_ns = max(self._now_ns, time.monotonic_ns())
        return self._now_ns

    def reach(self, instant_ns: int) -> None:
        """Move on to an instant, unless it has passed."""
        self._now_ns = max(self._now_ns, instant_ns)


class FakeLauncher:
    """Executes start plans on paper."""

    def __init__(self, sandboxes: Mapping[str, _Sandbox], *, model: FakeModel) -> None:
        """Play the lives of the session's sandboxes."""
        self._sandboxes = sandboxes
        self._model = model
        self.timeline = Timeline()

    @property
    def pid(self) -> int:
        """This very process: there is no other."""
        return os.getpid()

    def start(
        self,
        plans: Sequence[StartPlan],
        *,
        wait_for: Literal["hello", "ready", "reply"],
        hold: bool,
        timeout_ns: int,
    ) -> StartBatch:
        """Play a batch: sandboxes beyond the model's processors wait for their turn."""
        released_ns = self.timeline.now()
        results: list[StartResult] = []
        for position, plan in enumerate(plans):
            sandbox = self._sandboxes[plan.id]
            queued_ns = self._model.queue_ns(sandbox.script, position)
            limit_ns = min(plan.deadline_ns, timeout_ns)
            result = self._play(sandbox, released_ns, queued_ns, limit_ns, wait_for)
            results.append(result if hold else self._end(sandbox, result))
        latest = [_last_instant(result) for result in results]
        self.timeline.reach(max(latest, default=released_ns))
        own_ns = self._model.launcher_cpu_ns * len(results)
        return StartBatch(
            released_at_ns=released_ns,
            results=tuple(results),
            launcher_user_ns=own_ns // 2,
            launcher_system_ns=own_ns - own_ns // 2,
        )

    def channel(self, sandbox_id: str, /) -> socket.socket:
        """Give a socket with a fake guest behind it."""
        sandbox = self._running(sandbox_id)
        if sandbox.guest is not None:
            raise DriverError(f"fake: the channel of {sandbox_id} was handed out before")
        sandbox.guest = FakeGuest(self._model.probe_costs_ns, seed=sandbox.script.seed)
        return sandbox.guest.host_end

    def stop(
        self,
        ids: Sequence[str] | None = None,
        *,
        how: Literal["request", "kill"] = "request",
        grace_ns: int = 0,
    ) -> tuple[StopResult, ...]:
        """End sandboxes as their scripts say; a kill takes no time."""
        chosen = [one for one in self._sandboxes.values() if one.is_running]
        if ids is not None:
            chosen = [self._running(sandbox_id) for sandbox_id in ids]
        asked_ns = self.timeline.now()
        stopped = []
        for sandbox in chosen:
            took_ns = sandbox.script.stop_ns if how == "request" else 0
            ended_ns = asked_ns + took_ns
            self._bury(sandbox, ended_ns)
            stopped.append(
                StopResult(
                    id=sandbox.plan.id,
                    stop_requested_at_ns=asked_ns,
                    exit_seen_at_ns=ended_ns,
                    exit_code=0 if how == "request" else None,
                    signal=None if how == "request" else 9,
                    user_ns=sandbox.cpu_ns // 2,
                    system_ns=sandbox.cpu_ns - sandbox.cpu_ns // 2,
                )
            )
        return tuple(stopped)

    def close(self) -> None:
        """End everything at once."""
        for sandbox in self._sandboxes.values():
            self._bury(sandbox, self.timeline.now())

    def _running(self, sandbox_id: str) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.is_running:
            raise DriverError(f"fake: sandbox {sandbox_id!r} is not running")
        return sandbox

    def _play(
        self,
        sandbox: _Sandbox,
        due_ns: int,
        queued_ns: int,
        limit_ns: int,
        wait_for: Literal["hello", "ready", "reply"],
    ) -> StartResult:
        script = sandbox.script
        invoked_ns = due_ns + script.launch_lag_ns
        first_ns = invoked_ns + queued_ns + script.start_ns
        stamps = {"hello": first_ns}
        stamps["ready"] = first_ns + script.ready_ns
        stamps["reply"] = stamps["ready"] + script.reply_ns
        sandbox.cpu_ns = script.cpu_ns
        base = StartResult(
            id=sandbox.plan.id,
            outcome=Outcome.OK,
            due_at_ns=due_ns,
            invoked_at_ns=invoked_ns,
            accepted_at_ns=invoked_ns,
        )
        if script.fate is Fate.SPAWN_FAILS:
            text = "clone: Resource temporarily unavailable (11)"
            return dataclasses.replace(base, outcome=Outcome.SPAWN_FAILED, error=text)
        if script.fate is Fate.EXITS_EARLY:
            self._bury(sandbox, first_ns)
            return dataclasses.replace(
                base, outcome=Outcome.EXITED_EARLY, exit_code=1, exit_seen_at_ns=first_ns
            )
        end_ns = due_ns + limit_ns
        if script.fate is Fate.HANGS or stamps[wait_for] > end_ns:
            self._bury(sandbox, end_ns)
            return dataclasses.replace(
                base, outcome=Outcome.TIMED_OUT, censored=True, signal=9, exit_seen_at_ns=end_ns
            )
        sandbox.is_running = True
        is_ready = sandbox.plan.ready == "ready" and wait_for != "hello"
        return dataclasses.replace(
            base,
            pid=FAKE_PID_MIN + script.number,
            first_byte_at_ns=first_ns,
            ready_at_ns=stamps["ready"] if is_ready else None,
            ping_sent_at_ns=stamps["ready"] if wait_for == "reply" else None,
            first_reply_at_ns=stamps["reply"] if wait_for == "reply" else None,
            guest_first_instruction_mono_ns=first_ns - script.hello_ns,
            guest_hello_mono_ns=first_ns,
            guest_ready_mono_ns=stamps["ready"] if is_ready else None,
        )

    def _end(self, sandbox: _Sandbox, result: StartResult) -> StartResult:
        """Complete the result of a sandbox that is not held."""
        if not sandbox.is_running:
            return result
        asked_ns = _last_instant(result)
        ended_ns = asked_ns + sandbox.script.stop_ns
        self._bury(sandbox, ended_ns)
        return dataclasses.replace(
            result,
            stop_requested_at_ns=asked_ns,
            exit_seen_at_ns=ended_ns,
            exit_code=0,
            user_ns=sandbox.cpu_ns // 2,
            system_ns=sandbox.cpu_ns - sandbox.cpu_ns // 2,
        )

    def _bury(self, sandbox: _Sandbox, ended_ns: int) -> None:
        if sandbox.guest is not None:
            sandbox.guest.close()
            sandbox.guest = None
        if sandbox.gone_at_ns is None and not sandbox.script.leaks:
            sandbox.gone_at_ns = ended_ns + sandbox.script.gone_ns
        sandbox.is_running = False
        self.timeline.reach(ended_ns)


class FakeCgroups:
    """Books that say what the script says."""

    def __init__(self, sandbox: _Sandbox, *, model: FakeModel) -> None:
        """Read from one sandbox's script."""
        self._sandbox = sandbox
        self._model = model

    def read_cpu(self) -> CpuReading:
        """Give the scripted CPU time of the start."""
        total_ns = self._sandbox.cpu_ns
        return CpuReading(
            total_ns=total_ns, user_ns=total_ns // 2, system_ns=total_ns - total_ns // 2
        )

    def read_memory(self) -> MemoryReading:
        """Give the model's memory of one sandbox."""
        usage = self._model.memory_bytes if self._sandbox.is_running else 0
        return MemoryReading(
            usage_bytes=usage,
            anon_bytes=usage,
            file_bytes=0,
            shmem_bytes=0,
            kernel_bytes=0,
            peak_bytes=self._model.memory_bytes,
        )

    def memory_limit_bytes(self) -> int | None:
        """Give the limit that was asked for."""
        return self._sandbox.spec.memory_limit_bytes


class FakeSession:
    """The fake driver at work."""

    def __init__(self, context: DriverContext, *, model: FakeModel) -> None:
        """Begin a script from the model's seed."""
        self.name = FakeDriver.name
        self.version = __version__
        self.capabilities = CAPABILITIES
        self.flags: Mapping[str, str] = MappingProxyType({"model": model.describe()})
        self._context = context
        self._model = model
        self._draws = Draws(model, seed=context.seed)
        self._sandboxes: dict[str, _Sandbox] = {}
        self._leaked: list[str] = []
        self._launcher = FakeLauncher(self._sandboxes, model=model)

    @property
    def launcher(self) -> FakeLauncher:
        """What plays this session's plans."""
        return self._launcher

    @property
    def guest_path(self) -> str:
        """The name of a guest that does not exist."""
        return "/bin/seatrial-guest"

    @property
    def litter(self) -> Mapping[str, int]:
        """A model drops nothing."""
        return {}

    def plan(self, spec: SandboxSpec, index: int) -> StartPlan:
        """Draw the life of one sandbox."""
        script = self._draws.next()
        name = f"st-fake-{script.number:08d}"
        plan = StartPlan(
            id=name,
            argv=(self.guest_path, "--channel-fd", str(CHANNEL_FD), *spec.role),
            deadline_ns=spec.deadline_ns,
            ready=spec.ready,
        )
        self._sandboxes[name] = _Sandbox(plan=plan, spec=spec, script=script)
        return plan

    def cgroups(self, plan_id: str) -> FakeCgroups:
        """Give the scripted books."""
        return FakeCgroups(self._sandbox(plan_id), model=self._model)

    def endpoint(self, plan_id: str, port: int) -> str:
        """Give the model of a server, for the load engine's fake transport."""
        self._sandbox(plan_id)
        return self._model.server

    def milestones(self, plan_id: str) -> Mapping[str, int]:
        """Give nothing: there is no client."""
        return {}

    def server_stats(self, plan_id: str) -> NoReturn:
        """Refuse: the modelled server is part of the load engine and counts nothing."""
        self._sandbox(plan_id)
        raise DriverError("fake: a modelled server counts nothing", code="guest-no-server")

    def data_path(self, plan_id: str) -> str:
        """Give the usual path."""
        self._sandbox(plan_id)
        return DATA_PATH

    def processes(self, plan_id: str) -> Mapping[int, str]:
        """Give the one fake payload while it runs."""
        sandbox = self._sandbox(plan_id)
        if not sandbox.is_running:
            return {}
        return {FAKE_PID_MIN + sandbox.script.number: "payload"}

    def shared(self) -> Shared | None:
        """Say that a model has no daemon."""
        return None

    def image_files(self) -> Sequence[Path]:
        """Say that a model reads no files."""
        return ()

    def wait_gone(self, plan_id: str, deadline_ns: int) -> int | None:
        """Give the scripted instant; None: it leaks, or would still be there at the deadline."""
        sandbox = self._sandbox(plan_id)
        if sandbox.is_running or sandbox.script.leaks:
            self._launcher.timeline.reach(deadline_ns)
            return None
        if sandbox.gone_at_ns is None:
            return self._launcher.timeline.now()
        self._launcher.timeline.reach(sandbox.gone_at_ns)
        return sandbox.gone_at_ns

    def wait_all_gone(self, plan_ids: Sequence[str], deadline_ns: int) -> Mapping[str, int | None]:
        """Do as ``wait_gone`` for many."""
        return {plan_id: self.wait_gone(plan_id, deadline_ns) for plan_id in plan_ids}

    def stop_watched(
        self, plan_ids: Sequence[str], *, grace_ns: int, gone_timeout_ns: int
    ) -> Stopped:
        """Stop all that run; on paper there is nothing to look at meanwhile."""
        deadline_ns = self._launcher.timeline.now() + grace_ns + gone_timeout_ns
        stops = self._launcher.stop(how="request", grace_ns=grace_ns)
        return Stopped(stops=stops, gone_at_ns=self.wait_all_gone(plan_ids, deadline_ns))

    def release(self, plan_id: str) -> None:
        """Forget a sandbox; what leaks stays in the audit."""
        sandbox = self._sandboxes.get(plan_id)
        if sandbox is None:
            return
        if sandbox.is_running:
            self._launcher.stop([plan_id], how="kill")
        if sandbox.script.leaks:
            self._leaked.append(plan_id)
        del self._sandboxes[plan_id]

    def audit(self) -> tuple[Leak, ...]:
        """Give the scripted leaks."""
        return tuple(
            Leak(kind=LeakKind.PROCESS, name=name, detail="scripted leak") for name in self._leaked
        )

    def close(self) -> None:
        """End everything."""
        for plan_id in list(self._sandboxes):
            self.release(plan_id)
        self._launcher.close()

    def __enter__(self) -> Self:
        """Give the session."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _sandbox(self, plan_id: str) -> _Sandbox:
        try:
            return self._sandboxes[plan_id]
        except KeyError:
            raise DriverError(f"fake: no sandbox {plan_id!r} here") from None


def _result(
    plan_id: str, *, due_at_ns: int, invoked_at_ns: int, accepted_at_ns: int
) -> StartResult:
    return StartResult(
        id=plan_id,
        outcome=Outcome.OK,
        due_at_ns=due_at_ns,
        invoked_at_ns=invoked_at_ns,
        accepted_at_ns=accepted_at_ns,
    )


def _last_instant(result: StartResult) -> int:
    known = (
        result.first_byte_at_ns,
        result.ready_at_ns,
        result.first_reply_at_ns,
        result.exit_seen_at_ns,
    )
    return max((instant for instant in known if instant is not None), default=result.due_at_ns)
