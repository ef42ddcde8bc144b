//! The only place that lets go of the interpreter for long, and that looks for Ctrl-C.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use seatrial_core::engine::{self, LoadPlan, LoadResult, Watch};
use seatrial_core::error::CoreError;
use seatrial_core::stop::StopSignal;

use crate::error::to_python;
use crate::interval::PySnapshot;

/// How often signals are looked for: half of the 100 ms within which Ctrl-C has to work.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

/// How many of those periods are between two calls of the observer.
const PERIODS_PER_LOOK: u32 = 5;

/// Runs a load on other threads while this one waits for it, for signals, and to observe it.
///
/// A `KeyboardInterrupt` ends the load early and keeps what was measured: the result
/// says that it was interrupted. Any other exception of a signal handler, or any of the
/// observer, also ends the load, and is raised after all threads were joined.
pub fn run_load(
    py: Python<'_>,
    plan: &LoadPlan,
    observe: Option<&Bound<'_, PyAny>>,
) -> PyResult<LoadResult> {
    let stop = Arc::new(StopSignal::new().map_err(to_python)?);
    let watch = observe.map(|_| Watch::new(plan.threads));
    let observer = observe.zip(watch.as_ref());
    let mut raised = None;
    let end = End::default();
    let outcome = std::thread::scope(|scope| {
        let engine = scope.spawn(|| {
            let _announce = Announce(&end);
            engine::run_watched_load(plan, &stop, watch.as_ref())
        });
        let mut periods = 0;
        while !py.detach(|| end.wait(SIGNAL_PERIOD)) {
            periods += 1;
            if let Err(error) = py.check_signals() {
                stop.raise();
                raised = Some(error);
            }
            let (Some((observe, watch)), None) = (observer, &raised) else {
                continue;
            };
            if periods % PERIODS_PER_LOOK != 0 {
                continue;
            }
            match look(py, observe, watch) {
                Ok(true) => stop.finish(),
                Ok(false) => {}
                Err(error) => {
                    stop.raise();
                    raised = Some(error);
                }
            }
        }
        py.detach(|| engine.join())
            .unwrap_or(Err(CoreError::ThreadPanicked))
    });
    match raised {
        Some(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error),
        _ => outcome.map_err(to_python),
    }
}

/// Shows the observer what has happened so far; whether the load is to be finished.
fn look(py: Python<'_>, observe: &Bound<'_, PyAny>, watch: &Watch) -> PyResult<bool> {
    let Some(seen) = py.detach(|| watch.look()) else {
        return Ok(false);
    };
    observe.call1((PySnapshot::new(py, seen)?,))?.is_truthy()
}

/// Whether the engine has ended.
#[derive(Default)]
struct End {
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl End {
    /// Waits for the end, for this long at most; whether it came.
    fn wait(&self, period: Duration) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(is_over, period, |is_over| !*is_over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Announces the end when it is dropped, so that a panic is an end, too.
struct Announce<'a>(&'a End);

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        *self
            .0
            .is_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
