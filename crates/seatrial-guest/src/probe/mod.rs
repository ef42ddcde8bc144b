//! What a `RUN` request can ask for.
//!
//! Each probe is a small loop in batches. The guest gives the raw duration of
//! each batch; cost per operation and intervals are the host's business. What
//! prepares a batch (a file that is read, memory made ready) is outside of it.

mod exec;
mod file;
mod processes;
mod work;

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use exec::ExecRequest;

use crate::channel::Channel;
use crate::error::GuestError;
use crate::spin::{DEMAND_NS_MAX, Method, Spinner};
use crate::{entry, sys};

/// Most batches of one probe.
const BATCHES_MAX: usize = 10_000;
/// Most system calls in a batch.
const ITERATIONS_MAX: u64 = 100_000_000;
/// Most pages in a batch: 1 GiB of 4 KiB pages.
const PAGES_MAX: usize = 1 << 18;
/// No further batch is begun after this time.
const PROBE_NS_MAX: u64 = 300_000_000_000;

/// A request, as its JSON says.
#[derive(Debug, Deserialize)]
#[serde(tag = "probe", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Syscall {
        iterations: u64,
        #[serde(default = "one")]
        batches: usize,
    },
    PageFault {
        pages: usize,
        #[serde(default = "one")]
        batches: usize,
    },
    FileWrite(file::FileRequest),
    FileRead(file::FileRequest),
    Spin {
        cpu_ns: u64,
        #[serde(default = "one")]
        batches: usize,
    },
    Exec(ExecRequest),
    Fork(processes::ForkRequest),
    ForkExec(processes::ForkExecRequest),
    MemoryCopy(work::CopyRequest),
    Function(work::FunctionRequest),
    MemoryView {},
}

const fn one() -> usize {
    1
}

/// What every probe answers.
#[derive(Debug, Serialize)]
struct Measured {
    probe: &'static str,
    operations_per_batch: u64,
    batch_ns: Vec<u64>,
    bytes_per_batch: Option<u64>,
    /// The clock of `batch_ns`.
    clock: &'static str,
}

/// The answer of `spin`, which also says how CPU time was measured.
#[derive(Serialize)]
struct MeasuredSpin {
    #[serde(flatten)]
    measured: Measured,
    cpu_ns: u64,
    method: Method,
    cpu_clock_step_ns: Option<u64>,
}

impl Measured {
    const fn new(probe: &'static str, operations_per_batch: u64, batch_ns: Vec<u64>) -> Self {
        Self {
            probe,
            operations_per_batch,
            batch_ns,
            bytes_per_batch: None,
            clock: "monotonic",
        }
    }
}

/// Runs the probe that the JSON text asks for; gives the JSON of its result.
pub fn run(request: &str) -> Result<String, GuestError> {
    let request = serde_json::from_str::<Request>(request)
        .map_err(|error| GuestError::BadRequest(format!("RUN request: {error}")))?;
    match request {
        Request::Syscall {
            iterations,
            batches,
        } => to_json(&syscall(iterations, batches)?),
        Request::PageFault { pages, batches } => to_json(&page_fault(pages, batches)?),
        Request::FileWrite(request) => to_json(&file::write(&request)?),
        Request::FileRead(request) => to_json(&file::read(&request)?),
        Request::Spin { cpu_ns, batches } => to_json(&spin(cpu_ns, batches)?),
        Request::Exec(request) => to_json(&exec::run(&request)?),
        Request::Fork(request) => to_json(&processes::fork(&request)?),
        Request::ForkExec(request) => to_json(&processes::fork_exec(&request)?),
        Request::MemoryCopy(request) => to_json(&work::copy(&request)?),
        Request::Function(request) => to_json(&work::function(&request)?),
        Request::MemoryView {} => to_json(&work::memory_view()?),
    }
}

/// The role `exec`: one command, its result on the channel or on standard output.
pub fn exec_role(channel: Option<&Arc<Channel>>, request: ExecRequest) -> Result<i32, GuestError> {
    let Some(channel) = channel else {
        let text = to_json(&exec::run(&request)?)?;
        entry::say(&(text + "\n"));
        return Ok(0);
    };
    let runner = Arc::clone(channel);
    let started = std::thread::Builder::new()
        .name("exec".to_owned())
        .spawn(move || {
            let outcome = exec::run(&request).and_then(|result| to_json(&result));
            let code = outcome.as_ref().map_or_else(GuestError::exit_code, |_| 0);
            let _ = runner.conclude(outcome);
            sys::exit_now(code);
        });
    started.map_err(|_| GuestError::System {
        what: "start the thread that waits for the command",
        errno: rustix::io::Errno::AGAIN,
    })?;
    channel.obey(None)
}

fn to_json(value: &impl Serialize) -> Result<String, GuestError> {
    serde_json::to_string(value).map_err(|error| GuestError::BadRequest(error.to_string()))
}

/// Checks a number of a request against its bounds.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    value: T,
    bounds: std::ops::RangeInclusive<T>,
) -> Result<T, GuestError> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = bounds.into_inner();
    Err(GuestError::BadRequest(format!(
        "{name} = {value}, expected {low} to {high}"
    )))
}

/// Times each of the batches; `prepare` runs before each and is not timed.
fn time_batches(
    batches: usize,
    mut prepare: impl FnMut() -> Result<(), GuestError>,
    mut batch: impl FnMut() -> Result<(), GuestError>,
) -> Result<Vec<u64>, GuestError> {
    let batches = within("batches", batches, 1..=BATCHES_MAX)?;
    let mut batch_ns = Vec::with_capacity(batches);
    let begin_ns = sys::monotonic_ns();
    for _ in 0..batches {
        prepare()?;
        let start_ns = sys::monotonic_ns();
        if start_ns.saturating_sub(begin_ns) > PROBE_NS_MAX {
            return Err(GuestError::TooSlow {
                limit_ns: PROBE_NS_MAX,
                batches: batch_ns.len(),
            });
        }
        batch()?;
        batch_ns.push(sys::monotonic_ns().saturating_sub(start_ns));
    }
    Ok(batch_ns)
}

/// `getpid`, which no kernel can answer with less than an entry and an exit.
fn syscall(iterations: u64, batches: usize) -> Result<Measured, GuestError> {
    let iterations = within("iterations", iterations, 1..=ITERATIONS_MAX)?;
    let batch_ns = time_batches(
        batches,
        || Ok(()),
        || {
            for _ in 0..iterations {
                std::hint::black_box(sys::getpid_raw());
            }
            Ok(())
        },
    )?;
    Ok(Measured::new("syscall", iterations, batch_ns))
}

/// Anonymous memory: map, write one byte to each page, unmap.
fn page_fault(pages: usize, batches: usize) -> Result<Measured, GuestError> {
    let pages = within("pages", pages, 1..=PAGES_MAX)?;
    let page_bytes = sys::page_bytes();
    let count = NonZeroUsize::new(pages).unwrap_or(NonZeroUsize::MIN);
    // Huge pages would make one fault of 512; a kernel without the switch has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let batch_ns = time_batches(
        batches,
        || Ok(()),
        || {
            let what = format!("map and touch {pages} pages of {page_bytes} bytes");
            sys::touch_pages(count, page_bytes).map_err(GuestError::probe(what))
        },
    )?;
    let operations = pages as u64;
    let mut measured = Measured::new("page-fault", operations, batch_ns);
    measured.bytes_per_batch = Some(operations * page_bytes.get() as u64);
    Ok(measured)
}

fn spin(cpu_ns: u64, batches: usize) -> Result<MeasuredSpin, GuestError> {
    let cpu_ns = within("cpu_ns", cpu_ns, 0..=DEMAND_NS_MAX)?;
    let spinner = Spinner::detect();
    let batch_ns = time_batches(
        batches,
        || Ok(()),
        || {
            spinner.burn(cpu_ns);
            Ok(())
        },
    )?;
    Ok(MeasuredSpin {
        measured: Measured::new("spin", 1, batch_ns),
        cpu_ns,
        method: spinner.method,
        cpu_clock_step_ns: spinner.cpu_clock_step_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer(request: &Value) -> Value {
        serde_json::from_str(&run(&request.to_string()).unwrap()).unwrap()
    }

    fn refusal(request: &Value) -> GuestError {
        run(&request.to_string()).unwrap_err()
    }

    #[test]
    fn system_calls_are_timed_in_batches() {
        let answer = answer(&json!({"probe": "syscall", "iterations": 100, "batches": 7}));
        assert_eq!(answer["probe"], "syscall");
        assert_eq!(answer["operations_per_batch"], 100);
        assert_eq!(answer["batch_ns"].as_array().unwrap().len(), 7);
        assert_eq!(answer["bytes_per_batch"], Value::Null);
        assert_eq!(answer["clock"], "monotonic");
        assert!(answer["batch_ns"][0].as_u64().unwrap() > 0);
    }

    #[test]
    fn page_faults_count_pages_and_bytes() {
        let answer = answer(&json!({"probe": "page-fault", "pages": 16, "batches": 2}));
        assert_eq!(answer["operations_per_batch"], 16);
        assert_eq!(answer["bytes_per_batch"], 16 * sys::page_bytes().get());
    }

    #[test]
    fn every_probe_answers_by_its_name() {
        for request in [
            json!({"probe": "fork", "iterations": 1}),
            json!({"probe": "fork-exec", "iterations": 1, "program": "/bin/true"}),
            json!({"probe": "memory-copy", "bytes": 4096}),
            json!({"probe": "function", "limit": 10}),
            json!({"probe": "memory-view"}),
        ] {
            assert_eq!(answer(&request)["probe"], request["probe"]);
        }
        assert_eq!(
            answer(&json!({"probe": "function", "limit": 10}))["result"],
            4
        );
    }

    #[test]
    fn spinning_says_its_method() {
        let answer = answer(&json!({"probe": "spin", "cpu_ns": 100_000, "batches": 2}));
        assert_eq!(answer["method"], "thread-cpu");
        assert!(answer["batch_ns"][1].as_u64().unwrap() >= 100_000);
    }

    #[test]
    fn bad_requests_say_what_was_expected() {
        for (request, expected) in [
            (json!(null), "RUN request"),
            (json!({}), "missing field `probe`"),
            (json!({"probe": "fly"}), "unknown variant `fly`"),
            (json!({"probe": "syscall"}), "missing field `iterations`"),
            (
                json!({"probe": "syscall", "iterations": -1}),
                "invalid value",
            ),
            (
                json!({"probe": "syscall", "iterations": 1, "speed": 2}),
                "unknown field `speed`",
            ),
            (
                json!({"probe": "syscall", "iterations": 0}),
                "iterations = 0, expected 1 to",
            ),
            (
                json!({"probe": "syscall", "iterations": 1, "batches": 0}),
                "batches = 0",
            ),
            (
                json!({"probe": "syscall", "iterations": 1, "batches": 10_001}),
                "1 to 10000",
            ),
            (
                json!({"probe": "page-fault", "pages": PAGES_MAX + 1}),
                "pages = 262145",
            ),
            (
                json!({"probe": "spin", "cpu_ns": DEMAND_NS_MAX + 1}),
                "cpu_ns = 60000000001",
            ),
        ] {
            let error = refusal(&request);
            assert_eq!(error.code(), "bad-request", "{request}: {error}");
            assert!(error.to_string().contains(expected), "{request}: {error}");
        }
        assert_eq!(run("{").unwrap_err().code(), "bad-request");
    }
}
