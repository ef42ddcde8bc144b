"""An Arrow schema with metadata on its fields, handed over through the Arrow C data interface.

Polars writes whatever field metadata such a schema carries into a Parquet file, but has no way to
make one. The C structure is a stable interface (https://arrow.apache.org/docs/format/
CDataInterface.html), small enough to be filled in by hand and without another library.
"""

import ctypes
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from seatrial.model.table import ArrowType, Column

_FORMATS: Final[Mapping[ArrowType, bytes]] = {
    ArrowType.BOOL: b"b",
    ArrowType.UINT8: b"C",
    ArrowType.UINT32: b"I",
    ArrowType.UINT64: b"L",
    ArrowType.INT32: b"i",
    ArrowType.INT64: b"l",
    ArrowType.FLOAT64: b"g",
    # polars' own strings are views
    ArrowType.UTF8: b"vu",
}
_NULLABLE: Final = 2


class _ArrowSchema(ctypes.Structure):
    """``struct ArrowSchema`` of the specification, field by field."""


_RELEASE = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ArrowSchema))

_ArrowSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    # Not a C string: it holds zero bytes, so it must not be seen as c_char_p.
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowSchema))),
    ("dictionary", ctypes.POINTER(_ArrowSchema)),
    ("release", _RELEASE),
    ("private_data", ctypes.c_void_p),
]


def _mark_released(schema: "ctypes._Pointer[_ArrowSchema]") -> None:
    # The memory belongs to the Python objects below; a released schema says so by a null here.
    schema.contents.release = _RELEASE()


_RELEASE_CALLBACK: Final = _RELEASE(_mark_released)


class DescribedSchema:
    """The schema of a table, with unit and meaning on each field.

    It must outlive whoever reads the capsule, which holds for the length of a call that gets it.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        """Lay the structures out; they live as long as this object."""
        self._kept: list[object] = []
        self._root = self._struct(b"+s", "", nullable=False)
        children = [self._field(column) for column in columns]
        pointers = (ctypes.POINTER(_ArrowSchema) * len(children))(
            *(ctypes.pointer(child) for child in children)
        )
        self._kept += [children, pointers]
        self._root.n_children = len(children)
        self._root.children = ctypes.cast(pointers, ctypes.POINTER(ctypes.POINTER(_ArrowSchema)))

    def __arrow_c_schema__(self) -> object:
        """Give the capsule of the Arrow PyCapsule interface."""
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._root), b"arrow_schema", None)

    def _field(self, column: Column) -> _ArrowSchema:
        field = self._struct(_FORMATS[column.type], column.name, nullable=True)
        metadata = _metadata({"unit": column.unit, "meaning": column.meaning})
        buffer = ctypes.create_string_buffer(metadata, len(metadata))
        self._kept.append(buffer)
        field.metadata = ctypes.addressof(buffer)
        return field

    def _struct(self, form: bytes, name: str, *, nullable: bool) -> _ArrowSchema:
        encoded = name.encode()
        self._kept += [form, encoded]
        return _ArrowSchema(
            format=form,
            name=encoded,
            flags=_NULLABLE if nullable else 0,
            release=_RELEASE_CALLBACK,
        )


def _metadata(pairs: Mapping[str, str]) -> bytes:
    """Encode as the specification says: a count, then length and bytes of each key and value."""
    encoded = struct.pack("=i", len(pairs))
    for text in (text for pair in pairs.items() for text in pair):
        encoded += struct.pack("=i", len(text.encode())) + text.encode()
    return encoded
