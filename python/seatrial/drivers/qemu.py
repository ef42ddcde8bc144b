"""The guest in a virtual machine of QEMU: the ``microvm`` machine, and no disk, BIOS menu or PCI.

The control channel is QEMU's inherited descriptor 3, given to the guest as a virtio serial port;
no process stands between. With ``veth`` the guest's virtio network card is a tap that is bridged to
the sandbox's veth in the sandbox's own network namespace (needs root); with ``host`` it is QEMU's
own user-mode stack, which forwards the ports of the role's listeners and nothing else.

KVM is used where a guest really boots under it within a deadline, TCG (emulation) elsewhere; the
version that every table shows says which. ``qemu-template`` starts copies of a machine that has
booted already (``seatrial.drivers.template``).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from seatrial import network
from seatrial.drivers.accel import (
    KVM_PROOF_DEADLINE_NS,
    Acceleration,
    proven_acceleration,
)
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
)
from seatrial.drivers.machine_session import MachineSession
from seatrial.drivers.options import OptionError
from seatrial.errors import DriverError, SeatrialError
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.drivers.base import Capabilities, DriverContext, SandboxSpec
    from seatrial.model.scalar import Scalar

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE_HINT: Final = "apt-get install qemu-system-x86"
VERSION_MARKER: Final = "emulator version "
#: Without a clock rate given, one of six emulated kernels never finished measuring its own under
#: load; under TCG the TSC counts nanoseconds, so the rate is exact.
TCG_KERNEL_SETTINGS: Final = "tsc_early_khz=1000000 tsc=reliable lpj=4000000 no_timer_check"
KERNEL_SETTINGS: Final = "console=none quiet loglevel=0 reboot=t panic=-1"
#: What a kernel's limit leaves to QEMU itself beside the guest's memory; under TCG that is mostly
#: the cache of translated code.
OVERHEAD_BYTES: Final = {Acceleration.KVM: 128 << 20, Acceleration.TCG: 512 << 20}
#: The addresses of QEMU's user-mode network.
USER_NETWORK_ADDRESS: Final = "10.0.2.15"
USER_NETWORK_BITS: Final = 24
LISTEN_OPTION: Final = "--listen"
HOST_LISTEN: Final = "127.0.0.1"
#: Above the ordinary: an emulated kernel boots for seconds, and longer beside others.
PROBE_DEADLINE_NS: Final = 60_000_000_000


class QemuDriver(LocalDriver):
    """Machines that boot their own kernel each time, or copies of one that has booted."""

    broken_hint = f"try '{PROGRAM} -M microvm -accel tcg' by hand; see 'seatrial doctor'"
    probe_deadline_ns: ClassVar[int] = PROBE_DEADLINE_NS

    def __init__(self, *, is_template: bool = False) -> None:
        """Be the driver that boots, or the one that copies."""
        self.is_template = is_template
        self.name = "qemu-template" if is_template else "qemu"

    def find(self) -> Found:
        """Find QEMU and a kernel, and prove once whether a guest boots under KVM."""
        binary, version = _find_qemu()
        GuestKernel.find()
        acceleration, reason = proven_acceleration(binary, boot=_boots)
        gaps = list(host_gaps())
        if acceleration is Acceleration.TCG:
            gaps.append(f"guests are emulated (TCG), many times slower than KVM: {reason}")
        return Found(
            binary=binary,
            version=f"{version} ({acceleration})",
            capabilities=_capabilities(acceleration),
            gaps=tuple(gaps),
        )

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse what has no meaning."""
        self._parse(options)

    def _parse(self, options: Mapping[str, Scalar]) -> tuple[MachineOptions, Scalar]:
        rest = dict(options)
        wanted = rest.pop("accel", "auto")
        settings = MachineOptions.parse(self.name, rest, others=("accel",))
        if wanted not in {"auto", *Acceleration}:
            where = f"driver.{self.name}.accel"
            raise OptionError(where, "expected auto, kvm or tcg", value=wanted)
        return settings, wanted

    def open(self, context: DriverContext) -> MachineSession:
        """Prepare once for a run."""
        settings, wanted = self._parse(context.options)
        found = self.find()
        if wanted != "auto":
            chosen = Acceleration(str(wanted))
            version = found.version.partition(" (")[0]
            capabilities = _capabilities(chosen)
            found = replace(found, version=f"{version} ({chosen})", capabilities=capabilities)
        return self._session(context, found, settings)

    def _session(
        self, context: DriverContext, found: Found, settings: MachineOptions
    ) -> MachineSession:
        if self.is_template:
            from seatrial.drivers.template import QemuTemplateSession

            return QemuTemplateSession(context, name=self.name, found=found, settings=settings)
        return QemuSession(context, name=self.name, found=found, settings=settings)


class QemuSession(MachineSession):
    """QEMU's machines of one run."""

    modules = ("virtio_mmio", "virtio_console")
    channel = "port"

    def __init__(
        self, context: DriverContext, *, name: str, found: Found, settings: MachineOptions
    ) -> None:
        """Prepare what all machines boot from."""
        self.acceleration = Acceleration(found.version.rpartition("(")[2].rstrip(")"))
        flags = {
            "accelerator": str(self.acceleration),
            "machine": "microvm, ACPI",
            "network host": "QEMU's user-mode stack, listeners forwarded",
            "channel": "virtio serial port",
        }
        super().__init__(context, name=name, found=found, settings=settings, flags=flags)

    def kernel_file(self) -> Path:
        """The kernel as Debian packs it."""
        return self.kernel.image

    def role_of(self, process: SeenProcess) -> str:
        """All processes of a machine are its monitor's; the payload runs inside."""
        del process
        return "vmm"

    def command(self, instance: Instance) -> Command:
        """Make the machine's network and disks, and give QEMU's command line."""
        return Command(
            argv=self.machine_argv(instance, self.order(instance)),
            network_namespace=instance.namespace_path,
        )

    def address(self, instance: Instance) -> str | None:
        """Give the guest's address; on the host's network QEMU has one for it."""
        if instance.spec.network is NetworkMode.HOST:
            return f"{USER_NETWORK_ADDRESS}/{USER_NETWORK_BITS}"
        return super().address(instance)

    def machine_argv(
        self,
        instance: Instance,
        order: Order,
        *,
        machine: str = "",
        channel: str = f"socket,id=channel,fd={CHANNEL_FD}",
        extra: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """Give QEMU's command line for one machine, with what a subclass adds."""
        spec = instance.spec
        is_emulated = self.acceleration is Acceleration.TCG
        settings = f"{KERNEL_SETTINGS} {TCG_KERNEL_SETTINGS}" if is_emulated else KERNEL_SETTINGS
        return (
            self.binary,
            *("-M", f"microvm,acpi=on,rtc=on,pit=on,pic=on{machine}"),
            *("-accel", str(self.acceleration), "-cpu", "max" if is_emulated else "host"),
            *("-m", f"{self.memory_bytes(spec) >> 10}K", "-smp", str(self.settings.vcpus)),
            *("-kernel", str(self.kernel.image), "-initrd", str(self.initrd)),
            *("-append", kernel_command_line(settings, order, machine_role(spec))),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
            *("-chardev", "file,id=words,path=/proc/self/fd/2"),
            *("-device", "isa-debugcon,iobase=0xe9,chardev=words"),
            *("-device", "virtio-serial-device"),
            *("-chardev", channel, "-device", "virtserialport,chardev=channel,nr=1"),
            *self.network_words(instance),
            *self.disk_words(instance),
            *extra,
        )

    def network_words(self, instance: Instance) -> tuple[str, ...]:
        """Make the machine's tap if it needs one, and give the options of its network card."""
        if instance.spec.network is NetworkMode.HOST:
            forwards = "".join(
                f",hostfwd={protocol}:{HOST_LISTEN}:{port}-:{port}"
                for protocol, port in listeners(instance.spec)
            )
            backend = f"user,id=net,restrict=on{forwards}"
        elif instance.veth is not None:
            network.bridge_tap(instance.veth)
            backend = f"tap,id=net,ifname={network.TAP_NAME},script=no,downscript=no"
        else:
            return ()
        return ("-netdev", backend, "-device", "virtio-net-device,netdev=net")

    def disk_words(self, instance: Instance) -> tuple[str, ...]:
        """Make the machine's disks, and give their options."""
        words: list[str] = []
        for name, path, is_read_only in self.drives(instance):
            options = "readonly=on" if is_read_only else f"cache={_cache_mode(path)}"
            words += _disk(name, path, options)
        return tuple(words)


def machine_role(spec: SandboxSpec) -> tuple[str, ...]:
    """Give the role as the guest is told; pure.

    Behind a user-mode network the host's loopback is not the guest's, so what is to listen there
    listens on the card's address.
    """
    if spec.network is not NetworkMode.HOST:
        return spec.role
    return tuple(
        word.replace(f":{HOST_LISTEN}:", f":{USER_NETWORK_ADDRESS}:", 1)
        if before == LISTEN_OPTION
        else word
        for before, word in zip(("", *spec.role), spec.role, strict=False)
    )


def listeners(spec: SandboxSpec) -> tuple[tuple[str, int], ...]:
    """Give protocol and port of each address that a role listens on; pure.

    Raises:
        DriverError: one is a free port of the guest's choice, which cannot be forwarded.
    """
    found: list[tuple[str, int]] = []
    for before, word in zip(spec.role, spec.role[1:], strict=False):
        protocol, _, rest = word.partition(":")
        if before != LISTEN_OPTION or protocol not in {"tcp", "udp"}:
            continue
        port = rest.rpartition(":")[2]
        if not port.isdigit() or int(port) == 0:
            message = f"{word}: a user-mode network forwards known ports only, expected one over 0"
            raise DriverError(message, hint="name the port", code="unsupported")
        found.append((protocol, int(port)))
    return tuple(found)


def qemu() -> QemuDriver:
    """Machines that boot."""
    return QemuDriver()


def qemu_template() -> QemuDriver:
    """Copies of a machine that has booted."""
    return QemuDriver(is_template=True)


def _find_qemu() -> tuple[Path, str]:
    binary = find_program(PROGRAM, package=PACKAGE_HINT)
    return binary, program_version(binary, marker=VERSION_MARKER)


def _capabilities(acceleration: Acceleration) -> Capabilities:
    capabilities = host_capabilities(has_own_root=True, shares_host_clock=False)
    return replace(
        capabilities,
        limit_overhead_bytes=OVERHEAD_BYTES[acceleration],
        is_emulated=acceleration is Acceleration.TCG,
    )


def _boots(binary: Path, context: DriverContext) -> str | None:
    """Boot a guest under KVM; None: it said HELLO."""
    found = Found(
        binary=binary,
        version=f"proof ({Acceleration.KVM})",
        capabilities=_capabilities(Acceleration.KVM),
    )
    driver = QemuDriver()
    try:
        settings = MachineOptions()
        with QemuSession(context, name=driver.name, found=found, settings=settings) as session:
            return driver.start_one(session, deadline_ns=KVM_PROOF_DEADLINE_NS).trouble
    except SeatrialError as error:
        return error.message


def _disk(name: str, path: Path, options: str) -> list[str]:
    drive = f"id={name},file={path},format=raw,if=none,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-device,drive={name}"]


def _cache_mode(path: Path) -> str:
    """Past the host's page cache where its file system can; the guest has a cache of its own."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        return "writeback"
    return "none"
