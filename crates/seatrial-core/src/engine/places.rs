//! Free places on connections: where the next request can go, and since when.
//!
//! A request needs a place on a connection and, when there is a bound on the requests that
//! may be outstanding at once, a permit. Both are handed out in the order in which they became
//! free; a place whose user still thinks becomes free when that is over. It does no input or output.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::units::Nanos;

/// Places of lost connections that may stay in the queue before it is swept.
const STALE_MAX: usize = 64;

/// Free places on a connection that became free at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    free_at: Nanos,
    connection: u32,
    /// Which life of the connection it belongs to.
    life: u32,
    count: u32,
}

impl Place {
    /// Whether both are free on the same connection since the same instant.
    fn is_like(&self, other: &Self) -> bool {
        (self.connection, self.life, self.free_at) == (other.connection, other.life, other.free_at)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    life: u32,
    free_count: u32,
}

/// The free places of one thread.
#[derive(Debug)]
pub(super) struct Places {
    /// The one that waits longest in front, which is never one of a lost connection.
    free: VecDeque<Place>,
    /// Places that will be free later; the same holds for its top.
    thinking: BinaryHeap<Reverse<Place>>,
    owners: Vec<Owner>,
    stale_count: usize,
    /// Whether places that become free at the same instant are kept together.
    is_grouped: bool,
    /// When each free permit became free; `None` without a bound.
    permits: Option<VecDeque<Nanos>>,
}

impl Places {
    /// No place yet; at most `outstanding_max` requests will have one at once.
    ///
    /// With `is_grouped`, which goes with no such bound, [`Places::take`] can hand out several at once.
    pub fn new(connections: usize, outstanding_max: Option<usize>, is_grouped: bool) -> Self {
        Self {
            free: VecDeque::new(),
            thinking: BinaryHeap::new(),
            owners: vec![Owner::default(); connections],
            stale_count: 0,
            is_grouped: is_grouped && outstanding_max.is_none(),
            permits: outstanding_max.map(|count| VecDeque::from(vec![Nanos::ZERO; count])),
        }
    }

    /// Room for this many places, so that none is made during the load.
    pub fn reserve(&mut self, count: usize) {
        self.free.reserve(count);
    }

    /// When the next request could have gone out; `None` when it cannot yet.
    #[inline]
    pub fn oldest_free_at(&self) -> Option<Nanos> {
        let place = self.next()?;
        match &self.permits {
            None => Some(place.free_at),
            Some(permits) => permits.front().map(|free_at| place.free_at.max(*free_at)),
        }
    }

    /// How many places wait longest, all on one connection and since the same instant.
    #[inline]
    pub fn oldest_count(&self) -> u32 {
        match self.free.front() {
            Some(place) if self.is_grouped && self.thinking.is_empty() => place.count,
            _ => 1,
        }
    }

    /// Takes the place that waits longest, or `count` of them, at most [`Places::oldest_count`]: their
    /// connection, and since when they could be used.
    #[inline]
    pub fn take(&mut self, count: u32) -> Option<(u32, Nanos)> {
        let free_at = self.oldest_free_at()?;
        let place = if self.is_next_thinking() {
            self.thinking.pop()?.0
        } else {
            let place = self.free.front_mut()?;
            let taken = *place;
            place.count -= count;
            if place.count == 0 {
                let _ = self.free.pop_front();
            }
            taken
        };
        if let Some(permits) = &mut self.permits {
            let _ = permits.pop_front();
        }
        self.owners[place.connection as usize].free_count -= count;
        self.trim();
        Some((place.connection, free_at))
    }

    /// Adds a place on a connection that nobody uses from `free_at` on, and that is free when
    /// its user has thought for this long.
    #[inline]
    pub fn add(&mut self, connection: u32, free_at: Nanos, think: Nanos) {
        if think == Nanos::ZERO {
            self.add_run(connection, 1, free_at);
            return;
        }
        let owner = &mut self.owners[connection as usize];
        owner.free_count += 1;
        self.thinking.push(Reverse(Place {
            connection,
            life: owner.life,
            free_at: free_at.later_by(think),
            count: 1,
        }));
    }

    /// Adds so many places on a connection that are free from `free_at` on; more than one only
    /// where they are grouped.
    #[inline]
    pub fn add_run(&mut self, connection: u32, count: u32, free_at: Nanos) {
        let owner = &mut self.owners[connection as usize];
        owner.free_count += count;
        let place = Place {
            connection,
            life: owner.life,
            free_at,
            count,
        };
        match self.free.back_mut() {
            Some(last) if self.is_grouped && last.is_like(&place) => last.count += count,
            _ => self.free.push_back(place),
        }
    }

    #[inline]
    fn next(&self) -> Option<Place> {
        let thinking = self.thinking.peek().map(|Reverse(place)| *place);
        match (self.free.front(), thinking) {
            (Some(free), Some(thinking)) => Some((*free).min(thinking)),
            (free, thinking) => free.copied().or(thinking),
        }
    }

    #[inline]
    fn is_next_thinking(&self) -> bool {
        let is_earlier = |thinking: &Reverse<Place>| {
            let front = self.free.front();
            front.is_none_or(|free| thinking.0 < *free)
        };
        self.thinking.peek().is_some_and(is_earlier)
    }

    /// Gives back what allowed a request to be outstanding.
    #[inline]
    pub fn give_back_permit(&mut self, free_at: Nanos) {
        if let Some(permits) = &mut self.permits {
            permits.push_back(free_at);
        }
    }

    /// Takes all free places of a connection away.
    pub fn revoke(&mut self, connection: u32) {
        let owner = &mut self.owners[connection as usize];
        owner.life = owner.life.wrapping_add(1);
        self.stale_count += std::mem::take(&mut owner.free_count) as usize;
        self.trim();
        if self.stale_count > STALE_MAX + usize::midpoint(self.free.len(), self.thinking.len()) {
            let owners = &self.owners;
            let is_valid = |place: &Place| owners[place.connection as usize].life == place.life;
            self.free.retain(is_valid);
            self.thinking.retain(|Reverse(place)| is_valid(place));
            self.stale_count = 0;
        }
    }

    /// Drops places of lost connections from the front.
    #[inline]
    fn trim(&mut self) {
        if self.stale_count > 0 {
            self.trim_stale();
        }
    }

    #[cold]
    fn trim_stale(&mut self) {
        let owners = &self.owners;
        let is_stale = |place: &Place| owners[place.connection as usize].life != place.life;
        while self.stale_count > 0 {
            let dropped = if self.free.front().is_some_and(is_stale) {
                self.free.pop_front()
            } else if (self.thinking.peek()).is_some_and(|Reverse(place)| is_stale(place)) {
                self.thinking.pop().map(|Reverse(place)| place)
            } else {
                return;
            };
            self.stale_count -= dropped.map_or(0, |place| place.count as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_that_waits_longest_is_taken_first() {
        let mut places = Places::new(2, None, false);
        assert_eq!(places.take(1), None);
        places.add(1, Nanos::new(5), Nanos::ZERO);
        places.add(0, Nanos::new(7), Nanos::ZERO);
        assert_eq!(places.oldest_free_at(), Some(Nanos::new(5)));
        assert_eq!(places.take(1), Some((1, Nanos::new(5))));
        assert_eq!(places.take(1), Some((0, Nanos::new(7))));
        assert_eq!(places.take(1), None);
    }

    #[test]
    fn a_bound_holds_requests_back_until_another_has_ended() {
        let mut places = Places::new(1, Some(1), false);
        places.add(0, Nanos::new(1), Nanos::ZERO);
        places.add(0, Nanos::new(2), Nanos::ZERO);
        assert_eq!(places.take(1), Some((0, Nanos::new(1))));
        assert_eq!(
            places.oldest_free_at(),
            None,
            "a place is free, but no permit"
        );
        places.give_back_permit(Nanos::new(9));
        assert_eq!(places.take(1), Some((0, Nanos::new(9))));
    }

    #[test]
    fn places_of_a_lost_connection_are_gone() {
        let mut places = Places::new(2, None, false);
        for round in 0..1_000 {
            places.add(0, Nanos::new(round), Nanos::ZERO);
            places.add(1, Nanos::new(round), Nanos::ZERO);
            places.revoke(0);
            assert!(places.free.len() <= 2_000 / 2 + 2 * STALE_MAX + 1_000);
        }
        for round in 0..1_000 {
            assert_eq!(places.take(1), Some((1, Nanos::new(round))));
        }
        assert_eq!(places.take(1), None);
        assert_eq!((places.free.len(), places.stale_count), (0, 0));
    }

    #[test]
    fn a_place_is_free_when_its_user_has_thought() {
        let mut places = Places::new(3, None, false);
        places.add(0, Nanos::new(10), Nanos::new(90));
        places.add(1, Nanos::new(20), Nanos::new(5));
        places.add(2, Nanos::new(30), Nanos::ZERO);
        places.revoke(1);
        assert_eq!(places.take(1), Some((2, Nanos::new(30))));
        assert_eq!(places.take(1), Some((0, Nanos::new(100))));
        assert_eq!(places.take(1), None);
    }

    #[test]
    fn places_that_became_free_at_once_are_handed_out_at_once() {
        let mut places = Places::new(2, None, true);
        let at = Nanos::new;
        places.add_run(0, 2, at(5));
        places.add(0, at(5), Nanos::ZERO);
        places.add(1, at(5), Nanos::ZERO);
        places.add(0, at(6), Nanos::ZERO);
        assert_eq!(places.oldest_count(), 3);
        assert_eq!(places.take(2), Some((0, at(5))));
        assert_eq!(
            (places.oldest_count(), places.oldest_free_at()),
            (1, Some(at(5)))
        );
        places.revoke(0);
        assert_eq!(places.take(1), Some((1, at(5))));
        assert_eq!((places.take(1), places.stale_count), (None, 0));
    }

    #[test]
    fn places_are_handed_out_one_by_one_where_each_has_its_own_story() {
        let mut bounded = Places::new(1, Some(2), true);
        let mut single = Places::new(1, None, false);
        let mut thinking = Places::new(1, None, true);
        for places in [&mut bounded, &mut single, &mut thinking] {
            places.add(0, Nanos::new(5), Nanos::ZERO);
            places.add(0, Nanos::new(5), Nanos::ZERO);
        }
        thinking.add(0, Nanos::new(1), Nanos::new(1));
        for places in [&mut bounded, &mut single, &mut thinking] {
            assert_eq!(places.oldest_count(), 1);
        }
        assert_eq!(thinking.take(1), Some((0, Nanos::new(2))));
        assert_eq!(thinking.take(2), Some((0, Nanos::new(5))));
    }
}
