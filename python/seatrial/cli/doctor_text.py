"""An examination for a person: what is wrong first, then all by groups, then one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.cli import output
from seatrial.doctor.check import Check, Group, Level
from seatrial.doctor.traits import IDLE_RATIO_MAX, TEARDOWN_NS_MAX, Honour, is_trait
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from seatrial.doctor.examine import Examination
    from seatrial.doctor.runtimes import Ability
    from seatrial.doctor.traits import Traits

MARKS: Final[Mapping[Level, str]] = {
    Level.BROKEN: "[red]✗ broken[/]",
    Level.MISSING: "[magenta]- missing[/]",
    Level.WARN: "[yellow]! warn[/]",
    Level.UNTRIED: "[blue]? untried[/]",
    Level.OK: "[green]✓ ok[/]",
}
#: Headings of the blocks of problems, the worst first.
BLOCKS: Final[Mapping[Level, str]] = {
    Level.BROKEN: "Broken: there, and does not work",
    Level.MISSING: "Missing: not there",
    Level.WARN: "Warnings: works, with a consequence",
    Level.UNTRIED: "Not tried",
}
HEADINGS: Final[Mapping[Group, str]] = {
    Group.NOISE: "Noise of the machine",
    Group.HOST: "Processors and memory",
    Group.CLOCKS: "Clocks",
    Group.LIMITS: "Limits",
    Group.KERNEL: "Kernel options",
    Group.CGROUPS: "Control groups",
    Group.ISOLATION: "Isolation, by trying",
    Group.NETWORK: "Networks, by trying",
    Group.STORAGE: "Storage",
    Group.TOOLS: "Tools",
    Group.LAUNCHER: "Launcher",
    Group.RUNTIMES: "Runtimes, by starting a sandbox",
    Group.KVM: "Virtualisation, by running guests",
    Group.LEFTOVERS: "Leftovers",
}
ABILITY_MARKS: Final[Mapping[str, str]] = {
    "yes": "[green]✓ yes[/]",
    "partly": "[yellow]! partly[/]",
    "no": "[red]✗ no[/]",
}
#: Groups with so many checks of one kind that those which are fine share a line.
FOLDED: Final = frozenset({Group.KERNEL})
BAR_CELLS: Final = 30
NOT_KNOWN: Final = "-"


def show(examination: Examination, *, only_problems: bool) -> None:
    """Print it on standard output."""
    for level, heading in BLOCKS.items():
        found = [check for check in examination.checks if check.level is level]
        if found:
            output.render(_problems(heading, found))
            output.data("")
    if not only_problems:
        for group, heading in HEADINGS.items():
            fine = [one for one in examination.checks if one.group is group]
            _show_group(
                heading,
                [one for one in fine if one.level is Level.OK and not is_trait(one)],
            )
        if examination.traits:
            output.render(_traits(examination.traits))
        if examination.abilities:
            output.render(_abilities(examination.abilities))
    output.data(summary(examination))


def summary(examination: Examination) -> str:
    """Give the sentence at the end: counts, what is usable, and the exit code; pure."""
    counts = ", ".join(f"{examination.count(level)} {level}" for level in Level)
    took = format_duration(examination.elapsed_ns)
    lines = [f"{len(examination.checks)} checks in {took}: {counts}."]
    usable = [one.driver for one in examination.abilities if one.start != "no"]
    if examination.abilities:
        lines.append(f"Usable runtimes: {', '.join(usable) or 'none'}.")
    if examination.blocking:
        names = ", ".join(check.name for check in examination.blocking)
        lines.append(f"Exit code 3: what was chosen needs {names}.")
    else:
        lines.append("Exit code 0: nothing that was chosen stands in the way.")
    return "\n".join(lines)


def _problems(heading: str, checks: Sequence[Check]) -> Table:
    from rich.markup import escape

    table = _table(f"{heading} ({len(checks)})")
    for check in checks:
        text = escape(check.evidence)
        if check.consequence:
            text += f"\n[dim]so:[/]  {escape(check.consequence)}"
        if check.fix:
            text += f"\n[bold]fix:[/] {escape(check.fix)}"
        needed = " (needed)" if check.is_needed else ""
        title = f"{check.group}: {escape(check.name)}{needed}"
        table.add_row(MARKS[check.level], title, text)
    return table


def _show_group(heading: str, checks: Sequence[Check]) -> None:
    from rich.markup import escape

    if not checks:
        return
    table = _table(heading)
    folded = [check for check in checks if check.group in FOLDED and check.values]
    for check in checks:
        if check in folded:
            continue
        text = escape(check.evidence)
        bars = check.values.get("histogram")
        if isinstance(bars, list):
            text += "".join(f"\n[dim]{line}[/]" for line in bar_lines(bars))
        table.add_row(MARKS[Level.OK], escape(check.name), text)
    if folded:
        names = ", ".join(check.name for check in folded)
        table.add_row(MARKS[Level.OK], f"{len(folded)} options", escape(names))
    output.render(table)
    output.data("")


def bar_lines(buckets: Sequence[tuple[str, int]]) -> list[str]:
    """Draw a histogram, one line for each bucket that holds anything; pure."""
    most = max((count for _, count in buckets), default=0)
    return [
        f"{name:>18}  {'█' * max(round(BAR_CELLS * count / most), 1)} {count}"
        for name, count in buckets
        if count
    ]


def _abilities(abilities: Sequence[Ability]) -> Table:
    from rich.markup import escape

    table = _wide_table("What runs on what")
    for column in ("runtime", "start", "density", "inside", "load, fleet, rpc"):
        table.add_column(column, overflow="fold")
    for one in abilities:
        grades = (one.start, one.density, one.inside, one.load)
        table.add_row(escape(one.driver), *(ABILITY_MARKS[grade] for grade in grades))
    return table


def _traits(traits: Sequence[Traits]) -> Table:
    from rich.markup import escape

    table = _wide_table("One sandbox of each, once it runs")
    for column in ("runtime", "idle: CPU", "its daemon", "switches/s", "gone after", "O_DIRECT"):
        table.add_column(column, overflow="fold")
    for one in traits:
        table.add_row(
            escape(one.driver),
            _marked(_share(one.idle_ratio), (one.idle_ratio or 0) > IDLE_RATIO_MAX),
            _share(one.daemon_ratio),
            NOT_KNOWN if one.switches_rps is None else f"{one.switches_rps:.0f}",
            NOT_KNOWN
            if one.teardown_ns is None
            else _marked(format_duration(one.teardown_ns), one.teardown_ns > TEARDOWN_NS_MAX),
            _marked(one.honour.value, one.honour in {Honour.IGNORED, Honour.REFUSED}),
        )
    return table


def _marked(text: str, is_bad: bool) -> str:  # noqa: FBT001 - one of two words of a cell
    return f"[yellow]! {text}[/]" if is_bad else text


def _share(ratio: float | None) -> str:
    return NOT_KNOWN if ratio is None else f"{ratio:.2%}"


def _wide_table(heading: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=heading,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )


def _table(heading: str) -> Table:
    from rich.table import Table

    table = Table(
        title=heading,
        box=None,
        show_header=False,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column(no_wrap=True, width=9)
    table.add_column(overflow="fold", width=27)
    table.add_column(overflow="fold")
    return table
