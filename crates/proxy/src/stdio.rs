//! The pipeline behind a stdio edge: one client, one session, one pipe.
//!
//! The era is fixed by the first message that decides it (eras, section 3.2): `initialize` makes
//! the connection legacy, a request with a modern claim makes it modern; `server/discover` and
//! `ping` decide nothing. Requests run concurrently; what they bring goes to one writer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use shadowcat_mcp::classify;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::message::{Kind, Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_store::SessionKey;
use shadowcat_transport::downstream::{LineSink, StdioService};
use shadowcat_transport::upstream::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mismatch;
use crate::session::{Outgoing, Outgoings, Session, Shared};

/// See the [module](self).
pub struct StdioGateway {
    shared: Arc<Shared>,
    sink: Arc<dyn LineSink>,
    connection: Mutex<Connection>,
    answers: TaskTracker,
    over: CancellationToken,
}

/// What the messages so far have made of the connection.
#[derive(Default)]
struct Connection {
    /// Decided by the first message that decides it.
    era: Option<Era>,
    legacy: Option<Arc<Session>>,
    modern: Option<Arc<Session>>,
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
            over: CancellationToken::new(),
        })
    }

    /// Ends when the session has ended by itself (its upstream is lost and
    /// `--on-session-loss=propagate` was given).
    pub async fn lost(&self) {
        self.over.cancelled().await;
    }

    /// Waits until nothing is in flight, at most for `patience`, then ends the session.
    pub async fn drain(&self, patience: Duration) {
        self.answers.close();
        let _ = tokio::time::timeout(patience, self.answers.wait()).await;
        self.end().await;
        let _ = tokio::time::timeout(Duration::from_secs(1), self.answers.wait()).await;
    }

    async fn end(&self) {
        let (legacy, modern) = {
            let mut connection = self.connection.lock();
            (connection.legacy.take(), connection.modern.take())
        };
        for session in legacy.into_iter().chain(modern) {
            session.end().await;
        }
    }

    fn session(self: &Arc<Self>, era: Era) -> Arc<Session> {
        let mut connection = self.connection.lock();
        let slot = match era {
            Era::Legacy => &mut connection.legacy,
            Era::Modern => &mut connection.modern,
        };
        let session = slot.get_or_insert_with(|| {
            let session = Session::new(Arc::clone(&self.shared), SessionKey(0), era);
            session.standalone.use_pipe(Arc::clone(&self.sink));
            let (gateway, watched) = (Arc::downgrade(self), Arc::clone(&session));
            tokio::spawn(async move {
                watched.ended().await;
                if let Some(gateway) = gateway.upgrade() {
                    gateway.over.cancel();
                }
            });
            session
        });
        Arc::clone(session)
    }

    async fn one(self: &Arc<Self>, message: Message) {
        let known = self.connection.lock().era;
        let era = match classify::stdio(&message, known, &self.shared.config.versions) {
            Ok(era) => era,
            Err(rejection) => return self.reject(&message, &rejection).await,
        };
        if known.is_none() && classify::decides_era(&message) {
            self.connection.lock().era = Some(era);
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
                if era == Era::Modern
                    && !session.has_response_heads()
                    && let Some(error) = mismatch::check_pipe(&self.shared, &message, &id).await
                {
                    let _ = self.sink.send(error).await;
                    return;
                }
                let request = message.clone();
                match session.request(message, id.clone(), method, HeaderMap::new()) {
                    Ok(outgoings) => self.relay(session, request, outgoings),
                    Err(fault) => {
                        let _ = self.sink.send(fault.to_response(&id)).await;
                    }
                }
            }
            _ => self.session(era).tell(message, HeaderMap::new()).await,
        }
    }

    async fn initialize(self: &Arc<Self>, message: Message, id: RequestId) {
        let session = self.session(Era::Legacy);
        if let Err(error) = session.begin_handshake(&message) {
            let _ = self.sink.send(error.to_response(&id)).await;
            return;
        }
        let request = message.clone();
        match session.request(message, id.clone(), Method::Initialize, HeaderMap::new()) {
            Ok(outgoings) => self.relay(session, request, outgoings),
            Err(fault) => {
                let _ = self.sink.send(fault.to_response(&id)).await;
            }
        }
    }

    /// Writes what an exchange brings.
    fn relay(self: &Arc<Self>, session: Arc<Session>, request: Message, mut outgoings: Outgoings) {
        let gateway = Arc::clone(self);
        self.answers.spawn(async move {
            while let Some(outgoing) = outgoings.next().await {
                let message = match outgoing {
                    Outgoing::StreamOpened => continue,
                    Outgoing::Message(message) => message,
                    Outgoing::Response {
                        status, message, ..
                    } => gateway.explain(&session, &request, status, message).await,
                    Outgoing::Challenge { status, .. } => challenge(&request, status),
                };
                if gateway.sink.send(message).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn explain(
        &self,
        session: &Session,
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
                mismatch::explain_to_legacy(session, request, response).await
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
        if version != Some(ProtocolVersion::V2025_03_26) {
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

/// A challenge cannot be relayed over a pipe: the error says what to do instead.
fn challenge(request: &Message, status: StatusCode) -> Message {
    use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
    let fault = Fault::new(Side::Upstream, FaultKind::Unauthorized, Executed::No).because(format!(
        "the server answered {status}: give it credentials with --header 'Authorization: Bearer ${{TOKEN}}'"
    ));
    match request.kind() {
        Kind::Request { id, .. } => fault.to_response(id),
        _ => Rejection::InvalidRequest(fault.to_string()).to_response(None),
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

    fn eof(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move {
            self.end().await;
        })
    }
}
