"""Virtual machines as data: archive, order, command line, options, and the proof of KVM."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import accel, machine, qemu, qmp
from seatrial.drivers.base import DriverContext, SandboxSpec
from seatrial.errors import ConfigError, DriverError, DriverUnavailable, EnvironmentTrouble
from seatrial.guest import initrd
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20


def module(*needs: str) -> bytes:
    """As much of a kernel module as says what it needs."""
    return b"\x7fELF..\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


class TestInitrd:
    """The archive that a kernel unpacks."""

    def build(self, tmp_path: Path) -> Path:
        """A small archive of every kind of entry."""
        root = tmp_path / "root"
        (root / "dev").mkdir(parents=True)
        (root / "dev" / "null").touch()
        (root / "guest").write_bytes(b"program")
        (root / "guest").chmod(0o755)
        (root / "link").symlink_to("/guest")
        (tmp_path / "a.ko").write_bytes(b"module a")
        return initrd.build_initrd(
            tmp_path / "i.cpio",
            root=root,
            init="/guest",
            modules=[tmp_path / "a.ko"],
            leave_out=["dev/null"],
        )

    def test_another_program_reads_it(self, tmp_path: Path) -> None:
        """What cpio lists is what we put in, with modes and targets, and nothing left out."""
        cpio = shutil.which("cpio")
        if cpio is None:
            pytest.skip("no cpio here")
        archive = self.build(tmp_path).read_bytes()
        words = [cpio, "--list", "--verbose", "--quiet"]
        done = subprocess.run(words, input=archive, capture_output=True, check=True)
        lines = done.stdout.decode().splitlines()
        assert any(line.startswith("-rwxr-xr-x") and line.endswith("guest") for line in lines)
        assert any("init -> /guest" in line for line in lines)
        assert any(line.endswith("modules/a.ko") for line in lines)
        assert not any("null" in line for line in lines)

    def test_records_are_aligned_and_ended(self, tmp_path: Path) -> None:
        """Each header starts at a multiple of four, and the last entry is the format's trailer."""
        archive = self.build(tmp_path).read_bytes()
        names: list[str] = []
        at = 0
        while not names or names[-1] != "TRAILER!!!":
            assert at % 4 == 0
            assert archive[at : at + 6] == b"070701"
            size, name_size = (int(archive[at + of : at + of + 8], 16) for of in (54, 94))
            names.append(archive[at + 110 : at + 110 + name_size - 1].decode())
            at += -(-(110 + name_size) // 4) * 4 + -(-size // 4) * 4
        assert at == len(archive)
        expected = [".", "dev", "guest", "link", "init", "modules", "modules/a.ko"]
        assert names[:-1] == expected

    def test_modules_come_after_what_they_need(self, tmp_path: Path) -> None:
        """A needed module that is no file is built in; a wanted one must be there."""
        for name, needs in {"net": ("bus", "core"), "bus": ("ring",), "ring": ()}.items():
            (tmp_path / f"{name}.ko").write_bytes(module(*needs))
        order = [path.stem for path in initrd.resolve_modules(tmp_path, ["net", "bus"])]
        assert order == ["ring", "bus", "net"]
        with pytest.raises(EnvironmentTrouble, match=r"core\.ko is missing"):
            initrd.resolve_modules(tmp_path, ["core"])

    def test_an_archive_that_cannot_be_written_is_no_half_one(self, tmp_path: Path) -> None:
        """The error names the archive, and nothing is left of it."""
        with pytest.raises(EnvironmentTrouble, match=r"i\.cpio"):
            initrd.build_initrd(
                tmp_path / "i.cpio", root=tmp_path / "none", init="/guest", modules=[]
            )
        assert list(tmp_path.iterdir()) == []


class TestOrder:
    """What a machine is told."""

    def test_text(self) -> None:
        """Every setting that is set, and no other."""
        order = machine.Order(
            channel="port", modules=("virtio", "virtio_net"), address="10.0.0.2/30", data="vda"
        )
        text = "channel=port,modules=virtio:virtio_net,address=10.0.0.2/30,data=vda"
        assert order.text() == text
        assert machine.Order(channel="vsock:5000", is_template=True).text().endswith(",template")

    def test_a_role_is_one_word(self) -> None:
        """Nothing in it means anything to a kernel, which splits at blanks and strips quotes."""
        text = machine.role_text(("exec", "--", '/bin/sh "a+b', "é\n"))
        assert text == "exec+--+/bin/sh%20%22a%2Bb+%C3%A9%0A"

    def test_a_command_line_that_no_kernel_takes_is_refused(self) -> None:
        """With its length and the bound."""
        order = machine.Order(channel="port")
        line = machine.kernel_command_line("quiet", order, ("idle",))
        assert line == "quiet -- --machine channel=port idle"
        with pytest.raises(DriverError, match="at most 2047") as caught:
            machine.kernel_command_line("quiet", order, ("x" * 2048,))
        assert caught.value.code == "unsupported"


class TestOptions:
    """What an experiment may say."""

    def test_known_options(self) -> None:
        """Sizes have units."""
        options = {"memory": "256MiB", "vcpus": 2, "disk": "1GiB"}
        settings = machine.MachineOptions.parse("qemu", options)
        assert (settings.memory_bytes, settings.vcpus) == (256 * MIB, 2)
        assert settings.disk_bytes == 1024 * MIB

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"memory": 256}, r"driver\.qemu\.memory = 256: expected a size"),
            ({"memory": "1MiB"}, r"from 64\.0 MiB|from 64 MiB"),
            ({"vcpus": 0}, "a number from 1 to 64"),
            ({"vcpus": True}, "a number from 1 to 64"),
            ({"cpus": 2}, "unknown option; known: memory, vcpus, disk, accel"),
            ({"accel": "xen"}, "expected auto, kvm or tcg"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, tmp_path: Path, options: Mapping[str, str | int], expected: str
    ) -> None:
        """Before anything is started."""
        context = DriverContext(run_id="r-1", state_dir=tmp_path / "r-1", options=options)
        with pytest.raises(ConfigError, match=expected):
            qemu.qemu().open(context)
        assert not (tmp_path / "r-1").exists()

    def test_a_missing_kernel_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the place that was looked at and how to get one."""
        monkeypatch.setenv(machine.KERNEL_VARIABLE, str(tmp_path))
        with pytest.raises(DriverUnavailable, match="vmlinuz is missing") as caught:
            machine.GuestKernel.find()
        assert "make setup" in (caught.value.hint or "")


class TestHostNetwork:
    """Behind QEMU's user-mode network."""

    ROLE = ("serve", "--listen", "tcp:127.0.0.1:7000", "--listen", "udp:127.0.0.1:7001")

    def test_listeners_are_forwarded(self) -> None:
        """Those of the host's loopback listen on the card's address in the guest."""
        spec = SandboxSpec(role=self.ROLE, network=NetworkMode.HOST)
        assert qemu.listeners(spec) == (("tcp", 7000), ("udp", 7001))
        assert "tcp:10.0.2.15:7000" in qemu.machine_role(spec)
        assert qemu.machine_role(SandboxSpec(role=self.ROLE)) == self.ROLE

    def test_a_port_of_the_guests_choice_cannot_be(self) -> None:
        """It would have to be known before the machine is."""
        role = ("serve", "--listen", "tcp:127.0.0.1:0")
        with pytest.raises(DriverError, match="known ports only"):
            qemu.listeners(SandboxSpec(role=role, network=NetworkMode.HOST))


class TestAcceleration:
    """KVM is believed only when a guest has booted."""

    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(accel, "_proven", {})
        device = tmp_path / "kvm"
        device.touch()
        monkeypatch.setattr(accel, "KVM_DEVICE", device)

    def test_a_guest_that_boots(self) -> None:
        """It is asked once."""
        boots: list[Path] = []

        def boot(binary: Path, _: DriverContext) -> None:
            boots.append(binary)

        for _ in range(2):
            found, _reason = accel.proven_acceleration(Path("/q"), boot=boot)
            assert found is accel.Acceleration.KVM
        assert boots == [Path("/q")]

    def test_a_device_that_hangs_guests(self) -> None:
        """The reason is the boot's own."""
        found, reason = accel.proven_acceleration(Path("/q"), boot=lambda *_: "timed out")
        assert found is accel.Acceleration.TCG
        assert "timed out" in reason

    def test_no_device(self, tmp_path: Path) -> None:
        """Nothing is started for it."""
        (tmp_path / "kvm").unlink()

        def boot(*_: object) -> str:
            raise AssertionError("started")

        found, reason = accel.proven_acceleration(Path("/q"), boot=boot)
        assert found is accel.Acceleration.TCG
        assert "not there" in reason


class TestQmp:
    """The conversation with a machine that becomes a template."""

    GREETING = b'{"QMP": {}}\r\n'

    def talk(self, *answers: bytes) -> tuple[qmp.Qmp, socket.socket]:
        """A connection to a machine that says this, whatever it is asked."""
        ours, theirs = socket.socketpair()
        theirs.sendall(b"".join((self.GREETING, b'{"return": {}}\r\n', *answers)))
        return qmp.Qmp(ours, time.monotonic_ns() + 2_000_000_000), theirs

    def test_commands_and_events(self) -> None:
        """Events between an answer and its question are no answers."""
        conversation, theirs = self.talk(
            b'{"event": "STOP"}\r\n{"return": {"a": 1}}\r\n',
            b'{"event": "MIGRATION", "data": {"status": "active"}}\r\n',
            b'{"event": "MIGRATION", "data": {"status": "completed"}}\r\n',
        )
        assert conversation.execute("migrate", uri="exec:cat") == {"a": 1}
        conversation.wait_migrated()
        conversation.close()
        said = [json.loads(line) for line in theirs.recv(4096).splitlines()]
        assert said[-1] == {"execute": "migrate", "arguments": {"uri": "exec:cat"}}
        theirs.close()

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b'{"error": {"desc": "no such"}}\r\n', "refused query-x: no such"),
            (b"", "too long to answer"),
        ],
    )
    def test_failures(self, answer: bytes, expected: str) -> None:
        """A refusal has QEMU's words, and silence has an end."""
        conversation, theirs = self.talk(answer)
        conversation._deadline_ns = time.monotonic_ns() + 100_000_000
        with pytest.raises(DriverError, match=expected):
            conversation.execute("query-x")
        conversation.close()
        theirs.close()

    def test_a_migration_that_fails(self) -> None:
        """Its status is told."""
        answer = b'{"event": "MIGRATION", "data": {"status": "failed"}}\r\n'
        conversation, theirs = self.talk(answer)
        with pytest.raises(DriverError, match="failed"):
            conversation.wait_migrated()
        conversation.close()
        theirs.close()

    def test_a_listener_waits_for_its_machine(self, tmp_path: Path) -> None:
        """It gives the connection, or an error at the deadline; its path goes with it."""
        path = tmp_path / "q"
        with qmp.Listener(path) as listener:
            with pytest.raises(DriverError, match="too long to connect"):
                listener.accept(time.monotonic_ns() + 50_000_000)
            client = socket.socket(socket.AF_UNIX)
            thread = threading.Thread(target=client.connect, args=(str(path),))
            thread.start()
            listener.accept(time.monotonic_ns() + 2_000_000_000).close()
            thread.join()
            client.close()
        assert not path.exists()
