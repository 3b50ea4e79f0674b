use std::sync::Arc;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn keeps_the_contract() {
    crate::contract::check(&|limits| Arc::new(MemoryLog::new(limits))).await;
}

#[tokio::test]
async fn usage_returns_to_nothing() {
    let log = MemoryLog::new(Limits::default());
    let (session, now) = (SessionKey(1), Instant::now());
    for stream in 1..50 {
        let stream = StreamNumber(stream);
        let payload = Bytes::from_static(b"{}");
        let appended = log
            .append(
                session,
                stream,
                Class::Response,
                payload,
                Delivery::Live,
                now,
            )
            .await;
        assert!(appended.is_ok());
        log.finish(session, stream, now).await;
    }
    log.forget(session).await;
    let usage = log.usage();
    assert_eq!((usage.bytes, usage.streams), (0, 0));
    assert_consistent(&log);
    assert!(log.inner.lock().sessions.is_empty());
}

#[tokio::test]
async fn a_small_record_does_not_keep_the_buffer_it_came_in() {
    let log = MemoryLog::new(Limits::default());
    let buffer = Bytes::from(vec![b' '; 8192]);
    let payload = buffer.slice(100..200);
    let (class, now) = (Class::Notification, Instant::now());
    let appended = log.append(
        SessionKey(1),
        StreamNumber(1),
        class,
        payload,
        Delivery::Pending,
        now,
    );
    assert!(appended.await.is_ok());
    assert!(buffer.is_unique());
    assert_eq!(log.usage().bytes, 100 + Limits::default().record_bytes);
}

#[derive(Debug, Clone)]
enum Op {
    Append(u64, u64, Class, usize, Delivery),
    Read(u64, u64, u64),
    Attach(u64, u64, u64),
    Detach(u64, u64, u64),
    Settle(u64, u64, u64),
    Finish(u64, u64),
    Forget(u64),
    Wait(u64),
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    let class = prop_oneof![
        4 => Just(Class::Notification),
        1 => Just(Class::ServerRequest),
        1 => Just(Class::Response)
    ];
    let delivery = prop_oneof![Just(Delivery::Live), Just(Delivery::Pending)];
    let (session, stream) = (0..3_u64, 0..3_u64);
    prop_oneof![
        6 => (session.clone(), stream.clone(), class, 0..400_usize, delivery)
            .prop_map(|(a, b, c, d, e)| Op::Append(a, b, c, d, e)),
        3 => (session.clone(), stream.clone(), 0..9_u64).prop_map(|(a, b, c)| Op::Read(a, b, c)),
        1 => (session.clone(), stream.clone(), 1..4_u64).prop_map(|(a, b, c)| Op::Attach(a, b, c)),
        1 => (session.clone(), stream.clone(), 1..4_u64).prop_map(|(a, b, c)| Op::Detach(a, b, c)),
        1 => (session.clone(), stream.clone(), 1..9_u64).prop_map(|(a, b, c)| Op::Settle(a, b, c)),
        1 => (session.clone(), stream).prop_map(|(a, b)| Op::Finish(a, b)),
        1 => session.prop_map(Op::Forget),
        1 => (1..200_u64).prop_map(Op::Wait),
        1 => Just(Op::Expire),
    ]
}

/// Every index says what the streams say.
fn assert_consistent(log: &MemoryLog) {
    let inner = log.inner.lock();
    let (mut finished, mut delivered) = (BTreeSet::new(), BTreeSet::new());
    let (mut spare, mut kept) = (BTreeSet::new(), BTreeSet::new());
    let (mut bytes, mut streams) = (0, 0);
    for (session, all) in &inner.sessions {
        assert!(!all.is_empty());
        for (number, stream) in all {
            (bytes, streams) = (bytes + stream.bytes, streams + 1);
            if let Some(at) = stream.finished {
                finished.insert((at, *session, *number));
                if stream.is_delivered() {
                    delivered.insert((at, *session, *number));
                }
            }
            spare.extend(stream.spare().map(|arrival| (arrival, *session, *number)));
            kept.extend(stream.kept().map(|arrival| (arrival, *session, *number)));
        }
    }
    assert_eq!(finished, inner.finished);
    assert_eq!(delivered, inner.delivered);
    assert_eq!(spare, inner.spare);
    assert_eq!(kept, inner.kept);
    assert_eq!((bytes, streams), (inner.usage.bytes, inner.usage.streams));
}

proptest! {
    /// Any sequence of operations: the indexes stay true, pages are in order, and what is held
    /// stays under the total bound.
    #[test]
    fn indexes_and_bounds_hold(ops in proptest::collection::vec(op(), 1..120)) {
        let limits = Limits { stream_bytes: 1000, total_bytes: 6000, record_bytes: 7, ttl: Duration::from_secs(300) };
        let log = MemoryLog::new(limits);
        let mut now = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for op in ops {
                match op {
                    Op::Append(session, stream, class, size, delivery) => {
                        let payload = Bytes::from(vec![b'x'; size]);
                        let (session, stream) = (SessionKey(session), StreamNumber(stream));
                        let _ = log.append(session, stream, class, payload, delivery, now).await;
                    }
                    Op::Read(session, stream, sequence) => {
                        let cursor = EventId { stream: StreamNumber(stream), sequence };
                        if let Ok(page) = log.read(SessionKey(session), cursor, 500, now).await {
                            let sequences: Vec<_> = page.records.iter().map(|r| r.id.sequence).collect();
                            assert!(sequences.is_sorted_by(|a, b| a < b));
                            assert!(sequences.first().is_none_or(|first| *first > sequence));
                            let covered = page.position.sequence - sequence;
                            assert_eq!(covered, page.missed + page.records.len() as u64);
                        }
                    }
                    Op::Attach(session, stream, reader) => {
                        log.attach(SessionKey(session), StreamNumber(stream), reader).await;
                    }
                    Op::Detach(session, stream, reader) => {
                        log.detach(SessionKey(session), StreamNumber(stream), reader).await;
                    }
                    Op::Settle(session, stream, sequence) => {
                        let id = EventId { stream: StreamNumber(stream), sequence };
                        log.settle(SessionKey(session), id).await;
                    }
                    Op::Finish(session, stream) => {
                        log.finish(SessionKey(session), StreamNumber(stream), now).await;
                    }
                    Op::Forget(session) => log.forget(SessionKey(session)).await,
                    Op::Wait(seconds) => now += Duration::from_secs(seconds),
                    Op::Expire => log.expire(now).await,
                }
                assert_consistent(&log);
                assert!(log.usage().bytes <= limits.total_bytes);
            }
        });
    }
}

/// What is larger than the total bound has room for a reader only, and one at a time.
#[tokio::test]
async fn one_record_stands_out_for_a_reader_that_waits() {
    let limits = Limits {
        total_bytes: 2000,
        record_bytes: 0,
        ..Limits::default()
    };
    let (log, now) = (MemoryLog::new(limits), Instant::now());
    let append = |stream, class| {
        let (payload, delivery) = (Bytes::from(vec![b'x'; 3000]), Delivery::Pending);
        log.append(
            SessionKey(1),
            StreamNumber(stream),
            class,
            payload,
            delivery,
            now,
        )
    };
    let asked = append(1, Class::ServerRequest).await;
    assert_eq!(asked, Err(AppendError::NoRoom));
    assert!(append(1, Class::Response).await.is_ok());
    assert_eq!((log.usage().bytes, log.usage().responses_given_up), (0, 1));
    for stream in [2, 3] {
        log.open(SessionKey(1), StreamNumber(stream), now).await;
        log.attach(SessionKey(1), StreamNumber(stream), 1).await;
    }
    assert!(append(2, Class::Response).await.is_ok());
    assert_eq!(append(3, Class::Response).await, Err(AppendError::Full));
    let cursor = EventId::start(StreamNumber(2));
    let page = log.read(SessionKey(1), cursor, usize::MAX, now).await;
    assert_eq!(page.map(|page| page.records.len()), Ok(1));
    log.finish(SessionKey(1), StreamNumber(2), now).await;
    log.forget(SessionKey(2)).await;
    assert!(log.usage().bytes == 3000);
}
