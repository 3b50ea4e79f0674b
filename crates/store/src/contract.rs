//! The contract of [`EventLog`] as a test suite: every backend runs [`check`] in its own tests.
//!
//! The checks panic on a violation, as tests do.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod total;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    AppendError, Class, Delivery, EventId, EventLog, Limits, Page, ReadError, SessionKey,
    StreamNumber,
};

/// Makes an empty log with the given bounds.
pub type Make<'a> = &'a (dyn Fn(Limits) -> Arc<dyn EventLog> + Sync);

const SESSION: SessionKey = SessionKey(7);
const STREAM: StreamNumber = StreamNumber(3);

/// Runs every check of the contract against logs made by `make`.
///
/// # Panics
/// On the first violation.
pub async fn check(make: Make<'_>) {
    ids_are_consecutive_and_reads_exclusive(make).await;
    the_start_of_an_open_stream_can_be_read(make).await;
    unknown_cursors_are_refused(make).await;
    sessions_do_not_see_each_other(make).await;
    a_full_stream_gives_up_its_oldest_notifications(make).await;
    responses_and_server_requests_stay(make).await;
    an_attached_reader_makes_appends_wait(make).await;
    one_large_record_is_kept_alone(make).await;
    tiny_records_are_bounded_too(make).await;
    time_to_live_ends_everything(make).await;
    a_finished_stream_takes_no_more(make).await;
    a_page_is_bounded(make).await;
    a_gap_is_told_once(make).await;
    a_replaced_reader_has_no_say(make).await;
    what_was_delivered_goes_before_an_append_waits(make).await;
    a_lost_request_is_told_from_one_that_was_read(make).await;
    a_log_tells_what_it_holds(make).await;
    nothing_is_kept_before_the_first_event(make).await;
    total::check(make).await;
}

struct Fixture {
    log: Arc<dyn EventLog>,
    now: Instant,
    total_bytes: usize,
}

impl Fixture {
    fn new(make: Make<'_>, limits: Limits) -> Self {
        Self {
            log: make(limits),
            now: Instant::now(),
            total_bytes: limits.total_bytes,
        }
    }

    async fn append(
        &self,
        stream: StreamNumber,
        class: Class,
        size: usize,
    ) -> Result<EventId, AppendError> {
        self.deliver(stream, class, size, Delivery::Pending).await
    }

    /// Whatever comes, the total bound holds.
    async fn deliver(
        &self,
        stream: StreamNumber,
        class: Class,
        size: usize,
        delivery: Delivery,
    ) -> Result<EventId, AppendError> {
        let payload = Bytes::from(vec![b'x'; size]);
        let appended = self
            .log
            .append(SESSION, stream, class, payload, delivery, self.now)
            .await;
        assert!(self.log.usage().bytes <= self.total_bytes, "{size} more");
        appended
    }

    async fn note(&self, size: usize) -> EventId {
        self.append(STREAM, Class::Notification, size)
            .await
            .expect("append")
    }

    async fn read(&self, sequence: u64) -> Page {
        self.log
            .read(SESSION, id(sequence), usize::MAX, self.now)
            .await
            .expect("read")
    }
}

fn id(sequence: u64) -> EventId {
    EventId {
        stream: STREAM,
        sequence,
    }
}

fn small() -> Limits {
    Limits {
        stream_bytes: 100,
        total_bytes: 2000,
        record_bytes: 0,
        ttl: Duration::from_secs(300),
    }
}

fn sequences(page: &Page) -> Vec<u64> {
    page.records
        .iter()
        .map(|record| record.id.sequence)
        .collect()
}

async fn ids_are_consecutive_and_reads_exclusive(make: Make<'_>) {
    let f = Fixture::new(make, small());
    for expected in 1..=4 {
        assert_eq!(f.note(1).await, id(expected));
    }
    assert_eq!(sequences(&f.read(0).await), [1, 2, 3, 4]);
    assert_eq!(sequences(&f.read(2).await), [3, 4]);
    assert_eq!(sequences(&f.read(4).await), [0; 0]);
    assert_eq!(
        sequences(&f.read(1).await),
        [2, 3, 4],
        "a replay can be repeated"
    );
}

async fn the_start_of_an_open_stream_can_be_read(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.log.open(SESSION, STREAM, f.now).await;
    let page = f.read(0).await;
    assert!(page.records.is_empty() && !page.finished);
}

async fn unknown_cursors_are_refused(make: Make<'_>) {
    let f = Fixture::new(make, small());
    let read = |cursor| f.log.read(SESSION, cursor, usize::MAX, f.now);
    assert_eq!(read(id(0)).await, Err(ReadError::Unknown), "never opened");
    f.note(1).await;
    assert_eq!(read(id(2)).await, Err(ReadError::Unknown), "not issued yet");
    let other = EventId {
        stream: StreamNumber(4),
        sequence: 0,
    };
    assert_eq!(read(other).await, Err(ReadError::Unknown), "another stream");
}

async fn sessions_do_not_see_each_other(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.note(1).await;
    let other = f.log.read(SessionKey(8), id(0), usize::MAX, f.now).await;
    assert_eq!(other, Err(ReadError::Unknown));
    f.log.forget(SESSION).await;
    let gone = f.log.read(SESSION, id(0), usize::MAX, f.now).await;
    assert_eq!(gone, Err(ReadError::Unknown));
    assert_eq!((f.log.usage().bytes, f.log.usage().streams), (0, 0));
}

async fn a_full_stream_gives_up_its_oldest_notifications(make: Make<'_>) {
    let f = Fixture::new(make, small());
    for _ in 0..5 {
        f.note(40).await;
    }
    let page = f.read(0).await;
    assert_eq!(sequences(&page), [4, 5]);
    assert_eq!(page.missed, 3, "the gap is told");
    assert_eq!(f.log.usage().notifications_given_up, 3);
    assert_eq!(f.log.usage().bytes, 80);
}

async fn responses_and_server_requests_stay(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.append(STREAM, Class::ServerRequest, 40)
        .await
        .expect("append");
    for _ in 0..4 {
        f.note(40).await;
    }
    f.append(STREAM, Class::Response, 90).await.expect("append");
    let page = f.read(0).await;
    assert_eq!(sequences(&page), [1, 6]);
    assert_eq!(page.missed, 4);
}

async fn an_attached_reader_makes_appends_wait(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.note(60).await;
    f.log.attach(SESSION, STREAM, 1).await;
    assert_eq!(
        f.append(STREAM, Class::Notification, 60).await,
        Err(AppendError::Full)
    );
    assert_eq!(sequences(&f.read(0).await), [1]);
    assert_eq!(
        f.append(STREAM, Class::Notification, 60).await,
        Ok(id(2)),
        "room after the read"
    );
    assert_eq!(f.log.usage().notifications_given_up, 0);
}

async fn one_large_record_is_kept_alone(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.note(10).await;
    f.append(STREAM, Class::Response, 500)
        .await
        .expect("append");
    let page = f.read(0).await;
    assert_eq!(sequences(&page), [2]);
    assert_eq!(page.records[0].payload.len(), 500);
}

async fn tiny_records_are_bounded_too(make: Make<'_>) {
    let f = Fixture::new(
        make,
        Limits {
            record_bytes: 30,
            ..small()
        },
    );
    for _ in 0..3 {
        f.note(10).await;
    }
    assert_eq!(sequences(&f.read(0).await), [2, 3]);
    assert_eq!(f.log.usage().bytes, 80);
    assert_eq!(f.log.usage().notifications_given_up, 1);
}

async fn time_to_live_ends_everything(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.append(STREAM, Class::Response, 10).await.expect("append");
    f.log.expire(f.now + Duration::from_secs(299)).await;
    assert_eq!(f.log.usage().bytes, 10);
    f.log.expire(f.now + Duration::from_secs(300)).await;
    assert_eq!((f.log.usage().bytes, f.log.usage().expired_unread), (0, 1));
    let page = f.read(0).await;
    assert_eq!((page.records.len(), page.missed), (0, 1), "the gap is told");
    f.log.finish(SESSION, STREAM, f.now).await;
    f.log.expire(f.now + Duration::from_secs(300)).await;
    assert_eq!(f.log.usage().streams, 0);
}

async fn a_finished_stream_takes_no_more(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.append(STREAM, Class::Response, 10).await.expect("append");
    f.log.finish(SESSION, STREAM, f.now).await;
    assert_eq!(
        f.append(STREAM, Class::Notification, 1).await,
        Err(AppendError::Closed)
    );
    assert!(f.read(0).await.finished);
    assert!(f.read(1).await.finished);
}

async fn a_page_is_bounded(make: Make<'_>) {
    let f = Fixture::new(make, small());
    for _ in 0..3 {
        f.note(30).await;
    }
    f.log.finish(SESSION, STREAM, f.now).await;
    let page = f.log.read(SESSION, id(0), 60, f.now).await.expect("read");
    assert_eq!((sequences(&page), page.finished), (vec![1, 2], false));
    let page = f.log.read(SESSION, id(2), 1, f.now).await.expect("read");
    assert_eq!(
        (sequences(&page), page.finished),
        (vec![3], true),
        "at least one record"
    );
}

async fn a_gap_is_told_once(make: Make<'_>) {
    let f = Fixture::new(make, small());
    for _ in 0..5 {
        f.note(40).await;
    }
    let page = f.log.read(SESSION, id(0), 1, f.now).await.expect("read");
    assert_eq!((sequences(&page), page.missed), (vec![4], 3));
    assert_eq!(page.position, id(4));
    f.log.expire(f.now + small().ttl).await;
    let page = f.read(4).await;
    assert_eq!((page.missed, page.position), (1, id(5)));
    let page = f.read(5).await;
    assert_eq!((page.missed, page.position), (0, id(5)));
}

async fn a_replaced_reader_has_no_say(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.note(60).await;
    f.log.attach(SESSION, STREAM, 2).await;
    f.log.attach(SESSION, STREAM, 1).await;
    f.log.detach(SESSION, STREAM, 1).await;
    let full = f.append(STREAM, Class::Notification, 60).await;
    assert_eq!(full, Err(AppendError::Full), "the second is in charge");
    f.log.detach(SESSION, STREAM, 2).await;
    f.log.attach(SESSION, STREAM, 2).await;
    assert_eq!(f.append(STREAM, Class::Notification, 60).await, Ok(id(2)));
    assert_eq!(f.log.usage().notifications_given_up, 1);
}

async fn what_was_delivered_goes_before_an_append_waits(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.note(40).await;
    f.note(40).await;
    f.log.attach(SESSION, STREAM, 1).await;
    f.log.read(SESSION, id(0), 1, f.now).await.expect("read");
    assert_eq!(f.append(STREAM, Class::Response, 60).await, Ok(id(3)));
    assert_eq!(sequences(&f.read(1).await), [2, 3]);
    assert_eq!(f.log.usage().notifications_given_up, 0);
}

async fn a_lost_request_is_told_from_one_that_was_read(make: Make<'_>) {
    let f = Fixture::new(make, small());
    for _ in 0..2 {
        f.append(STREAM, Class::ServerRequest, 10)
            .await
            .expect("append");
    }
    f.log.read(SESSION, id(0), 1, f.now).await.expect("read");
    let lost = async || {
        [
            f.log.lost(SESSION, id(1)).await,
            f.log.lost(SESSION, id(2)).await,
        ]
    };
    assert_eq!(lost().await, [false, false]);
    f.log.expire(f.now + small().ttl).await;
    assert_eq!(lost().await, [false, true]);
    assert!(!f.log.lost(SESSION, id(3)).await, "never issued");
}

async fn a_log_tells_what_it_holds(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.append(STREAM, Class::ServerRequest, 30)
        .await
        .expect("append");
    f.note(40).await;
    f.note(60).await;
    for (sequence, held) in [(1, true), (2, false), (3, true), (4, false)] {
        assert_eq!(f.log.holds(SESSION, id(sequence)).await, held, "{sequence}");
    }
}

async fn nothing_is_kept_before_the_first_event(make: Make<'_>) {
    let f = Fixture::new(make, small());
    f.log.attach(SESSION, STREAM, 1).await;
    f.log.detach(SESSION, STREAM, 1).await;
    f.log.finish(SESSION, STREAM, f.now).await;
    f.log.forget(SESSION).await;
    assert!(f.log.read(SESSION, id(0), 1, f.now).await.is_err());
    assert!(!f.log.holds(SESSION, id(1)).await);
    assert_eq!((f.log.usage().bytes, f.log.usage().streams), (0, 0));
}
