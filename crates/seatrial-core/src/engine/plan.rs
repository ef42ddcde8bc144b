//! What to offer: a load plan, checked as a whole before anything is sent.

use crate::arrival::DemandLaw;
pub use crate::arrival::Loop;
use crate::engine::datagrams;
use crate::engine::protocols::Speech;
use crate::error::CoreError;
use crate::pacer::WaitMode;
use crate::transport::options::Options;
use crate::transport::stamps::Stamping;
use crate::transport::target::{SocketTarget, Target};
use crate::units::Nanos;
use crate::wire::{Operation, PAYLOAD_BYTES_MAX};

/// Most connections of a run; the guest's server accepts as many.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// Most threads of a run.
pub const THREADS_MAX: u32 = 64;
/// Most requests that wait for a reply on one connection.
pub const DEPTH_MAX: u32 = 1_024;
/// Longest phase of a run: one day.
pub const PHASE_MAX: Nanos = Nanos::new(86_400_000_000_000);
/// Shortest interval in which happenings are told.
pub const INTERVAL_MIN: Nanos = Nanos::new(1_000_000);
/// Most CPUs that threads are tied to.
pub const CPUS_MAX: usize = 1_024;
/// Most servers that one load goes to.
pub const TARGETS_MAX: usize = 4_096;
/// Most agents that share one schedule.
pub const AGENTS_MAX: u32 = 1_024;
/// Most records that a run keeps; one takes about 60 bytes.
pub const RECORDS_MAX: u64 = 100_000_000;

/// The bytes that requests and replies are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolKind {
    /// Bytes back as they came.
    Echo,
    /// The format of [`crate::wire`].
    Rpc,
    /// HTTP/1.1 requests.
    Http,
    /// Unary calls over HTTP/2.
    Grpc,
    /// The protocol of Redis.
    Resp,
    /// The protocol of memcached.
    Memcached,
}

impl ProtocolKind {
    /// Reads the name of a protocol.
    ///
    /// # Errors
    /// [`CoreError::InvalidValue`] for any other name.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "echo" => Ok(Self::Echo),
            "rpc" => Ok(Self::Rpc),
            "http" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            "resp" => Ok(Self::Resp),
            "memcached" => Ok(Self::Memcached),
            _ => Err(CoreError::InvalidValue {
                what: "protocol",
                value: text.to_owned(),
                expected: "echo, rpc, http, grpc, resp or memcached",
            }),
        }
    }
}

/// Reads the name of an rpc operation.
///
/// # Errors
/// [`CoreError::InvalidValue`] for a name that is not known.
pub fn parse_operation(text: &str) -> Result<Operation, CoreError> {
    match text {
        "empty" => Ok(Operation::Empty),
        "checksum" => Ok(Operation::Checksum),
        "spin" => Ok(Operation::Spin),
        "spin_wall" => Ok(Operation::SpinWall),
        "sleep" => Ok(Operation::Sleep),
        "touch" => Ok(Operation::Touch),
        _ => Err(CoreError::InvalidValue {
            what: "operation",
            value: text.to_owned(),
            expected: "empty, checksum, spin, spin_wall, sleep or touch",
        }),
    }
}

/// One load: where, what, how much, how long, and the bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadPlan {
    /// The servers; connection `i` of the run goes to target `i mod targets`.
    pub targets: Vec<Target>,
    /// The targets as they were written, for messages.
    pub targets_text: Vec<String>,
    /// The bytes to speak.
    pub protocol: ProtocolKind,
    /// Settings that only this protocol knows.
    pub options: Options,
    /// What each rpc request asks for.
    pub operation: Operation,
    /// Bytes of payload in each request.
    pub payload_bytes: u32,
    /// How much work each request asks for.
    pub demand: DemandLaw,
    /// Open or closed loop.
    pub arrival: Loop,
    /// How long a place of a closed loop stays idle before it sends again.
    pub think: DemandLaw,
    /// Number of this agent among those that share the schedule, from 0.
    pub agent: u32,
    /// Agents that share the schedule, at least 1.
    pub agents: u32,
    /// When the load starts, as agreed with other agents; as soon as possible if not given.
    pub start_at: Option<Nanos>,
    /// Connections of all threads of this agent together.
    pub connections: u32,
    /// Threads of the engine in this agent.
    pub threads: u32,
    /// Requests at once on one connection.
    pub depth: u32,
    /// Requests at once on all connections together; as many as there are places if not given.
    pub outstanding_max: Option<u64>,
    /// Length of the phase that is thrown away.
    pub warm_up: Nanos,
    /// Length of the phase that counts.
    pub measure: Nanos,
    /// Length of the phase after it in which load is offered and not counted.
    pub cool_down: Nanos,
    /// Length of the intervals in which happenings are told.
    pub interval: Nanos,
    /// How long stragglers are waited for.
    pub drain: Nanos,
    /// From the intended instant to a time-out.
    pub request_timeout: Nanos,
    /// Most requests of all threads together.
    pub requests_max: u64,
    /// Most records kept by all threads together.
    pub records_max: u64,
    /// Decides arrivals and demands.
    pub seed: u64,
    /// How threads wait for the next intended instant.
    pub wait: WaitMode,
    /// CPUs that the threads are tied to, in turn; none of them is tied if it is empty.
    pub cpus: Vec<u32>,
    /// Who says when packets left and came, besides ourselves.
    pub stamping: Stamping,
}

impl LoadPlan {
    /// Checks every setting and how they fit together.
    ///
    /// # Errors
    /// [`CoreError::InvalidPlan`] that names the first setting that is wrong.
    pub fn validate(&self) -> Result<(), CoreError> {
        self.validate_counts()?;
        self.validate_times()?;
        self.validate_agents()?;
        self.validate_loop()?;
        self.validate_targets()?;
        self.validate_work()?;
        datagrams::validate(self)?;
        self.validate_fake()
    }

    fn validate_counts(&self) -> Result<(), CoreError> {
        let counts: [(&'static str, u64, u64, u64, &'static str); 6] = [
            (
                "connections",
                self.connections.into(),
                1,
                CONNECTIONS_MAX.into(),
                "1 to 10000",
            ),
            (
                "threads",
                self.threads.into(),
                1,
                THREADS_MAX.into(),
                "1 to 64",
            ),
            ("depth", self.depth.into(), 1, DEPTH_MAX.into(), "1 to 1024"),
            (
                "payload_bytes",
                self.payload_bytes.into(),
                0,
                PAYLOAD_BYTES_MAX as u64,
                "at most 1 MiB",
            ),
            ("requests_max", self.requests_max, 1, u64::MAX, "at least 1"),
            (
                "records_max",
                self.records_max,
                0,
                RECORDS_MAX,
                "at most 100000000",
            ),
        ];
        for (field, value, low, high, expected) in counts {
            check((low..=high).contains(&value), field, value, expected)?;
        }
        let is_enough = self.threads <= self.connections;
        check(
            is_enough,
            "threads",
            self.threads,
            "at most one for each connection",
        )?;
        let bound = self.outstanding_max.unwrap_or(u64::MAX);
        check(
            bound >= self.threads.into(),
            "outstanding_max",
            bound,
            "at least one for each thread",
        )?;
        check(
            self.cpus.len() <= CPUS_MAX,
            "cpus",
            self.cpus.len(),
            "at most 1024 of them",
        )?;
        let has_room = self.records_max == 0 || self.records_max >= self.threads.into();
        check(
            has_room,
            "records_max",
            self.records_max,
            "0, or at least one for each thread",
        )?;
        check(self.stamping.every > 0, "timestamps_every", 0, "at least 1")
    }

    fn validate_times(&self) -> Result<(), CoreError> {
        let times = [
            ("warm_up_ns", self.warm_up, 0),
            ("measure_ns", self.measure, 1),
            ("cool_down_ns", self.cool_down, 0),
            ("drain_ns", self.drain, 0),
            ("request_timeout_ns", self.request_timeout, 1),
        ];
        check(
            (INTERVAL_MIN..=PHASE_MAX).contains(&self.interval),
            "interval_ns",
            self.interval.get(),
            "1 ms to one day",
        )?;
        for (field, value, low) in times {
            let is_right = (low..=PHASE_MAX.get()).contains(&value.get());
            check(
                is_right,
                field,
                value.get(),
                "at most one day, and above 0 unless it is a margin",
            )?;
        }
        Ok(())
    }

    fn validate_loop(&self) -> Result<(), CoreError> {
        let is_thinking = self.think != DemandLaw::None;
        check(
            !is_thinking || self.arrival == Loop::Closed,
            "think",
            "set",
            "none for an open loop, whose requests are due by the schedule",
        )
    }

    fn validate_agents(&self) -> Result<(), CoreError> {
        let is_counted = (1..=AGENTS_MAX).contains(&self.agents);
        check(is_counted, "agents", self.agents, "1 to 1024")?;
        let is_one_of_them = self.agent < self.agents;
        check(is_one_of_them, "agent", self.agent, "below agents")
    }

    fn validate_targets(&self) -> Result<(), CoreError> {
        let count = self.targets.len();
        let is_counted = (1..=TARGETS_MAX).contains(&count);
        check(is_counted, "targets", count, "1 to 4096 of them")?;
        let is_fake = self.is_fake();
        check(
            !is_fake || count == 1,
            "targets",
            count,
            "1 when it is fake",
        )?;
        let kinds: Vec<_> = self.targets.iter().map(std::mem::discriminant).collect();
        let is_tls = |target: &Target| matches!(target, Target::Socket(SocketTarget::Tls(_)));
        let is_udp = |target: &Target| matches!(target, Target::Socket(SocketTarget::Udp(_)));
        let is_mixed = |test: &dyn Fn(&Target) -> bool| {
            self.targets.iter().any(test) && !self.targets.iter().all(test)
        };
        let is_uniform = kinds.windows(2).all(|two| two[0] == two[1])
            && !is_mixed(&is_tls)
            && !is_mixed(&is_udp);
        check(
            cfg!(feature = "tls") || !self.is_tls(),
            "targets",
            self.targets_text.join(" "),
            "none with TLS, which this build does not have",
        )?;
        check(
            is_uniform,
            "targets",
            self.targets_text.join(" "),
            "all of them with TLS or none, all of them udp or none",
        )
    }

    /// The target of this connection of the run, as it was written.
    #[must_use]
    pub fn target_text_of(&self, connection: u32) -> String {
        let count = self.targets_text.len().max(1);
        let text = self.targets_text.get(connection as usize % count);
        text.cloned().unwrap_or_default()
    }

    /// Whether connections are encrypted: all of them, or none.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(
            self.targets.first(),
            Some(Target::Socket(SocketTarget::Tls(_)))
        )
    }

    /// Whether requests travel as datagrams.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        matches!(
            self.targets.first(),
            Some(Target::Socket(SocketTarget::Udp(_)))
        )
    }

    /// Targets that the result tells apart: none when there is only one.
    #[must_use]
    pub fn told_targets(&self) -> usize {
        let count = self.targets.len();
        if count > 1 { count } else { 0 }
    }

    /// Whether the server is a model on the virtual clock.
    #[must_use]
    pub fn is_fake(&self) -> bool {
        matches!(self.targets.first(), Some(Target::Fake(_)))
    }

    fn validate_work(&self) -> Result<(), CoreError> {
        let is_fake = self.is_fake();
        let has_demand = self.demand != DemandLaw::None;
        let speech = Speech::read(self)?;
        match self.protocol {
            ProtocolKind::Echo => {
                check(
                    self.payload_bytes > 0,
                    "payload_bytes",
                    0,
                    "at least 1 for echo",
                )?;
                let is_empty = self.operation == Operation::Empty;
                check(
                    is_empty,
                    "operation",
                    self.operation as u8,
                    "empty (0) for echo",
                )?;
                check(is_fake || !has_demand, "demand", "set", "none for echo")
            }
            ProtocolKind::Rpc => self.validate_operation(),
            ProtocolKind::Grpc if speech.carries_demand() => self.validate_operation(),
            ProtocolKind::Grpc => {
                let is_empty = self.operation == Operation::Empty;
                let expected = "empty (0), because only our own method of grpc has operations";
                check(is_empty, "operation", self.operation as u8, expected)?;
                let expected = "none, because only our own method of grpc takes it";
                check(is_fake || !has_demand, "demand", "set", expected)
            }
            ProtocolKind::Http => {
                self.validate_foreign("0; the options body and body_bytes of http give a body")?;
                check(
                    is_fake || speech.carries_demand() || !has_demand,
                    "demand",
                    "set",
                    "none, or {demand_ns} in the path, a header or the body",
                )
            }
            ProtocolKind::Resp => {
                self.validate_foreign("0; the option value_bytes gives values")?;
                check(
                    is_fake || speech.carries_demand() || !has_demand,
                    "demand",
                    "set",
                    "none, or {demand_ns} in the command",
                )
            }
            ProtocolKind::Memcached => {
                self.validate_foreign("0; the option value_bytes gives values")?;
                check(
                    is_fake || !has_demand,
                    "demand",
                    "set",
                    "none for memcached",
                )
            }
        }
    }

    /// What the operations of the rpc protocol need, and what they do not know.
    fn validate_operation(&self) -> Result<(), CoreError> {
        let has_demand = self.demand != DemandLaw::None;
        let is_working = matches!(
            self.operation,
            Operation::Spin | Operation::SpinWall | Operation::Sleep
        );
        check(
            has_demand || !is_working,
            "demand",
            "none",
            "a law for spin, spin_wall and sleep",
        )?;
        check(
            self.is_fake() || is_working || !has_demand,
            "demand",
            "set",
            "none, or the operation spin, spin_wall or sleep",
        )
    }

    /// A protocol that servers of others speak takes no setting of ours.
    fn validate_foreign(&self, payload: &'static str) -> Result<(), CoreError> {
        let is_empty = self.operation == Operation::Empty;
        check(
            is_empty,
            "operation",
            self.operation as u8,
            "empty (0), because only rpc has operations",
        )?;
        let is_empty = self.payload_bytes == 0;
        check(is_empty, "payload_bytes", self.payload_bytes, payload)
    }

    /// A fake target runs on a virtual clock, which one thread moves.
    fn validate_fake(&self) -> Result<(), CoreError> {
        if !self.is_fake() {
            return Ok(());
        }
        check(
            self.agents == 1,
            "agents",
            self.agents,
            "1 for a fake target",
        )?;
        check(
            self.threads == 1,
            "threads",
            self.threads,
            "1 for a fake target",
        )?;
        check(
            self.start_at.is_none(),
            "start_at_ns",
            self.start_at.unwrap_or_default().get(),
            "none for a fake target, whose clock starts at 0",
        )?;
        let is_blocking = self.wait == WaitMode::Block;
        check(
            is_blocking,
            "wait",
            self.wait.name(),
            "block for a fake target, whose clock stands still",
        )
    }
}

#[allow(clippy::needless_pass_by_value)] // the callers pass small copies and literals
pub(super) fn check(
    is_right: bool,
    field: &'static str,
    value: impl std::fmt::Display,
    expected: &'static str,
) -> Result<(), CoreError> {
    if is_right {
        return Ok(());
    }
    Err(CoreError::InvalidPlan {
        field,
        value: value.to_string(),
        expected,
    })
}
