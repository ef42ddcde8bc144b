"""The guest in a Firecracker machine: everything about it goes over an HTTP API on a unix socket.

The launcher's program makes the calls (``seatrial-launch firecracker``), from a script that is
data and written before anything is timed, and copies the control channel to and from the guest's
vsock: Firecracker inherits no descriptor. ``firecracker-snapshot`` loads a snapshot instead of a
kernel, taken once for each combination of devices while the guest waited for an order; a copy
proves what it is by the boot id that it says, or its start fails.

Firecracker needs KVM. Where no guest boots the probe says so by having tried. Without the option
``jailer`` the sandbox is the machine, with the monitor's own system call filter; with it the
monitor is locked into a root of its own by another user's rights (``seatrial.drivers.jail``), and
the paths in the calls are those in there.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from seatrial import network
from seatrial.drivers import jail
from seatrial.drivers.base import CHANNEL_FD
from seatrial.drivers.instance import Command, Instance, SeenProcess
from seatrial.drivers.jail import Jailer, JailOptions
from seatrial.drivers.local import (
    Found,
    LocalDriver,
    find_program,
    host_capabilities,
    host_gaps,
    program_version,
)
from seatrial.drivers.machine import (
    GuestKernel,
    MachineOptions,
    Order,
    kernel_command_line,
    role_text,
)
from seatrial.drivers.machine_session import MachineSession
from seatrial.errors import DriverError
from seatrial.guest.binary import launch_binary
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from seatrial.drivers.base import Capabilities, DriverContext, SandboxSpec
    from seatrial.model.scalar import Scalar

Json: TypeAlias = dict[str, object]

PROGRAM: Final = "firecracker"
PACKAGE_HINT: Final = "put a release of Firecracker on PATH; it also needs KVM"
VERSION_MARKER: Final = "Firecracker v"
#: Relative to where the monitor's process is: snapshots keep the second one's path.
API_SOCKET: Final = "a"
GUEST_SOCKET: Final = "v"
SCRIPT: Final = "script.json"
CHANNEL_PORT: Final = 5000
#: The first that is nobody's (vsock(7)); every machine has its own host side, so all may have it.
GUEST_CID: Final = 3
ORDER_PORT: Final = CHANNEL_PORT + 1
KERNEL_SETTINGS: Final = "console=none quiet loglevel=0 reboot=k panic=-1 pci=off"
OVERHEAD_BYTES: Final = 64 << 20
TEMPLATE_DEADLINE_NS: Final = 60_000_000_000
MIB: Final = 1 << 20


class FirecrackerDriver(LocalDriver):
    """Machines that boot their own kernel each time, or copies of one that has booted."""

    broken_hint = "Firecracker needs KVM that boots guests; 'qemu' falls back to emulation"

    def __init__(self, *, is_snapshot: bool = False) -> None:
        """Be the driver that boots, or the one that copies."""
        self.is_snapshot = is_snapshot
        self.name = "firecracker-snapshot" if is_snapshot else "firecracker"

    def find(self) -> Found:
        """Find the program and a kernel, and the jailer where the environment asks for it."""
        found = self._find_monitor()
        asked = JailOptions.take(self.name, {})
        if asked is not None:
            Jailer.find(asked, found)
        return found

    def _find_monitor(self) -> Found:
        binary = find_program(PROGRAM, package=PACKAGE_HINT)
        GuestKernel.find().elf()
        return Found(
            binary=binary,
            version=program_version(binary, marker=VERSION_MARKER),
            capabilities=_capabilities(),
            gaps=host_gaps(),
        )

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse what has no meaning."""
        self._parse(options)

    def _parse(self, options: Mapping[str, Scalar]) -> tuple[MachineOptions, JailOptions | None]:
        rest = dict(options)
        asked = JailOptions.take(self.name, rest)
        return MachineOptions.parse(self.name, rest, others=jail.OPTIONS), asked

    def open(self, context: DriverContext) -> MachineSession:
        """Prepare once for a run."""
        settings, asked = self._parse(context.options)
        found = self._find_monitor()
        jailer = None if asked is None else Jailer.find(asked, found)
        kind = SnapshotSession if self.is_snapshot else FirecrackerSession
        return kind(context, name=self.name, found=found, settings=settings, jailer=jailer)


class FirecrackerSession(MachineSession):
    """Firecracker machines of one run."""

    modules = ("virtio_mmio", "vmw_vsock_virtio_transport")
    channel = f"vsock:{CHANNEL_PORT}"

    def __init__(
        self,
        context: DriverContext,
        *,
        name: str,
        found: Found,
        settings: MachineOptions,
        jailer: Jailer | None,
    ) -> None:
        """Prepare what all machines boot from."""
        self.jailer = jailer
        #: Where files were mounted into roots, since no link reaches there.
        self._mounted: set[Path] = set()
        flags = {
            "accelerator": "kvm",
            "channel": "vsock, copied by one process; looked for once a millisecond",
            "jailer": "none" if jailer is None else jailer.flag,
        }
        super().__init__(context, name=name, found=found, settings=settings, flags=flags)

    def prepare(self) -> None:
        """Make the initial RAM disk, and have the kernel where roots can link it."""
        if self.jailer is not None:
            jail.prepare_ground(self.directory)
        super().prepare()
        self._kernel = self.kernel.elf()
        if self.jailer is not None:
            self.initrd.chmod(jail.READABLE_MODE)
            self._kernel = jail.bring(self._kernel, self.directory)

    def kernel_file(self) -> Path:
        """The kernel uncompressed."""
        return self._kernel

    def programs(self) -> Sequence[Path]:
        """Give the jailer too, if there is one."""
        own = () if self.jailer is None else (self.jailer.binary,)
        return (*own, *super().programs())

    def role_of(self, process: SeenProcess) -> str:
        """Tell the machine's monitor from the process that carries its channel."""
        monitor = Path(self.binary) if self.jailer is None else self.jailer.monitor
        return "vmm" if process.name.startswith(monitor.name[:15]) else "runtime"

    def is_litter(self, entry: Path) -> bool:
        """Tell the mounts that we made, which end with their sandbox or with the session."""
        return entry == self.directory or entry in self._mounted

    def forget(self, instance: Instance) -> None:
        """Undo what was mounted into the machine's root, too."""
        for place in [one for one in self._mounted if one.is_relative_to(instance.directory)]:
            network.unmount(place)
            self._mounted.discard(place)
        super().forget(instance)

    def _remove_directory(self) -> None:
        # Ours, and so no litter of the runtime; harmless when it is no mount.
        if self.jailer is not None and hasattr(self, "directory"):
            network.unmount(self.directory)
        super()._remove_directory()

    def place(self, instance: Instance) -> Path:
        """Give the directory in which the monitor finds itself."""
        if self.jailer is None:
            return instance.directory
        return self.jailer.root(instance.directory, instance.token)

    def shown(self, instance: Instance, path: Path, *, is_writable: bool = False) -> Path:
        """Give the path at which the monitor finds a file of ours."""
        if self.jailer is None:
            return path
        mounted = self.jailer.show(path, self.place(instance), is_writable=is_writable)
        if mounted is not None:
            self._mounted.add(mounted)
        return Path("/", path.name)

    def join_tap(self, instance: Instance) -> str | None:
        """Make the machine's tap if it has a network, and give its name."""
        if instance.veth is None:
            return None
        owner_uid = None if self.jailer is None else self.jailer.uid
        network.bridge_tap(instance.veth, owner_uid=owner_uid)
        return network.TAP_NAME

    def command(self, instance: Instance) -> Command:
        """Write the script of one start, and say who runs it."""
        order = self.order(instance)
        script = self.script(instance, self.boot_calls(instance, order))
        return self.run_script(instance, script)

    def run_script(
        self, instance: Instance, script: Json, *, channel: str = str(CHANNEL_FD)
    ) -> Command:
        """Write a script and give the command that runs it."""
        path = instance.directory / SCRIPT
        path.write_text(json.dumps(script))
        argv = (str(launch_binary()), "firecracker", "--channel-fd", channel, str(path))
        return Command(argv=argv, network_namespace=instance.namespace_path)

    def script(self, instance: Instance, calls: Sequence[Json], **more: object) -> Json:
        """Give the script of one machine."""
        arguments, token = ("--api-sock", API_SOCKET), instance.token
        argv: tuple[str, ...] = (self.binary, *arguments, "--id", token)
        if self.jailer is not None:
            argv = self.jailer.argv(instance.directory, token, arguments)
        return {
            "argv": list(argv),
            "directory": str(self.place(instance)),
            "api_socket": API_SOCKET,
            "guest_socket": GUEST_SOCKET,
            "calls": list(calls),
            "channel_port": CHANNEL_PORT,
            "deadline_ns": instance.spec.deadline_ns,
            **more,
        }

    def boot_calls(self, instance: Instance, order: Order) -> tuple[Json, ...]:
        """Make the machine's tap and disks, and give the calls that boot it."""
        spec = instance.spec
        tap = self.join_tap(instance)
        return boot_calls(
            kernel=self.shown(instance, self._kernel),
            initrd=self.shown(instance, self.initrd),
            boot_args=kernel_command_line(KERNEL_SETTINGS, order, spec.role),
            memory_bytes=self.memory_bytes(spec),
            vcpus=self.settings.vcpus,
            drives=tuple(self.shown_drives(instance)),
            tap=tap,
        )

    def shown_drives(self, instance: Instance) -> Iterator[tuple[str, Path, bool]]:
        """Make the machine's disks; give each as the monitor finds it."""
        for name, path, is_read_only in self.drives(instance):
            if is_read_only:
                path.chmod(jail.READABLE_MODE)  # the session's, for whoever its monitors run as
            shown = self.shown(instance, path, is_writable=not is_read_only)
            yield name, shown, is_read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A written machine."""

    state: Path
    memory: Path
    boot_id: str


class SnapshotSession(FirecrackerSession):
    """Copies of snapshots of one run."""

    start_flag: ClassVar[str] = "copy of a snapshot, memory mapped from its file"

    def prepare(self) -> None:
        """Make the initial RAM disk; snapshots come when they are asked for."""
        super().prepare()
        self._snapshots: dict[tuple[object, ...], Snapshot] = {}

    def command(self, instance: Instance) -> Command:
        """Have a snapshot, and write the script that loads it."""
        spec = instance.spec
        if spec.data_dir is not None or spec.tools_dir is not None:
            # A snapshot keeps the paths of its disks, which each machine must have for itself.
            message = f"{self.name}: a machine from a snapshot has no disks of its own"
            raise DriverError(message, hint="use the driver firecracker", code="unsupported")
        kind = (spec.network, self.memory_bytes(spec))
        if kind not in self._snapshots:
            self._snapshots[kind] = self._take(spec)
        snapshot = self._snapshots[kind]
        self.join_tap(instance)
        line = f"{self.order(instance).text()} {role_text(spec.role)}\n"
        order = {"port": ORDER_PORT, "line": line, "boot_id": snapshot.boot_id}
        calls = load_calls(
            state=self.shown(instance, snapshot.state),
            memory=self.shown(instance, snapshot.memory),
        )
        return self.run_script(instance, self.script(instance, calls, order=order))

    def _take(self, spec: SandboxSpec) -> Snapshot:
        """Boot a machine of the same devices, and write it down while its guest waits.

        Raises:
            DriverError: it did not boot, or could not be written.
        """
        directory = self.directory / f"snapshot{len(self._snapshots)}"
        directory.mkdir(mode=0o700)
        state, memory, boot_id = (directory / name for name in ("state", "memory", "boot_id"))
        limited = replace(spec, cpu_limit=None, deadline_ns=TEMPLATE_DEADLINE_NS)
        instance = self.make_instance(limited, 0)
        try:
            order = replace(self.order(instance), is_template=True)
            # A monitor that is locked in writes into its own root.
            inside = (state, memory) if self.jailer is None else (Path("/state"), Path("/memory"))
            template = {
                "port": ORDER_PORT,
                "boot_id_file": str(boot_id),
                "calls": list(write_calls(state=inside[0], memory=inside[1])),
            }
            calls = self.boot_calls(instance, order)
            script = self.script(instance, calls, template=template)
            command = self.run_script(instance, script, channel="none")
            plan = replace(self.describe(instance, command), channel_fd=None, ready="hello")
            batch = self.launcher.start(
                [plan], wait_for="hello", hold=False, timeout_ns=2 * TEMPLATE_DEADLINE_NS
            )
            result = batch.results[0]
            if result.outcome is not Outcome.OK or result.exit_code != 0:
                said = " ".join((result.stderr_tail or result.error or "").split())
                message = f"{self.name}: no snapshot could be taken: {result.outcome}: {said}"
                raise DriverError(message, hint=FirecrackerDriver.broken_hint)
            if self.jailer is not None:
                for path in (state, memory):
                    self.jailer.take_out(path, self.place(instance))
        finally:
            self.release(instance.id)
        return Snapshot(state=state, memory=memory, boot_id=boot_id.read_text())


def boot_calls(
    *,
    kernel: Path,
    initrd: Path,
    boot_args: str,
    memory_bytes: int,
    vcpus: int,
    drives: Sequence[tuple[str, Path, bool]] = (),
    tap: str | None = None,
) -> tuple[Json, ...]:
    """Give the calls that configure and start a machine; pure."""
    machine = {"vcpu_count": vcpus, "mem_size_mib": memory_bytes // MIB}
    source = {
        "kernel_image_path": str(kernel),
        "initrd_path": str(initrd),
        "boot_args": boot_args,
    }
    vsock = {"guest_cid": GUEST_CID, "uds_path": GUEST_SOCKET}
    disks = (
        call(
            "PUT",
            f"/drives/{name}",
            drive_id=name,
            path_on_host=str(path),
            is_root_device=False,
            is_read_only=is_read_only,
        )
        for name, path, is_read_only in drives
    )
    card = call("PUT", "/network-interfaces/eth0", iface_id="eth0", host_dev_name=tap)
    return (
        call("PUT", "/machine-config", **machine),
        call("PUT", "/boot-source", **source),
        *disks,
        *((card,) if tap is not None else ()),
        call("PUT", "/vsock", **vsock),
        call("PUT", "/actions", action_type="InstanceStart"),
    )


def write_calls(*, state: Path, memory: Path) -> tuple[Json, ...]:
    """Give the calls that write a running machine down; pure."""
    return (
        call("PATCH", "/vm", state="Paused"),
        call(
            "PUT",
            "/snapshot/create",
            snapshot_type="Full",
            snapshot_path=str(state),
            mem_file_path=str(memory),
        ),
    )


def load_calls(*, state: Path, memory: Path) -> tuple[Json, ...]:
    """Give the calls that let a machine go on from what was written; pure."""
    backend = {"backend_type": "File", "backend_path": str(memory)}
    return (
        call(
            "PUT",
            "/snapshot/load",
            snapshot_path=str(state),
            mem_backend=backend,
            resume_vm=True,
        ),
    )


def call(method: str, path: str, **body: object) -> Json:
    """Give one call as the script holds it; pure."""
    return {"method": method, "path": path, "body": body}


def firecracker() -> FirecrackerDriver:
    """Machines that boot."""
    return FirecrackerDriver()


def firecracker_snapshot() -> FirecrackerDriver:
    """Copies of a machine that has booted."""
    return FirecrackerDriver(is_snapshot=True)


def _capabilities() -> Capabilities:
    capabilities = host_capabilities(has_own_root=True, shares_host_clock=False)
    modes = (NetworkMode.NONE, *((NetworkMode.VETH,) if os.geteuid() == 0 else ()))
    return replace(capabilities, network_modes=modes, limit_overhead_bytes=OVERHEAD_BYTES)
