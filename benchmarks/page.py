"""Writes `RESULTS.md`: a table for each family; what was not measured anew stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.rows import COLUMNS
from seatrial.probes.fingerprint import read_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.rows import Row

FACTS = ("cpu_model", "processors_count", "kernel", "hypervisor", "cgroup_mode", "distribution")
#: The heading that `benchmarks.endurance` prints its table under.
ENDURANCE = "Endurance"
HEAD = """\
# Benchmark results

Made by `make bench`, on a machine that others may share: single values of two different days are
not worth comparing. Within a row all sides ran in turn in the same minutes (A B, B A), each server
on one processor and each client on another. *Ratio* is of the medians over the rounds, with a 95 %
interval that resamples rounds; of *N quads* it is the geometric mean of the ratios of N times four
runs in turn (A B B A, then B A A B), with Student's interval. Where there is no ratio, our value
has a 95 % interval of its median. *Met* means that the whole interval reaches the target, *not
met* that none of it does, *uncertain* that the target lies within. *Foreign CPU* is how many
processors others kept busy in the worst run, or round of quads, that counts. T1 to T17 are the
project's targets; a row without a number has none.
"""


def machine() -> str:
    """Returns the line that says where the numbers come from."""
    facts = read_fingerprint().facts
    known = [f"{name} {facts[name]}" for name in FACTS if facts.get(name) is not None]
    return "; ".join(known)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def family_text(rows: Sequence[Row], *, how: str, versions: Mapping[str, str]) -> str:
    """Returns what stands under a family's heading."""
    against = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [f"{how} {machine()}.", *([f"Beside {against}."] if against else [])]
    return "\n".join(lines) + "\n\n" + table(rows) + "\n"


def read_families(page: str) -> dict[str, str]:
    """Returns what stands under each family's heading on an earlier page."""
    parts = page.split("\n### ")[1:]
    found = {}
    for part in parts:
        name, _, text = part.partition("\n")
        # The next section's heading is not part of the family.
        found[name.strip()] = text.split("\n## ")[0].strip() + "\n"
    return found


def whole(sections: Mapping[str, Sequence[str]], families: Mapping[str, str]) -> str:
    """Returns the page: sections in order, in each the families that have a text."""
    parts = [HEAD]
    for section, names in sections.items():
        present = [name for name in names if name in families]
        if present:
            parts.append(f"## {section}\n")
            parts += [f"### {name}\n\n{families[name]}" for name in present]
    return "\n".join(parts)
