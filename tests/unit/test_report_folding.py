"""Findings of a kind take one line, and none of them is lost."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from seatrial.model.finding import Finding, Severity
from seatrial.report.export import to_json, to_markdown
from seatrial.report.folding import fold
from seatrial.report.page import render_page
from seatrial.report.text import render_text
from tests.support.runs import small_run, summary_of

if TYPE_CHECKING:
    from seatrial.model.summary import RunSummary

POINTS = [f"load mode=open rate_rps={rate}" for rate in range(100, 120)]
REMARKS = tuple(
    Finding(
        code="not-independent",
        severity=Severity.INFO,
        message=f"{point}: response times depend on each other, at {point[-3:]}",
        driver="runc" if number % 2 else "lean",
        evidence={"samples_count": number},
    )
    for number, point in enumerate(POINTS)
)
LOST = tuple(
    Finding(code="trial-failed", severity=Severity.ERROR, message=f"reason {number}")
    for number in range(2)
)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A scripted run with twenty remarks and two errors."""
    known = summary_of(small_run(tmp_path_factory.mktemp("run")))
    return dataclasses.replace(known, findings=(*LOST, *REMARKS))


def test_each_code_is_folded_once_and_keeps_its_members() -> None:
    """Severity and code make a fold; the members stay in their order."""
    folds = fold((REMARKS[0], *LOST, *REMARKS[1:]))
    assert [(one.code, len(one.members)) for one in folds] == [
        ("not-independent", 20),
        ("trial-failed", 2),
    ]
    assert folds[0].members == REMARKS
    assert folds[0].drivers == {"lean": 10, "runc": 10}
    assert folds[0].places == f"lean {POINTS[0]}, runc {POINTS[1]}, lean {POINTS[2]}, and 17 more"


def test_a_terminal_has_one_line_for_twenty_remarks_and_one_for_every_error(
    summary: RunSummary,
) -> None:
    """Remarks are counted, with the first places; what failed is told one by one."""
    console = Console(width=300, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(render_text(summary))
    told = [line for line in captured.get().splitlines() if "not-independent" in line]
    assert len(told) == 1
    assert "20 times" in told[0]
    assert POINTS[2] in told[0]
    assert "and 17 more" in told[0]
    assert all(finding.message in captured.get() for finding in LOST)


def test_what_concerns_runtimes_as_a_whole_keeps_its_reasons() -> None:
    """Each reason has its line with all whom it is about; places in a grid stay folded."""
    shared = "no veth networks without root"
    whole = [
        Finding(code="degraded", severity=Severity.WARNING, message=message, driver=driver)
        for driver, message in (("crun", shared), ("runc", shared), ("cri/kata", "emulated"))
    ]
    (known,) = fold(whole)
    assert known.is_told_whole
    assert [(one.about, one.told) for one in known.reasons] == [
        ("crun, runc", shared),
        ("cri/kata", "emulated"),
    ]
    (twice,) = fold((*whole, whole[0]))
    assert not twice.is_told_whole, "a list of what one driver lacks is long"
    assert twice.reasons[0].told == f"{shared} (3 times)"
    at_points = dataclasses.replace(REMARKS[0], severity=Severity.WARNING)
    other = dataclasses.replace(REMARKS[1], severity=Severity.WARNING)
    assert not fold((at_points, other))[0].is_told_whole
    left_out = [dataclasses.replace(one, severity=Severity.INFO) for one in whole]
    assert not fold(left_out)[0].is_told_whole, "what changes no number is counted"


def test_markdown_folds_as_the_terminal_does(summary: RunSummary) -> None:
    """Twenty remarks are a line, and errors a line each."""
    lines = [line for line in to_markdown(summary).splitlines() if line.startswith("- ")]
    assert len([line for line in lines if "not-independent" in line]) == 1
    assert len([line for line in lines if "trial-failed" in line]) == 2


def test_the_page_folds_and_holds_each(summary: RunSummary) -> None:
    """One entry of the list with a count; every message is there to be opened, errors at once."""
    page = render_page(summary, figures=())
    assert page.count('<li class="info">') == 1
    assert "20 times" in page
    assert all(finding.message in page for finding in (*REMARKS, *LOST))
    assert page.count("<details open>") == 1


def test_json_holds_each(summary: RunSummary) -> None:
    """Nothing is folded where programs read."""
    assert len(json.loads(to_json(summary))["findings"]) == 22
