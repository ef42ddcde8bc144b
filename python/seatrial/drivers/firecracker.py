"""The guest in a Firecracker machine: everything about it goes over an HTTP API on a unix socket.

The launcher's program makes the calls (``seatrial-launch firecracker``), from a script that is
data and written before anything is timed, and copies the control channel to and from the guest's
vsock: Firecracker inherits no descriptor. ``firecracker-snapshot`` loads a snapshot instead of a
kernel, taken once for each combination of devices while the guest waited for an order; a copy
proves what it is by the boot id that it says, or its start fails.

Firecracker needs KVM. Where no guest boots the probe says so by having tried. No jailer is used:
the sandbox is the machine, with the monitor's own system call filter.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from seatrial import network
from seatrial.drivers.base import CHANNEL_FD
from seatrial.drivers.instance import Command, Instance, SeenProcess
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
    from collections.abc import Sequence

    from seatrial.drivers.base import Capabilities, DriverContext, SandboxSpec

Json: TypeAlias = dict[str, object]

PROGRAM: Final = "firecracker"
PACKAGE_HINT: Final = "put a release of Firecracker on PATH; it also needs KVM"
VERSION_MARKER: Final = "Firecracker v"
#: Relative to a sandbox's directory, where its process is: snapshots keep the second one's path.
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
        """Find the program and a kernel."""
        binary = find_program(PROGRAM, package=PACKAGE_HINT)
        GuestKernel.find().elf()
        return Found(
            binary=binary,
            version=program_version(binary, marker=VERSION_MARKER),
            capabilities=_capabilities(),
            gaps=host_gaps(),
        )

    def open(self, context: DriverContext) -> MachineSession:
        """Prepare once for a run."""
        settings = MachineOptions.parse(self.name, context.options)
        kind = SnapshotSession if self.is_snapshot else FirecrackerSession
        return kind(context, name=self.name, found=self.find(), settings=settings)


class FirecrackerSession(MachineSession):
    """Firecracker machines of one run."""

    modules = ("virtio_mmio", "vmw_vsock_virtio_transport")
    channel = f"vsock:{CHANNEL_PORT}"

    def __init__(
        self, context: DriverContext, *, name: str, found: Found, settings: MachineOptions
    ) -> None:
        """Prepare what all machines boot from."""
        flags = {
            "accelerator": "kvm",
            "channel": "vsock, copied by one process; looked for once a millisecond",
            "jailer": "none",
        }
        super().__init__(context, name=name, found=found, settings=settings, flags=flags)

    def kernel_file(self) -> Path:
        """The kernel uncompressed."""
        return self.kernel.elf()

    def role_of(self, process: SeenProcess) -> str:
        """Tell the machine's monitor from the process that carries its channel."""
        return "vmm" if process.name.startswith(Path(self.binary).name[:15]) else "runtime"

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
        return {
            "argv": [self.binary, "--api-sock", API_SOCKET, "--id", instance.token],
            "directory": str(instance.directory),
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
        if instance.veth is not None:
            network.bridge_tap(instance.veth)
        return boot_calls(
            kernel=self.kernel.elf(),
            initrd=self.initrd,
            boot_args=kernel_command_line(KERNEL_SETTINGS, order, spec.role),
            memory_bytes=self.memory_bytes(spec),
            vcpus=self.settings.vcpus,
            drives=self.drives(instance),
            tap=network.TAP_NAME if instance.veth is not None else None,
        )


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
        if instance.veth is not None:
            network.bridge_tap(instance.veth)
        line = f"{self.order(instance).text()} {role_text(spec.role)}\n"
        order = {"port": ORDER_PORT, "line": line, "boot_id": snapshot.boot_id}
        calls = load_calls(state=snapshot.state, memory=snapshot.memory)
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
            template = {
                "port": ORDER_PORT,
                "boot_id_file": str(boot_id),
                "calls": list(write_calls(state=state, memory=memory)),
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
