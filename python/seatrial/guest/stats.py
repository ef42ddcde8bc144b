"""What a guest's server has counted: the ``STATS`` of its control channel, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from seatrial.errors import StoreError
from seatrial.loadgen import Histogram, read_histogram

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """Sums over all workers of one server, from its start to one instant.

    Read while requests are served, counts may differ by those that are under way; of a server at
    rest they are exact. ``service`` is from the begin of a request's service to its reply being
    ready, ``queue`` from the read of its last byte to that begin; both on the guest's monotonic
    clock. An echo over a stream has no requests, so it counts only bytes and connections.
    """

    protocol: str
    at_mono_ns: int
    """When it was read, on the guest's monotonic clock."""
    accepted_connections: int
    refused_connections: int
    closed_connections: int
    open_connections: int
    requests: int
    replies: int
    """Those that refuse a bad or an unknown request included."""
    bad_requests: int
    """Those that the protocol does not allow, or that did not come whole."""
    unknown_requests: int
    """Those that it allows, for something that this server does not have (HTTP 404 and 405)."""
    dropped_datagrams: int
    """Lost on purpose."""
    received_bytes: int
    sent_bytes: int
    operations: Mapping[str, int]
    worker_requests: tuple[int, ...]
    service_histogram: Histogram
    queue_histogram: Histogram

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Self:
        """Reads what a guest sent.

        Raises:
            ValueError: something is missing or of another kind; says what.
        """
        connections = _of_kind(record, "connections", dict, "table")
        operations = _of_kind(record, "operations", dict, "table")
        workers = _of_kind(record, "worker_requests", list, "list")
        return cls(
            protocol=_of_kind(record, "protocol", str, "text"),
            at_mono_ns=_count(record, "at_mono_ns"),
            accepted_connections=_count(connections, "accepted"),
            refused_connections=_count(connections, "refused"),
            closed_connections=_count(connections, "closed"),
            open_connections=_count(connections, "open"),
            requests=_count(record, "requests"),
            replies=_count(record, "replies"),
            bad_requests=_count(record, "bad_requests"),
            unknown_requests=_count(record, "unknown_requests"),
            dropped_datagrams=_count(record, "dropped_datagrams"),
            received_bytes=_count(record, "received_bytes"),
            sent_bytes=_count(record, "sent_bytes"),
            operations={name: _count(operations, name) for name in operations},
            worker_requests=tuple(_count({"worker": value}, "worker") for value in workers),
            service_histogram=_histogram(record, "service_histogram"),
            queue_histogram=_histogram(record, "queue_histogram"),
        )


def _count(record: Mapping[str, object], name: str) -> int:
    value = record.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}, expected a count")
    return value


def _of_kind(record: Mapping[str, object], name: str, kind: type[_Kind], expected: str) -> _Kind:
    value = record.get(name)
    if isinstance(value, kind):
        return value
    raise ValueError(f"{name} is no {expected}")


def _histogram(record: Mapping[str, object], name: str) -> Histogram:
    value = _of_kind(record, name, str, "histogram")
    try:
        return read_histogram(bytes.fromhex(value))
    except (ValueError, StoreError) as error:
        raise ValueError(f"{name} is no histogram: {error}") from None
