use bytes::Bytes;
use futures_util::FutureExt as _;
use shadowcat_mcp::message::RequestId;
use shadowcat_mcp::method::Method;
use tokio::time::{Instant, timeout};

use super::*;

const NOW: Duration = Duration::from_millis(1);

fn message(json: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap()
}

fn request(id: i64) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#
    ))
}

fn response(id: i64) -> Message {
    build::result(&RequestId::Integer(id), "{}")
}

fn log(bytes: usize) -> Message {
    let params = format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes));
    build::notification(&Method::LogMessage, Some(&params))
}

fn ask(id: i64) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#
    ))
}

/// A router, and what it wrote by itself.
fn router(clients: Clients) -> (Router, Arc<Mutex<Vec<Message>>>) {
    let written = Arc::<Mutex<Vec<Message>>>::default();
    let writing = Arc::clone(&written);
    let router = Router::new(clients, Arc::default(), move |message| {
        writing.lock().push(message);
    });
    (router, written)
}

/// What is logged.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn died() -> Fault {
    Fault::new(Side::Upstream, FaultKind::ChildExited, Executed::No).because("exit status: 1")
}

async fn next(incoming: &mut Incoming) -> Message {
    match timeout(NOW, incoming.next()).await.unwrap() {
        Some(Ok(Item::Message(message))) => message,
        other => panic!("no message: {other:?}"),
    }
}

async fn fault(incoming: &mut Incoming) -> Fault {
    match timeout(NOW, incoming.next()).await.unwrap() {
        Some(Err(fault)) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_gets_its_messages_and_ends_with_its_response() {
    let (router, _) = router(Clients::One);
    let mut exchange = router.begin(&request(1)).unwrap();
    assert_eq!(exchange.message, request(1));
    assert_eq!(
        router.begin(&request(1)).unwrap_err().kind,
        FaultKind::DuplicateId
    );
    let reading = tokio::spawn(async move {
        let first = next(&mut exchange.incoming).await;
        let second = next(&mut exchange.incoming).await;
        assert!(exchange.incoming.next().await.is_none());
        assert!(exchange.incoming.next().await.is_none());
        (first, second)
    });
    tokio::task::yield_now().await;
    for message in [log(1), response(1), response(1)] {
        assert_eq!(router.deliver(message).await, None);
    }
    assert_eq!(reading.await.unwrap(), (log(1), response(1)));
    assert_eq!(router.0.metrics.stray_responses.get(), 1);
}

/// It came with the only request in flight, and is about no request.
#[tokio::test(start_paused = true)]
async fn what_names_no_request_outlives_the_exchange_that_it_waited_in() {
    let (router, _) = router(Clients::One);
    let request = message(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#,
    );
    let progress = message(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#,
    );
    let exchange = router.begin(&request).unwrap();
    for message in [log(1), progress, ask(7)] {
        assert_eq!(router.deliver(message).await, None);
    }
    drop(exchange.incoming);
    let mut standalone = router.standalone();
    assert_eq!(next(&mut standalone).await, log(1));
    assert_eq!(next(&mut standalone).await, ask(7));
    assert!(timeout(NOW, standalone.next()).await.is_err());
}

/// The withdrawal must not overtake the question that it takes back.
#[tokio::test(start_paused = true)]
async fn the_withdrawal_of_a_question_that_was_moved_follows_it() {
    let (router, _) = router(Clients::One);
    let exchange = router.begin(&request(1)).unwrap();
    router.deliver(ask(7)).await;
    drop(exchange.incoming);
    let mut other = router.begin(&request(2)).unwrap();
    let withdrawal = build::cancelled(&RequestId::Integer(7), "no longer needed");
    router.deliver(withdrawal.clone()).await;
    let mut standalone = router.standalone();
    assert_eq!(next(&mut standalone).await, ask(7));
    assert_eq!(next(&mut standalone).await, withdrawal);
    assert!(timeout(NOW, other.incoming.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_question_left_unread_that_finds_no_room_is_refused() {
    let (router, written) = router(Clients::One);
    let mut room = 0;
    while router.deliver(ask(room)).await.is_none() {
        room += 1;
    }
    let exchange = router.begin(&request(1)).unwrap();
    for id in [10_007, 10_008] {
        assert_eq!(router.deliver(ask(id)).await, None);
    }
    assert!(written.lock().is_empty());
    drop(exchange.incoming);
    let refused: Vec<_> = written.lock().iter().map(|m| m.id().cloned()).collect();
    let ids = [10_007, 10_008].map(|id| Some(RequestId::Integer(id)));
    assert_eq!(refused, ids);
    assert!(
        written
            .lock()
            .iter()
            .all(|m| m.raw().windows(6).any(|w| w == b"-32603"))
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_room_in_an_exchange_that_is_given_up_is_not_lost() {
    let (router, _) = router(Clients::One);
    let exchange = router.begin(&request(1)).unwrap();
    let mut delivered = 0;
    while router.deliver(log(30_000)).now_or_never().is_some() {
        delivered += 1;
    }
    let waiting = router.clone();
    let waiting = tokio::spawn(async move { waiting.deliver(log(1)).await });
    tokio::task::yield_now().await;
    drop(exchange.incoming);
    assert_eq!(waiting.await.unwrap(), None);
    let mut standalone = router.standalone();
    for _ in 0..delivered {
        assert_eq!(next(&mut standalone).await, log(30_000));
    }
    assert_eq!(next(&mut standalone).await, log(1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_exchange_stops_the_pipe_until_it_is_read() {
    let (router, _) = router(Clients::One);
    let mut exchange = router.begin(&request(1)).unwrap();
    let mut delivered = 0;
    while timeout(NOW, router.deliver(log(1000))).await.is_ok() {
        delivered += 1;
    }
    assert!((55..70).contains(&delivered), "{delivered}");
    // The one that waited was dropped with its future, as the docs say.
    for _ in 0..delivered {
        let waiting = router.deliver(log(1));
        let reading = next(&mut exchange.incoming);
        let (_, read) = tokio::join!(waiting, reading);
        assert!(read.raw().len() > 1000);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_response_found_no_room_ends_with_the_pipe() {
    let (router, _) = router(Clients::One);
    let mut exchange = router.begin(&request(1)).unwrap();
    exchange.mark.set_written();
    while timeout(NOW, router.deliver(log(10_000))).await.is_ok() {}
    let waiting = timeout(NOW, router.deliver(response(1))).await;
    assert!(waiting.is_err(), "it was dropped with the response");
    router.end(died());
    let fault = loop {
        match timeout(NOW, exchange.incoming.next()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(fault)) => break fault,
            None => panic!("it ended without an outcome"),
        }
    };
    assert_eq!(fault.kind, FaultKind::ChildExited);
    assert_eq!(fault.executed, Executed::Unknown);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_stops_nothing() {
    let (router, cancels) = router(Clients::One);
    let exchange = router.begin(&request(1)).unwrap();
    while timeout(NOW, router.deliver(log(10_000))).await.is_ok() {}
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { router.deliver(log(10_000)).await }
    });
    tokio::task::yield_now().await;
    drop(exchange);
    timeout(NOW, waiting).await.unwrap().unwrap();
    router.deliver(response(1)).await;
    assert_eq!(router.0.metrics.stray_responses.get(), 1);
    assert!(cancels.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn death_answers_everybody_at_once_and_says_what_may_have_been_executed() {
    let (router, _) = router(Clients::One);
    let mut waiting = router.begin(&request(1)).unwrap();
    let mut written = router.begin(&request(2)).unwrap();
    let mut answered = router.begin(&request(3)).unwrap();
    written.mark.set_written();
    router.deliver(response(3)).await;
    let mut standalone = router.standalone();
    let reading = tokio::spawn(async move {
        let told = fault(&mut standalone).await;
        assert!(standalone.next().await.is_none());
        told
    });
    tokio::task::yield_now().await;
    router.end(died());
    router.end(Fault::new(
        Side::Shadowcat,
        FaultKind::SessionEnded,
        Executed::No,
    ));
    assert_eq!(fault(&mut waiting.incoming).await, died());
    assert_eq!(
        fault(&mut written.incoming).await,
        with_executed(died(), Executed::Unknown)
    );
    assert!(written.incoming.next().await.is_none());
    assert_eq!(next(&mut answered.incoming).await, response(3));
    assert_eq!(reading.await.unwrap(), died());
    assert_eq!(router.begin(&request(4)).unwrap_err(), died());
    assert_eq!(router.ended(), Some(died()));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_in_a_dying_pipe_is_not_held_up() {
    let (router, _) = router(Clients::One);
    let mut exchange = router.begin(&request(1)).unwrap();
    let delivering = tokio::spawn({
        let router = router.clone();
        async move {
            for _ in 0..10 {
                router.deliver(log(60_000)).await;
            }
            router.deliver(response(1)).await;
        }
    });
    tokio::task::yield_now().await;
    assert!(!delivering.is_finished());
    router.hurry();
    timeout(NOW, delivering).await.unwrap().unwrap();
    for _ in 0..10 {
        assert_eq!(next(&mut exchange.incoming).await, log(60_000));
    }
    assert_eq!(next(&mut exchange.incoming).await, response(1));
}

#[tokio::test(start_paused = true)]
async fn even_in_a_hurry_there_is_a_bound() {
    let (router, _) = router(Clients::One);
    let mut exchange = router.begin(&request(1)).unwrap();
    router.hurry();
    for _ in 0..10 {
        router.deliver(log(1 << 20)).await;
    }
    for _ in 0..4 {
        assert_eq!(next(&mut exchange.incoming).await, log(1 << 20));
    }
    assert_eq!(
        fault(&mut exchange.incoming).await.kind,
        FaultKind::Overloaded
    );
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_we_closed_ends_its_standalone_stream_cleanly() {
    let (router, _) = router(Clients::One);
    let mut standalone = router.standalone();
    router.end(Fault::new(
        Side::Shadowcat,
        FaultKind::SessionEnded,
        Executed::No,
    ));
    assert!(standalone.next().await.is_none());
    assert_eq!(router.deliver(log(1)).await, None);
    assert!(standalone.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_standalone_queue_never_stops_the_pipe() {
    let (router, _) = router(Clients::One);
    let change = build::notification(&Method::ToolsListChanged, None);
    for _ in 0..2 {
        router.deliver(change.clone()).await;
    }
    for _ in 0..2000 {
        timeout(NOW, router.deliver(log(10))).await.unwrap();
    }
    let metrics = &router.0.metrics;
    let given_up = |reason| {
        let reason = Reason::of(reason);
        metrics.messages_given_up.get_or_create(&reason).get()
    };
    assert_eq!((metrics.coalesced.get(), given_up("log")), (1, 977));
    let mut refused = None;
    for id in 0..1100 {
        refused = refused.or(router.deliver(ask(id)).await);
    }
    let refused = refused.unwrap();
    assert!(matches!(
        refused.kind(),
        Kind::Error {
            id: Some(RequestId::Integer(1023))
        }
    ));
    assert_eq!(shadowcat_mcp::inspect::error_code(&refused), Some(-32603));
    assert_eq!(given_up("request"), 77);
    let mut standalone = router.standalone();
    assert_eq!(next(&mut standalone).await, change);
    assert_eq!(next(&mut standalone).await, ask(0));
}

#[tokio::test(start_paused = true)]
async fn the_standalone_reader_is_woken() {
    let (router, _) = router(Clients::One);
    let mut standalone = router.standalone();
    let reading = tokio::spawn(async move { next(&mut standalone).await });
    tokio::task::yield_now().await;
    router.deliver(log(1)).await;
    assert_eq!(reading.await.unwrap(), log(1));
    router.set_standalone_open(true);
    let _one = router.begin(&request(1)).unwrap();
    let _two = router.begin(&request(2)).unwrap();
    router.deliver(log(2)).await;
    assert_eq!(next(&mut router.standalone()).await, log(2));
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_that_goes_away_cancels_what_was_written() {
    let (router, cancels) = router(Clients::Many);
    let unwritten = router.begin(&request(7)).unwrap();
    let written = router.begin(&request(7)).unwrap();
    let mut done = router.begin(&request(7)).unwrap();
    written.mark.set_written();
    done.mark.set_written();
    router.deliver(response(3)).await;
    assert_eq!(next(&mut done.incoming).await, response(7));
    drop((unwritten, written, done));
    let cancelled = cancels.lock().clone();
    assert_eq!(cancelled.len(), 1);
    let id = shadowcat_mcp::inspect::cancelled_id(&cancelled[0]);
    assert_eq!(id, Some(RequestId::Integer(2)));
}

#[tokio::test(start_paused = true)]
async fn one_of_many_slow_clients_is_given_up() {
    let (router, cancels) = router(Clients::Many);
    let lines = Arc::<Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let session = Arc::new(tracing::error_span!("session", id = 3));
    let span = RequestSpan::new(&session, &RequestId::Integer(1), &Method::ToolsCall);
    let beginning = span.scope(async { router.begin(&request(1)).unwrap() });
    let mut slow = beginning.await;
    slow.mark.set_written();
    let started = Instant::now();
    while router.0.state.lock().open.len() == 1 {
        router.deliver(log(10_000)).await;
    }
    assert_eq!(started.elapsed(), SHARED_PATIENCE);
    assert_eq!(cancels.lock().len(), 1);
    let text = String::from_utf8_lossy(&lines.lock()).into_owned();
    let whose = "WARN session{id=3}:request{id=1 method=tools/call}";
    assert!(
        text.contains(whose) && text.contains("gave up a request"),
        "{text}"
    );
    let last = loop {
        match slow.incoming.next().await.unwrap() {
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert_eq!(last.kind, FaultKind::Overloaded);
    assert_eq!(router.deliver(log(1)).await, None);
    let answer = router.deliver(ask(5)).await.unwrap();
    assert_eq!(shadowcat_mcp::inspect::error_code(&answer), Some(-32601));
}

#[tokio::test(start_paused = true)]
async fn a_pipe_is_passed_on_when_nothing_is_open_on_it() {
    let (router, _) = router(Clients::Many);
    let mut begun = router.begin(&request(7)).unwrap();
    assert!(!router.pass_to(Clients::One));
    router.deliver(response(1)).await;
    assert_eq!(next(&mut begun.incoming).await, response(7));
    assert!(router.pass_to(Clients::One));
    // Nothing is renumbered any more, and what the first clients leave behind ends nothing.
    let mut other = router.begin(&request(7)).unwrap();
    assert_eq!(other.message, request(7));
    drop(begun);
    router.deliver(response(7)).await;
    assert_eq!(next(&mut other.incoming).await, response(7));
    router.end(died());
    assert!(!router.pass_to(Clients::One));
}

/// Whoever gets the pipe would miss it.
#[tokio::test(start_paused = true)]
async fn a_pipe_on_which_more_came_than_answers_is_not_passed_on() {
    let (router, _) = router(Clients::Many);
    let mut begun = router.begin(&request(7)).unwrap();
    router.deliver(log(1)).await;
    router.deliver(response(1)).await;
    next(&mut begun.incoming).await;
    assert_eq!(next(&mut begun.incoming).await, response(7));
    assert!(!router.pass_to(Clients::One));
}
