"""The few messages of ``runtime.v1`` that we send and read, by the numbers of their fields.

Pure. A message is written as a mapping of field number to value; a value is a text, bytes, a whole
number, a truth value, a message, or a list of these. Zero, empty and None are left out, as the
encoding has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Field: TypeAlias = "str | bytes | int | bool | Mapping[int, Field] | Sequence[Field] | None"
Message: TypeAlias = Mapping[int, Field]

#: Kinds of fields on the wire.
VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

#: ``NamespaceMode``
NAMESPACE_POD: Final = 0
NAMESPACE_CONTAINER: Final = 1
NAMESPACE_NODE: Final = 2
#: ``SecurityProfile.ProfileType``
UNCONFINED: Final = 1

SERVICE: Final = "/runtime.v1.RuntimeService"
IMAGE_SERVICE: Final = "/runtime.v1.ImageService"


def encode(message: Message) -> bytes:
    """Give the bytes of a message."""
    out = bytearray()
    for number, value in sorted(message.items()):
        values = value if isinstance(value, list | tuple) else (value,)
        for one in values:
            _append(out, number, one)
    return bytes(out)


def _append(out: bytearray, number: int, value: Field) -> None:
    if not value:
        return
    if isinstance(value, bool | int):
        out += _varint(number << 3 | VARINT)
        # Negative numbers are sent as 64 bits of two's complement.
        out += _varint(int(value) & (1 << 64) - 1)
        return
    if isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bytes):
        data = value
    elif isinstance(value, Mapping):
        data = encode(value)
    else:
        raise TypeError(f"a field of type {type(value).__name__}")
    out += _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >> 7:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_map(values: Mapping[str, str]) -> list[Message]:
    """Give the entries of a ``map<string, string>``."""
    return [{1: key, 2: value} for key, value in sorted(values.items())]


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Give the fields of a message in order; kinds that we never use are passed over.

    Raises:
        ValueError: the bytes end within a field, or are no message.
    """
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(kind)
        if kind == BYTES:
            length, at = _read_varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError(f"no message: a field of kind {kind} at byte {at} of {len(data)}")
        if kind == BYTES:
            yield key >> 3, data[at : at + length]
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follows
            return number, at
    raise ValueError(f"no message: a number that does not end before byte {at}")


def bytes_of(data: bytes, number: int) -> bytes:
    """Give the last field of that number that holds bytes; empty when there is none."""
    found = b""
    for name, value in fields(data):
        if name == number and isinstance(value, bytes):
            found = value
    return found


def text_of(data: bytes, number: int) -> str:
    """Give a text field."""
    return bytes_of(data, number).decode("utf-8", errors="replace")


def map_of(data: bytes, number: int) -> dict[str, str]:
    """Give a ``map<string, string>``."""
    entries = [one for name, one in fields(data) if name == number and isinstance(one, bytes)]
    return {text_of(entry, 1): text_of(entry, 2) for entry in entries}


# --- the requests --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod with the one container in it."""

    name: str
    namespace: str
    handler: str
    labels: Mapping[str, str]
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[tuple[str, str]]
    """Pairs of host path and path in the container, writable."""
    uses_host_network: bool
    read_only_mounts: Sequence[tuple[str, str]] = ()
    cgroup_parent: str | None = None
    memory_limit_bytes: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None


def sandbox_config(pod: Pod) -> Message:
    """Give the ``PodSandboxConfig``."""
    return {
        # No uid of our own: the name is unique.
        1: {1: pod.name, 2: pod.name, 3: pod.namespace},
        2: "" if pod.uses_host_network else "seatrial",
        6: text_map(pod.labels),
        8: {
            1: pod.cgroup_parent,
            2: {
                1: _namespaces(pod),
                9: {1: UNCONFINED},
            },
        },
    }


def run_pod_request(pod: Pod) -> bytes:
    """Give the ``RunPodSandboxRequest``."""
    return encode({1: sandbox_config(pod), 2: pod.handler})


def create_container_request(pod: Pod) -> bytes:
    """Give the ``CreateContainerRequest`` but for field 1, the pod's id."""
    resources: Message = {
        1: pod.cpu_period_us,
        2: pod.cpu_quota_us,
        4: pod.memory_limit_bytes,
    }
    container: Message = {
        1: {1: "guest"},
        2: {1: pod.image},
        3: list(pod.command),
        6: [{1: key, 2: value} for key, value in sorted(pod.environment.items())],
        7: [
            *({1: inside, 2: outside} for outside, inside in pod.mounts),
            *({1: inside, 2: outside, 3: True} for outside, inside in pod.read_only_mounts),
        ],
        9: text_map(pod.labels),
        15: {
            1: resources,
            2: {
                1: {2: ["ALL"]},
                3: _namespaces(pod),
                11: True,
                15: {1: UNCONFINED},
            },
        },
    }
    return encode({2: container, 3: sandbox_config(pod)})


def list_pods_request(labels: Mapping[str, str]) -> bytes:
    """Give the ``ListPodSandboxRequest`` for pods that have all these labels."""
    return encode({1: {3: text_map(labels)}})


def list_containers_request(labels: Mapping[str, str]) -> bytes:
    """Give the ``ListContainersRequest`` for containers that have all these labels."""
    return encode({1: {4: text_map(labels)}})


def _namespaces(pod: Pod) -> Message:
    network = NAMESPACE_NODE if pod.uses_host_network else NAMESPACE_POD
    return {1: network, 2: NAMESPACE_CONTAINER, 3: NAMESPACE_POD}
