"""How the numbers of this run were made, in a few paragraphs that stand beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.model.summary import MethodNote
from seatrial.stats.drift import COLD_LIMIT_RATIO, DRIFT_LIMIT_RATIO
from seatrial.stats.quantile import needed_count
from seatrial.stats.ratio import LARGE_RATIO, NOISE_FLOOR_RATIO
from seatrial.stats.validity import FOREIGN_CPU_RATIO_MAX, STEAL_RATIO_MAX

if TYPE_CHECKING:
    from seatrial.model.plan import Plan

FEW_BLOCKS = 5


def method_notes(plan: Plan, *, compared_count: int) -> tuple[MethodNote, ...]:
    """The paragraphs, with the run's own numbers in them."""
    experiment = plan.experiment
    confidence = experiment.confidence
    few = (
        f" With only {experiment.blocks} blocks the intervals of ratios are wide, and differences "
        "between blocks are known poorly; five or more are better."
        if experiment.blocks < FEW_BLOCKS
        else ""
    )
    return (
        *_scaled(plan),
        MethodNote(
            title="Order of trials",
            text=f"{len(plan.trials)} trials in {experiment.blocks} blocks. A block holds every "
            "driver at every point once, in an order shuffled by the seed, so that a slow quarter "
            f"of an hour hits all drivers alike.{few}",
        ),
        MethodNote(
            title="Percentiles",
            text=f"Each stands with its exact order-statistic interval at {confidence:.0%}. "
            "Samples that depend on each other, within a trial or within a block, count for as "
            "many independent ones as they are worth. Where a sample is too small there is no "
            f"number: p50 needs {needed_count(0.5, confidence=confidence)} independent values, "
            f"p99 needs {needed_count(0.99, confidence=confidence)}.",
        ),
        MethodNote(
            title="Values that exist once a trial",
            text="Memory, throughput and CPU a request get a mean over the trials with Student's "
            "interval. Memory against count gets a least-squares line: its slope is what one more "
            "sandbox costs, its value at zero is what all share.",
        ),
        MethodNote(
            title="Ratios and verdicts",
            text=f"A ratio is the driver's median over the median of {experiment.baseline}, with "
            "an interval from resampling whole blocks (bootstrap standard error of the logarithm, "
            "Student's t). Faster or slower is said only when the interval excludes 1 and the "
            f"difference exceeds {NOISE_FLOOR_RATIO:.0%}; faster means better in the metric's own "
            "direction. What is not different is indistinguishable if its interval stays within a "
            f"factor of {LARGE_RATIO}, and unresolved if not. {compared_count} comparisons were "
            f"made at {confidence:.0%} each, without a correction for their number.",
        ),
        MethodNote(
            title="Floor",
            text="The row 'floor' is the launcher starting a program that does nothing, as many at "
            "once as the runtimes beside it, just before each of their batches. It is the "
            "instrument's own share, and is not subtracted.",
        ),
        MethodNote(
            title="Noise",
            text="Timed windows open after a quiet gate and keep books: more than "
            f"{FOREIGN_CPU_RATIO_MAX:.0%} foreign CPU or {STEAL_RATIO_MAX:.0%} steal makes a "
            "window noisy. Null starts before every trial watch for drift beyond "
            f"{DRIFT_LIMIT_RATIO:.0%}. A first round more than {COLD_LIMIT_RATIO} times the later "
            "ones is called cold. Nothing is dropped for any of it.",
        ),
    )


def _scaled(plan: Plan) -> tuple[MethodNote, ...]:
    """Numbers of a smaller experiment are not those of the one that it is named after."""
    scaling = plan.experiment.scaling
    if scaling is None:
        return ()
    said = "; ".join(scaling.changes) or "nothing became another value"
    text = f"The experiment was scaled by {scaling.factor:g} for this machine. {said}."
    return (MethodNote(title="Scale", text=text),)
