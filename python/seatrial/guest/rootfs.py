"""The root file system of a sandbox: the guest, and places for what runtimes mount.

One root serves all sandboxes of a driver, read-only or not: the guest writes only below ``/data``
and ``/tmp``. What a runtime wants to know beyond it (an OCI bundle, mounts) is the driver's part.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from typing import TYPE_CHECKING, Final

from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from pathlib import Path

#: Where the guest is inside the root.
GUEST_PATH: Final = "/seatrial-guest"

#: Empty directories with their modes: a read-only root needs each mount point beforehand.
DIRECTORIES: Final = {
    "proc": 0o755,
    "dev": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "data": 0o777,
    "tools": 0o755,
    "etc": 0o755,
}

#: Empty files over which a rootless sandbox binds the host's device nodes.
DEVICES: Final = ("null", "zero", "full", "random", "urandom")

#: What runtimes look up when they set the user.
FILES: Final = {
    "etc/passwd": f"root:x:0:0:root:/:{GUEST_PATH}\nnobody:x:65534:65534:nobody:/:{GUEST_PATH}\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def build_rootfs(directory: Path, guest: Path) -> Path:
    """Makes or completes a minimal root in ``directory`` and gives its path.

    A second call changes nothing, unless the guest binary is another one.

    Raises:
        EnvironmentTrouble: the directory cannot be written, or the guest cannot be read.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)  # a sandbox with mapped users must pass, whatever the umask
        for name, mode in DIRECTORIES.items():
            path = directory / name
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        for name in DEVICES:
            _write_file(directory / "dev" / name, "")
        for name, text in FILES.items():
            _write_file(directory / name, text)
        _install(guest, directory / GUEST_PATH.removeprefix("/"))
    except OSError as error:
        raise EnvironmentTrouble(
            f"cannot make the root file system {directory}: {error}",
            hint="the state directory must be writable and on a file system with free space",
        ) from error
    return directory


def _write_file(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def _install(guest: Path, target: Path) -> None:
    """Copies the guest under another name first, so that none is ever half there."""
    if target.is_file() and filecmp.cmp(guest, target, shallow=False):
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(guest, partial)
        partial.chmod(0o755)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
