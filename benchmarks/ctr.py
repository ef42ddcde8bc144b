"""`ctr run` by Seatrial's launcher and by the bare C loop, and a pod of `cri/runc` beside it.

Both launchers start the same command line on one private containerd, and both see the same event:
the first byte of the guest, which calls on a socket bound into its container. A command of `ctr`
passes no descriptor on, and what a container writes to its standard output comes through a FIFO
and `ctr` itself.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.quiet import Quiet
from benchmarks.rows import Row
from benchmarks.series import contest, millis_text, one_line
from benchmarks.starter import (
    CONCURRENCIES,
    MANY_BATCHES,
    Starter,
    compare,
    compared,
    ratio_rows,
    settled,
)
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.drivers.base import DriverContext, new_run_id
from seatrial.drivers.cri.channel import ChannelChoice, by_socket
from seatrial.drivers.cri.driver import ENDPOINT_VARIABLE, CriDriver, CriSession
from seatrial.drivers.cri.handlers import ChannelKind
from seatrial.drivers.cri.programs import find_programs
from seatrial.drivers.instance import Command
from seatrial.errors import DriverError, EnvironmentTrouble, SeatrialError
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.probes.cgroup import CgroupHost
from seatrial.run.own_cpu import OwnCpu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.settings import Settings
    from seatrial.drivers.cri.containerd import Containerd
    from seatrial.drivers.instance import Instance

HANDLER = "runc"
#: Not that of CRI, whose plugin would look after every container in it.
NAMESPACE = "seatrial-benchmark"
IMPORT_TIMEOUT_S = 60
#: Of a round; four batches of 32 take ten seconds.
QUADS = {1: 12, 8: 15, 32: 16}
#: A batch of 32 pods takes too long to be of use as a row that nothing is demanded of.
PODS_AT_ONCE = (1, 8)


class CtrSession(CriSession):
    """Containers by `ctr run` on the private containerd of a session of `cri/runc`."""

    def prepare(self) -> None:
        """Give the daemon the guest's image in a namespace of our own, too."""
        super().prepare()
        archive = str(self._server_here().images.archive)
        words = ["images", "import", "--snapshotter", self._snapshotter, archive]
        proc.run([*self._ctr(), *words], timeout_s=IMPORT_TIMEOUT_S)

    def command(self, instance: Instance) -> Command:
        """Give the command line of `ctr run`."""
        daemon, directory = self._server_here(), instance.directory / "c"
        daemon.require()
        directory.mkdir(mode=0o755)
        way, base = by_socket(directory), daemon.layout.base
        ((outside, inside),) = way.mounts
        group = () if instance.cgroup is None else ("--cgroup", instance.cgroup.box_path)
        return Command(
            argv=(
                *self._ctr(),
                *("run", "--rm", "--snapshotter", self._snapshotter),
                *("--runc-binary", str(self._programs[HANDLER])),
                # All of it is below the directory of the run, to go with it.
                *("--runc-root", str(base / HANDLER), "--fifo-dir", str(base / "fifo")),
                *group,
                *("--mount", f"type=bind,src={outside},dst={inside},options=rbind:rw"),
                *(self._image, instance.id, GUEST_PATH, *way.words, *instance.spec.role),
            ),
            channel_path=way.path,
        )

    def _ctr(self) -> list[str]:
        words = ["--address", str(self.endpoint_path), "--namespace", NAMESPACE]
        return [str(self._programs["ctr"]), *words]

    def _server_here(self) -> Containerd:
        if self._daemon is None:
            raise DriverError("ctr run: the private containerd is closed")
        return self._daemon


def opened(context: DriverContext) -> Iterator[CriSession]:
    """Opens a session that starts containers by `ctr run`, then one that starts pods."""
    found = CriDriver(HANDLER).find()
    _, programs = find_programs(HANDLER, elsewhere=f"unset {ENDPOINT_VARIABLE}")
    channel = ChannelChoice(kind=ChannelKind.UNIX)
    for kind in (CtrSession, CriSession):
        yield kind(context, handler=HANDLER, found=found, channel=channel, programs=programs)


def rows(settings: Settings) -> list[Row]:
    """The ratios for `ctr run`, interleaved, and pods beside them; or a row that says why not."""
    try:
        return _measured(settings, compiled("spawn_wait", settings.build))
    except SeatrialError as error:
        reason = f"none: {one_line(str(error))}"
        return [Row(id="", name="ctr run", ours=reason, verdict="not measured")]


def _measured(settings: Settings, program: Path) -> list[Row]:
    if os.environ.get(ENDPOINT_VARIABLE):
        raise EnvironmentTrouble(
            f"{ENDPOINT_VARIABLE} is set, and pods would be another server's",
            hint=f"unset {ENDPOINT_VARIABLE}",
        )
    found: list[Row] = []
    with ExitStack() as stack:
        # One run, so both sessions have one daemon.
        context = DriverContext.for_run(new_run_id("bench-"))
        session, pods = (stack.enter_context(one) for one in opened(context))
        own = own_cpu(context.run_id, session, pods)
        starter = Starter(session, program)
        for concurrency in CONCURRENCIES:
            quiet = Quiet(settled(settings), own_cpu_ns=own.read_ns)
            done = compare(
                starter, concurrency, settings=settings, quiet=quiet, quads=QUADS, ours="ctr run"
            )
            found += ratio_rows(done, "ctr run", concurrency, shown=millis_text)
        starters = {
            "pod": Starter(pods, program, batches=MANY_BATCHES),
            "ctr run": Starter(session, program, batches=MANY_BATCHES),
        }
        for concurrency in PODS_AT_ONCE:
            quiet = Quiet(settled(settings), own_cpu_ns=own.read_ns)
            found.append(_pod_row(starters, concurrency, settings=settings, quiet=quiet))
    return found


def own_cpu(run_id: str, *sessions: CriSession) -> OwnCpu:
    """What was ours: the group of the run has the daemon, its shims, `ctr` and the containers."""
    group = CgroupHost.detect().group(run_id)

    def group_cpu_ns() -> int | None:
        reading = group.read_cpu()
        return None if reading is None else reading.total_ns

    own = OwnCpu(run_cgroup_cpu_ns=group_cpu_ns)
    for session in sessions:
        own.add_launcher(session.launcher.pid)
    return own


def _pod_row(
    starters: Mapping[str, Starter], concurrency: int, *, settings: Settings, quiet: Quiet
) -> Row:
    starters["pod"].ours(concurrency)  # the first start of a session finds cold files
    sides = {name: partial(starter.ours, concurrency) for name, starter in starters.items()}
    event, figure = compared(concurrency)[0][:2]
    return contest(sides, rounds=settings.rounds, quiet=quiet).ratio(
        Row(
            id="",
            name=f"a pod by cri/runc (its sandbox with a pause container, then the container) to "
            f"{event}, {concurrency} at once, beside one container by ctr run",
        ),
        figure,
        ours="pod",
        theirs="ctr run",
        shown=millis_text,
        target=None,
    )
