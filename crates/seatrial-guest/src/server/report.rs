//! What a server tells about itself: the sums over its workers, as JSON.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use seatrial_core::histogram::Histogram;
use serde_json::{Value, json};

use super::Shared;
use super::stats::{Counter, Durations, Stats};
use crate::sys;

/// Sums over all workers; taken while they serve, so counts may differ by what is under way.
pub fn report(shared: &Shared) -> Value {
    let stats = || shared.workers.iter().map(|inbox| &inbox.stats);
    let sum = |pick: fn(&Stats) -> &Counter| stats().map(|stats| pick(stats).get()).sum::<u64>();
    let histogram = |pick: fn(&Stats) -> &Durations| {
        let mut all = Histogram::new();
        for stats in stats() {
            all.merge(&pick(stats).histogram());
        }
        hex(&all.to_bytes())
    };
    let operations = shared.protocol.operations().iter().enumerate();
    let operations = operations
        .map(|(index, name)| {
            let count = stats().map(|stats| stats.operations[index].get());
            ((*name).to_owned(), Value::from(count.sum::<u64>()))
        })
        .collect::<serde_json::Map<_, _>>();
    json!({
        "protocol": shared.protocol.name(),
        "at_mono_ns": sys::monotonic_ns(),
        "connections": {
            "accepted": shared.accepted_count.load(Ordering::Relaxed),
            "refused": shared.refused_count.load(Ordering::Relaxed),
            "closed": sum(|stats| &stats.closed),
            "open": shared.open_count.load(Ordering::Relaxed),
        },
        "requests": sum(|stats| &stats.requests),
        "replies": sum(|stats| &stats.replies),
        "bad_requests": sum(|stats| &stats.bad_requests),
        "unknown_requests": sum(|stats| &stats.unknown_requests),
        "dropped_datagrams": sum(|stats| &stats.dropped),
        "received_bytes": sum(|stats| &stats.received_bytes),
        "sent_bytes": sum(|stats| &stats.sent_bytes),
        "operations": operations,
        "worker_requests": stats().map(|stats| stats.requests.get()).collect::<Vec<_>>(),
        "service_histogram": histogram(|stats| &stats.service),
        "queue_histogram": histogram(|stats| &stats.queue),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // writing to a string cannot fail
    }
    text
}
