"""URLs of `seatrial load`: what people write becomes address, protocol and options."""

from __future__ import annotations

import contextlib
import functools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.errors import ConfigError, SeatrialError
from seatrial.loadgen import LoadRequest
from seatrial.loadtest.redact import without_passwords, without_secrets
from seatrial.loadtest.target import SCHEMES, parse_target


@pytest.mark.parametrize(
    ("url", "protocol", "target", "options"),
    [
        ("tcp://127.0.0.1:7000", "echo", "tcp://127.0.0.1:7000", {}),
        ("rpc://127.0.0.1:7000", "rpc", "tcp://127.0.0.1:7000", {}),
        ("rpc+udp://[::1]:7000", "rpc", "udp://[::1]:7000", {}),
        ("unix:///run/a%20b.sock", "echo", "unix:///run/a b.sock", {}),
        ("http://127.0.0.1", "http", "tcp://127.0.0.1:80", {"host": "127.0.0.1", "path": "/"}),
        (
            "http://127.0.0.1:81/a?b=c",
            "http",
            "tcp://127.0.0.1:81",
            {"host": "127.0.0.1:81", "path": "/a?b=c"},
        ),
        (
            "https://127.0.0.1/x",
            "http",
            "tls://127.0.0.1:443",
            {"tls_server_name": "127.0.0.1", "host": "127.0.0.1", "path": "/x"},
        ),
        (
            "http+unix:///run/web.sock?path=/ok",
            "http",
            "unix:///run/web.sock",
            {"host": "localhost", "path": "/ok"},
        ),
        (
            "grpc://127.0.0.1:9/pkg.Service/Call",
            "grpc",
            "tcp://127.0.0.1:9",
            {"authority": "127.0.0.1:9", "method": "/pkg.Service/Call"},
        ),
        ("redis://127.0.0.1", "resp", "tcp://127.0.0.1:6379", {}),
        (
            "redis://me:s%20t@127.0.0.1/3",
            "resp",
            "tcp://127.0.0.1:6379",
            {"auth": "me:s t", "db": "3"},
        ),
        ("memcached://127.0.0.1", "memcached", "tcp://127.0.0.1:11211", {}),
        ("fake://?service=constant:1ms", "rpc", "fake://?service=constant:1ms", {}),
    ],
)
def test_urls_are_read(url: str, protocol: str, target: str, options: dict[str, str]) -> None:
    """Scheme, address, path and query end up where the engine wants them."""
    parsed = parse_target([url])
    assert (parsed.protocol, parsed.targets) == (protocol, (target,))
    assert dict(parsed.options) == options


def test_names_are_resolved() -> None:
    """A host name becomes a numeric address; the name stays where the protocol says it."""
    parsed = parse_target(["http://localhost:8080/"])
    assert parsed.targets[0] in {"tcp://127.0.0.1:8080", "tcp://[::1]:8080"}
    assert parsed.options["host"] == "localhost:8080"


def test_several_servers_share_one_protocol() -> None:
    """Connections go to all of them; anything else than the address has to agree."""
    parsed = parse_target(["rpc://127.0.0.1:1", "rpc://127.0.0.1:2"])
    assert parsed.targets == ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    with pytest.raises(ConfigError, match="differ in more than their address"):
        parse_target(["rpc://127.0.0.1:1", "tcp://127.0.0.1:2"])


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80",
        "ftp://127.0.0.1",
        "tcp://127.0.0.1",
        "tcp://:7000",
        "tcp://127.0.0.1:70000",
        *(
            f"{scheme}://127.0.0.1:0"
            for scheme in SCHEMES
            if "unix" not in scheme and scheme != "fake"
        ),
        "http://127.0.0.1:00/x",
        "tcp://127.0.0.1:7000/path",
        "rpc://127.0.0.1:7000?x=1",
        "http://127.0.0.1/#part",
        "unix://relative",
        "redis://127.0.0.1/shop",
        "http://[::1",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """A URL that cannot be meant is refused by name, with what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse_target([url])
    assert url in str(caught.value)


@given(scheme=st.sampled_from([*SCHEMES, "x"]), rest=st.text(max_size=30))
def test_any_text_is_read_or_refused(scheme: str, rest: str) -> None:
    """No text whatever ends in anything but a target or one of our errors."""
    look_up = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SeatrialError):
        # Names are made up here: nobody else is to be asked for them.
        numeric = functools.partial(look_up, flags=socket.AI_NUMERICHOST)
        patch.setattr(socket, "getaddrinfo", numeric)
        assert parse_target([f"{scheme}://{rest}"]).targets


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://me@127.0.0.1", "user 'me' of redis comes without a password"),
        ("redis://a%3Ab:secret@127.0.0.1", "user 'a:b' of redis: a name with a colon"),
    ],
)
def test_a_login_that_cannot_be_meant_is_refused(url: str, told: str) -> None:
    """A user is never left out silently, and no password is shown."""
    with pytest.raises(ConfigError, match=told) as caught:
        parse_target([url])
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@127.0.0.1/3", "redis://me:***@127.0.0.1/3"),
        ("redis://:se:cr@et@127.0.0.1", "redis://:***@127.0.0.1"),
        ("redis://127.0.0.1 redis://:secret@[::1]", "redis://127.0.0.1 redis://:***@[::1]"),
        ("http://127.0.0.1/a@b", "http://127.0.0.1/a@b"),
        ("fake://?service=constant:1ms", "fake://?service=constant:1ms"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    """Neither that of a URL nor that of an option."""
    assert without_passwords(url) == shown
    secret = {"auth": "x", "db": "3"}
    request = LoadRequest(targets=("tcp://[::1]:1",), protocol="resp", options=secret, measure_ns=1)
    assert without_secrets(request).options == {"auth": "(not kept)", "db": "3"}
