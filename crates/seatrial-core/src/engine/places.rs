//! Free places on connections: where the next request can go, and since when.
//!
//! A request needs a place on a connection and, when there is a bound on the requests that
//! may be outstanding at once, a permit. Both are handed out in the order in which they became
//! free. It does no input or output.

use std::collections::VecDeque;

use crate::units::Nanos;

/// Places of lost connections that may stay in the queue before it is swept.
const STALE_MAX: usize = 64;

/// A free place on a connection.
#[derive(Clone, Copy, Debug)]
struct Place {
    connection: u32,
    /// Which life of the connection it belongs to.
    life: u32,
    free_at: Nanos,
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
    owners: Vec<Owner>,
    stale_count: usize,
    /// When each free permit became free; `None` without a bound.
    permits: Option<VecDeque<Nanos>>,
}

impl Places {
    /// No place yet; at most `outstanding_max` requests will have one at once.
    pub fn new(connections: usize, outstanding_max: Option<usize>) -> Self {
        Self {
            free: VecDeque::new(),
            owners: vec![Owner::default(); connections],
            stale_count: 0,
            permits: outstanding_max.map(|count| VecDeque::from(vec![Nanos::ZERO; count])),
        }
    }

    /// Room for this many places, so that none is made during the load.
    pub fn reserve(&mut self, count: usize) {
        self.free.reserve(count);
    }

    /// When the next request could have gone out; `None` when it cannot yet.
    pub fn oldest_free_at(&self) -> Option<Nanos> {
        let place = self.free.front()?;
        match &self.permits {
            None => Some(place.free_at),
            Some(permits) => permits.front().map(|free_at| place.free_at.max(*free_at)),
        }
    }

    /// Takes the place that waits longest: its connection, and since when it could be used.
    pub fn take(&mut self) -> Option<(u32, Nanos)> {
        let free_at = self.oldest_free_at()?;
        let place = self.free.pop_front()?;
        if let Some(permits) = &mut self.permits {
            let _ = permits.pop_front();
        }
        self.owners[place.connection as usize].free_count -= 1;
        self.trim();
        Some((place.connection, free_at))
    }

    /// Adds a place on a connection.
    pub fn add(&mut self, connection: u32, free_at: Nanos) {
        let owner = &mut self.owners[connection as usize];
        owner.free_count += 1;
        self.free.push_back(Place {
            connection,
            life: owner.life,
            free_at,
        });
    }

    /// Gives back what allowed a request to be outstanding.
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
        if self.stale_count > STALE_MAX + self.free.len() / 2 {
            let owners = &self.owners;
            self.free
                .retain(|place| owners[place.connection as usize].life == place.life);
            self.stale_count = 0;
        }
    }

    /// Drops places of lost connections from the front.
    fn trim(&mut self) {
        while self.stale_count > 0 {
            match self.free.front() {
                Some(place) if self.owners[place.connection as usize].life != place.life => {
                    let _ = self.free.pop_front();
                    self.stale_count -= 1;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_that_waits_longest_is_taken_first() {
        let mut places = Places::new(2, None);
        assert_eq!(places.take(), None);
        places.add(1, Nanos::new(5));
        places.add(0, Nanos::new(7));
        assert_eq!(places.oldest_free_at(), Some(Nanos::new(5)));
        assert_eq!(places.take(), Some((1, Nanos::new(5))));
        assert_eq!(places.take(), Some((0, Nanos::new(7))));
        assert_eq!(places.take(), None);
    }

    #[test]
    fn a_bound_holds_requests_back_until_another_has_ended() {
        let mut places = Places::new(1, Some(1));
        places.add(0, Nanos::new(1));
        places.add(0, Nanos::new(2));
        assert_eq!(places.take(), Some((0, Nanos::new(1))));
        assert_eq!(
            places.oldest_free_at(),
            None,
            "a place is free, but no permit"
        );
        places.give_back_permit(Nanos::new(9));
        assert_eq!(places.take(), Some((0, Nanos::new(9))));
    }

    #[test]
    fn places_of_a_lost_connection_are_gone() {
        let mut places = Places::new(2, None);
        for round in 0..1_000 {
            places.add(0, Nanos::new(round));
            places.add(1, Nanos::new(round));
            places.revoke(0);
            assert!(places.free.len() <= 2_000 / 2 + 2 * STALE_MAX + 1_000);
        }
        for round in 0..1_000 {
            assert_eq!(places.take(), Some((1, Nanos::new(round))));
        }
        assert_eq!(places.take(), None);
        assert_eq!((places.free.len(), places.stale_count), (0, 0));
    }
}
