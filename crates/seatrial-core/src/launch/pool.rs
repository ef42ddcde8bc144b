//! The threads that start sandboxes, and the barrier that releases them together.
//!
//! A thread lives as long as the launcher, because its children are killed when it ends; one that
//! has reported its start is used again.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::thread::futex;

use super::sys::{Home, PidfdSlot, Program, Spawned, Spawner, errno_text};

/// Enough for a thread that only waits, clones and sends a report.
const THREAD_STACK_BYTES: usize = 128 << 10;

/// A barrier with a hand on it: it opens when told, once all that are expected stand before it.
#[derive(Debug)]
pub struct Gate {
    expected: u32,
    arrived: AtomicU32,
    is_open: AtomicU32,
}

impl Gate {
    /// A closed gate for a number of threads.
    #[must_use]
    pub const fn new(expected: u32) -> Self {
        Self {
            expected,
            arrived: AtomicU32::new(0),
            is_open: AtomicU32::new(0),
        }
    }

    /// A gate that keeps nobody.
    #[must_use]
    pub const fn opened() -> Self {
        Self {
            expected: 0,
            arrived: AtomicU32::new(0),
            is_open: AtomicU32::new(1),
        }
    }

    /// Waits until all that are expected have come.
    pub fn wait_for_all(&self) {
        loop {
            let arrived = self.arrived.load(Ordering::SeqCst);
            if arrived >= self.expected {
                return;
            }
            // Returns at once when the number has changed meanwhile.
            let _ = futex::wait(&self.arrived, futex::Flags::PRIVATE, arrived, None);
        }
    }

    /// Lets everybody through.
    pub fn open(&self) {
        self.is_open.store(1, Ordering::SeqCst);
        let _ = futex::wake(
            &self.is_open,
            futex::Flags::PRIVATE,
            i32::MAX.unsigned_abs(),
        );
    }

    /// Does not expect one of them any more.
    pub fn excuse(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits before the gate until it opens.
    pub fn pass(&self) {
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.expected {
            let _ = futex::wake(&self.arrived, futex::Flags::PRIVATE, 1);
        }
        while self.is_open.load(Ordering::SeqCst) == 0 {
            let _ = futex::wait(&self.is_open, futex::Flags::PRIVATE, 0, None);
        }
    }
}

/// Which of a sandbox's processes a job or report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The sandbox itself.
    Sandbox,
    /// Its `kill_argv`.
    CleanUp,
}

/// One start.
pub struct Job {
    /// The sandbox.
    pub key: u64,
    /// What of it.
    pub part: Part,
    /// What to run.
    pub program: Program,
    /// Where the child's descriptor is while it is being started.
    pub slot: Arc<PidfdSlot>,
    /// What to wait for.
    pub gate: Arc<Gate>,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub struct Report {
    /// The sandbox.
    pub key: u64,
    /// What of it.
    pub part: Part,
    /// What was seen.
    pub spawned: Spawned,
    worker: usize,
}

/// One thread.
#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    /// Which of the launcher's prepared mount name spaces it lives in.
    home: Option<usize>,
}

/// The threads.
#[derive(Debug)]
pub struct Pool {
    /// Those that have nothing to do, by where they live.
    idle: HashMap<Option<usize>, Vec<usize>>,
    workers: Vec<Worker>,
    sender: Sender<Report>,
    receiver: Receiver<Report>,
    wake: Arc<OwnedFd>,
}

impl Pool {
    /// A pool without threads; `wake` is an eventfd that is written to after each report.
    #[must_use]
    pub fn new(wake: Arc<OwnedFd>) -> Self {
        let (sender, receiver) = channel();
        Self {
            workers: Vec::new(),
            idle: HashMap::new(),
            sender,
            receiver,
            wake,
        }
    }

    /// Whether any thread exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Makes sure that these programs can be taken.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn reserve<'a>(
        &mut self,
        programs: impl IntoIterator<Item = &'a Program>,
    ) -> io::Result<()> {
        let mut wanted: HashMap<Option<usize>, usize> = HashMap::new();
        for program in programs {
            let number = number_of(program.home.as_ref());
            let count = wanted.entry(number).or_default();
            *count += 1;
            if self.idle.get(&number).map_or(0, Vec::len) < *count {
                self.add(program.home.clone())?;
            }
        }
        Ok(())
    }

    /// Makes a thread, idle.
    fn add(&mut self, home: Option<Arc<Home>>) -> io::Result<()> {
        let worker = self.workers.len();
        let number = number_of(home.as_ref());
        let (sender, jobs) = channel();
        let spawner = SpawnerParts::new(worker, &self.sender, &self.wake);
        thread::Builder::new()
            .name(format!("start-{worker}"))
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || spawner.run(home.as_deref(), &jobs))?;
        self.workers.push(Worker {
            jobs: sender,
            home: number,
        });
        self.idle.entry(number).or_default().push(worker);
        Ok(())
    }

    /// Gives a job to a thread; `false` when none is free.
    pub fn submit(&mut self, job: Job) -> bool {
        let number = number_of(job.program.home.as_ref());
        let Some(worker) = self.idle.get_mut(&number).and_then(Vec::pop) else {
            return false;
        };
        self.workers[worker].jobs.send(job).is_ok()
    }

    /// The next report that has come in.
    pub fn next_report(&mut self) -> Option<Report> {
        let report = self.receiver.try_recv().ok()?;
        let number = self.workers[report.worker].home;
        self.idle.entry(number).or_default().push(report.worker);
        Some(report)
    }
}

fn number_of(home: Option<&Arc<Home>>) -> Option<usize> {
    home.map(|home| home.number)
}

/// Brings the calling thread to where it will start children.
fn settle(home: Option<&Home>) -> Result<Spawner, String> {
    if let Some(home) = home {
        home.enter().map_err(|errno| {
            let why = errno_text(errno.raw_os_error());
            format!("entering the prepared mount name space: {why}")
        })?;
    }
    Spawner::new().map_err(|error| format!("stack for the child: {error}"))
}

/// What a thread of the pool works with.
struct SpawnerParts {
    worker: usize,
    reports: Sender<Report>,
    wake: Arc<OwnedFd>,
}

impl SpawnerParts {
    fn new(worker: usize, reports: &Sender<Report>, wake: &Arc<OwnedFd>) -> Self {
        Self {
            worker,
            reports: reports.clone(),
            wake: Arc::clone(wake),
        }
    }

    fn run(&self, home: Option<&Home>, jobs: &Receiver<Job>) {
        let mut own_spawner = settle(home);
        while let Ok(Job {
            key,
            part,
            program,
            slot,
            gate,
        }) = jobs.recv()
        {
            let ready = match &mut own_spawner {
                Ok(spawner) => spawner.get_ready(&program).map(|()| spawner),
                Err(why) => Err(why.clone()),
            };
            gate.pass();
            let spawned = match ready {
                Ok(spawner) => spawner.spawn(&program, &slot),
                Err(why) => Spawned::failed(&why),
            };
            // Closes our copies of what the child was given, so that its end becomes visible.
            drop(program);
            let report = Report {
                key,
                part,
                spawned,
                worker: self.worker,
            };
            if self.reports.send(report).is_err() {
                return;
            }
            // The counter cannot overflow, and a full one would wake the reader all the same.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_everybody_until_it_opens() {
        let gate = Arc::new(Gate::new(5));
        let passed = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (gate, passed) = (Arc::clone(&gate), Arc::clone(&passed));
                thread::spawn(move || {
                    gate.pass();
                    passed.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        gate.excuse();
        gate.wait_for_all();
        assert_eq!(passed.load(Ordering::SeqCst), 0);
        gate.open();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(passed.load(Ordering::SeqCst), 4);
        Gate::opened().pass();
    }
}
