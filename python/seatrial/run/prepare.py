"""From an experiment to a run directory, and from a run directory to a runner at work."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, DriverSession, new_run_id
from seatrial.errors import DriverUnavailable, EnvironmentTrouble
from seatrial.loadgen import build_info
from seatrial.probes.cgroup import CgroupHost
from seatrial.probes.fingerprint import read_fingerprint
from seatrial.run.runner import Runner, RunReport
from seatrial.store.manifest import Manifest, Versions
from seatrial.store.run_store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from seatrial.model.plan import Plan
    from seatrial.run.progress import Progress

RELEASE = "release"


def check_drivers(names: tuple[str, ...]) -> dict[str, str | None]:
    """Really starts a sandbox of each driver; returns their versions.

    Raises:
        DriverUnavailable: some do not work here; the message names all of them and why.
    """
    versions: dict[str, str | None] = {}
    problems: list[str] = []
    hints: list[str] = []
    for name in names:
        result = registry.get(name).probe()
        versions[name] = result.version
        if not result.status.is_usable:
            problems.append(f"{name} is {result.status}: {result.detail}")
            hints += [result.hint] if result.hint else []
    if problems:
        raise DriverUnavailable(
            "\n".join(problems),
            hint="; ".join(dict.fromkeys(hints))
            or "run 'seatrial doctor', or name other drivers with --drivers",
        )
    return versions


def create_run(
    root: Path,
    plan: Plan,
    *,
    text: str,
    source: str,
    skipped: Mapping[str, str],
    allows_debug_core: bool = False,
) -> RunStore:
    """Makes the run directory with everything known before the first trial.

    Raises:
        DriverUnavailable: a driver of the plan does not work here.
        EnvironmentTrouble: the core is a debug build, whose numbers mean nothing.
        StoreError: the directory cannot be written.
    """
    core = build_info()
    if core.profile != RELEASE and not allows_debug_core:
        raise EnvironmentTrouble(
            f"the Rust core is a {core.profile} build; expected a release build",
            hint="run 'make build', or pass --allow-debug-core to try the tool itself",
        )
    versions = check_drivers(plan.drivers)
    run_id = new_run_id()
    flags = {name: dict(_flags(name, run_id, plan)) for name in plan.drivers}
    content = Manifest(
        run_id=run_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        experiment_text=text,
        experiment_source=source,
        plan=plan,
        versions=Versions(
            seatrial=core.version,
            core=core.version,
            core_profile=core.profile,
            python=str(read_fingerprint().facts["python"]),
            drivers=versions,
        ),
        fingerprint=read_fingerprint(),
        driver_flags=flags,
        skipped_drivers=skipped,
    )
    return RunStore.create(root, content)


def _flags(name: str, run_id: str, plan: Plan) -> Mapping[str, str]:
    """Opens a session for a moment: only it knows what will be inside the clock."""
    context = driver_context(run_id, plan, name)
    with registry.get(name).open(context) as session:
        return dict(session.flags)


def driver_context(run_id: str, plan: Plan, name: str, *, seed: int = 0) -> DriverContext:
    """Returns for whom and with which of the experiment's options a session of a driver works."""
    experiment = plan.experiment
    return DriverContext.for_run(
        run_id,
        network=experiment.network,
        options=experiment.driver_options.get(name),
        seed=seed,
    )


def perform(store: RunStore, progress: Progress) -> RunReport:
    """Runs what the store does not hold yet; the store is locked meanwhile.

    Raises:
        StoreError: another process is at work on the run, or the disk is full.
    """
    manifest = store.manifest
    store.recover()
    with _run_state(manifest) as (open_session, run_cgroup_cpu_ns):
        runner = Runner(
            manifest.plan,
            store,
            open_session=open_session,
            run_cgroup_cpu_ns=run_cgroup_cpu_ns,
            run_id=manifest.run_id,
            progress=progress,
        )
        return runner.run()


@contextmanager
def _run_state(
    manifest: Manifest,
) -> Iterator[tuple[Callable[[str, int], DriverSession], Callable[[], int | None]]]:
    """Yields how to open a session, and the CPU books of everything the run started."""
    group = CgroupHost.detect().group(manifest.run_id)

    def open_session(name: str, seed: int) -> DriverSession:
        context = driver_context(manifest.run_id, manifest.plan, name, seed=seed)
        return registry.get(name).open(context)

    def run_cgroup_cpu_ns() -> int | None:
        reading = group.read_cpu()
        return None if reading is None else reading.total_ns

    yield open_session, run_cgroup_cpu_ns
