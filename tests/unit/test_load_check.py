"""Options of `seatrial load` that would do nothing, or contradict the URL or each other."""

from __future__ import annotations

import pytest

from seatrial.cli.main import main

QUEUE = "fake://?service=constant:1ms"
TLS = "needs a URL of https://, grpcs://, rediss://, rpc+tls:// or tls://"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["http://127.0.0.1:1/", "--cacert", "x.pem"], f"--cacert {TLS}; got one of http://"),
        (["http://127.0.0.1:1/", "--insecure"], f"--insecure {TLS}"),
        (["http+unix:///x", "--insecure"], f"--insecure {TLS}; got one of http+unix://"),
        ([QUEUE, "--insecure"], f"--insecure {TLS}; got one of fake://"),
        (["https://127.0.0.1:1", "--insecure", "--cacert", "x"], "leave one out"),
        (["http://127.0.0.1:1/", "--no-verify"], "--no-verify needs a URL of tcp://"),
        (["rpc://127.0.0.1:1/", "--no-verify"], "--no-verify needs a URL of tcp://"),
        (["udp://127.0.0.1:1", "--no-verify"], "told apart by what is in them"),
        (
            ["http://127.0.0.1:1/", "--operation", "spin"],
            "--operation needs a URL of rpc:// or grpc://",
        ),
        (["redis://127.0.0.1:1", "--operation", "spin"], "got one of redis://"),
        (["grpc://127.0.0.1:1/a.B/C", "--operation", "spin"], "the method /a.B/C of the URL"),
        (["redis://127.0.0.1:1", "-H", "a: b"], "-H needs a URL of http or grpc"),
        (["tcp://127.0.0.1:1", "-d", ""], "-d belongs to http"),
        ([QUEUE, "--rate", "1/s", "--budget", "9s"], "--budget needs --ci"),
        ([QUEUE, "--rate", "1/s", "--latency-rate", "9/s"], "needs --latency-agents"),
        (
            [QUEUE, "--rate", "1/s", "--agents", "2", "--latency-rate", "9/s"],
            "--latency-rate needs --latency-agents",
        ),
        ([QUEUE, "--ci", "p99=2%", "--count", "10"], "--ci when it is sure; leave one out"),
        ([QUEUE, "--cool-down", "1s", "--count", "10"], "--cool-down; leave one out"),
    ],
)
def test_what_would_do_nothing_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name of the option, before a connection is made, without the engine's names."""
    assert main(["load", *words, "--quiet"]) == 2
    text = capsys.readouterr().err
    assert told in text
    for name in ("tls_", "load plan", "resp", "http option"):
        assert name not in text


def test_several_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to find them one by one."""
    words = ["http://127.0.0.1:1/", "--insecure", "--operation", "spin", "--budget", "9s"]
    assert main(["load", *words]) == 2
    text = capsys.readouterr().err
    assert all(name in text for name in ("--insecure", "--operation", "--budget"))


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", str(1 << 63), "٣"])
def test_a_seed_says_its_range(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As whatever is out of range: with the range."""
    with pytest.raises(SystemExit) as end:
        main(["load", QUEUE, "--seed", seed])
    assert end.value.code == 2
    told = f"--seed: got '{seed}'; expected a whole number from 0 to 9223372036854775807"
    assert told in capsys.readouterr().err


def test_the_largest_seed_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A bound that is told can be reached."""
    assert main(["load", QUEUE, "--seed", str((1 << 63) - 1), "--count", "5", "--quiet"]) == 0
    assert "5" in capsys.readouterr().out
