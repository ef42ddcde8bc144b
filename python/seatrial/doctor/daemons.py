"""What stands around runtimes: containerd and its shims, engines, monitors of virtual machines."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.doctor.check import About, Check, Group
from seatrial.doctor.tools import find
from seatrial.drivers import registry
from seatrial.errors import SeatrialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.RUNTIMES)
TIMEOUT_S: Final = 5.0
#: Where daemons that somebody runs are found.
SOCKETS: Final[Mapping[str, str]] = {
    "containerd": "run/containerd/containerd.sock",
    "CRI-O": "run/crio/crio.sock",
    "docker": "run/docker.sock",
    "podman": "run/podman/podman.sock",
}
CONFIG: Final = "etc/containerd/config.toml"
CRI_PLUGINS: Final = frozenset({"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"})
#: Shims of containerd: what each serves, and how to get it.
SHIMS: Final[Mapping[str, tuple[str, str]]] = {
    "containerd-shim-runc-v2": ("runc and crun behind containerd", "apt-get install containerd"),
    "containerd-shim-runsc-v1": (
        "gVisor behind containerd",
        "'make setup' fetches it where it can be had; gVisor's releases have it beside runsc",
    ),
    "containerd-shim-kata-v2": (
        "Kata Containers",
        "install Kata's static release below /opt/kata, and put its bin directory on PATH",
    ),
}
#: Monitors of machines that no driver of their own starts, and so tells of.
MONITORS: Final[Mapping[str, tuple[str, str]]] = {
    "cloud-hypervisor": ("Cloud Hypervisor", "take a release of cloud-hypervisor"),
}
#: Engines of containers that are started by a driver of the same name, where there is one.
ENGINES: Final[Mapping[str, str]] = {
    "podman": "apt-get install podman",
    "docker": "apt-get install docker.io",
    "nerdctl": "take a release of containerd/nerdctl",
}
PLUGIN_COLUMNS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One line of ``ctr plugins ls``."""

    kind: str
    name: str
    status: str


def check_daemons(tree: Tree, *, tools: Path) -> Iterator[Check]:
    """Look at what is installed and what runs; nothing is started."""
    yield _containerd(tree)
    for name, (purpose, fix) in SHIMS.items():
        yield _program(name, purpose=purpose, fix=fix, tools=tools)
    for name, (purpose, fix) in MONITORS.items():
        yield _program(name, purpose=purpose, fix=fix, tools=tools)
    for name, fix in ENGINES.items():
        if name not in registry.names():
            yield _program(name, purpose=f"containers by {name}", fix=fix, tools=tools)
    for name, path in SOCKETS.items():
        if tree.exists(path):
            yield from _running(name, tree.path(path))


def _program(name: str, *, purpose: str, fix: str, tools: Path) -> Check:
    path = tools / name if (tools / name).is_file() else find(name)
    if path is None:
        return SAY.missing(name, "not installed", so=f"no {purpose}", fix=fix)
    return SAY.ok(name, str(path))


def _containerd(tree: Tree) -> Check:
    path = find("containerd")
    if path is None:
        return SAY.missing(
            "containerd",
            "not installed",
            so="no runtimes behind CRI, unless a server is named",
            fix="apt-get install containerd",
        )
    try:
        version = proc.run([path, "--version"], timeout_s=TIMEOUT_S).text.strip()
    except SeatrialError as error:
        return SAY.broken(
            "containerd", error.message, so="no runtimes behind CRI", fix="reinstall it"
        )
    disabled = disabled_plugins(tree.text(CONFIG) or "")
    if disabled & CRI_PLUGINS:
        return SAY.warn(
            "containerd",
            f"{version}; /{CONFIG} disables {', '.join(sorted(disabled))}",
            so="the machine's own containerd serves no CRI; the private one of a trial does",
            fix=f"take cri off disabled_plugins in /{CONFIG}, if you want to name that server",
        )
    return SAY.ok("containerd", version)


def disabled_plugins(text: str) -> frozenset[str]:
    """Read which plugins a configuration turns off; pure; one that cannot be read: none."""
    try:
        listed = tomllib.loads(text).get("disabled_plugins", [])
    except tomllib.TOMLDecodeError:
        return frozenset()
    return frozenset(str(one) for one in listed) if isinstance(listed, list) else frozenset()


def _running(name: str, socket: Path) -> Iterator[Check]:
    title = f"running {name}"
    if name != "containerd":
        yield SAY.ok(title, f"{socket}")
        return
    ctr = find("ctr")
    if ctr is None:
        yield SAY.untried(title, f"{socket}; ctr is not there to ask it")
        return
    argv = [ctr, "--address", str(socket), "--timeout", "3s", "plugins", "ls"]
    try:
        plugins = parse_plugins(proc.run(argv, timeout_s=TIMEOUT_S).text)
    except SeatrialError as error:
        yield SAY.broken(
            title,
            f"{socket} does not answer: {error.message}",
            so="that server cannot be used; a trial starts its own",
            fix="restart it, or remove the socket that a killed one left",
        )
        return
    yield from judge_plugins(title, plugins)


def parse_plugins(text: str) -> tuple[Plugin, ...]:
    """Read the table of ``ctr plugins ls``; pure."""
    found: list[Plugin] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= PLUGIN_COLUMNS:
            found.append(Plugin(kind=words[0], name=words[1], status=words[-1]))
    return tuple(found)


def judge_plugins(title: str, plugins: Sequence[Plugin]) -> Iterator[Check]:
    """Judge what a running containerd can do; pure."""
    snapshotters = {one.name: one.status for one in plugins if "snapshotter" in one.kind}
    works = [name for name, status in snapshotters.items() if status == "ok"]
    evidence = ", ".join(f"{name} {status}" for name, status in snapshotters.items())
    if set(works) - {"native"}:
        yield SAY.ok(f"{title}: snapshotters", evidence)
    else:
        yield SAY.warn(
            f"{title}: snapshotters",
            evidence or "none",
            so="native copies the image for every container: slow starts, much disk",
            fix="see 'snapshotter' and 'overlay mount'",
        )
    cri = [one for one in plugins if one.name == "cri" or ".cri." in one.kind]
    if any(one.status == "ok" for one in cri):
        yield SAY.ok(f"{title}: CRI", "served")
    else:
        yield SAY.warn(
            f"{title}: CRI",
            cri[0].status if cri else "not there",
            so="that server cannot be used for trials by CRI",
            fix=f"take cri off disabled_plugins in /{CONFIG}; 'containerd config default' has all",
        )
