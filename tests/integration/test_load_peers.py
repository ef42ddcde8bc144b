"""The load engine against real nginx, redis-server and memcached; counts agree on both ends."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl
import pytest

from seatrial.cli.main import main
from seatrial.errors import ConfigError, TrialFailed
from seatrial.loadgen import LoadRequest, run_load
from tests.support import peers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.loadgen import LoadResult

SECOND_NS = 1_000_000_000
OK, APPLICATION_ERROR = 0, 5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> peers.Certificate:
    """A certificate for 127.0.0.1 and example.test."""
    return peers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def nginx(tmp_path: Path, certificate: peers.Certificate) -> Iterator[peers.Nginx]:
    """A running nginx."""
    with peers.nginx(tmp_path, certificate=certificate) as server:
        yield server


def load(target: str, protocol: str, options: dict[str, str], **settings: Any) -> LoadResult:
    """Returns the result of 300 requests that no time limit ends."""
    values: dict[str, Any] = {
        "connections": 3,
        "depth": 1,
        "requests_max": 300,
        "measure_ns": 60 * SECOND_NS,
        "request_timeout_ns": 60 * SECOND_NS,
    }
    values |= settings
    return run_load(LoadRequest(targets=(target,), protocol=protocol, options=options, **values))


def all_ok(result: LoadResult, count: int = 300) -> None:
    """Checks that every request was answered correctly and in order."""
    assert (result.ok_count, result.intended_count) == (count, count), result.failures
    frame = pl.DataFrame(result)
    assert (frame["first_byte_at_ns"] >= frame["sent_at_ns"]).all()
    assert (frame["done_at_ns"] >= frame["first_byte_at_ns"]).all()


@pytest.mark.parametrize(
    ("path", "depth", "line"),
    [
        ("/ok", 1, "GET /ok 200 3"),
        ("/ok", 8, "GET /ok 200 3"),
        ("/empty", 4, "GET /empty 204 0"),
        ("/chunked/page.txt", 1, "GET /chunked/page.txt 200 50"),
    ],
)
def test_http_requests_are_those_of_the_access_log(
    nginx: peers.Nginx, path: str, depth: int, line: str
) -> None:
    """Bodies of known length, none, and chunked ones; alone and pipelined; over TCP and unix."""
    options = {"path": path, "check_body": "same"}
    all_ok(load(nginx.target, "http", options, depth=depth))
    all_ok(load(nginx.unix_target, "http", options, depth=depth))
    lines = nginx.log_lines()
    assert len(lines) == 600
    assert all(text.startswith(line) for text in lines), set(lines)


def test_http_open_loop(nginx: peers.Nginx) -> None:
    """An open loop over two threads sends its whole schedule."""
    settings = {"arrival": "poisson", "rate_rps": 2000.0, "threads": 2}
    all_ok(load(nginx.target, "http", {"path": "/ok"}, **settings))
    assert len(nginx.log_lines()) == 300


def test_http_errors_are_told_apart(nginx: peers.Nginx) -> None:
    """A status that is not expected is an application error with its number."""
    for path, text in (
        ("/busy", "HTTP 503"),
        ("/nowhere", "HTTP 404"),
        ("/moved", "HTTP 302, and redirects are not followed"),
    ):
        result = load(nginx.target, "http", {"path": path}, depth=4)
        assert result.failures == [(APPLICATION_ERROR, text, 300)]
        assert result.ok_count == 0
    all_ok(load(nginx.target, "http", {"path": "/busy", "expect_status": "503"}))
    result = load(nginx.target, "http", {"path": "/ok", "check_body": "length:4"})
    assert result.failures == [(APPLICATION_ERROR, "body of 3 bytes, expected 4", 300)]


def test_http_posts_a_body(nginx: peers.Nginx) -> None:
    """The body arrives whole: the server answers with its length."""
    options = {"method": "POST", "path": "/store", "body_bytes": "100000", "check_body": "length:6"}
    all_ok(load(nginx.target, "http", options))


@pytest.mark.parametrize(("keep_alive", "depth"), [("true", 1), ("true", 8), ("false", 1)])
def test_http_announced_closes_are_no_errors(
    tmp_path: Path, certificate: peers.Certificate, keep_alive: str, depth: int
) -> None:
    """A server that closes after ten requests, and a client that asks for it after each.

    What was pipelined behind the last reply was not served, and is sent on the next connection.
    """
    with peers.nginx(tmp_path, certificate=certificate, keepalive_requests=10) as server:
        options = {"path": "/ok", "keep_alive": keep_alive}
        result = load(server.target, "http", options, depth=depth)
        all_ok(result)
        assert (result.resent_count > 0) == (depth > 1)
    # Only now: a line is written after the reply, which ends the load.
    numbers = Counter(line.split()[4] for line in server.log_lines())
    most = 10 if keep_alive == "true" else 1
    assert len(numbers) == most
    assert sum(numbers.values()) == 300


def test_tls_is_verified(nginx: peers.Nginx, certificate: peers.Certificate) -> None:
    """A trusted CA and the right name are needed, unless anybody is trusted."""
    ok, trusted = {"path": "/ok"}, {"tls_ca": str(certificate.ca)}
    all_ok(load(nginx.tls_target, "http", ok | trusted, depth=4))
    all_ok(load(nginx.tls_target, "http", ok | trusted | {"tls_server_name": "example.test"}))
    all_ok(load(nginx.tls_target, "http", ok | {"tls_insecure": "true"}))
    before = len(nginx.log_lines())
    with pytest.raises(TrialFailed, match=r"UnknownIssuer.*tls_ca"):
        load(nginx.tls_target, "http", ok)
    with pytest.raises(TrialFailed, match=r"not valid for name .*other\.test"):
        load(nginx.tls_target, "http", ok | trusted | {"tls_server_name": "other.test"})
    with pytest.raises(TrialFailed, match="does the server speak TLS"):
        load(nginx.target.replace("tcp", "tls"), "http", ok | trusted)
    assert len([line for line in nginx.log_lines()[before:] if " 200 " in line]) == 0


@pytest.mark.parametrize(("is_resumed", "marks"), [("true", {".", "r"}), ("false", {"."})])
def test_tls_sessions(
    nginx: peers.Nginx, certificate: peers.Certificate, is_resumed: str, marks: set[str]
) -> None:
    """Connections made again resume their session, or make a full handshake if told to."""
    options = {"path": "/ok", "keep_alive": "false", "tls_ca": str(certificate.ca)}
    all_ok(load(nginx.tls_target, "http", options | {"tls_resumption": is_resumed}))
    assert {line.split()[5] for line in nginx.log_lines()} == marks


def test_tls_open_loop_with_large_bodies(
    nginx: peers.Nginx, certificate: peers.Certificate
) -> None:
    """Requests of many records, in an open loop over two threads."""
    options = {
        "method": "POST",
        "path": "/store",
        "body_bytes": "200000",
        "tls_ca": str(certificate.ca),
    }
    settings = {"arrival": "fixed", "rate_rps": 500.0, "threads": 2, "requests_max": 100}
    all_ok(load(nginx.tls_target, "http", options, **settings), 100)


def test_redis_counts_agree(tmp_path: Path) -> None:
    """Reads and writes of preloaded keys: every value is right, and both ends count alike."""
    options = {"keys": "50", "value_bytes": "lognormal:mean=300,cv=1", "preload": "true"}
    with peers.redis(tmp_path) as server:
        for target in (server.target, server.unix_target):
            settings = {"threads": 2, "connections": 4, "depth": 4}
            all_ok(load(target, "resp", options | {"popularity": "zipf:skew=1"}, **settings))
        gets, sets = server.calls("get"), server.calls("set")
        assert gets + sets == 600 + 2 * 50
        assert 480 < gets < 600
        assert ":50" in server.ask("DBSIZE")


def test_redis_errors_have_their_text(tmp_path: Path) -> None:
    """Errors, values of somebody else, and misses."""
    one_key = {"keys": "1", "key_bytes": "1", "read_ratio": "1"}
    with peers.redis(tmp_path, "--databases", "4") as server:
        result = load(server.target, "resp", one_key)
        assert result.failures == [(OK, "miss", 300)]
        assert result.ok_count == 300
        result = load(server.target, "resp", one_key | {"miss": "error"})
        assert result.failures == [(APPLICATION_ERROR, "miss", 300)]
        server.ask("SET", "0", "x")
        (failure,) = load(server.target, "resp", one_key).failures
        assert failure == (APPLICATION_ERROR, "value of 1 bytes, expected 100, for key 0", 300)
        all_ok(load(server.target, "resp", one_key | {"verify": "false"}))
        server.ask("DEL", "0")
        server.ask("LPUSH", "0", "x")
        (failure,) = load(server.target, "resp", one_key, depth=4).failures
        wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value"
        assert failure == (APPLICATION_ERROR, wrong_type, 300)
        assert server.calls("get") == 5 * 300
        with pytest.raises(TrialFailed, match="SELECT: ERR DB index is out of range"):
            load(server.target, "resp", {"db": "7"})
        with pytest.raises(TrialFailed, match=r"AUTH: .*password"):
            load(server.target, "resp", {"auth": "secret"})


def test_redis_commands_of_any_kind(tmp_path: Path) -> None:
    """Integers, arrays and nested replies; the counter is the number of requests."""
    with peers.redis(tmp_path, "--requirepass", "secret") as server:
        secret = {"auth": "secret"}
        all_ok(load(server.target, "resp", secret | {"command": "INCRBY counter 2"}, depth=4))
        all_ok(load(server.target, "resp", secret | {"command": "RPUSH list {id} {key}"}))
        all_ok(load(server.target, "resp", secret | {"command": "LRANGE list 0 20"}, depth=4))
        all_ok(load(server.target, "resp", secret | {"command": "COMMAND INFO get set"}))
        result = load(server.target, "resp", secret | {"command": "NOSUCH"})
        assert result.failures[0][1].startswith("ERR unknown command")


PASSWORD = "s:t@p/w%"  # noqa: S105 - of a server that lives as long as a test
READ_ONLY = ["--option", "read_ratio=1", "--option", "keys=10"]


def from_command(capsys: pytest.CaptureFixture[str], url: str, *words: str) -> tuple[int, str]:
    """Runs `seatrial load URL WORDS` for 50 requests; returns the exit code and all it said."""
    code = main(["load", url, "--count", "50", "-c", "2", "--quiet", "--json", *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_redis_logs_in_with_the_password_of_a_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the right one all is served; with a wrong one or none nothing is, and it is said."""
    login = quote(PASSWORD, safe="")
    with peers.redis(tmp_path, "--requirepass", PASSWORD) as server:
        place = f"127.0.0.1:{server.port}"
        for user in ("", "default"):
            code, said = from_command(capsys, f"redis://{user}:{login}@{place}/2", *READ_ONLY)
            assert code == 0, said
            assert json.loads(said)["measured"]["ok_count"] == 50
            assert PASSWORD not in said
            assert login not in said
        code, said = from_command(capsys, f"redis://:wrong@{place}", *READ_ONLY)
        assert (code, "WRONGPASS" in said) == (3, True), said
        assert "the password" in said
        code, said = from_command(capsys, f"redis://{place}", *READ_ONLY)
        assert (code, "NOAUTH" in said) == (1, True), said


def test_redis_logs_in_as_the_user_of_a_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user who may only read gets replies to reads, and the server's words for writes."""
    login = f"reader:{quote(PASSWORD, safe='')}"
    with peers.redis(tmp_path) as server:
        made = server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+get")
        assert made.startswith("+OK")
        url = f"redis://{login}@127.0.0.1:{server.port}"
        code, said = from_command(capsys, url, *READ_ONLY)
        assert code == 0, said
        assert server.calls("get") == 50
        code, said = from_command(capsys, url, "--option", "read_ratio=0")
        assert code == 1, said
        assert "NOPERM" in said
        code, said = from_command(capsys, url.replace("reader:", "nobody:"), *READ_ONLY)
        assert (code, "WRONGPASS" in said) == (3, True), said


def test_a_search_for_capacity_says_what_it_writes_and_no_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same line as under any load of a store; none where nothing is written."""
    with peers.redis(tmp_path, "--requirepass", "secret") as server:
        url = f"redis://:secret@127.0.0.1:{server.port}"
        search = ["--find-capacity", "--slo", "p50<1us", "--rate", "50/s", "--duration", "100ms"]
        writing = ["load", url, *search, "--warm-up", "0s", "-c", "2", "--option", "keys=7"]
        assert main(writing) == 1
        captured = capsys.readouterr()
        assert "10% of the requests write: they set one of 7 keys" in captured.out.splitlines()[1]
        assert main([*writing, "--option", "read_ratio=1", "--json"]) == 1
        captured_more = capsys.readouterr()
        assert json.loads(captured_more.out)["options"]["read_ratio"] == "1"
        for said in (captured, captured_more):
            assert "secret" not in said.out + said.err


def test_redis_out_of_memory(tmp_path: Path) -> None:
    """A full server is told: as the end of a preload, and as the text of failed writes."""
    big = {"keys": "2000", "value_bytes": "20000"}
    with peers.redis(tmp_path, "--maxmemory", "4mb") as server:
        with pytest.raises(TrialFailed, match="OOM command not allowed") as caught:
            load(server.target, "resp", big | {"preload": "true"})
        assert caught.value.code == "preload-failed"
        result = load(server.target, "resp", big | {"read_ratio": "0"})
        assert result.failures[0][0] == APPLICATION_ERROR
        assert result.failures[0][1].startswith("OOM command not allowed")
        assert sum(count for _, _, count in result.failures) == 300 - result.ok_count


@pytest.mark.parametrize("dialect", ["text", "meta"])
def test_memcached_counts_agree(tmp_path: Path, dialect: str) -> None:
    """Reads and writes of preloaded keys: every value is right, and both ends count alike."""
    options = {"keys": "50", "value_bytes": "uniform:low=1,high=3000", "preload": "true"}
    options |= {"dialect": dialect, "key_bytes": "fb_key"}
    with peers.memcached(tmp_path) as server:
        settings = {"threads": 2, "connections": 4, "depth": 4}
        all_ok(load(server.target, "memcached", options, **settings))
        stats = server.stats()
    assert stats["cmd_get"] + stats["cmd_set"] == 300 + 50
    assert stats["get_misses"] == 0
    assert stats["curr_items"] == 50


@pytest.mark.parametrize("dialect", ["text", "meta"])
def test_memcached_misses_and_errors(tmp_path: Path, dialect: str) -> None:
    """Misses are counted apart; what the server refuses is an error with its text."""
    base = {"dialect": dialect}
    with peers.memcached(tmp_path, "-I", "512k") as server:
        result = load(server.target, "memcached", base | {"read_ratio": "1"}, depth=4)
        assert result.failures == [(OK, "miss", 300)]
        assert server.stats()["get_misses"] == 300
        big = base | {"read_ratio": "0", "value_bytes": "900000"}
        (failure,) = load(server.target, "memcached", big, requests_max=20).failures
        assert failure == (APPLICATION_ERROR, "SERVER_ERROR object too large for cache", 20)


def test_options_are_refused_with_what_is_known() -> None:
    """A wrong protocol or option is an error of the plan that lists the right ones."""
    target = "tcp://127.0.0.1:9"
    with pytest.raises(ConfigError, match="echo, rpc, http, grpc, resp or memcached"):
        load(target, "redis", {})
    with pytest.raises(ConfigError, match=r"one of .*popularity.*dialect"):
        load(target, "memcached", {"kyes": "1"})
    with pytest.raises(ConfigError, match=r"tls_ca.*expected one of method"):
        load(target, "http", {"tls_ca": "/x"})
    with pytest.raises(ConfigError, match="echo or rpc over udp"):
        load("udp://127.0.0.1:9", "http", {})
