"""A private containerd: own root, state, socket and configuration, in a control group of its own.

It is never the machine's containerd, which may serve somebody: that one is used only when the
option ``endpoint`` names its socket. Everything that a private one makes is below its directory in
the run's state, with one exception, the sockets of its shims, which containerd puts where they have
always been and which are removed one by one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import network, proc
from seatrial.drivers import image, state
from seatrial.drivers.cri import calls, config
from seatrial.drivers.cri.handlers import configured_name
from seatrial.drivers.tools import tools_directory
from seatrial.errors import DriverError, DriverUnavailable, EnvironmentTrouble, SeatrialError
from seatrial.guest.binary import launch_binary
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.model.experiment import NetworkMode
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seatrial.drivers.cri.handlers import Handler
    from seatrial.probes.cgroup import Cgroup

START_TIMEOUT_NS: Final = 30_000_000_000
STOP_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_NS: Final = 5_000_000_000
#: That the CRI service has come up, or knows a new image, is told to nobody.
READY_QUANTUM_NS: Final = 20_000_000
#: What gRPC says of a service that nobody registered.
UNIMPLEMENTED: Final = "UNIMPLEMENTED"
CTR_TIMEOUT_S: Final = 60.0
#: A name that no sandbox's group has: those begin with hexadecimal digits.
GROUP: Final = "shared-containerd"
NAMESPACE: Final = "k8s.io"
#: /16 networks are cut from here for pods with a veth; beside the pool of our own veths.
POD_NETWORKS: Final = "10.78.0.0/15"
POD_NETWORK_BITS: Final = 20
LOG_TAIL_BYTES: Final = 600

_JOIN_AND_EXEC: Final = (
    'while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"'
)


class Containerd:
    """One private daemon of a run."""

    def __init__(
        self,
        run_id: str,
        state_dir: Path,
        *,
        programs: Mapping[str, Path],
        handlers: Mapping[str, Handler],
        guest: Path,
        snapshotter: str,
    ) -> None:
        """Start it and give it the guest's image.

        Raises:
            DriverError: it does not come up.
            EnvironmentTrouble: files cannot be written.
        """
        self.run_id = run_id
        self._programs = programs
        self._run = state.RunState.acquire(run_id, state_dir)
        self._host = CgroupHost.detect()
        self._process: proc.Spawned | None = None
        self.gateway: str | None = None
        """Where pods with a veth reach the host; None: they can have none here."""
        self._cgroup: Cgroup | None = None
        self._held_sockets: tuple[Path, ...] = ()
        self.layout = config.Layout(base=state_dir / f"containerd-{snapshotter}")
        try:
            self._remove_files()
            self.layout.base.mkdir(mode=0o700)
            self.images = image.build_images(
                self.layout.base / "guest.tar",
                guest=guest,
                architecture=image.machine_architecture(),
            )
            self._write(handlers, snapshotter)
            self._start()
            self._import(snapshotter)
        except OSError as error:
            self.close()
            message = f"cannot prepare a private containerd in {self.layout.base}: {error}"
            raise EnvironmentTrouble(message) from error
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the daemon still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def cgroup(self) -> Cgroup | None:
        """The daemon's books: itself, and its shims until these join their sandboxes."""
        return self._cgroup

    def require(self) -> None:
        """Make sure that it lives.

        Raises:
            DriverError: it has ended (``daemon-gone``), with its last words.
        """
        if not self.is_alive:
            raise DriverError(
                f"the private containerd of run {self.run_id} has ended: {self._last_words()}",
                hint="the next trial starts another one; see 'dmesg' if it was killed",
                code="daemon-gone",
            )

    def close(self) -> None:
        """End the daemon, what it left, and remove its files; idempotent."""
        with contextlib.ExitStack() as steps:
            run, self._run = self._run, None  # type: ignore[assignment]  # only to do it once
            if run is not None:
                steps.callback(run.release)
            steps.callback(self._remove_files)
            steps.callback(self._remove_group)
            steps.callback(self._stop)

    # --- making -----------------------------------------------------------------------------------

    def _write(self, handlers: Mapping[str, Handler], snapshotter: str) -> None:
        layout = self.layout
        status = Path("/proc/self/status").read_text()
        text = config.daemon_config(
            layout,
            handlers,
            programs=self._programs,
            pause_image=self.images.pause,
            snapshotter=snapshotter,
            may_lower_oom_score=config.has_capability(status, config.CAP_SYS_RESOURCE),
        )
        layout.config.write_text(text)
        for name, handler in handlers.items():
            if handler.platform is None or handler.program is None:
                continue
            for mode in NetworkMode:
                path = layout.runtime_config(configured_name(name, mode))
                program = self._programs[handler.program]
                path.write_text(config.runsc_config(layout, handler, mode=mode, program=program))
        self._write_networks()

    def _write_networks(self) -> None:
        layout, plugins = self.layout, config.cni_directory()
        layout.plugins.mkdir()
        (layout.plugins / config.NO_NETWORK_PLUGIN).symlink_to(launch_binary())
        if plugins is None:
            (layout.plugins / config.LOOPBACK_PLUGIN).symlink_to(launch_binary())
        else:
            for name in config.CNI_PLUGINS:
                (layout.plugins / name).symlink_to(plugins / name)
        for mode in NetworkMode:
            layout.networks(mode).mkdir()
            path = layout.networks(mode) / "10-seatrial.conflist"
            subnet = self._subnet() if mode is NetworkMode.VETH and plugins is not None else None
            if subnet is None:
                path.write_text(config.no_network())
            else:
                path.write_text(config.veth_network(subnet, layout.base / "addresses"))
                self.gateway = config.gateway_of(subnet)

    @staticmethod
    def _subnet() -> str | None:
        import ipaddress

        pool = ipaddress.IPv4Network(POD_NETWORKS)
        subnets = list(pool.subnets(new_prefix=POD_NETWORK_BITS))
        first = os.getpid() % len(subnets)
        found = network.first_unused([*subnets[first:], *subnets[:first]])
        return None if found is None else str(found)

    def _start(self) -> None:
        join: list[str] = []
        if self._host.is_writable:
            self._cgroup = self._host.create(f"{self.run_id}/{GROUP}")
            join = [str(path) for path in self._cgroup.join_files]
        words = [str(self._programs["containerd"]), "--config", str(self.layout.config)]
        shims = {str(path.parent) for path in self._programs.values()}
        path = ":".join((*sorted(shims), str(tools_directory()), os.environ.get("PATH", "")))
        with (self.layout.base / "log").open("wb") as log:
            self._process = proc.spawn(
                ["/bin/sh", "-c", _JOIN_AND_EXEC, "sh", *join, "--", *words],
                env={
                    "PATH": f"{path}:/usr/sbin:/sbin",
                    # What the daemon starts inherits it, and is found by it.
                    state.RUN_VARIABLE: self.run_id,
                },
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        self._wait("its CRI service", lambda: bool(calls.version(self.layout.socket)))

    def _import(self, snapshotter: str) -> None:
        argv = [
            str(self._programs["ctr"]),
            *("--address", str(self.layout.socket)),
            *("--namespace", NAMESPACE),
            *("images", "import", "--snapshotter", snapshotter, str(self.images.archive)),
        ]
        try:
            proc.run(argv, timeout_s=CTR_TIMEOUT_S)
        except SeatrialError as error:
            message = f"containerd does not take the guest's image: {error.message}"
            raise DriverError(
                message,
                hint=f"does the snapshotter {snapshotter!r} work on the file system of "
                f"{self.layout.base}?",
                code="cri-image",
            ) from error
        for name in (self.images.guest, self.images.pause):
            self._wait(f"the image {name}", partial(calls.has_image, self.layout.socket, name))

    def _wait(self, what: str, is_there: Callable[[], bool]) -> None:
        deadline_ns = time.monotonic_ns() + START_TIMEOUT_NS
        reason = ""
        while True:
            if not self.is_alive:
                raise DriverUnavailable(
                    f"containerd ended before {what} was there: {self._last_words()}",
                    hint="'seatrial doctor' tries it; its configuration needs containerd 1.6 "
                    "or newer",
                )
            try:
                if self.layout.socket.exists() and is_there():
                    return
            except DriverError as error:
                reason = error.message
                if UNIMPLEMENTED in reason:
                    raise DriverUnavailable(
                        f"the CRI plugin of containerd does not load: {self._last_words()}",
                        hint="a snapshotter that is not there, or a containerd built without CRI",
                    ) from error
            if time.monotonic_ns() >= deadline_ns:
                seconds, why = START_TIMEOUT_NS // 10**9, reason or self._last_words()
                raise DriverUnavailable(
                    f"containerd: {what} was not there within {seconds} s: {why}",
                    hint="the machine is overloaded, or the CRI plugin does not load",
                )
            time.sleep(READY_QUANTUM_NS / 1e9)

    def _last_words(self) -> str:
        try:
            data = (self.layout.base / "log").read_bytes()[-LOG_TAIL_BYTES:]
        except OSError:
            return "nothing is known of why"
        return " ".join(data.decode(errors="replace").split()) or "it said nothing"

    # --- removing ---------------------------------------------------------------------------------

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.signal(signal.SIGTERM)
            process.wait(timeout_s=STOP_TIMEOUT_S)
        process.close()

    def _remove_group(self) -> None:
        # Shims outlive their daemon, as they should; a private one takes them along.
        group, self._cgroup = self._cgroup, None
        if group is not None:
            self._held_sockets = state.held_shim_sockets(group.members())
            group.kill(timeout_ns=KILL_TIMEOUT_NS)
            group.remove()

    def _remove_files(self) -> None:
        state.remove_shim_sockets(self.layout.base.parent, self._held_sockets)
        state.remove_mounts(self.layout.base)
        state.remove_tree(self.layout.base)


def guest_copies(layout: config.Layout) -> list[Path]:
    """Find the guest's copies in the snapshots of a private containerd.

    Never walks through a snapshot: those of ended containers vanish meanwhile.
    """
    snapshots = "io.containerd.snapshotter.*/snapshots/*"
    return sorted(
        path
        for place in ("", "/fs")
        for path in layout.root.glob(f"{snapshots}{place}{GUEST_PATH}")
    )
