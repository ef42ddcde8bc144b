"""A run is not finished by another runtime than it was begun with, unless somebody insists."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import ConfigError
from seatrial.run.prepare import check_resume, create_run
from seatrial.store.run_store import RunStore
from tests.support.fake_run import parse_plan, run_text
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
name = "resumed"
blocks = 1
baseline = "fake"
drivers = ["fake"]
[inside]
batches = 1
"""


@pytest.mark.driver
def test_resuming_under_other_conditions(tmp_path: Path) -> None:
    """The message names what changed; the same conditions and --force go on."""
    _, path = run_text(TEXT, tmp_path)
    with RunStore.open(path) as store:
        check_resume(store, is_forced=False, allows_debug_core=False)
        versions = dataclasses.replace(store.manifest.versions, drivers={"fake": "0.0.1"})
        store.manifest = dataclasses.replace(store.manifest, versions=versions)
        with pytest.raises(ConfigError, match=r"fake was 0\.0\.1, is ") as caught:
            check_resume(store, is_forced=False, allows_debug_core=False)
        assert caught.value.code == "resume-differs"
        check_resume(store, is_forced=True, allows_debug_core=False)


@pytest.mark.driver
def test_the_version_told_is_that_of_the_runtime_which_the_options_name(tmp_path: Path) -> None:
    """A podman told to take crun is not labelled with runc, and crun works below it here.

    A resumed run asks the same.
    """
    needs_driver("podman")
    needs_driver("crun")
    text = TEXT.replace('"fake"', '"podman"') + '[driver.podman]\nruntime = "crun"\n'
    plan = parse_plan(text, tmp_path)
    with create_run(tmp_path / "runs", plan, text=text, source="-", skipped={}) as store:
        version = store.manifest.versions.drivers["podman"]
        assert version is not None
        assert "+crun-" in version
        assert store.manifest.driver_flags["podman"]["runtime"] == "crun"
        check_resume(store, is_forced=False, allows_debug_core=False)
