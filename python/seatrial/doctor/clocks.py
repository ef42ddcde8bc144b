"""Clocks, timers and the time stamps of packets."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.CLOCKS)
SOURCES: Final = "sys/devices/system/clocksource/clocksource0"
#: Clock sources that a program reads without entering the kernel.
FAST_SOURCES: Final = frozenset(
    {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}
)
NS_PER_S: Final = 1_000_000_000
SLACK_NS_MAX: Final = 50_000
READS_COUNT: Final = 20_000
#: linux/sockios.h and linux/ethtool.h
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GET_TS_INFO: Final = 0x41
#: linux/net_tstamp.h: bits of what an interface can stamp, in the order of their numbers.
STAMPS: Final = (
    "hardware-send", "software-send", "hardware-receive", "software-receive",
)  # fmt: skip
STAMP_REPLY_BYTES: Final = 44


def check_clocks(tree: Tree) -> Iterator[Check]:
    """Look at the clock, its price, timers, and what interfaces can stamp."""
    yield _source(tree)
    yield _resolution(tree)
    yield _slack(tree)
    yield _stamps("lo")
    outward = default_interface(tree.text("proc/net/route") or "")
    if outward is not None:
        yield _stamps(outward)


def _source(tree: Tree) -> Check:
    source = tree.text(f"{SOURCES}/current_clocksource") or "unknown"
    others = tree.text(f"{SOURCES}/available_clocksource") or ""
    price_ns = clock_price_ns()
    evidence = f"{source} (there are: {others}); a reading from Python costs {price_ns} ns"
    values = {"price_ns": price_ns}
    if source in FAST_SOURCES:
        return SAY.ok("clock source", evidence, values=values)
    return SAY.warn(
        "clock source",
        evidence,
        so="each reading of the clock enters the kernel, which shows in short times",
        fix=f"echo tsc > /{SOURCES}/current_clocksource, where tsc is listed",
        values=values,
    )


def clock_price_ns() -> int:
    """Measure what one reading of the monotonic clock costs from Python, its loop included."""
    started_ns = time.monotonic_ns()
    for _ in range(READS_COUNT):
        time.monotonic_ns()
    return (time.monotonic_ns() - started_ns) // READS_COUNT


def _resolution(tree: Tree) -> Check:
    resolution_ns = round(time.clock_getres(time.CLOCK_MONOTONIC) * NS_PER_S)
    timers = tree.text("proc/timer_list") or ""
    is_coarse = ".hres_active    : 0" in timers
    evidence = f"{resolution_ns} ns"
    if timers:
        evidence += ", high-resolution timers off" if is_coarse else ", high-resolution timers on"
    if resolution_ns <= 1 and not is_coarse:
        return SAY.ok("timer resolution", evidence, values={"resolution_ns": resolution_ns})
    return SAY.warn(
        "timer resolution",
        evidence,
        so="waits end at the next tick of the kernel, so short ones are milliseconds late",
        fix="boot without highres=off and nohz=off, with CONFIG_HIGH_RES_TIMERS",
        values={"resolution_ns": resolution_ns},
    )


def _slack(tree: Tree) -> Check:
    slack_ns = tree.number("proc/self/timerslack_ns")
    if slack_ns is None:
        return SAY.untried("timer slack", "/proc/self/timerslack_ns cannot be read")
    evidence = f"{format_duration(slack_ns)} for ordinary processes started from this one"
    if slack_ns <= SLACK_NS_MAX:
        return SAY.ok("timer slack", evidence, values={"slack_ns": slack_ns})
    return SAY.warn(
        "timer slack",
        evidence,
        so="whoever waits may be woken that much later, to save power",
        fix="start Seatrial from a process with the default of 50 µs (PR_SET_TIMERSLACK)",
        values={"slack_ns": slack_ns},
    )


def default_interface(text: str) -> str | None:
    """Read which interface leads out, from /proc/net/route; pure."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":  # noqa: PLR2004 - destination and mask
            return words[0]
    return None


def _stamps(interface: str) -> Check:
    name = f"time stamps of {interface}"
    try:
        flags = stamping_flags(interface)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or errno.EIO)
        return SAY.untried(name, f"the driver does not say what it can ({reason})")
    able = [word for bit, word in enumerate(STAMPS) if flags & 1 << bit]
    evidence = ", ".join(able) or "none"
    if {"software-send", "software-receive"} <= set(able):
        return SAY.ok(name, evidence, values={"stamping_flags": flags})
    return SAY.warn(
        name,
        evidence,
        so="time on the wire cannot be told from the wake-up of the client on this interface",
        fix="use an interface whose driver stamps (ethtool -T lists it)",
        values={"stamping_flags": flags},
    )


def stamping_flags(interface: str) -> int:
    """Ask the kernel what an interface can stamp: SOF_TIMESTAMPING_* of linux/net_tstamp.h.

    Raises:
        OSError: there is no such interface, or its driver does not say.
    """
    reply = ctypes.create_string_buffer(STAMP_REPLY_BYTES)
    struct.pack_into("=I", reply, 0, ETHTOOL_GET_TS_INFO)
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(reply))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
        fcntl.ioctl(asker, SIOCETHTOOL, request)
    (flags,) = struct.unpack_from("=I", reply, 4)
    return int(flags)
