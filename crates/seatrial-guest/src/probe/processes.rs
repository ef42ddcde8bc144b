//! Making processes: `fork` alone, and `fork` with `exec`.

use std::ffi::CString;

use serde::Deserialize;

use super::{Measured, time_batches, within};
use crate::error::GuestError;
use crate::sys;

/// Most processes in a batch.
const ITERATIONS_MAX: u64 = 100_000;
/// What a program is given so that it says nothing and ends at once.
const QUIET_WORDS: [&str; 3] = ["--channel-fd", "none", "null"];

/// A request for `fork`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    iterations: u64,
    #[serde(default = "super::one")]
    batches: usize,
}

/// A request for `fork-exec`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkExecRequest {
    /// The guest as this sandbox sees it; its role `null` is what is run.
    program: String,
    iterations: u64,
    #[serde(default = "super::one")]
    batches: usize,
}

/// A child that ends at once, and is waited for.
pub fn fork(request: &ForkRequest) -> Result<Measured, GuestError> {
    timed("fork", request.iterations, request.batches, &[])
}

/// A child that becomes another program, which ends at once, and is waited for.
pub fn fork_exec(request: &ForkExecRequest) -> Result<Measured, GuestError> {
    let words = std::iter::once(request.program.as_str())
        .chain(QUIET_WORDS)
        .map(CString::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| GuestError::BadRequest("program: contains a zero byte".to_owned()))?;
    timed("fork-exec", request.iterations, request.batches, &words)
}

fn timed(
    probe: &'static str,
    iterations: u64,
    batches: usize,
    words: &[CString],
) -> Result<Measured, GuestError> {
    let iterations = within("iterations", iterations, 1..=ITERATIONS_MAX)?;
    let batch_ns = time_batches(
        batches,
        || Ok(()),
        || (0..iterations).try_for_each(|_| one_child(probe, words)),
    )?;
    Ok(Measured::new(probe, iterations, batch_ns))
}

/// Makes one child and waits for its good end.
fn one_child(probe: &str, words: &[CString]) -> Result<(), GuestError> {
    let pid = sys::fork_child(words).map_err(GuestError::probe("fork"))?;
    let end = sys::reap(pid).map_err(GuestError::probe("wait4"))?;
    if end.exit_code == Some(0) {
        return Ok(());
    }
    let what = words.first().map_or_else(String::new, |program| {
        format!(" of {}", program.to_string_lossy())
    });
    Err(GuestError::Probe {
        what: format!("{probe}{what}: the child ended with {end:?}, expected exit code 0"),
        errno: rustix::io::Errno::CHILD,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_made_and_reaped() {
        let request = ForkRequest {
            iterations: 3,
            batches: 2,
        };
        let measured = fork(&request).unwrap();
        assert_eq!(measured.operations_per_batch, 3);
        assert_eq!(measured.batch_ns.len(), 2);
        assert!(measured.batch_ns.iter().all(|ns| *ns > 0));
    }

    #[test]
    fn a_program_that_cannot_be_run_fails_the_probe() {
        for program in ["/no/such", "/bin/false"] {
            let request = ForkExecRequest {
                program: program.to_owned(),
                iterations: 1,
                batches: 1,
            };
            let error = fork_exec(&request).unwrap_err();
            assert_eq!(error.code(), "probe-failed");
            assert!(error.to_string().contains(program), "{error}");
        }
        let request = ForkExecRequest {
            program: "/bin/true".to_owned(),
            iterations: 2,
            batches: 1,
        };
        assert_eq!(fork_exec(&request).unwrap().operations_per_batch, 2);
    }

    #[test]
    fn bounds_are_kept() {
        for iterations in [0, ITERATIONS_MAX + 1] {
            let request = ForkRequest {
                iterations,
                batches: 1,
            };
            assert_eq!(fork(&request).unwrap_err().code(), "bad-request");
        }
        let request = ForkExecRequest {
            program: "a\0b".to_owned(),
            iterations: 1,
            batches: 1,
        };
        assert_eq!(fork_exec(&request).unwrap_err().code(), "bad-request");
    }
}
