"""The driver ``cri/HANDLER``: a pod by CRI, and the guest as the one container in it.

Inside of the clock are three calls, one after the other: ``RunPodSandbox``, ``CreateContainer`` and
``StartContainer``; then the guest's own way to its first word. The client that makes them is the
command of the start plan and stays as long as the pod.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.drivers import bundle, shared, state
from seatrial.drivers.base import DATA_PATH, START_DEADLINE_NS, TOOLS_PATH, Shared
from seatrial.drivers.cri import calls, config, messages
from seatrial.drivers.cri.channel import LOOPBACK, ChannelChoice, by_socket, by_tcp
from seatrial.drivers.cri.containerd import POD_NETWORKS, Containerd, guest_copies
from seatrial.drivers.cri.handlers import HANDLERS, ChannelKind, configured_name, known_handler
from seatrial.drivers.cri.options import check_names, check_server
from seatrial.drivers.cri.programs import channel_trouble, find_programs, usable_handlers
from seatrial.drivers.cri.removal import PodRemoval, kill_shims
from seatrial.drivers.cri.report import read_milestones
from seatrial.drivers.cri.traits import (
    VARIABLES,
    handler_capabilities,
    handler_gaps,
    machine_flags,
    network_gaps,
    with_environment,
)
from seatrial.drivers.instance import Command, Instance, SeenProcess, limits_of
from seatrial.drivers.local import (
    Found,
    LocalDriver,
    OneStart,
    host_gaps,
    program_version,
)
from seatrial.drivers.session import LocalSession
from seatrial.drivers.state import RUN_VARIABLE, SANDBOX_VARIABLE
from seatrial.errors import DriverError, DriverUnavailable, SeatrialError
from seatrial.guest.binary import launch_binary
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import BOX, CPU_PERIOD_US
from seatrial.probes.leaks import Leak, LeakKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import DriverContext
    from seatrial.drivers.cri.channel import Way
    from seatrial.drivers.cri.handlers import Handler
    from seatrial.model.scalar import Scalar

PREFIX: Final = "cri/"
ENDPOINT_VARIABLE: Final = VARIABLES["endpoint"]
SNAPSHOTTER: Final = "overlayfs"
ELSEWHERE: Final = f"set {ENDPOINT_VARIABLE} or the option 'endpoint' to a server that has it"
POD_NAMESPACE: Final = "seatrial"
SANDBOX_LABEL: Final = "seatrial.sandbox"
SESSION_LABEL: Final = "seatrial.session"
SPEC_FILE: Final = "pod.json"
REPORT_FILE: Final = "report.json"
#: What the client makes of the report's name when the pod is gone.
DONE_SUFFIX: Final = ".done"
#: How long the probe's pod may take when it boots a kernel first.
MACHINE_DEADLINE_NS: Final = 60_000_000_000
#: A call may take as long as a start; the launcher's own deadline ends it before.
CALL_MARGIN_NS: Final = 5_000_000_000
CONTAINERD_MARKER: Final = "containerd/containerd "
#: Roles by the first word of the command line; the client is ours and not the runtime's.
HELPER_ROLES: Final = {
    "pause": "pause",
    "runsc-gofer": "gofer",
    "runsc-sandbox": "sentry",
    "seatrial-launch": "client",
    "cloud-hypervisor": "vmm",
    "firecracker": "vmm",
    "virtiofsd": "virtiofsd",
}
#: QEMU is named after the machine that it is.
QEMU_PREFIX: Final = "qemu-system-"


class CriDriver(LocalDriver):
    """One runtime handler behind CRI."""

    def __init__(self, handler: str) -> None:
        """Be the driver of that handler."""
        self.handler = handler
        self.name = f"{PREFIX}{handler}"
        self.broken_hint = "see what the server says; 'seatrial doctor --json' has all of it"

    def find(self) -> Found:
        """Find the server that the environment names, or what a private containerd needs."""
        endpoint = with_environment({}).get("endpoint")
        if endpoint:
            return self._found_there(calls.parse_endpoint(str(endpoint)))
        return self._found_here(*find_programs(self.handler, elsewhere=ELSEWHERE))

    def start_one(self, session: LocalSession, *, deadline_ns: int | None = None) -> OneStart:
        """Start one sandbox; one that boots a kernel first has longer."""
        known = known_handler(self.handler)
        if deadline_ns is None and known is not None and known.is_machine:
            deadline_ns = MACHINE_DEADLINE_NS
        return super().start_one(session, deadline_ns=deadline_ns)

    def _found_here(self, handler: Handler, programs: Mapping[str, Path]) -> Found:
        version = program_version(programs["containerd"], marker=CONTAINERD_MARKER)
        if handler.program is not None:
            program = programs[handler.program]
            own = program_version(program, marker=handler.version_marker)
            version = f"{version}+{handler.program}-{own}"
        capabilities = handler_capabilities(handler)
        gaps = [*host_gaps(), *handler_gaps(handler)]
        if config.cni_directory() is None:
            modes = (NetworkMode.NONE, NetworkMode.HOST)
            capabilities = replace(capabilities, network_modes=modes)
            plugins = ", ".join(config.CNI_PLUGINS)
            gaps.append(f"no veth networks without the CNI plugins {plugins}")
        return Found(
            binary=programs["containerd"],
            version=version,
            capabilities=capabilities,
            gaps=tuple(gaps),
        )

    def _found_there(self, endpoint: Path) -> Found:
        try:
            name, version = calls.version(endpoint)
        except SeatrialError as error:
            raise DriverUnavailable(error.message, hint=error.hint) from error
        known = known_handler(self.handler)
        return Found(
            binary=None,
            version=f"{name} {version}",
            capabilities=handler_capabilities(known),
            gaps=(*host_gaps(), *(network_gaps(known) if known else ())),
        )

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse what has no meaning."""
        self._parse(options)

    def _parse(
        self, given: Mapping[str, Scalar]
    ) -> tuple[dict[str, Scalar], ChannelChoice, Path | None]:
        place = f'driver."{self.name}"'
        check_names(place, given)
        options = with_environment(given)
        named = options.get("endpoint")
        channel = ChannelChoice.parse(
            self.name, known_handler(self.handler), options, has_own_server=not named
        )
        where = f"{place}.endpoint" if "endpoint" in given else ENDPOINT_VARIABLE
        endpoint = calls.parse_endpoint(str(named), where=where) if named else None
        check_server(place, given, has_endpoint=endpoint is not None, image=options.get("image"))
        return options, channel, endpoint

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        options, channel, endpoint = self._parse(context.options)
        if endpoint is not None:
            found, programs = self._found_there(endpoint), None
        else:
            handler, programs = find_programs(self.handler, elsewhere=ELSEWHERE)
            trouble, hint = channel_trouble() if channel.kind is ChannelKind.TCP else ("", "")
            if trouble:
                raise DriverUnavailable(f"{self.name} {trouble}", hint=hint)
            found = self._found_here(handler, programs)
        return CriSession(
            replace(context, options=options),
            handler=self.handler,
            found=found,
            channel=channel,
            endpoint=endpoint,
            programs=programs,
        )


class CriSession(LocalSession):
    """Pods of one handler in one run."""

    makes_veth = False

    def __init__(
        self,
        context: DriverContext,
        *,
        handler: str,
        found: Found,
        channel: ChannelChoice,
        endpoint: Path | None = None,
        programs: Mapping[str, Path] | None = None,
    ) -> None:
        """Take the run's private daemon, or the server at an endpoint."""
        self._handler = handler
        self._channel = channel
        self._endpoint = endpoint
        self._programs = programs or {}
        self._daemon: Containerd | None = None
        self._removal = PodRemoval()
        self._snapshotter = str(context.options.get("snapshotter", SNAPSHOTTER))
        self._image = str(context.options.get("image", ""))
        self._server = found.version
        flags = {
            **bundle.FLAGS,
            "root": "writable snapshot",
            "snapshotter": self._snapshotter if endpoint is None else "the server's own",
            "clock": "RunPodSandbox, CreateContainer, StartContainer",
            "server": "private" if endpoint is None else str(endpoint),
            **channel.flags(has_own_server=endpoint is None),
            **machine_flags(known_handler(handler)),
        }
        try:
            super().__init__(
                context,
                name=f"{PREFIX}{handler}",
                version=found.version,
                capabilities=found.capabilities,
                flags=flags,
            )
        except BaseException:
            self._let_daemon_go()
            raise

    # --- what a driver says -----------------------------------------------------------------------

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the image."""
        return GUEST_PATH

    @property
    def endpoint_path(self) -> Path:
        """The server's socket."""
        if self._endpoint is not None:
            return self._endpoint
        if self._daemon is None:
            raise DriverError(f"{self.name}: the session is closed")
        return self._daemon.layout.socket

    def shared(self) -> Shared | None:
        """Give the private daemon, and the shims that serve no sandbox; not somebody else's."""
        group = None if self._daemon is None else self._daemon.cgroup
        if group is None:
            return None
        names = {pid: leaks.process_name(pid) for pid in group.members()}
        return Shared(processes=names, cgroups=group)

    def image_files(self) -> tuple[Path, ...]:
        """Give the programs that serve a start, and the guest's copies in the snapshots."""
        programs = [path for name, path in self._programs.items() if name != "ctr"]
        if self._daemon is None:
            return (launch_binary(), self.guest)
        return (launch_binary(), *programs, *guest_copies(self._daemon.layout))

    def prepare(self) -> None:
        """Take the private daemon with the guest's image in it."""
        if self._endpoint is not None:
            self._check_image()
            return
        context = self.context

        def make() -> Containerd:
            # One daemon serves all drivers, so it knows all handlers that this machine has.
            usable = usable_handlers(elsewhere=ELSEWHERE)
            programs = dict(self._programs)
            for found in usable.values():
                programs.update(found)
            return Containerd(
                context.run_id,
                context.state_dir,
                programs=programs,
                handlers={name: HANDLERS[name] for name in usable},
                guest=self.guest,
                snapshotter=self._snapshotter,
            )

        self._daemon = shared.acquire(context.run_id, self._kind, make)
        self._daemon.require()
        self._image = self._daemon.images.guest

    @property
    def _kind(self) -> str:
        return f"containerd-{self._snapshotter}"

    def _check_image(self) -> None:
        if not calls.has_image(self.endpoint_path, self._image):
            raise DriverUnavailable(
                f"{self.endpoint_path} has no image {self._image!r}",
                hint="import one; nothing is ever pulled",
            )

    def limits_itself(self) -> bool:
        """Limits are set on the pod's group, as a kubelet does, and not on our client's."""
        return True

    def command(self, instance: Instance) -> Command:
        """Write the pod's specification and give the client's command lines."""
        if self._daemon is not None:
            self._daemon.require()
        way = self._way(instance)
        if instance.cgroup is not None:
            instance.cgroup.make_box(limits_of(instance.spec, self.capabilities))
        path = instance.directory / SPEC_FILE
        path.write_text(json.dumps(self._pod_spec(instance, way)))
        program = str(launch_binary())
        return Command(
            argv=(program, "cri-run", str(path)),
            kill_argv=(program, "cri-remove", str(path)),
            channel_path=way.path,
            channel_token=way.token,
        )

    def _way(self, instance: Instance) -> Way:
        """Say how a sandbox's guest is to call, and make or ask for what it takes."""
        if self._channel.kind is ChannelKind.UNIX:
            directory = instance.directory / "c"
            directory.mkdir(mode=0o755)
            return by_socket(directory)
        address = self._channel.address or (self._daemon and self._daemon.gateway)
        if instance.spec.network is NetworkMode.HOST:
            address = LOOPBACK
        if not address:
            message = f"{self.name}: no network is left in {POD_NETWORKS} for pods to call from"
            raise DriverError(message, hint="'seatrial clean' gives back those of dead runs")
        return by_tcp(address, self.launcher.listen(address))

    def _pod_spec(self, instance: Instance, way: Way) -> dict[str, object]:
        pod, group = self._pod(instance, way), instance.cgroup
        books = None if group is None else group.directory("memory") or group.directory("cpu")
        is_containerd = self._daemon is not None or "containerd" in self._server
        return {
            "endpoint": str(self.endpoint_path),
            "pod_request": messages.run_pod_request(pod).hex(),
            "container_request": messages.create_container_request(pod).hex(),
            "label": [SANDBOX_LABEL, instance.id],
            "watch": "containerd-events" if is_containerd else "container-events",
            "group": None if books is None else str(books / BOX),
            "shim_join": [] if group is None else [str(path) for path in group.join_files],
            "group_directories": []
            if group is None
            else [str(path) for path in group.box_directories()],
            "report": str(instance.directory / REPORT_FILE),
            "timeout_ns": max(instance.spec.deadline_ns, START_DEADLINE_NS) + CALL_MARGIN_NS,
        }

    def _pod(self, instance: Instance, way: Way) -> messages.Pod:
        spec, group = instance.spec, instance.cgroup
        data = () if spec.data_dir is None else ((str(spec.data_dir), DATA_PATH),)
        tools = () if spec.tools_dir is None else ((str(spec.tools_dir), TOOLS_PATH),)
        guest = () if self._daemon is not None else ((str(self.guest), GUEST_PATH),)
        handler = self._handler
        if self._daemon is not None:
            handler = configured_name(handler, self._channel.network_of_pod(spec.network))
        has_cpu_limit = spec.cpu_limit is not None
        return messages.Pod(
            name=instance.id,
            namespace=POD_NAMESPACE,
            handler=handler,
            labels={SANDBOX_LABEL: instance.id, SESSION_LABEL: self._session_label},
            image=self._image,
            command=(GUEST_PATH, *way.words, *spec.role),
            environment={
                RUN_VARIABLE: self.context.run_id,
                SANDBOX_VARIABLE: instance.id,
                **way.environment,
            },
            mounts=(*way.mounts, *data),
            read_only_mounts=(*tools, *guest),
            uses_host_network=spec.network is NetworkMode.HOST,
            cgroup_parent=None if group is None else group.box_path,
            memory_limit_bytes=spec.memory_limit_bytes,
            cpu_quota_us=int((spec.cpu_limit or 0) * CPU_PERIOD_US) if has_cpu_limit else None,
            cpu_period_us=CPU_PERIOD_US if has_cpu_limit else None,
        )

    @property
    def _session_label(self) -> str:
        return f"{self.context.run_id}.{self.number}"

    def role_of(self, process: SeenProcess) -> str:
        """Tell what serves a pod from the payload."""
        word = Path(process.first_word).name
        if word.startswith("containerd-shim"):
            return "shim"
        known = known_handler(self._handler)
        if known is not None and word == known.program:
            return "runtime"
        return "vmm" if word.startswith(QEMU_PREFIX) else HELPER_ROLES.get(word, "payload")

    def processes(self, plan_id: str) -> Mapping[int, str]:
        """Map the live processes of a pod to their roles; our own client is none of them."""
        found = super().processes(plan_id)
        return {pid: role for pid, role in found.items() if role != "client"}

    def endpoint(self, plan_id: str, port: int) -> str:
        """Give the URL of what a pod serves on a port."""
        instance = self._instance(plan_id)
        if instance.spec.network is not NetworkMode.VETH:
            return super().endpoint(plan_id, port)
        # Not from the client's report: the guest may be up before the server has said so.
        pod_ids = calls.pods(self.endpoint_path, {SANDBOX_LABEL: plan_id})
        address = next((calls.pod_address(self.endpoint_path, one) for one in pod_ids), "")
        if not address:
            raise DriverError(f"{self.name}: the pod of {plan_id} has no address: does it run?")
        return f"tcp://{address}:{port}"

    def milestones(self, plan_id: str) -> Mapping[str, int]:
        """Give when the server answered the calls that make a pod, from its client's report."""
        report = self._instance(plan_id).directory / REPORT_FILE
        for path in (report.with_suffix(DONE_SUFFIX), report):
            with contextlib.suppress(OSError):
                return read_milestones(path.read_text())
        return {}

    # --- what is left -----------------------------------------------------------------------------

    def release(self, plan_id: str) -> None:
        """Remove the pod if its client could not, and then everything else."""
        instance = self._instances.get(plan_id)
        if instance is None:
            return
        labels = {SANDBOX_LABEL: instance.id}
        has_pod = (instance.directory / REPORT_FILE).exists() and not self._remove_pods(labels)
        # A shim that is killed while it ends leaves its socket, of which nobody else knows by then.
        sockets = state.held_shim_sockets(self._members(instance))
        try:
            super().release(plan_id)
        finally:
            for path in sockets:
                path.unlink(missing_ok=True)
            if has_pod:
                # By now nothing of it runs, so the server has no more reason to keep it.
                self._kill_shims(labels)
                self._remove_pods(labels)

    def _kill_shims(self, labels: Mapping[str, str]) -> None:
        group = None if self._daemon is None or not self._daemon.is_alive else self._daemon.cgroup
        if group is not None:
            kill_shims(self.endpoint_path, labels, group)

    def _remains(self, instance: Instance) -> bool:
        if not super()._remains(instance):
            return False
        # The client removes the pod's groups once, and a process that was still ending keeps them;
        # one that never came to make the pod leaves them as they were made for it.
        has_pod = (instance.directory / REPORT_FILE).exists()
        if not has_pod and instance.cgroup is not None and not instance.cgroup.members():
            instance.cgroup.remove_box()
        return super()._remains(instance)

    def _remove_pods(self, labels: Mapping[str, str]) -> bool:
        if self._endpoint is None and (self._daemon is None or not self._daemon.is_alive):
            return True  # what it had goes with its directory
        removal = self._removal.remove(self.endpoint_path, labels)
        self._litter["pod"] += removal.removed_count
        return removal.is_complete

    def audit(self) -> tuple[Leak, ...]:
        """Find what is left, in the server's books too."""
        return (*super().audit(), *self._leaked_pods())

    def _leaked_pods(self) -> tuple[Leak, ...]:
        if self._endpoint is None and (self._daemon is None or not self._daemon.is_alive):
            return ()
        found = calls.pods(self.endpoint_path, {SESSION_LABEL: self._session_label})
        return tuple(
            Leak(kind=LeakKind.POD, name=pod_id, detail=labels.get(SANDBOX_LABEL, ""))
            for pod_id, labels in found.items()
            if labels.get(SANDBOX_LABEL) not in self._instances
        )

    def close(self) -> None:
        """Release everything and give the daemon back."""
        try:
            super().close()
            # A server may finish what a client that was killed had begun, when nobody looks.
            self._remove_pods({SESSION_LABEL: self._session_label})
        finally:
            self._let_daemon_go()

    def _let_daemon_go(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            shared.release(self.context.run_id, self._kind)
