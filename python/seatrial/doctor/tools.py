"""Programs that the benches use: which there are, and which engines fio really moves bytes with."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.benches.tool_output import ToolFailed, parse_fio
from seatrial.doctor.check import About, Check, Group
from seatrial.errors import SeatrialError
from seatrial.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAY: Final = About(Group.TOOLS)
#: Program: what is lost without it, and the Debian package that brings it.
PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "fio": ("no fio jobs beside the built-in file probes", "fio"),
    "iperf3": ("no iperf3 beside the built-in network probes", "iperf3"),
    "wget": ("no downloads by wget", "wget"),
    "curl": ("no downloads by curl", "curl"),
    "dd": ("no dd rows", "coreutils"),
    "python3": ("no function in Python", "python3"),
    "ldd": ("no tools inside of sandboxes: their libraries cannot be found", "libc-bin"),
    "mkfs.ext4": ("no data disks of virtual machines", "e2fsprogs"),
}
#: Directories that an ordinary user's PATH lacks.
MORE_PATHS: Final = "/usr/sbin:/sbin"
#: What says a version otherwise than ``--version``.
VERSION_WORDS: Final[Mapping[str, str]] = {"mkfs.ext4": "-V"}
ENGINES: Final = ("psync", "libaio", "io_uring")
FIO_BYTES: Final = 256 << 10
TIMEOUT_S: Final = 5.0


def check_tools(*, starts: bool) -> Iterator[Check]:
    """Look for programs; ``starts``: move some bytes with each of fio's engines too."""
    for name in PROGRAMS:
        yield _program(name)
    fio = find("fio")
    for engine in ENGINES:
        title = f"fio engine {engine}"
        if fio is None:
            yield SAY.untried(title, "fio is not installed", fix="apt-get install fio")
        elif not starts:
            yield SAY.untried(title, "nothing is started (--fast)")
        else:
            yield _engine(fio, engine)


def find(name: str) -> str | None:
    """Give where a program is, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{MORE_PATHS}")


def _program(name: str) -> Check:
    loss, package = PROGRAMS[name]
    path = find(name)
    if path is None:
        return SAY.missing(name, "not on PATH", so=loss, fix=f"apt-get install {package}")
    try:
        said = proc.run([path, VERSION_WORDS.get(name, "--version")], timeout_s=TIMEOUT_S)
    except SeatrialError as error:
        return SAY.broken(name, error.message, so=loss, fix=f"reinstall {package}")
    words = (said.text.strip() or said.stderr_tail.strip()).splitlines()
    return SAY.ok(name, f"{words[0] if words else 'no version'} ({path})")


def _engine(fio: str, engine: str) -> Check:
    """Run the smallest job there is."""
    title = f"fio engine {engine}"
    so = f"jobs with ioengine={engine} have no result on the host, nor in a sandbox"
    fix = "use a kernel and a fio with it; sysctl kernel.io_uring_disabled=0 for io_uring"
    with tempfile.TemporaryDirectory(prefix="seatrial-doctor-") as folder:
        argv = (
            fio, "--name=doctor", f"--filename={folder}/data", f"--ioengine={engine}",
            "--rw=randwrite", "--bs=4k", f"--size={FIO_BYTES}", "--iodepth=4", "--thread",
            "--output-format=json",
        )  # fmt: skip
        try:
            said = proc.run(argv, timeout_s=TIMEOUT_S, check=False, cwd=Path(folder))
            moved = parse_fio(said.text, said.stderr_tail, job="randwrite")
        except (SeatrialError, ToolFailed) as error:
            return SAY.warn(title, str(error), so=so, fix=fix)
    return SAY.ok(title, f"wrote {format_bytes(moved.written_bytes)}")
