"""One sandbox that stays alive through a trial, with its control channel open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from seatrial.drivers.base import SandboxSpec
from seatrial.errors import TrialFailed
from seatrial.guest.channel import GuestChannel
from seatrial.stats.validity import check_leftovers

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.benches.base import TrialContext
    from seatrial.drivers.base import DriverSession
    from seatrial.model.experiment import NetworkMode
    from seatrial.model.finding import Finding

START_DEADLINE_NS = 60_000_000_000
STOP_GRACE_NS = 5_000_000_000
GONE_TIMEOUT_NS = 10_000_000_000


class HeldSandbox:
    """Starts, hands out and removes one sandbox of the trial's driver."""

    def __init__(
        self,
        context: TrialContext,
        *,
        role: tuple[str, ...],
        data_dir: Path | None = None,
        tools_dir: Path | None = None,
        network: NetworkMode | None = None,
        memory_wanted_bytes: int = 0,
    ) -> None:
        self._context = context
        self._spec = SandboxSpec(
            role=role,
            network=network or context.experiment.network,
            data_dir=data_dir,
            tools_dir=tools_dir,
            memory_wanted_bytes=memory_wanted_bytes,
            ready="ready",
            deadline_ns=START_DEADLINE_NS,
        )
        self._session: DriverSession | None = None
        self._channel: GuestChannel | None = None
        self._plan_id: str | None = None
        self._is_held = False
        self.findings: list[Finding] = []

    @property
    def session(self) -> DriverSession:
        """The open driver session."""
        if self._session is None:
            raise TrialFailed("the sandbox was used before it was started")
        return self._session

    @property
    def plan_id(self) -> str:
        """The sandbox's id."""
        if self._plan_id is None:
            raise TrialFailed("the sandbox was used before it was started")
        return self._plan_id

    @property
    def channel(self) -> GuestChannel:
        """The guest's control channel."""
        if self._channel is None:
            raise TrialFailed("the sandbox was used before it was started")
        return self._channel

    def start(self, session: DriverSession | None = None) -> None:
        """Starts the sandbox, in a session that is open already or its own, until it is ready.

        Raises:
            TrialFailed: the sandbox did not get ready; says how it ended.
        """
        session = session or self._context.open_session(self._context.spec.driver)
        self._session = session
        plan = session.plan(self._spec, 0)
        self._plan_id = plan.id
        batch = session.launcher.start(
            [plan], wait_for="ready", hold=True, timeout_ns=2 * START_DEADLINE_NS
        )
        result = batch.results[0]
        if result.outcome != "ok":
            raise TrialFailed(
                f"{self._context.spec.driver}: sandbox {plan.id} did not get ready: "
                f"{result.outcome}: {result.error or ''} {result.stderr_tail[-400:]}".strip(),
                hint="run 'seatrial doctor' to see what this runtime needs",
            )
        self._is_held = True
        self._channel = GuestChannel(session.launcher.channel(plan.id))

    def stop(self) -> None:
        """Stops and releases the sandbox; safe after a failed start."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._session is None or self._plan_id is None:
            return
        if self._is_held:
            self._session.launcher.stop([self._plan_id], how="request", grace_ns=STOP_GRACE_NS)
            self._is_held = False
        gone = self._session.wait_gone(self._plan_id, time.monotonic_ns() + GONE_TIMEOUT_NS)
        stayed = check_leftovers(leftovers=[f"sandbox {self._plan_id}"] if gone is None else [])
        if stayed is not None:
            self.findings.append(stayed)
        self._session.release(self._plan_id)
        self._plan_id = None
