"""What a tree says about how it was measured: versions and configuration files beside the rows.

Only what is in the files is told. Of the experiment ``mem`` the guest's configured memory is left
out: RunD's scripts copy the configuration before they change it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from seatrial.importers.rund.tree import Tree
    from seatrial.model.scalar import Scalar

#: Keys of the runtime's configuration, and what the condition is called.
_HYPERVISOR: Final = {
    "default_memory": "guest_memory",
    "default_vcpus": "guest_processors",
    "kernel": "guest_kernel",
    "shared_fs": "shared_file_system",
    "block_device_driver": "block_device",
    "boot_type": "boot_type",
    "machine_type": "machine_type",
}
_WITH_TEMPLATE: Final = re.compile(r"with(?P<out>out)? template\Z")


def read_conditions(tree: Tree) -> dict[str, Scalar]:
    """Returns the conditions of a tree by name."""
    found: dict[str, Scalar] = {}
    found.update(_versions(tree.files.get("versions.txt", b"").decode("utf-8", "replace")))
    snapshotter = _snapshotter(_toml(tree.files.get("config.toml", b"")))
    if snapshotter:
        found["snapshotter"] = snapshotter
    for path in sorted(tree.files):
        if path.startswith("configuration") and path.endswith(".toml"):
            found.update(_runtime(_toml(tree.files[path])))
            break
    if tree.kind == "mem":
        found.pop("guest_memory", None)
    return dict(sorted(found.items()))


def _versions(text: str) -> dict[str, Scalar]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found: dict[str, Scalar] = {}
    for number, line in enumerate(lines):
        words = line.split()
        if match := _WITH_TEMPLATE.match(line):
            found["template"] = "no" if match["out"] else "yes"
        elif number == 0 and len(words) == 1:
            found["kernel"] = line
        elif words[0] == "containerd" and len(words) > 2:  # noqa: PLR2004 - name, package, version
            found["containerd"] = words[2]
        elif len(words) > 1:
            rest = " ".join(words[1:]).removeprefix("version").lstrip(": ")
            found[words[0].rstrip(":").lower()] = rest
    return found


@functools.lru_cache(maxsize=16)  # the trees of one runtime have the same files
def _toml(data: bytes) -> Mapping[str, object]:
    with contextlib.suppress(UnicodeDecodeError, tomllib.TOMLDecodeError):
        return tomllib.loads(data.decode("utf-8"))
    return {}


def _snapshotter(config: Mapping[str, object]) -> str | None:
    """Returns the snapshotter of the CRI plugin, under its name of either version of the file."""
    plugins = config.get("plugins")
    for name in ("cri", "io.containerd.grpc.v1.cri"):
        place: object = plugins
        for key in (name, "containerd", "snapshotter"):
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, str):
            return place
    return None


def _runtime(config: Mapping[str, object]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    hypervisors = config.get("hypervisor")
    if not isinstance(hypervisors, Mapping):
        return found
    for name, settings in hypervisors.items():
        found["hypervisor"] = str(name)
        if not isinstance(settings, Mapping):
            continue
        for key, condition in _HYPERVISOR.items():
            value = settings.get(key)
            if isinstance(value, str | int) and not isinstance(value, bool):
                found[condition] = f"{value} MiB" if key == "default_memory" else value
        found["guest_root"] = "initrd" if settings.get("initrd") else "image"
    factory = config.get("factory")
    if isinstance(factory, Mapping) and factory.get("enable_template") is True:
        found["template"] = "yes"
    return found
