"""Real servers from Debian as children of a test: nginx, redis-server and memcached, and a CA.

Each listens on loopback or on a unix socket in a folder of its own, keeps nothing outside of it,
and has ended when the `with` block ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: How long a server may take to come up or to end.
PATIENCE_NS = 20_000_000_000
READ_BYTES = 65536


def needs_program(name: str) -> str:
    """Returns the path of a program; skips the test where it is missing, or fails it in CI."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"{name} is not installed (requirements/apt.txt)")
    return path


def free_port() -> int:
    """Returns a port of loopback that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], *, ready: str, folder: Path) -> Iterator[None]:
    """Runs a server from the moment that its output says that it is ready."""
    child = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last_lines: deque[str] = deque(maxlen=50)
    is_told = threading.Event()

    def listen() -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                last_lines.append(line)
                if ready in line:
                    is_told.set()
        is_told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        is_told.wait(PATIENCE_NS / 1e9)
        if not any(ready in line for line in last_lines):
            pytest.fail(f"{command[0]} does not come up: {''.join(last_lines)}")
        yield
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE_NS / 1e9)
        finally:
            child.kill()
            child.wait()
            listener.join()


@dataclasses.dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx: plain, encrypted, and what it has counted."""

    folder: Path
    port: int
    tls_port: int

    @property
    def target(self) -> str:
        """Where it speaks plainly."""
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def unix_target(self) -> str:
        """Where it speaks plainly over a unix socket."""
        return f"unix://{self.folder}/http.sock"

    @property
    def tls_target(self) -> str:
        """Where it speaks TLS."""
        return f"tls://127.0.0.1:{self.tls_port}"

    def log_lines(self) -> list[str]:
        """Returns a line for each request that has ended, as `log_format` below has it."""
        return (self.folder / "access.log").read_text().splitlines()


NGINX_CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    log_format short '$request_method $uri $status $body_bytes_sent '
                     '$connection_requests $ssl_session_reused';
    access_log access.log short;
    keepalive_requests {keepalive_requests};
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        listen unix:http.sock;
        listen 127.0.0.1:{tls_port} ssl;
        {certificate}
        root files;
        location = /ok {{ return 200 "ok\\n"; }}
        location = /busy {{ return 503 "busy\\n"; }}
        location = /moved {{ return 302 /ok; }}
        location = /empty {{ return 204; }}
        location /chunked/ {{
            ssi on; ssi_types text/plain; default_type text/plain; alias files/;
        }}
        location = /store {{ return 200 "$content_length"; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(
    folder: Path, *, certificate: Certificate, keepalive_requests: int = 100_000
) -> Iterator[Nginx]:
    """Runs an nginx of one process that serves a few paths."""
    program = needs_program("nginx")
    (folder / "files").mkdir()
    (folder / "files" / "page.txt").write_text("<!--# echo var='request_method' -->" + "x" * 5000)
    server = Nginx(folder, free_port(), free_port())
    text = NGINX_CONFIG.format(
        port=server.port,
        tls_port=server.tls_port,
        keepalive_requests=keepalive_requests,
        certificate=f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};",
    )
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, ready="using the", folder=folder):
        yield server


@dataclasses.dataclass(frozen=True, slots=True)
class Redis:
    """A running redis-server."""

    path: Path
    port: int

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def unix_target(self) -> str:
        """Its unix socket."""
        return f"unix://{self.path}"

    def ask(self, *words: str) -> str:
        """Returns the answer to one inline command, without looking into it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_NS / 1e9)
            client.connect(str(self.path))
            client.sendall(" ".join(words).encode() + b"\r\nQUIT\r\n")
            parts = iter(lambda: client.recv(READ_BYTES), b"")
            return b"".join(parts).decode(errors="replace")

    def calls(self, command: str) -> int:
        """Returns how often a command was called, failed calls included."""
        for line in self.ask("INFO", "commandstats").splitlines():
            name, _, fields = line.partition(":")
            if name == f"cmdstat_{command}":
                return int(dict(field.split("=") for field in fields.split(","))["calls"])
        return 0


@contextlib.contextmanager
def redis(folder: Path, *options: str) -> Iterator[Redis]:
    """Runs a redis-server that stores nothing on disk."""
    program = needs_program("redis-server")
    server = Redis(folder / "redis.sock", free_port())
    command = [
        program, "--port", str(server.port), "--bind", "127.0.0.1",
        "--unixsocket", str(server.path), "--save", "", "--appendonly", "no",
        "--dir", str(folder), *options,
    ]  # fmt: skip
    with running(command, ready="Ready to accept connections", folder=folder):
        yield server


@dataclasses.dataclass(frozen=True, slots=True)
class Memcached:
    """A running memcached."""

    port: int

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, int]:
        """Returns its counters."""
        with socket.create_connection(
            ("127.0.0.1", self.port), timeout=PATIENCE_NS / 1e9
        ) as client:
            client.sendall(b"stats\r\nquit\r\n")
            text = b"".join(iter(lambda: client.recv(READ_BYTES), b"")).decode()
        rows = [line.split() for line in text.splitlines() if line.startswith("STAT ")]
        return {name: int(value) for _, name, value in rows if value.isdigit()}


@contextlib.contextmanager
def memcached(folder: Path, *options: str) -> Iterator[Memcached]:
    """Runs a memcached with one worker."""
    program = needs_program("memcached")
    server = Memcached(free_port())
    as_root = ["-u", "root"] if os.geteuid() == 0 else []
    command = [
        program, "-l", "127.0.0.1", "-p", str(server.port), "-U", "0", "-t", "1", "-vv",
        *as_root, *options,
    ]  # fmt: skip
    with running(command, ready="server listening", folder=folder):
        yield server


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1 and example.test, its key, and the CA that signed it."""

    ca: Path
    chain: Path
    key: Path


def make_certificate(folder: Path, *, address: str = "127.0.0.1") -> Certificate:
    """Makes a CA and a certificate that it signed."""
    openssl = needs_program("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(
        "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    run("req", "-new", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    names = folder / "names"
    names.write_text(f"subjectAltName=DNS:example.test,IP:{address}\n")
    run(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "2", "-extfile", str(names), "-out", "server.pem",
    )  # fmt: skip
    return Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
