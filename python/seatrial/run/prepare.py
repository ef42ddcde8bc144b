"""From an experiment to a run directory, and from a run directory to a runner at work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, DriverSession, ProbeStatus, new_run_id
from seatrial.drivers.local import trouble_with
from seatrial.errors import ConfigError, DriverUnavailable, EnvironmentTrouble
from seatrial.loadgen import build_info
from seatrial.probes.cgroup import CgroupHost
from seatrial.probes.fingerprint import read_fingerprint
from seatrial.run.runner import Runner, RunReport
from seatrial.store.manifest import Manifest, Versions
from seatrial.store.run_store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from seatrial.drivers.base import ProbeResult
    from seatrial.model.plan import Plan
    from seatrial.run.progress import Progress

RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the drivers of a plan are here, with the experiment's options."""

    versions: Mapping[str, str]
    flags: Mapping[str, Mapping[str, str]]
    degraded: Mapping[str, str]


def check_drivers(plan: Plan, probes: Mapping[str, ProbeResult] = MappingProxyType({})) -> Checked:
    """Really starts a sandbox of each driver, then opens each as the trials will.

    ``probes``: what has just been found out, and is not tried again. Versions and flags are those
    of a session with the experiment's options, which may name another server or runtime than the
    one that the probe takes.

    Raises:
        DriverUnavailable: some do not work here; the message names all of them and why.
    """
    results = {name: probes.get(name) or registry.get(name).probe() for name in plan.drivers}
    unusable = [result for result in results.values() if not result.status.is_usable]
    if unusable:
        hints = dict.fromkeys(result.hint for result in unusable if result.hint)
        raise DriverUnavailable(
            "\n".join(f"{one.name} is {one.status}: {one.detail}" for one in unusable),
            hint="; ".join(hints) or "run 'seatrial doctor', or name other drivers with --drivers",
        )
    versions: dict[str, str] = {}
    flags: dict[str, Mapping[str, str]] = {}
    troubles: list[str] = []
    for name in plan.drivers:
        context = driver_context(new_run_id("probe-"), plan, name)
        driver = registry.get(name)
        with driver.open(context) as session:
            versions[name], flags[name] = session.version, dict(session.flags)
            trouble = trouble_with(driver, session) if context.options else None
        if trouble is not None:
            troubles.append(f"{name} does not work with the options of its table: {trouble}")
    if troubles:
        raise DriverUnavailable("\n".join(troubles), hint="change them, or leave it out")
    return Checked(
        versions=versions,
        flags=flags,
        degraded={
            name: result.detail
            for name, result in results.items()
            if result.status is ProbeStatus.DEGRADED
        },
    )


def check_core(*, allows_debug: bool) -> str:
    """Returns the core's version.

    Raises:
        EnvironmentTrouble: it is a debug build, whose numbers mean nothing.
    """
    core = build_info()
    if core.profile != RELEASE and not allows_debug:
        raise EnvironmentTrouble(
            f"the Rust core is a {core.profile} build; expected a release build",
            hint="run 'make build', or pass --allow-debug-core to try the tool itself",
        )
    return core.version


def check_resume(store: RunStore, *, is_forced: bool, allows_debug_core: bool) -> None:
    """Makes sure that the rest of a run is measured by what its beginning was measured by.

    Raises:
        DriverUnavailable: a driver of the plan no longer works here.
        ConfigError: machine or versions differ, and nobody insisted.
    """
    manifest = store.manifest
    core_version = check_core(allows_debug=allows_debug_core)
    checked = check_drivers(manifest.plan)
    now = {"seatrial": core_version, **checked.versions}
    before = {"seatrial": manifest.versions.core, **manifest.versions.drivers}
    changed = [
        f"{name} was {before.get(name)}, is {version}"
        for name, version in now.items()
        if before.get(name) != version
    ]
    changed += [
        f"{fact} was {manifest.fingerprint.facts.get(fact)!r}"
        for fact in manifest.fingerprint.differences(read_fingerprint())
    ]
    if changed and not is_forced:
        raise ConfigError(
            f"run {manifest.run_id} was begun under other conditions: {'; '.join(changed)}",
            hint="begin a new run, or pass --force to mix both in one",
            code="resume-differs",
        )


def create_run(
    root: Path,
    plan: Plan,
    *,
    text: str,
    source: str,
    skipped: Mapping[str, str],
    probes: Mapping[str, ProbeResult] = MappingProxyType({}),
    allows_debug_core: bool = False,
) -> RunStore:
    """Makes the run directory with everything known before the first trial.

    Raises:
        DriverUnavailable: a driver of the plan does not work here.
        EnvironmentTrouble: the core is a debug build, whose numbers mean nothing.
        StoreError: the directory cannot be written.
    """
    core_version = check_core(allows_debug=allows_debug_core)
    checked = check_drivers(plan, probes)
    run_id = new_run_id()
    content = Manifest(
        run_id=run_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        experiment_text=text,
        experiment_source=source,
        plan=plan,
        versions=Versions(
            seatrial=core_version,
            core=core_version,
            core_profile=build_info().profile,
            python=str(read_fingerprint().facts["python"]),
            drivers=checked.versions,
        ),
        fingerprint=read_fingerprint(),
        driver_flags=checked.flags,
        skipped_drivers=skipped,
        degraded_drivers=checked.degraded,
    )
    return RunStore.create(root, content)


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

    with registry.keep_daemons(manifest.run_id):
        yield open_session, run_cgroup_cpu_ns
