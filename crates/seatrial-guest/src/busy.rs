//! Company for what is measured elsewhere: a share of one processor, kept busy.

use std::time::Duration;

use crate::error::GuestError;
use crate::spin::Spinner;

/// Work and rest take turns this often: as short as a tick of most kernels, so that a share of a
/// few per cent is there all the time and not in lumps.
const PERIOD_NS: u64 = 10_000_000;

/// Keeps `load_ratio` of one processor busy from now on, in a thread of its own.
///
/// CPU time is counted, not time: where others run as well the work takes longer, and the rest after
/// it stays as long, so the share is what was asked for at most.
pub fn start(load_ratio: f64) -> Result<(), GuestError> {
    let work_ns = work_ns(load_ratio);
    if work_ns == 0 {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("busy".to_owned())
        .spawn(move || {
            let spinner = Spinner::detect();
            loop {
                spinner.burn(work_ns);
                std::thread::sleep(Duration::from_nanos(PERIOD_NS - work_ns));
            }
        })
        .map(drop)
        .map_err(|_| GuestError::System {
            what: "start the thread that keeps busy",
            errno: rustix::io::Errno::AGAIN,
        })
}

/// The part of a period that is work.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)] // a share of a small constant
fn work_ns(load_ratio: f64) -> u64 {
    ((PERIOD_NS as f64 * load_ratio).round() as u64).min(PERIOD_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_each_period() {
        assert_eq!(work_ns(0.0), 0);
        assert_eq!(work_ns(0.05), 500_000);
        assert_eq!(work_ns(1.0), PERIOD_NS);
    }
}
