"""What a run directory says about itself: everything needed to resume it and to judge it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from seatrial.errors import StoreError
from seatrial.model.codec import Json, decode, encode
from seatrial.model.columns import SCHEMA_VERSION
from seatrial.model.fingerprint import Fingerprint
from seatrial.model.plan import Plan
from seatrial.model.scalar import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What made the numbers, and what was measured."""

    seatrial: str
    core: str
    # "release" or "debug"; numbers of a debug build are not to be believed.
    core_profile: str
    python: str
    # The version of each driver's runtime; None where it has none to tell.
    drivers: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole request, resolved: with it alone a run can be continued."""

    run_id: str
    # In UTC, ISO 8601
    created_at: str
    # What the user wrote, byte for byte, and where it was.
    experiment_text: str
    experiment_source: str
    # The resolved experiment, the order, the seeds and the hash.
    plan: Plan
    versions: Versions
    fingerprint: Fingerprint
    # Flags of each driver that its numbers depend on, such as a platform or a network mode.
    driver_flags: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    # Findings-to-be that were known before the first trial: drivers left out, and why.
    skipped_drivers: Mapping[str, str] = field(default_factory=dict)
    # Drivers that work here, but with less than they should, and what is missing.
    degraded_drivers: Mapping[str, str] = field(default_factory=dict)
    # What else an imported run was measured under, by "bench driver": versions and settings that
    # stood beside the logs.
    conditions: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def to_text(manifest: Manifest) -> str:
    """Write a manifest as JSON that a person can read."""
    return json.dumps(encode(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_text(text: str, path: Path) -> Manifest:
    """Read a manifest back.

    Raises:
        StoreError: it is no manifest, or of a schema that this version does not know.
    """
    try:
        value: Json = json.loads(text)
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}: no valid JSON: {error}", code="manifest-broken") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema version {version!r}; this Seatrial reads version {SCHEMA_VERSION}",
            hint="use the version of Seatrial that made the run",
            code="schema-version",
        )
    return decode(Manifest, value, where="manifest")
