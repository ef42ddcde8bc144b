//! One pod with one container, from its start to its removal.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::client::{CallError, Client};
use super::message::{Value, append_bytes, bytes_of, fields, number_of, text_of};
use crate::launch::now_ns;

const RUN_POD: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
const CREATE: &str = "/runtime.v1.RuntimeService/CreateContainer";
const START: &str = "/runtime.v1.RuntimeService/StartContainer";
const STOP_POD: &str = "/runtime.v1.RuntimeService/StopPodSandbox";
const REMOVE_POD: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";
const LIST_PODS: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const CONTAINER_EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
const CONTAINERD_EVENTS: &str = "/containerd.services.events.v1.Events/Subscribe";

/// How the command line of every containerd shim begins.
const SHIM_PREFIX: &str = "containerd-shim";

/// The first and the longest pause before a refused removal is asked for again; each is twice the
/// one before.
///
/// A server that stops a container which is just ending may find its shim gone in the middle of
/// the call ("ttrpc: closed"), and refuses until it has cleaned up after the shim. That is the
/// work of another program, which on a busy machine takes seconds. A kubelet asks again just so.
const REMOVAL_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(320)];

/// How long a removal is asked for again; within the launcher's bound on a `kill_argv`.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(4);

/// The numbers of `ContainerEventType` after which a container is no more.
const ENDED_EVENTS: [u64; 2] = [2, 3];

/// Who tells when a container has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// containerd's own stream of events, which every version has.
    ContainerdEvents,
    /// The stream of CRI itself, which CRI-O has.
    ContainerEvents,
}

/// A pod, decided to the last field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// The server's socket.
    pub endpoint: PathBuf,
    /// The whole `RunPodSandboxRequest`, in hexadecimal digits.
    pub pod_request: String,
    /// The `CreateContainerRequest` without the pod's id, in hexadecimal digits.
    pub container_request: String,
    /// The label and its value that no other pod has.
    pub label: (String, String),
    /// Who tells of the end.
    pub watch: Watch,
    /// The directory below which the pod's groups are, in one hierarchy.
    pub group: Option<PathBuf>,
    /// Files into which the shims' process ids are written once the container runs.
    #[serde(default)]
    pub shim_join: Vec<PathBuf>,
    /// The pod's groups in all hierarchies, removed when it is gone.
    #[serde(default)]
    pub group_directories: Vec<PathBuf>,
    /// Where what is learnt about the pod is written to, as long as there may be one; then the
    /// file's extension becomes `done`.
    pub report: PathBuf,
    /// How long a single call may take.
    pub timeout_ns: u64,
}

/// What is known of a pod that runs; instants are `CLOCK_MONOTONIC`, when the reply had come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// The server's name for the pod.
    pub pod_id: String,
    /// Its name for the container.
    pub container_id: String,
    /// Before connecting.
    pub begun_at_ns: u64,
    /// `RunPodSandbox` was answered.
    pub pod_at_ns: u64,
    /// `CreateContainer` was answered.
    pub created_at_ns: u64,
    /// `StartContainer` was answered.
    pub started_at_ns: u64,
}

/// What went wrong with a pod.
#[derive(Debug, Error)]
pub enum PodError {
    /// A call failed.
    #[error("{call}: {error}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        error: CallError,
    },
    /// The specification cannot be used.
    #[error("the specification of the pod: {0}")]
    Spec(String),
    /// A file could not be written.
    #[error("{what}: {error}")]
    File {
        /// What was tried.
        what: String,
        /// The system's reason.
        error: io::Error,
    },
}

/// Names the last part of a method where a call has failed.
fn in_call(method: &'static str) -> impl FnOnce(CallError) -> PodError {
    let call = method.rsplit('/').next().unwrap_or(method);
    move |error| PodError::Call { call, error }
}

/// Starts the pod, waits for its container's end and removes it; gives the exit status.
///
/// # Errors
/// A call failed. What had been made was removed as far as the server would.
pub fn run(spec: &PodSpec) -> Result<u32, PodError> {
    let pod_request = unhex(&spec.pod_request)?;
    let container_request = unhex(&spec.container_request)?;
    let timeout = Duration::from_nanos(spec.timeout_ns);
    let mut report = PodReport {
        begun_at_ns: now_ns(),
        ..PodReport::default()
    };
    let mut client = Client::connect(&spec.endpoint).map_err(in_call(RUN_POD))?;
    // From here on there may be a pod, whatever becomes of us.
    write_report(spec, &report)?;
    let reply = match client.call(RUN_POD, &pod_request, timeout) {
        Ok(reply) => reply,
        Err(error) => {
            // A server keeps what it failed to clean up in its books, and so did not leave nothing.
            let was_refused = matches!(error, CallError::Refused { .. });
            if was_refused && remove_labelled(spec, &mut client).is_ok() {
                finish_report(spec);
            }
            return Err(in_call(RUN_POD)(error));
        }
    };
    report.pod_at_ns = now_ns();
    report.pod_id = text_of(&reply, 1);
    let ended = run_container(spec, &mut client, container_request, &mut report);
    let removed = remove_pod(&mut client, &report.pod_id, timeout);
    remove_groups(spec);
    if removed.is_ok() {
        finish_report(spec);
    }
    let exit_status = ended?;
    removed?;
    Ok(exit_status)
}

fn run_container(
    spec: &PodSpec,
    client: &mut Client,
    mut request: Vec<u8>,
    report: &mut PodReport,
) -> Result<u32, PodError> {
    let timeout = Duration::from_nanos(spec.timeout_ns);
    append_bytes(1, report.pod_id.as_bytes(), &mut request);
    let reply = client.call(CREATE, &request, timeout);
    let reply = reply.map_err(in_call(CREATE))?;
    report.created_at_ns = now_ns();
    report.container_id = text_of(&reply, 1);
    // Sent ahead of the start on the same connection: it cannot miss the end.
    let watching = watch(spec.watch, client, &report.container_id)?;
    let mut request = Vec::new();
    append_bytes(1, report.container_id.as_bytes(), &mut request);
    let reply = client.call(START, &request, timeout);
    reply.map_err(in_call(START))?;
    report.started_at_ns = now_ns();
    write_report(spec, report)?;
    join_shims(spec);
    wait_for_end(spec.watch, client, watching, &report.container_id)
}

fn watch(kind: Watch, client: &mut Client, container_id: &str) -> Result<u32, PodError> {
    let mut request = Vec::new();
    let method = match kind {
        Watch::ContainerEvents => CONTAINER_EVENTS,
        Watch::ContainerdEvents => {
            // The topic comes first, so that other events are not decoded for us.
            let filter = format!(r#"topic=="/tasks/exit",event.container_id=="{container_id}""#);
            append_bytes(1, filter.as_bytes(), &mut request);
            CONTAINERD_EVENTS
        }
    };
    client.subscribe(method, &request).map_err(in_call(method))
}

fn wait_for_end(
    kind: Watch,
    client: &mut Client,
    stream: u32,
    container_id: &str,
) -> Result<u32, PodError> {
    let method = match kind {
        Watch::ContainerEvents => CONTAINER_EVENTS,
        Watch::ContainerdEvents => CONTAINERD_EVENTS,
    };
    loop {
        let event = client.next_message(stream).map_err(in_call(method))?;
        let ended = match kind {
            Watch::ContainerEvents => exit_of_container_event(&event, container_id),
            Watch::ContainerdEvents => exit_of_task_event(&event, container_id),
        };
        if let Some(status) = ended {
            return Ok(status);
        }
    }
}

/// The exit status of `/tasks/exit`; `None` for a further process that was run in the container.
fn exit_of_task_event(envelope: &[u8], container_id: &str) -> Option<u32> {
    let event = bytes_of(bytes_of(envelope, 4)?, 2)?;
    let is_first_process = text_of(event, 2) == container_id;
    is_first_process.then(|| u32::try_from(number_of(event, 4)).unwrap_or(u32::MAX))
}

/// The exit status in a `ContainerEventResponse`, if it is about the end of this container.
fn exit_of_container_event(event: &[u8], container_id: &str) -> Option<u32> {
    if text_of(event, 1) != container_id || !ENDED_EVENTS.contains(&number_of(event, 2)) {
        return None;
    }
    let status = fields(event).find_map(|found| match found {
        (5, Value::Bytes(status)) if text_of(status, 1) == container_id => Some(status),
        _ => None,
    });
    Some(status.map_or(0, |status| {
        u32::try_from(number_of(status, 7)).unwrap_or(u32::MAX)
    }))
}

/// Removes every pod with the label of the specification.
///
/// # Errors
/// The server did not do it.
pub fn remove(spec: &PodSpec) -> Result<(), PodError> {
    let mut client = Client::connect(&spec.endpoint).map_err(in_call(LIST_PODS))?;
    remove_labelled(spec, &mut client)
}

fn remove_labelled(spec: &PodSpec, client: &mut Client) -> Result<(), PodError> {
    let timeout = Duration::from_nanos(spec.timeout_ns);
    let reply = client.call(LIST_PODS, &pods_labelled(&spec.label), timeout);
    let reply = reply.map_err(in_call(LIST_PODS))?;
    let mut removed = Ok(());
    for (number, value) in fields(&reply) {
        if let (1, Value::Bytes(pod)) = (number, value) {
            // One that stays is no reason to leave the others.
            removed = removed.and(remove_pod(client, &text_of(pod, 1), timeout));
        }
    }
    remove_groups(spec);
    removed
}

/// A `ListPodSandboxRequest` for pods that have a label.
fn pods_labelled((key, value): &(String, String)) -> Vec<u8> {
    let (mut entry, mut filter, mut request) = (Vec::new(), Vec::new(), Vec::new());
    append_bytes(1, key.as_bytes(), &mut entry);
    append_bytes(2, value.as_bytes(), &mut entry);
    append_bytes(3, &entry, &mut filter);
    append_bytes(1, &filter, &mut request);
    request
}

fn remove_pod(client: &mut Client, pod_id: &str, timeout: Duration) -> Result<(), PodError> {
    let mut request = Vec::new();
    append_bytes(1, pod_id.as_bytes(), &mut request);
    let give_up = Instant::now() + timeout.min(REMOVAL_PATIENCE);
    for method in [STOP_POD, REMOVE_POD] {
        call_until_done(client, method, &request, (timeout, give_up))?;
    }
    Ok(())
}

/// Makes a call again and again as long as the server refuses it, until an instant.
fn call_until_done(
    client: &mut Client,
    method: &'static str,
    request: &[u8],
    (timeout, give_up): (Duration, Instant),
) -> Result<(), PodError> {
    let [mut pause, longest] = REMOVAL_PAUSES;
    loop {
        match client.call(method, request, timeout) {
            Err(CallError::Refused { .. }) if Instant::now() + pause < give_up => {
                thread::sleep(pause);
                pause = longest.min(pause * 2);
            }
            other => return other.map(drop).map_err(in_call(method)),
        }
    }
}

/// Removes the pod's own groups, which the server leaves to whoever named them.
fn remove_groups(spec: &PodSpec) {
    for directory in &spec.group_directories {
        // One that is not empty or not there is found by whoever looks for what was left.
        let _ = fs::remove_dir(directory);
    }
}

/// Writes the report as a whole or not at all.
fn write_report(spec: &PodSpec, report: &PodReport) -> Result<(), PodError> {
    let draft = spec.report.with_extension("draft");
    let text = serde_json::to_vec(report).map_err(|error| PodError::Spec(error.to_string()))?;
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &spec.report))
        .map_err(|error| PodError::File {
            what: format!("writing {}", spec.report.display()),
            error,
        })
}

/// Says that the pod is gone, by the report's name.
fn finish_report(spec: &PodSpec) {
    // If it stays, somebody looks for the pod in vain.
    let _ = fs::rename(&spec.report, spec.report.with_extension("done"));
}

/// Books the shims on the sandbox from now on, and has them killed with it should that be needed.
///
/// The server starts shims in its own group; some runtimes have one for the pod and one for each
/// container, with helpers beside them. What they have used before stays on the server's account.
fn join_shims(spec: &PodSpec) {
    let Some(group) = &spec.group else { return };
    let mut members = Vec::new();
    collect_members(group, &mut members);
    let shims: BTreeSet<u32> = members.iter().copied().filter_map(shim_above).collect();
    let mut joining: Vec<u32> = shims.into_iter().collect();
    let mut next = 0;
    while let Some(&pid) = joining.get(next) {
        next += 1;
        // Those in the pod's group are where they belong, and so is what is below them.
        joining.extend(children_of(pid).filter(|child| !members.contains(child)));
    }
    for pid in joining {
        for file in &spec.shim_join {
            // One that has just ended needs no group.
            let _ = fs::write(file, pid.to_string());
        }
    }
}

/// The children of a process, whichever of its threads has them.
fn children_of(pid: u32) -> impl Iterator<Item = u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let lists = threads
        .flatten()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<u32> = lists
        .flat_map(|list| {
            let found = list.split_whitespace().map(str::parse).collect::<Vec<_>>();
            found.into_iter().flatten()
        })
        .collect();
    pids.into_iter()
}

fn collect_members(group: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_members(&entry.path(), pids);
        }
    }
}

/// The nearest ancestor that is a shim.
fn shim_above(mut pid: u32) -> Option<u32> {
    while pid > 1 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        pid = rest.split(' ').nth(1)?.parse().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let first = words.split(|byte| *byte == 0).next()?;
        let first = String::from_utf8_lossy(first);
        let name = first.rsplit('/').next().unwrap_or_default();
        if name.starts_with(SHIM_PREFIX) {
            return Some(pid);
        }
    }
    None
}

fn unhex(text: &str) -> Result<Vec<u8>, PodError> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = digits.chunks(2).map(|pair| {
        let [high, low] = *pair else { return None };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.ok_or_else(|| PodError::Spec("a request that is no row of hexadecimal digits".to_owned()))
}

#[cfg(test)]
mod tests;
