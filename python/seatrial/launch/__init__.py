"""Starting sandboxes: plans that are data, and the small process which executes them."""

from seatrial.launch.client import Launcher
from seatrial.launch.plan import (
    Bind,
    Isolation,
    Outcome,
    StartBatch,
    StartPlan,
    StartResult,
    StopResult,
)

__all__ = [
    "Bind",
    "Isolation",
    "Launcher",
    "Outcome",
    "StartBatch",
    "StartPlan",
    "StartResult",
    "StopResult",
]
