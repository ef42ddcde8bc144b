"""Calls of CRI that are not timed: versions, lists and states, made by the small client program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.drivers.cri.messages import (
    IMAGE_SERVICE,
    SERVICE,
    bytes_of,
    encode,
    fields,
    list_containers_request,
    list_pods_request,
    map_of,
    text_of,
)
from seatrial.drivers.options import OptionError
from seatrial.errors import DriverError, ProcessFailed
from seatrial.guest.binary import launch_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

CALL_TIMEOUT_NS: Final = 10_000_000_000
MARGIN_S: Final = 5.0
#: The first and the longest pause before a refused removal is asked for again, and when to give up.
REMOVAL_PAUSES_NS: Final = (50_000_000, 400_000_000)
REMOVAL_PATIENCE_NS: Final = 4_000_000_000
UNIX_PREFIX: Final = "unix://"


def parse_endpoint(text: str, *, where: str = "endpoint") -> Path:
    """Read ``unix:///run/containerd/containerd.sock``, or the path alone.

    Raises:
        ConfigError: it is no absolute path of a socket.
    """
    path = Path(text.removeprefix(UNIX_PREFIX))
    if not path.is_absolute():
        raise OptionError(
            where,
            "expected unix:///PATH of a CRI socket",
            value=text,
            hint="for example unix:///run/containerd/containerd.sock",
        )
    return path


def call(endpoint: Path, method: str, request: bytes = b"") -> bytes:
    """Make one call and give the reply.

    Raises:
        DriverError: nobody listens, the server refused, or did not answer in time (``cri-call``).
    """
    argv = [str(launch_binary()), "cri-call", str(endpoint), method, str(CALL_TIMEOUT_NS)]
    try:
        done = proc.run(argv, input=request, timeout_s=CALL_TIMEOUT_NS / 1e9 + MARGIN_S)
    except ProcessFailed as error:
        said = error.stderr_tail.strip().removeprefix("seatrial-launch: ")
        name = method.rpartition("/")[2]
        raise DriverError(
            f"{name} at {endpoint}: {said or error.message}",
            hint="is the CRI plugin on, and the socket that of containerd or CRI-O?",
            code="cri-call",
        ) from error
    return done.stdout


def version(endpoint: Path) -> tuple[str, str]:
    """Give the server's name and version."""
    reply = call(endpoint, f"{SERVICE}/Version")
    return text_of(reply, 2), text_of(reply, 3)


def pods(endpoint: Path, labels: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Map the ids of the pods with these labels to all their labels."""
    reply = call(endpoint, f"{SERVICE}/ListPodSandbox", list_pods_request(labels))
    found = [one for number, one in fields(reply) if number == 1 and isinstance(one, bytes)]
    return {text_of(pod, 1): map_of(pod, 5) for pod in found}


def containers(endpoint: Path, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Give the ids of the containers with these labels."""
    reply = call(endpoint, f"{SERVICE}/ListContainers", list_containers_request(labels))
    found = [one for number, one in fields(reply) if number == 1 and isinstance(one, bytes)]
    return tuple(text_of(container, 1) for container in found)


def remove_pod(endpoint: Path, pod_id: str) -> None:
    """Stop and remove a pod with its containers; harmless when it is gone.

    Raises:
        DriverError: the server did not, however often it was asked within four seconds.
    """
    give_up_ns = time.monotonic_ns() + REMOVAL_PATIENCE_NS
    for method in ("StopPodSandbox", "RemovePodSandbox"):
        request = encode({1: pod_id})
        _call_until_done(endpoint, f"{SERVICE}/{method}", request, give_up_ns=give_up_ns)


def _call_until_done(endpoint: Path, method: str, request: bytes, *, give_up_ns: int) -> None:
    # As in the client: a server refuses as long as it cleans up after a shim that has ended.
    pause_ns, longest_ns = REMOVAL_PAUSES_NS
    while True:
        try:
            call(endpoint, method, request)
        except DriverError:
            if time.monotonic_ns() + pause_ns >= give_up_ns:
                raise
            time.sleep(pause_ns / 1e9)
            pause_ns = min(2 * pause_ns, longest_ns)
        else:
            return


def pod_address(endpoint: Path, pod_id: str) -> str:
    """Give the address of a pod in its own network; empty: it has none."""
    reply = call(endpoint, f"{SERVICE}/PodSandboxStatus", encode({1: pod_id}))
    return text_of(bytes_of(bytes_of(reply, 1), 5), 1)


def has_image(endpoint: Path, name: str) -> bool:
    """Tell whether the server knows an image."""
    reply = call(endpoint, f"{IMAGE_SERVICE}/ImageStatus", encode({1: {1: name}}))
    return bool(bytes_of(reply, 1))
