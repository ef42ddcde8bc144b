"""Frozen dataclasses to JSON values and back, exactly.

``decode(type(value), encode(value)) == value`` for everything in this package; the manifest of a
run relies on it. A missing key takes the field's default, so that older files stay readable; an
unknown key is an error, since it would be lost silently.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TypeAlias, TypeVar

from seatrial.errors import StoreError

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

T = TypeVar("T")

# JSON has no number for these; they travel as texts, and a float field reads them back.
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: object) -> Json:
    """Give the JSON value of a dataclass, or of a container of them.

    Raises:
        TypeError: it holds something that JSON cannot say.
    """
    if isinstance(value, Enum):
        return encode(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [encode(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(kind: type[T], value: Json, *, where: str = "") -> T:
    """Make a ``kind`` from its JSON value; ``where`` names the value in errors.

    Raises:
        StoreError: the value has another shape; the message says where and what was expected.
    """
    return typing.cast("T", _decode(kind, value, where or kind.__name__))


def _decode(kind: object, value: Json, where: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _decode_union(arguments, value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        items = _expect(value, dict, where)
        return {k: _decode(arguments[1], v, f"{where}.{k}") for k, v in items.items()}
    if not isinstance(kind, type):
        raise TypeError(f"{where}: {kind!r} is not a type that can be read back")
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if issubclass(kind, Enum):
        return _decode_enum(kind, value, where)
    return _decode_plain(kind, value, where)


def _decode_union(kinds: tuple[object, ...], value: Json, where: str) -> object:
    if value is None and type(None) in kinds:
        return None
    candidates = [kind for kind in kinds if kind is not type(None)]
    # The exact type comes first: in `str | int | float | bool`, true is no 1 and 1 is no 1.0.
    for kind in candidates:
        if type(value) is kind:
            return value
    if isinstance(value, Mapping):
        # Of several dataclasses it is the one that has all these fields.
        for kind in candidates:
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                fields = {field.name for field in dataclasses.fields(kind)}
                if value.keys() <= fields:
                    return _decode(kind, value, where)
    return _decode(candidates[0], value, where)


def _decode_tuple(kinds: tuple[object, ...], value: Json, where: str) -> tuple[object, ...]:
    if len(kinds) != 2 or kinds[1] is not Ellipsis:  # noqa: PLR2004 - tuple[X, ...] has two arguments
        raise TypeError(f"{where}: only tuples of any length and one type can be read back")
    items = _expect(value, list, where)
    return tuple(_decode(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(items))


def _decode_dataclass(kind: type, value: Json, where: str) -> object:
    items = _expect(value, dict, where)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(items) - set(fields))
    if unknown:
        raise StoreError(
            f"{where}: unknown {', '.join(unknown)}; expected only {', '.join(fields)}",
            hint="the file may come from a newer version of Seatrial",
        )
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in items
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    if missing:
        raise StoreError(f"{where}: {', '.join(missing)} missing")
    decoded = {name: _decode(hints[name], v, f"{where}.{name}") for name, v in items.items()}
    try:
        return kind(**decoded)
    except ValueError as error:
        raise StoreError(f"{where}: {error}") from error


def _decode_enum(kind: type[Enum], value: Json, where: str) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(member.value) for member in kind)
        raise StoreError(f"{where}: got {value!r}; expected one of {known}") from error


def _decode_plain(kind: type, value: Json, where: str) -> object:
    if kind is float and isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise StoreError(f"{where}: got {value!r}; expected {kind.__name__}")
    return value


def _expect(value: Json, kind: type[T], where: str) -> T:
    if not isinstance(value, kind):
        raise StoreError(f"{where}: got {value!r}; expected {kind.__name__.lower()}")
    return value
