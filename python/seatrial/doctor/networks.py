"""Networks of sandboxes: interfaces by making them, and the kernel's settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from seatrial import network
from seatrial.doctor.attempt import attempt
from seatrial.doctor.check import About, Check, Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.NETWORK)
CONNTRACK_MIN: Final = 65536
PORTS_MIN: Final = 16_384
BACKLOG_MIN: Final = 1024
MODULES: Final = "modprobe {}; without modules, boot a kernel that has it"


def check_networks(tree: Tree) -> Iterator[Check]:
    """Make interfaces of each kind, a pair as trials use it, and look at settings."""
    yield from judge_links(attempt("links"))
    yield _pair()
    yield _forwarding(tree)
    yield _conntrack(tree)
    yield _ports(tree)
    yield _backlog(tree)


def judge_links(found: Mapping[str, str]) -> Iterator[Check]:
    """Judge what came of making interfaces in a namespace of their own; pure."""
    for kind, so in (
        ("veth", "no networks of sandboxes: the load benches cannot run"),
        ("bridge", "podman and CNI have no network of their own"),
        ("tap", "microVMs have user-mode networks only, which are slow"),
    ):
        reason = found.get(kind, "not tried")
        if not reason:
            yield SAY.ok(kind, "one was made")
        elif kind == "veth":
            yield SAY.broken(kind, reason, so=so, fix=MODULES.format("veth"))
        else:
            module = "tun" if kind == "tap" else kind
            yield SAY.warn(kind, reason, so=so, fix=MODULES.format(module))


def _pair() -> Check:
    name = "namespace with a pair"
    if os.geteuid() != 0:
        return SAY.untried(name, "needs root", fix="run as root")
    problem = network.problem()
    if problem is None:
        return SAY.ok(name, f"one was made and removed; addresses from {network.pool()}")
    return SAY.broken(
        name,
        problem,
        so="the load benches cannot run",
        fix=f"see 'veth' and 'net namespace'; {network.POOL_VARIABLE} chooses other addresses",
    )


def _forwarding(tree: Tree) -> Check:
    if tree.text("proc/sys/net/ipv4/ip_forward") == "1":
        return SAY.ok("forwarding", "on")
    return SAY.warn(
        "forwarding",
        "net.ipv4.ip_forward is 0",
        so="sandboxes reach this machine, and nothing beyond; no trial here needs more",
        fix="sysctl -w net.ipv4.ip_forward=1, for containers of podman or CNI",
    )


def _conntrack(tree: Tree) -> Check:
    limit = tree.number("proc/sys/net/netfilter/nf_conntrack_max")
    used = tree.number("proc/sys/net/netfilter/nf_conntrack_count") or 0
    if limit is None:
        return SAY.ok("connection tracking", "not loaded, so it costs nothing and drops nothing")
    evidence = f"{used} of {limit} entries"
    values = {"used_count": used, "limit_count": limit}
    if limit - used >= CONNTRACK_MIN:
        return SAY.ok("connection tracking", evidence, values=values)
    return SAY.warn(
        "connection tracking",
        evidence,
        so="loads with a connection a request fill the table, and then packets are dropped",
        fix=f"sysctl -w net.netfilter.nf_conntrack_max={4 * CONNTRACK_MIN}",
        values=values,
    )


def _ports(tree: Tree) -> Check:
    words = (tree.text("proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):  # noqa: PLR2004 - first and last
        return SAY.untried("ports of clients", "ip_local_port_range cannot be read")
    count = int(words[1]) - int(words[0]) + 1
    evidence = f"{count}, from {words[0]} to {words[1]}"
    if count >= PORTS_MIN:
        return SAY.ok("ports of clients", evidence, values={"ports_count": count})
    return SAY.warn(
        "ports of clients",
        evidence,
        so="loads with a connection a request run out of ports for a minute",
        fix="sysctl -w net.ipv4.ip_local_port_range='16384 65000'",
        values={"ports_count": count},
    )


def _backlog(tree: Tree) -> Check:
    limit = tree.number("proc/sys/net/core/somaxconn")
    if limit is None:
        return SAY.untried("queue of connections", "net.core.somaxconn cannot be read")
    if limit >= BACKLOG_MIN:
        return SAY.ok("queue of connections", f"{limit}", values={"limit_count": limit})
    return SAY.warn(
        "queue of connections",
        f"net.core.somaxconn is {limit}",
        so="bursts of connections to a server are refused before it sees them",
        fix="sysctl -w net.core.somaxconn=4096",
        values={"limit_count": limit},
    )
