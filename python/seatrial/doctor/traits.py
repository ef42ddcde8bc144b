"""What a runtime costs and does once a sandbox of it runs, and what of that a chooser must know.

All of this judges what ``gallery`` has measured: processor time of a sandbox that has nothing to
do, how long one takes to go, and whether a write that is to go past the page cache does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

SAY: Final = About(Group.RUNTIMES)
#: More of one processor than this, for nothing, is felt by what is timed beside some of them.
IDLE_RATIO_MAX: Final = 0.005
#: Removing a hundred one after another then takes more than a minute and a half.
TEARDOWN_NS_MAX: Final = 1_000_000_000
#: Others can only add to the counters of a device, and others' pages are not in this file.
REACHED_RATIO_MIN: Final = 0.9
CACHED_RATIO_MAX: Final = 0.1


#: How the names of these checks end, after the driver's.
IDLE, REMOVAL, DIRECT = ": idle", ": removal", ": direct I/O"


class Honour(StrEnum):
    """What became of O_DIRECT."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    """It was taken, and the bytes went through the page cache all the same."""
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One transfer with O_DIRECT in a sandbox; None: it cannot be told here."""

    moved_bytes: int = 0
    """What the program in the sandbox says."""
    device_bytes: int | None = None
    """What the device below counted meanwhile, of everybody."""
    cached_bytes: int | None = None
    """How much of the file was in the host's page cache afterwards."""
    trouble: str | None = None
    is_refused: bool = False

    @property
    def honour(self) -> Honour:
        """Judge it: by the pages, which are this file's alone, before the device, which is shared.

        A virtual machine's file is none of the host's, so there only the device can tell.
        """
        if self.is_refused:
            return Honour.REFUSED
        if self.trouble is not None or not self.moved_bytes:
            return Honour.UNKNOWN
        if self.cached_bytes is not None:
            is_past = self.cached_bytes <= CACHED_RATIO_MAX * self.moved_bytes
        elif self.device_bytes is not None:
            is_past = self.device_bytes >= REACHED_RATIO_MIN * self.moved_bytes
        else:
            return Honour.UNKNOWN
        return Honour.HONOURED if is_past else Honour.IGNORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """One sandbox of a runtime; None: not known or not reached."""

    driver: str
    trouble: str | None = None
    """Why there was no sandbox to look at."""
    window_ns: int = 0
    """How long it was left alone."""
    idle_ratio: float | None = None
    """Share of one processor that it used meanwhile."""
    daemon_ratio: float | None = None
    """The same of what serves all sandboxes of the runtime; None: nothing does."""
    switches_rps: float | None = None
    """Context switches of its processes a second."""
    teardown_ns: int | None = None
    """From being asked to stop until nothing of it was left."""
    write: Transfer = Transfer()
    read: Transfer = Transfer()

    @property
    def honour(self) -> Honour:
        """What became of O_DIRECT, the worse of both directions."""
        found = {self.write.honour, self.read.honour}
        worst_first = (Honour.IGNORED, Honour.REFUSED, Honour.UNKNOWN, Honour.HONOURED)
        return next(honour for honour in worst_first if honour in found)


def is_trait(check: Check) -> bool:
    """Tell whether a check is one of these, whose numbers stand in a table of their own."""
    return check.group is Group.RUNTIMES and check.name.endswith((IDLE, REMOVAL, DIRECT))


def judge_traits(traits: Traits) -> Iterator[Check]:
    """Judge one runtime; pure."""
    if traits.trouble is not None:
        yield SAY.broken(
            f"{traits.driver}: at work",
            traits.trouble,
            so="what it costs once it runs is not known, and trials may fail the same way",
            fix="look at the check of the runtime itself, and try again",
        )
        return
    yield judge_idle(traits)
    yield judge_teardown(traits)
    yield judge_direct(traits)


def judge_idle(traits: Traits) -> Check:
    """Judge the processor time of a sandbox that does nothing; pure."""
    name = f"{traits.driver}{IDLE}"
    ratio = traits.idle_ratio
    if ratio is None:
        return SAY.untried(
            name, "its processor time is not booked here", fix="run as root; see 'cgroups'"
        )
    evidence = f"{ratio:.2%} of one processor"
    if traits.switches_rps is not None:
        evidence += f" and {traits.switches_rps:.0f} context switches a second"
    evidence += f" with nothing to do, over {format_duration(traits.window_ns)}"
    if traits.daemon_ratio is not None:
        evidence += f"; its daemon {traits.daemon_ratio:.2%}"
    values = {
        "idle_ratio": ratio,
        "switches_rps": traits.switches_rps,
        "daemon_ratio": traits.daemon_ratio,
        "window_ns": traits.window_ns,
    }
    if ratio <= IDLE_RATIO_MAX:
        return SAY.ok(name, evidence, values=values)
    return SAY.warn(
        name,
        evidence,
        so=f"{round(1 / ratio)} idle ones take a whole processor, and slow down whatever is timed "
        "beside them",
        fix="compare densities with their background's CPU in sight (it is in every table), or try "
        "another platform of the runtime (ptrace or kvm for systrap, KVM for emulated machines)",
        values=values,
    )


def judge_teardown(traits: Traits) -> Check:
    """Judge how long one takes to go; pure."""
    name = f"{traits.driver}{REMOVAL}"
    took_ns = traits.teardown_ns
    if took_ns is None:
        return SAY.broken(
            name,
            "something of it was left when the time for removing it was up",
            so="sandboxes pile up between trials",
            fix="seatrial clean; and look at what it says",
        )
    evidence = f"gone {format_duration(took_ns)} after it was asked to stop"
    values = {"teardown_ns": took_ns}
    if took_ns <= TEARDOWN_NS_MAX:
        return SAY.ok(name, evidence, values=values)
    return SAY.warn(
        name,
        evidence,
        so=f"removing a hundred one after another takes {format_duration(100 * took_ns)}",
        fix="remove them side by side, and show the removal apart from the start; benches do",
        values=values,
    )


def judge_direct(traits: Traits) -> Check:
    """Judge what became of O_DIRECT; pure."""
    name = f"{traits.driver}{DIRECT}"
    evidence = f"{_transfer('write', traits.write)}; {_transfer('read', traits.read)}"
    values = {"write": traits.write, "read": traits.read, "honour": traits.honour}
    if traits.honour is Honour.HONOURED:
        return SAY.ok(name, evidence, values=values)
    if traits.honour is Honour.UNKNOWN:
        return SAY.untried(name, evidence, fix="choose a directory on a disk with --out")
    if traits.honour is Honour.REFUSED:
        return SAY.warn(
            name,
            evidence,
            so="disk tests that go past the page cache cannot run in it",
            fix="test with the cache, which is what its programs get",
            values=values,
        )
    return SAY.warn(
        name,
        evidence,
        so="O_DIRECT is taken and ignored: its disk numbers are those of the host's memory",
        fix="compare it by sync-write and by the device's bytes, which the bench inside shows "
        "beside each number; its direct jobs are marked",
        values=values,
    )


def _transfer(name: str, transfer: Transfer) -> str:
    if transfer.trouble is not None:
        return f"{name}: {transfer.trouble}"
    if not transfer.moved_bytes:
        return f"{name}: not tried"
    parts = [
        f"{format_bytes(number)} {where}"
        for number, where in (
            (transfer.device_bytes, "on the device"),
            (transfer.cached_bytes, "in the host's page cache"),
        )
        if number is not None
    ]
    seen = " and ".join(parts) or "nobody who can tell where it went"
    return f"{name} {transfer.honour}: {format_bytes(transfer.moved_bytes)} by its program, {seen}"
