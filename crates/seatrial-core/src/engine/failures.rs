//! Why requests failed, in words: distinct texts with their counts, bounded.

use crate::record::Outcome;

/// Distinct texts that are kept; what comes later is counted together.
pub const TEXTS_MAX: usize = 64;

/// Bytes of a text that are kept.
pub const TEXT_BYTES_MAX: usize = 200;

/// Stands for all texts that found no room.
pub const OTHER_TEXT: &str = "other";

/// Why requests failed, where neither the server nor the kernel says it.
pub(super) mod reasons {
    pub const TIMEOUT_LATE: &str = "no whole reply by the deadline";
    pub const TIMEOUT_AT_END: &str = "no whole reply by the end of the drain phase";
    pub const UNSENT_LATE: &str = "no free place by the deadline";
    pub const UNSENT_AT_END: &str = "no free place by the end of the drain phase";
    pub const RESET_BY_PEER: &str = "closed or reset by the peer";
    pub const RESET_ANNOUNCED: &str = "closed by the peer, as it had announced";
    pub const TIMEOUT_UNSERVED: &str =
        "not served by a connection that ended, and no free place on another by the deadline";
    pub const RESET_SILENT: &str = "behind a request that had no reply for twice the time-out";
    pub const RESET_BEHIND: &str = "behind a request whose reply broke the protocol";

    use crate::record::Outcome;
    use crate::transport::CloseCause;

    /// How a request ends whose connection is lost, and why. Bytes that are no reply belong to
    /// the oldest request; the others just lost their connection.
    pub fn of_loss(cause: &CloseCause, is_oldest: bool) -> (Outcome, &str) {
        match cause {
            CloseCause::Protocol(text) if is_oldest => (Outcome::ProtocolError, text),
            CloseCause::Protocol(_) => (Outcome::Reset, RESET_BEHIND),
            CloseCause::Announced | CloseCause::Spent => (Outcome::Reset, RESET_ANNOUNCED),
            CloseCause::Silent => (Outcome::Reset, RESET_SILENT),
            CloseCause::Reset | CloseCause::Refused(_) => (Outcome::Reset, RESET_BY_PEER),
        }
    }
}

/// Requests that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How they ended.
    pub outcome: Outcome,
    /// Why, at most 200 bytes; `other` for what came after 64 distinct texts.
    pub text: Box<str>,
    /// How many requests.
    pub count: u64,
}

/// The texts of one thread, or of a whole run.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    entries: Vec<Failure>,
    /// The entry that was counted last: failures come in rows.
    recent: usize,
}

impl Failures {
    /// Counts requests that ended so.
    pub fn count(&mut self, outcome: Outcome, text: &str, count: u64) {
        let text = cut(text);
        let is_same = |entry: &Failure| entry.outcome == outcome && *entry.text == *text;
        if let Some(entry) = self
            .entries
            .get_mut(self.recent)
            .filter(|entry| is_same(entry))
        {
            entry.count += count;
            return;
        }
        let position = self.entries.iter().position(is_same);
        match position {
            Some(position) => {
                self.recent = position;
                self.entries[position].count += count;
            }
            None if self.distinct_count() < TEXTS_MAX || text == OTHER_TEXT => {
                self.recent = self.entries.len();
                self.entries.push(Failure {
                    outcome,
                    text: text.into(),
                    count,
                });
            }
            None => self.count(outcome, OTHER_TEXT, count),
        }
    }

    /// Entries that are not collections of others; those are at most one an outcome.
    fn distinct_count(&self) -> usize {
        let is_distinct = |entry: &&Failure| *entry.text != *OTHER_TEXT;
        self.entries.iter().filter(is_distinct).count()
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Self) {
        for entry in &other.entries {
            self.count(entry.outcome, &entry.text, entry.count);
        }
    }

    /// The texts, the most frequent first.
    pub fn into_sorted(mut self) -> Vec<Failure> {
        self.entries.sort_by(|one, other| {
            let key = |entry: &Failure| (entry.outcome as u8, entry.text.clone());
            (other.count.cmp(&one.count)).then_with(|| key(one).cmp(&key(other)))
        });
        self.entries
    }
}

/// The text, shortened to its bound at the end of a character.
fn cut(text: &str) -> &str {
    // `str::floor_char_boundary` is newer than the oldest compiler that this crate supports.
    let end = TEXT_BYTES_MAX.min(text.len());
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    &text[..(0..=end).rev().find(is_boundary).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_failures_are_counted_together() {
        let mut failures = Failures::default();
        for _ in 0..3 {
            failures.count(Outcome::Reset, "closed", 1);
            failures.count(Outcome::Timeout, "closed", 2);
        }
        let told = failures.into_sorted();
        let rows: Vec<_> = told.iter().map(|row| (row.outcome, row.count)).collect();
        assert_eq!(rows, [(Outcome::Timeout, 6), (Outcome::Reset, 3)]);
    }

    #[test]
    fn texts_are_bounded_and_none_is_lost() {
        let mut one = Failures::default();
        let mut two = Failures::default();
        for number in 0..100 {
            one.count(Outcome::ApplicationError, &format!("one {number}"), 1);
            two.count(Outcome::ApplicationError, &format!("two {number}"), 1);
            two.count(Outcome::ProtocolError, "ä".repeat(number + 100).as_str(), 1);
        }
        one.add(&two);
        let told = one.into_sorted();
        assert_eq!(told.iter().map(|row| row.count).sum::<u64>(), 300);
        assert!(told.len() <= TEXTS_MAX + 2, "{}", told.len());
        assert!(told.iter().all(|row| row.text.len() <= TEXT_BYTES_MAX));
        let other = told.iter().filter(|row| &*row.text == OTHER_TEXT);
        let of_outcome: Vec<_> = other.map(|row| row.outcome).collect();
        assert!(
            of_outcome.contains(&Outcome::ApplicationError),
            "{of_outcome:?}"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = format!("{}{}", "x".repeat(TEXT_BYTES_MAX - 1), "ä");
        assert_eq!(cut(&text).len(), TEXT_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
