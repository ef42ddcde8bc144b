//! The work that requests ask for, whatever protocol they came by.

use std::time::Duration;

use super::service::Tools;
use crate::spin::DEMAND_NS_MAX;
use crate::sys;

/// Most memory that one request may have touched.
pub const TOUCH_BYTES_MAX: u64 = 256 << 20;

/// Work of a stated amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Burn this much CPU time of the worker.
    Spin(u64),
    /// Keep the worker busy until this much time has passed.
    SpinWall(u64),
    /// Block the worker for this much time.
    Sleep(u64),
    /// Write one byte to each page of this many bytes of the worker's own memory.
    Touch(u64),
}

impl Work {
    /// Whether a request may ask for this much.
    pub const fn is_allowed(self) -> bool {
        match self {
            Self::Spin(nanos) | Self::SpinWall(nanos) | Self::Sleep(nanos) => {
                nanos <= DEMAND_NS_MAX
            }
            Self::Touch(bytes) => bytes <= TOUCH_BYTES_MAX,
        }
    }
}

impl Tools<'_> {
    /// Does the work; whoever asks has checked that it is allowed.
    pub fn perform(&mut self, work: Work) {
        match work {
            Work::Spin(cpu_ns) => self.spinner.burn(cpu_ns),
            Work::SpinWall(wall_ns) => {
                let start_ns = sys::monotonic_ns();
                while sys::monotonic_ns().saturating_sub(start_ns) < wall_ns {
                    std::hint::spin_loop();
                }
            }
            Work::Sleep(wall_ns) => std::thread::sleep(Duration::from_nanos(wall_ns)),
            Work::Touch(bytes) => self.memory.touch(bytes),
        }
    }
}

/// Memory of a worker that requests have touched; it grows to the largest request and stays.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    page_bytes: usize,
}

impl Memory {
    /// No memory yet.
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            page_bytes: sys::page_bytes().get(),
        }
    }

    /// Writes one byte to each page of the first `bytes` bytes.
    pub fn touch(&mut self, bytes: u64) {
        let Ok(bytes) = usize::try_from(bytes.min(TOUCH_BYTES_MAX)) else {
            return; // cannot be: the limit fits
        };
        if self.bytes.len() < bytes {
            // Fresh zero pages of the kernel, so that the first touch of each is a page fault.
            self.bytes = vec![0; bytes];
        }
        for page in self.bytes[..bytes].chunks_mut(self.page_bytes) {
            page[0] = std::hint::black_box(page[0].wrapping_add(1));
        }
    }

    /// Bytes held.
    #[cfg(test)]
    pub const fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_written_once_a_page_and_kept() {
        let mut memory = Memory::new();
        let page_bytes = memory.page_bytes;
        memory.touch(3 * page_bytes as u64 + 1);
        memory.touch(page_bytes as u64);
        assert_eq!(memory.held_bytes(), 3 * page_bytes + 1);
        let first_of_pages = |memory: &Memory| {
            let pages = memory.bytes.chunks(page_bytes);
            pages.map(|page| page[0]).collect::<Vec<_>>()
        };
        assert_eq!(first_of_pages(&memory), [2, 1, 1, 1]);
        assert!(memory.bytes[1..page_bytes].iter().all(|byte| *byte == 0));
        memory.touch(0);
        assert_eq!(first_of_pages(&memory), [2, 1, 1, 1]);
    }

    #[test]
    fn amounts_are_bounded() {
        for (work, is_allowed) in [
            (Work::Spin(DEMAND_NS_MAX), true),
            (Work::Spin(DEMAND_NS_MAX + 1), false),
            (Work::SpinWall(DEMAND_NS_MAX + 1), false),
            (Work::Sleep(u64::MAX), false),
            (Work::Touch(TOUCH_BYTES_MAX), true),
            (Work::Touch(TOUCH_BYTES_MAX + 1), false),
        ] {
            assert_eq!(work.is_allowed(), is_allowed, "{work:?}");
        }
    }
}
