"""The whole examination: which steps, in a safe order, and what came of them.

The noise of the machine comes first, while nothing of ours runs; then everything that only looks;
then what starts small things; then sandboxes. What may hang (guests under KVM) has lanes of its own
beside the rest. A sandbox of each runtime that works stays, and is looked at when nothing else goes
on any more; what was left behind is looked for at the end.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.doctor import (
    cgroups,
    clocks,
    daemons,
    host,
    isolation,
    kernel,
    kvm,
    launcher,
    leftovers,
    limits,
    networks,
    noise,
    runtimes,
    storage,
    tools,
)
from seatrial.doctor.check import About, Check, Group, Level
from seatrial.doctor.runtimes import NO, Ability
from seatrial.doctor.step import BUDGET_NS, NS_PER_S, Performer, Step
from seatrial.doctor.traits import Traits
from seatrial.doctor.tree import Tree
from seatrial.drivers import registry
from seatrial.drivers.base import state_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from seatrial.doctor.gallery import Gallery

BASELINE: Final = "process"
#: Longest that a driver's own deadlines allow: a machine that is emulated boots for long.
RUNTIME_DEADLINE_NS: Final = 90 * NS_PER_S
MAIN_LANE: Final = "main"
#: The lane of a driver, by how its name begins; all others share the main one.
LANES: Final = (
    ("qemu-template", "templates"),
    ("qemu", "machines"),
    ("runsc-kvm", "gvisor-kvm"),
    ("cri/", "servers"),
    ("podman", "servers"),
    ("docker", "servers"),
    ("nerdctl", "servers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to examine."""

    groups: frozenset[Group] = frozenset(Group)
    drivers: tuple[str, ...] | None = None
    """Only these, all of which must work; None: all, of which the baseline must work."""
    starts: bool = True
    """False: nothing is started, only looked at."""
    run_dir: Path = Path("runs")
    tools_dir: Path = Path("tools")
    """Where the set-up keeps programs that the system does not bring."""
    budget_ns: int = BUDGET_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of it."""

    checks: tuple[Check, ...]
    abilities: tuple[Ability, ...]
    elapsed_ns: int
    traits: tuple[Traits, ...] = ()
    """What sandboxes cost and do once they run, where one was looked at."""

    @property
    def blocking(self) -> tuple[Check, ...]:
        """What keeps the chosen runtimes from running."""
        return tuple(check for check in self.checks if check.is_blocking)

    def count(self, level: Level) -> int:
        """Count the checks of a level."""
        return sum(check.level is level for check in self.checks)


@dataclass(slots=True)
class _Abilities:
    """Collected by steps on several threads; appending is atomic."""

    found: list[Ability] = field(default_factory=list)

    def can_start(self, driver: str) -> bool:
        """Tell whether a sandbox of a driver has started; what is not known yet has not."""
        return any(one.driver == driver and one.start != NO for one in self.found)


def examine(
    wanted: Wanted,
    *,
    tree: Tree | None = None,
    tell: Callable[[Step], None] | None = None,
) -> Examination:
    """Examine this machine; takes about as long as its slowest runtime."""
    started_ns = time.monotonic_ns()
    before = leftovers.take_stock(wanted.run_dir)
    performer = Performer(budget_ns=wanted.budget_ns, tell=tell)
    abilities = _Abilities()
    machine = tree or Tree()
    commands = leftovers.read_commands(machine)
    checks = performer.perform(_first_steps(wanted, machine))
    with ExitStack() as stack:
        shown = stack.enter_context(_gallery(wanted)) if _starts_runtimes(wanted) else None
        if shown is not None:
            checks += performer.perform([shown.prepare_step()])
        checks += performer.perform_lanes(_lanes(wanted, abilities, machine, shown))
        if shown is not None:
            checks += performer.perform(shown.look_steps())
    checks += performer.perform(_last_steps(wanted, commands, before))
    order = list(registry.names())
    return Examination(
        checks=tuple(_in_order(checks, order)),
        abilities=tuple(sorted(abilities.found, key=lambda one: order.index(one.driver))),
        elapsed_ns=time.monotonic_ns() - started_ns,
        traits=() if shown is None else shown.traits,
    )


def chosen_drivers(wanted: Wanted) -> tuple[str, ...]:
    """Give the drivers that are tried."""
    if wanted.drivers is not None:
        return wanted.drivers
    return tuple(name for name in registry.names() if name not in registry.AUXILIARY)


def _first_steps(wanted: Wanted, tree: Tree) -> list[Step]:
    looks: dict[Group, Callable[[], Iterable[Check]]] = {
        Group.NOISE: partial(noise.check_noise, tree),
        Group.HOST: partial(host.check_host, tree),
        Group.CLOCKS: partial(clocks.check_clocks, tree),
        Group.LIMITS: partial(limits.check_limits, tree),
        Group.KERNEL: partial(kernel.check_kernel, tree),
        Group.CGROUPS: partial(cgroups.check_cgroups, tree),
        Group.ISOLATION: isolation.check_isolation,
        Group.NETWORK: partial(networks.check_networks, tree),
        Group.STORAGE: partial(
            storage.check_storage, tree, run_dir=wanted.run_dir, state_dir=state_root()
        ),
        Group.TOOLS: partial(tools.check_tools, starts=wanted.starts),
        Group.LAUNCHER: (
            launcher.check_launcher if wanted.starts else partial(_not_started, Group.LAUNCHER)
        ),
    }
    return [
        Step(group=group, name=group.value, look=look)
        for group, look in looks.items()
        if group in wanted.groups
    ]


def _not_started(group: Group) -> Iterator[Check]:
    yield About(group).untried(group.value, "nothing is started (--fast)")


def _starts_runtimes(wanted: Wanted) -> bool:
    return wanted.starts and Group.RUNTIMES in wanted.groups


def _gallery(wanted: Wanted) -> Gallery:
    # Benches are behind it, and tables behind them: who starts nothing need not load them.
    from seatrial.doctor.gallery import Gallery, worth_looking_at

    return Gallery(worth_looking_at(chosen_drivers(wanted)), storage.existing(wanted.run_dir))


def _lane_of(driver: str) -> str:
    return next((lane for start, lane in LANES if driver.startswith(start)), MAIN_LANE)


def _lanes(
    wanted: Wanted, abilities: _Abilities, tree: Tree, shown: Gallery | None
) -> list[list[Step]]:
    lanes: dict[str, list[Step]] = {MAIN_LANE: []}
    for _, lane in LANES:
        lanes[lane] = []
    if Group.RUNTIMES in wanted.groups:
        look = partial(daemons.check_daemons, tree, tools=wanted.tools_dir)
        lanes[MAIN_LANE].append(Step(group=Group.RUNTIMES, name="daemons", look=look))
    if Group.KVM in wanted.groups:
        look = partial(kvm.check_device, tree, starts=wanted.starts)
        lanes["machines"].append(Step(group=Group.KVM, name="device", look=look))
        boot = kvm.check_boot if wanted.starts else partial(_not_started, Group.KVM)
        lanes["machines"].append(
            Step(group=Group.KVM, name="boot", look=boot, deadline_ns=RUNTIME_DEADLINE_NS)
        )
    if Group.RUNTIMES in wanted.groups:
        for name in chosen_drivers(wanted):
            steps = lanes[_lane_of(name)]
            steps.append(_runtime_step(name, wanted, abilities))
            if shown is not None and name in shown.drivers:
                steps.append(shown.start_step(name, is_wanted=partial(abilities.can_start, name)))
    return [steps for steps in lanes.values() if steps]


def _runtime_step(name: str, wanted: Wanted, abilities: _Abilities) -> Step:
    is_needed = name in (wanted.drivers or (BASELINE,))

    def look() -> Iterator[Check]:
        if not wanted.starts:
            yield About(Group.RUNTIMES).untried(name, "not started (--fast)")
            return
        check, ability = runtimes.check_runtime(name, is_needed=is_needed)
        abilities.found.append(ability)
        yield check

    return Step(group=Group.RUNTIMES, name=name, look=look, deadline_ns=RUNTIME_DEADLINE_NS)


def _last_steps(wanted: Wanted, commands: Mapping[int, str], before: leftovers.Stock) -> list[Step]:
    steps = []
    if Group.LEFTOVERS in wanted.groups:
        look = partial(leftovers.check_leftovers, commands)
        steps.append(Step(group=Group.LEFTOVERS, name="leftovers", look=look))
    # Whatever was asked for: who starts things owns up to what stayed.
    steps.append(
        Step(
            group=Group.LEFTOVERS,
            name="this examination",
            look=lambda: [leftovers.audit(before, wanted.run_dir)],
        )
    )
    return steps


def _in_order(checks: Sequence[Check], drivers: Sequence[str]) -> list[Check]:
    """Sort by group, and runtimes as the tables list them; otherwise as they came."""
    groups = list(Group)

    def key(check: Check) -> tuple[int, int]:
        is_driver = check.group is Group.RUNTIMES and check.name in drivers
        return groups.index(check.group), drivers.index(check.name) if is_driver else len(drivers)

    return sorted(checks, key=key)
