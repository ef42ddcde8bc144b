"""The values that an open mapping may hold: axes of a point, evidence of a finding, options."""

from typing import TypeAlias

# Exactly what TOML, JSON and a Parquet cell have in common.
Scalar: TypeAlias = str | int | float | bool
