"""Finding what was left behind, and only what is ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

from seatrial import proc
from seatrial.probes import leaks

MOUNTINFO = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
42 27 254:0 /a /run/seatrial/run-1 rw shared:1 - ext4 /dev/vda rw
43 42 0:4 net:[40] /run/seatrial/run-1/001-runsc/r/null-netns rw - nsfs nsfs rw
44 27 0:4 net:[41] /run/seatrial/run-10/x rw - nsfs nsfs rw
45 27 0:4 / /run/seatrial/run-1/a\\040b rw - tmpfs tmpfs rw
"""


def add_process(root: Path, pid: int, *, parent: int, state: str = "S", environ: str = "") -> None:
    """Put a process into a made-up /proc; its name is as nasty as the kernel allows."""
    place = root / str(pid)
    place.mkdir()
    rest = " ".join(str(number) for number in range(5, 23))
    (place / "stat").write_text(f"{pid} (a) b) {state} {parent} {rest}\n")
    (place / "environ").write_text(environ.replace(";", "\0"))
    (place / "cmdline").write_text("run\0--it\0")
    (place / "comm").write_text("run\n")


def test_mounts_below_a_directory_deepest_first() -> None:
    """A directory whose name only begins alike is somebody else's."""
    found = leaks.mount_leaks(Path("/run/seatrial/run-1"), mountinfo=MOUNTINFO)
    assert [leak.name for leak in found] == [
        "/run/seatrial/run-1/001-runsc/r/null-netns",
        "/run/seatrial/run-1/a b",
        "/run/seatrial/run-1",
    ]


def test_names_by_prefix(tmp_path: Path) -> None:
    """Namespaces and interfaces are found by the label that their names begin with."""
    for name in ("st-ab12-00100001", "st-ffff-00100001", "eth0"):
        (tmp_path / name).write_text("")
    found = leaks.namespace_leaks("st-ab12-", directory=tmp_path)
    assert [(leak.kind, leak.name) for leak in found] == [
        (leaks.LeakKind.NAMESPACE, "st-ab12-00100001")
    ]
    assert leaks.interface_leaks("stv", directory=tmp_path / "none") == ()


def test_an_empty_label_matches_nothing(tmp_path: Path) -> None:
    """A missing label must never make the whole machine ours."""
    (tmp_path / "eth0").write_text("")
    assert leaks.interface_leaks("", directory=tmp_path) == ()


def test_processes_by_their_environment(tmp_path: Path) -> None:
    """The value of the variable is compared as a whole; a zombie has ended."""
    add_process(tmp_path, 10, parent=1, environ="A=1;SEATRIAL_RUN=r1;")
    add_process(tmp_path, 11, parent=1, environ="XSEATRIAL_RUN=r1;")
    add_process(tmp_path, 12, parent=1, state="Z", environ="SEATRIAL_RUN=r1;")
    assert leaks.processes_with("SEATRIAL_RUN", proc=tmp_path) == {10: "r1"}


def test_descendants(tmp_path: Path) -> None:
    """The whole tree below the roots, and nothing beside it."""
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        add_process(tmp_path, pid, parent=parent)
    assert leaks.descendants([10], proc=tmp_path) == (10, 11, 12)


def test_names_with_parentheses_do_not_shift_fields(tmp_path: Path) -> None:
    """A process may call itself anything; its start time must still be its own."""
    add_process(tmp_path, 10, parent=1)
    assert leaks.start_ticks(10, proc=tmp_path) == 22
    assert leaks.start_ticks(99, proc=tmp_path) is None


def test_live_processes_leak_with_their_command_line(tmp_path: Path) -> None:
    """The detail says what it is, so that a person can judge."""
    add_process(tmp_path, 10, parent=1)
    (leak,) = leaks.process_leaks([10, 99], proc=tmp_path)
    assert (leak.name, leak.detail) == ("10", "run --it")


def test_files_that_exist(tmp_path: Path) -> None:
    """A dangling link is still a file left behind."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    found = leaks.file_leaks([tmp_path / "link", tmp_path / "gone"])
    assert [leak.name for leak in found] == [str(tmp_path / "link")]


def test_waiting_for_an_end() -> None:
    """A process that runs is waited for at most until the deadline; its end wakes us."""
    with proc.spawn(["sleep", "60"]) as child:
        assert not leaks.wait_process_end(child.pid, deadline_ns=time.monotonic_ns())
        child.kill()
        assert leaks.wait_process_end(child.pid, deadline_ns=time.monotonic_ns() + 10**10)
    assert leaks.is_alive(os.getpid())
