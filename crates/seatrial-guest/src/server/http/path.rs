//! What a path asks for.

use seatrial_core::units::parse_duration;

use super::super::work::Work;

/// Longest body of a reply that is made up here.
pub const REPLY_BYTES_MAX: u32 = 1 << 20;

/// What the server does for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A small body.
    Okay,
    /// A body of this many bytes.
    Bytes(u32),
    /// The body that came.
    Echo,
    /// Work of a stated amount, then a small body.
    Work(Work),
    /// A reply with this status.
    Status(u16),
    /// A body of this many bytes, in chunks.
    Chunked(u32),
    /// A small body, and the end of the connection.
    Close,
}

/// The actions as they are counted, by [`Action::number`].
pub const OPERATIONS: &[&str] = &[
    "ok",
    "bytes",
    "echo",
    "spin",
    "spin_wall",
    "sleep",
    "touch",
    "status",
    "chunked",
    "close",
];

/// A path that is no action: the status and the text that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// 404 for a path that does not exist, 400 for an amount that is not allowed.
    pub status: u16,
    /// What was expected.
    pub text: &'static str,
}

const NOT_FOUND: Unknown = Unknown {
    status: 404,
    text: "expected / /ok /bytes/N /echo /spin/100us /spin_wall/100us /sleep/100us /touch/N \
           /status/503 /chunked/N or /close\n",
};

const BAD_TIME: Unknown = Unknown {
    status: 400,
    text: "expected a time such as 100us, at most 60s\n",
};

const BAD_MEMORY: Unknown = Unknown {
    status: 400,
    text: "expected a number of bytes, at most 268435456 (256 MiB)\n",
};

const BAD_SIZE: Unknown = Unknown {
    status: 400,
    text: "expected a number of bytes, at most 1048576 (1 MiB)\n",
};

const BAD_STATUS: Unknown = Unknown {
    status: 400,
    text: "expected a status from 200 to 599\n",
};

impl Action {
    /// Reads the target of a request; a query is ignored.
    pub fn parse(target: &str) -> Result<Self, Unknown> {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let mut parts = path.strip_prefix('/').ok_or(NOT_FOUND)?.splitn(2, '/');
        let (name, amount) = (parts.next().unwrap_or_default(), parts.next());
        match (name, amount) {
            ("" | "ok", None) => Ok(Self::Okay),
            ("echo", None) => Ok(Self::Echo),
            ("close", None) => Ok(Self::Close),
            ("bytes", Some(amount)) => size_of(amount).map(Self::Bytes),
            ("chunked", Some(amount)) => size_of(amount).map(Self::Chunked),
            ("status", Some(amount)) => status_of(amount).map(Self::Status),
            ("spin", Some(amount)) => time_of(amount, Work::Spin),
            ("spin_wall", Some(amount)) => time_of(amount, Work::SpinWall),
            ("sleep", Some(amount)) => time_of(amount, Work::Sleep),
            ("touch", Some(amount)) => {
                let work = amount.parse().map(Work::Touch).map_err(|_| BAD_MEMORY)?;
                allowed(work, BAD_MEMORY)
            }
            _ => Err(NOT_FOUND),
        }
    }

    /// Its place in [`OPERATIONS`].
    pub const fn number(self) -> usize {
        match self {
            Self::Okay => 0,
            Self::Bytes(_) => 1,
            Self::Echo => 2,
            Self::Work(Work::Spin(_)) => 3,
            Self::Work(Work::SpinWall(_)) => 4,
            Self::Work(Work::Sleep(_)) => 5,
            Self::Work(Work::Touch(_)) => 6,
            Self::Status(_) => 7,
            Self::Chunked(_) => 8,
            Self::Close => 9,
        }
    }
}

fn size_of(amount: &str) -> Result<u32, Unknown> {
    let bytes = amount.parse().ok();
    bytes
        .filter(|bytes| *bytes <= REPLY_BYTES_MAX)
        .ok_or(BAD_SIZE)
}

fn status_of(amount: &str) -> Result<u16, Unknown> {
    let status = amount.parse().ok();
    status
        .filter(|status| (200..600).contains(status))
        .ok_or(BAD_STATUS)
}

fn time_of(amount: &str, work: fn(u64) -> Work) -> Result<Action, Unknown> {
    let nanos = parse_duration(amount).map_err(|_| BAD_TIME)?;
    allowed(work(nanos.get()), BAD_TIME)
}

fn allowed(work: Work, otherwise: Unknown) -> Result<Action, Unknown> {
    if work.is_allowed() {
        Ok(Action::Work(work))
    } else {
        Err(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_actions() {
        for (target, action) in [
            ("/", Action::Okay),
            ("/ok?x=1", Action::Okay),
            ("/bytes/0", Action::Bytes(0)),
            ("/bytes/1048576", Action::Bytes(1 << 20)),
            ("/echo", Action::Echo),
            ("/spin/100us", Action::Work(Work::Spin(100_000))),
            ("/spin_wall/1ms", Action::Work(Work::SpinWall(1_000_000))),
            ("/sleep/60s", Action::Work(Work::Sleep(60_000_000_000))),
            ("/touch/4096", Action::Work(Work::Touch(4096))),
            ("/status/503", Action::Status(503)),
            ("/chunked/7", Action::Chunked(7)),
            ("/close", Action::Close),
        ] {
            assert_eq!(Action::parse(target), Ok(action), "{target}");
            let name = OPERATIONS[action.number()];
            assert!(target == "/" || target.contains(name), "{target} is {name}");
        }
    }

    #[test]
    fn other_paths_are_told_what_was_expected() {
        for (target, status) in [
            ("*", 404),
            ("/nowhere", 404),
            ("/ok/1", 404),
            ("/bytes", 404),
            ("/bytes/1048577", 400),
            ("/bytes/-1", 400),
            ("/spin/fast", 400),
            ("/sleep/61s", 400),
            ("/touch/268435457", 400),
            ("/status/199", 400),
        ] {
            let unknown = Action::parse(target).unwrap_err();
            assert_eq!(unknown.status, status, "{target}");
            assert!(unknown.text.starts_with("expected "));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn any_path_has_an_answer(target in "(/(spin|touch|bytes|status)?/?)?\\PC{0,30}") {
            if let Ok(Action::Work(work)) = Action::parse(&target) {
                prop_assert!(work.is_allowed());
            }
        }
    }
}
