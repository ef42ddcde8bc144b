//! Work in user space: copying memory, and a small function with a known answer.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::{Measured, time_batches, within};
use crate::error::GuestError;

/// Largest buffer of a copy: 1 GiB.
const COPY_BYTES_MAX: usize = 1 << 30;
/// Largest limit of the sieve, which takes a byte a number.
const LIMIT_MAX: usize = 100_000_000;

/// A request for `memory-copy`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// Bytes of each of the two buffers.
    bytes: usize,
    #[serde(default = "super::one")]
    batches: usize,
}

/// A request for `function`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionRequest {
    /// Primes below this number are counted.
    limit: usize,
    #[serde(default = "super::one")]
    batches: usize,
}

/// The answer of `function`: its result as well, so that the host can check it.
#[derive(Debug, Serialize)]
pub struct Computed {
    #[serde(flatten)]
    measured: Measured,
    result: usize,
}

/// What the kernel of the sandbox says about its memory.
#[derive(Debug, Serialize)]
pub struct MemoryView {
    probe: &'static str,
    /// `/proc/meminfo`, word for word.
    meminfo: String,
}

/// Copies one buffer into another; both were touched before.
pub fn copy(request: &CopyRequest) -> Result<Measured, GuestError> {
    let bytes = within("bytes", request.bytes, 1..=COPY_BYTES_MAX)?;
    let source = vec![0x5a_u8; bytes];
    let mut target = vec![1_u8; bytes];
    let batch_ns = time_batches(
        request.batches,
        || Ok(()),
        || {
            target.copy_from_slice(black_box(&source));
            black_box(&target);
            Ok(())
        },
    )?;
    let mut measured = Measured::new("memory-copy", 1, batch_ns);
    measured.bytes_per_batch = Some(bytes as u64);
    Ok(measured)
}

/// Counts primes, as the same function in Python does beside it.
pub fn function(request: &FunctionRequest) -> Result<Computed, GuestError> {
    let limit = within("limit", request.limit, 2..=LIMIT_MAX)?;
    let mut result = 0;
    let batch_ns = time_batches(
        request.batches,
        || Ok(()),
        || {
            result = primes_below(black_box(limit));
            Ok(())
        },
    )?;
    Ok(Computed {
        measured: Measured::new("function", 1, batch_ns),
        result,
    })
}

/// Eratosthenes' sieve, a byte a number, without any shortcut.
fn primes_below(limit: usize) -> usize {
    let mut is_prime = vec![true; limit];
    is_prime[..2].fill(false);
    let mut number = 2;
    while number * number < limit {
        if is_prime[number] {
            is_prime[number * number..]
                .iter_mut()
                .step_by(number)
                .for_each(|flag| *flag = false);
        }
        number += 1;
    }
    is_prime.iter().filter(|flag| **flag).count()
}

/// Reads the guest's own view of memory, which is not the host's.
pub fn memory_view() -> Result<MemoryView, GuestError> {
    let path = "/proc/meminfo";
    let meminfo = std::fs::read_to_string(path).map_err(|error| GuestError::Probe {
        what: format!("read {path}"),
        errno: error
            .raw_os_error()
            .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error),
    })?;
    Ok(MemoryView {
        probe: "memory-view",
        meminfo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sieve_counts_primes() {
        for (limit, expected) in [(2, 0), (3, 1), (10, 4), (100, 25), (200_000, 17_984)] {
            assert_eq!(primes_below(limit), expected, "below {limit}");
        }
        let computed = function(&FunctionRequest {
            limit: 1000,
            batches: 3,
        })
        .unwrap();
        assert_eq!(computed.result, 168);
        assert_eq!(computed.measured.batch_ns.len(), 3);
    }

    #[test]
    fn copies_count_their_bytes() {
        let measured = copy(&CopyRequest {
            bytes: 10_000,
            batches: 2,
        })
        .unwrap();
        assert_eq!(measured.bytes_per_batch, Some(10_000));
        assert_eq!(measured.batch_ns.len(), 2);
    }

    #[test]
    fn bounds_are_kept() {
        for bytes in [0, COPY_BYTES_MAX + 1] {
            let request = CopyRequest { bytes, batches: 1 };
            assert_eq!(copy(&request).unwrap_err().code(), "bad-request");
        }
        for limit in [1, LIMIT_MAX + 1] {
            let request = FunctionRequest { limit, batches: 1 };
            assert_eq!(function(&request).unwrap_err().code(), "bad-request");
        }
    }

    #[test]
    fn the_view_of_memory_is_the_kernels_own_text() {
        assert!(memory_view().unwrap().meminfo.starts_with("MemTotal:"));
    }
}
