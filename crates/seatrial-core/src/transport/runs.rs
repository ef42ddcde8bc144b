//! Requests and replies that are alike: what is the same of all of them is told once.
//!
//! A closed loop of some depth gets the replies of a whole row of requests with one read, and sends
//! the next row with one write. What is done once for such a row is not done once for each request.

use super::Request;

/// Requests that differ in nothing but their ids, which lie one step apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRun {
    /// The first one.
    pub first: Request,
    /// How many there are, at least 1.
    pub count: u32,
    /// From one id to the next.
    pub step: u64,
}

impl RequestRun {
    /// All of them, the first one first.
    #[inline]
    pub fn each(self) -> impl Iterator<Item = Request> {
        (0..u64::from(self.count)).map(move |index| Request {
            request_id: self.first.request_id + index * self.step,
            ..self.first
        })
    }
}

/// Replies in a row that say nothing but which requests they answer, if that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyRun {
    /// How many there are.
    pub count: u32,
    /// The id in the first one; `None` when the protocol does not tell ids.
    pub first_id: Option<u64>,
    /// From one id to the next.
    pub step: u64,
}

impl ReplyRun {
    /// No reply.
    pub const NONE: Self = Self::anonymous(0);

    /// One reply.
    #[must_use]
    #[inline]
    pub const fn one(request_id: Option<u64>) -> Self {
        Self {
            count: 1,
            first_id: request_id,
            step: 0,
        }
    }

    /// This many replies that carry no id.
    #[must_use]
    #[inline]
    pub const fn anonymous(count: u32) -> Self {
        Self {
            count,
            first_id: None,
            step: 0,
        }
    }

    /// Adds the reply with this id, if it goes on like those before; whether it did.
    #[must_use]
    #[inline]
    pub const fn extend(&mut self, request_id: u64) -> bool {
        match self.first_id {
            None => *self = Self::one(Some(request_id)),
            Some(first) if self.count == 1 => {
                self.step = request_id.wrapping_sub(first);
                self.count = 2;
            }
            // The ids are the server's word, which may be anything.
            Some(first) => {
                let next = first.wrapping_add(self.step.wrapping_mul(self.count as u64));
                if request_id != next {
                    return false;
                }
                self.count += 1;
            }
        }
        true
    }

    /// How many of them in a row, from the first one on, can answer requests whose ids lie `step` apart.
    #[must_use]
    #[inline]
    pub const fn alike(&self, step: u64) -> u32 {
        if self.first_id.is_some() && self.step != step && self.count > 1 {
            1
        } else {
            self.count
        }
    }

    /// Drops this many from the front; there are as many.
    #[inline]
    pub fn skip(&mut self, count: u32) {
        self.count -= count;
        let passed = self.step.wrapping_mul(u64::from(count));
        self.first_id = self.first_id.map(|first| first.wrapping_add(passed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn a_run_holds_ids_that_lie_equally_far_apart() {
        let mut run = ReplyRun::NONE;
        for id in [5, 8, 11] {
            assert!(run.extend(id));
        }
        assert!(!run.extend(15));
        assert_eq!((run.count, run.first_id, run.step), (3, Some(5), 3));
        assert_eq!((run.alike(3), run.alike(1)), (3, 1));
        run.skip(2);
        assert_eq!(
            run,
            ReplyRun {
                count: 1,
                first_id: Some(11),
                step: 3
            }
        );
        assert_eq!(run.alike(1), 1);
    }

    #[test]
    fn any_ids_can_be_told_even_backwards() {
        let mut run = ReplyRun::NONE;
        for id in [u64::MAX, 3, 7, 11] {
            assert!(run.extend(id));
        }
        run.skip(3);
        assert_eq!(run.first_id, Some(11));
        let mut down = ReplyRun::NONE;
        for id in [9, 7, 5] {
            assert!(down.extend(id));
        }
        down.skip(2);
        assert_eq!((down.count, down.first_id), (1, Some(5)));
    }

    #[test]
    fn replies_without_ids_are_only_counted() {
        let mut run = ReplyRun::anonymous(4);
        assert_eq!(run.alike(7), 4);
        run.skip(3);
        assert_eq!(run, ReplyRun::anonymous(1));
    }

    #[test]
    fn requests_of_a_run_are_told_one_by_one() {
        let first = Request {
            request_id: 4,
            demand: Nanos::new(9),
        };
        let run = RequestRun {
            first,
            count: 3,
            step: 2,
        };
        let told: Vec<_> = run.each().map(|one| (one.request_id, one.demand)).collect();
        assert_eq!(told, [4, 6, 8].map(|id| (id, Nanos::new(9))));
    }
}
