"""Stands for Firecracker's jailer: does what its documentation says, and then is a fake monitor.

A test writes a program that calls ``main``. Real: the arguments and what is refused, the emptied
environment, the directories, the copy of the program, the device files, the mount namespace, the
new root, the user. Not real: the last step. The copy is a script whose interpreter the root has
not; instead of executing it, after a check that it could be, this process goes on as the monitor,
whose modules it has loaded. A machine's guest is a process of the monitor here, so its program is
put into the root, too.
"""

from __future__ import annotations

import argparse
import codecs
import ctypes
import json
import os
import shutil
import stat
import sys
from pathlib import Path

from tests.support import fake_firecracker

VERSION = "1.13.0"
DEVICES = {"net/tun": (10, 200), "kvm": (10, 232), "urandom": (1, 9)}
#: From the kernel's sched.h, mount.h and prctl.h; pivot_root has no other name in C's library.
CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 0x20000, 0x1000, 0x4000, 0x80000, 2
PR_SET_NAME, SYS_PIVOT_ROOT = 15, 155


def parser() -> argparse.ArgumentParser:
    """The published arguments; of the optional ones those that move nothing elsewhere."""
    known = argparse.ArgumentParser("jailer", allow_abbrev=False)
    known.add_argument("--id", required=True)
    known.add_argument("--exec-file", required=True, type=Path)
    known.add_argument("--uid", required=True, type=int)
    known.add_argument("--gid", required=True, type=int)
    known.add_argument("--chroot-base-dir", default="/srv/jailer", type=Path)
    known.add_argument("--cgroup-version", default="1", choices=["1", "2"])
    known.add_argument("--netns")
    known.add_argument("extra", nargs="*")
    return known


def checked(words: list[str]) -> argparse.Namespace:
    """The arguments, or the end with a word on what is wrong with them."""
    given = parser().parse_args(words)
    if not given.id.replace("-", "").isalnum() or len(given.id) > 64:
        raise SystemExit(f"Invalid instance ID: {given.id}")
    given.exec_file = given.exec_file.resolve(strict=True)
    if "firecracker" not in given.exec_file.name:
        raise SystemExit(f"Invalid filename: {given.exec_file.name}")
    given.chroot_base_dir = given.chroot_base_dir.resolve(strict=True)
    return given


def call(name: str, *arguments: object) -> None:
    """Call a function of C's library."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def lock_in(root: Path) -> None:
    """Make a directory the root, in a mount namespace of our own."""
    call("unshare", CLONE_NEWNS)
    call("mount", None, b"/", None, MS_SLAVE | MS_REC, None)
    call("mount", os.fsencode(root), os.fsencode(root), None, MS_BIND | MS_REC, None)
    os.chdir(root)
    Path("old_root").mkdir(mode=0o600)
    call("syscall", SYS_PIVOT_ROOT, b".", b"old_root")
    os.chdir("/")
    call("umount2", b"old_root", MNT_DETACH)
    Path("old_root").rmdir()


def furnish(given: argparse.Namespace) -> None:
    """Make what the new root has: directories and device files of the user's, a file of the pid."""
    for name in ("/", "/dev", "/dev/net", "/run"):
        Path(name).mkdir(exist_ok=True)
        Path(name).chmod(0o700)
        os.chown(name, given.uid, given.gid)
    for name, numbers in DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o600, os.makedev(*numbers))
        os.chown(f"/dev/{name}", given.uid, given.gid)
    with Path(f"/{given.exec_file.name}.pid").open("x") as file:
        file.write(str(os.getpid()))


def become_user(given: argparse.Namespace) -> None:
    """Give up root's rights, and check what the monitor needs of the mount it is on."""
    os.setgroups([])
    os.setgid(given.gid)
    os.setuid(given.uid)
    if not os.access(f"/{given.exec_file.name}", os.X_OK):
        raise SystemExit("Failed to exec into Firecracker: Permission denied")
    # As the monitor opens /dev/kvm, which is not there on every machine.
    os.close(os.open("/dev/urandom", os.O_RDONLY))


def main(home: Path) -> None:
    """Be the jailer, then the monitor with the settings that the test left in its directory."""
    if "--version" in sys.argv:
        version = json.loads((home / "settings.json").read_text()).get("jailer", VERSION)
        sys.stdout.write(f"Jailer v{version}\n")
        return
    if "PATH" in os.environ:
        # Of this process, as /proc shows it, not only of its children.
        argv = [sys.executable, *sys.argv]
        os.execve(argv[0], argv, {})  # noqa: S606 - the same program again
    given = checked(sys.argv[1:])
    os.closerange(3, 1024)
    settings = json.loads((home / "settings.json").read_text())
    root = given.chroot_base_dir / given.exec_file.name / given.id / "root"
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(given.exec_file, root)
    shutil.copy(settings["guest"], root / "the-guest")
    settings["guest"] = "/the-guest"
    codecs.lookup("iso-8859-1")  # of HTTP; there are no modules to load from in there
    with (home / "calls.jsonl").open("a") as log, (home / "jails.jsonl").open("a") as jails:
        jails.write(json.dumps({"root": str(root), "argv": sys.argv[1:]}) + "\n")
        jails.flush()
        lock_in(root)
        furnish(given)
        become_user(given)
        call("prctl", PR_SET_NAME, given.exec_file.name.encode()[:15], 0, 0, 0)
        if "dies" in settings:
            raise SystemExit(settings["dies"])
        machine = fake_firecracker.Machine(log=log, settings=settings)
        fake_firecracker.serve(machine, ["--id", given.id, *given.extra])
