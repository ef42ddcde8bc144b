"""What every driver of real sandboxes shares: groups, networks, waiting, release and audit.

A subclass says how one sandbox is started (``command``), which roles its processes play and which
files its runtime keeps. Names: a sandbox is ``st-<run>-<token>`` with a token of eight characters,
its group ``/seatrial/<run id>/<token>``, its interface ``stv<run><token>``; all tokens of a session
begin with the session's three digits and no id is a prefix of another.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from seatrial import network
from seatrial.drivers import instance as making
from seatrial.drivers import state
from seatrial.drivers.base import (
    DATA_PATH,
    Capabilities,
    NoCgroups,
    SandboxSpec,
    read_server_stats,
)
from seatrial.drivers.instance import Command, Instance, SeenProcess
from seatrial.drivers.stopping import WatchedStop
from seatrial.errors import DriverError, SeatrialError
from seatrial.guest.binary import guest_binary
from seatrial.launch import Launcher, StartPlan
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import Cgroup, CgroupHost, Limits
from seatrial.probes.killing import kill_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from seatrial.drivers.base import DriverContext, SandboxCgroups, Shared
    from seatrial.guest.stats import ServerStats
    from seatrial.probes.leaks import Leak

#: Runtimes remove their own files and groups without telling anybody, so those are looked at again
#: this often; processes wake us by their descriptors. It is the error of ``wait_gone``.
GONE_QUANTUM_NS: Final = 500_000
#: ... and with many of them at most so rarely that looking takes a fifth of one processor.
REST_RATIO: Final = 4
KILL_TIMEOUT_NS: Final = 5_000_000_000
SANDBOXES_MAX: Final = 99_999
TOOL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalSession(WatchedStop, ABC):
    """A driver at work for one run on this machine."""

    #: Mounts that the launcher must not see; makes its mount namespace private.
    unmounts: tuple[str, ...] = ()
    working_directory: Path | None = None
    #: Whether a veth is made here and joined by the sandbox, and not made by the runtime.
    makes_veth: bool = True
    #: Groups in each sandbox's own that the runtime needs and never removes.
    kept_groups_count: int = 0

    def __init__(
        self,
        context: DriverContext,
        *,
        name: str,
        version: str,
        capabilities: Capabilities,
        flags: Mapping[str, str],
    ) -> None:
        """Take the run's directory and start the launcher.

        Raises:
            SeatrialError: the state directory or the launcher cannot be had.
        """
        self.name = name
        self.version = version
        self.capabilities = capabilities
        self.flags = MappingProxyType(dict(flags))
        self.context = context
        self.guest = context.guest_binary or guest_binary()
        self._cgroup_host = CgroupHost.detect()
        self._instances: dict[str, Instance] = {}
        self._count = 0
        self._litter: Counter[str] = Counter()
        self._state: state.RunState | None = state.RunState.acquire(
            context.run_id, context.state_dir
        )
        try:
            self.number = self._state.next_session()
            self.directory = context.state_dir / f"{self.number}-{name.replace('/', '-')}"
            with making.files_of(name, self.directory):
                self.directory.mkdir(mode=0o700)
                self.prepare()
            self._launcher = Launcher(unmount=self.unmounts, directory=self.working_directory)
        except BaseException:
            self._remove_directory()
            self._leave_run(has_started=False)
            raise

    # --- what a driver says -----------------------------------------------------------------------

    @abstractmethod
    def command(self, instance: Instance) -> Command:
        """Make the files of one sandbox and say how to start it."""

    @property
    @abstractmethod
    def guest_path(self) -> str:
        """The guest binary as a sandbox sees it."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what all sandboxes share."""

    def role_of(self, process: SeenProcess) -> str:
        """Name the role of a process; all are payload unless a driver says otherwise."""
        del process
        return "payload"

    def runtime_entries(self) -> Iterable[Path]:
        """Give the entries that the runtime keeps for its sandboxes now."""
        return ()

    def is_litter(self, entry: Path) -> bool:
        """Tell whether a runtime is known to leave this entry behind; then we remove it."""
        del entry
        return False

    def limits_itself(self) -> bool:
        """Tell whether the runtime sets the limits; else they are set on the outer group."""
        return False

    def forget(self, instance: Instance) -> None:
        """Remove what ``command`` made outside of the sandbox's directory; nothing, mostly."""
        del instance

    # --- the protocol -----------------------------------------------------------------------------

    @property
    def launcher(self) -> Launcher:
        """What executes this session's plans."""
        return self._launcher

    @property
    def litter(self) -> Mapping[str, int]:
        """How much the runtime left that we had to remove, by kind."""
        return dict(+self._litter)

    def plan(self, spec: SandboxSpec, index: int) -> StartPlan:
        """Make what one sandbox needs and describe its start."""
        self._check(spec)
        with making.files_of(self.name, self.directory):
            instance = self.make_instance(spec, index)
            try:
                command = self.command(instance)
            except BaseException:
                self.release(instance.id)
                raise
        return self.describe(instance, command)

    def describe(self, instance: Instance, command: Command) -> StartPlan:
        """Give the start plan of a sandbox that is made."""
        spec = instance.spec
        return StartPlan(
            id=instance.id,
            argv=command.argv,
            env=(
                f"PATH={TOOL_PATH}",
                f"{state.RUN_VARIABLE}={self.context.run_id}",
                f"{state.SANDBOX_VARIABLE}={instance.id}",
                *command.environment,
            ),
            cwd=None,
            channel_fd=command.channel_fd,
            channel_path=command.channel_path,
            channel_token=command.channel_token,
            cgroup_procs=making.join_files(instance, command),
            network_namespace=command.network_namespace,
            isolation=command.isolation,
            stdio="capture",
            deadline_ns=spec.deadline_ns,
            kill_argv=command.kill_argv,
            ready=spec.ready,
        )

    def cgroups(self, plan_id: str) -> SandboxCgroups:
        """Give the books of a sandbox."""
        return self._instance(plan_id).cgroup or NoCgroups()

    def endpoint(self, plan_id: str, port: int) -> str:
        """Give the URL of what a sandbox serves on a port."""
        instance = self._instance(plan_id)
        if instance.veth is not None:
            return f"tcp://{instance.veth.sandbox_address}:{port}"
        if instance.spec.network is NetworkMode.HOST:
            return f"tcp://127.0.0.1:{port}"
        raise DriverError(
            f"{self.name}: sandbox {plan_id} has network mode 'none', so no endpoint",
            hint="ask for network mode 'veth' or 'host'",
        )

    def milestones(self, plan_id: str) -> Mapping[str, int]:
        """Give instants that only the runtime's own client saw, by their column in ``starts``."""
        return {}

    def server_stats(self, plan_id: str) -> ServerStats:
        """Ask the server in a held sandbox what it has counted."""
        self._instance(plan_id)
        return read_server_stats(self._launcher, plan_id)

    def data_path(self, plan_id: str) -> str:
        """Give the path at which a sandbox sees its data directory."""
        directory = self._instance(plan_id).spec.data_dir
        if directory is None:
            raise DriverError(f"{self.name}: sandbox {plan_id} has no data directory")
        return DATA_PATH if self.capabilities.has_own_root else str(directory)

    def processes(self, plan_id: str) -> Mapping[int, str]:
        """Map the live host processes of a sandbox to their roles."""
        roles: dict[int, str] = {}
        for pid, group in sorted(self._members(self._instance(plan_id)).items()):
            words = leaks.command_line(pid).split(" ")
            if leaks.is_alive(pid):
                name = leaks.process_name(pid)
                seen = SeenProcess(pid=pid, name=name, first_word=words[0], group=group)
                roles[pid] = self.role_of(seen)
        return roles

    def shared(self) -> Shared | None:
        """Say that nothing serves all sandboxes together, unless a driver says otherwise."""
        return None

    def image_files(self) -> Sequence[Path]:
        """Give the guest and what stands in the root that all sandboxes share."""
        root = self.directory / "rootfs"
        copies = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
        return (*self.programs(), *(copies or [self.guest]))

    def programs(self) -> Sequence[Path]:
        """Give the programs of the runtime that a start runs; a driver names its own."""
        return ()

    def wait_gone(self, plan_id: str, deadline_ns: int) -> int | None:
        """Wait until nothing of a sandbox is left, at most ``GONE_QUANTUM_NS`` late."""
        return self.wait_all_gone([plan_id], deadline_ns)[plan_id]

    def wait_all_gone(self, plan_ids: Sequence[str], deadline_ns: int) -> Mapping[str, int | None]:
        """Wait for many at once."""
        gone: dict[str, int | None] = dict.fromkeys(plan_ids)
        pending = [self._instance(plan_id) for plan_id in plan_ids]
        while True:
            began_ns = time.monotonic_ns()
            for instance in list(pending):
                if not self._remains(instance):
                    gone[instance.id] = time.monotonic_ns()
                    pending.remove(instance)
            if not pending or time.monotonic_ns() >= deadline_ns:
                return gone
            looked_ns = time.monotonic_ns() - began_ns
            time.sleep(max(GONE_QUANTUM_NS, REST_RATIO * looked_ns) / 1e9)

    def release(self, plan_id: str) -> None:
        """Remove what ``plan`` made, and the sandbox itself if it still runs."""
        instance = self._instances.get(plan_id)
        if instance is None:
            return
        with contextlib.ExitStack() as steps:
            # Run last to first; each runs though one before it failed.
            steps.callback(self._instances.pop, plan_id, None)
            steps.callback(self._remove_tree, instance.directory)
            steps.callback(self.forget, instance)
            steps.callback(self._remove_groups, instance)
            steps.callback(making.remove_network, instance)
            steps.callback(self._remove_litter, instance)
            steps.callback(self._kill, instance)

    def audit(self) -> tuple[Leak, ...]:
        """Find what this session left behind."""
        live = {instance.token for instance in self._instances.values()}
        found = [
            leak
            for leak in (*self._leaked_names(), *self._leaked_files(), *self._leaked_groups())
            if not any(token in leak.name for token in live)
        ]
        return (*self._leaked_processes(), *found)

    def close(self) -> None:
        """Release everything and end the launcher."""
        with contextlib.ExitStack() as steps:
            steps.callback(self._leave_run)
            steps.callback(self._remove_directory)
            steps.callback(self._launcher.close)
            for plan_id in list(self._instances):
                steps.callback(self.release, plan_id)

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

    # --- making -----------------------------------------------------------------------------------

    def _check(self, spec: SandboxSpec) -> None:
        modes = self.capabilities.network_modes
        if spec.network not in modes:
            known = ", ".join(modes)
            message = f"{self.name}: network mode {spec.network} is not supported here ({known})"
            raise DriverError(message, code="unsupported")
        wants_limit = spec.memory_limit_bytes is not None or spec.cpu_limit is not None
        if wants_limit and not self.capabilities.can_limit:
            reason = "; ".join(self._cgroup_host.problems()) or "no cgroup of its own"
            raise DriverError(f"{self.name}: limits cannot be set: {reason}", code="unsupported")
        if self._count >= SANDBOXES_MAX:
            raise DriverError(f"{self.name}: over {SANDBOXES_MAX} sandboxes in one session")

    def make_instance(self, spec: SandboxSpec, index: int) -> Instance:
        """Make directory, group and network of a sandbox under the next free name."""
        run_id = self.context.run_id
        self._count += 1
        token = f"{self.number}{self._count:05d}"
        name = f"{state.sandbox_prefix(run_id)}{token}"
        with contextlib.ExitStack() as undo:
            directory = self.directory / token
            directory.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            cgroup, veth, descriptor = None, None, None
            if self.capabilities.has_own_cgroup:
                limits = (
                    Limits() if self.limits_itself() else making.limits_of(spec, self.capabilities)
                )
                host, group = self._cgroup_host, f"{run_id}/{token}"
                cgroup = making.make_group(host, group, limits=limits, driver=self.name)
                undo.callback(cgroup.remove)
            if spec.network is NetworkMode.VETH and self.makes_veth:
                interface = f"{state.interface_prefix(run_id)}{token}"
                veth = network.create_veth(namespace=name, host_interface=interface)
                undo.callback(network.remove_veth, namespace=name, host_interface=interface)
                if self.unmounts:
                    # A launcher in a private mount namespace does not see names bound from now on.
                    descriptor = os.open(veth.namespace_path, os.O_RDONLY | os.O_CLOEXEC)
            undo.pop_all()
        instance = Instance(
            id=name,
            token=token,
            index=index,
            spec=spec,
            directory=directory,
            cgroup=cgroup,
            veth=veth,
            namespace_fd=descriptor,
        )
        self._instances[name] = instance
        return instance

    def _instance(self, plan_id: str) -> Instance:
        try:
            return self._instances[plan_id]
        except KeyError:
            message = f"{self.name}: no sandbox {plan_id!r} here: never planned, or released"
            raise DriverError(message) from None

    # --- looking ----------------------------------------------------------------------------------

    def _members(self, instance: Instance) -> dict[int, str]:
        if instance.cgroup is not None:
            return instance.cgroup.members()
        marks = leaks.processes_with(state.SANDBOX_VARIABLE)
        roots = [pid for pid, value in marks.items() if value == instance.id]
        return dict.fromkeys(leaks.descendants(roots) if roots else (), "")

    def _remains(self, instance: Instance) -> bool:
        """Tell whether anything of a sandbox is left that its runtime is to remove."""
        if instance.cgroup is None:
            if self._members(instance):
                return True
        elif instance.cgroup.has_remains(kept_count=self.kept_groups_count):
            return True
        if any(
            instance.id in entry.name and not self.is_litter(entry)
            for entry in self.runtime_entries()
        ):
            return True
        # Looked at last, so mostly once: the table is long and costs more than all before.
        return bool(self._mounts(instance.directory))

    def _mounts(self, directory: Path) -> tuple[Leak, ...]:
        """Find the mounts at and below a directory that no runtime is known to leave."""
        mounts = leaks.mount_leaks(directory, mountinfo=state.MOUNTINFO.read_text())
        return tuple(leak for leak in mounts if not self.is_litter(Path(leak.name)))

    def _leaked_processes(self) -> tuple[Leak, ...]:
        marks = leaks.processes_with(state.SANDBOX_VARIABLE)
        ours = f"{state.sandbox_prefix(self.context.run_id)}{self.number}"
        loose = {
            pid
            for pid, value in marks.items()
            if value.startswith(ours) and value not in self._instances
        }
        for token in self._dead_tokens():
            loose |= set(self._group(token).members())
        return leaks.process_leaks(loose)

    def _leaked_groups(self) -> tuple[Leak, ...]:
        places = [
            place for token in self._dead_tokens() for place in self._group(token).directories()
        ]
        return leaks.group_leaks(places)

    def _leaked_names(self) -> tuple[Leak, ...]:
        run_id = self.context.run_id
        return (
            *leaks.namespace_leaks(f"{state.sandbox_prefix(run_id)}{self.number}"),
            *leaks.interface_leaks(f"{state.interface_prefix(run_id)}{self.number}"),
        )

    def _leaked_files(self) -> tuple[Leak, ...]:
        bundles = self.directory.glob(f"{self.number}[0-9]*")
        entries = (*self.runtime_entries(), *bundles)
        return (
            *self._mounts(self.directory),
            *leaks.file_leaks(entry for entry in entries if not self.is_litter(entry)),
        )

    def _dead_tokens(self) -> set[str]:
        run = self._cgroup_host.group(self.context.run_id)
        live = {instance.token for instance in self._instances.values()}
        names = {entry.name for place in run.directories() for entry in place.iterdir()}
        return {name for name in names if name.startswith(self.number)} - live

    def _group(self, token: str) -> Cgroup:
        return self._cgroup_host.group(f"{self.context.run_id}/{token}")

    # --- removing ---------------------------------------------------------------------------------

    def _kill(self, instance: Instance) -> None:
        if not self._remains(instance) and not self._members(instance):
            return
        # The launcher knows how (process group, the runtime's own delete); it may be dead itself.
        with contextlib.suppress(SeatrialError):
            self._launcher.stop([instance.id], how="kill", grace_ns=0)
        if instance.cgroup is not None:
            instance.cgroup.kill(timeout_ns=KILL_TIMEOUT_NS)
        else:
            kill_until_gone(lambda: self._members(instance), timeout_ns=KILL_TIMEOUT_NS)

    def _remove_litter(self, instance: Instance) -> None:
        for entry in self.runtime_entries():
            if instance.id not in entry.name:
                continue
            self._litter["runtime-file"] += 1
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def _remove_groups(self, instance: Instance) -> None:
        if instance.cgroup is None:
            return
        self._litter["cgroup"] += len(instance.cgroup.box_directories())
        instance.cgroup.remove()

    def _remove_directory(self) -> None:
        directory = getattr(self, "directory", None)
        if directory is not None:
            self._remove_tree(directory)

    def _remove_tree(self, directory: Path) -> None:
        self._litter["mount"] += len(state.remove_mounts(directory))
        state.remove_tree(directory)

    def _leave_run(self, *, has_started: bool = True) -> None:
        run, self._state = self._state, None
        if run is None:
            return
        with contextlib.ExitStack() as steps:
            steps.callback(run.release)
            # What is left keeps the number: a later session must neither meet nor report it.
            if (
                hasattr(self, "directory")
                and not self.directory.exists()
                and not (has_started and self.audit())
            ):
                run.end_session(self.number)
