//! Builders that the load tests share.
#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used)] // tests fail by panic

pub mod datagrams;
pub mod server;

use std::sync::Arc;

use seatrial_core::arrival::DemandLaw;
use seatrial_core::engine::plan::{Loop, ProtocolKind};
use seatrial_core::engine::{LoadPlan, LoadResult, run_load};
use seatrial_core::pacer::WaitMode;
use seatrial_core::record::Outcome;
use seatrial_core::stop::StopSignal;
use seatrial_core::transport::fake::FakeModel;
use seatrial_core::transport::options::Options;
use seatrial_core::transport::stamps::Stamping;
use seatrial_core::transport::target::Target;
use seatrial_core::units::Nanos;
use seatrial_core::wire::Operation;

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

pub fn fake() -> FakeModel {
    FakeModel::default()
}

pub fn open(law: &str, rate_rps: f64) -> Loop {
    Loop::parse(law, "fixed", Some(rate_rps)).unwrap()
}

pub fn constant_ms(millis: u64) -> DemandLaw {
    DemandLaw::Constant(Nanos::from_millis(millis).unwrap())
}

/// A closed loop of one connection for one second against a fake server.
pub fn plan(model: FakeModel) -> LoadPlan {
    LoadPlan {
        targets: vec![Target::Fake(model)],
        targets_text: vec!["fake://".to_owned()],
        options: Options::new(),
        agent: 0,
        agents: 1,
        start_at: None,
        protocol: ProtocolKind::Rpc,
        operation: Operation::Empty,
        payload_bytes: 0,
        demand: DemandLaw::None,
        arrival: Loop::Closed,
        think: DemandLaw::None,
        connections: 1,
        threads: 1,
        depth: 1,
        outstanding_max: None,
        warm_up: Nanos::ZERO,
        measure: Nanos::new(SECOND),
        cool_down: Nanos::ZERO,
        interval: Nanos::new(100 * MILLISECOND),
        drain: Nanos::new(SECOND),
        request_timeout: Nanos::new(SECOND),
        requests_max: 10_000_000,
        records_max: 1_000_000,
        seed: 1,
        wait: WaitMode::Block,
        cpus: Vec::new(),
        stamping: Stamping::default(),
    }
}

pub fn run(plan: &LoadPlan) -> LoadResult {
    run_load(plan, &Arc::new(StopSignal::new().unwrap())).unwrap()
}

/// Records of this outcome.
pub fn outcomes(result: &LoadResult, outcome: Outcome) -> usize {
    let all = result.records.iter().flat_map(|records| &records.outcome);
    all.filter(|code| **code == outcome as u8).count()
}
