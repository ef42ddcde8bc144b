"""A small function, in the guest itself and in a process of Python, whose answer is checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, cast

from seatrial.benches.attempts import REFUSALS, Attempt, Outcome, Work
from seatrial.benches.inside_tools import ToolsTrial
from seatrial.benches.tool_output import Moved, ToolFailed
from seatrial.errors import DriverError
from seatrial.guest.function import primes_below
from seatrial.guest.toolbox import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.benches.attempts import Said


class FunctionsTrial(ToolsTrial):
    """Counts primes."""

    tool_of: ClassVar[Mapping[str, str]] = {"python": PYTHON}

    def prepare(self) -> None:
        """Find the right answer."""
        self._expected = primes_below(self.settings.function_limit)

    def tries(self, works: Iterable[str], position: int) -> Iterable[Attempt]:
        """Run each once."""
        for name in works:
            yield self._native(position) if name == "native" else self._python(position)

    def _native(self, position: int) -> Attempt:
        request = {"probe": "function", "limit": self.settings.function_limit}
        try:
            answer = self.sandbox.channel.run(request, timeout_ns=self.settings.deadline_ns)
        except DriverError as error:
            if error.code not in REFUSALS:
                raise
            return Attempt(
                work="native", position=position, outcome=Outcome.FAILED, reason=error.message
            )
        if answer.get("result") != self._expected:
            reason = f"it counted {answer.get('result')} primes; expected {self._expected}"
            return Attempt(work="native", position=position, outcome=Outcome.FAILED, reason=reason)
        elapsed_ns = cast("list[int]", answer["batch_ns"])[0]
        return Attempt(
            work="native",
            position=position,
            outcome=Outcome.OK,
            elapsed_ns=elapsed_ns,
            readings={"function_native_ns": elapsed_ns},
        )

    def _python(self, position: int) -> Attempt:
        argv = self.box.function_argv(str(self.settings.function_limit), at=self.tools_at)
        work = Work(
            name="python",
            argv=argv,
            read=lambda said: parse_function(said, expected=self._expected),
            timeout_ns=self.settings.deadline_ns,
        )
        return self.run(work, position)


def parse_function(said: Said, *, expected: int) -> Moved:
    """Read what the function in Python prints; pure.

    Raises:
        ToolFailed: it printed something else, or counted wrongly.
    """
    try:
        answer = json.loads(said.stdout)
        result, inner_ns = int(answer["result"]), int(answer["function_ns"])
    except (ValueError, KeyError, TypeError):
        words = f"{said.stdout[:200]} {said.stderr[-200:]}".strip()
        raise ToolFailed(f"the function in Python printed no result: {words}") from None
    if result != expected:
        raise ToolFailed(f"it counted {result} primes; expected {expected}")
    return Moved(
        readings={"function_python_ns": said.elapsed_ns, "function_python_inner_ns": inner_ns}
    )
