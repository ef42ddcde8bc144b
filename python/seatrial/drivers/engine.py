"""Container engines driven through their command line, as people use them: podman, docker, nerdctl.

Each sandbox is ``ENGINE run --rm`` in the foreground with the guest's image, which is made here and
never pulled. Podman has no daemon and gets a store of its own; docker and nerdctl are used as they
run on the machine, with containers and an image of our own names only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.drivers import bundle, state
from seatrial.drivers.base import DATA_PATH, TOOLS_PATH
from seatrial.drivers.image import CHANNEL_DIRECTORY, build_images, machine_architecture
from seatrial.drivers.instance import Command, Instance, SeenProcess
from seatrial.drivers.local import (
    Found,
    LocalDriver,
    find_program,
    host_capabilities,
    host_gaps,
    program_version,
)
from seatrial.drivers.options import OptionError, unknown_option
from seatrial.drivers.session import LocalSession
from seatrial.errors import (
    DriverError,
    DriverUnavailable,
    EnvironmentTrouble,
    SeatrialError,
)
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.model.experiment import NetworkMode
from seatrial.probes.leaks import Leak, LeakKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import DriverContext
    from seatrial.model.scalar import Scalar

RUNTIME_OPTION: Final = "runtime"
RUNTIME: Final = "runc"
CRUN: Final = "crun"
CHANNEL_SOCKET: Final = "s"
#: What podman accepts as its runroot.
RUNROOT_CHARACTERS_MAX: Final = 50
#: Podman has one group for the monitors of all containers with a common parent.
MONITOR_GROUP: Final = "conmon"
#: Podman lowers its own limit of processes to this, and could not give a container more.
PROCESSES_MAX: Final = 32_768
LOAD_TIMEOUT_S: Final = 60.0
REMOVAL_TRIES_COUNT: Final = 4
ENGINE_TIMEOUT_S: Final = 30.0
#: Names of the helpers, by the first word of the command line.
ROLES: Final = {
    "conmon": "monitor",
    "podman": "runtime",
    "docker": "runtime",
    "nerdctl": "runtime",
    "runc": "runtime",
    "crun": "runtime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What makes one engine different from another, as data."""

    name: str
    version_marker: str
    package_hint: str
    has_own_store: bool
    """It works without a daemon, on a store that the command line names."""
    joins_namespaces: bool
    """It can be told a network namespace by its path."""
    global_arguments: tuple[str, ...] = ()
    run_arguments: tuple[str, ...] = ()


PODMAN: Final = Engine(
    name="podman",
    version_marker="podman version ",
    package_hint="apt-get install podman",
    has_own_store=True,
    joins_namespaces=True,
    global_arguments=("--cgroup-manager=cgroupfs", "--events-backend=none"),
    run_arguments=("--no-hosts",),
)
DOCKER: Final = Engine(
    name="docker",
    version_marker="Docker version ",
    package_hint="install Docker Engine and start its daemon",
    has_own_store=False,
    joins_namespaces=False,
)
NERDCTL: Final = Engine(
    name="nerdctl",
    version_marker="nerdctl version ",
    package_hint="install nerdctl, and start containerd",
    has_own_store=False,
    joins_namespaces=False,
)


class EngineDriver(LocalDriver):
    """One container engine."""

    broken_hint = "try the engine's own 'run' with an image that it has"

    def __init__(self, engine: Engine) -> None:
        """Drive that engine."""
        self.engine = engine
        self.name = engine.name

    def find(self) -> Found:
        """Find the program and its version."""
        engine = self.engine
        binary = find_program(engine.name, package=engine.package_hint)
        if os.geteuid() != 0:
            raise DriverUnavailable(f"the driver {engine.name} needs root", hint="run as root")
        version = program_version(binary, marker=engine.version_marker).rstrip(",")
        capabilities = host_capabilities(has_own_root=True, shares_host_clock=True)
        if not engine.joins_namespaces:
            from dataclasses import replace

            modes = (NetworkMode.NONE, NetworkMode.HOST)
            capabilities = replace(capabilities, network_modes=modes)
        return Found(binary=binary, version=version, capabilities=capabilities, gaps=host_gaps())

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse what has no meaning."""
        for option, value in options.items():
            where = f"driver.{self.name}.{option}"
            if option != RUNTIME_OPTION:
                raise unknown_option(where, (RUNTIME_OPTION,))
            if not isinstance(value, str) or not value:
                raise OptionError(where, "expected the name or the path of a runtime", value=value)

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        return EngineSession(context, engine=self.engine, found=self.find())


class EngineSession(LocalSession):
    """Containers of one engine in one run."""

    def __init__(self, context: DriverContext, *, engine: Engine, found: Found) -> None:
        """Prepare the store and the image."""
        self._engine = engine
        self._binary = str(found.binary)
        self._runtime = str(context.options.get(RUNTIME_OPTION, RUNTIME))
        if engine.has_own_store and Path(self._runtime).name == CRUN:
            self.unmounts = bundle.hidden_from_crun()
        self._image = ""
        self.kept_groups_count = 1 if engine.has_own_store else 0
        super().__init__(
            context,
            name=engine.name,
            version=full_version(engine, found.version, runtime=self._runtime),
            capabilities=found.capabilities,
            flags={
                **bundle.FLAGS,
                "root": "writable snapshot",
                "runtime": self._runtime,
                "snapshotter": "overlay" if engine.has_own_store else "the engine's own",
                "log": "none",
            },
        )

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the image."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Load the image, into a store of our own where the engine allows one."""
        # Podman's monitor leaves a file where it works when a container ran out of memory.
        self.working_directory = self.directory
        self._store = self.directory / "store"
        self._store.mkdir(mode=0o700)
        # Podman wants this one to be short, because there are sockets in it.
        self._run_directory = self.context.state_dir / f"p{int(self.number, 16):x}"
        longest = len(str(self._run_directory))
        if self._engine.has_own_store and longest > RUNROOT_CHARACTERS_MAX:
            message = f"{self._run_directory} is too long for {self.name} ({longest} characters)"
            hint = f"set XDG_RUNTIME_DIR so that it has at most {RUNROOT_CHARACTERS_MAX}"
            raise EnvironmentTrouble(message, hint=hint)
        images = build_images(
            self.directory / "guest.tar", guest=self.guest, architecture=machine_architecture()
        )
        self._image = images.guest
        try:
            self._run("load", "--input", str(images.archive), timeout_s=LOAD_TIMEOUT_S)
        except SeatrialError as error:
            message = f"{self.name} does not take the guest's image: {error.message}"
            raise DriverError(message, hint=self._load_hint, code="engine-image") from error

    def image_files(self) -> tuple[Path, ...]:
        """Give the engine's programs, and the guest's copy in a store of our own."""
        names = ("conmon", self._runtime) if self._engine.has_own_store else ()
        found = [
            shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for name in names
        ]
        layers = self._store.glob(f"root/overlay/*/diff{GUEST_PATH}")
        programs = (Path(self._binary), *(Path(path) for path in found if path is not None))
        return (*programs, *(sorted(layers) or [self.guest]))

    @property
    def _load_hint(self) -> str:
        if self._engine.has_own_store:
            return f"overlay must work on the file system of {self._store}"
        return f"start the daemon of {self.name}, or leave {self.name} out of the drivers"

    def limits_itself(self) -> bool:
        """Limits are given to the engine and hold for the container, not for its command."""
        return True

    def command(self, instance: Instance) -> Command:
        """Give the engine's command lines."""
        channel = instance.directory / "c"
        channel.mkdir(mode=0o755)
        if instance.cgroup is not None and self.kept_groups_count:
            instance.cgroup.make_child(MONITOR_GROUP)
        return Command(
            argv=(*self._words(), "run", *self._options(instance, channel)),
            kill_argv=(*self._words(), "rm", "--force", instance.id),
            channel_path=str(channel / CHANNEL_SOCKET),
            environment=self._environment,
        )

    @property
    def _environment(self) -> tuple[str, ...]:
        # What the machine's files say must not change what is measured.
        if not self._engine.has_own_store:
            return ()
        return ("CONTAINERS_CONF=/dev/null", f"HOME={self._store}")

    def _words(self) -> tuple[str, ...]:
        words = (self._binary, *self._engine.global_arguments)
        if not self._engine.has_own_store:
            return words
        return (
            *words,
            *("--root", str(self._store / "root")),
            *("--runroot", str(self._run_directory)),
            *("--tmpdir", str(self._store / "tmp")),
            *("--storage-driver", "overlay"),
            *("--runtime", self._runtime),
        )

    def _options(self, instance: Instance, channel: Path) -> tuple[str, ...]:
        spec, group = instance.spec, instance.cgroup
        mounts: list[tuple[str, ...]] = [(str(channel), CHANNEL_DIRECTORY)]
        if spec.data_dir is not None:
            mounts.append((str(spec.data_dir), DATA_PATH))
        if spec.tools_dir is not None:
            mounts.append((str(spec.tools_dir), TOOLS_PATH, "ro"))
        options = [
            *("--rm", "--pull=never", "--name", instance.id, "--log-driver=none"),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"),
            *("--cap-drop", "ALL", f"--network={self._network(instance)}"),
            *(word for name in ("nofile", "nproc") for word in ("--ulimit", own_limit(name))),
            *(word for mount in mounts for word in ("--volume", ":".join(mount))),
            *("--env", f"{state.RUN_VARIABLE}={self.context.run_id}"),
            *("--env", f"{state.SANDBOX_VARIABLE}={instance.id}"),
            *self._engine.run_arguments,
        ]
        if not self._engine.has_own_store and self._runtime != RUNTIME:
            options += ["--runtime", self._runtime]
        if group is not None:
            options += ["--cgroup-parent", group.parent_path]
        if spec.memory_limit_bytes is not None:
            options += ["--memory", f"{spec.memory_limit_bytes}b"]
        if spec.cpu_limit is not None:
            options += ["--cpus", str(spec.cpu_limit)]
        guest = (
            *("--entrypoint", GUEST_PATH, self._image),
            *("--channel-path", f"{CHANNEL_DIRECTORY}/{CHANNEL_SOCKET}"),
            *spec.role,
        )
        return (*options, *guest)

    @staticmethod
    def _network(instance: Instance) -> str:
        if instance.veth is not None:
            return f"ns:{instance.namespace_path}"
        return "host" if instance.spec.network is NetworkMode.HOST else "none"

    def role_of(self, process: SeenProcess) -> str:
        """Tell the engine's helpers from the payload."""
        return ROLES.get(Path(process.first_word).name, "payload")

    def is_litter(self, entry: Path) -> bool:
        """Podman binds its store's directory onto itself, which goes with the session."""
        return entry == self._store / "root" / "overlay"

    # --- what is left -----------------------------------------------------------------------------

    def _kill(self, instance: Instance) -> None:
        super()._kill(instance)
        if not self._knows(instance.id):
            return
        self._litter["container"] += 1
        # What was killed may have been removing it: the engine then wants to be asked once more.
        for _ in range(REMOVAL_TRIES_COUNT):
            self._run("rm", "--force", instance.id, check=False)
            if not self._knows(instance.id):
                return

    def _remains(self, instance: Instance) -> bool:
        return self._knows(instance.id) or super()._remains(instance)

    def _knows(self, name: str) -> bool:
        """Tell whether a store of our own lists a container, without asking the engine."""
        if not self._engine.has_own_store:
            return False
        return any(name in text for text in self._books())

    def _books(self) -> list[str]:
        """Give what a store of our own says about its containers, in JSON."""
        containers = self._store / "root" / "overlay-containers"
        books = (containers / "containers.json", containers / "volatile-containers.json")
        return [path.read_text(errors="replace") for path in books if path.is_file()]

    def _remove_directory(self) -> None:
        if hasattr(self, "_run_directory"):
            self._remove_tree(self._run_directory)
        super()._remove_directory()

    def audit(self) -> tuple[Leak, ...]:
        """Find what is left, in the engine's list too."""
        return (*super().audit(), *self._leaked_containers())

    def _leaked_files(self) -> tuple[Leak, ...]:
        # What the engine mounts for a container has its own names for it, not ours.
        live: set[str] = set()
        for text in self._books() if self._engine.has_own_store else ():
            with contextlib.suppress(ValueError):  # it was just being written
                for one in json.loads(text):
                    if not self._instances.keys().isdisjoint(one.get("names") or ()):
                        live |= {one["id"], one["layer"]}
        found = super()._leaked_files()
        return tuple(leak for leak in found if live.isdisjoint(Path(leak.name).parts))

    def _leaked_containers(self) -> tuple[Leak, ...]:
        ours = f"{state.sandbox_prefix(self.context.run_id)}{self.number}"
        if not self._store.exists():
            return ()
        listed = self._run("ps", "--all", "--format", "{{.Names}}", check=False)
        return tuple(
            Leak(kind=LeakKind.POD, name=name, detail=f"{self.name} rm --force")
            for name in listed.split()
            if name.startswith(ours) and name not in self._instances
        )

    def close(self) -> None:
        """Release everything, and take the image back from an engine that is not ours."""
        has_image = self._store.exists() and not self._engine.has_own_store
        super().close()
        if has_image:
            self._run("rmi", "--force", self._image, check=False)

    def _run(self, *words: str, timeout_s: float = ENGINE_TIMEOUT_S, check: bool = True) -> str:
        own = dict(pair.split("=", 1) for pair in self._environment)
        environment: Mapping[str, str] = {**os.environ, **own}
        argv = [*self._words(), *words]
        return proc.run(argv, timeout_s=timeout_s, env=environment, check=check).text


def full_version(engine: Engine, version: str, *, runtime: str) -> str:
    """Give the engine's version and, where the engine starts it itself, that of its runtime.

    Raises:
        DriverUnavailable: the runtime is not installed, or does not run.
    """
    if not engine.has_own_store:  # its daemon has runtimes of its own choice
        return version
    name = Path(runtime).name
    where = f"driver.{engine.name}.{RUNTIME_OPTION}"
    advice = f"install {name}, or name another in the experiment"
    try:
        program = find_program(runtime, package=advice)
        own = program_version(program, marker=f"{name} version ")
    except DriverUnavailable as error:
        message = f"{where} = {runtime!r}: {error.message}"
        raise DriverUnavailable(message, hint=error.hint) from error
    return f"{version}+{name}-{own}"


def own_limit(name: str) -> str:
    """Give our own limit as engines write it: none is raised, which takes a capability."""
    limits = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    if name == "nproc":
        known = [one for one in limits if one != resource.RLIM_INFINITY]
        limits = (min((*known, PROCESSES_MAX)),) * 2
    return f"{name}={limits[0]}:{limits[1]}"


def podman() -> EngineDriver:
    """The engine without a daemon."""
    return EngineDriver(PODMAN)


def docker() -> EngineDriver:
    """The engine that everybody knows."""
    return EngineDriver(DOCKER)


def nerdctl() -> EngineDriver:
    """Containerd's own command line for people."""
    return EngineDriver(NERDCTL)
