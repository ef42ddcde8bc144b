"""Virtualisation by hardware: proved by guests that run, never by a device that is there.

Three proofs, each stronger than the one before: the device answers; a guest of three instructions
adds two numbers and halts; a kernel boots up to our guest's first word. Only the last one counts,
because nested devices exist that pass the first two and then hang every kernel.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.doctor.attempt import attempt
from seatrial.doctor.check import About, Check, Group, Level
from seatrial.drivers.qemu import QemuDriver
from seatrial.errors import ProcessFailed, SeatrialError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.KVM)
DEVICE: Final = "dev/kvm"
MODULES: Final = ("kvm_intel", "kvm_amd", "kvm_pvm")
ANSWER: Final = "42"
SO: Final = "no microVMs at their real speed, and no kvm platform of gVisor"
FIX: Final = "use a machine with (nested) hardware virtualisation, such as a bare-metal instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the machine says about itself; evidence, and no proof."""

    flag: str | None
    """``vmx`` or ``svm``, when the processor has one."""
    modules: tuple[str, ...]
    is_nested: bool | None
    """Whether guests of this machine may have guests; None: it does not say."""


def read_hardware(tree: Tree) -> Hardware:
    """Read flags and modules."""
    flags = set(tree.fields("proc/cpuinfo").get("flags", "").split())
    nested = [tree.text(f"sys/module/{name}/parameters/nested") for name in MODULES]
    said = [text for text in nested if text is not None]
    return Hardware(
        flag=next((flag for flag in ("vmx", "svm") if flag in flags), None),
        modules=tuple(name for name in MODULES if tree.exists(f"sys/module/{name}")),
        is_nested=said[0] in {"Y", "1"} if said else None,
    )


def check_device(tree: Tree, *, starts: bool) -> Iterator[Check]:
    """Look at processor and device, and run the guest of three instructions."""
    hardware = read_hardware(tree)
    yield judge_processor(hardware, machine=platform.machine())
    device = judge_device(tree, hardware)
    yield device
    if device.level in {Level.MISSING, Level.BROKEN}:
        yield SAY.untried("guest of three instructions", "the device cannot be used")
    elif platform.machine() != "x86_64":
        yield SAY.untried("guest of three instructions", "its code is for x86-64 only")
    elif not starts:
        yield SAY.untried("guest of three instructions", "nothing is started (--fast)")
    else:
        yield _tiny_guest()


def judge_processor(hardware: Hardware, *, machine: str) -> Check:
    """Judge the processor's flags; pure."""
    if hardware.flag is not None:
        return SAY.ok("processor", f"has {hardware.flag}")
    if machine != "x86_64":
        return SAY.untried("processor", f"{machine} has no flag for it")
    if "kvm_pvm" in hardware.modules:
        return SAY.warn(
            "processor",
            "neither vmx nor svm; guests run by kvm_pvm, in software",
            so="guests are slower than on real hardware, and most kernels do not boot",
            fix=FIX,
        )
    return SAY.warn("processor", "neither vmx nor svm", so=SO, fix=FIX)


def judge_device(tree: Tree, hardware: Hardware) -> Check:
    """Judge the device file and the module behind it."""
    modules = ", ".join(hardware.modules) or "no module of its own"
    values = {"modules": hardware.modules, "is_nested": hardware.is_nested}
    if not tree.exists(DEVICE):
        return SAY.missing(
            "device", f"/{DEVICE} is not there", so=SO, fix=f"modprobe kvm_intel or kvm_amd; {FIX}"
        )
    if not os.access(tree.path(DEVICE), os.R_OK | os.W_OK):
        return SAY.broken(
            "device",
            f"/{DEVICE} may not be opened by this user",
            so=SO,
            fix="join the group kvm (usermod -aG kvm USER), or run as root",
        )
    return SAY.ok("device", f"/{DEVICE}, {modules}; evidence, not yet proof", values=values)


def _tiny_guest() -> Check:
    name = "guest of three instructions"
    try:
        found = attempt("kvm")
    except ProcessFailed as error:
        return SAY.broken(name, f"hangs: {error.message}", so=SO, fix=FIX)
    if found.get("trouble") or found.get("answer") != ANSWER:
        reason = found.get("trouble") or f"it said {found.get('answer')}, expected {ANSWER}"
        return SAY.broken(name, reason, so=SO, fix=FIX)
    return SAY.ok(name, "added two numbers, said the sum, and halted")


def check_boot() -> Iterator[Check]:
    """Boot our kernel and guest under KVM, by the driver qemu."""
    yield _boot()


def _boot() -> Check:
    name = "guest that boots"
    if not os.path.exists(f"/{DEVICE}"):  # noqa: PTH110 - one call, and no Path for one
        return SAY.untried(name, f"/{DEVICE} is not there")
    try:
        found = QemuDriver().find()
    except SeatrialError as error:
        return SAY.untried(name, error.message, fix=error.hint or "apt-get install qemu-system-x86")
    if "(kvm)" in found.version:
        return SAY.ok(name, f"a kernel booted to our guest's first word (QEMU {found.version})")
    reason = next((gap for gap in found.gaps if "KVM" in gap), "the guest did not come up")
    return SAY.broken(name, reason, so=SO, fix=FIX)
