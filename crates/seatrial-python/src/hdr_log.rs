//! Histograms in the log format that `HdrHistogram`'s own tools read (version 1.3).

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram as HdrHistogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use seatrial_core::histogram::{Histogram, SparseHistogram};

use crate::histogram::PyHistogram;

/// The line that names the columns; every reader of the format skips it.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
                      \"Interval_Compressed_Histogram\"\n";

/// The stored maximum is for people: in milliseconds, as `HdrHistogram`'s tools have it.
const NS_PER_MS: f64 = 1e6;

/// Writes successive histograms of durations in ns as one log.
///
/// Instants are in ns of the monotonic clock; `epoch_offset_ns` makes them times since 1970.
#[pyfunction]
#[pyo3(signature = (stretches, *, epoch_offset_ns, comment))]
#[allow(clippy::needless_pass_by_value)] // the shape that PyO3 wants
pub fn hdr_log(
    stretches: Vec<(u64, u64, PyRef<'_, PyHistogram>)>,
    epoch_offset_ns: i64,
    comment: &str,
) -> PyResult<String> {
    let failed = |error: &dyn std::fmt::Display| PyRuntimeError::new_err(error.to_string());
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let _ = builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(comment)
        .with_max_value_divisor(NS_PER_MS);
    let mut writer = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| failed(&error))?;
    for (start_ns, end_ns, histogram) in stretches {
        let since_1970 = i64::try_from(start_ns)
            .ok()
            .and_then(|start| start.checked_add(epoch_offset_ns))
            .and_then(|start| u64::try_from(start).ok())
            .ok_or_else(|| PyValueError::new_err("a stretch begins before 1970"))?;
        let length = Duration::from_nanos(end_ns.saturating_sub(start_ns));
        let stored = converted(histogram.inner()).map_err(|error| failed(&error))?;
        writer
            .write_histogram(&stored, Duration::from_nanos(since_1970), length, None)
            .map_err(|error| failed(&error))?;
    }
    let text = String::from_utf8(bytes).map_err(|error| failed(&error))?;
    Ok(with_legend(&text))
}

/// The same histogram as `HdrHistogram`'s own type.
fn converted(histogram: &SparseHistogram) -> Result<HdrHistogram<u64>, String> {
    let mut stored = HdrHistogram::new_with_bounds(1, Histogram::VALUE_MAX.get(), 3)
        .map_err(|error| error.to_string())?;
    for (value, count) in histogram.pairs() {
        stored.saturating_record_n(value.get(), count);
    }
    Ok(stored)
}

/// Puts the legend between the comments and the histograms, where the format has it.
fn with_legend(text: &str) -> String {
    let comments = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .count();
    let mut whole = String::with_capacity(text.len() + LEGEND.len());
    for (number, line) in text.lines().enumerate() {
        if number == comments {
            whole.push_str(LEGEND);
        }
        let _ = writeln!(whole, "{line}");
    }
    if comments == text.lines().count() {
        whole.push_str(LEGEND);
    }
    whole
}
