//! What a plan for UDP has to look like.

use crate::engine::plan::{LoadPlan, ProtocolKind, check};
use crate::error::CoreError;
use crate::sys::message::DATAGRAM_BYTES_MAX;
use crate::transport::rpc::RpcOptions;
use crate::transport::target::{SocketTarget, Target};
use crate::wire::{HEADER_BYTES, Operation};

/// Datagrams need a request and a reply that fit into one and carry an id.
pub(super) fn validate(plan: &LoadPlan) -> Result<(), CoreError> {
    let is_udp = matches!(
        plan.targets.first(),
        Some(Target::Socket(SocketTarget::Udp(_)))
    );
    if !is_udp {
        return Ok(());
    }
    let has_ids = matches!(plan.protocol, ProtocolKind::Echo | ProtocolKind::Rpc);
    check(
        has_ids,
        "protocol",
        format!("{:?}", plan.protocol),
        "echo or rpc over udp, since others have no ids in their replies",
    )?;
    let bounds = if plan.protocol == ProtocolKind::Echo {
        8..=DATAGRAM_BYTES_MAX
    } else {
        0..=DATAGRAM_BYTES_MAX - HEADER_BYTES
    };
    check(
        bounds.contains(&(plan.payload_bytes as usize)),
        "payload_bytes",
        plan.payload_bytes,
        "8 to 65507 for echo over udp and at most 65475 for rpc: an id, in one datagram",
    )?;
    let has_payload = plan.protocol == ProtocolKind::Rpc && plan.operation == Operation::Checksum;
    let reply_bytes = if has_payload {
        RpcOptions::read(&plan.options)?.reply_bytes as usize
    } else {
        0
    };
    check(
        reply_bytes + HEADER_BYTES <= DATAGRAM_BYTES_MAX,
        "options",
        format!("reply_bytes={reply_bytes}"),
        "reply_bytes of at most 65475 over udp: the reply is one datagram",
    )
}
