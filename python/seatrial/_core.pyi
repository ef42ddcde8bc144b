# ruff: noqa: PYI021 - the documentation of the core lives here, where editors show it
"""The Rust core: it offers load and keeps raw instants. Import it through `seatrial.loadgen`.

Times are whole nanoseconds of the kernel's monotonic clock, the timeline of
`time.monotonic_ns()`; a `fake://` target runs on a virtual clock that starts at 0. Unknown
is `None` or null, never 0 or -1.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

__all__ = [
    "BuildInfo",
    "CoreError",
    "Histogram",
    "LoadPlan",
    "LoadResult",
    "arrivals",
    "build_info",
    "run_load",
]

class CoreError(Exception):
    """The core could not do its work. Trouble of single requests is their outcome, not an error."""

    code: str
    """`invalid-plan`, `invalid-value`, `invalid-option`, `connect-failed`, `system-call-failed`,
    `bad-histogram` or `thread-panicked`; does not change between versions."""

@final
class BuildInfo:
    """What this build of the core is."""

    @property
    def version(self) -> str:
        """Version of the crate, the same as that of the Python package."""

    @property
    def profile(self) -> str:
        """`release`, or `debug`, whose measurements mean nothing."""

@final
class Histogram:
    """Durations in ns as counts of buckets; never changes, `merge` makes a new one.

    Range 0 to 3.6e12 ns (1 h); beyond it a duration counts in the top bucket. A quantile is at
    most 0.1 % above the recorded value. `count`, `min_ns`, `max_ns` and `mean_ns` are exact.
    """

    def __new__(cls) -> Histogram:
        """Returns an empty histogram."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # equal by content, so not hashable
    @property
    def count(self) -> int:
        """How many durations were recorded."""

    @property
    def min_ns(self) -> int | None:
        """The smallest duration; None when there is none."""

    @property
    def max_ns(self) -> int | None:
        """The largest duration; None when there is none."""

    @property
    def mean_ns(self) -> float | None:
        """The arithmetic mean; None when there is none."""

    def quantile(self, q: float, /) -> int | None:
        """Returns the smallest duration that at least the share `q` (0 to 1) does not exceed.

        None when nothing was recorded or `q` is outside of 0 to 1.
        """

    def merge(self, other: Histogram, /) -> Histogram:
        """Returns a histogram as if it had recorded everything that either of the two recorded."""

    def to_bytes(self) -> bytes:
        """Returns the histogram in a compact, versioned, little-endian form."""

    @staticmethod
    def from_bytes(data: bytes, /) -> Histogram:
        """Returns the histogram that `to_bytes` wrote.

        Raises:
            CoreError: code `bad-histogram`, when the bytes are cut, damaged or of another version.
        """

@final
class LoadPlan:
    """One load: where, what, how much, how long, and the bounds. Checked when it is made."""

    def __new__(
        cls,
        *,
        targets: Sequence[str],
        protocol: str,
        options: Mapping[str, str] = {},
        operation: str,
        payload_bytes: int,
        demand: str,
        arrival: str,
        rate_rps: float | None = None,
        agent: int = 0,
        agents: int = 1,
        start_at_ns: int | None = None,
        connections: int,
        threads: int,
        depth: int,
        warm_up_ns: int,
        measure_ns: int,
        drain_ns: int,
        request_timeout_ns: int,
        requests_max: int,
        records_max: int,
        seed: int,
        wait: str,
    ) -> LoadPlan:
        """Checks the settings, alone and together.

        Args:
            targets: 1 to 4096 of `tcp://ADDRESS:PORT` (a numeric address), `tls://`, `udp://`,
                `unix:///PATH`, or one
                `fake://?workers=1&service=LAW&stall_at=TIME&stall=TIME` for a modelled server.
                Connection `i` goes to target `i mod targets`.
            protocol: `echo` (bytes back as they came) or `rpc`.
            options: settings that only this protocol knows; rpc: `reply_bytes` (payload of a
                checksum reply, 0 to 1 MiB, default 2048) and `touch_bytes` (1 byte to 256 MiB,
                default 1 MiB).
            operation: for rpc `empty`, `checksum`, `spin` (CPU time), `spin_wall`, `sleep` or
                `touch`; for echo `empty`.
            payload_bytes: payload of each request, 0 to 1 MiB; at least 1 for echo.
            demand: work that each request asks for: `none`, `constant:100us` or
                `exponential:1ms`; needed for spin, spin_wall and sleep, `none` otherwise (a fake
                target takes it always).
            arrival: `closed`, or for an open loop `fixed` or `poisson`.
            rate_rps: arrivals a second of all threads; None for a closed loop.
            agent: number of this process among those that share the schedule, from 0.
            agents: processes that share the schedule; each sends the arrivals that are its own.
            start_at_ns: instant of the start, as agreed by agents; None for at once.
            connections: of all threads of this agent together, 1 to 10000.
            threads: 1 to 64, at most one for each connection; 1 for a fake target.
            depth: requests at once on one connection, 1 to 1024.
            warm_up_ns: length of the phase that is thrown away.
            measure_ns: length of the phase that counts.
            drain_ns: how long stragglers are waited for; no load is offered in it.
            request_timeout_ns: from the intended instant to a time-out.
            requests_max: bound on the requests of all threads.
            records_max: bound on the records of all threads; what does not fit is counted.
            seed: decides arrivals and demands, 0 to 2**64 - 1; the schedule does not depend on
                `threads`.
            wait: how threads wait for an intended instant: `block` (late by some us) or `hybrid`
                (spins for the last 60 us).

        Raises:
            CoreError: code `invalid-plan`, `invalid-value` or `invalid-option`; the message names
                the setting.
        """

    @property
    def settings(self) -> dict[str, object]:
        """The settings as they were given."""

@final
class LoadResult:
    """What became of a load. Histograms are of the measure phase, counters of all phases.

    It is an Arrow stream of records (`polars.DataFrame(result)` copies nothing), one batch a
    thread, in order of the ends of the requests, warm-up included:

    - `intended_at_ns` int64: when it was due; closed loop: when the place was free
    - `sent_at_ns` int64 or null: when it was handed to its connection
    - `first_byte_at_ns` int64 or null: when the first byte of its reply was read
    - `done_at_ns` int64 or null: when the whole reply was read
    - `outcome` uint8: 0 ok, 1 timeout, 2 refused, 3 reset, 4 protocol error,
      5 application error, 6 unsent
    - `connection` uint32 or null: null when it was never sent
    - `request_id` uint64: unique in the run; the index in the schedule
    - `demand_ns` int64: the work it asked for
    - `server_service_ns` int64 or null: the server's own time, when the protocol tells
    - `phase` uint8: 0 warm-up, 1 measure, by `intended_at_ns`
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Returns a capsule `arrow_array_stream`; the schema cannot be negotiated."""

    def __len__(self) -> int:
        """Returns how many records were kept."""

    @property
    def response_histogram(self) -> Histogram:
        """From intended to done, of correct replies."""

    @property
    def service_histogram(self) -> Histogram:
        """From sent to done, of correct replies."""

    @property
    def send_lag_histogram(self) -> Histogram:
        """From intended to sent; in an open loop the wait for a free place is part of it."""

    @property
    def pacing_lag_histogram(self) -> Histogram:
        """From due *and* a place free to sent: the lateness that is the engine's own fault."""

    @property
    def started_at_ns(self) -> int:
        """The common start of all threads; connections were made before."""

    @property
    def measure_start_ns(self) -> int:
        """Begin of the measure phase."""

    @property
    def measure_end_ns(self) -> int:
        """End of the measure phase: as planned, or when the load ended before its time."""

    @property
    def ended_at_ns(self) -> int:
        """When the last thread was done."""

    @property
    def intended_count(self) -> int:
        """Requests that were due, warm-up included: the sum of the outcomes below."""

    @property
    def sent_count(self) -> int:
        """Handed to a connection, whatever came of it."""

    @property
    def ok_count(self) -> int:
        """Correct replies."""

    @property
    def timeout_count(self) -> int:
        """Sent, but without a whole reply by the deadline or the end of the drain phase."""

    @property
    def error_count(self) -> int:
        """Refused, reset, or answered with a failure."""

    @property
    def protocol_error_count(self) -> int:
        """Answered with bytes that are no reply."""

    @property
    def unsent_count(self) -> int:
        """Never sent: no place was free by the deadline or the end of the drain phase."""

    @property
    def records_dropped_count(self) -> int:
        """Records that did not fit into `records_max`."""

    @property
    def generator_user_ns(self) -> int:
        """CPU time of the engine's threads in user code, from the start on."""

    @property
    def generator_system_ns(self) -> int:
        """CPU time of the engine's threads in the kernel, from the start on."""

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C ended the load early; what was in flight then counts as timed out."""

def build_info() -> BuildInfo:
    """Returns version and build profile of the core."""

def arrivals(law: str, rate_rps: float, seed: int, n: int) -> list[int]:
    """Returns the first `n` (at most 10**7) arrivals of a law, in ns from the start.

    It is the sequence that `run_load` offers for the same law, rate and seed.

    Raises:
        CoreError: the law is not `fixed` or `poisson`, or the rate is not above 0.
    """

def run_load(plan: LoadPlan) -> LoadResult:
    """Offers the load and returns when it is over; every thread is joined by then.

    The interpreter is free meanwhile. A `KeyboardInterrupt` (Ctrl-C) ends the load within
    100 ms and is not raised: the result has what was measured and says `was_interrupted`. Any
    other exception of a signal handler ends the load, too, and is raised.

    Raises:
        CoreError: the target turned connections away before the start (`connect-failed`), or the
            kernel refused what the engine needs (`system-call-failed`).
    """
