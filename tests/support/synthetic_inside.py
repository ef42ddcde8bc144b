"""Tables of work inside of sandboxes, with known troubles in them; see `tests.support.synthetic`.

What is scripted: runsc's direct I/O never reaches the device; lean's fsync beats the host's; one of
runc's reads fails in every trial; Python cannot be started in bwrap; runc has no network; one of
runsc's hellos takes three times as long as the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seatrial.benches.inside_metrics import MEASURED, inside_test, works_of
from seatrial.model.experiment import FioVariant, InsideSettings, InsideTest

if TYPE_CHECKING:
    import random

    from seatrial.model.plan import TrialSpec

Row = Mapping[str, object]
MIB = 1 << 20
REPEATS = 5
#: How much longer work takes than on the host.
FACTORS = {"process": 1.0, "lean": 1.06, "bwrap": 1.5, "runc": 12.0, "runsc": 140.0}
FIRST_FACTOR = 1.8
NOISE = 0.004
INSIDE = InsideSettings(
    probes=("syscall", "page-fault"),
    batches=12,
    tests=(
        InsideTest.PROBES,
        InsideTest.HELLO,
        InsideTest.DD,
        InsideTest.FIO,
        InsideTest.NETWORK,
        InsideTest.FUNCTIONS,
    ),
    repeats=REPEATS,
    fio_variants=(FioVariant.DIRECT,),
    fio_jobs=("randread", "randrw"),
)


def inside_tables(spec: TrialSpec, rng: random.Random) -> dict[str, list[Row]]:
    """The tables of one trial of a test."""
    tables: dict[str, list[Row]] = {"attempts": [], "readings": []}
    test = inside_test(spec.point)
    for work in works_of(spec.point, INSIDE):
        missing = _missing(spec.driver, test, work)
        if missing is not None:
            tables["attempts"] += [{**missing, "work": work, "position": 0, "is_direct": False}]
            if missing["outcome"] == "unsupported":
                again = {**missing, "work": work, "is_direct": False}
                tables["attempts"] += [{**again, "position": n + 1} for n in range(REPEATS)]
            continue
        for position in range(REPEATS + 1):
            _add_try(tables, spec, work, position, rng)
    return tables


def _missing(driver: str, test: InsideTest, work: str) -> dict[str, object] | None:
    if driver == "runc" and test is InsideTest.NETWORK:
        return {"outcome": "skipped", "reason": "runc has no network here"}
    if driver == "bwrap" and work == "python":
        return {"outcome": "unsupported", "reason": "start python: No such file or directory"}
    return None


def _add_try(
    tables: dict[str, list[Row]], spec: TrialSpec, work: str, position: int, rng: random.Random
) -> None:
    test = inside_test(spec.point)
    has_files = test in {InsideTest.DD, InsideTest.FIO}
    is_direct = test is InsideTest.FIO
    is_lost = spec.driver == "runc" and work == "read" and position == 2
    moved = 256 * MIB
    # Plain dd stays in the page cache on every runtime.
    stays = (spec.driver == "runsc" and is_direct) or work in {"write", "read"}
    seen = 0 if stays else moved + 4096
    tables["attempts"].append(
        {
            "work": work,
            "position": position,
            "outcome": "failed" if is_lost else "ok",
            "reason": "fell over <here>" if is_lost else None,
            "is_direct": is_direct,
            "read_bytes": moved if has_files else None,
            "written_bytes": moved if has_files else None,
            "device_read_bytes": seen if has_files else None,
            "device_written_bytes": seen if has_files else None,
            "filesystem": "ext4" if has_files else None,
            "route": "veth pair" if test is InsideTest.NETWORK else None,
        }
    )
    if is_lost:
        return
    for metric in MEASURED[test][work]:
        tables["readings"].append(
            {
                "work": work,
                "position": position,
                "metric": metric,
                "value": _value(spec.driver, metric, position) * rng.lognormvariate(0, NOISE),
            }
        )


def _value(driver: str, metric: str, position: int) -> float:
    factor = FACTORS[driver] * (FIRST_FACTOR if position == 0 else 1)
    if driver == "runsc" and metric == "hello_real_ns" and position == 3:
        factor *= 3
    if metric.endswith("_ns"):
        return 1e6 * factor
    if driver == "runsc" and metric.startswith("fio"):
        factor = 0.2  # its memory is faster than any disk
    if driver == "lean" and metric == "dd_sync_write_bytes_per_s":
        factor = 0.7
    return 1e9 / factor
