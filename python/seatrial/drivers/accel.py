"""How a virtual machine's instructions run, and the proof of it.

A KVM device proves nothing: nested ones that run a few instructions and then hang a kernel look
just like real ones. Only a guest that boots does, within a deadline; asked once for a process.
"""

from __future__ import annotations

import os
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.drivers.base import DriverContext, new_run_id, state_root

if TYPE_CHECKING:
    from collections.abc import Callable

KVM_DEVICE: Final = Path("/dev/kvm")
KVM_PROOF_DEADLINE_NS: Final = 10_000_000_000


class Acceleration(StrEnum):
    """QEMU's names."""

    KVM = "kvm"
    TCG = "tcg"


_proven: Final[dict[Path, tuple[Acceleration, str]]] = {}
#: Who asks while somebody proves waits for the answer.
_proving: Final = threading.Lock()


def proven_acceleration(
    binary: Path, *, boot: Callable[[Path, DriverContext], str | None]
) -> tuple[Acceleration, str]:
    """Give what guests run under here, and for TCG the reason why not KVM.

    ``boot`` starts a guest under KVM and gives what went wrong, None for nothing.
    """
    with _proving:
        if binary not in _proven:
            _proven[binary] = _prove(binary, boot)
        return _proven[binary]


def _prove(
    binary: Path, boot: Callable[[Path, DriverContext], str | None]
) -> tuple[Acceleration, str]:
    if not KVM_DEVICE.exists():
        return Acceleration.TCG, f"{KVM_DEVICE} is not there"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Acceleration.TCG, f"{KVM_DEVICE} may not be opened by this user"
    run_id = new_run_id("kvm-proof-")
    trouble = boot(binary, DriverContext(run_id=run_id, state_dir=state_root() / run_id))
    if trouble is None:
        return Acceleration.KVM, "a guest booted"
    return Acceleration.TCG, f"no guest boots under KVM here ({trouble})"
