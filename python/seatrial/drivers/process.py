"""Plain processes: the baseline of every comparison, and the launcher's floor.

``process`` runs the guest on the host as it is, in a control group of its own; with network mode
``veth`` it runs in the same kind of network namespace as a sandbox does, so that the price of the
veth is not charged to sandboxes. ``null`` runs a guest that says hello and ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from seatrial import __version__
from seatrial.drivers.base import CHANNEL_FD
from seatrial.drivers.instance import Command, Instance
from seatrial.drivers.local import Found, LocalDriver, host_capabilities, host_gaps
from seatrial.drivers.options import TakesNoOptions
from seatrial.drivers.session import LocalSession

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverContext


class ProcessDriver(TakesNoOptions, LocalDriver):
    """The guest as an ordinary process of this machine."""

    name = "process"

    def find(self) -> Found:
        """Find nothing but the machine: a process needs no runtime."""
        return Found(
            binary=None,
            version=__version__,
            capabilities=host_capabilities(has_own_root=False, shares_host_clock=True),
            gaps=host_gaps(),
        )

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        flags = {"isolation": "none", "network none": "the host's stack, unused"}
        return self.make_session(ProcessSession, context, flags=flags)


class NullDriver(ProcessDriver):
    """A process that ends after its first word; what starting costs without any runtime."""

    name = "null"
    probe_role: ClassVar[tuple[str, ...]] = ("null",)
    probe_goal: ClassVar[Literal["hello", "ready"]] = "hello"


class ProcessSession(LocalSession):
    """Plain processes of one run."""

    @property
    def guest_path(self) -> str:
        """The guest binary's path on the host."""
        return str(self.guest)

    def prepare(self) -> None:
        """Nothing is shared by plain processes."""

    def command(self, instance: Instance) -> Command:
        """Run the guest itself."""
        argv = (self.guest_path, "--channel-fd", str(CHANNEL_FD), *instance.spec.role)
        return Command(argv=argv, network_namespace=instance.namespace_path)
