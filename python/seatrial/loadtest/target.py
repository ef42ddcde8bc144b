"""Where load goes, as people write it: ``http://shop:8080/cart``, ``redis://:6379``, ``rpc+unix:///s``.

The engine wants a numeric address, a protocol and its options; this module makes them out of a URL.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from seatrial.errors import ConfigError, EnvironmentTrouble

#: {scheme: (protocol, transport, port unless given)}.
SCHEMES: Final[Mapping[str, tuple[str, str, int | None]]] = {
    "tcp": ("echo", "tcp", None),
    "udp": ("echo", "udp", None),
    "tls": ("echo", "tls", None),
    "unix": ("echo", "unix", None),
    "echo": ("echo", "tcp", None),
    "echo+udp": ("echo", "udp", None),
    "echo+tls": ("echo", "tls", None),
    "echo+unix": ("echo", "unix", None),
    "rpc": ("rpc", "tcp", None),
    "rpc+udp": ("rpc", "udp", None),
    "rpc+tls": ("rpc", "tls", None),
    "rpc+unix": ("rpc", "unix", None),
    "http": ("http", "tcp", 80),
    "https": ("http", "tls", 443),
    "http+unix": ("http", "unix", None),
    "grpc": ("grpc", "tcp", 80),
    "grpcs": ("grpc", "tls", 443),
    "grpc+unix": ("grpc", "unix", None),
    "redis": ("resp", "tcp", 6379),
    "rediss": ("resp", "tls", 6379),
    "redis+unix": ("resp", "unix", None),
    "memcached": ("memcached", "tcp", 11211),
    "memcached+unix": ("memcached", "unix", None),
    "fake": ("rpc", "fake", None),
}
EXAMPLES: Final = "http://127.0.0.1:8080/path, grpc://HOST:PORT, rpc://HOST:PORT, redis://HOST"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadTarget:
    """One or more servers that speak one protocol, as the engine wants them."""

    protocol: str
    targets: tuple[str, ...]
    options: Mapping[str, str]
    # As it was written, for people.
    text: str


def parse_target(urls: Sequence[str]) -> LoadTarget:
    """Returns what the URLs mean; connections go to them in turn.

    Raises:
        ConfigError: a URL is malformed, of an unknown scheme, or they differ in more than address.
        EnvironmentTrouble: a host name cannot be resolved.
    """
    parsed = [_parse_one(url) for url in urls]
    first = parsed[0]
    for url, other in zip(urls, parsed, strict=True):
        if (other.protocol, dict(other.options)) != (first.protocol, dict(first.options)):
            raise ConfigError(
                f"{url} and {urls[0]} differ in more than their address",
                hint="all URLs of one load have to be the same but for host, port or socket path",
            )
    return dataclasses.replace(
        first,
        targets=tuple(target for other in parsed for target in other.targets),
        text=" ".join(urls),
    )


def _parse_one(url: str) -> LoadTarget:
    scheme, separator, rest = url.partition("://")
    known = SCHEMES.get(scheme.lower())
    if not separator or known is None:
        raise ConfigError(
            f"cannot load {url!r}: expected a URL such as {EXAMPLES}",
            hint=f"known schemes: {', '.join(SCHEMES)}",
        )
    protocol, transport, port = known
    if transport == "fake":
        return LoadTarget(protocol=protocol, targets=(url,), options={}, text=url)
    try:
        parts = urlsplit(f"//{rest}")
        given_port = parts.port
    except ValueError as error:
        raise ConfigError(f"cannot load {url!r}: {error}", hint=f"such as {EXAMPLES}") from error
    if given_port == 0:
        message = f"cannot load {url!r}: nobody listens on port 0"
        raise ConfigError(message, hint="give the port of the server, from 1 to 65535")
    if parts.fragment:
        raise ConfigError(f"cannot load {url!r}: a fragment (#...) never reaches a server")
    if transport == "unix":
        return _unix_target(url, protocol, parts)
    port = given_port or port
    if not parts.hostname or port is None:
        raise ConfigError(f"cannot load {url!r}: expected {scheme}://HOST:PORT")
    return LoadTarget(
        protocol=protocol,
        targets=(f"{transport}://{_numeric(parts.hostname, port, transport)}",),
        options=_options(url, protocol, parts, is_default_port=given_port in {None, known[2]}),
        text=url,
    )


def _unix_target(url: str, protocol: str, parts: SplitResult) -> LoadTarget:
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(f"cannot load {url!r}: expected {url.partition(':')[0]}:///absolute/path")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if protocol == "http":
        options = {"host": "localhost", "path": "/"} | options
    return LoadTarget(
        protocol=protocol, targets=(f"unix://{unquote(parts.path)}",), options=options, text=url
    )


def _options(
    url: str, protocol: str, parts: SplitResult, *, is_default_port: bool
) -> dict[str, str]:
    """What a URL says beyond the address, under the names of the protocol's options."""
    host = parts.hostname or ""
    options: dict[str, str] = {}
    if url.lower().startswith(("https:", "grpcs:", "rediss:", "tls:", "echo+tls:", "rpc+tls:")):
        options["tls_server_name"] = host
    authority = f"[{host}]" if ":" in host else host
    if not is_default_port:
        authority = f"{authority}:{parts.port}"
    if protocol == "http":
        path = parts.path or "/"
        options |= {"host": authority, "path": f"{path}?{parts.query}" if parts.query else path}
        return options
    if parts.query:
        raise ConfigError(
            f"cannot load {url!r}: {protocol} has no query; expected options as --option NAME=VALUE"
        )
    if protocol == "grpc":
        options["authority"] = authority
        if parts.path not in {"", "/"}:
            options["method"] = parts.path
    elif protocol == "resp":
        options |= _redis_options(url, parts)
    elif parts.path not in {"", "/"}:
        raise ConfigError(f"cannot load {url!r}: {protocol} has no path")
    return options


def _redis_options(url: str, parts: SplitResult) -> dict[str, str]:
    options = {}
    if parts.password is not None:
        password = unquote(parts.password)
        # The engine divides at the first colon; the user whom none is named for is `default`.
        user = unquote(parts.username or "") or ("default" if ":" in password else "")
        if ":" in user:
            raise ConfigError(
                f"user {user!r} of redis: a name with a colon cannot be told from its password",
                hint="choose a user without one",
            )
        options["auth"] = f"{user}:{password}" if user else password
    elif parts.username:
        raise ConfigError(
            f"user {unquote(parts.username)!r} of redis comes without a password; expected "
            "redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for the default user",
            hint="leave the user out where the server asks for none",
        )
    database = parts.path.strip("/")
    if database:
        if not database.isdecimal():
            raise ConfigError(f"cannot load {url!r}: expected the number of a database, not a path")
        options["db"] = database
    return options


def _numeric(host: str, port: int, transport: str) -> str:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no host name"
        raise EnvironmentTrouble(
            f"cannot resolve {host}: {reason}", hint="check the name, or give an address"
        ) from error
    # Sorted by the system's own preference, which RFC 6724 and gai.conf define.
    family, *_, address = found[0]
    numeric = str(address[0])
    return f"[{numeric}]:{port}" if family == socket.AF_INET6 else f"{numeric}:{port}"
