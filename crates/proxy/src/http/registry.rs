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
use shadowcat_store::{SessionKey, StreamNumber, Usage};
use shadowcat_transport::metrics::Reason;
use subtle::ConstantTimeEq;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::events::StreamState;
use crate::session::{Session, Shared};

/// Digits of an id that find it; as many again prove it.
const FINDING: usize = 32;
/// How long the streams of a session that has ended may take to carry their last messages.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A session as its HTTP client knows it.
pub(super) struct ClientSession {
    pub(super) session: Arc<Session>,
    pub(super) id: ClientSessionId,
    next_stream: AtomicU64,
    /// Streams of exchanges that have not ended.
    streams: Mutex<HashMap<StreamNumber, Arc<StreamState>>>,
    /// Who carries messages of its streams, or takes them into the log.
    pub(super) carriers: TaskTracker,
    ended: OnceCell<()>,
}

impl ClientSession {
    /// Adds an exchange's stream; returns its number.
    pub(super) fn add_stream(&self, state: &Arc<StreamState>) -> StreamNumber {
        let number = StreamNumber(self.next_stream.fetch_add(1, Ordering::Relaxed));
        self.streams.lock().insert(number, Arc::clone(state));
        number
    }

    pub(super) fn stream(&self, number: StreamNumber) -> Option<Arc<StreamState>> {
        self.streams.lock().get(&number).cloned()
    }

    pub(super) fn stream_finished(&self, number: StreamNumber) {
        self.streams.lock().remove(&number);
    }

    /// Ends the session: open requests are answered, their streams carry the answers, the log
    /// forgets it. Goes on when nobody waits for it, and happens once.
    pub(super) async fn end(self: &Arc<Self>) {
        let client = Arc::clone(self);
        let ending = tokio::spawn(async move {
            let end = client.ended.get_or_init(|| async {
                client.session.end().await;
                client.carriers.close();
                let _ = timeout(LAST_WORDS, client.carriers.wait()).await;
                client.session.forget().await;
                let left: Vec<_> = client.streams.lock().drain().collect();
                for (_, state) in left {
                    state.wake();
                }
            });
            end.await;
        });
        let _ = ending.await;
    }
}

/// All sessions of one edge.
pub(super) struct Registry {
    shared: Arc<Shared>,
    /// By the first half of their ids, which are random: the hash need not be hard to guess.
    sessions: RwLock<HashMap<String, Arc<ClientSession>, rapidhash::fast::GlobalState>>,
    /// Handshakes that are not listed yet.
    pending: Mutex<HashMap<SessionKey, Arc<ClientSession>>>,
    /// The ends of sessions that are not listed any more.
    ending: TaskTracker,
    next_key: AtomicU64,
    /// What the log had given up when it was last looked at.
    seen: Mutex<Usage>,
}

/// A session in its handshake: it holds a place, and ends unless it gets listed.
pub(super) struct Pending {
    registry: Arc<Registry>,
    key: SessionKey,
    client: Option<Arc<ClientSession>>,
}

impl Pending {
    /// Lists the session under its id.
    pub(super) fn list(mut self) {
        if let Some(client) = self.client.take() {
            self.registry.list(client);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.registry.pending.lock().remove(&self.key);
        if let Some(client) = self.client.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let end = async move { client.end().await };
            self.registry.ending.spawn_on(end, &runtime);
        }
    }
}

impl Registry {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            sessions: RwLock::default(),
            pending: Mutex::default(),
            ending: TaskTracker::new(),
            next_key: AtomicU64::new(1),
            seen: Mutex::default(),
        })
    }

    /// A session that is not listed yet: it is once its handshake has succeeded. `None` if there
    /// are too many.
    pub(super) fn prepare(self: &Arc<Self>) -> Option<(Pending, Arc<ClientSession>)> {
        let sessions = self.sessions.write();
        let mut pending = self.pending.lock();
        if sessions.len() + pending.len() >= self.shared.config.max_sessions {
            return None;
        }
        let key = SessionKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let entropy = &self.shared.entropy;
        let id: String = (0..4).map(|_| format!("{:016x}", entropy.bits())).collect();
        let client = Arc::new(ClientSession {
            session: Session::new(Arc::clone(&self.shared), key, Era::Legacy),
            id: ClientSessionId::minted(id),
            next_stream: AtomicU64::new(1),
            streams: Mutex::default(),
            carriers: TaskTracker::new(),
            ended: OnceCell::new(),
        });
        pending.insert(key, Arc::clone(&client));
        let pending = Pending {
            registry: Arc::clone(self),
            key,
            client: Some(Arc::clone(&client)),
        };
        Some((pending, client))
    }

    fn list(&self, client: Arc<ClientSession>) {
        let mut sessions = self.sessions.write();
        let (finding, _) = client.id.as_str().split_at(FINDING);
        sessions.insert(finding.to_owned(), client);
        self.shared.metrics.sessions_opened.inc();
        self.shared.metrics.sessions.set(sessions.len() as i64);
    }

    pub(super) fn find(&self, id: &ClientSessionId) -> Option<Arc<ClientSession>> {
        let (finding, proof) = id.as_str().split_at_checked(FINDING)?;
        let client = self.sessions.read().get(finding).cloned()?;
        let expected = &client.id.as_str().as_bytes()[FINDING..];
        let same = bool::from(expected.ct_eq(proof.as_bytes()));
        (same && !client.session.has_ended()).then_some(client)
    }

    /// Takes a session off the list, and ends it in the background: its client need not wait for a
    /// server that takes its time, nor does it have to keep the connection. With as many on their
    /// way out as there may be sessions, it waits.
    pub(super) async fn end(&self, client: &Arc<ClientSession>) {
        {
            let (finding, _) = client.id.as_str().split_at(FINDING);
            let mut sessions = self.sessions.write();
            sessions.remove(finding);
            self.shared.metrics.sessions.set(sessions.len() as i64);
        }
        let client = Arc::clone(client);
        let ending = self.ending.spawn(async move { client.end().await });
        if self.ending.len() > self.shared.config.max_sessions {
            let _ = ending.await;
        }
    }

    /// Ends what is idle for longer than its time to live, and forgets what has ended by itself. A
    /// server that takes its time to end holds up nobody else's, unless there are very many.
    pub(super) async fn sweep(&self) {
        let now = Instant::now();
        let gone = self.take_old(now);
        let ending = gone.into_iter().map(|client| {
            let session = &client.session;
            match session.has_ended() {
                true => debug!(parent: &*session.span, "forgot a session that had ended"),
                false => info!(parent: &*session.span, "session expired"),
            }
            self.ending.spawn(async move { client.end().await })
        });
        let ending: Vec<_> = ending.collect();
        if self.ending.len() > self.shared.config.max_sessions {
            futures_util::future::join_all(ending).await;
        }
        self.shared.log.expire(now.into_std()).await;
        let left: Vec<_> = self.sessions.read().values().cloned().collect();
        for client in left {
            client.session.refuse_lost_asks().await;
        }
        self.count_given_up();
    }

    fn take_old(&self, now: Instant) -> Vec<Arc<ClientSession>> {
        let ttl = self.shared.config.session_ttl;
        let old = |client: &ClientSession| {
            let session = &client.session;
            let idle = session.idle_since();
            session.has_ended() || idle.is_some_and(|since| now - since >= ttl)
        };
        if !self.sessions.read().values().any(|client| old(client)) {
            return Vec::new();
        }
        let mut sessions = self.sessions.write();
        let gone: Vec<_> = sessions
            .extract_if(|_, client| old(client))
            .map(|(_, client)| client)
            .collect();
        self.shared.metrics.sessions.set(sessions.len() as i64);
        gone
    }

    /// What the log gave up since the last look, for the metrics.
    fn count_given_up(&self) {
        let now = self.shared.log.usage();
        let before = std::mem::replace(&mut *self.seen.lock(), now);
        let given_up = &self.shared.metrics.messages_given_up;
        let responses = now.responses_given_up - before.responses_given_up;
        for (reason, count) in [
            (
                "log full",
                now.notifications_given_up - before.notifications_given_up,
            ),
            ("log expired", now.expired_unread - before.expired_unread),
            ("response without room", responses),
        ] {
            if count > 0 {
                given_up.get_or_create(&Reason::of(reason)).inc_by(count);
            }
        }
        if responses > 0 {
            warn!(
                responses,
                "gave up responses that no client came back for: --replay-memory is full"
            );
        }
        self.shared.short_of_room.store(false, Ordering::Relaxed);
    }

    /// How many requests have no response yet.
    pub(super) fn exchanges(&self) -> usize {
        let sessions = self.sessions.read();
        let open = sessions.values().map(|client| client.session.exchanges());
        open.sum::<usize>() + self.pending.lock().len()
    }

    /// Ends all sessions because the process ends, handshakes included, and waits for those that
    /// are being ended.
    pub(super) async fn end_all(&self) {
        let listed: Vec<_> = self.sessions.write().drain().collect();
        let pending: Vec<_> = self.pending.lock().values().cloned().collect();
        let all = listed.into_iter().map(|(_, client)| client).chain(pending);
        let ending = all.map(|client| async move {
            client.session.say_shutting_down();
            client.end().await;
        });
        futures_util::future::join_all(ending).await;
        self.ending.close();
        self.ending.wait().await;
        self.shared.metrics.sessions.set(0);
    }
}
