//! The bound over all streams.

use std::time::Duration;

use super::{Fixture, Make, SESSION, STREAM, id, sequences, small};
use crate::{AppendError, Class, Delivery, EventId, Limits, ReadError, StreamNumber};

pub(super) async fn check(make: Make<'_>) {
    the_total_bound_takes_finished_streams_first(make).await;
    the_total_bound_takes_the_oldest_notifications(make).await;
    the_total_bound_takes_the_oldest_responses_last(make).await;
    a_server_request_that_has_no_room_is_refused(make).await;
    a_notification_pushes_out_nothing_that_is_kept(make).await;
    a_settled_request_may_go(make).await;
    what_is_under_way_needs_no_room(make).await;
    a_crowded_reader_is_waited_for(make).await;
    a_delivered_stream_rests_before_it_goes(make).await;
}

/// Bounds that the overhead of a few streams does not matter to.
fn wide() -> Limits {
    Limits {
        stream_bytes: 500_000,
        total_bytes: 1_000_000,
        ..small()
    }
}

async fn the_total_bound_takes_finished_streams_first(make: Make<'_>) {
    let mut f = Fixture::new(
        make,
        Limits {
            stream_bytes: 600_000,
            total_bytes: 1_000_000,
            ..small()
        },
    );
    let done = StreamNumber(1);
    f.append(done, Class::Response, 500_000)
        .await
        .expect("append");
    let cursor = EventId::start(done);
    f.log
        .read(SESSION, cursor, usize::MAX, f.now)
        .await
        .expect("read");
    f.log.finish(SESSION, done, f.now).await;
    f.now += Duration::from_secs(31);
    f.note(300_000).await;
    assert_eq!(f.log.usage().streams_given_up, 0, "there is room");
    f.note(290_000).await;
    assert_eq!(f.log.usage().streams_given_up, 1);
    assert_eq!(
        sequences(&f.read(0).await),
        [1, 2],
        "the live stream kept all"
    );
    let gone = f.log.read(SESSION, cursor, usize::MAX, f.now).await;
    assert_eq!(gone, Err(ReadError::Unknown));
}

async fn the_total_bound_takes_the_oldest_notifications(make: Make<'_>) {
    let f = Fixture::new(make, wide());
    let other = StreamNumber(9);
    for stream in [other, STREAM, other, STREAM] {
        let appended = f.append(stream, Class::Notification, 240_000).await;
        appended.expect("append");
    }
    f.log.attach(SESSION, STREAM, 1).await;
    let last = f.append(StreamNumber(10), Class::Notification, 240_000);
    last.await.expect("append");
    let page = |stream, sequence| {
        let cursor = EventId { stream, sequence };
        f.log.read(SESSION, cursor, usize::MAX, f.now)
    };
    let page_of_other = page(other, 0).await.expect("read");
    assert_eq!(sequences(&page_of_other), [2], "its oldest went");
    assert_eq!(sequences(&page(STREAM, 0).await.expect("read")), [1, 2]);
    assert_eq!(f.log.usage().notifications_given_up, 1);
}

fn in_stream(stream: u64, sequence: u64) -> EventId {
    EventId {
        stream: StreamNumber(stream),
        sequence,
    }
}

/// Streams 1, 2 and 4, each with an undelivered response that takes 30 % of the bound, finished.
async fn crowded(make: Make<'_>) -> Fixture {
    let f = Fixture::new(make, wide());
    for stream in [1, 2, 4] {
        let stream = StreamNumber(stream);
        let appended = f.append(stream, Class::Response, 300_000).await;
        appended.expect("append");
        f.log.finish(SESSION, stream, f.now).await;
    }
    f
}

async fn the_total_bound_takes_the_oldest_responses_last(make: Make<'_>) {
    let f = crowded(make).await;
    f.note(90_000).await;
    let batch = StreamNumber(8);
    let more = async |stream, size| {
        let appended = f.append(stream, Class::Response, size).await;
        appended.expect("append");
    };
    more(batch, 90_000).await;
    let usage = f.log.usage();
    assert_eq!(
        (usage.notifications_given_up, usage.responses_given_up),
        (1, 0)
    );
    more(batch, 290_000).await;
    let usage = f.log.usage();
    assert_eq!((usage.streams_given_up, usage.responses_given_up), (1, 1));
    let read = |cursor| f.log.read(SESSION, cursor, usize::MAX, f.now);
    assert_eq!(
        read(in_stream(1, 0)).await,
        Err(ReadError::Unknown),
        "the oldest"
    );
    assert!(f.log.holds(SESSION, in_stream(2, 1)).await);
    more(StreamNumber(9), 990_000).await;
    let page = read(in_stream(8, 0)).await.expect("its stream goes on");
    assert_eq!((page.records.len(), page.missed), (0, 2));
    assert_eq!(f.log.usage().responses_given_up, 5);
    assert!(f.log.holds(SESSION, in_stream(9, 1)).await);
}

async fn a_server_request_that_has_no_room_is_refused(make: Make<'_>) {
    let f = crowded(make).await;
    let ask = async |size| f.append(STREAM, Class::ServerRequest, size).await;
    assert_eq!(ask(50_000).await, Ok(id(1)));
    assert_eq!(ask(60_000).await, Err(AppendError::NoRoom));
    assert_eq!(ask(40_000).await, Ok(id(2)), "it got no id");
    assert_eq!(f.log.usage().responses_given_up, 0);
    f.append(StreamNumber(9), Class::Response, 990_000)
        .await
        .expect("append");
    assert!(f.log.lost(SESSION, id(1)).await && f.log.lost(SESSION, id(2)).await);
}

async fn a_notification_pushes_out_nothing_that_is_kept(make: Make<'_>) {
    let f = crowded(make).await;
    f.append(STREAM, Class::ServerRequest, 90_000)
        .await
        .expect("append");
    assert_eq!(f.note(90_000).await, id(2));
    assert!(!f.log.holds(SESSION, id(2)).await, "it found no room");
    let usage = f.log.usage();
    assert_eq!((usage.bytes, usage.notifications_given_up), (990_000, 1));
    assert_eq!(usage.streams_given_up, 0);
}

async fn a_settled_request_may_go(make: Make<'_>) {
    let f = crowded(make).await;
    for size in [30_000, 30_000, 10_000] {
        f.append(STREAM, Class::ServerRequest, size)
            .await
            .expect("append");
    }
    let response = in_stream(2, 1);
    for settled in [id(2), id(9), response] {
        f.log.settle(SESSION, settled).await;
    }
    let page = f.read(0).await;
    assert_eq!(sequences(&page), [1, 2, 3], "until its room is needed");
    let next = f.append(STREAM, Class::ServerRequest, 50_000).await;
    assert_eq!(next, Ok(id(4)));
    let page = f.read(0).await;
    assert_eq!((sequences(&page), page.missed), (vec![1, 3, 4], 1));
    assert!(f.log.holds(SESSION, response).await);
}

async fn what_is_under_way_needs_no_room(make: Make<'_>) {
    let f = crowded(make).await;
    for class in [Class::ServerRequest, Class::Notification] {
        f.append(STREAM, Class::ServerRequest, 30_000)
            .await
            .expect("append");
        let live = f.deliver(STREAM, class, 200_000, Delivery::Live).await;
        assert!(live.is_ok_and(|id| id.sequence > 0));
    }
    assert_eq!(f.log.usage().notifications_given_up, 0);
    assert_eq!(f.log.usage().streams_given_up, 0);
    let page = f.read(0).await;
    assert_eq!((sequences(&page), page.missed), (vec![1, 3], 2));
}

async fn a_crowded_reader_is_waited_for(make: Make<'_>) {
    let f = crowded(make).await;
    f.log.open(SESSION, STREAM, f.now).await;
    f.log.attach(SESSION, STREAM, 1).await;
    assert_eq!(
        f.note(200_000).await,
        id(1),
        "for who is there before who is gone"
    );
    assert_eq!(f.log.usage().streams_given_up, 1);
    for class in [Class::Notification, Class::ServerRequest] {
        let full = f.append(STREAM, class, 250_000).await;
        assert_eq!(full, Err(AppendError::Full), "one at a time");
    }
    assert_eq!(sequences(&f.read(0).await), [1]);
    assert_eq!(f.note(250_000).await, id(2));
    assert_eq!(f.log.usage().notifications_given_up, 0);

    let (other, left) = (StreamNumber(5), StreamNumber(6));
    f.log.open(SESSION, other, f.now).await;
    f.log.attach(SESSION, other, 1).await;
    f.append(left, Class::ServerRequest, 100_000)
        .await
        .expect("append");
    assert_eq!(
        f.append(other, Class::Notification, 700_000).await,
        Ok(in_stream(5, 1))
    );
    assert!(
        f.log.lost(SESSION, in_stream(6, 1)).await,
        "nobody reads it"
    );
    let read = f
        .log
        .read(SESSION, in_stream(5, 0), usize::MAX, f.now)
        .await;
    read.expect("read");

    let full = f.append(other, Class::Response, 900_000).await;
    assert_eq!(full, Err(AppendError::Full), "the other has not read");
    f.read(1).await;
    assert_eq!(
        f.append(other, Class::Response, 900_000).await,
        Ok(in_stream(5, 2))
    );
}

async fn a_delivered_stream_rests_before_it_goes(make: Make<'_>) {
    let mut f = Fixture::new(make, wide());
    let done = StreamNumber(1);
    f.append(done, Class::Response, 450_000)
        .await
        .expect("append");
    f.log.finish(SESSION, done, f.now).await;
    let cursor = EventId::start(done);
    let read = f.log.read(SESSION, cursor, usize::MAX, f.now).await;
    read.expect("read");
    f.note(300_000).await;
    f.note(100_000).await;
    f.now += Duration::from_secs(29);
    f.append(StreamNumber(4), Class::Response, 300_000)
        .await
        .expect("append");
    assert_eq!(f.log.usage().streams_given_up, 0, "notifications go first");
    assert_eq!(f.log.usage().notifications_given_up, 1);
    f.append(StreamNumber(5), Class::Response, 400_000)
        .await
        .expect("append");
    assert_eq!(
        f.log.usage().streams_given_up,
        1,
        "the bound comes before the rest"
    );
}
