//! `LoadResult`: records as an Arrow stream, histograms, instants and counters.

use std::sync::Arc;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, Schema};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use seatrial_core::engine::{Counters, Failure, LoadResult, ThreadUsage};
use seatrial_core::transport::{Traffic, TransportReport};
use seatrial_core::units::Nanos;

use crate::columns;
use crate::counts::PyCounts;
use crate::histogram::PyHistogram;
use crate::interval::{self, PyInterval, PyTargetResult};
use crate::timestamps::PyTimestamps;

/// What a load found out; histograms are of the measure phase, counters of all phases.
#[pyclass(frozen, name = "LoadResult", module = "seatrial._core")]
pub struct PyLoadResult {
    schema: Arc<Schema>,
    batches: Vec<RecordBatch>,
    response: Py<PyHistogram>,
    service: Py<PyHistogram>,
    send_lag: Py<PyHistogram>,
    pacing_lag: Py<PyHistogram>,
    queue: Py<PyHistogram>,
    connect: Py<PyHistogram>,
    counters: Counters,
    measured: Py<PyCounts>,
    failures: Vec<Failure>,
    #[pyo3(get)]
    queued_count: u64,
    #[pyo3(get)]
    late_reply_count: u64,
    #[pyo3(get)]
    resent_count: u64,
    traffic: Traffic,
    transport: TransportReport,
    wire: Py<PyHistogram>,
    wake: Py<PyHistogram>,
    timestamps: Py<PyTimestamps>,
    #[pyo3(get)]
    achieved_count: u64,
    #[pyo3(get)]
    records_stride: Option<u64>,
    #[pyo3(get)]
    intervals: Vec<Py<PyInterval>>,
    #[pyo3(get)]
    targets: Vec<Py<PyTargetResult>>,
    started_at: Nanos,
    measure_start: Nanos,
    measure_end: Nanos,
    counted_until: Nanos,
    ended_at: Nanos,
    usage: ThreadUsage,
    #[pyo3(get)]
    wait: &'static str,
    guard: Option<Nanos>,
    #[pyo3(get)]
    cpus_seen: Vec<usize>,
    #[pyo3(get)]
    was_interrupted: bool,
    #[pyo3(get)]
    was_finished_early: bool,
}

impl PyLoadResult {
    /// Takes the result of the core over; no column is copied.
    pub fn new(py: Python<'_>, found: LoadResult) -> PyResult<Self> {
        let schema = columns::schema();
        let batches: Result<Vec<_>, ArrowError> = found
            .records
            .into_iter()
            .map(|records| columns::batch(&schema, records))
            .collect();
        let targets: PyResult<Vec<_>> = found
            .targets
            .into_iter()
            .map(|target| Py::new(py, PyTargetResult::new(py, target)?))
            .collect();
        let histogram = |inner| Py::new(py, PyHistogram::from(inner));
        Ok(Self {
            batches: batches.map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
            schema,
            response: histogram(found.response)?,
            service: histogram(found.service)?,
            send_lag: histogram(found.send_lag)?,
            pacing_lag: histogram(found.pacing_lag)?,
            queue: histogram(found.queue)?,
            connect: histogram(found.connect)?,
            counters: found.counters,
            measured: Py::new(py, PyCounts::from(found.measured))?,
            failures: found.failures,
            queued_count: found.queued_count,
            late_reply_count: found.late_reply_count,
            resent_count: found.resent_count,
            traffic: found.traffic,
            transport: found.transport,
            wire: histogram(found.wire)?,
            wake: histogram(found.wake)?,
            timestamps: Py::new(py, PyTimestamps::from(found.stamps))?,
            achieved_count: found.achieved_count,
            records_stride: found.records_stride,
            intervals: interval::all(py, found.intervals)?,
            targets: targets?,
            started_at: found.started_at,
            measure_start: found.measure_start,
            measure_end: found.measure_end,
            counted_until: found.counted_until,
            ended_at: found.ended_at,
            usage: found.usage,
            wait: found.wait.name(),
            guard: found.guard,
            cpus_seen: found.cpus_seen.cpus(),
            was_interrupted: found.was_interrupted,
            was_finished_early: found.was_finished_early,
        })
    }
}

#[pymethods]
impl PyLoadResult {
    /// The records as an Arrow C stream, one batch a thread. The schema cannot be negotiated.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batches = self.batches.clone().into_iter().map(Ok);
        let reader = RecordBatchIterator::new(batches, Arc::clone(&self.schema));
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }

    /// How many records were kept.
    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[getter]
    fn response_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.response.clone_ref(py)
    }

    #[getter]
    fn service_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.service.clone_ref(py)
    }

    #[getter]
    fn send_lag_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.send_lag.clone_ref(py)
    }

    #[getter]
    fn pacing_lag_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.pacing_lag.clone_ref(py)
    }

    #[getter]
    fn started_at_ns(&self) -> u64 {
        self.started_at.get()
    }

    #[getter]
    fn measure_start_ns(&self) -> u64 {
        self.measure_start.get()
    }

    #[getter]
    fn measure_end_ns(&self) -> u64 {
        self.measure_end.get()
    }

    #[getter]
    fn counted_until_ns(&self) -> u64 {
        self.counted_until.get()
    }

    #[getter]
    fn ended_at_ns(&self) -> u64 {
        self.ended_at.get()
    }

    #[getter]
    fn intended_count(&self) -> u64 {
        self.counters.intended_count
    }

    #[getter]
    fn sent_count(&self) -> u64 {
        self.counters.sent_count
    }

    #[getter]
    fn ok_count(&self) -> u64 {
        self.counters.ok_count
    }

    #[getter]
    fn timeout_count(&self) -> u64 {
        self.counters.timeout_count
    }

    #[getter]
    fn error_count(&self) -> u64 {
        self.counters.error_count()
    }

    #[getter]
    fn protocol_error_count(&self) -> u64 {
        self.counters.protocol_error_count
    }

    #[getter]
    fn unsent_count(&self) -> u64 {
        self.counters.unsent_count
    }

    #[getter]
    fn generator_user_ns(&self) -> u64 {
        self.usage.user.get()
    }

    #[getter]
    fn generator_system_ns(&self) -> u64 {
        self.usage.system.get()
    }

    #[getter]
    fn voluntary_switch_count(&self) -> u64 {
        self.usage.voluntary_switch_count
    }

    #[getter]
    fn involuntary_switch_count(&self) -> u64 {
        self.usage.involuntary_switch_count
    }

    #[getter]
    fn sent_bytes(&self) -> u64 {
        self.traffic.sent_bytes
    }

    #[getter]
    fn received_bytes(&self) -> u64 {
        self.traffic.received_bytes
    }

    #[getter]
    fn reordered_count(&self) -> u64 {
        self.transport.reordered_count
    }

    #[getter]
    fn duplicate_count(&self) -> u64 {
        self.transport.duplicate_count
    }

    #[getter]
    fn held_back_count(&self) -> u64 {
        self.transport.held_back_count
    }

    #[getter]
    fn congestion_control(&self) -> Option<&str> {
        self.transport.congestion_control.as_deref()
    }

    #[getter]
    fn wire_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.wire.clone_ref(py)
    }

    #[getter]
    fn wake_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.wake.clone_ref(py)
    }

    #[getter]
    fn timestamps(&self, py: Python<'_>) -> Py<PyTimestamps> {
        self.timestamps.clone_ref(py)
    }

    #[getter]
    fn queue_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.queue.clone_ref(py)
    }

    #[getter]
    fn connect_histogram(&self, py: Python<'_>) -> Py<PyHistogram> {
        self.connect.clone_ref(py)
    }

    /// How the requests of all phases ended.
    #[getter]
    fn counts(&self) -> PyCounts {
        PyCounts::from(self.counters)
    }

    #[getter]
    fn measured(&self, py: Python<'_>) -> Py<PyCounts> {
        self.measured.clone_ref(py)
    }

    /// Outcome as in the records, text and count of each reason.
    #[getter]
    fn failures(&self) -> Vec<(u8, &str, u64)> {
        self.failures
            .iter()
            .map(|failure| (failure.outcome as u8, &*failure.text, failure.count))
            .collect()
    }

    #[getter]
    fn guard_ns(&self) -> Option<u64> {
        self.guard.map(Nanos::get)
    }

    fn __repr__(&self) -> String {
        let Counters {
            intended_count,
            ok_count,
            ..
        } = self.counters;
        format!("LoadResult(intended_count={intended_count}, ok_count={ok_count})")
    }
}
