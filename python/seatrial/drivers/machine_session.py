"""What the sessions of all virtual machines share: one kernel, one initial RAM disk, and disks."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from seatrial.drivers.machine import (
    GuestKernel,
    MachineOptions,
    Order,
    build_machine_root,
    make_disk,
    tools_disk_bytes,
)
from seatrial.drivers.session import LocalSession
from seatrial.guest.rootfs import GUEST_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.drivers.base import DriverContext, SandboxSpec
    from seatrial.drivers.instance import Instance
    from seatrial.drivers.local import Found

DISK_NAME: Final = "data.ext4"


class MachineSession(LocalSession):
    """Virtual machines of one run; a driver adds its monitor."""

    #: How a machine comes up, as the run's flags say it.
    start_flag: ClassVar[str] = "kernel boot"
    #: What the guest loads besides the modules of network and disks.
    modules: ClassVar[tuple[str, ...]]
    #: What carries the guest's channel, as the guest's order says it.
    channel: ClassVar[str]

    def __init__(
        self,
        context: DriverContext,
        *,
        name: str,
        found: Found,
        settings: MachineOptions,
        flags: Mapping[str, str],
    ) -> None:
        """Prepare what all machines boot from; ``flags`` are the monitor's own."""
        self.settings = settings
        self.binary = str(found.binary)
        self.kernel = GuestKernel.find()
        super().__init__(
            context,
            name=name,
            version=found.version,
            capabilities=found.capabilities,
            flags={
                "start": self.start_flag,
                "guest kernel": self.kernel.release,
                "guest memory": f"{settings.memory_bytes} B, a limit, or what its work needs",
                "vCPUs": str(settings.vcpus),
                "network veth": "virtio-net on a tap, bridged to the veth",
                "data": "ext4 on virtio-blk, a raw image in the data directory",
                **flags,
            },
        )

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the initial RAM disk."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Make the initial RAM disk."""
        self.initrd = build_machine_root(self.directory, guest=self.guest, kernel=self.kernel)
        self._tools: dict[Path, Path] = {}

    @abstractmethod
    def kernel_file(self) -> Path:
        """The kernel in the form that the monitor reads."""

    def programs(self) -> Sequence[Path]:
        """Give the monitor, the kernel and the initial RAM disk."""
        return (Path(self.binary), self.kernel_file(), self.initrd)

    def address(self, instance: Instance) -> str | None:
        """Give the guest's address with the bits of its network; None: it has no network."""
        veth = instance.veth
        return f"{veth.sandbox_address}/{veth.prefix_bits}" if veth else None

    def order(self, instance: Instance) -> Order:
        """Say what the guest is to do before it plays its role."""
        spec, address = instance.spec, self.address(instance)
        disks = [
            name for name, path in (("data", spec.data_dir), ("tools", spec.tools_dir)) if path
        ]
        places = dict(zip(disks, ("vda", "vdb"), strict=False))
        modules = [*self.modules]
        modules += ["virtio_net"] if address else []
        modules += ["virtio_blk"] if disks else []
        return Order(
            channel=self.channel,
            modules=self.kernel.load_order(modules),
            address=address,
            data=places.get("data"),
            tools=places.get("tools"),
        )

    def memory_bytes(self, spec: SandboxSpec) -> int:
        """Give the guest's memory: its limit, or what the options say and its work needs."""
        wanted_bytes = max(self.settings.memory_bytes, spec.memory_wanted_bytes)
        return spec.memory_limit_bytes or wanted_bytes

    def drives(self, instance: Instance) -> tuple[tuple[str, Path, bool], ...]:
        """Make the machine's disks; give name, path and whether it is read-only."""
        spec = instance.spec
        found: list[tuple[str, Path, bool]] = []
        if spec.data_dir is not None:
            path = self.data_disk(instance)
            make_disk(path, size_bytes=self.settings.disk_bytes)
            found.append(("data", path, False))
        if spec.tools_dir is not None:
            found.append(("tools", self._tools_disk(spec.tools_dir), True))
        return tuple(found)

    def data_disk(self, instance: Instance) -> Path:
        """Give the path of a machine's own disk, on the file system that is asked about."""
        return (instance.spec.data_dir or instance.directory) / f"{instance.id}.{DISK_NAME}"

    def forget(self, instance: Instance) -> None:
        """Remove the disk, which is the only thing that does not lie in our own directory."""
        self.data_disk(instance).unlink(missing_ok=True)

    def _tools_disk(self, directory: Path) -> Path:
        if directory not in self._tools:
            path = self.directory / f"tools{len(self._tools)}.ext4"
            make_disk(path, size_bytes=tools_disk_bytes(directory), content=directory)
            self._tools[directory] = path
        return self._tools[directory]
