"""Seatrial: what a sandbox costs, and what a platform does under load."""

from typing import Final

#: One with the crates and the wheel; a test compares them.
__version__: Final = "0.1.0"
