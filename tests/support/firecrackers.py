"""An installed stand-in for Firecracker, and how a test starts a machine with it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.machine import KERNEL_VARIABLE
from seatrial.guest.binary import guest_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from seatrial.drivers.base import DriverSession
    from seatrial.launch import StartResult
    from seatrial.model.scalar import Scalar

DEADLINE_NS = 20_000_000_000
IDLE = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)
MODULES = ("virtio_mmio", "vmw_vsock_virtio_transport", "virtio_net", "virtio_blk")
REPOSITORY = Path(__file__).parents[2]


class Monitor:
    """The installed fake: its settings, and the calls that it got."""

    def __init__(self, home: Path) -> None:
        """Put a program called firecracker into a directory."""
        self.home = home
        self.put("firecracker")
        self.set()

    def put(self, name: str) -> Path:
        """Install a stand-in for a program."""
        program = self.home / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
            f"from pathlib import Path\nfrom tests.support.fake_{name} import main\n"
            f"main(Path({str(self.home)!r}))\n"
        )
        program.chmod(0o755)
        return program

    def set(self, **settings: str) -> None:
        """Say how it behaves."""
        text = json.dumps({"guest": str(guest_binary()), **settings})
        (self.home / "settings.json").write_text(text)

    def calls(self) -> list[dict[str, object]]:
        """Give the calls so far."""
        return self.read("calls.jsonl")

    def read(self, name: str) -> list[dict[str, object]]:
        """Give what the stand-ins have written to a file, which may not be there yet."""
        path = self.home / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """A fake Firecracker on PATH, and a kernel that it only looks for."""
    kernel = tmp_path / "kernel"
    (kernel / "modules").mkdir(parents=True)
    for name in ("vmlinuz", "vmlinux"):
        (kernel / name).write_bytes(b"\x7fELF")
    for name in MODULES:
        (kernel / "modules" / f"{name}.ko").write_bytes(b"\0depends=\0")
    monkeypatch.setenv(KERNEL_VARIABLE, str(kernel))
    home = tmp_path / "bin"
    home.mkdir()
    monkeypatch.setenv("PATH", str(home), prepend=":")
    return Monitor(home)


def opened(name: str, options: Mapping[str, Scalar] | None = None) -> DriverSession:
    """A session for a run of its own."""
    return registry.get(name).open(DriverContext.for_run(new_run_id(), options=options))


def started(session: DriverSession, spec: SandboxSpec = IDLE) -> tuple[str, StartResult]:
    """Start one machine, hold it if it comes up, and give its name and what became of it."""
    plan = session.plan(spec, 0)
    batch = session.launcher.start([plan], wait_for="reply", hold=True, timeout_ns=DEADLINE_NS)
    return plan.id, batch.results[0]


def left_clean(session: DriverSession, plan_id: str) -> None:
    """Nothing of a machine is there when it is released."""
    assert session.wait_gone(plan_id, time.monotonic_ns() + DEADLINE_NS) is not None
    session.release(plan_id)
    assert session.audit() == ()
