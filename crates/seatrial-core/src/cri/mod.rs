//! Pods by the Container Runtime Interface: what Kubernetes asks of containerd and CRI-O.
//!
//! `seatrial-launch cri-run` is to a pod what `runc run` is to a container: it brings it up,
//! lives as long as it, removes it and ends with the guest's exit status. It is what a start plan
//! executes, so starting a pod is timed like starting anything else. All that is decided about a
//! pod was decided before, by whoever wrote the [`PodSpec`]; here are three calls one after the
//! other, and the wait for the server's word that the container has ended. Nothing polls.

pub mod client;
pub mod message;
pub mod pod;

pub use client::{CallError, Client};
pub use pod::{PodError, PodSpec, remove, run};
