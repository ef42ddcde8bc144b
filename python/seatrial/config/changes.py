"""Values that replace those of an experiment file: ``--set density.count=[1,5]``."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from seatrial.errors import ConfigError

# What makes a value a piece of TOML; `5s` and `available` are texts whose quotes a shell ate.
_TOML_SIGNS: Final = frozenset("\"'[]{}\n#=")
_EXAMPLE: Final = "such as --set start.rounds=3 or --set 'density.count=[1, 5]'"

Table = Mapping[str, object]


def merge_changes(raw: Table, changes: Sequence[str]) -> dict[str, object]:
    """Give the tables of a file with each ``KEY=VALUE`` in them, the last one of a key in force.

    KEY is a path with points as in TOML, VALUE is TOML, or a text without its quotes.

    Raises:
        ConfigError: with every change that is no such pair.
    """
    merged = dict(raw)
    wrong: list[str] = []
    for change in changes:
        try:
            merged = _merged(merged, read_change(change))
        except ValueError as error:
            wrong.append(f"--set {change}: {error}; expected KEY=VALUE, {_EXAMPLE}")
    if wrong:
        raise ConfigError("\n".join(wrong), code="set")
    return merged


def changed_keys(changes: Sequence[str]) -> Iterator[str]:
    """Give the paths that well-formed changes set: ``density.count``."""
    for change in changes:
        yield from _paths(read_change(change))


def read_change(change: str) -> dict[str, object]:
    """Give one change as nested tables.

    Raises:
        ValueError: it is no pair of key and value.
    """
    key, sign, value = change.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise ValueError("no key and value")
    try:
        return tomllib.loads(change)
    except tomllib.TOMLDecodeError:
        if _TOML_SIGNS & set(value):
            raise
    return tomllib.loads(f'{key} = "{value.strip()}"')


def _merged(raw: Table, change: Table) -> dict[str, object]:
    merged = dict(raw)
    for name, value in change.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def _paths(table: Table, above: str = "") -> Iterator[str]:
    for name, value in table.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            yield from _paths(value, path)
        else:
            yield path
