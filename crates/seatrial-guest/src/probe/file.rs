//! Sequential file writing and reading, buffered by the kernel of the sandbox.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags, fsync, ftruncate, open};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use serde::Deserialize;

use super::{Measured, time_batches, within};
use crate::error::GuestError;
use crate::sys::{RemovedOnExit, remove_on_exit};

/// Largest file: 4 GiB.
const BYTES_MAX: u64 = 4 << 30;
/// Largest block: 16 MiB.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// Numbers the files of this process.
static FILES: AtomicU32 = AtomicU32::new(0);

/// A request for `file-write` or `file-read`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// The directory in which the file is made; the file is removed afterwards.
    path: String,
    /// Bytes a batch writes or reads.
    bytes: u64,
    /// Bytes a system call writes or reads.
    #[serde(default = "block_bytes_default")]
    block_bytes: usize,
    /// Whether each batch of writing ends with `fsync`.
    #[serde(default)]
    sync: bool,
    /// Number of batches.
    #[serde(default = "super::one")]
    batches: usize,
}

const fn block_bytes_default() -> usize {
    4096
}

/// The file of a probe: gone when this value is, or when the guest exits.
struct ProbeFile {
    fd: OwnedFd,
    name: String,
    bytes: u64,
    block: Vec<u8>,
    _removed: RemovedOnExit,
}

/// Writes the file from its start, in each batch anew.
pub fn write(request: &FileRequest) -> Result<Measured, GuestError> {
    let file = ProbeFile::create(request)?;
    // Emptied before each batch, untimed, so that each batch allocates what it writes.
    let empty =
        || ftruncate(&file.fd, 0).map_err(GuestError::probe(format!("truncate {}", file.name)));
    let batch_ns = time_batches(request.batches, empty, || {
        file.fill()?;
        if request.sync { file.sync() } else { Ok(()) }
    })?;
    Ok(file.measured("file-write", batch_ns))
}

/// Reads, in each batch, the whole file, which was written (and synced) before.
pub fn read(request: &FileRequest) -> Result<Measured, GuestError> {
    let file = ProbeFile::create(request)?;
    file.fill()?;
    file.sync()?;
    let mut block = vec![0; request.block_bytes];
    let batch_ns = time_batches(request.batches, || Ok(()), || file.scan(&mut block))?;
    Ok(file.measured("file-read", batch_ns))
}

impl ProbeFile {
    fn create(request: &FileRequest) -> Result<Self, GuestError> {
        let bytes = within("bytes", request.bytes, 1..=BYTES_MAX)?;
        let block_bytes = within("block_bytes", request.block_bytes, 1..=BLOCK_BYTES_MAX)?;
        within("batches", request.batches, 1..=super::BATCHES_MAX)?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let name = format!("{}/seatrial-probe-{pid}-{number}", request.path);
        let path = CString::new(name.as_str())
            .map_err(|_| GuestError::BadRequest("path: contains a zero byte".to_owned()))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = open(path.as_c_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(GuestError::probe(format!("create {name}")))?;
        Ok(Self {
            fd,
            name,
            bytes,
            block: noise(block_bytes),
            _removed: remove_on_exit(path),
        })
    }

    /// Writes the file from its start to its size.
    fn fill(&self) -> Result<(), GuestError> {
        let what = || format!("write {} bytes to {}", self.bytes, self.name);
        self.each_block(|offset, length| {
            let written = pwrite(&self.fd, &self.block[..length], offset)?;
            if written == 0 {
                Err(Errno::NOSPC)
            } else {
                Ok(written)
            }
        })
        .map_err(|errno| GuestError::Probe {
            what: what(),
            errno,
        })
    }

    fn sync(&self) -> Result<(), GuestError> {
        retry_on_intr(|| fsync(&self.fd)).map_err(|errno| GuestError::Probe {
            what: format!("fsync {}", self.name),
            errno,
        })
    }

    /// Reads the file from its start to its size.
    fn scan(&self, block: &mut [u8]) -> Result<(), GuestError> {
        let what = || format!("read {} bytes from {}", self.bytes, self.name);
        self.each_block(|offset, length| {
            let count = pread(&self.fd, &mut block[..length], offset)?;
            if count == 0 {
                Err(Errno::IO)
            } else {
                Ok(count)
            }
        })
        .map_err(|errno| GuestError::Probe {
            what: what(),
            errno,
        })
    }

    fn each_block(
        &self,
        mut transfer: impl FnMut(u64, usize) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let mut offset = 0;
        while offset < self.bytes {
            let left = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            let length = left.min(self.block.len());
            offset += retry_on_intr(|| transfer(offset, length))? as u64;
        }
        Ok(())
    }

    fn measured(&self, probe: &'static str, batch_ns: Vec<u64>) -> Measured {
        let operations = self.bytes.div_ceil(self.block.len() as u64);
        let mut measured = Measured::new(probe, operations, batch_ns);
        measured.bytes_per_batch = Some(self.bytes);
        measured
    }
}

/// Bytes that no file system can compress or share: xorshift64 with a fixed seed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, bytes: u64, block_bytes: usize) -> FileRequest {
        FileRequest {
            path: path.to_owned(),
            bytes,
            block_bytes,
            sync: true,
            batches: 3,
        }
    }

    /// A directory of its own for a test, gone with the value.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn text(&self) -> &str {
            self.0.to_str().unwrap()
        }

        fn entries(&self) -> usize {
            std::fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn both_probes_count_blocks_and_leave_nothing() {
        let directory = Directory::new("seatrial-guest-file");
        for probe in [write, read] {
            let measured = probe(&request(directory.text(), 10_000, 4096)).unwrap();
            assert_eq!(measured.operations_per_batch, 3);
            assert_eq!(measured.bytes_per_batch, Some(10_000));
            assert_eq!(measured.batch_ns.len(), 3);
            assert_eq!(directory.entries(), 0);
        }
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let error = write(&request("/nonexistent", 1, 1)).unwrap_err();
        assert_eq!(error.code(), "probe-failed");
        assert!(
            error
                .to_string()
                .contains("create /nonexistent/seatrial-probe-"),
            "{error}"
        );
        for (bytes, block_bytes) in [(0, 1), (BYTES_MAX + 1, 1), (1, 0), (1, BLOCK_BYTES_MAX + 1)] {
            let error = write(&request("/tmp", bytes, block_bytes)).unwrap_err();
            assert_eq!(error.code(), "bad-request", "{error}");
        }
        assert_eq!(
            read(&request("/tmp\0/x", 1, 1)).unwrap_err().code(),
            "bad-request"
        );
    }

    #[test]
    fn noise_has_the_asked_length_and_is_not_constant() {
        for length in [1, 7, 8, 9, 4096] {
            assert_eq!(noise(length).len(), length);
        }
        assert_ne!(noise(16)[..8], noise(16)[8..]);
    }
}
