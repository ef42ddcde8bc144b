//! Arrivals from a file: recorded instants, replayed to the nanosecond.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use super::grammar::parse_number;
use crate::error::CoreError;

/// What can be asked for.
pub const USAGE: &str = "trace:PATH[,scale=S][,loop=yes], a readable file of offsets in ns, one a line or the first column t_ns of a CSV; S above 0 multiplies them (not with a rate)";

/// Most arrivals of a trace.
const ARRIVALS_MAX: usize = 10_000_000;
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of a line.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// Latest offset: below it every nanosecond has its own f64; 104 days.
const OFFSET_MAX: u64 = 1 << 53;

/// Recorded arrivals.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    offsets: Arc<[u64]>,
    /// Gaps between the arrivals in increasing order, for the law of the gaps; in ns.
    gaps: Arc<[u64]>,
    scale: f64,
    is_looped: bool,
}

impl Trace {
    /// Reads `PATH[,scale=S][,loop=yes]` and the file.
    pub(super) fn read(text: &str, rest: &str) -> Result<Self, CoreError> {
        let invalid = |value: String, expected| CoreError::InvalidValue {
            what: "arrival law",
            value,
            expected,
        };
        let usage = || invalid(text.to_owned(), USAGE);
        let (mut path, mut scale, mut is_looped) = (rest, None, None);
        // From the right, because a path may have commas and equals signs of its own.
        while let Some((before, option)) = path.rsplit_once(',') {
            if let Some(number) = option.strip_prefix("scale=") {
                let number = parse_number(number).filter(|scale| (1e-9..=1e9).contains(scale));
                if scale.replace(number.ok_or_else(usage)?).is_some() {
                    return Err(usage());
                }
            } else if let Some(word) = option.strip_prefix("loop=") {
                let word = match word {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(usage()),
                };
                if is_looped.replace(word).is_some() {
                    return Err(usage());
                }
            } else {
                break;
            }
            path = before;
        }
        if path.is_empty() {
            return Err(usage());
        }
        let failed = |error: std::io::Error| invalid(format!("{text}: {error}"), USAGE);
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let about = std::fs::metadata(path).map_err(failed)?;
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            return Err(invalid(text.to_owned(), "a regular file of at most 1 GiB"));
        }
        let file = File::open(path).map_err(failed)?;
        let offsets = read_offsets(path, BufReader::new(file.take(FILE_BYTES_MAX)))?;
        let mut gaps: Vec<u64> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        let trace = Self {
            offsets: offsets.into(),
            gaps: gaps.into(),
            scale: scale.unwrap_or(1.0),
            is_looped: is_looped.unwrap_or(false),
        };
        if trace.is_looped && trace.recorded_gap_ns().is_none() {
            let expected = "two arrivals at different instants, to know when the next round begins";
            return Err(invalid(text.to_owned(), expected));
        }
        if trace.gap_ns().is_some_and(|gap_ns| gap_ns < 1.0) {
            return Err(invalid(
                text.to_owned(),
                "at most 1e9 arrivals a second, scaled",
            ));
        }
        Ok(trace)
    }

    /// Whether a time scale other than 1 was asked for.
    pub(super) fn is_scaled(&self) -> bool {
        (self.scale - 1.0).abs() > 0.0
    }

    /// The mean gap of the recording; `None` when all arrivals are at one instant.
    fn recorded_gap_ns(&self) -> Option<f64> {
        let (first, last) = (*self.offsets.first()?, *self.offsets.last()?);
        (last > first).then(|| (last - first) as f64 / (self.offsets.len() - 1) as f64)
    }

    /// The mean gap that is replayed, its time scale included.
    pub(super) fn gap_ns(&self) -> Option<f64> {
        self.recorded_gap_ns().map(|gap_ns| gap_ns * self.scale)
    }

    /// The arrival with this index, in ns of the recording; `None` past the end.
    ///
    /// A loop begins anew one mean gap after its last arrival.
    fn recorded_at(&self, index: u64) -> Option<f64> {
        let count = self.offsets.len() as u64;
        if index < count {
            return Some(self.offsets[usize::try_from(index).ok()?] as f64);
        }
        if !self.is_looped {
            return None;
        }
        let round_ns = self.recorded_gap_ns()? * count as f64;
        let offset = self.offsets[usize::try_from(index % count).ok()?];
        Some(offset as f64 + round_ns * (index / count) as f64)
    }

    /// The arrival with this index when a mean gap takes `unit`; as recorded when that is `None`.
    pub(super) fn instant(&self, index: u64, unit: Option<f64>) -> Option<f64> {
        let recorded = self.recorded_at(index)?;
        match unit {
            None => Some(recorded * self.scale),
            Some(unit) => Some(recorded * (unit / self.recorded_gap_ns()?)),
        }
    }

    /// The share of the recorded gaps that are shorter than `gaps` mean gaps, and of those that equal it.
    pub(super) fn below_and_at(&self, gaps: f64) -> (f64, f64) {
        let Some(mean_ns) = self.recorded_gap_ns() else {
            return (0.0, 1.0);
        };
        let count = self.gaps.len() as f64;
        // Half a nanosecond each way: gaps are whole nanoseconds, and the quotient was rounded.
        let gap_ns = gaps * mean_ns;
        let below = self
            .gaps
            .partition_point(|gap| (*gap as f64) < gap_ns - 0.5);
        let up_to = self
            .gaps
            .partition_point(|gap| (*gap as f64) < gap_ns + 0.5);
        (below as f64 / count, (up_to - below) as f64 / count)
    }
}

fn read_offsets(path: &str, mut reader: impl BufRead) -> Result<Vec<u64>, CoreError> {
    let mut offsets: Vec<u64> = Vec::new();
    let mut line = Vec::new();
    let mut number = 0u64;
    let mut is_first = true;
    loop {
        line.clear();
        number += 1;
        let invalid = |told: &[u8], expected| CoreError::InvalidValue {
            what: "trace line",
            value: format!(
                "{path}:{number}: {}",
                String::from_utf8_lossy(&told[..told.len().min(80)])
            ),
            expected,
        };
        let read = reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        let count =
            read.map_err(|error| invalid(error.to_string().as_bytes(), "a readable file"))?;
        if count == 0 {
            break;
        }
        let text = line.trim_ascii();
        let column = text
            .split(|byte| *byte == b',')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        if std::mem::take(&mut is_first) && column == b"t_ns" {
            continue;
        }
        let offset = std::str::from_utf8(column)
            .ok()
            .and_then(|column| column.parse().ok());
        let offset: u64 = offset
            .filter(|offset| *offset < OFFSET_MAX)
            .ok_or_else(|| {
                invalid(
                    text,
                    "a whole number of ns below 2^53, after a comment or the heading t_ns at most",
                )
            })?;
        if offsets.last().is_some_and(|last| offset < *last) {
            return Err(invalid(text, "an instant no earlier than the one before"));
        }
        if offsets.len() == ARRIVALS_MAX {
            return Err(invalid(text, "at most 10000000 arrivals"));
        }
        offsets.push(offset);
    }
    if offsets.is_empty() {
        return Err(CoreError::InvalidValue {
            what: "trace",
            value: path.to_owned(),
            expected: "at least one arrival in it",
        });
    }
    Ok(offsets)
}
