//! Offers load: one send loop, for every arrival process, transport and clock.
//!
//! [`run_load`] makes the connections first, lets all threads start at one instant,
//! and joins every thread before it returns. The loop itself is in `member`,
//! its bookkeeping in `table` and `ledger`; none of them knows which combination runs.

mod ledger;
mod member;
pub mod plan;
mod start;
mod table;

use std::sync::Arc;

pub use ledger::{Counters, LoadResult};
pub use plan::LoadPlan;

use crate::arrival::{Arrival, ArrivalSequence, ClosedLoop, Demands, OpenLoop, Share};
use crate::clock::{Clock, MonotonicClock, VirtualClock};
use crate::engine::ledger::{Ledger, MemberResult};
use crate::engine::member::{Member, Numbering, Window};
use crate::engine::plan::{Loop, ProtocolKind};
use crate::engine::start::{StartLine, connect_all};
use crate::engine::table::ConnectionTable;
use crate::error::CoreError;
use crate::pacer::Pacer;
use crate::stop::StopSignal;
use crate::transport::echo::Echo;
use crate::transport::fake::{FakeModel, FakeTransport};
use crate::transport::rpc::Rpc;
use crate::transport::socket::SocketTransport;
use crate::transport::target::{SocketTarget, Target};
use crate::transport::{Protocol, Transport};
use crate::units::Nanos;

/// From the last connection made to the common start, so that every thread is awake by then.
const START_LEAD: Nanos = Nanos::new(1_000_000);

/// Offers the load that the plan describes; returns when it is over or `stop` was raised.
///
/// # Errors
/// The plan is not valid, the target turned connections away before the start, or
/// the kernel refused something that the engine needs. Trouble with single
/// requests is not an error but their outcome.
pub fn run_load(plan: &LoadPlan, stop: &Arc<StopSignal>) -> Result<LoadResult, CoreError> {
    plan.validate()?;
    let members = match &plan.target {
        Target::Fake(model) => run_fake(plan, model, stop)?,
        Target::Socket(target) => run_threads(plan, target, stop)?,
    };
    // Every thread that failed gave an error above, so there is at least one result.
    LoadResult::merge(members, plan.warm_up).ok_or(CoreError::ThreadPanicked)
}

fn run_fake(
    plan: &LoadPlan,
    model: &FakeModel,
    stop: &StopSignal,
) -> Result<Vec<MemberResult>, CoreError> {
    let clock = VirtualClock::default();
    let connections = plan.connections as usize;
    let transport = FakeTransport::new(model.clone(), clock.clone(), connections, plan.seed);
    let share = Share {
        member: 0,
        members: 1,
    };
    let line = StartLine::new(1, Nanos::ZERO);
    let result = run_member(plan, share, transport, clock, &line, stop)?;
    Ok(result.into_iter().collect())
}

fn run_threads(
    plan: &LoadPlan,
    target: &SocketTarget,
    stop: &Arc<StopSignal>,
) -> Result<Vec<MemberResult>, CoreError> {
    let line = StartLine::new(plan.threads, START_LEAD);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|member| {
                let share = Share {
                    member,
                    members: plan.threads,
                };
                let line = &line;
                scope.spawn(move || run_thread(plan, target, share, line, stop))
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

fn run_thread(
    plan: &LoadPlan,
    target: &SocketTarget,
    share: Share,
    line: &StartLine,
    stop: &Arc<StopSignal>,
) -> Result<Option<MemberResult>, CoreError> {
    let _guard = line.guard();
    Pacer::sharpen_thread_timers()?;
    let payload_bytes = plan.payload_bytes as usize;
    match plan.protocol {
        ProtocolKind::Echo => run_socket(plan, target, Echo::new(payload_bytes), share, line, stop),
        ProtocolKind::Rpc => {
            let rpc = Rpc::new(plan.operation, payload_bytes);
            run_socket(plan, target, rpc, share, line, stop)
        }
    }
}

fn run_socket<P: Protocol>(
    plan: &LoadPlan,
    target: &SocketTarget,
    protocol: P,
    share: Share,
    line: &StartLine,
    stop: &Arc<StopSignal>,
) -> Result<Option<MemberResult>, CoreError> {
    let connections = connections_of(plan, share);
    let transport = SocketTransport::new(
        target.clone(),
        protocol,
        MonotonicClock,
        connections,
        Arc::clone(stop),
    )?;
    run_member(plan, share, transport, MonotonicClock, line, stop)
}

/// Connects, waits for the others, and runs; `None` when another thread failed before the start.
fn run_member<T: Transport, C: Clock>(
    plan: &LoadPlan,
    share: Share,
    mut transport: T,
    clock: C,
    line: &StartLine,
    stop: &StopSignal,
) -> Result<Option<MemberResult>, CoreError> {
    connect_all(plan, share, &mut transport, &clock, stop)?;
    let Some(start) = line.arrive(&clock) else {
        return Ok(None);
    };
    let demands = Demands {
        share,
        law: plan.demand,
        seed: plan.seed,
        requests_max: plan.requests_max,
    };
    match plan.arrival {
        Loop::Closed => {
            let arrival = ClosedLoop::new(&demands);
            member(plan, share, arrival, transport, clock, start, stop)
                .run()
                .map(Some)
        }
        Loop::Open(law, rate) => {
            let arrivals = ArrivalSequence::new(law, rate, plan.seed);
            let arrival = OpenLoop::new(start, arrivals, &demands);
            member(plan, share, arrival, transport, clock, start, stop)
                .run()
                .map(Some)
        }
    }
}

fn member<'a, A: Arrival, T: Transport, C: Clock>(
    plan: &LoadPlan,
    share: Share,
    arrival: A,
    transport: T,
    clock: C,
    start: Nanos,
    stop: &'a StopSignal,
) -> Member<'a, A, T, C> {
    let measure_start = start.later_by(plan.warm_up);
    let offer_end = measure_start.later_by(plan.measure);
    let connections = connections_of(plan, share);
    let records_max = share.portion_of(plan.records_max.min(plan.requests_max));
    Member {
        arrival,
        transport,
        clock,
        window: Window {
            start,
            measure_start,
            offer_end,
            drain_end: offer_end.later_by(plan.drain),
        },
        table: ConnectionTable::new(connections, plan.depth, plan.request_timeout),
        ledger: Ledger::new(usize::try_from(records_max).unwrap_or(usize::MAX)),
        pacer: Pacer::new(plan.wait),
        numbering: Numbering {
            first: share.member,
            step: share.members,
        },
        request_timeout: plan.request_timeout,
        stop,
        was_interrupted: false,
        last_cause: None,
        events: Vec::with_capacity(1024),
    }
}

fn connections_of(plan: &LoadPlan, share: Share) -> usize {
    usize::try_from(share.portion_of(plan.connections.into())).unwrap_or(usize::MAX)
}
