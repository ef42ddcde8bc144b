"""A program that holds two sandboxes until it is killed; the owner that a sweep finds dead.

Usage: ``python -m tests.support.holder DRIVER RUN_ID NETWORK``. Prints one line of JSON when all
are up: the sandboxes' ids and the pids of every process that belongs to them.
"""

from __future__ import annotations

import json
import signal
import sys

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec
from seatrial.model.experiment import NetworkMode

DEADLINE_NS = 60_000_000_000


def main(name: str, run_id: str, network: str) -> None:
    """Start, say so, and wait for the end."""
    spec = SandboxSpec(role=("idle",), network=NetworkMode(network), deadline_ns=DEADLINE_NS)
    with registry.get(name).open(DriverContext.for_run(run_id)) as session:
        plans = [session.plan(spec, index) for index in range(2)]
        batch = session.launcher.start(
            plans, wait_for="ready", hold=True, timeout_ns=2 * DEADLINE_NS
        )
        assert [result.outcome for result in batch.results] == ["ok", "ok"], batch
        pids = [pid for plan in plans for pid in session.processes(plan.id)]
        line = json.dumps({"pids": pids, "launcher": session.launcher.pid})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
