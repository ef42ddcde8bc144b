"""What `seatrial load --help` offers is what `seatrial load` takes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from seatrial.cli.load_help import EPILOG
from seatrial.cli.load_options import OPTIONS, options_markdown
from seatrial.cli.main import main
from seatrial.errors import ConfigError
from seatrial.loadgen import LoadRequest, arrival_process
from seatrial.loadtest.target import SCHEMES

QUEUE = "fake://?service=exponential:1ms"


def section(begin: str, end: str) -> str:
    """Returns what the help says between two headings."""
    assert begin in EPILOG
    return EPILOG.partition(begin)[2].partition(end)[0]


def test_every_arrival_of_the_help_is_accepted() -> None:
    """What is copied from the help works as it stands, but for the name of a file."""
    laws = re.split(r",\s+", section("that --rate gives:\n", "trace:FILE"))
    named = [law.strip() for law in laws if law.strip()]
    assert {law.partition(":")[0] for law in named} >= {"fixed", "poisson", "gev", "mmpp", "fb_ia"}
    for law in named:
        assert arrival_process(law, 100.0, pattern="fixed") is not None, law


@pytest.mark.parametrize("law", ["poisson", "lognormal:cv=2", "gev:shape=0.1,scale=0.5"])
def test_a_law_of_arrivals_needs_a_rate(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed loop has no law of arrivals, and must not pass for the load that was asked for."""
    words = ["load", QUEUE, "--arrival", law, "--count", "20", "--quiet"]
    assert main(words) == 2
    assert f"--arrival {law} needs --rate" in capsys.readouterr().err
    assert main([*words, "--rate", "1k/s"]) == 0
    assert "open loop" in capsys.readouterr().out


def test_every_scheme_of_a_url_is_in_the_help() -> None:
    """A service that could be loaded is not kept from who reads the help."""
    urls = section("URLs (several", "values:")
    aliases = {"echo", "echo+udp", "echo+tls", "echo+unix"}
    for scheme in set(SCHEMES) - aliases:
        assert f" {scheme}://" in urls, scheme


def names_known(protocol: str) -> set[str]:
    """Returns the options that the engine lists when it refuses one."""
    engine = {"redis": "resp", "tls": "echo"}.get(protocol, protocol)
    scheme = "tls" if protocol == "tls" else "tcp"
    found: set[str] = set()
    # gRPC has some options for its own method alone, and some for others.
    for method in ({}, {"method": "/a.B/C"}) if protocol == "grpc" else ({},):
        unknown = "tls_nothing" if protocol == "tls" else "nothing"
        request = LoadRequest(
            targets=(f"{scheme}://127.0.0.1:1",),
            measure_ns=1,
            protocol=engine,
            payload_bytes=64 if engine == "echo" else 0,
            options={**method, unknown: "1"},
        )
        with pytest.raises(ConfigError) as refused:
            request.to_plan()
        found |= set(refused.value.message.partition("expected one of ")[2].split(", "))
    return found


@pytest.mark.parametrize("protocol", OPTIONS)
def test_every_option_of_a_protocol_is_explained(protocol: str) -> None:
    """The names are the engine's own, no more and no fewer."""
    assert {option.name for option in OPTIONS[protocol]} == names_known(protocol)


@pytest.mark.parametrize("protocol", sorted(set(OPTIONS) - {"tls"}))
def test_the_defaults_that_are_told_are_accepted(protocol: str) -> None:
    """Each default that is a value of its own, all together, makes a plan."""
    told = {one.name: one.default for one in OPTIONS[protocol]}
    words = {"none", "of the URL", "of the URL or 0"}
    options = {name: value for name, value in told.items() if value not in words}
    engine = {"redis": "resp"}.get(protocol, protocol)
    if protocol == "grpc":
        # Only for methods of others.
        assert options.pop("expect") == "any"
    request = LoadRequest(
        targets=("tcp://127.0.0.1:1",), measure_ns=1, protocol=engine, options=options
    )
    if engine == "echo":
        request = dataclasses.replace(request, payload_bytes=64)
    assert request.to_plan() is not None


def test_options_are_told_by_the_command_and_in_the_guide(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same table in both, with every name, default and form."""
    with pytest.raises(SystemExit) as end:
        main(["load", "--help-options"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    guide = (Path(__file__).parents[2] / "docs/load.md").read_text()
    assert options_markdown() in guide
    for option in (option for options in OPTIONS.values() for option in options):
        assert f"  {option.name:<16} {option.form} (default: {option.default})" in told
    assert max(map(len, told.splitlines())) <= 119


def test_loads_that_write_are_announced() -> None:
    """Nobody finds out from the content of a store in use."""
    assert "WRITE by default" in EPILOG
    assert "read_ratio=1" in EPILOG
