"""Empty network namespaces that are used again: made when none is free, looked into before reuse.

One that is not as it was when it was made, or in which a process is, is thrown away. So what a
sandbox puts into its network does not reach the next one; but what nobody looks at does
(``netns.Content`` says what that is), so no sandbox is kept from harming the next on purpose.

There are never more of them than sandboxes had one at the same time. They have no names: they go
with the process that holds them, however it ends.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import Final, Protocol

from seatrial import netns
from seatrial.errors import EnvironmentTrouble
from seatrial.netns import Content, Identity
from seatrial.units import NS_PER_S

#: How old a list of where processes are may be. It takes a millisecond for a hundred processes, so
#: a storm of starts must not make one for each.
INHABITED_AGE_NS_MAX: Final = NS_PER_S

_log = logging.getLogger(__name__)


class Kernel(Protocol):
    """Who makes namespaces and looks into them: ``netns``, or what a test has in its place."""

    def make_empty(self) -> int:
        """Make a network namespace; give the descriptor that keeps it."""

    def identity_of(self, descriptor: int) -> Identity:
        """Give what tells a namespace from all others."""

    def look_into(self, descriptor: int) -> Content:
        """Read what is in a namespace."""

    def inhabited(self) -> frozenset[Identity]:
        """Find the namespaces of all processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyNetwork:
    """A namespace, and how it was when it was made."""

    descriptor: int
    identity: Identity
    as_made: Content
    free_since_ns: int = 0
    """When it was given back."""

    @property
    def path(self) -> str:
        """The path by which others open it, as long as we hold it."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"


class EmptyNetworks:
    """The namespaces of one session, in use and free; the one freed last is taken first."""

    def __init__(self, *, kernel: Kernel = netns) -> None:
        """Begin with none."""
        self._kernel = kernel
        self._taken: dict[str, EmptyNetwork] = {}
        self._free: list[EmptyNetwork] = []
        self._inhabited: frozenset[Identity] = frozenset()
        self._inhabited_at_ns = -INHABITED_AGE_NS_MAX
        self.made_count = 0
        self.thrown_away_count = 0
        """How many were not used again: not as new, or their owner was not gone."""

    def take(self, owner: str) -> str:
        """Give the path of a namespace that nobody else has, as new, until it is given back.

        Raises:
            EnvironmentTrouble: there is none, and none can be made.
        """
        assert owner not in self._taken, f"{owner} has a network already"
        while self._free:
            network = self._free.pop()
            trouble = self._trouble_with(network)
            if trouble is None:
                self._taken[owner] = network
                return network.path
            self.thrown_away_count += 1
            _log.info("network namespace thrown away inode=%d: %s", network.identity[1], trouble)
            os.close(network.descriptor)
        network = self._taken[owner] = self._make()
        return network.path

    def give_back(self, owner: str, *, is_gone: bool) -> None:
        """Take back what an owner has, if anything; for reuse only if the owner is gone."""
        network = self._taken.pop(owner, None)
        if network is None:
            return
        if not is_gone:
            self.thrown_away_count += 1
            os.close(network.descriptor)
            return
        self._free.append(replace(network, free_since_ns=time.monotonic_ns()))

    def close(self) -> None:
        """Let all of them go; harmless a second time."""
        held = [*self._free, *self._taken.values()]
        self._free.clear()
        self._taken.clear()
        for network in held:
            os.close(network.descriptor)

    def _make(self) -> EmptyNetwork:
        try:
            descriptor = self._kernel.make_empty()
            try:
                network = EmptyNetwork(
                    descriptor=descriptor,
                    identity=self._kernel.identity_of(descriptor),
                    as_made=self._kernel.look_into(descriptor),
                )
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise EnvironmentTrouble(
                f"cannot make an empty network namespace: {error.strerror or error}",
                hint="each needs one more open file ('ulimit -n'); else run 'seatrial doctor'",
            ) from error
        self.made_count += 1
        return network

    def _trouble_with(self, network: EmptyNetwork) -> str | None:
        """Say why a namespace is not as new; None when it is."""
        try:
            changes = self._kernel.look_into(network.descriptor).changes_since(network.as_made)
        except OSError as error:
            return f"it cannot be looked into: {error}"
        if changes:
            return f"there are other {', '.join(changes)} in it than in a new one"
        now_ns = time.monotonic_ns()
        is_old = now_ns - self._inhabited_at_ns >= INHABITED_AGE_NS_MAX
        if is_old or self._inhabited_at_ns <= network.free_since_ns:
            self._inhabited_at_ns, self._inhabited = now_ns, self._kernel.inhabited()
        return "a process is in it" if network.identity in self._inhabited else None
