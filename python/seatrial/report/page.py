"""The page: one HTML file with everything in it, readable offline and in a hundred years.

Text is escaped by Jinja; data that scripts read travels as JSON in which ``<`` cannot occur. The
content security policy forbids every request, so the page cannot call anybody even by mistake.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from seatrial.model.estimate import Estimate
from seatrial.report.board import (
    RELATION_MEANINGS,
    STATUS_MEANINGS,
    has_statuses,
    ordering_lines,
    overview_of,
)
from seatrial.report.charts import build_figures
from seatrial.report.folding import fold
from seatrial.report.palette import inks_of
from seatrial.report.runtimes import is_imported
from seatrial.report.view import (
    SEVERITY_GLYPHS,
    bench_views,
    marks_in,
    severity_counts,
    trials_told,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.finding import Finding
    from seatrial.model.summary import RunSummary
    from seatrial.report.parts import Figure

#: What the bundled script hands to ours; without it Vega would stay inside the bundle.
SNIPPET = "window.vegaEmbed = vegaEmbed;"
#: More tables than this stand behind the figures, folded.
TABLES_SHOWN_MAX = 4
RESOURCES = files("seatrial.report")


def render_page(summary: RunSummary, *, figures: Sequence[Figure] | None = None) -> str:
    """The whole page as text."""
    drawn = build_figures(summary) if figures is None else figures
    return render_template(
        "page.html.j2",
        figures=drawn,
        findings=summary.findings,
        summary=summary,
        views=bench_views(summary),
        inks=inks_of(tuple(driver.name for driver in summary.drivers)),
        marks_in=marks_in,
        tables_shown_max=TABLES_SHOWN_MAX,
        is_imported=is_imported(summary),
        trials=trials_told(summary),
        overview=overview_of(summary),
        orderings=ordering_lines(summary),
        relation_meanings=RELATION_MEANINGS,
        status_meanings=STATUS_MEANINGS if has_statuses(summary) else {},
        is_estimate=lambda value: isinstance(value, Estimate),
    )


def render_template(
    name: str, *, figures: Sequence[Figure], findings: Sequence[Finding], **values: object
) -> str:
    """A page of a template, with the figures and findings that every page has."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _resource(f"templates/{name}")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(name).render(
        figures=figures,
        folds=fold(findings),
        severities=severity_counts(findings),
        severity_glyphs=SEVERITY_GLYPHS,
        style=_resource("static/page.css"),
        script=_resource("static/page.js"),
        vega=_vega_bundle(),
        specs=_json({figure.name: figure.spec for figure in figures}),
        **values,
    )


def _json(value: object) -> str:
    """JSON that may stand inside a script element: no ``<`` can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _number(value: float) -> str:
    """A number as it is stored, without loss."""
    return repr(float(value))


def _resource(name: str) -> str:
    return RESOURCES.joinpath(name).read_text("utf-8")


@lru_cache(maxsize=1)
def _vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the library that also draws SVG."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(SNIPPET)
    return bundle.replace("</script", "<\\/script")
