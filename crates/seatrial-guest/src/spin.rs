//! Burning a given amount of CPU time.
//!
//! The measure is `CLOCK_THREAD_CPUTIME_ID` where that clock is fine. Some
//! kernels advance it only with their timer tick (10 ms in gVisor), which would
//! turn a demand of 100 µs into one of 10 ms. There, *monotonic gaps* are used:
//! the sum of the gaps between consecutive reads of `CLOCK_MONOTONIC`, each
//! counted up to [`GAP_NS_MAX`]. A read takes well under a microsecond, so a
//! longer gap means that the thread was not running.
//!
//! Where each read is itself slow, the limit is twice the shortest gap seen: in
//! its first second, until its vDSO has calibrated the clock, a read in gVisor is
//! a system call of 10 to 50 µs. A demand is then overshot by up to one read.

use serde::Serialize;

use crate::sys;

/// Longest demand that is accepted, for spinning as for sleeping.
pub const DEMAND_NS_MAX: u64 = 60_000_000_000;

/// Most that a gap between two clock reads counts; a longer one is a preemption.
pub const GAP_NS_MAX: u64 = 20_000;

/// Reads of the CPU clock by which its fineness is judged.
const DETECTION_READS: u32 = 64;

/// By which clock a spin is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `CLOCK_THREAD_CPUTIME_ID`.
    ThreadCpu,
    /// Short gaps of `CLOCK_MONOTONIC`, because the CPU clock is coarse here.
    MonotonicGaps,
}

/// Burns CPU time by the method that suits this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Spinner {
    /// The method in use.
    pub method: Method,
    /// Smallest step of the thread's CPU clock that was seen, if it moved at all.
    pub cpu_clock_step_ns: Option<u64>,
}

impl Spinner {
    /// Looks at the CPU clock (some ten to hundred microseconds) and chooses.
    pub fn detect() -> Self {
        let mut previous_ns = sys::thread_cpu_ns();
        let mut moves = 0;
        let mut cpu_clock_step_ns = None;
        for _ in 0..DETECTION_READS {
            let now_ns = sys::thread_cpu_ns();
            if now_ns > previous_ns {
                moves += 1;
                let step_ns = now_ns - previous_ns;
                cpu_clock_step_ns =
                    Some(cpu_clock_step_ns.map_or(step_ns, |s: u64| s.min(step_ns)));
            }
            previous_ns = now_ns;
        }
        // A fine clock moves at nearly every read; one that ticks hardly ever does.
        let is_fine = moves * 2 >= DETECTION_READS;
        let method = if is_fine {
            Method::ThreadCpu
        } else {
            Method::MonotonicGaps
        };
        Self {
            method,
            cpu_clock_step_ns,
        }
    }

    /// Burns this much CPU time of the calling thread.
    pub fn burn(&self, cpu_ns: u64) {
        match self.method {
            Method::ThreadCpu => {
                let start_ns = sys::thread_cpu_ns();
                while sys::thread_cpu_ns().saturating_sub(start_ns) < cpu_ns {
                    std::hint::spin_loop();
                }
            }
            Method::MonotonicGaps => burn_by_gaps(cpu_ns, sys::monotonic_ns),
        }
    }
}

fn burn_by_gaps(cpu_ns: u64, mut clock: impl FnMut() -> u64) {
    let mut previous_ns = clock();
    let mut shortest_ns = u64::MAX;
    let mut burnt_ns = 0;
    while burnt_ns < cpu_ns {
        let now_ns = clock();
        let gap_ns = now_ns.saturating_sub(previous_ns);
        shortest_ns = shortest_ns.min(gap_ns);
        burnt_ns += gap_ns.min(GAP_NS_MAX.max(shortest_ns.saturating_mul(2)));
        previous_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burning_uses_at_least_that_much_cpu_time() {
        let start_ns = sys::thread_cpu_ns();
        let spinner = Spinner {
            method: Method::ThreadCpu,
            cpu_clock_step_ns: None,
        };
        spinner.burn(2_000_000);
        assert!(sys::thread_cpu_ns() - start_ns >= 2_000_000);
    }

    #[test]
    fn a_preemption_counts_little() {
        // Reads every 100 ns, with a pause of a millisecond before the sixth.
        let mut reads = 0;
        let mut now_ns = 0;
        burn_by_gaps(21_000, || {
            reads += 1;
            now_ns += if reads == 6 { 1_000_000 } else { 100 };
            now_ns
        });
        // One read to start with, ten gaps of 100 ns, and the pause as 20 µs.
        assert_eq!(reads, 12);
    }

    #[test]
    fn a_slow_clock_is_counted_whole() {
        let mut now_ns = 0;
        burn_by_gaps(1_000_000, || {
            now_ns += 25_000;
            now_ns
        });
        assert_eq!(now_ns, 41 * 25_000);
    }

    #[test]
    fn the_clock_of_this_kernel_is_fine() {
        let spinner = Spinner::detect();
        assert_eq!(spinner.method, Method::ThreadCpu);
        assert!(
            spinner
                .cpu_clock_step_ns
                .is_some_and(|step_ns| step_ns < GAP_NS_MAX)
        );
    }
}
