"""dd and fio on a file of the host's disk, with the device's own count of bytes beside theirs."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, ClassVar, Final

from seatrial.benches.attempts import Work
from seatrial.benches.inside_metrics import VARIANT
from seatrial.benches.inside_tools import FILE, ToolsTrial
from seatrial.benches.tool_output import parse_dd, parse_fio
from seatrial.model.experiment import FIO_JOBS, FioVariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from seatrial.benches.attempts import Attempt, Said
    from seatrial.benches.tool_output import Moved
    from seatrial.model.experiment import InsideSettings

KIB: Final = 1 << 10
MIB: Final = 1 << 20
NS_PER_S: Final = 1_000_000_000
#: The seed's share of reads in its mixed job.
READS_OF_100: Final = 70


class DdTrial(ToolsTrial):
    """Writing and reading as the seed did it, and twice in a way that says more about a disk."""

    has_files = True
    tool_of: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("write", "read", "cold-read", "sync-write"), "dd"
    )

    def tries(self, works: Iterable[str], position: int) -> Iterable[Attempt]:
        """Write, read, drop and read, write with fsync: each needs what the one before left."""
        for name in works:
            flush(self.context.scratch_dir / FILE, drops=name == "cold-read")
            yield self.run(self._work(name), position)

    def _work(self, name: str) -> Work:
        is_write = name.endswith("write")
        words = dd_words(self.settings, name)

        def read(said: Said) -> Moved:
            return parse_dd(
                said.stderr,
                kind=f"dd_{name.replace('-', '_')}",
                is_write=is_write,
                counts_operations=name in {"write", "read"},
            )

        return Work(
            name=name,
            argv=self.tool("dd", *words),
            read=read,
            timeout_ns=self.settings.deadline_ns,
            directory=self.data_at,
        )


class FioTrial(ToolsTrial):
    """The five jobs of fio in one variant, in a new order in each try."""

    has_files = True
    tool_of: ClassVar[Mapping[str, str]] = dict.fromkeys(FIO_JOBS, "fio")

    def prepare(self) -> None:
        """Lay the file out, so that no job is charged for it and no read meets a hole."""
        lay_file(self.context.scratch_dir / FILE, self.settings.fio_size_bytes)

    def tries(self, works: Iterable[str], position: int) -> Iterable[Attempt]:
        """Do the jobs in an order of the trial's seed and the try."""
        order = list(works)
        random.Random(f"{self.context.spec.seed}|{position}").shuffle(order)
        variant = FioVariant(str(self.context.spec.point.values[VARIANT]))
        for job in order:
            flush(self.context.scratch_dir / FILE, drops=variant is not FioVariant.CACHED)
            yield self.run(self._work(job, variant), position)

    def _work(self, job: str, variant: FioVariant) -> Work:
        return Work(
            name=job,
            argv=self.tool("fio", *fio_words(self.settings, job, variant)),
            read=lambda said: parse_fio(said.stdout, said.stderr, job=job),
            timeout_ns=self.settings.deadline_ns,
            is_direct=variant is not FioVariant.CACHED,
            directory=self.data_at,
        )


def dd_words(settings: InsideSettings, name: str) -> tuple[str, ...]:
    """Give dd's arguments; pure. ``write`` and ``read`` are the seed's."""
    block, count = settings.dd_block_bytes, settings.dd_count
    blocks = max(1, block * count // MIB)
    return {
        "write": ("if=/dev/zero", f"of={FILE}", f"bs={block}", f"count={count}"),
        "read": (f"if={FILE}", "of=/dev/null", f"bs={block}", f"count={count}"),
        "cold-read": (f"if={FILE}", "of=/dev/null", "bs=1M"),
        "sync-write": ("if=/dev/zero", f"of={FILE}", "bs=1M", f"count={blocks}", "conv=fsync"),
    }[name]


def fio_words(settings: InsideSettings, job: str, variant: FioVariant) -> tuple[str, ...]:
    """Give fio's arguments; pure. The variant ``seed`` has the seed's, in its order."""
    duration_s = max(1, round(settings.fio_duration_ns / NS_PER_S))
    is_seed = variant is FioVariant.SEED
    size = settings.fio_size_bytes
    if not is_seed:
        # Threads over one region read what another has just read: each gets its own.
        part = size // settings.fio_threads
        size = max(part - part % settings.fio_block_bytes, settings.fio_block_bytes)
    return (
        f"-filename={FILE}",
        f"-direct={0 if variant is FioVariant.CACHED else 1}",
        *("-iodepth", "1"),
        "-thread",
        f"-rw={job}",
        *((f"-rwmixread={READS_OF_100}",) if job == "randrw" else ()),
        "-ioengine=psync",
        f"-bs={short_size(settings.fio_block_bytes)}",
        f"-size={short_size(size)}",
        f"-numjobs={settings.fio_threads}",
        f"-runtime={duration_s}",
        "-group_reporting",
        "-name=mytest",
        *(() if is_seed else ("-time_based", f"-offset_increment={short_size(size)}")),
        *(("-invalidate=0",) if variant is FioVariant.CACHED else ()),
        "--output-format=json",
    )


def short_size(size_bytes: int) -> str:
    """Give a size as fio and dd read it: 16k, 256M; pure."""
    for factor, unit in ((MIB, "M"), (KIB, "k")):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def lay_file(path: Path, size_bytes: int) -> None:
    """Make a file of bytes that no file system can compress, on the disk and not in its cache."""
    block = random.Random(0).randbytes(MIB)
    with path.open("wb") as file:
        for offset in range(0, size_bytes, MIB):
            file.write(block[: min(MIB, size_bytes - offset)])
    path.chmod(0o666)  # a rootless sandbox maps to another user
    flush(path, drops=True)


def flush(path: Path, *, drops: bool) -> None:
    """Bring a file's bytes to the disk, so that the next try is not charged; perhaps drop them.

    A file that is not there yet, or not ours to open, has nothing to flush.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            if drops:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
