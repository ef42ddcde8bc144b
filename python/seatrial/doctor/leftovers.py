"""What killed runs and other tools left on the machine, and what this examination left itself."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.doctor.storage import existing
from seatrial.drivers.base import state_root
from seatrial.drivers.state import RUN_VARIABLE, Owner, abandoned_groups
from seatrial.probes import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.LEFTOVERS)
#: Runs of an examination have ids that begin so.
OWN_PREFIXES: Final = ("probe-", "kvm-proof-", "doctor-")
TEMPORARY_PREFIX: Final = "seatrial-doctor-"
#: Servers of containers: a shim or a monitor without its server serves nobody.
SHIM_PREFIX: Final = "containerd-shim"
SERVERS: Final = frozenset({"containerd", "dockerd", "crio", "k3s", "rke2"})
SHOWN_COUNT: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What there is that may have come from an examination."""

    names: frozenset[str]


def take_stock(run_dir: Path) -> Stock:
    """List our children, labelled processes, state directories and files."""
    me = os.getpid()
    found = {
        f"process {pid} {leaks.command_line(pid)}"
        for pid in leaks.descendants([me])
        if pid != me and leaks.is_alive(pid)
    }
    root = state_root()
    foreign = set()
    for place in root.iterdir() if root.is_dir() else ():
        owner = Owner.read(place)
        if owner is not None and owner.pid == me:
            found.add(f"state {place}")
        elif owner is not None and owner.is_alive:
            foreign.add(owner.run_id)
    for pid, run_id in leaks.processes_with(RUN_VARIABLE).items():
        if run_id.startswith(OWN_PREFIXES) and run_id not in foreign:
            found.add(f"process {pid} of {run_id}")
    for directory in (Path(tempfile.gettempdir()), existing(run_dir)):
        found |= {f"file {place}" for place in directory.glob(f"{TEMPORARY_PREFIX}*")}
    return Stock(names=frozenset(found))


def audit(before: Stock, run_dir: Path) -> Check:
    """Compare with what there was before the examination."""
    left = sorted(take_stock(run_dir).names - before.names)
    if not left:
        return SAY.ok("this examination", "left nothing behind")
    return SAY.broken(
        "this examination",
        "; ".join(left),
        so="what stays may disturb the next run",
        fix="seatrial clean; please report it, with what --json says",
        values={"left": left},
    )


def check_leftovers(commands: Mapping[int, str], *, root: Path | None = None) -> Iterator[Check]:
    """Look for what runs of dead owners and dead servers left.

    ``commands`` are the names of all processes before anything of ours began: shims of our own
    servers take a moment to end after them.
    """
    yield _dead_runs(state_root() if root is None else root)
    yield judge_orphans(commands)


def _dead_runs(root: Path) -> Check:
    try:
        owners = {place: Owner.read(place) for place in root.iterdir()} if root.is_dir() else {}
    except OSError as error:
        return SAY.untried("killed runs", f"{root}: {error.strerror}")
    dead = sorted(
        {place.name for place, owner in owners.items() if owner is not None and not owner.is_alive}
        | set(abandoned_groups(root))
    )
    if not dead:
        return SAY.ok("killed runs", "none left anything")
    return SAY.warn(
        "killed runs",
        f"{len(dead)} left something: {', '.join(dead[:SHOWN_COUNT])}",
        so="their processes, groups, mounts and networks may still be there, and disturb",
        fix="seatrial clean",
    )


def read_commands(tree: Tree) -> Mapping[int, str]:
    """Give the names of all processes now."""
    return {
        int(name): tree.text(f"proc/{name}/comm") or ""
        for name in tree.names("proc")
        if name.isdigit()
    }


def judge_orphans(commands: Mapping[int, str]) -> Check:
    """Tell of shims whose server is gone, given the names of all processes; pure."""
    # The kernel keeps fifteen characters of a name.
    shims = [pid for pid, name in commands.items() if name.startswith(SHIM_PREFIX[:15])]
    monitors = [pid for pid, name in commands.items() if name == "conmon"]
    evidence = f"{len(shims)} shims of containerd, {len(monitors)} conmon"
    if shims and not SERVERS & set(commands.values()):
        return SAY.warn(
            "containers of others",
            f"{evidence}, and no server that owns the shims: {shims[:SHOWN_COUNT]}",
            so="what they hold uses memory, and perhaps the processor",
            fix="start their containerd again and remove the containers, or end the shims by pid",
        )
    if shims or monitors:
        return SAY.warn(
            "containers of others",
            evidence,
            so="they are alive beside whatever is measured",
            fix="stop them for the time of a run (podman stop --all, ctr tasks kill)",
        )
    return SAY.ok("containers of others", "none")
