use super::*;

fn flight(request_id: u64, connection: u32, intended_at: u64) -> Flight {
    let scheduled = Scheduled {
        request_id,
        intended_at: Nanos::new(intended_at),
        demand: Nanos::ZERO,
    };
    Flight::new(scheduled, Phase::Measure, connection, Nanos::ZERO)
}

fn due_ids(flights: &mut Flights) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some((at, _)) = flights.first_due() {
        ids.push(flights.expire(at).scheduled.request_id);
    }
    ids
}

#[test]
fn lists_stay_whole_when_flights_leave_from_anywhere() {
    let mut flights = Flights::new(ReplyOrder::ById, 100, Nanos::new(7), 1);
    let mut ends = [Ends::default(); 2];
    for id in 0..10u64 {
        let connection = u32::try_from(id % 2).unwrap();
        let to = &mut ends[connection as usize];
        flights.push(to, flight(id, connection, 100 + id));
    }
    for id in [4, 0, 9] {
        let connection = u32::try_from(id % 2).unwrap();
        assert_eq!(
            flights.find(1 - connection, id),
            None,
            "the other connection"
        );
        let at = flights.find(connection, id).unwrap();
        let left = flights.remove(&mut ends[connection as usize], at);
        assert_eq!(left.scheduled.request_id, id);
        assert_eq!(flights.find(connection, id), None);
    }
    flights.push(&mut ends[0], flight(10, 0, 102));
    let mut of_first = Vec::new();
    let mut copy = ends[0];
    assert_eq!(flights.back(copy).unwrap().scheduled.request_id, 10);
    assert_eq!(due_ids(&mut flights), [1, 2, 10, 3, 5, 6, 7, 8]);
    while let Some(flight) = flights.pop_front(&mut copy, 1) {
        of_first.push(flight.scheduled.request_id);
    }
    assert_eq!(of_first, [2, 6, 8, 10]);
    assert!(flights.front(copy).is_none());
}

#[test]
fn only_what_was_not_sent_is_stamped() {
    let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 1);
    let mut ends = Ends::default();
    let mut last = 0;
    for (count, at) in [(1, 5), (2, 6)] {
        for _ in 0..count {
            flights.push(&mut ends, flight(last, 0, 10));
            last += 1;
        }
        assert_eq!(flights.stamp(ends, Nanos::new(at)), count);
    }
    let mut stamps = Vec::new();
    while let Some(flight) = flights.pop_front(&mut ends, 1) {
        stamps.push(flight.sent_at().unwrap().get());
    }
    assert_eq!(stamps, [5, 6, 6]);
}

#[test]
fn a_flight_is_due_its_time_out_after_it_was_intended() {
    let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 1);
    let mut ends = Ends::default();
    for (id, at) in [(0, 20), (1, 10)] {
        flights.push(&mut ends, flight(id, 0, at));
    }
    assert_eq!(flights.first_due(), Some((1, Nanos::new(17))));
}

#[test]
fn requests_leave_a_flight_of_several_from_its_front() {
    let mut flights = Flights::new(ReplyOrder::Fifo, 100, Nanos::new(7), 3);
    let mut ends = Ends::default();
    flights.push(&mut ends, flight(1, 0, 10).times(5));
    flights.push(&mut ends, flight(16, 0, 11));
    assert_eq!(flights.stamp(ends, Nanos::new(12)), 6);
    let ids = |flight: Flight| -> Vec<u64> {
        flight.each(3).map(|one| one.scheduled.request_id).collect()
    };
    assert_eq!(ids(flights.pop_front(&mut ends, 2).unwrap()), [1, 4]);
    assert_eq!(flights.front(ends).unwrap().scheduled.request_id, 7);
    let (at, deadline) = flights.first_due().unwrap();
    assert_eq!(
        deadline,
        Nanos::new(17),
        "what is left has the same deadline"
    );
    assert_eq!(ids(flights.take(&mut ends, at, 1)), [7]);
    assert_eq!(ids(flights.pop_front(&mut ends, 9).unwrap()), [10, 13]);
    assert_eq!(ids(flights.pop_front(&mut ends, 9).unwrap()), [16]);
    assert!(flights.pop_front(&mut ends, 9).is_none());
}
