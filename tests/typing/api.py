"""The public interface as a typed program would use it: mypy reads this file, nobody runs it."""

import seatrial

assert seatrial.__doc__ is not None
