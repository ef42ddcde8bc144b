# ruff: noqa: PYI021 - the documentation of the core lives here, where editors show it
"""The Rust core: it offers load and keeps raw instants. Import it through `seatrial.loadgen`.

Times are whole nanoseconds of the kernel's monotonic clock, the timeline of
`time.monotonic_ns()`; a `fake://` target runs on a virtual clock that starts at 0. Unknown
is `None` or null, never 0 or -1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, final

__all__ = [
    "ArrivalProcess",
    "BuildInfo",
    "CoreError",
    "Counts",
    "Histogram",
    "Interval",
    "LoadPlan",
    "LoadResult",
    "Snapshot",
    "TargetResult",
    "Timestamps",
    "build_info",
    "hdr_log",
    "run_load",
]

class CoreError(Exception):
    """The core could not do its work. Trouble of single requests is their outcome, not an error."""

    code: str
    """`invalid-plan`, `invalid-value`, `invalid-option`, `start-missed`, `connect-failed`,
    `system-call-failed`, `bad-histogram` or `thread-panicked`; does not change between
    versions."""

@final
class ArrivalProcess:
    """What an open loop offers: a law of the gaps, a rate, and how the rate changes over time.

    `run_load` offers exactly its arrivals for the same law, rate, pattern and seed. METHODOLOGY
    5.1 has the formulas.
    """

    def __new__(
        cls, law: str, *, rate_rps: float | None = None, pattern: str = "fixed"
    ) -> ArrivalProcess:
        """Checks that law, rate and pattern fit together; reads the file of a trace.

        Args:
            law: `fixed`, `poisson`, `uniform` (or `uniform:low=0.5`, a share of the mean gap),
                `lognormal:cv=2`, `gamma:cv=2`, `weibull:shape=0.5`, `pareto:shape=0.3`
                (generalised; or `pareto:alpha=2.5`), `gev:shape=0.1,scale=0.3`,
                `bimodal:ratio=10,share=0.1`, `mmpp:factor=10,burst=10ms,calm=90ms`, `fb_ia`, or
                `trace:PATH[,scale=2][,loop=yes]` with a file of offsets in ns, one a line or the
                first column `t_ns` of a CSV.
            rate_rps: arrivals a second, above 0 and at most 1e9; gives the mean gap.
            pattern: `fixed`, `spike:at=10s,for=1s,factor=5` (both need `rate_rps`);
                `step:from=1000,to=5000,by=1000,every=10s` (the last step is `to` and stays),
                `ramp:from=0,to=5000,over=60s`, `square:low=0,high=5000,period=2s` (low first).

        Raises:
            CoreError: code `invalid-value` or `invalid-plan`; the message says what is known.
        """

    def offsets_ns(self, *, seed: int, n: int, agent: int = 0, agents: int = 1) -> list[int]:
        """Returns the first `n` (at most 10**7) arrivals of one agent, in ns from the start.

        Fewer when a trace ends, or the rate falls to 0 for ever. Agent `k` of `m` has those
        whose index in the whole sequence is `k` modulo `m`.

        Raises:
            CoreError: `invalid-plan`, when a number is out of its range.
        """

    def places(self, offsets_ns: Sequence[int], /) -> list[float]:
        """Returns where observed arrivals lie in this process: one value less than arrivals.

        Each gap in operational time (the count of expected arrivals), put through the law's
        distribution function: independent and even from 0 to 1 if the arrivals follow the process.
        For `fixed` instead how far each arrival is from its place in the schedule that the first
        one begins, in mean gaps: 0. For `mmpp` the values are even, but depend on each other.

        Args:
            offsets_ns: all arrivals in order, none left out, in ns from the start of the load.

        Raises:
            CoreError: `invalid-plan`, when they are negative or not in order.
        """

    def rates_rps(self, offsets_ns: Sequence[int], /) -> list[float | None]:
        """Returns the rate that is offered at each offset, in arrivals a second.

        None only for a recorded trace whose arrivals are all at one instant.
        """

    def expected_counts(self, offsets_ns: Sequence[int], /) -> list[float]:
        """Returns the integral of the rate from 0 to each offset; for a trace the exact count."""

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
class Counts:
    """Requests by how they ended; `intended_count` is the sum of all outcomes."""

    @property
    def intended_count(self) -> int:
        """Due."""

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
    def refused_count(self) -> int:
        """Never sent: the target turned every connection away."""

    @property
    def reset_count(self) -> int:
        """Their connection was closed while they were on it."""

    @property
    def protocol_error_count(self) -> int:
        """Answered with bytes that are no reply."""

    @property
    def application_error_count(self) -> int:
        """Answered with a failure."""

    @property
    def unsent_count(self) -> int:
        """Never sent: no place was free by the deadline or the end of the drain phase."""

    @property
    def failed_count(self) -> int:
        """All outcomes but ok."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # equal by content, so not hashable

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

    def buckets(self) -> tuple[list[int], list[int]]:
        """Returns the largest value of each bucket in ns, ascending, and how many are in it."""

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
        pattern: str = "fixed",
        think: str = "none",
        agent: int = 0,
        agents: int = 1,
        start_at_ns: int | None = None,
        connections: int,
        threads: int,
        depth: int,
        outstanding_max: int | None = None,
        warm_up_ns: int,
        measure_ns: int,
        cool_down_ns: int = 0,
        interval_ns: int = ...,
        drain_ns: int,
        request_timeout_ns: int,
        requests_max: int,
        records_max: int,
        seed: int,
        wait: str,
        cpus: Sequence[int] = (),
        timestamps: str = "user",
        timestamps_every: int = 1,
    ) -> LoadPlan:
        """Checks the settings, alone and together.

        Args:
            targets: 1 to 4096 of `tcp://ADDRESS:PORT` (a numeric address), `tls://`, `udp://`,
                `unix:///PATH`, or one
                `fake://?workers=1&service=LAW&stall_at=TIME&stall=TIME` for a modelled server.
                Connection `i` goes to target `i mod targets`.
            protocol: `echo` (bytes back as they came), `rpc`, `http` (HTTP/1.1), `grpc` (unary
                calls over HTTP/2), `resp` (Redis) or `memcached`.
            options: settings that only this protocol knows; echo: `verify` (true: what comes back
                is compared with what went); rpc: `reply_bytes` (payload of a
                checksum reply, 0 to 1 MiB, default 2048) and `touch_bytes` (1 byte to 256 MiB,
                default 1 MiB); http: `method` (GET), `path` (/), `host` (the target's address),
                `header` (lines of `name: value`), one of `body`, `body_bytes` and `body_file`,
                `expect_status` (`2xx`; codes and classes by comma), `check_body` (none, same,
                length:BYTES or crc32:SUM) and `keep_alive` (true). Path, header and body may
                hold `{demand_ns}` and `{id}`, which each request fills in; grpc: `method`
                (`/seatrial.v1.Load/Call`, which does the operations and knows the options of
                rpc), `authority` (the target's address), `header` (metadata, lines of
                `name: value`), and for another method `message` (text) or `message_hex`
                instead of a payload, and `expect` (any or echo); resp and memcached: `keys`
                (10000), `key_bytes` (16) and `value_bytes` (100; sizes are bytes or a law such as
                `lognormal:mean=1KiB,cv=2`, `fb_key` or `fb_val`, drawn once for each key),
                `popularity` (uniform, round-robin or zipf:skew=S), `read_ratio` (0.9), `miss` (ok,
                counted as such, or error), `verify` (true: values are compared) and `preload`
                (false; true writes every key before the load); resp also: `command` (words with
                `{key}`, `{value}`, `{id}`, `{demand_ns}`, instead of reads and writes), `auth`
                (PASSWORD or USER:PASSWORD) and `db` (0); memcached also: `dialect` (text or meta).
                For `tls://` targets of any protocol: `tls_ca` (PEM file of who is trusted; else
                whom the machine trusts), `tls_server_name` (the target's address), `tls_insecure`
                (false; true trusts anybody), `tls_alpn` (what the protocol asks for) and
                `tls_resumption` (true; false makes a full handshake for each connection).
            operation: for rpc and grpc `empty`, `checksum`, `spin` (CPU time), `spin_wall`,
                `sleep` or `touch`; for echo `empty`.
            payload_bytes: payload of each request, 0 to 1 MiB; at least 1 for echo.
            demand: work that each request asks for: `none`, `constant:100us`, `exponential:1ms`,
                `uniform:low=1ms,high=2ms`, `lognormal:mean=1ms,cv=2`, `gamma:mean=1ms,cv=2`,
                `weibull:mean=1ms,shape=0.5`, `pareto:mean=1ms,shape=0.3`,
                `gev:location=1ms,scale=100us,shape=0.1` or `bimodal:low=1ms,high=9ms,share=0.1`;
                needed for spin, spin_wall and sleep, `none` otherwise (a fake target takes it
                always). It depends on the seed and the request id only.
            arrival: `closed`, or for an open loop a law as `ArrivalProcess` takes it.
            rate_rps: arrivals a second of all threads and agents; None for a closed loop, for a
                pattern with rates of its own, and for a trace that is replayed as recorded.
            pattern: how the rate changes over time, as `ArrivalProcess` takes it; it counts from
                the start of the load, warm-up included.
            think: for a closed loop, how long a place stays idle after it became free, before it
                is due: a law as for `demand`.
            agent: number of this process among those that share the schedule, from 0.
            agents: processes that share the schedule; each sends the arrivals that are its own.
            start_at_ns: instant of the start, as agreed by agents; None for at once. An instant
                that is over when all connections are made is an error (`start-missed`).
            connections: of all threads of this agent together, 1 to 10000.
            threads: 1 to 64, at most one for each connection; 1 for a fake target.
            depth: requests at once on one connection, 1 to 1024.
            outstanding_max: requests at once on all connections together, at least one for each
                thread (the bound is dealt to the threads without remainder); None for as many as
                there are places. A request that finds no place waits, and that time counts.
            warm_up_ns: length of the phase that is thrown away.
            measure_ns: length of the phase that counts.
            interval_ns: length of the intervals in which happenings are told, at least 1 ms, 100 ms
                if not given; beyond 4096 of them, pairs become one.
            cool_down_ns: length of the phase after it in which load is offered and not counted.
            drain_ns: how long stragglers are waited for; no load is offered in it.
            request_timeout_ns: from the intended instant to a time-out.
            requests_max: bound on the requests of all threads of all agents.
            records_max: bound on the records of all threads, 0 or at least one for each. When it is
                reached, only one of each two requests of a thread is kept, then of each four, and
                so on (`records_stride`).
            seed: decides arrivals and demands, 0 to 2**64 - 1; the schedule does not depend on
                `threads`.
            wait: how threads wait for an intended instant: `block` (late by some us), `hybrid`
                (spins for the last 40 to 300 us, as calibrated before the start) or `spin` (never
                blocks, sees replies sooner, too, and takes a whole CPU for each thread).
            cpus: thread `i` is tied to `cpus[i mod n]`; empty for no tie.
            timestamps: who says when packets left and came, besides the engine itself: `user`
                (nobody), `kernel` (software stamps of TCP and UDP) or `hardware` (the network
                device's). What cannot be had falls back, and the result says why.
            timestamps_every: stamps every so-maniest request, at least 1; each stamp costs a
                system call.

        Raises:
            CoreError: code `invalid-plan`, `invalid-value` or `invalid-option`; the message names
                the setting.
        """

    @property
    def settings(self) -> dict[str, object]:
        """The settings as they were given."""

@final
class Timestamps:
    """What became of the time stamps of a load."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # equal by content, so not hashable
    @property
    def requested(self) -> str:
        """What the plan asked for: `user`, `kernel` or `hardware`."""

    @property
    def used(self) -> str:
        """What was used: the same, or less."""

    @property
    def reason(self) -> str | None:
        """Why it was less; None when it was not."""

    @property
    def matched_count(self) -> int:
        """Replies whose request and own stamp are both known, of all phases."""

    @property
    def missing_count(self) -> int:
        """Replies to requests that should have been stamped, without both stamps."""

    @property
    def clock_uncertainty_ns(self) -> int:
        """How well the kernel's clock could be converted to ours, at the worst, up or down."""

@final
class Interval:
    """What happened in one interval; what ends one begins the next.

    Intervals are counted from the begin of the measure phase in both directions.
    """

    @property
    def start_ns(self) -> int:
        """Its begin."""

    @property
    def end_ns(self) -> int:
        """Its end; the last one ends with the run."""

    @property
    def intended_count(self) -> int:
        """Requests that were due in it."""

    @property
    def sent_count(self) -> int:
        """Requests that were sent in it."""

    @property
    def ok_count(self) -> int:
        """Correct replies that came in it."""

    @property
    def failed_count(self) -> int:
        """Requests that failed in it."""

    @property
    def sent_bytes(self) -> int:
        """Bytes that the kernel took in it."""

    @property
    def received_bytes(self) -> int:
        """Bytes that were read in it."""

    @property
    def response_histogram(self) -> Histogram:
        """Response times of the correct replies that came in it, of whatever phase."""

@final
class TargetResult:
    """How the requests to one target fared in the measure phase.

    A request that was never sent belongs to no target, because it had no connection.
    """

    @property
    def target(self) -> str:
        """The target as it was written."""

    @property
    def counts(self) -> Counts:
        """How its requests ended."""

    @property
    def achieved_count(self) -> int:
        """Its correct replies that came in the measure phase, whenever their request was due."""

    @property
    def response_histogram(self) -> Histogram:
        """From intended to done, of its correct replies."""

@final
class Snapshot:
    """What a load looks like while it runs; it never changes."""

    @property
    def elapsed_ns(self) -> int:
        """From the start to the instant up to which every thread has told what happened."""

    @property
    def measured(self) -> Counts:
        """Requests of the measure phase that have ended so far."""

    @property
    def response_histogram(self) -> Histogram:
        """Response times of the correct replies among them."""

    @property
    def intervals(self) -> list[Interval]:
        """Intervals that have ended since the last snapshot.

        A request that waits for a free place is among the intended ones only when its wait is
        over, and then perhaps too late for a snapshot; the result counts all.
        """

@final
class LoadResult:
    """What became of a load. Histograms are of the measure phase, counters of all phases.

    It is an Arrow stream of records (`polars.DataFrame(result)` copies nothing), one batch a
    thread, by intended instant, all phases; the sample that `records_stride` tells:

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
    - `kernel_sent_at_ns` int64 or null: when the kernel gave the request to the device
    - `kernel_received_at_ns` int64 or null: when the kernel got the reply from the device
    - `phase` uint8: 0 warm-up, 1 measure, 3 cool-down, by `intended_at_ns`
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
    def wire_histogram(self) -> Histogram:
        """From the kernel's stamp of the request to that of its reply, where both are known.

        By the device's stamps if `timestamps.used` is `hardware`. Empty without stamps.
        """

    @property
    def wake_histogram(self) -> Histogram:
        """From the kernel's stamp of the reply to done, for the same requests."""

    @property
    def timestamps(self) -> Timestamps:
        """Who stamped packets, and how often it worked."""

    @property
    def queue_histogram(self) -> Histogram:
        """From intended until a place was free, of requests that found none and got one."""

    @property
    def connect_histogram(self) -> Histogram:
        """Time to make a connection, greeting included; of all, also those made again."""

    @property
    def counts(self) -> Counts:
        """How the requests of all phases ended."""

    @property
    def measured(self) -> Counts:
        """How the requests of the measure phase ended."""

    @property
    def failures(self) -> list[tuple[int, str, int]]:
        """Why requests of all phases failed: outcome (as in the records), text, count.

        Also what was to be told apart among those that did not fail, such as reads of a key that
        is not there. The most frequent first; at most 64 distinct texts of at most 200 bytes,
        what comes after those is counted as `other`.
        """

    @property
    def queued_count(self) -> int:
        """Requests of all phases that found no free place when they were due, and got one later."""

    @property
    def late_reply_count(self) -> int:
        """Replies to requests that had ended already, by a time-out or by another reply."""

    @property
    def resent_count(self) -> int:
        """How often a request was sent again on another connection.

        The peer of the first one had ended it and told that it did nothing about the request.
        """

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
    def counted_until_ns(self) -> int:
        """Until when `achieved_count` counts: the end of the measure phase.

        Where the requests ran out before it, the last correct reply.
        """

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
    def records_stride(self) -> int | None:
        """Of how many requests of a thread one record was kept; None when none was asked for.

        1 as long as `records_max` suffices, else a power of two: of so many requests in a row of
        the thread's part of the schedule one is kept, picked by fixed random bits. Histograms and
        counters are of all requests, whatever the stride.
        """

    @property
    def achieved_count(self) -> int:
        """Correct replies that came in the measure phase, whenever their request was due."""

    @property
    def intervals(self) -> list[Interval]:
        """What happened when, all phases, without gaps; at most 4096."""

    @property
    def targets(self) -> list[TargetResult]:
        """How the measure phase went with each of several targets; empty when there is only one."""

    @property
    def generator_user_ns(self) -> int:
        """CPU time of the engine's threads in user code, from the start on."""

    @property
    def generator_system_ns(self) -> int:
        """CPU time of the engine's threads in the kernel, from the start on."""

    @property
    def sent_bytes(self) -> int:
        """Bytes that the kernel took, from the first connection on, protocol chatter included."""

    @property
    def received_bytes(self) -> int:
        """Bytes that were read from the kernel, likewise."""

    @property
    def reordered_count(self) -> int:
        """Replies in datagrams that came after the reply to a later request of the connection."""

    @property
    def duplicate_count(self) -> int:
        """Replies in datagrams that had come before."""

    @property
    def held_back_count(self) -> int:
        """Requests that the peer did not admit at once, where the protocol has such a bound."""

    @property
    def congestion_control(self) -> str | None:
        """The congestion control of the connections; None where there is none."""

    @property
    def voluntary_switch_count(self) -> int:
        """Times that the engine's threads gave up their CPU to wait, from the start on."""

    @property
    def involuntary_switch_count(self) -> int:
        """Times that the CPU was taken away from a thread of the engine, from the start on."""

    @property
    def wait(self) -> str:
        """How the threads waited: `block`, `hybrid` or `spin`."""

    @property
    def guard_ns(self) -> int | None:
        """How long before an instant the hybrid wait began to spin, on the worst thread."""

    @property
    def cpus_seen(self) -> list[int]:
        """CPUs on which threads of the engine were seen, looking once in 64 turns of the loop."""

    @property
    def was_finished_early(self) -> bool:
        """Whether the observer ended the offer early; replies were waited for as planned."""

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C ended the load early; what was in flight then counts as timed out."""

def build_info() -> BuildInfo:
    """Returns version and build profile of the core."""

def hdr_log(
    stretches: Sequence[tuple[int, int, Histogram]], *, epoch_offset_ns: int, comment: str
) -> str:
    """Returns successive histograms as an HDR histogram log, format version 1.3.

    Args:
        stretches: begin and end in ns of the monotonic clock, and the durations in ns of each.
        epoch_offset_ns: what to add to the monotonic clock for the time since 1970.
        comment: a line for people.

    Raises:
        ValueError: a stretch begins before 1970.
    """

def run_load(plan: LoadPlan, observe: Callable[[Snapshot], object] | None = None) -> LoadResult:
    """Offers the load and returns when it is over; every thread is joined by then.

    `observe` is called about four times a second from the start on, in the calling thread. When it
    returns something true, nothing more is offered, replies are waited for as planned, and the
    result says `was_finished_early`. An exception of it ends the load and is raised.

    The interpreter is free meanwhile, except during those calls. A `KeyboardInterrupt` (Ctrl-C)
    ends the load within 100 ms and is not raised: the result has what was measured and says
    `was_interrupted`. Any other exception of a signal handler ends the load, too, and is raised.

    Raises:
        CoreError: the target turned connections away before the start (`connect-failed`), or the
            kernel refused what the engine needs (`system-call-failed`).
    """
