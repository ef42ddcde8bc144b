"""The jailer of Firecracker as data: its options, its command line and its root."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial import network
from seatrial.drivers import jail
from seatrial.drivers.base import Capabilities, DriverContext
from seatrial.drivers.firecracker import boot_calls, firecracker, firecracker_snapshot
from seatrial.drivers.jail import Jailer, JailOptions
from seatrial.drivers.local import Found
from seatrial.errors import ConfigError, DriverError, DriverUnavailable
from tests.support import fake_jailer

if TYPE_CHECKING:
    from seatrial.model.scalar import Scalar

BASE = Path("/run/seatrial/r/001-firecracker/00100001")


def jailer(monitor: Path = Path("/opt/firecracker-v1.13.0-x86_64")) -> Jailer:
    """One that is never run."""
    ids = {"uid": os.geteuid() or 61_000, "gid": os.getegid() or 61_000}
    return Jailer(binary=Path("/usr/bin/jailer"), version="1.13.0", monitor=monitor, **ids)


class TestOptions:
    """What an experiment may say."""

    def test_off_unless_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the experiment, or by the environment where that says nothing."""
        assert JailOptions.take("firecracker", {}) is None
        assert JailOptions.take("firecracker", {"jailer": True}) == JailOptions()
        monkeypatch.setenv(jail.VARIABLE, "1")
        assert JailOptions.take("firecracker", {}) == JailOptions(uid=61_000, gid=61_000)
        assert JailOptions.take("firecracker", {"jailer": False}) is None

    def test_taken_options_are_gone(self) -> None:
        """The others are left for whoever knows them."""
        options: dict[str, Scalar] = {"jailer": True, "uid": 7, "gid": 8, "vcpus": 2}
        assert JailOptions.take("firecracker", options) == JailOptions(uid=7, gid=8)
        assert options == {"vcpus": 2}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"jailer": "yes"}, r"driver\.firecracker\.jailer = 'yes': expected true or false"),
            ({"jailer": 1}, "expected true or false"),
            ({"jailer": True, "uid": 0}, r"firecracker\.uid = 0: expected a number from 1 to"),
            ({"jailer": True, "gid": -1}, r"firecracker\.gid = -1: expected a number"),
            ({"jailer": True, "uid": (1 << 32) - 1}, "expected a number from 1 to 4294967294"),
            ({"jailer": True, "uid": True}, "expected a number"),
            ({"jailer": True, "uid": "nobody"}, "expected a number"),
            ({"uid": 61_000}, r"firecracker\.uid = 61000: means nothing without jailer = true"),
            ({"accel": "kvm"}, "unknown option; known: memory, vcpus, disk, jailer, uid, gid"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, tmp_path: Path, options: dict[str, Scalar], expected: str
    ) -> None:
        """Before anything is looked for or made."""
        context = DriverContext(run_id="r-1", state_dir=tmp_path / "r-1", options=options)
        with pytest.raises(ConfigError, match=expected):
            firecracker().open(context)
        assert not (tmp_path / "r-1").exists()

    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With what it may be."""
        monkeypatch.setenv(jail.VARIABLE, "true")
        with pytest.raises(ConfigError, match=f"{jail.VARIABLE}='true': expected 1 or 0"):
            JailOptions.take(firecracker_snapshot().name, {})


class TestCommandLine:
    """What the jailer is told."""

    def test_words(self) -> None:
        """All that it needs, no group to move to, and the monitor's own after the dashes."""
        words = jailer().argv(BASE, "00100001", ("--api-sock", "a"))
        ids = (str(jailer().uid), str(jailer().gid))
        assert words == (
            *("/usr/bin/jailer", "--id", "00100001"),
            *("--exec-file", "/opt/firecracker-v1.13.0-x86_64"),
            *("--uid", ids[0], "--gid", ids[1]),
            *("--chroot-base-dir", str(BASE), "--cgroup-version", "1"),
            *("--", "--api-sock", "a"),
        )

    def test_the_published_arguments_take_them(self) -> None:
        """The stand-in knows what is documented and refuses the rest."""
        words = list(jailer().argv(BASE, "00100001", ("--api-sock", "a")))[1:]
        given = fake_jailer.parser().parse_args(words)
        assert (given.id, given.chroot_base_dir) == ("00100001", BASE)
        assert given.extra == ["--api-sock", "a"]
        with pytest.raises(SystemExit):
            fake_jailer.parser().parse_args(["--jail", "x", *words])
        with pytest.raises(SystemExit):
            fake_jailer.parser().parse_args(words[2:])

    def test_the_root_has_the_name_of_the_program(self) -> None:
        """That behind all links, as the jailer takes it."""
        expected = BASE / "firecracker-v1.13.0-x86_64" / "00100001" / "root"
        assert jailer().root(BASE, "00100001") == expected

    def test_calls_name_paths_of_the_root(self) -> None:
        """They are what the session gives them, unchanged."""
        calls = boot_calls(
            kernel=Path("/vmlinux"),
            initrd=Path("/initrd.cpio"),
            boot_args="quiet",
            memory_bytes=128 << 20,
            vcpus=1,
            drives=[("data", Path("/d.ext4"), False)],
        )
        bodies = {str(call["path"]): call["body"] for call in calls}
        source = {"kernel_image_path": "/vmlinux", "initrd_path": "/initrd.cpio"}
        assert bodies["/boot-source"] == {**source, "boot_args": "quiet"}
        assert "'path_on_host': '/d.ext4'" in str(bodies["/drives/data"])


class TestRoot:
    """What lies in it before the start."""

    def test_files_are_linked(self, tmp_path: Path) -> None:
        """Neither room nor time is taken, and what is the machine's own becomes its user's."""
        root = tmp_path / "jail" / "root"
        for name in ("kernel", "disk"):
            (tmp_path / name).write_bytes(b"x")
        assert jailer().show(tmp_path / "kernel", root) is None
        assert (root / "kernel").samefile(tmp_path / "kernel")
        ours = Jailer(
            binary=Path("j"), version="1", monitor=Path("m"), uid=os.geteuid(), gid=os.getegid()
        )
        assert ours.show(tmp_path / "disk", root, is_writable=True) is None
        assert (root / "disk").stat().st_uid == ours.uid

    def test_what_no_link_reaches_is_mounted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On an empty file, whose place is told; other refusals are errors."""
        mounted: list[tuple[Path, Path]] = []
        monkeypatch.setattr(network, "bind", lambda *paths: mounted.append(paths))

        def refuse(code: int) -> None:
            def link(source: Path, target: Path) -> None:
                raise OSError(code, os.strerror(code), source, None, target)

            monkeypatch.setattr(jail.os, "link", link)

        refuse(errno.EXDEV)
        path, target = tmp_path / "disk", tmp_path / "root" / "disk"
        assert jailer().show(path, tmp_path / "root") == target
        assert mounted == [(path, target)]
        assert target.stat().st_size == 0
        refuse(errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            jailer().show(path, tmp_path / "root")

    def test_what_a_monitor_wrote_is_taken_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody writes it again; a link that a monitor left in its place is not followed."""
        owners: list[tuple[int, int]] = []
        monkeypatch.setattr(jail.os, "fchown", lambda _, uid, gid: owners.append((uid, gid)))
        root = tmp_path / "root"
        root.mkdir()
        (root / "memory").write_bytes(b"x")
        jailer().take_out(tmp_path / "memory", root)
        assert stat.S_IMODE((tmp_path / "memory").stat().st_mode) == 0o444
        assert owners == [(0, 0)]
        (tmp_path / "precious").touch(mode=0o600)
        (root / "state").symlink_to(tmp_path / "precious")
        with pytest.raises(OSError, match="symbolic links"):
            jailer().take_out(tmp_path / "state", root)
        assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o600

    @pytest.mark.parametrize(("mode", "is_link"), [(0o644, True), (0o600, False)])
    def test_the_kernel_is_brought_once(self, tmp_path: Path, mode: int, *, is_link: bool) -> None:
        """As a link if others may read it, else as a copy that they may: it stays as it was."""
        kernel, directory = tmp_path / "vmlinux", tmp_path / "session"
        directory.mkdir()
        kernel.write_bytes(b"kernel")
        kernel.chmod(mode)
        brought = jail.bring(kernel, directory)
        assert brought.read_bytes() == b"kernel"
        assert brought.stat().st_mode & stat.S_IROTH
        assert brought.samefile(kernel) is is_link
        assert stat.S_IMODE(kernel.stat().st_mode) == mode

    def test_ground_that_cannot_be_had_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the way out; where programs can be used nothing is mounted."""
        asked: list[Path] = []

        def refuse(directory: Path) -> None:
            asked.append(directory)
            raise PermissionError(errno.EPERM, "mount: Operation not permitted")

        monkeypatch.setattr(network, "bind_usable", refuse)
        result = os.statvfs_result((0,) * 11)
        monkeypatch.setattr(jail.os, "statvfs", lambda _: result)
        jail.prepare_ground(tmp_path)
        assert asked == []
        flagged = os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, os.ST_NODEV, 0, 0))
        monkeypatch.setattr(jail.os, "statvfs", lambda _: flagged)
        with pytest.raises(DriverError, match="Operation not permitted") as caught:
            jail.prepare_ground(tmp_path)
        assert "XDG_RUNTIME_DIR" in (caught.value.hint or "")
        assert asked == [tmp_path]


class TestFinding:
    """What it takes to be locked in."""

    @pytest.fixture
    def found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
        """A machine on which all is there."""
        monkeypatch.setattr(jail, "find_program", lambda *_, **__: Path("/usr/bin/jailer"))
        monkeypatch.setattr(jail, "program_version", lambda *_, **__: "1.13.0")
        monkeypatch.setattr(jail.os, "geteuid", lambda: 0)
        (tmp_path / "firecracker-v1").touch()
        (tmp_path / "firecracker").symlink_to("firecracker-v1")
        return Found(binary=tmp_path / "firecracker", version="1.13.0", capabilities=Capabilities())

    def groups(self, monkeypatch: pytest.MonkeyPatch, *, is_writable: bool) -> None:
        """Say whether control groups can be made."""

        class Host:
            @classmethod
            def detect(cls) -> Host:
                return cls()

            def __init__(self) -> None:
                self.is_writable = is_writable

        monkeypatch.setattr(jail, "CgroupHost", Host)

    def test_all_is_there(self, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
        """The monitor is the program behind the links."""
        self.groups(monkeypatch, is_writable=True)
        one = Jailer.find(JailOptions(), found)
        assert one.monitor.name == "firecracker-v1"
        assert one.flag == "1.13.0, uid 61000, gid 61000"

    def test_without_groups_or_root(self, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each has its reason and its way out."""
        self.groups(monkeypatch, is_writable=False)
        with pytest.raises(DriverUnavailable, match="no control group can be made"):
            Jailer.find(JailOptions(), found)
        monkeypatch.setattr(jail.os, "geteuid", lambda: 1000)
        with pytest.raises(DriverUnavailable, match="needs root"):
            Jailer.find(JailOptions(), found)
