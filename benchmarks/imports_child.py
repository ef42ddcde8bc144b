"""Reads RunD's raw data with Seatrial's importer; prints one line of JSON: time and digest.

imports_child DIR
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from seatrial.importers.rund.compat import tables
from seatrial.importers.rund.read import read_rund


def main() -> None:
    """Times from the first file to the last table."""
    folder = Path(sys.argv[1])
    began_ns = time.perf_counter_ns()
    (data,) = read_rund(folder)
    found = tables(data)
    import_ns = time.perf_counter_ns() - began_ns
    text = "".join(f"{name}\n{found[name]}" for name in sorted(found))
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(json.dumps({"import_ns": import_ns, "digest": digest}))


if __name__ == "__main__":
    main()
