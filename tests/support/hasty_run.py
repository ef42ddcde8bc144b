"""Runs `seatrial` with probes that do not wait long for a sandbox that never comes up.

Usage: python -m tests.support.hasty_run WORDS...
"""

from __future__ import annotations

import sys

from seatrial.cli import main
from seatrial.drivers.local import LocalDriver

#: Instead of ten seconds; a sound sandbox of the drivers tried needs a hundredth of it.
PROBE_DEADLINE_NS = 2_000_000_000

if __name__ == "__main__":
    LocalDriver.probe_deadline_ns = PROBE_DEADLINE_NS
    sys.exit(main.main(sys.argv[1:]))
