"""Copies of a machine that has booted: QEMU's migration to a file, once, and from it, each time.

The template boots to the point where its guest waits for an order, and its state is written to a
file. Its memory is a shared file, which copies map privately (copy on write), so that a start
neither reads nor copies all of it. A copy gets its order, with role and address, from a file of
its own. What one template can be copied to depends on its devices, so there is one for each
combination that is asked for, made when a sandbox is planned and not in any timed path.

That a start was a copy is proven, not believed: every copy tells the boot id of the kernel that
the template booted (``proof``), and a machine that booted by itself would have another.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from seatrial.drivers.instance import Command
from seatrial.drivers.machine import role_text
from seatrial.drivers.qemu import QemuSession, machine_role
from seatrial.drivers.qmp import Listener, Qmp, command_line, remaining_s
from seatrial.errors import DriverError, SeatrialError
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from seatrial.drivers.base import SandboxSpec
    from seatrial.drivers.instance import Instance

TEMPLATE_DEADLINE_NS: Final = 120_000_000_000
BOOT_ID_BYTES: Final = 37
#: A socket's path in the kernel (unix(7): sun_path) less the closing zero byte.
SOCKET_PATH_BYTES_MAX: Final = 107
IGNORE_SHARED: Final = {
    "capabilities": [
        {"capability": "x-ignore-shared", "state": True},
        {"capability": "events", "state": True},
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What two machines must have in common for one to be a copy of the other."""

    network: NetworkMode
    memory_bytes: int
    has_data: bool
    tools_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A written machine."""

    memory: Path
    state: Path
    boot_id: str


class QemuTemplateSession(QemuSession):
    """Copies of templates of one run."""

    start_flag: ClassVar[str] = "copy of a booted template, memory mapped privately"

    def prepare(self) -> None:
        """Make the initial RAM disk; templates come when they are asked for."""
        super().prepare()
        self._templates: dict[Kind, Template] = {}

    def command(self, instance: Instance) -> Command:
        """Have a template, write the copy's order, and give QEMU's command line."""
        kind = self._kind(instance.spec)
        if kind not in self._templates:
            self._templates[kind] = self._make_template(instance.spec)
        template = self._templates[kind]
        order = self.order(instance)
        role = role_text(machine_role(instance.spec))
        directory = instance.directory
        _write_pipe(directory / "order", f"{order.text()} {role}\n".encode())
        _write_pipe(
            directory / "qmp",
            command_line("qmp_capabilities", {}),
            command_line("migrate-set-capabilities", IGNORE_SHARED),
            command_line("migrate-incoming", {"uri": f"exec:cat {template.state}"}),
        )
        argv = self.machine_argv(
            instance,
            replace(order, is_template=True),
            machine=",memory-backend=memory",
            extra=(
                *_memory_words(template.memory, kind.memory_bytes, share="off"),
                *_order_words(f"pipe,id=order,path={directory / 'order'}"),
                *_proof_words(directory / "proof"),
                *("-chardev", f"pipe,id=qmp,path={directory / 'qmp'}"),
                *("-mon", "chardev=qmp,mode=control", "-incoming", "defer"),
            ),
        )
        return Command(argv=argv, network_namespace=instance.namespace_path)

    def proof(self, plan_id: str) -> str | None:
        """Give the boot id that a copy told, readable until it is released; None: it told none."""
        with contextlib.suppress(OSError):
            return (self._instance(plan_id).directory / "proof").read_text().strip() or None
        return None

    def is_copy(self, plan_id: str) -> bool:
        """Tell whether a machine has proven that it is a copy of its template."""
        template = self._templates.get(self._kind(self._instance(plan_id).spec))
        return template is not None and self.proof(plan_id) == template.boot_id

    def programs(self) -> Sequence[Path]:
        """Give what a copy reads: QEMU, and the templates that there are."""
        files = [path for one in self._templates.values() for path in (one.memory, one.state)]
        return (*super().programs()[:1], *files)

    def _kind(self, spec: SandboxSpec) -> Kind:
        return Kind(
            network=spec.network,
            memory_bytes=self.memory_bytes(spec),
            has_data=spec.data_dir is not None,
            tools_dir=spec.tools_dir,
        )

    def _make_template(self, spec: SandboxSpec) -> Template:
        """Boot a machine of the same devices, and write it while its guest waits.

        Raises:
            DriverError: it did not boot, or could not be written.
        """
        directory = self.directory / f"template{len(self._templates)}"
        directory.mkdir(mode=0o700)
        # Under the deadline of a template and not of a start; a limit is for the copies.
        instance = self.make_instance(replace(spec, cpu_limit=None), 0)
        memory, state = directory / "memory", directory / "state"
        deadline_ns = time.monotonic_ns() + TEMPLATE_DEADLINE_NS
        try:
            with (
                Listener(_socket_path(instance.directory / "q")) as qmp_listener,
                Listener(_socket_path(instance.directory / "o")) as order_listener,
            ):
                self._boot(instance, self._template_argv(instance, memory))
                with contextlib.closing(order_listener.accept(deadline_ns)) as order:
                    qmp = Qmp(qmp_listener.accept(deadline_ns), deadline_ns)
                    with contextlib.closing(qmp):
                        boot_id = _read_boot_id(order, deadline_ns)
                        qmp.execute("migrate-set-capabilities", **IGNORE_SHARED)
                        # Into the file itself: a program between would still be writing at the end.
                        with state.open("wb") as file:
                            qmp.lend_file("state", file)
                            qmp.execute("migrate", uri="fd:state")
                            qmp.wait_migrated()
        except DriverError as error:
            raise DriverError(f"{error.message}{self._last_words(instance)}") from error
        finally:
            self.release(instance.id)
        return Template(memory=memory, state=state, boot_id=boot_id)

    def _last_words(self, instance: Instance) -> str:
        """Give how a template's machine ended, and what it said."""
        with contextlib.suppress(SeatrialError):
            (stop,) = self.launcher.stop([instance.id], how="kill", grace_ns=0)
            said = " ".join(stop.stderr_tail.split())
            return f" (exit code {stop.exit_code}, signal {stop.signal}): {said}"
        return ""

    def _template_argv(self, instance: Instance, memory: Path) -> tuple[str, ...]:
        directory = instance.directory
        return self.machine_argv(
            instance,
            replace(self.order(instance), is_template=True),
            machine=",memory-backend=memory",
            channel="null,id=channel",
            extra=(
                *_memory_words(memory, self.memory_bytes(instance.spec), share="on"),
                *_order_words(f"socket,id=order,path={directory / 'o'}"),
                *_proof_words(directory / "proof"),
                *("-chardev", f"socket,id=qmp,path={directory / 'q'}"),
                *("-mon", "chardev=qmp,mode=control"),
            ),
        )

    def _boot(self, instance: Instance, argv: tuple[str, ...]) -> None:
        command = Command(argv=argv, network_namespace=instance.namespace_path)
        plan = replace(
            self.describe(instance, command),
            channel_fd=None,
            ready="hello",
            deadline_ns=TEMPLATE_DEADLINE_NS,
        )
        batch = self.launcher.start(
            [plan], wait_for="hello", hold=True, timeout_ns=TEMPLATE_DEADLINE_NS
        )
        result = batch.results[0]
        if result.outcome is not Outcome.OK:
            raise DriverError(f"a template did not start: {result.outcome}: {result.stderr_tail}")


def _memory_words(path: Path, size_bytes: int, *, share: str) -> tuple[str, ...]:
    backend = f"memory-backend-file,id=memory,size={size_bytes},mem-path={path},share={share}"
    return ("-object", backend)


def _order_words(backend: str) -> tuple[str, ...]:
    return ("-chardev", backend, "-device", "virtserialport,chardev=order,nr=2")


def _proof_words(path: Path) -> tuple[str, ...]:
    device = "isa-debugcon,iobase=0xea,chardev=proof"
    return ("-chardev", f"file,id=proof,path={path}", "-device", device)


def _write_pipe(path: Path, *lines: bytes) -> None:
    """Make what QEMU takes for a pair of pipes: what it reads is there already."""
    path.with_name(f"{path.name}.in").write_bytes(b"".join(lines))
    path.with_name(f"{path.name}.out").touch()


def _socket_path(path: Path) -> Path:
    if len(str(path)) > SOCKET_PATH_BYTES_MAX:
        message = f"{path} is too deep for a socket (over {SOCKET_PATH_BYTES_MAX} bytes)"
        raise DriverError(message, hint="set XDG_RUNTIME_DIR to a shorter path")
    return path


def _read_boot_id(order: socket.socket, deadline_ns: int) -> str:
    said = b""
    while not said.endswith(b"\n"):
        order.settimeout(remaining_s(deadline_ns, "to boot"))
        chunk = order.recv(BOOT_ID_BYTES)
        if not chunk:
            raise DriverError("a template ended before its guest was there")
        said += chunk
    return said.decode("ascii", errors="replace").strip()
