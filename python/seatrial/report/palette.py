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
    "lean-prepared": Ink(colour="#5aa832", shape="triangle-up"),
    "lean-pooled": Ink(colour="#3c9fa0", shape="triangle-down"),
    "bwrap": Ink(colour="#c98a00", shape="diamond"),
    "runc": Ink(colour="#2a7fc9", shape="triangle-up"),
    "crun": Ink(colour="#3fa7dd", shape="triangle-down"),
    "runsc": Ink(colour="#dd5f1c", shape="cross"),
    "runsc-ptrace": Ink(colour="#c46a9a", shape="triangle-right"),
    "runsc-kvm": Ink(colour="#8f78d8", shape="triangle-left"),
    "qemu": Ink(colour="#cf5f8a", shape="square"),
    "qemu-template": Ink(colour="#b878b8", shape="diamond"),
    "nspawn": Ink(colour="#8b9a14", shape="circle"),
    "firecracker": Ink(colour="#d4359a", shape="triangle-up"),
    "firecracker-snapshot": Ink(colour="#d77bd0", shape="triangle-down"),
    "cri/runc": Ink(colour="#4c5fe0", shape="square"),
    "cri/runsc": Ink(colour="#d23b2e", shape="diamond"),
    "podman": Ink(colour="#8e4fd6", shape="circle"),
    "docker": Ink(colour="#1f86b5", shape="diamond"),
    "nerdctl": Ink(colour="#a86be0", shape="square"),
    "fake": Ink(colour="#9a8f5a", shape="stroke"),
    FLOOR: Ink(colour="#929ca7", shape="stroke", dash=(3, 3)),
}
#: For drivers that are not ours, in the order of their names within a run.
SPARE = (
    Ink(colour="#a8763e", shape="circle"),
    Ink(colour="#5f9e3a", shape="square"),
    Ink(colour="#b5548f", shape="diamond"),
    Ink(colour="#4a8f99", shape="triangle-up"),
    Ink(colour="#6c86d0", shape="triangle-down"),
    Ink(colour="#a68b2a", shape="cross"),
    Ink(colour="#c9604a", shape="triangle-right"),
    Ink(colour="#2f9f9a", shape="triangle-left"),
)
#: For steps of an axis, told apart by lightness too: viridis between its ends, which would vanish
#: on the dark or on the light paper.
STEPS = (
    "#7b68c4",
    "#4a7fc1",
    "#2f93a8",
    "#2fa37f",
    "#6aa84f",
    "#a3a02c",
    "#c98a00",
    "#dd5f1c",
    "#c4403f",
)
STEP_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")


def inks_of(drivers: tuple[str, ...]) -> dict[str, Ink]:
    """Colour and sign of each driver, in the order given."""
    strangers = sorted(name for name in drivers if name not in INKS)
    spare = {name: SPARE[number % len(SPARE)] for number, name in enumerate(strangers)}
    return {name: INKS.get(name) or spare[name] for name in drivers}


def inks_of_steps(names: tuple[str, ...]) -> dict[str, Ink]:
    """Colour and sign of each step of an axis, growing from violet to red."""
    last = max(len(names) - 1, 1)
    return {
        name: Ink(
            colour=STEPS[number * (len(STEPS) - 1) // last],
            shape=STEP_SHAPES[number % len(STEP_SHAPES)],
        )
        for number, name in enumerate(names)
    }
