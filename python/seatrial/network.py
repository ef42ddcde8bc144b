"""Network namespaces with a veth pair for sandboxes, made over netlink.

A name (``st-<run>-<token>`` for the namespace, ``stv<run><token>`` for the host's end) is all that
is needed to remove what was made, from a fresh process too. Addresses come as /30 subnets from a
pool, skipping whatever the host already uses. ``pyroute2`` is imported on first use: it is slow.
Namespaces are entered on threads of their own (``netns``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seatrial import netns
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NETNS_DIR: Final = Path("/run/netns")
POOL: Final = ipaddress.IPv4Network("10.77.0.0/16")
POOL_VARIABLE: Final = "SEATRIAL_NETWORK_POOL"
SUBNET_BITS: Final = 30
PEER_NAME: Final = "eth0"
#: What a virtual machine's network needs beside it, in the same namespace.
TAP_NAME: Final = "tap0"
BRIDGE_NAME: Final = "br0"
NAME_BYTES_MAX: Final = 15  # IFNAMSIZ of the kernel less the closing zero byte

# mount.h of the kernel, for which Python has nothing.
_MS_NOSUID: Final = 0x2
_MS_REMOUNT: Final = 0x20
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 0x100000
_MNT_DETACH: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth:
    """A namespace with one interface, and the host's end of the pair."""

    namespace: str
    host_interface: str
    host_address: str
    sandbox_address: str
    prefix_bits: int = SUBNET_BITS

    @property
    def namespace_path(self) -> Path:
        """Where the namespace is bound."""
        return NETNS_DIR / self.namespace


# --- addresses ---------------------------------------------------------------------------------


def pool() -> ipaddress.IPv4Network:
    """Give the address pool: ``SEATRIAL_NETWORK_POOL`` or 10.77.0.0/16.

    Raises:
        EnvironmentTrouble: the variable is no IPv4 network of at least one /30.
    """
    text = os.environ.get(POOL_VARIABLE)
    if text is None:
        return POOL
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise _bad_pool(text) from error
    if network.prefixlen > SUBNET_BITS:
        raise _bad_pool(text)
    return network


def _bad_pool(text: str) -> EnvironmentTrouble:
    message = f"{POOL_VARIABLE}={text!r} is not an IPv4 network of /{SUBNET_BITS} or more addresses"
    return EnvironmentTrouble(message, hint=f"for example {POOL_VARIABLE}={POOL}")


def choose_subnet(
    network: ipaddress.IPv4Network, *, used: Iterable[ipaddress.IPv4Network], first: int = 0
) -> ipaddress.IPv4Network | None:
    """Give the first free /30 of the pool from position ``first`` on, wrapping; None: all used."""
    count = 1 << (SUBNET_BITS - network.prefixlen)
    size = 1 << (32 - SUBNET_BITS)
    taken: set[int] = set()
    base = int(network.network_address)
    for one in used:
        if not one.overlaps(network):
            continue
        low = max(int(one.network_address), base)
        high = min(int(one.broadcast_address), int(network.broadcast_address))
        taken.update(range((low - base) // size, (high - base) // size + 1))
    position = next(
        (at % count for at in range(first, first + count) if at % count not in taken), None
    )
    if position is None:
        return None
    return ipaddress.IPv4Network((base + position * size, SUBNET_BITS))


def first_unused(candidates: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network | None:
    """Give the first network that meets none of the host's addresses and routes, or None."""
    with _netlink() as host:
        used = [one for one in _networks_in_use(host) if one.prefixlen > 0]
    return next((one for one in candidates if not any(map(one.overlaps, used))), None)


# --- making and removing -----------------------------------------------------------------------


def create_veth(*, namespace: str, host_interface: str) -> Veth:
    """Make a namespace with an addressed interface inside, connected to an addressed one here.

    Raises:
        EnvironmentTrouble: the kernel refused a step, or the pool is exhausted; nothing is left.
    """
    for name in (host_interface, PEER_NAME):
        if len(name) > NAME_BYTES_MAX:
            raise EnvironmentTrouble(f"interface name {name!r} is over {NAME_BYTES_MAX} bytes")
    try:
        _create_namespace(namespace)
        # The directory's lock keeps two runs from choosing one subnet between look and use.
        with _locked(NETNS_DIR), _netlink() as host:
            here, there = (str(address) for address in _free_subnet(host).hosts())
            veth = Veth(
                namespace=namespace,
                host_interface=host_interface,
                host_address=here,
                sandbox_address=there,
            )
            _connect(host, veth)
        readdress(veth)
    except EnvironmentTrouble:
        remove_veth(namespace=namespace, host_interface=host_interface)
        raise
    except Exception as error:
        remove_veth(namespace=namespace, host_interface=host_interface)
        # pyroute2's errors have no common base that is an OSError.
        raise _failed(namespace, str(error)) from error
    return veth


def readdress(veth: Veth) -> None:
    """Give the inner interface its address and set it up; harmless when it has it.

    gVisor takes the addresses off the interface, so a namespace must be readdressed before it
    can serve a second time.
    """

    def configure() -> None:
        with _netlink() as inside:
            index = _index(inside, PEER_NAME)
            with _existing_is_fine():
                inside.addr(
                    "add", index=index, address=veth.sandbox_address, prefixlen=veth.prefix_bits
                )
            inside.link("set", index=index, state="up")
            inside.link("set", index=_index(inside, "lo"), state="up")

    netns.inside(veth.namespace_path, configure)


def bridge_tap(veth: Veth, *, owner_uid: int | None = None) -> None:
    """Make a tap for a virtual machine and bridge it to the namespace's interface.

    The machine takes over the sandbox's address, so the interface gives it up. All of it ends with
    the namespace. With an owner nobody else opens the tap but who may administer the network.

    Raises:
        EnvironmentTrouble: the kernel refused a step (no tun device, no bridges).
    """

    def connect() -> None:
        with _netlink() as inside:
            outer = _index(inside, PEER_NAME)
            inside.flush_addr(index=outer)
            inside.link("add", ifname=BRIDGE_NAME, kind="bridge", br_stp_state=0)
            owner = {} if owner_uid is None else {"uid": owner_uid}
            inside.link("add", ifname=TAP_NAME, kind="tuntap", mode="tap", **owner)
            bridge, tap = _index(inside, BRIDGE_NAME), _index(inside, TAP_NAME)
            for port in (outer, tap):
                inside.link("set", index=port, master=bridge)
            for index in (bridge, outer, tap):
                inside.link("set", index=index, state="up")

    try:
        netns.inside(veth.namespace_path, connect)
    except Exception as error:
        # pyroute2's errors have no common base that is an OSError.
        message = f"cannot make a tap in the network namespace {veth.namespace}: {error}"
        hint = "virtual machines with a network need /dev/net/tun and the kernel's bridges"
        raise EnvironmentTrouble(message, hint=hint) from error


def remove_veth(*, namespace: str, host_interface: str) -> None:
    """Remove a pair and its namespace by name; harmless when they are gone."""
    remove_interface(host_interface)
    remove_namespace(namespace)


def remove_interface(name: str) -> None:
    """Remove an interface, and with it its other end, by name; harmless when it is gone."""
    if name and (Path("/sys/class/net") / name).exists():
        with _netlink() as host, contextlib.suppress(LookupError), _missing_is_fine():
            host.link("del", index=_index(host, name))


def remove_namespace(name: str) -> None:
    """Unbind a namespace by name; harmless when it is gone.

    Raises:
        EnvironmentTrouble: the kernel refused.
    """
    path = NETNS_DIR / name
    # Without a name the path is that of all namespaces.
    if path.parent != NETNS_DIR or not os.path.lexists(path):
        return
    # EINVAL: the name is there, but nothing is bound to it (a maker that was killed half-way).
    with contextlib.suppress(OSError):
        netns.call("umount2", os.fsencode(path), _MNT_DETACH)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(name, f"cannot remove {path}: {error.strerror}") from error


def bind(source: Path, target: Path) -> None:
    """Mount a file or a directory at another place.

    Raises:
        OSError: the kernel refused.
    """
    netns.call("mount", os.fsencode(source), os.fsencode(target), b"none", _MS_BIND, None)


def bind_usable(directory: Path) -> None:
    """Mount a directory on itself so that programs and device files in it can be used.

    Raises:
        OSError: the kernel refused; nothing is mounted.
    """
    bind(directory, directory)
    flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID
    try:
        netns.call("mount", b"none", os.fsencode(directory), b"none", flags, None)
    except OSError:
        unmount(directory)
        raise


def unmount(path: Path) -> bool:
    """Detach the mount at a path; False when the kernel refused."""
    try:
        netns.call("umount2", os.fsencode(path), _MNT_DETACH)
    except OSError:
        return False
    return True


#: Numbers the checks of this process.
_checks: Final = itertools.count()


def problem() -> str | None:
    """Make and remove a pair; give what kept us from it, or None when it works."""
    if os.geteuid() != 0:
        return "making network namespaces with veth pairs needs root"
    # Several drivers may be asked at the same time; a name of an interface has 15 characters.
    tag = f"{os.getpid() & 0xFFFFF:05x}{next(_checks) & 0xFF:02x}"
    try:
        create_veth(namespace=f"st-check-{tag}", host_interface=f"stvcheck{tag}")
    except EnvironmentTrouble as error:
        return error.message
    finally:
        with contextlib.suppress(EnvironmentTrouble):
            remove_veth(namespace=f"st-check-{tag}", host_interface=f"stvcheck{tag}")
    return None


# --- kernel ------------------------------------------------------------------------------------


def _create_namespace(name: str) -> None:
    _share_netns_dir()
    path = NETNS_DIR / name

    def make() -> None:
        netns.call("unshare", netns.CLONE_NEWNET)
        # Neighbour discovery and router solicitations of IPv6 are traffic that nobody asked for.
        for scope in ("all", "default"):
            with contextlib.suppress(OSError):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        netns.call("mount", b"/proc/thread-self/ns/net", os.fsencode(path), b"none", _MS_BIND, None)

    netns.on_own_thread(make)


def _share_netns_dir() -> None:
    """Make /run/netns a shared mount, so that names bound in it show up in other mount namespaces.

    The same as iproute2 does; done once for the life of the machine.
    """
    NETNS_DIR.mkdir(parents=True, exist_ok=True)
    where = os.fsencode(NETNS_DIR)
    try:
        netns.call("mount", b"", where, b"none", _MS_SHARED | _MS_REC, None)
    except OSError:
        netns.call("mount", where, where, b"none", _MS_BIND | _MS_REC, None)
        netns.call("mount", b"", where, b"none", _MS_SHARED | _MS_REC, None)


def _connect(host: Any, veth: Veth) -> None:
    descriptor = os.open(veth.namespace_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        host.link(
            "add",
            ifname=veth.host_interface,
            kind="veth",
            peer={"ifname": PEER_NAME, "net_ns_fd": descriptor},
        )
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{veth.host_interface}/disable_ipv6").write_text("1")
    index = _index(host, veth.host_interface)
    host.addr("add", index=index, address=veth.host_address, prefixlen=veth.prefix_bits)
    host.link("set", index=index, state="up")


def _free_subnet(host: Any) -> ipaddress.IPv4Network:
    network = pool()
    subnet = choose_subnet(network, used=_networks_in_use(host))
    if subnet is None:
        message = f"all /{SUBNET_BITS} subnets of {network} are in use"
        raise EnvironmentTrouble(message, hint=f"set {POOL_VARIABLE}, or run 'seatrial clean'")
    return subnet


def _networks_in_use(host: Any) -> Iterator[ipaddress.IPv4Network]:
    for message in host.addr("dump", family=2):
        address, bits = message.get("address"), message["prefixlen"]
        yield ipaddress.IPv4Network(f"{address}/{bits}", strict=False)
    for message in host.route("dump", family=2):
        target = message.get("dst")
        if target:
            yield ipaddress.IPv4Network(f"{target}/{message['dst_len']}", strict=False)


def _index(link: Any, name: str) -> int:
    found = link.link_lookup(ifname=name)
    if not found:
        raise LookupError(f"no interface {name!r}")
    return int(found[0])


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    """Give a netlink socket in the calling thread's namespace."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # pyroute2 ships no types

    with IPRoute() as socket:
        yield socket


@contextlib.contextmanager
def _existing_is_fine() -> Iterator[None]:
    with _allowing(errno.EEXIST):
        yield


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    with _allowing(errno.ENODEV):
        yield


@contextlib.contextmanager
def _allowing(code: int) -> Iterator[None]:
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != code:
            raise


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _failed(namespace: str, why: str) -> EnvironmentTrouble:
    message = f"cannot make or remove the network namespace {namespace}: {why}"
    hint = "run 'seatrial doctor'; 'seatrial clean' removes what killed runs left"
    return EnvironmentTrouble(message, hint=hint)
