"""The servers that are measured against: private instances on loopback, on one processor.

Each is one process with one thread of work, killed when the context is left.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.common import built
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.guest.binary import guest_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.settings import Settings

HOST = "127.0.0.1"
READY_TIMEOUT = 10.0
CONNECT_PAUSE = 0.05

NGINX_CONF = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        location / {{ return 200 "ok\\n"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens, and its process."""

    host: str
    port: int
    pid: int

    @property
    def tcp(self) -> str:
        """What the load engine is given."""
        return f"tcp://{self.host}:{self.port}"

    @property
    def http(self) -> str:
        """What an HTTP client is given."""
        return f"http://{self.host}:{self.port}/"


@contextmanager
def echo_server(settings: Settings) -> Iterator[Address]:
    """The C echo server: one thread, blocking epoll."""
    program = compiled("echo_server", settings.build)
    with _printing(settings, [str(program), HOST, "0"]) as address:
        yield address


@contextmanager
def arrival_log(settings: Settings) -> Iterator[Address]:
    """The C server that remembers when each HTTP request came."""
    program = compiled("arrival_log", settings.build)
    with _printing(settings, [str(program), HOST, "0"]) as address:
        yield address


def read_arrivals(server: Address) -> list[int]:
    """Returns when the requests came since the last call (ns of the monotonic clock)."""
    with socket.create_connection((server.host, server.port), timeout=READY_TIMEOUT) as asking:
        asking.sendall(b"LOG")
        pieces = []
        while piece := asking.recv(1 << 20):
            pieces.append(piece)
    instants = array("q")
    instants.frombytes(b"".join(pieces))
    return instants.tolist()


@contextmanager
def guest_server(settings: Settings, protocol: str, *extra: str) -> Iterator[Address]:
    """Our own guest's server with one worker."""
    argv = [str(guest_binary()), "--channel-fd", "none", "serve"]
    argv += ["--protocol", protocol, "--listen", f"tcp:{HOST}:0", *extra]
    with _printing(settings, argv) as address:
        yield address


@contextmanager
def grpcio_server(settings: Settings) -> Iterator[Address]:
    """The official Python gRPC server, echoing."""
    script = Path(__file__).parent / "peers" / "grpcio_server.py"
    argv = ["env", f"PYTHONPATH={built('grpcio')}", sys.executable, str(script)]
    with _printing(settings, argv) as address:
        yield address


@contextmanager
def nginx(settings: Settings) -> Iterator[Address]:
    """An nginx of one process that answers every path with `ok`."""
    folder = settings.build / "nginx"
    folder.mkdir(exist_ok=True)
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, host=HOST, port=port))
    argv = ["nginx", "-p", str(folder), "-c", str(conf)]
    with _listening(settings, argv, port=port, log=folder / "log") as address:
        yield address


@contextmanager
def sockperf_server(settings: Settings) -> Iterator[Address]:
    """The server of sockperf, which only its own client speaks to."""
    port = free_port()
    argv = ["sockperf", "server", "-i", HOST, "-p", str(port), "--tcp"]
    with _listening(settings, argv, port=port, log=settings.build / "sockperf.log") as address:
        yield address


def last_words(log: Path) -> str:
    """Returns the end of what a server said."""
    return log.read_text(errors="replace").strip()[-300:] or "it said nothing"


def free_port() -> int:
    """Returns a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _printing(settings: Settings, argv: list[str]) -> Iterator[Address]:
    """A server that prints the port it got, at the end of its first line."""
    log = settings.build / f"{Path(argv[0]).name}.log"
    with log.open("wb") as said:
        child = proc.spawn(settings.for_server(argv), stdout="pipe", stderr=said.fileno())
    with child:
        stream = child.stdout
        if stream is None:
            raise EnvironmentTrouble(f"{argv[0]}: its standard output was not kept")
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            line = stream.readline() if selector.select(READY_TIMEOUT) else b""
        digits = line.decode(errors="replace").strip().rpartition(":")[2]
        if not digits.isdigit():
            raise EnvironmentTrouble(f"{argv[0]} did not come up: {last_words(log)}")
        yield Address(host=HOST, port=int(digits), pid=child.pid)


@contextmanager
def _listening(settings: Settings, argv: list[str], *, port: int, log: Path) -> Iterator[Address]:
    """A server that was told its port; it is there when it takes a connection."""
    with log.open("wb") as output:
        said = output.fileno()
        with proc.spawn(settings.for_server(argv), stdout=said, stderr=said) as child:
            deadline = time.monotonic() + READY_TIMEOUT
            while not _takes_connections(port):
                if child.wait(timeout_s=CONNECT_PAUSE) is not None or time.monotonic() > deadline:
                    raise EnvironmentTrouble(f"{argv[0]} did not come up: {last_words(log)}")
            yield Address(host=HOST, port=port, pid=child.pid)


def _takes_connections(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
