"""The reference of experiment files names every key there is, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from seatrial.config import written
from seatrial.config.load import parse_experiment, read_source

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "Top level": written.WrittenExperiment,
    "`[sized_for]`": written.WrittenSizedFor,
    "`[network]`": written.WrittenNetwork,
    "`[start]`": written.WrittenStart,
    "`[density]`": written.WrittenDensity,
    "`[load]`": written.WrittenLoad,
    "`[fleet]`": written.WrittenFleet,
    "`[rpc]`": written.WrittenRpc,
    "`[inside]`": written.WrittenInside,
}
TABLES = {"sized_for", "network", "start", "density", "load", "fleet", "rpc", "inside", "driver"}


def documented(title: str) -> set[str]:
    """Returns the keys in the table below a heading."""
    text = (ROOT / "docs/experiments.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \|", section, flags=re.MULTILINE))


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented(title: str) -> None:
    """A key without a line, or a line without a key, misleads whoever writes a file."""
    keys = {field.name for field in dataclasses.fields(SECTIONS[title])} - TABLES
    assert documented(title) == keys


def test_the_experiment_in_the_readme_is_valid(tmp_path: Path) -> None:
    """What a newcomer copies must work."""
    block = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert block is not None
    file = tmp_path / "storm.toml"
    file.write_text(block[1])
    experiment = parse_experiment(
        read_source(file), known_drivers=("process", "runc", "crun", "runsc")
    )
    assert experiment.start is not None
    assert experiment.start.concurrency == (1, 8, 32)
