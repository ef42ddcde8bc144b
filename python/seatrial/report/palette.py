"""One fixed colour and sign a driver, the same in every figure of every run.

The hues are Okabe and Ito's (jfly.uni-koeln.de/color), moved in lightness so that each keeps a
contrast of at least 2.5:1 against the light and the dark paper alike. Points also differ by shape,
so a figure can be read without colour.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatrial.model.summary import FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Ink:
    """How a driver is drawn."""

    colour: str
    shape: str
    dash: tuple[int, ...] = ()


INKS: dict[str, Ink] = {
    "process": Ink(colour="#7d8590", shape="circle"),
    "lean": Ink(colour="#0a9a75", shape="square"),
    "bwrap": Ink(colour="#c98a00", shape="diamond"),
    "runc": Ink(colour="#2a7fc9", shape="triangle-up"),
    "crun": Ink(colour="#3fa7dd", shape="triangle-down"),
    "runsc": Ink(colour="#dd5f1c", shape="cross"),
    "runsc-ptrace": Ink(colour="#c46a9a", shape="triangle-right"),
    "runsc-kvm": Ink(colour="#8f78d8", shape="triangle-left"),
    "fake": Ink(colour="#9a8f5a", shape="stroke"),
    FLOOR: Ink(colour="#929ca7", shape="stroke", dash=(3, 3)),
}
#: For drivers that are not ours, in the order of their names within a run.
SPARE = (
    Ink(colour="#a8763e", shape="circle"),
    Ink(colour="#5f9e3a", shape="square"),
    Ink(colour="#b5548f", shape="diamond"),
    Ink(colour="#4a8f99", shape="triangle-up"),
)


def inks_of(drivers: tuple[str, ...]) -> dict[str, Ink]:
    """Colour and sign of each driver, in the order given."""
    strangers = sorted(name for name in drivers if name not in INKS)
    spare = {name: SPARE[number % len(SPARE)] for number, name in enumerate(strangers)}
    return {name: INKS.get(name) or spare[name] for name in drivers}
