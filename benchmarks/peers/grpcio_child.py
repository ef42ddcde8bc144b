"""A closed loop of unary calls with the official Python client; prints one line of JSON.

    grpcio_child ADDRESS METHOD BYTES SECONDS WARM_UP CALLS

With one call at a time the blocking interface is used, with more the asynchronous one; all share
one channel. Needs grpcio, which is no dependency of Seatrial.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc
import grpc.aio


class Window:
    """The measured time, on the clock of `time.monotonic` (s)."""

    def __init__(self, *, length: float, warm_up: float) -> None:
        self.begin = time.monotonic() + warm_up
        self.length = length
        self.end = self.begin + length


def blocking(address: str, method: str, payload: bytes, window: Window) -> list[float]:
    """Returns the lengths of all calls that ended in the measured time (s)."""
    lengths = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method)
        done = time.monotonic()
        while done < window.end:
            sent, reply = done, call(payload)
            done = time.monotonic()
            if reply != payload:
                raise SystemExit(f"{len(reply)} other bytes came back")
            if window.begin <= done < window.end:
                lengths.append(done - sent)
    return lengths


async def many(
    address: str, method: str, payload: bytes, window: Window, *, calls: int
) -> list[float]:
    """As `blocking`, with `calls` calls in flight."""
    lengths: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method)

        async def worker() -> None:
            done = time.monotonic()
            while done < window.end:
                sent, reply = done, await call(payload)
                done = time.monotonic()
                if reply != payload:
                    raise SystemExit(f"{len(reply)} other bytes came back")
                if window.begin <= done < window.end:
                    lengths.append(done - sent)

        await asyncio.gather(*(worker() for _ in range(calls)))
    return lengths


def main() -> int:
    """Reads the command line, runs the loop, prints rate and quantiles."""
    address, method, size, length, warm_up, calls = sys.argv[1:]
    window = Window(length=float(length), warm_up=float(warm_up))
    payload = bytes(int(size))
    if calls == "1":
        lengths = blocking(address, method, payload, window)
    else:
        lengths = asyncio.run(many(address, method, payload, window, calls=int(calls)))
    lengths.sort()
    figures = {"rate_rps": len(lengths) / window.length}
    for word, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        figures[f"response_{word}_ns"] = lengths[int(q * (len(lengths) - 1))] * 1e9
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
