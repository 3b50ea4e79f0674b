//! The sessions of an HTTP client edge, by `Mcp-Session-Id`.
//!
//! An id is 256 random bits in hex: the first half finds the entry, the second half is compared in
//! constant time, so that neither lookup nor comparison tells a guesser how close it came.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use shadowcat_mcp::headers::ClientSessionId;
use shadowcat_mcp::version::Era;
use shadowcat_store::{SessionKey, StreamNumber};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tracing::info;

use super::events::StreamState;
use crate::session::{Session, Shared};

/// Digits of an id that find it; as many again prove it.
const FINDING: usize = 32;

/// A session as its HTTP client knows it.
pub(super) struct ClientSession {
    pub(super) session: Arc<Session>,
    pub(super) id: ClientSessionId,
    next_stream: AtomicU64,
    /// Streams of exchanges that have not ended.
    streams: Mutex<HashMap<StreamNumber, Arc<StreamState>>>,
}

impl ClientSession {
    /// A number and a state for a new exchange's stream.
    pub(super) fn new_stream(&self) -> (StreamNumber, Arc<StreamState>) {
        let number = StreamNumber(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let state = Arc::new(StreamState::default());
        self.streams.lock().insert(number, Arc::clone(&state));
        (number, state)
    }

    pub(super) fn stream(&self, number: StreamNumber) -> Option<Arc<StreamState>> {
        self.streams.lock().get(&number).cloned()
    }

    pub(super) fn stream_finished(&self, number: StreamNumber) {
        self.streams.lock().remove(&number);
    }
}

/// All sessions of one edge.
pub(super) struct Registry {
    shared: Arc<Shared>,
    sessions: RwLock<HashMap<String, Arc<ClientSession>>>,
    next_key: AtomicU64,
}

impl Registry {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            sessions: RwLock::default(),
            next_key: AtomicU64::new(1),
        }
    }

    /// A session that is not listed yet: it is once its handshake has succeeded.
    pub(super) fn prepare(&self) -> Arc<ClientSession> {
        let key = SessionKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let entropy = &self.shared.entropy;
        let id: String = (0..4).map(|_| format!("{:016x}", entropy.bits())).collect();
        Arc::new(ClientSession {
            session: Session::new(Arc::clone(&self.shared), key, Era::Legacy),
            id: ClientSessionId::minted(id),
            next_stream: AtomicU64::new(1),
            streams: Mutex::default(),
        })
    }

    /// Lists a session; false if there are too many.
    pub(super) fn list(&self, client: &Arc<ClientSession>) -> bool {
        let mut sessions = self.sessions.write();
        if sessions.len() >= self.shared.config.max_sessions {
            return false;
        }
        let (finding, _) = client.id.as_str().split_at(FINDING);
        sessions.insert(finding.to_owned(), Arc::clone(client));
        self.shared.metrics.sessions_opened.inc();
        self.shared.metrics.sessions.set(sessions.len() as i64);
        true
    }

    /// Whether another session fits.
    pub(super) fn has_room(&self) -> bool {
        self.sessions.read().len() < self.shared.config.max_sessions
    }

    pub(super) fn find(&self, id: &ClientSessionId) -> Option<Arc<ClientSession>> {
        let (finding, proof) = id.as_str().split_at_checked(FINDING)?;
        let client = self.sessions.read().get(finding).cloned()?;
        let expected = &client.id.as_str().as_bytes()[FINDING..];
        let same = bool::from(expected.ct_eq(proof.as_bytes()));
        (same && !client.session.has_ended()).then_some(client)
    }

    /// Takes a session off the list and ends it.
    pub(super) async fn end(&self, client: &Arc<ClientSession>) {
        self.unlist(client);
        client.session.end().await;
    }

    fn unlist(&self, client: &Arc<ClientSession>) {
        let (finding, _) = client.id.as_str().split_at(FINDING);
        let mut sessions = self.sessions.write();
        sessions.remove(finding);
        self.shared.metrics.sessions.set(sessions.len() as i64);
    }

    /// Ends what is idle for longer than its time to live, and forgets what has ended by itself.
    pub(super) async fn sweep(&self) {
        let now = Instant::now();
        let ttl = self.shared.config.session_ttl;
        let old = |client: &Arc<ClientSession>| {
            client.session.has_ended()
                || client
                    .session
                    .idle_since()
                    .is_some_and(|since| now - since >= ttl)
        };
        let gone: Vec<_> = self
            .sessions
            .read()
            .values()
            .filter(|c| old(c))
            .cloned()
            .collect();
        for client in gone {
            info!(session = client.session.key.0, "session expired");
            self.end(&client).await;
        }
        self.shared.log.expire(now.into_std()).await;
    }

    /// Waits until nothing is open, at most for `patience`, then ends all sessions.
    pub(super) async fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let exchanges = || {
            self.sessions
                .read()
                .values()
                .map(|c| c.session.exchanges())
                .sum::<usize>()
        };
        while exchanges() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all: Vec<_> = self
            .sessions
            .write()
            .drain()
            .map(|(_, client)| client)
            .collect();
        futures_util::future::join_all(all.iter().map(|client| client.session.end())).await;
        self.shared.metrics.sessions.set(0);
    }
}
