"""The guest as a container image: an OCI image layout in a tar file, made here and never pulled.

One layer with the guest's root file system serves two images: the guest's own, and the pause image
that keeps a pod's namespaces, which is the guest without a channel. The same guest gives the same
bytes, so an image can be known by its digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.errors import EnvironmentTrouble
from seatrial.guest.rootfs import DIRECTORIES, FILES, GUEST_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A name that cannot be resolved (RFC 2606), so that nothing can ever be fetched for it.
REGISTRY: Final = "seatrial.invalid"
PAUSE_PATH: Final = "/pause"
#: Where the directory with the control channel's socket is bound.
CHANNEL_DIRECTORY: Final = "/channel"

_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images in one tar file."""

    archive: Path
    guest: str
    pause: str


def build_images(archive: Path, *, guest: Path, architecture: str) -> Images:
    """Write the tar file.

    Raises:
        EnvironmentTrouble: the guest cannot be read, or the file not be written.
    """
    try:
        layer = _layer(guest.read_bytes())
        tag = hashlib.sha256(layer).hexdigest()[:12]
        names = {
            f"{REGISTRY}/guest:{tag}": (GUEST_PATH, "version"),
            f"{REGISTRY}/pause:{tag}": (PAUSE_PATH, "--channel-fd", "none", "idle"),
        }
        files = _layout(layer, names, architecture=architecture)
        with tarfile.open(archive, "w") as tar:
            for name, data in files.items():
                tar.addfile(_member(name, size=len(data), mode=0o644), io.BytesIO(data))
    except OSError as error:
        message = f"cannot make the container image {archive}: {error}"
        raise EnvironmentTrouble(message, hint="the state directory needs free space") from error
    guest_name, pause_name = names
    return Images(archive=archive, guest=guest_name, pause=pause_name)


def machine_architecture() -> str:
    """Give this machine's name in images."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _layer(guest: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, mode in {**DIRECTORIES, CHANNEL_DIRECTORY.removeprefix("/"): 0o755}.items():
            member = _member(name, size=0, mode=mode)
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for name, text in FILES.items():
            data = text.encode()
            tar.addfile(_member(name, size=len(data), mode=0o644), io.BytesIO(data))
        program = _member(GUEST_PATH.removeprefix("/"), size=len(guest), mode=0o755)
        tar.addfile(program, io.BytesIO(guest))
        pause = _member(PAUSE_PATH.removeprefix("/"), size=0, mode=0o755)
        pause.type = tarfile.LNKTYPE
        pause.linkname = GUEST_PATH.removeprefix("/")
        tar.addfile(pause)
    return out.getvalue()


def _member(name: str, *, size: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def _layout(
    layer: bytes, names: Mapping[str, Sequence[str]], *, architecture: str
) -> dict[str, bytes]:
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layer_blob = blob(layer, _LAYER_TYPE)
    manifests, saved = [], []
    for name, entrypoint in names.items():
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
        }
        config_blob = blob(_json(config), _CONFIG_TYPE)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": config_blob,
            "layers": [layer_blob],
        }
        saved.append(
            {
                "Config": _blob_path(config_blob),
                "RepoTags": [name],
                "Layers": [_blob_path(layer_blob)],
            }
        )
        entry = blob(_json(manifest), _MANIFEST_TYPE)
        entry["annotations"] = {
            # The first is containerd's, the second that of the specification.
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        }
        entry["platform"] = {"architecture": architecture, "os": "linux"}
        manifests.append(entry)
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}
    files["index.json"] = _json(index)
    # The same images as "docker save" lists them, which docker and podman read.
    files["manifest.json"] = _json(saved)
    return files


def _blob_path(blob: Mapping[str, object]) -> str:
    return f"blobs/sha256/{str(blob['digest']).removeprefix('sha256:')}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
