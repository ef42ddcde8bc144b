//! Offers load: one send loop, for every arrival process, transport and clock.
//!
//! [`run_load`] makes the connections first, lets all threads start at one instant,
//! and joins every thread before it returns. The loop itself is in `member`,
//! its bookkeeping in `table` and `ledger`; none of them knows which combination runs.

mod counters;
mod datagrams;
mod endings;
mod failures;
mod flights;
mod layout;
mod ledger;
mod member;
mod placement;
mod places;
pub mod plan;
mod preload;
mod protocols;
mod replies;
mod result;
mod start;
mod table;
mod timeline;
mod watch;
mod window;

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::sys::ThreadUsage;
pub use counters::Counters;
pub use failures::{Failure, OTHER_TEXT, TEXT_BYTES_MAX, TEXTS_MAX};
pub use placement::Sightings;
pub use plan::LoadPlan;
pub use result::{LoadResult, TargetResult};
pub use timeline::{INTERVALS_MAX, Interval};
pub use watch::{Snapshot, Watch};

use crate::arrival::{Arrival, ClosedLoop, DemandLaw, Demands, OpenLoop, Share};
use crate::clock::{Clock, MonotonicClock, VirtualClock};
use crate::engine::layout::Layout;
use crate::engine::ledger::{Ledger, LedgerLayout, MemberResult};
use crate::engine::member::Member;
use crate::engine::plan::Loop;
use crate::engine::protocols::{Speaker, Speech};
use crate::engine::start::{Start, StartLine, connect_all};
use crate::engine::table::ConnectionTable;
use crate::engine::window::Window;
use crate::error::CoreError;
use crate::histogram::Histogram;
use crate::pacer::Pacer;
use crate::stop::{Order, StopSignal};
use crate::transport::datagram::DatagramTransport;
use crate::transport::fake::{FakeModel, FakeTransport};
use crate::transport::socket::{Routes, SocketTransport};
use crate::transport::target::{SocketTarget, Target};
use crate::transport::{Protocol, Traffic, Transport};
use crate::units::Nanos;

/// Files that a process has open besides the connections of a load, generously.
const OTHER_FILES: u64 = 1_024;

/// From the last connection made to the common start, so that every thread is awake by then.
const START_LEAD: Nanos = Nanos::new(1_000_000);

/// Offers the load that the plan describes; returns when it is over or `stop` was raised.
///
/// # Errors
/// The plan is not valid, the target turned connections away before the start, or
/// the kernel refused something that the engine needs. Trouble with single
/// requests is not an error but their outcome.
pub fn run_load(plan: &LoadPlan, stop: &Arc<StopSignal>) -> Result<LoadResult, CoreError> {
    run_watched_load(plan, stop, None)
}

/// The same, and another thread may look at it through the watch meanwhile.
///
/// # Errors
/// See [`run_load`].
pub fn run_watched_load(
    plan: &LoadPlan,
    stop: &Arc<StopSignal>,
    watch: Option<&Watch>,
) -> Result<LoadResult, CoreError> {
    plan.validate()?;
    placement::check_cpus(&plan.cpus)?;
    let members = if let [Target::Fake(model)] = plan.targets.as_slice() {
        run_fake(plan, model, stop, watch)?
    } else {
        run_threads(plan, stop, watch)?
    };
    // Every thread that failed gave an error above, so there is at least one result.
    LoadResult::merge(members, plan).ok_or(CoreError::ThreadPanicked)
}

/// One thread's part of a run.
#[derive(Clone, Copy)]
struct Job<'a> {
    plan: &'a LoadPlan,
    /// Which thread of this agent it is: decides its connections.
    thread: Share,
    /// Which thread of all agents it is: decides its arrivals.
    share: Share,
    speech: &'a Speech,
    line: &'a StartLine,
    stop: &'a Arc<StopSignal>,
    watch: Option<&'a Watch>,
}

impl Job<'_> {
    fn connections(&self) -> usize {
        usize::try_from(self.thread.portion_of(self.plan.connections.into())).unwrap_or(usize::MAX)
    }

    /// The thread's part of the bound on outstanding requests; the parts add up to it.
    fn outstanding_max(&self) -> Option<usize> {
        let total = self.plan.outstanding_max?;
        Some(usize::try_from(self.thread.portion_of(total)).unwrap_or(usize::MAX))
    }

    fn records_max(&self) -> usize {
        let total = self.plan.records_max.min(self.plan.requests_max);
        usize::try_from(self.thread.portion_of(total)).unwrap_or(usize::MAX)
    }
}

fn run_fake(
    plan: &LoadPlan,
    model: &FakeModel,
    stop: &Arc<StopSignal>,
    watch: Option<&Watch>,
) -> Result<Vec<MemberResult>, CoreError> {
    let clock = VirtualClock::default();
    let connections = plan.connections as usize;
    let transport = FakeTransport::new(model.clone(), clock.clone(), connections, plan.seed);
    let share = Share {
        member: 0,
        members: 1,
    };
    let speech = Speech::read(plan)?;
    let line = StartLine::new(1, Nanos::ZERO, None);
    let job = Job {
        plan,
        thread: share,
        share,
        speech: &speech,
        line: &line,
        stop,
        watch,
    };
    Ok(run_member(job, transport, clock)?.into_iter().collect())
}

fn run_threads(
    plan: &LoadPlan,
    stop: &Arc<StopSignal>,
    watch: Option<&Watch>,
) -> Result<Vec<MemberResult>, CoreError> {
    let speech = Speech::read(plan)?;
    allow_open_files(plan.connections);
    preload::preload(plan, &speech, stop)?;
    let line = StartLine::new(plan.threads, START_LEAD, plan.start_at);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|member| {
                let thread = Share {
                    member,
                    members: plan.threads,
                };
                let share = thread.within(Share {
                    member: plan.agent,
                    members: plan.agents,
                });
                let job = Job {
                    plan,
                    thread,
                    share,
                    speech: &speech,
                    line: &line,
                    stop,
                    watch,
                };
                scope.spawn(move || run_thread(job))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(CoreError::ThreadPanicked)))
            .collect()
    });
    let results: Result<Vec<_>, CoreError> = outcomes.into_iter().collect();
    Ok(results?.into_iter().flatten().collect())
}

/// Raises this process's own limit of open files as far as it may, if the connections need it.
///
/// What is not enough then shows with the connection that cannot be made.
fn allow_open_files(connections: u32) {
    let needed = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let current = limit.maximum;
        // Only a lower hard limit could make this fail, and then nothing is lost.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

fn run_thread(job: Job<'_>) -> Result<Option<MemberResult>, CoreError> {
    let _guard = job.line.guard();
    Pacer::sharpen_thread_timers()?;
    placement::pin(&job.plan.cpus, job.thread.member)?;
    job.speech.speak(job.plan, Runner(job))
}

/// Runs one thread of a load with the protocol that it is given.
struct Runner<'a>(Job<'a>);

impl Speaker for Runner<'_> {
    type Output = Option<MemberResult>;

    fn speak<P: Protocol>(self, protocol: P) -> Result<Self::Output, CoreError> {
        run_socket(self.0, protocol)
    }
}

fn run_socket<P: Protocol>(job: Job<'_>, protocol: P) -> Result<Option<MemberResult>, CoreError> {
    let (clock, stop) = (MonotonicClock, Arc::clone(job.stop));
    let targets = job.plan.targets.iter().filter_map(|target| match target {
        Target::Socket(target) => Some(target.clone()),
        Target::Fake(_) => None,
    });
    let routes = Routes {
        targets: targets.collect(),
        thread: job.thread,
        connections: job.connections(),
    };
    // A plan has datagrams everywhere or nowhere. What never goes over them is not compiled for them.
    let is_udp = matches!(routes.targets.first(), Some(SocketTarget::Udp(_)));
    if P::FITS_DATAGRAMS && is_udp {
        let transport = DatagramTransport::new(routes, job.plan.stamping, protocol, clock, stop)?;
        return run_member(job, transport, clock);
    }
    let transport = SocketTransport::new(routes, job.plan.stamping, protocol, clock, stop)?;
    run_member(job, transport, clock)
}

/// Connects, waits for the others, and runs; `None` when another thread failed before the start.
fn run_member<T: Transport, C: Clock>(
    job: Job<'_>,
    mut transport: T,
    clock: C,
) -> Result<Option<MemberResult>, CoreError> {
    let plan = job.plan;
    let mut pacer = Pacer::new(plan.wait);
    pacer.calibrate(&clock, |until| transport.wait(until, &mut Vec::new()))?;
    let mut connect = Histogram::new();
    connect_all(&job, &mut transport, &clock, &mut connect)?;
    let Start::At(start) = job.line.arrive(&clock)? else {
        return Ok(None);
    };
    let demands = Demands {
        share: job.share,
        law: plan.demand,
        seed: plan.seed,
        requests_max: plan.requests_max,
    };
    let parts = Parts {
        transport,
        clock,
        pacer,
        connect,
    };
    let result = match &plan.arrival {
        Loop::Closed => {
            let arrival = ClosedLoop::new(&demands, plan.think);
            member(job, arrival, parts, start).run()
        }
        Loop::Open(process) => {
            let arrival = OpenLoop::new(start, process.sequence(plan.seed), &demands);
            member(job, arrival, parts, start).run()
        }
    };
    result.map(Some)
}

/// What a thread has made before the start.
struct Parts<T, C> {
    transport: T,
    clock: C,
    pacer: Pacer,
    connect: Histogram,
}

fn member<A: Arrival, T: Transport, C: Clock>(
    job: Job<'_>,
    arrival: A,
    parts: Parts<T, C>,
    start: Nanos,
) -> Member<'_, A, T, C> {
    let layout = Layout {
        connections: job.connections(),
        depth: job.plan.depth,
        outstanding_max: job.outstanding_max(),
        request_timeout: job.plan.request_timeout,
        share: job.share,
        order: parts.transport.order(),
        is_thinking: job.plan.think != DemandLaw::None,
    };
    let window = Window::new(job.plan, start);
    let ledger = LedgerLayout {
        records_max: job.records_max(),
        share: job.share,
        targets: job.plan.told_targets(),
        interval: job.plan.interval,
        start,
        measure_start: window.measure_start,
    };
    Member {
        arrival,
        transport: parts.transport,
        clock: parts.clock,
        window,
        table: ConnectionTable::new(layout),
        ledger: Ledger::new(ledger),
        connect: parts.connect,
        slot: job.watch.and_then(|watch| watch.slot(job.thread.member)),
        pacer: parts.pacer,
        thread: job.thread,
        plan: job.plan,
        stop: job.stop,
        obeyed: Order::Run,
        was_finished_early: false,
        last_cause: None,
        sightings: Sightings::default(),
        turns: 0,
        read_at: None,
        moved: Traffic::default(),
        events: Vec::with_capacity(1024),
    }
}
