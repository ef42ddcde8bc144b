"""iperf3 in both directions, and files moved by wget and curl from and to our own server.

Servers run on the host, clients in the sandbox. The route is a veth pair where the driver can have
one; else sandbox and host share a stack, and every row says that it is the loopback device.
"""

from __future__ import annotations

import math
import os
import select
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from seatrial import proc
from seatrial.benches.attempts import FIRST, Attempt, Outcome, Work
from seatrial.benches.file_server import FileServer, address_towards, free_port
from seatrial.benches.inside_files import lay_file, short_size
from seatrial.benches.inside_tools import ToolsTrial
from seatrial.benches.tool_output import parse_curl, parse_iperf3, parse_wget
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.benches.attempts import Said
    from seatrial.benches.base import TrialContext
    from seatrial.benches.tool_output import Moved
    from seatrial.drivers.base import DriverSession
    from seatrial.guest.toolbox import Toolbox

NS_PER_S: Final = 1_000_000_000
DOWNLOAD: Final = "download"
UPLOAD: Final = "upload"
LISTEN_TIMEOUT_S: Final = 10.0
READ_BYTES: Final = 64 << 10
LISTENING: Final = b"Server listening"
#: Any port: only the address of the sandbox is wanted.
SOME_PORT: Final = 7000
ROUTES: Final[Mapping[NetworkMode, str]] = {
    NetworkMode.VETH: "veth pair",
    NetworkMode.HOST: "loopback",
}


class NetworkTrial(ToolsTrial):
    """One stream, one file, one client at a time."""

    tool_of: ClassVar[Mapping[str, str]] = {
        "iperf3-to": "iperf3",
        "iperf3-from": "iperf3",
        "wget": "wget",
        "curl": "curl",
        "curl-upload": "curl",
    }

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._stack = ExitStack()
        self._iperf3: Iperf3Server | None = None
        self._mode = NetworkMode.NONE

    def network(self, session: DriverSession) -> NetworkMode | None:
        """Take a veth pair, else the host's own network, else none."""
        modes = session.capabilities.network_modes
        for mode in ROUTES:
            if mode in modes:
                self._mode = mode
                return mode
        return None

    def prepare(self) -> None:
        """Make the file that is moved: the same for all clients."""
        lay_file(self.context.scratch_dir / DOWNLOAD, self.settings.download_bytes)

    def set_up(self) -> None:
        """Start sandbox and server."""
        super().set_up()
        if not self.is_at_work:
            return
        endpoint = self.sandbox.session.endpoint(self.sandbox.plan_id, SOME_PORT)
        self._address = address_towards(str(urlsplit(endpoint).hostname))
        path = self.context.scratch_dir / DOWNLOAD
        self._server = self._stack.enter_context(FileServer(path, address=self._address))
        # A virtual machine has disks of its own: what it is to send has to be brought there first.
        done = self.run(self._transfer("curl", keeps=True), FIRST)
        if done.outcome is not Outcome.OK:
            self.skip("curl-upload", f"the file to send could not be fetched: {done.reason}")

    def tear_down(self) -> None:
        """Stop server and sandbox."""
        try:
            self._stack.close()
            if self._iperf3 is not None:
                self._iperf3.close()
        finally:
            super().tear_down()

    def tries(self, works: Iterable[str], position: int) -> Iterable[Attempt]:
        """Do each once."""
        for name in works:
            if name.startswith("iperf3"):
                yield self._stream(name, position)
            else:
                yield self.run(self._transfer(name), position)

    def _stream(self, name: str, position: int) -> Attempt:
        """Let iperf3 run; a server whose test went wrong may be at it still, so it is made anew."""
        if self._iperf3 is None:
            self._iperf3 = Iperf3Server(self.context, self.box, self._address)
        trouble = self._iperf3.wait_listening()
        if trouble is None:
            done = self.run(self._iperf3_client(name, self._iperf3.port), position)
        else:
            done = Attempt(work=name, position=position, outcome=Outcome.FAILED, reason=trouble)
        if done.outcome is not Outcome.OK:
            self._iperf3.close()
            self._iperf3 = None
        return done

    def _iperf3_client(self, name: str, port: int) -> Work:
        is_into = name == "iperf3-to"
        metric = f"network_{'to' if is_into else 'from'}_bytes_per_s"
        return Work(
            name=name,
            argv=self.tool(
                "iperf3",
                *("-c", self._address, "-p", str(port)),
                *("-t", str(max(1, math.ceil(self.settings.network_duration_ns / NS_PER_S)))),
                *("-l", short_size(self.settings.network_block_bytes)),
                *("-i", "0", "-J"),
                *(("-R",) if is_into else ()),
            ),
            read=lambda said: parse_iperf3(said.stdout, metric=metric),
            timeout_ns=self.settings.deadline_ns,
            route=ROUTES[self._mode],
        )

    def _transfer(self, name: str, *, keeps: bool = False) -> Work:
        url = f"http://{self._address}:{self._server.port}/{DOWNLOAD}"
        size = self.settings.download_bytes
        upload = name == "curl-upload"

        def read(said: Said) -> Moved:
            if name == "wget":
                return parse_wget(said.stderr, expected_bytes=size)
            return parse_curl(said.stdout, said.stderr, upload=upload, expected_bytes=size)

        if name == "wget":
            argv = self.tool("wget", "--no-proxy", "--progress=dot:giga", "-O", "/dev/null", url)
        else:
            source = ("-T", f"{self.data_at}/{UPLOAD}") if upload else ()
            target = f"{self.data_at}/{UPLOAD}" if keeps else "/dev/null"
            argv = self.tool(
                "curl",
                *("-q", "-sS", "--noproxy", "*", "-o", target, "-w", "%{json}"),
                *source,
                url,
            )
        return Work(
            name=name,
            argv=argv,
            read=read,
            timeout_ns=self.settings.deadline_ns,
            route=ROUTES[self._mode],
        )


class Iperf3Server:
    """An iperf3 of the toolbox that serves one client after another until it is closed."""

    def __init__(self, context: TrialContext, box: Toolbox, address: str) -> None:
        """Start it."""
        self.port = free_port(address)
        words = ("-s", "-B", address, "-p", str(self.port), "-i", "0", "--forceflush")
        argv = box.argv("iperf3", *words, at=str(box.directory))
        self._process = proc.spawn(argv, stdout="pipe", stderr="null")
        context.count_process(self._process.pid)

    def close(self) -> None:
        """Kill it; may be called again."""
        self._process.close()

    def wait_listening(self) -> str | None:
        """Wait until it says that it listens, as it does before each client; else give why not.

        A client that comes while the one before is still being put away would be refused.
        """
        assert self._process.stdout is not None, "the server was started with a pipe"
        output, said = self._process.stdout.fileno(), b""
        deadline_s = time.monotonic() + LISTEN_TIMEOUT_S
        while LISTENING not in said:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([output], [], [], left_s)[0]:
                return f"the server of iperf3 did not listen within {LISTEN_TIMEOUT_S:g} s"
            chunk = os.read(output, READ_BYTES)
            if not chunk:
                words = said.decode(errors="replace").strip()
                return f"the server of iperf3 ended: {words}"
            said += chunk
        return None
