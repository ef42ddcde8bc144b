"""A service that cannot be loaded: the hint is about the cause that was seen."""

from __future__ import annotations

import contextlib
import dataclasses
import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from seatrial.cli.load_trouble import unreachable
from seatrial.cli.main import main
from seatrial.errors import TrialFailed
from seatrial.loadtest.target import parse_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Answers whatever comes first with the same bytes; gives its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.recv(4096)
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield serving.server_address[1]
        finally:
            serving.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("url", "answer", "told", "hint"),
    [
        ("https://127.0.0.1:{}/", HTTP, "TLS", "not with TLS"),
        ("grpc://127.0.0.1:{}", HTTP, "does not speak HTTP/2", "http:// loads HTTP/1.1"),
        ("redis://:x@127.0.0.1:{}", b"-WRONGPASS no\r\n", "AUTH: WRONGPASS no", "the password"),
        ("redis://:x@127.0.0.1:{}", HTTP, "not a Redis reply", "another protocol"),
    ],
)
def test_whoever_answers_is_not_said_to_be_down(
    url: str, answer: bytes, told: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something listens; files, limits and how many connections were tried are beside the point."""
    with server(answer) as port:
        assert main(["load", url.format(port), "--count", "20", "--quiet"]) == 3
    error, advice = capsys.readouterr().err.splitlines()
    assert told in error
    assert error.startswith("error: one of 16 connections to ")
    assert hint in advice
    assert "ulimit" not in advice
    assert "is up" not in advice


def test_nobody_there_is_said_to_be_down(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that was just given back has no listener."""
    with server(b"") as port:
        pass
    assert main(["load", f"http://127.0.0.1:{port}/", "--count", "20", "--quiet"]) == 3
    error, advice = capsys.readouterr().err.splitlines()
    assert "Connection refused" in error
    assert advice == "hint: check that the server is up and listens there"


def test_a_certificate_of_an_authority_is_told_in_words() -> None:
    """`openssl req -x509` makes one unless it is told otherwise; a library's name helps no one."""
    told = "TLS: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"
    error = TrialFailed(f"connection 3 of 9 to tls://[::1]:443 {told}", code="connect-failed")
    trouble = unreachable(error, parse_target(["https://[::1]:443/a"]))
    assert trouble.message.startswith("one of 9 connections to https://[::1]:443 TLS")
    assert "certificate of an authority (CA:TRUE)" in trouble.message
    assert "OtherError" not in trouble.message
    assert trouble.hint is not None
    assert "CA:FALSE" in trouble.hint
    assert "--insecure" in trouble.hint


def test_a_file_of_certificates_is_told_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is missing or something else."""
    other = tmp_path / "key.pem"
    other.write_text("nothing of that kind")
    for path, told in ((other, "at least one CERTIFICATE"), (tmp_path / "no", "No such file")):
        assert main(["load", "https://127.0.0.1:1", "--cacert", str(path), "--quiet"]) == 2
        text = capsys.readouterr().err
        assert text.startswith(f'error: --cacert: got "{path}"; expected ')
        assert told in text


@pytest.mark.parametrize(
    ("urls", "address", "told"),
    [
        (["https://localhost:18443/x?y"], "tls://127.0.0.1:18443", "https://localhost:18443 ({})"),
        (["redis://me:secret@localhost"], "tcp://127.0.0.1:6379", "redis://localhost ({})"),
        (["http://127.0.0.1/"], "tcp://127.0.0.1:80", "http://127.0.0.1"),
        (["http+unix:///a/b?path=/c"], "unix:///a/b", "http+unix:///a/b"),
        (["rpc://127.0.0.1:8", "rpc://127.0.0.1:80"], "tcp://127.0.0.1:80", "rpc://127.0.0.1:80"),
    ],
)
def test_an_address_is_told_as_it_was_typed(urls: list[str], address: str, told: str) -> None:
    """With what the name stands for, and without a password."""
    plain = [url.replace("localhost", "127.0.0.1") for url in urls]
    target = dataclasses.replace(parse_target(plain), text=" ".join(urls))
    error = TrialFailed(f"connection 3 of 9 to {address} failed: no", code="connect-failed")
    numeric = address.partition("://")[2]
    said = unreachable(error, target).message
    assert said == f"one of 9 connections to {told.format(numeric)} failed: no"


def test_a_lack_on_this_side_keeps_its_advice() -> None:
    """The engine says which limit; the hint does not send the reader to the server."""
    told = "(os error 24); this process may not open more files: raise 'ulimit -Hn'"
    error = TrialFailed(f"connection 3 of 9 to tcp://[::1]:1 {told}", code="connect-failed")
    trouble = unreachable(error, parse_target(["tcp://[::1]:1"]))
    assert "ulimit -Hn" in trouble.message
    assert trouble.hint == "or use fewer connections: -c N"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", "0/s"], "--rate: got 0 /s; expected above 0"),
        (["--rate", "2e9/s"], "--rate: got 2.00 G/s; expected above 0 and at most 1.00 G/s"),
        (["--duration", "0s"], "--duration: got 0 ns; expected at most one day"),
        (["--depth", "100000"], "--depth: got 100000; expected 1 to 1024"),
        (["--depth", "1000000000000"], "--depth: got 1000000000000; expected a number"),
        (["-c", "999999999"], "--connections: got 999999999; expected 1 to 10000"),
    ],
)
def test_what_the_engine_refuses_is_told_by_its_option(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of the engine's own mean nothing to who typed the command."""
    assert main(["load", "fake://?service=constant:1ms", *words, "--quiet"]) == 2
    text = capsys.readouterr().err
    assert told in text
    assert "load plan" not in text
    assert "from 0" not in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--operation", "2"], "got '2'; expected one of"),
        (["--rate", "-5/s"], '--rate: "-5/s" is not a quantity; expected a rate'),
        (["--rate=-5/s"], '--rate: "-5/s" is not a quantity; expected a rate'),
        (["--duration", "-1s"], '--duration: "-1s" is not a quantity; expected a duration'),
        (["--payload", "-1KiB"], '--payload: "-1KiB" is not a quantity; expected a size'),
        (["-c", "-2"], "--connections: got '-2'; expected a whole number from 1"),
        (["--depth", "-2x"], "--depth: got '-2x'; expected a whole number from 1"),
        (["--cpus", "-1"], "--cpus: got '-1'; expected numbers of processors"),
        (["-o", "-1"], "got '-1'; expected NAME=VALUE"),
        (["--rate", "--quiet"], "--rate: no value; expected --rate N/s"),
        (["--body", "-x"], "because -x reads as an option; expected -d/--body TEXT (a value that"),
        (["--body", "-x"], "begins with - is written --body=-x)"),
        (["-H", "a: b\r\nEvil: 1"], "without ends of lines"),
        (["--json", "--lancet"], "not allowed with"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a command line is dropped, and nothing of it becomes something else."""
    with pytest.raises(SystemExit) as end:
        main(["load", "http://127.0.0.1:1/", *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_a_path_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory of something else is told from a mistyped name."""
    assert main(["report", str(tmp_path / "nothing")]) != 0
    assert f"there is no directory {tmp_path / 'nothing'}" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) != 0
    assert "no manifest.json" in capsys.readouterr().err
