"""What a sweep would remove, told without removing anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from seatrial.drivers import state
from seatrial.drivers.base import state_root
from seatrial.errors import EnvironmentTrouble
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from pathlib import Path


def would_remove(root: Path | None = None) -> list[str]:
    """Give what ``state.sweep`` would remove now, one line each, in its words.

    Raises:
        EnvironmentTrouble: the state directory cannot be read.
    """
    base = state_root() if root is None else root
    try:
        places = sorted(entry for entry in base.iterdir() if entry.is_dir())
    except FileNotFoundError:
        places = []
    except OSError as error:
        raise EnvironmentTrouble(f"cannot read {base}: {error.strerror}") from error
    alive = state.alive_short_ids(base)
    found: list[str] = []
    for directory, owner in [(entry, state.Owner.read(entry)) for entry in places]:
        if owner is None or owner.is_alive or not state.is_own_directory(directory, owner):
            continue
        found += _processes(owner.run_id) + _groups(owner.run_id)
        if state.short_id(owner.run_id) not in alive:
            found += state.names_of(owner.run_id)
        found += [f"socket {path}" for path in state.shim_sockets(directory)]
        mounts = leaks.mount_leaks(directory, mountinfo=state.MOUNTINFO.read_text())
        found += [*map(str, mounts), f"state {directory}"]
    for run_id in state.abandoned_groups(base):
        found += _groups(run_id)
        if state.short_id(run_id) not in alive:
            found += state.names_of(run_id)
    return found


def _processes(run_id: str) -> list[str]:
    marks = leaks.processes_with(state.RUN_VARIABLE)
    labelled = {pid for pid, value in marks.items() if value == run_id} - {os.getpid()}
    members = set(CgroupHost.detect().group(run_id).members())
    return [str(leak) for leak in leaks.process_leaks(members | labelled)]


def _groups(run_id: str) -> list[str]:
    return [f"cgroup {path}" for path in CgroupHost.detect().group(run_id).directories()]
