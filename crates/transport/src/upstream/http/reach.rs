//! Says when the server can no longer be reached, and when it can again: one line each, however many
//! requests and streams meet the same.

use std::sync::Arc;

use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::dial::{Dial, DialError, Wire};
use crate::upstream::BoxFuture;

/// A [`Dial`] that logs the change from reachable to not, and back.
pub(crate) struct Reach(Arc<Watched>);

struct Watched {
    dial: Arc<dyn Dial>,
    /// The server's name in logs.
    name: String,
    /// Since when no connection could be made.
    down: Mutex<Option<Instant>>,
}

impl Reach {
    pub(crate) fn new(dial: Arc<dyn Dial>, name: String) -> Self {
        Self(Arc::new(Watched {
            dial,
            name,
            down: Mutex::default(),
        }))
    }
}

impl Dial for Reach {
    fn dial(&self, uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let (watched, dialling) = (Arc::clone(&self.0), self.0.dial.dial(uri));
        Box::pin(async move {
            let dialled = dialling.await;
            watched.saw(dialled.as_ref().err());
            dialled
        })
    }

    fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        self.0.dial.proxy_authorization(uri)
    }
}

impl Watched {
    fn saw(&self, error: Option<&DialError>) {
        let mut down = self.down.lock();
        match (error, *down) {
            (Some(error), None) => {
                *down = Some(Instant::now());
                warn!(
                    server = self.name,
                    %error,
                    "the server cannot be reached; {}",
                    error.advice()
                );
            }
            (None, Some(since)) => {
                *down = None;
                let away = since.elapsed();
                info!(server = self.name, ?away, "the server can be reached again");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
