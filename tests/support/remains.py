"""What a run left on the machine, found without the code that should have removed it."""

from __future__ import annotations

import os
from pathlib import Path


def remains_of(run_id: str, *, state_root: Path) -> list[str]:
    """One line for each process, mount, cgroup, network namespace, interface or file of a run."""
    short = run_id[-4:]
    found = [f"process {pid}: {text}" for pid, text in processes_of(run_id).items()]
    found += [f"mount {line}" for line in mounts_under(state_root)]
    found += [f"cgroup {path}" for path in groups() if path.name == run_id]
    found += [f"namespace {path}" for path in Path("/run/netns").glob(f"st-{short}-*")]
    found += [f"interface {path.name}" for path in Path("/sys/class/net").glob(f"stv{short}*")]
    found += [f"file {path}" for path in state_root.glob(f"{run_id}*")]
    return found


def all_remains() -> set[str]:
    """One line for each thing on the machine that carries the label of any run."""
    found = {f"cgroup {path}" for path in groups()}
    found |= {f"namespace {path}" for path in Path("/run/netns").glob("st-*")}
    found |= {f"interface {path.name}" for path in Path("/sys/class/net").glob("stv*")}
    found |= {f"mount {point}" for point in mounts_under(Path("/")) if "seatrial" in point}
    return found | {f"process {pid}: {text}" for pid, text in processes_of("").items()}


def groups() -> list[Path]:
    """The groups of all runs."""
    # os.walk, unlike a glob, bears with groups that another run removes meanwhile.
    return [
        Path(place, name)
        for place, names, _ in os.walk("/sys/fs/cgroup")
        if Path(place).name == "seatrial"
        for name in names
    ]


def processes_of(run_id: str) -> dict[int, str]:
    """Live processes with a run's id (empty: any) in their environment or their command line."""
    mark = run_id.encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:  # it ended while we looked, or is not ours to read
            continue
        if (mark and mark in command) or b"SEATRIAL_RUN=" + mark in environment:
            found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def mounts_under(folder: Path) -> list[str]:
    """Mount points at or below a folder, in our mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if Path(point).is_relative_to(folder)]
