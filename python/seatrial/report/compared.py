"""Two runs side by side in a terminal: what differs, under which conditions, how sure it is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group as Stack
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seatrial.model.estimate import Estimate
from seatrial.model.summary import Verdict
from seatrial.report.text import VERDICT_STYLES
from seatrial.report.view import (
    GLYPHS,
    format_estimate,
    format_factor,
    format_ratio_interval,
    point_title,
    verdict_word,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from seatrial.model.metric import Metric
    from seatrial.model.summary import Change, RunComparison

#: Beside a ratio whose two sides differ in more than what is compared.
CONFOUNDED = "¶"
HEADINGS = ("runtime", "point", "metric", "before", "after", "ratio", "verdict", "p, Holm")
#: Smaller p values are all "certain"; the interval tells more.
P_SHOWN_MIN = 1e-4


def render_comparison(
    comparison: RunComparison, *, metrics: dict[str, Metric], is_adjusted: bool = False
) -> RenderableType:
    """Two runs as something that Rich can print: what differs, then how much did not.

    With ``is_adjusted`` only what stands after Holm's correction counts as different.
    """
    parts: list[RenderableType] = [
        Text(f"{comparison.before_run_id} -> {comparison.after_run_id}", style="bold")
    ]
    parts += [Text(f"▲ warning  {warning}", style="yellow") for warning in comparison.warnings]
    verdicts = [one.adjusted if is_adjusted else one.verdict for one in comparison.changes]
    different = [
        one
        for one, verdict in zip(comparison.changes, verdicts, strict=True)
        if verdict in VERDICT_STYLES
    ]
    if different:
        parts += ["", _table(different, metrics)]
    explained = [one for one in different if one.explanation]
    single = [
        one for one in comparison.changes if one.explanation and one.verdict is Verdict.NOT_JUDGED
    ]
    parts += [""] if explained or single else []
    parts += [
        Text(
            f"{GLYPHS[one.verdict]} {one.driver}, {one.point.key}, {one.metric}: {one.explanation}",
            style=VERDICT_STYLES[one.verdict],
        )
        for one in explained
    ]
    parts += [
        Text(f"{one.driver}, {one.point.key}, {one.metric}{_mark(one)}: {one.explanation}")
        for one in single
    ]
    counts = Counter(verdicts)
    alike, unresolved = counts[Verdict.INDISTINGUISHABLE], counts[Verdict.UNRESOLVED]
    parts += [
        "",
        f"{len(different)} different, {alike} indistinguishable, {unresolved} unresolved",
    ]
    names = dict.fromkeys(name for one in comparison.changes for name in one.despite)
    if names:
        parts.append(
            Text(f"{CONFOUNDED} not of the runtimes alone: {', '.join(names)}", style="yellow")
        )
    if comparison.unmatched:
        parts.append(f"only in one of them: {escape('; '.join(comparison.unmatched))}")
    return Stack(*parts)


def _table(different: Sequence[Change], metrics: dict[str, Metric]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, header_style="dim")
    for change in different:
        ratio = change.ratio
        told = (
            f"{format_factor(ratio.point)} {format_ratio_interval(ratio)}"
            if isinstance(ratio, Estimate)
            else ""
        )
        table.add_row(
            escape(change.driver),
            escape(f"{change.bench} {point_title(change.point)}".strip()),
            f"{change.metric} {change.statistic}",
            format_estimate(change.before, change.unit),
            format_estimate(change.after, change.unit),
            f"{told}{_mark(change)}",
            Text(
                f"{GLYPHS[change.verdict]} {verdict_word(change.verdict, metrics[change.metric])}",
                style=VERDICT_STYLES[change.verdict],
            ),
            _chance(change),
        )
    return table


def _mark(change: Change) -> str:
    return CONFOUNDED if change.despite else ""


def _chance(change: Change) -> str:
    """The corrected p value, and whether the difference may still be chance."""
    if change.p_holm is None:
        return ""
    shown = f"< {P_SHOWN_MIN:g}" if change.p_holm < P_SHOWN_MIN else f"{change.p_holm:.2g}"
    return shown if change.adjusted is change.verdict else f"{shown}, may be chance"
