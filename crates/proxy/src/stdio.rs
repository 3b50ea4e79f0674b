//! The pipeline behind a stdio edge: one client, one session, one pipe.
//!
//! The era is fixed by the first message that decides it: `initialize` makes
//! the connection legacy, a request with a modern claim makes it modern; `server/discover` and
//! `ping` decide nothing. Requests run concurrently; what they bring goes to one writer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use shadowcat_mcp::classify;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_store::SessionKey;
use shadowcat_transport::downstream::{LineSink, StdioService};
use shadowcat_transport::upstream::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::mismatch::{self, Obstacle};
use crate::session::{Outgoing, Outgoings, Preparation, Session, Shared};

/// How long the errors of what is cut at the end may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the [module](self).
pub struct StdioGateway {
    shared: Arc<Shared>,
    sink: Arc<dyn LineSink>,
    connection: Mutex<Connection>,
    /// What writes answers.
    answers: TaskTracker,
    /// What writes the messages of subscriptions, which never end by themselves.
    subscriptions: TaskTracker,
    over: CancellationToken,
}

/// What the messages so far have made of the connection.
#[derive(Default)]
struct Connection {
    /// Decided by the first message that decides it.
    era: Option<Era>,
    legacy: Option<Arc<Session>>,
    modern: Option<Arc<Session>>,
    /// Sessions so far.
    sessions: u64,
    /// Why the last handshake failed.
    failed: Option<String>,
}

impl Connection {
    fn slot(&mut self, era: Era) -> &mut Option<Arc<Session>> {
        match era {
            Era::Legacy => &mut self.legacy,
            Era::Modern => &mut self.modern,
        }
    }
}

impl StdioGateway {
    /// A pipeline that writes to `sink`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, sink: Arc<dyn LineSink>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            sink,
            connection: Mutex::default(),
            answers: TaskTracker::new(),
            subscriptions: TaskTracker::new(),
            over: CancellationToken::new(),
        })
    }

    /// Ends when the client's session has ended by itself: its upstream is lost, and losing it is
    /// to be passed on or cannot be mended.
    pub async fn lost(&self) {
        self.over.cancelled().await;
    }

    /// Lets nothing begin any more and waits until nothing is in flight, at most for `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.shared.drain();
        let open = self.answers.len();
        if open > 0 {
            info!(open, "finishing what is open");
        }
        self.answers.close();
        let _ = tokio::time::timeout(patience, self.answers.wait()).await;
    }

    /// Ends the session; what is in flight is answered with an error. The client is not heard any
    /// more.
    pub async fn end(&self) {
        let (legacy, modern) = {
            let mut connection = self.connection.lock();
            (connection.legacy.take(), connection.modern.take())
        };
        let ending = legacy.into_iter().chain(modern);
        let ending = ending.map(|session| async move {
            session.say_shutting_down();
            session.end().await;
        });
        let ending = futures_util::future::join_all(ending);
        tokio::join!(ending, self.shared.upstream.end());
        self.subscriptions.close();
        let written = async { tokio::join!(self.answers.wait(), self.subscriptions.wait()) };
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }

    fn session(self: &Arc<Self>, era: Era) -> Arc<Session> {
        let mut connection = self.connection.lock();
        if let Some(session) = connection.slot(era) {
            return Arc::clone(session);
        }
        connection.sessions += 1;
        let key = SessionKey(connection.sessions);
        let session = Session::new(Arc::clone(&self.shared), key, era);
        session.standalone.use_pipe(Arc::clone(&self.sink));
        if let Some(why) = &connection.failed {
            session.say_handshake_failed(why.clone());
        }
        *connection.slot(era) = Some(Arc::clone(&session));
        drop(connection);
        let (gateway, watched) = (Arc::downgrade(self), Arc::clone(&session));
        tokio::spawn(async move {
            watched.ended().await;
            if let Some(gateway) = gateway.upgrade() {
                gateway.ended(&watched);
            }
        });
        session
    }

    /// A session has ended. Where it was still the connection's, nobody of ours ended it; one that
    /// never got through its handshake makes room for another try.
    fn ended(&self, session: &Arc<Session>) {
        let mut connection = self.connection.lock();
        let slot = connection.slot(session.era());
        if slot.as_ref().is_none_or(|slot| !Arc::ptr_eq(slot, session)) {
            return;
        }
        *slot = None;
        drop(connection);
        if session.era() == Era::Modern || session.negotiated().is_some() {
            self.over.cancel();
        }
    }

    /// Ends the session of this era, if there is one, in favour of another.
    fn discard(&self, era: Era, only: Option<&Arc<Session>>) {
        let mut connection = self.connection.lock();
        let slot = connection.slot(era);
        if only.is_some_and(|only| slot.as_ref().is_none_or(|slot| !Arc::ptr_eq(slot, only))) {
            return;
        }
        if let Some(session) = slot.take() {
            drop(connection);
            tokio::spawn(async move { session.end().await });
        }
    }

    async fn one(self: &Arc<Self>, message: Message) {
        let known = self.connection.lock().era;
        let era = match classify::stdio(&message, known, &self.shared.config.versions) {
            Ok(era) => era,
            Err(rejection) => return self.reject(&message, &rejection).await,
        };
        if known.is_none() && classify::decides_era(&message) {
            self.connection.lock().era = Some(era);
            // What only looked for the era is not needed any more.
            self.discard(other(era), None);
        }
        match message.kind() {
            Kind::Request {
                id,
                method: Method::Initialize,
            } => {
                let id = id.clone();
                self.initialize(message, id).await;
            }
            Kind::Request { id, method } => {
                let (id, method) = (id.clone(), method.clone());
                let session = self.session(era);
                let request = message.clone();
                let first = self.preparation(&session, &method, &message);
                match session.request(message, id.clone(), method, HeaderMap::new(), first) {
                    Ok(outgoings) => self.relay(session, request, outgoings),
                    Err(fault) => {
                        let _ = self.sink.send(fault.to_response(&id)).await;
                    }
                }
            }
            _ => self.session(era).tell(message, HeaderMap::new()).await,
        }
    }

    /// What must be known before a modern request is sent: on a pipe the server's era, over HTTP
    /// the headers that a call of a client without headers must carry. Either may have to be asked
    /// for, which the next line of the client does not wait for.
    fn preparation(
        &self,
        session: &Arc<Session>,
        method: &Method,
        request: &Message,
    ) -> Option<Preparation> {
        if session.era() != Era::Modern {
            return None;
        }
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        let (id, method) = (request.id()?.clone(), method.clone());
        if !session.has_response_heads() {
            return Some(Box::pin(async move {
                match mismatch::check_pipe(&shared, &request).await {
                    Some(Obstacle::Mismatch(error)) => Err((StatusCode::BAD_REQUEST, error)),
                    Some(Obstacle::Fault(fault)) => {
                        Session::log_failure(&method, &fault);
                        let status = fault.status(Era::Modern);
                        Err((status, fault.to_response(&id)))
                    }
                    None => Ok(HeaderMap::new()),
                }
            }));
        }
        let session = Arc::clone(session);
        (method == Method::ToolsCall).then(|| -> Preparation {
            Box::pin(async move { Ok(shared.tool_params.headers(&session, &request).await) })
        })
    }

    async fn initialize(self: &Arc<Self>, message: Message, id: RequestId) {
        let session = self.session(Era::Legacy);
        if let Err(error) = session.begin_handshake(&message, &HeaderMap::new()) {
            let _ = self.sink.send(error.to_response(&id)).await;
            return;
        }
        let request = message.clone();
        let (method, none) = (Method::Initialize, HeaderMap::new());
        match session.request(message, id.clone(), method, none, None) {
            Ok(outgoings) => self.relay(session, request, outgoings),
            Err(fault) => {
                let _ = self.sink.send(fault.to_response(&id)).await;
            }
        }
    }

    /// Writes what an exchange brings.
    fn relay(self: &Arc<Self>, session: Arc<Session>, request: Message, mut outgoings: Outgoings) {
        let gateway = Arc::clone(self);
        let tracker = match request.method() {
            Some(Method::SubscriptionsListen) => &self.subscriptions,
            _ => &self.answers,
        };
        tracker.spawn(async move {
            while let Some(outgoing) = outgoings.next().await {
                let message = match outgoing {
                    Outgoing::Response {
                        status, message, ..
                    } => gateway.explain(&session, &request, status, message).await,
                    other => match other.into_message() {
                        Some(message) => message,
                        None => continue,
                    },
                };
                if gateway.sink.send(message).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn explain(
        &self,
        session: &Arc<Session>,
        request: &Message,
        status: StatusCode,
        response: Message,
    ) -> Message {
        match session.era() {
            Era::Modern => {
                mismatch::explain_to_modern(&self.shared, request, status, response)
                    .await
                    .1
            }
            Era::Legacy if request.method() == Some(&Method::Initialize) => {
                let explained = mismatch::explain_to_legacy(session, request, response).await;
                if session.negotiated().is_none() {
                    self.connection.lock().failed = inspect::error_text(&explained);
                    // The client may try again.
                    self.discard(Era::Legacy, Some(session));
                }
                explained
            }
            Era::Legacy => response,
        }
    }

    async fn reject(&self, message: &Message, rejection: &Rejection) {
        if let Kind::Request { id, .. } = message.kind() {
            let _ = self.sink.send(rejection.to_response(Some(id))).await;
        }
    }

    async fn batch(self: Arc<Self>, messages: Vec<Message>) {
        let session = self.connection.lock().legacy.clone();
        let version = session.and_then(|session| session.negotiated());
        if !version.is_some_and(ProtocolVersion::has_batches) {
            let _ = self
                .sink
                .send(Rejection::BatchNotAllowed.to_response(None))
                .await;
            return;
        }
        for message in messages {
            self.one(message).await;
        }
    }
}

/// The era that a connection is not of.
fn other(era: Era) -> Era {
    match era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    }
}

impl StdioService for StdioGateway {
    fn message(self: Arc<Self>, payload: Payload) -> BoxFuture<()> {
        Box::pin(async move {
            match payload {
                Payload::Single(message) => self.one(message).await,
                Payload::Batch(messages) => self.batch(messages).await,
            }
        })
    }
}
