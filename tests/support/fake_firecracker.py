"""Stands for Firecracker where there is no KVM: its API's published shape, and a process as guest.

A test writes a program that calls ``main``. The API is checked as strictly as the real one checks
it: unknown and missing fields, wrong order, and a start that nothing was configured for are refused
with status 400 and a ``fault_message``. The "machine" is the real guest program, which gets the
vsock connection as its control channel; when it ends, so does the monitor.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote

#: Paths of the API: required fields, optional ones. From the OpenAPI description of release 1.
SHAPES: dict[tuple[str, str], tuple[set[str], set[str]]] = {
    ("PUT", "/machine-config"): (
        {"vcpu_count", "mem_size_mib"},
        {"smt", "track_dirty_pages", "huge_pages"},
    ),
    ("PUT", "/boot-source"): ({"kernel_image_path"}, {"boot_args", "initrd_path"}),
    ("PUT", "/drives/"): (
        {"drive_id", "is_root_device"},
        {"path_on_host", "is_read_only", "cache_type", "io_engine", "partuuid"},
    ),
    ("PUT", "/network-interfaces/"): ({"iface_id", "host_dev_name"}, {"guest_mac"}),
    ("PUT", "/vsock"): ({"guest_cid", "uds_path"}, {"vsock_id"}),
    ("PUT", "/actions"): ({"action_type"}, set()),
    ("PATCH", "/vm"): ({"state"}, set()),
    ("PUT", "/snapshot/create"): ({"snapshot_path", "mem_file_path"}, {"snapshot_type"}),
    ("PUT", "/snapshot/load"): (
        {"snapshot_path", "mem_backend"},
        {"resume_vm", "enable_diff_snapshots", "network_overrides"},
    ),
}
BOOT_ID = "0b5e7f0e-fake-boot"
CHANNEL_PORT, ORDER_PORT = 5000, 5001
#: A kernel boots for a while before anything listens.
BOOT_NS = 50_000_000
NEVER_NS = 1 << 62
#: From the kernel's linux/if_tun.h.
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000


@dataclass
class Machine:
    """The one machine of this process; what it was asked to do is written to ``log``."""

    log: TextIO
    settings: dict[str, str]
    state: str = "Not started"
    configured: dict[str, dict[str, object]] = field(default_factory=dict)
    order: str = ""
    role: str = ""
    listens_at_ns: int = 0
    tap: int | None = None

    def handle(self, method: str, path: str, body: dict[str, object]) -> str | None:
        """Do what a call says; give what is wrong with it."""
        self.log.write(json.dumps({"method": method, "path": path, "body": body}) + "\n")
        self.log.flush()
        if self.settings.get("refuse") == path:
            return "refused by the test"
        problem = check_shape(method, path, body)
        if problem is not None:
            return problem
        perform = {
            "/actions": self.start,
            "/vm": self.pause,
            "/snapshot/create": self.write,
            "/snapshot/load": self.load,
        }.get(path)
        return perform(body) if perform is not None else self.configure(path, body)

    def configure(self, path: str, body: dict[str, object]) -> str | None:
        """Keep a setting of a machine that does not run."""
        if self.state != "Not started":
            return "not possible after the start"
        self.configured[path] = body
        if path == "/boot-source":
            for key in ("kernel_image_path", "initrd_path"):
                if not os.access(str(body[key]), os.R_OK):
                    return f"{key}: no such file, or not to be read"
        if path.startswith("/drives/"):
            mode = os.R_OK if body["is_read_only"] else os.R_OK | os.W_OK
            if not os.access(str(body["path_on_host"]), mode):
                return f"{path}: no such file, or not to be used"
        if path.startswith("/network-interfaces/"):
            return self.open_tap(str(body["host_dev_name"]))
        return None

    def open_tap(self, name: str) -> str | None:
        """Attach to a tap, which takes its owner or an administrator of the network."""
        self.tap = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        try:
            fcntl.ioctl(self.tap, TUNSETIFF, request)
        except OSError as error:
            return f"{name}: {error.strerror}"
        return None

    def pause(self, body: dict[str, object]) -> None:
        """Change the state."""
        self.state = str(body["state"])

    def write(self, body: dict[str, object]) -> str | None:
        """Write the machine down."""
        if self.state != "Paused":
            return "a snapshot needs a paused machine"
        snapshot = {"order": self.order, "configured": self.configured}
        Path(str(body["snapshot_path"])).write_text(json.dumps(snapshot))
        Path(str(body["mem_file_path"])).write_bytes(b"memory")
        return None

    def start(self, body: dict[str, object]) -> str | None:
        """Boot what was configured."""
        source = self.configured.get("/boot-source")
        action = body["action_type"]
        if action != "InstanceStart" or source is None or "/machine-config" not in self.configured:
            return "nothing to start"
        kernel_part, _, init_part = str(source["boot_args"]).partition(" -- ")
        words = init_part.split(" ")
        if "pci=off" not in kernel_part or words[0] != "--machine":
            return f"no guest in {source['boot_args']}"
        self.order, self.role = words[1], words[2]
        self.run()
        return None

    def load(self, body: dict[str, object]) -> str | None:
        """Go on from a snapshot."""
        backend = body["mem_backend"]
        if self.configured or not isinstance(backend, dict):
            return "only a fresh process loads a snapshot"
        if backend.get("backend_type") != "File" or not os.access(backend["backend_path"], os.R_OK):
            return f"no such memory {backend}"
        snapshot = json.loads(Path(str(body["snapshot_path"])).read_text())
        self.configured, self.order = snapshot["configured"], snapshot["order"]
        self.run()
        return None

    def run(self) -> None:
        """Let the vsock's host side listen."""
        self.state = "Running"
        wait_ns = NEVER_NS if "hangs" in self.settings else BOOT_NS
        self.listens_at_ns = time.monotonic_ns() + wait_ns
        path = str(self.configured["/vsock"]["uds_path"])
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(8)
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        """Take connections of the host to the guest's ports."""
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=self.connect, args=(stream,), daemon=True).start()

    def connect(self, stream: socket.socket) -> None:
        """Connect to a port, or hang up where nothing listens, as the real one does."""
        word, _, port = read_line(stream).partition(" ")
        waits = self.order.endswith(",template")
        wanted = ORDER_PORT if waits else CHANNEL_PORT
        if word != "CONNECT" or int(port) != wanted or time.monotonic_ns() < self.listens_at_ns:
            stream.close()
            return
        stream.sendall(b"OK 1073741824\n")
        if not waits:
            self.be_guest(stream)
        stream.sendall(self.settings.get("boot_id", BOOT_ID).encode() + b"\n")
        line = read_line(stream)
        if line:
            self.order, _, self.role = line.partition(" ")
        stream.close()

    def be_guest(self, stream: socket.socket) -> None:
        """Play the role until its end, which is the machine's."""
        words = [unquote(word) for word in self.role.split("+")]
        argv = [self.settings["guest"], "--channel-fd", str(stream.fileno()), *words]
        subprocess.run(argv, pass_fds=[stream.fileno()], check=False)
        os._exit(0)


def check_shape(method: str, path: str, body: dict[str, object]) -> str | None:
    """Give what is wrong with a call by the published shapes."""
    place = next((key for key in SHAPES if key[0] == method and path.startswith(key[1])), None)
    if place is None:
        return f"no {method} {path}"
    required, optional = SHAPES[place]
    if missing := required - set(body):
        return f"missing field {sorted(missing)}"
    if unknown := set(body) - required - optional:
        return f"unknown field {sorted(unknown)}"
    if place[1].endswith("/") and path.removeprefix(place[1]) not in body.values():
        return "the path and the body name different things"
    return None


def read_line(stream: socket.socket) -> str:
    """Read to the end of a line, or of the stream."""
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def main(home: Path) -> None:
    """Be Firecracker, with the settings that the test left in its directory."""
    settings = json.loads((home / "settings.json").read_text())
    if "--version" in sys.argv:
        sys.stdout.write("Firecracker v1.13.0\n")
        return
    if "dies" in settings:
        sys.stderr.write(settings["dies"] + "\n")
        raise SystemExit(1)
    with (home / "calls.jsonl").open("a") as log:
        serve(Machine(log=log, settings=settings), sys.argv[1:])


def serve(machine: Machine, arguments: list[str]) -> None:
    """Answer on the socket that the arguments name."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_call(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fault = machine.handle(self.command, self.path, json.loads(body))
            answer = b"" if fault is None else json.dumps({"fault_message": fault}).encode()
            self.send_response(204 if fault is None else 400)
            if answer:
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_PATCH = handle_call  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            pass

    path = arguments[arguments.index("--api-sock") + 1]
    socketserver.ThreadingUnixStreamServer(path, Handler).serve_forever()
