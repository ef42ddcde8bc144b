//! On which CPUs the engine's threads run: where they were put, and where they were seen.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::error::CoreError;

/// CPUs that the kernel's sets have room for.
const CPUS_MAX: usize = CpuSet::MAX_CPU;

/// Fails when one of the CPUs is none that this process may use.
pub(super) fn check_cpus(cpus: &[u32]) -> Result<(), CoreError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let allowed = sched_getaffinity(None).map_err(CoreError::system("sched_getaffinity"))?;
    let is_allowed = |cpu: u32| (cpu as usize) < CPUS_MAX && allowed.is_set(cpu as usize);
    match cpus.iter().find(|cpu| !is_allowed(**cpu)) {
        None => Ok(()),
        Some(cpu) => Err(CoreError::CpuNotAllowed {
            cpu: *cpu,
            allowed: told(
                &(0..CPUS_MAX)
                    .filter(|cpu| allowed.is_set(*cpu))
                    .collect::<Vec<_>>(),
            ),
        }),
    }
}

/// Ties the calling thread to its CPU: number `thread` of the list, which is used in turn.
pub(super) fn pin(cpus: &[u32], thread: u32) -> Result<(), CoreError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut only = CpuSet::new();
    only.set(cpus[thread as usize % cpus.len()] as usize);
    sched_setaffinity(None, &only).map_err(CoreError::system("sched_setaffinity"))
}

/// CPUs as a person writes them: `0-3,8`.
fn told(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let range = |(first, last): &(usize, usize)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// CPUs on which a thread was found running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sightings {
    bits: [u64; CPUS_MAX / 64],
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            bits: [0; CPUS_MAX / 64],
        }
    }
}

impl Sightings {
    /// Notes where the calling thread is now; the kernel is not entered for it.
    pub(super) fn note(&mut self) {
        let cpu = sched_getcpu();
        if let Some(bits) = self.bits.get_mut(cpu / 64) {
            *bits |= 1 << (cpu % 64);
        }
    }

    /// Adds what another thread noted.
    pub(super) fn add(&mut self, other: &Self) {
        for (bits, more) in self.bits.iter_mut().zip(&other.bits) {
            *bits |= more;
        }
    }

    /// The CPUs, in order.
    #[must_use]
    pub fn cpus(&self) -> Vec<usize> {
        let is_set = |cpu: &usize| self.bits[cpu / 64] & (1 << (cpu % 64)) != 0;
        (0..CPUS_MAX).filter(is_set).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_told_as_ranges() {
        assert_eq!(told(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn a_cpu_that_is_not_ours_is_refused_by_name() {
        let error = check_cpus(&[1_000_000]).unwrap_err();
        assert_eq!(error.code(), "invalid-plan");
        assert!(error.to_string().contains("1000000"), "{error}");
        assert!(check_cpus(&[]).is_ok());
    }

    #[test]
    fn a_pinned_thread_is_seen_where_it_was_put() {
        let allowed = sched_getaffinity(None).unwrap();
        let last = (0..CPUS_MAX).rfind(|cpu| allowed.is_set(*cpu)).unwrap();
        let cpus = [0, u32::try_from(last).unwrap()];
        let seen = std::thread::spawn(move || {
            pin(&cpus, 3).unwrap();
            let mut sightings = Sightings::default();
            sightings.note();
            sightings.cpus()
        });
        assert_eq!(seen.join().unwrap(), [last]);
    }
}
