"""What the client that made a pod reports about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from seatrial.errors import DriverError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Fields of the report and the columns of ``starts`` that they go to.
MILESTONES: Final[Mapping[str, str]] = {
    "pod_at_ns": "pod_at_ns",
    "created_at_ns": "container_created_at_ns",
    "started_at_ns": "container_started_at_ns",
}


def read_milestones(report: str) -> Mapping[str, int]:
    """Give the instants of a client's report by their columns; those that are 0 never came.

    Raises:
        DriverError: it is no report.
    """
    try:
        fields = json.loads(report)
        found = {column: int(fields[field]) for field, column in MILESTONES.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(f"the report of a pod is {report[:80]!r}: {error}") from error
    return {column: at_ns for column, at_ns in found.items() if at_ns > 0}
