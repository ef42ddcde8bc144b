"""Values that are replaced from the command line."""

from __future__ import annotations

import dataclasses

import pytest

from seatrial.config.changes import changed_keys, merge_changes
from seatrial.config.load import Source, parse_experiment, read_source
from seatrial.errors import ConfigError

KNOWN = ("process", "runc", "cri/runc")


def _changed(*changes: str) -> Source:
    return dataclasses.replace(read_source("rund-mem"), changes=changes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("start.rounds=3", {"start": {"rounds": 3, "concurrency": [1]}, "name": "x"}),
        ("start.deadline = 5s", {"start": {"concurrency": [1], "deadline": "5s"}, "name": "x"}),
        ('name="y"', {"start": {"concurrency": [1]}, "name": "y"}),
        ("start={rounds=2}", {"start": {"concurrency": [1], "rounds": 2}, "name": "x"}),
        (
            'driver."cri/runc".channel=tcp',
            {
                "start": {"concurrency": [1]},
                "name": "x",
                "driver": {"cri/runc": {"channel": "tcp"}},
            },
        ),
    ],
)
def test_a_change_replaces_only_what_it_names(change: str, expected: dict[str, object]) -> None:
    """Tables are merged, lists and plain values replaced; what was read is left as it is."""
    raw = {"start": {"concurrency": [1]}, "name": "x"}
    assert merge_changes(raw, [change]) == expected
    assert raw == {"start": {"concurrency": [1]}, "name": "x"}


def test_the_last_change_of_a_key_is_in_force() -> None:
    """As with any option that is given twice."""
    assert merge_changes({}, ["a.b=1", "a.b=[2, 3]"]) == {"a": {"b": [2, 3]}}
    assert list(changed_keys(["a.b=1", "c=x"])) == ["a.b", "c"]


@pytest.mark.parametrize("change", ["rounds", "=3", "start.rounds=", "start.rounds=[1", "a b=1"])
def test_what_is_no_change_is_refused(change: str) -> None:
    """Every one of them is named, with what was expected."""
    with pytest.raises(ConfigError) as caught:
        merge_changes({}, ["start.rounds=1", change, "nothing"])
    assert caught.value.code == "set"
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"--set {change}: ")
    assert "expected KEY=VALUE, such as --set start.rounds=3" in first
    assert second.startswith("--set nothing: ")


def test_a_changed_experiment_is_checked_like_a_file() -> None:
    """And its mistakes are said to be the option's, not those of a line of the file."""
    good = parse_experiment(_changed("density.count=[1, 5]", "blocks=2"), known_drivers=KNOWN)
    assert good.density is not None
    assert (good.density.count, good.blocks) == ((1, 5), 2)
    bad = _changed("density.cont=[1]", "density.count=[0]", "blocks=x")
    with pytest.raises(ConfigError) as caught:
        parse_experiment(bad, known_drivers=KNOWN)
    text = str(caught.value)
    assert '--set: density.cont: unknown key (did you mean "count"?)' in text
    assert "--set: density.count[0]: got 0" in text
    assert "--set: blocks: " in text


def test_the_stored_text_ends_with_the_changes() -> None:
    """As comments: the text itself is that of the file."""
    source = _changed("density.count=[1]")
    assert source.whole_text.startswith(source.text.rstrip())
    assert source.whole_text.endswith("\n\n# --set density.count=[1]\n")
    assert read_source("rund-mem").whole_text == source.text
