"""OCI runtimes driven through their command line: runc, crun and runsc; each flavour is data.

All run in the foreground under the launcher, with the control channel as an inherited descriptor
and not over stdio, which some runtimes relay. Every sandbox has its own bundle and its own group
``/seatrial/<run>/<token>/box`` below the outer group that the runtime's command itself joins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.drivers import bundle
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
from seatrial.drivers.options import TakesNoOptions
from seatrial.drivers.session import LocalSession
from seatrial.drivers.state import RUN_VARIABLE, SANDBOX_VARIABLE
from seatrial.drivers.tools import runsc_candidates
from seatrial.errors import DriverUnavailable, EnvironmentTrouble
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.drivers.base import Capabilities, DriverContext

ID: Final = "{id}"
BUNDLE: Final = "{bundle}"
NETWORK: Final = "{network}"
#: A socket's path in the kernel (unix(7): sun_path) less the closing zero byte.
SOCKET_PATH_BYTES_MAX: Final = 107


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """What makes one runtime different from another, as data.

    Words of the command lines may hold ``{id}``, ``{bundle}`` and ``{network}``, and for a
    rootless start ``rootless_arguments`` come after the global ones.
    """

    name: str
    program: str
    version_marker: str
    package_hint: str
    broken_hint: str
    global_arguments: tuple[str, ...] = ()
    rootless_arguments: tuple[str, ...] | None = None
    """None: the runtime needs root."""
    maps_users_itself: bool = False
    """Without root it enters a user namespace before it reads the bundle."""
    run_arguments: tuple[str, ...] = ()
    delete_arguments: tuple[str, ...] = ("delete", "--force", ID)
    network_words: Mapping[NetworkMode, str] | None = None
    """What ``{network}`` becomes in each mode."""
    helper_roles: Mapping[str, str] | None = None
    """Roles of the runtime's own helpers by the first word of their command lines."""
    litter_suffixes: tuple[str, ...] = ()
    """Endings of the names of files that the runtime is known to leave behind."""
    shared_entries: tuple[str, ...] = ()
    """Entries of the runtime's directory that belong to no sandbox."""
    shares_host_clock: bool = True
    hides_unified_mount: bool = False
    """crun refuses a hybrid hierarchy whose v2 part has controllers, so it must not see it."""
    device: str | None = None
    flags: Mapping[str, str] | None = None


RUNC: Final = Flavour(
    name="runc",
    program="runc",
    version_marker="runc version ",
    package_hint="apt-get install runc",
    broken_hint="try 'runc --debug run' with a bundle of your own; see 'seatrial doctor'",
    rootless_arguments=("--rootless=true",),
    run_arguments=("run", "--preserve-fds", "1", "--bundle", BUNDLE, ID),
)
CRUN: Final = Flavour(
    name="crun",
    program="crun",
    version_marker="crun version ",
    package_hint="apt-get install crun",
    broken_hint="crun before 1.9 refuses hybrid cgroups, which only root can hide from it: "
    "run as root, or take a newer crun",
    global_arguments=("--cgroup-manager=cgroupfs",),
    rootless_arguments=(),
    run_arguments=("run", "--preserve-fds", "1", "--bundle", BUNDLE, ID),
    hides_unified_mount=True,
)


def _runsc(name: str, platform: str, *, device: str | None = None, broken_hint: str) -> Flavour:
    return Flavour(
        name=name,
        program="runsc",
        version_marker="runsc version ",
        package_hint="'make setup' fetches a current one; Debian's own is too old for systrap",
        broken_hint=broken_hint,
        global_arguments=(f"--platform={platform}", f"--network={NETWORK}"),
        rootless_arguments=("--rootless", "--ignore-cgroups"),
        maps_users_itself=True,
        run_arguments=("run", "-pass-fd", f"{CHANNEL_FD}:{CHANNEL_FD}", "-bundle", BUNDLE, ID),
        delete_arguments=("delete", "-force", ID),
        network_words={
            NetworkMode.NONE: "none",
            NetworkMode.HOST: "host",
            NetworkMode.VETH: "sandbox",
        },
        helper_roles={"runsc-gofer": "gofer", "runsc-sandbox": "sentry"},
        litter_suffixes=(".lock", ".sock"),
        shared_entries=("null-netns",),
        shares_host_clock=False,
        device=device,
        flags={"platform": platform, "veth": "netstack on the veth's address"},
    )


RUNSC: Final = _runsc(
    "runsc",
    "systrap",
    broken_hint="runsc before 2023 has no systrap; 'make setup' fetches a current one",
)
RUNSC_PTRACE: Final = _runsc(
    "runsc-ptrace", "ptrace", broken_hint="ptrace may be forbidden here (kernel.yama.ptrace_scope)"
)
RUNSC_KVM: Final = _runsc(
    "runsc-kvm",
    "kvm",
    device="/dev/kvm",
    broken_hint="/dev/kvm is there but runs no guest (nested?); use runsc with systrap instead",
)


class OciDriver(TakesNoOptions, LocalDriver):
    """One flavour of OCI runtime."""

    def __init__(self, flavour: Flavour) -> None:
        """Be that flavour."""
        self.flavour = flavour
        self.name = flavour.name
        self.broken_hint = flavour.broken_hint

    def find(self) -> Found:
        """Find the program, its device and its version."""
        flavour = self.flavour
        binary = find_program(
            flavour.program,
            package=flavour.package_hint,
            candidates=runsc_candidates() if flavour.program == "runsc" else (),
        )
        if flavour.device is not None and not Path(flavour.device).exists():
            message = f"{flavour.name} needs {flavour.device}, which this machine does not have"
            raise DriverUnavailable(message, hint="use runsc, which needs no virtualisation")
        if os.geteuid() != 0 and flavour.rootless_arguments is None:
            raise DriverUnavailable(f"{flavour.name} needs root", hint="run as root")
        return Found(
            binary=binary,
            version=program_version(binary, marker=flavour.version_marker),
            capabilities=_capabilities(flavour),
            gaps=host_gaps(),
        )

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        return OciSession(context, flavour=self.flavour, found=self.find())


class OciSession(LocalSession):
    """Sandboxes of one OCI runtime in one run, all from one read-only root file system."""

    def __init__(self, context: DriverContext, *, flavour: Flavour, found: Found) -> None:
        """Prepare the runtime's own directory, the root file system and the launcher."""
        self._flavour = flavour
        self._binary = str(found.binary)
        if flavour.hides_unified_mount:
            self.unmounts = bundle.hidden_from_crun()
        super().__init__(
            context,
            name=flavour.name,
            version=found.version,
            capabilities=found.capabilities,
            flags={**bundle.FLAGS, **(flavour.flags or {})},
        )

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the root."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Make the runtime's own directory and the root that all sandboxes share."""
        self._state_dir = self.directory / "r"
        longest = len(str(self._state_dir)) + len("/runsc-st-xxxx-00000000.sock")
        if longest > SOCKET_PATH_BYTES_MAX:
            message = f"{self._state_dir} is too deep for the runtime's sockets ({longest} bytes)"
            hint = "set XDG_RUNTIME_DIR to a shorter path"
            raise EnvironmentTrouble(message, hint=hint)
        self._state_dir.mkdir(mode=0o700)
        self._rootfs = build_rootfs(self.directory / "rootfs", guest=self.guest)

    def programs(self) -> Sequence[Path]:
        """Give the runtime itself; runsc runs itself again for its helpers."""
        return (Path(self._binary),)

    def limits_itself(self) -> bool:
        """Limits stand in the bundle and hold for the runtime's own group, not for its command."""
        return True

    def command(self, instance: Instance) -> Command:
        """Write the bundle and give the runtime's command lines."""
        group = instance.cgroup
        config = bundle.build_config(
            instance.spec,
            root=self._rootfs,
            cgroups_path=None if group is None else group.box_path,
            network_namespace=instance.namespace_path,
            environment=(
                f"{RUN_VARIABLE}={self.context.run_id}",
                f"{SANDBOX_VARIABLE}={instance.id}",
            ),
            rootless=None if self._flavour.maps_users_itself else _rootless(),
        )
        bundle.write_bundle(instance.directory, config)
        return Command(
            argv=self._argv(self._flavour.run_arguments, instance),
            kill_argv=self._argv(self._flavour.delete_arguments, instance),
        )

    def role_of(self, process: SeenProcess) -> str:
        """Tell the runtime's command and helpers from the payload."""
        return role_of(self._flavour, process, binary=self._binary)

    def runtime_entries(self) -> Iterable[Path]:
        """Give what stands in the runtime's own directory for its sandboxes."""
        if not self._state_dir.is_dir():
            return ()
        shared = self._flavour.shared_entries
        return [entry for entry in self._state_dir.iterdir() if entry.name not in shared]

    def is_litter(self, entry: Path) -> bool:
        """Tell whether the runtime is known to leave such a file, or shares it among sandboxes."""
        return entry.name.endswith(self._flavour.litter_suffixes or ("\0",)) or (
            entry.name in self._flavour.shared_entries
        )

    def _argv(self, arguments: tuple[str, ...], instance: Instance) -> tuple[str, ...]:
        return build_argv(
            self._flavour,
            binary=self._binary,
            state_dir=self._state_dir,
            arguments=arguments,
            values={
                ID: instance.id,
                BUNDLE: str(instance.directory),
                NETWORK: (self._flavour.network_words or {}).get(instance.spec.network, ""),
            },
        )


def build_argv(
    flavour: Flavour,
    *,
    binary: str,
    state_dir: Path,
    arguments: tuple[str, ...],
    values: Mapping[str, str],
    is_root: bool | None = None,
) -> tuple[str, ...]:
    """Give a command line of a runtime with its placeholders filled in; pure but for the default.

    Each runtime keeps its state in a directory of the session, so that ``seatrial clean`` finds it
    and no other user's sandboxes are ever in reach.
    """
    root = os.geteuid() == 0 if is_root is None else is_root
    words = (
        binary,
        *("--root", str(state_dir)),
        *flavour.global_arguments,
        *(() if root else flavour.rootless_arguments or ()),
        *arguments,
    )
    return tuple(_fill(word, values) for word in words)


def role_of(flavour: Flavour, process: SeenProcess, *, binary: str) -> str:
    """Give the role of a process, told by the first word of its command line; pure.

    Whatever is neither the runtime's command nor one of its helpers runs the payload's code; with
    gVisor that is the processes in which it lets the payload's instructions run.
    """
    word = Path(process.first_word).name
    if word in {flavour.program, Path(binary).name}:
        return "runtime"
    return (flavour.helper_roles or {}).get(word, "payload")


def _fill(word: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


def _rootless() -> bundle.IdMapping | None:
    if os.geteuid() == 0:
        return None
    return bundle.IdMapping(uid=os.geteuid(), gid=os.getegid())


def _capabilities(flavour: Flavour) -> Capabilities:
    return host_capabilities(has_own_root=True, shares_host_clock=flavour.shares_host_clock)


def runc() -> OciDriver:
    """The reference runtime."""
    return OciDriver(RUNC)


def crun() -> OciDriver:
    """The runtime in C."""
    return OciDriver(CRUN)


def runsc() -> OciDriver:
    """The gVisor sandbox, intercepting system calls by seccomp traps."""
    return OciDriver(RUNSC)


def runsc_ptrace() -> OciDriver:
    """The gVisor sandbox, intercepting system calls by ptrace."""
    return OciDriver(RUNSC_PTRACE)


def runsc_kvm() -> OciDriver:
    """The gVisor sandbox, running the payload as a guest of KVM."""
    return OciDriver(RUNSC_KVM)
