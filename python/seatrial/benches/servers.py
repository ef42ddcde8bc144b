"""Sandboxes that serve, several at once or several servers in one, held through a trial."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.drivers.base import SandboxSpec
from seatrial.errors import TrialFailed
from seatrial.guest.stats import ServerStats
from seatrial.loadgen import LoadRequest, run_load
from seatrial.model.experiment import NetworkMode
from seatrial.stats.validity import check_leftovers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.benches.base import Row, TrialContext, TrialTables
    from seatrial.drivers.base import DriverSession
    from seatrial.launch.plan import StartResult
    from seatrial.model.finding import Finding

FIRST_PORT = 7000
STARTS_AT_ONCE = 4
START_DEADLINE_NS = 60_000_000_000
STOP_GRACE_NS = 5_000_000_000
GONE_TIMEOUT_NS = 10_000_000_000
#: One request and reply a server, until it is known that each of them answers.
FIRST_CALLS_NS = 20_000_000
FIRST_CALL_TIMEOUT_NS = 10_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server as clients see it."""

    target: str
    sandbox: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What is known of one sandbox at one instant."""

    stats: ServerStats
    cpu_ns: int | None


class ServingSandboxes:
    """Starts ``sandboxes`` sandboxes with ``servers`` rpc servers in each, and removes them.

    Servers of one sandbox listen on ports of their own and have one worker each; connections are
    dealt to the workers in turn.
    """

    def __init__(
        self, context: TrialContext, *, sandboxes: int, servers: int, workers: int
    ) -> None:
        self._context = context
        self._sandboxes_count = sandboxes
        self._ports = tuple(range(FIRST_PORT, FIRST_PORT + servers))
        self._workers = workers
        self._session: DriverSession | None = None
        self._ids: list[str] = []
        self._before: dict[str, _Reading] = {}
        self.servers: tuple[Server, ...] = ()
        self.ready_at_ns = 0
        self.findings: list[Finding] = []

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the servers are reached."""
        return tuple(server.target for server in self.servers)

    def start(self) -> None:
        """Starts them, a few at a time, and waits until each says that it listens.

        Raises:
            TrialFailed: one did not get ready, or the driver has only modelled servers.
        """
        session = self._session = self._context.open_session(self._context.spec.driver)
        spec = SandboxSpec(
            role=self._role(),
            network=NetworkMode.VETH,
            ready="ready",
            deadline_ns=START_DEADLINE_NS,
        )
        for first in range(0, self._sandboxes_count, STARTS_AT_ONCE):
            indices = range(first, min(first + STARTS_AT_ONCE, self._sandboxes_count))
            plans = [session.plan(spec, index) for index in indices]
            self._ids += [plan.id for plan in plans]
            batch = session.launcher.start(
                plans, wait_for="ready", hold=True, timeout_ns=2 * START_DEADLINE_NS
            )
            self._check_started(batch.results, first)
        self.ready_at_ns = time.monotonic_ns()
        self.servers = tuple(
            Server(target=session.endpoint(plan_id, port), sandbox=plan_id)
            for plan_id in self._ids
            for port in self._ports
        )
        self._check_real()

    def _role(self) -> tuple[str, ...]:
        listeners = [
            word for port in self._ports for word in ("--listen", f"tcp:0.0.0.0:{port}")
        ]  # fmt: skip - option and value
        return ("serve", "--protocol", "rpc", *listeners, "--workers", str(self._workers))

    def _check_started(self, results: Sequence[StartResult], first: int) -> None:
        failed = [result for result in results if result.outcome != "ok"]
        if not failed:
            return
        started = first + len(results) - len(failed)
        raise TrialFailed(
            f"{self._context.spec.driver}: only {started} of {self._sandboxes_count} sandboxes "
            f"came up; {failed[0].id}: {failed[0].outcome}: {failed[0].error or ''} "
            f"{failed[0].stderr_tail[-400:]}".strip(),
            hint="ask for fewer sandboxes, or see 'seatrial doctor'",
        )

    def _check_real(self) -> None:
        if any(target.startswith("fake:") for target in self.targets):
            message = f"{self._context.spec.driver} models its servers, and a model serves one load"
            raise TrialFailed(message, code="unsupported")

    def call_each(self) -> None:
        """Calls every server over a connection of its own until each has answered.

        Raises:
            TrialFailed: one gave no correct reply; says which.
        """
        result = run_load(
            LoadRequest(
                targets=self.targets,
                connections=len(self.servers),
                measure_ns=FIRST_CALLS_NS,
                drain_ns=FIRST_CALL_TIMEOUT_NS,
                request_timeout_ns=FIRST_CALL_TIMEOUT_NS,
                records_max=1,
                seed=self._context.spec.seed,
            )
        )
        if result.was_interrupted:
            raise KeyboardInterrupt
        counts = [target.counts for target in result.targets] or [result.measured]
        for server, measured in zip(self.servers, counts, strict=True):
            if measured.ok_count == 0:
                why = "; ".join(text for _, text, _ in result.failures[:1])
                raise TrialFailed(
                    f"the server at {server.target} in sandbox {server.sandbox} gave no correct "
                    f"reply within {FIRST_CALL_TIMEOUT_NS // 10**9} s{': ' if why else ''}{why}",
                    hint="run 'seatrial doctor' to see what this runtime needs",
                )

    def mark(self) -> None:
        """Reads the servers' counters and CPU books, as the begin of what is counted."""
        self._before = {plan_id: self._read(plan_id) for plan_id in self._ids}

    def count(self, tables: TrialTables) -> None:
        """Reads them again and keeps what was added since `mark`, a row for each sandbox."""
        for plan_id in self._ids:
            row = self._row(plan_id, self._before[plan_id], self._read(plan_id))
            tables.add("servers", row)

    def _read(self, plan_id: str) -> _Reading:
        session = self._live()
        books = session.cgroups(plan_id).read_cpu()
        return _Reading(
            stats=session.server_stats(plan_id), cpu_ns=None if books is None else books.total_ns
        )

    def _row(self, plan_id: str, before: _Reading, after: _Reading) -> Row:
        has_books = before.cpu_ns is not None and after.cpu_ns is not None
        old, new = before.stats, after.stats
        return {
            "sandbox": plan_id,
            "servers_count": len(self._ports),
            "requests_count": new.requests - old.requests,
            "replies_count": new.replies - old.replies,
            "bad_requests_count": new.bad_requests - old.bad_requests,
            "unknown_requests_count": new.unknown_requests - old.unknown_requests,
            "cpu_ns": (after.cpu_ns or 0) - (before.cpu_ns or 0) if has_books else None,
            "service_ns_p50": new.service_histogram.quantile(0.5),
            "service_ns_p99": new.service_histogram.quantile(0.99),
            "queue_ns_p50": new.queue_histogram.quantile(0.5),
            "queue_ns_p99": new.queue_histogram.quantile(0.99),
        }

    def _live(self) -> DriverSession:
        if self._session is None:
            raise TrialFailed("the servers were used before they were started")
        return self._session

    def stop(self) -> None:
        """Stops and releases what was started, and nothing else; safe after a failed start."""
        if self._session is None or not self._ids:
            return
        session, ids = self._session, self._ids
        self._ids = []
        session.launcher.stop(how="request", grace_ns=STOP_GRACE_NS)
        gone = session.wait_all_gone(ids, time.monotonic_ns() + GONE_TIMEOUT_NS)
        stayed = [f"sandbox {plan_id}" for plan_id in ids if gone[plan_id] is None]
        finding = check_leftovers(leftovers=stayed)
        if finding is not None:
            self.findings.append(finding)
        for plan_id in ids:
            session.release(plan_id)
