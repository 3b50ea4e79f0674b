//! Messages whose answer is never resumed: they are POSTed, and that is all.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use shadowcat_sse::reconnect::{Decision, Facts, Leg, Opening, backoff, classify};
use tokio::time::Instant;

use super::super::Shared;
use super::super::answer::{self, Expected};
use super::super::client::{Connected, Delivery};
use super::{Call, Opened, Opener, now, send};
use crate::upstream::{BoxFuture, Dispatched};

/// See the [module](self).
pub(crate) struct Posting {
    pub(crate) shared: Arc<Shared>,
    /// As in [`Call`].
    pub(crate) elsewhere: Option<Uri>,
    pub(crate) headers: Arc<HeaderMap>,
    pub(crate) body: Bytes,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) expected: Expected,
    /// It is sent in a session of ours, which the server may have forgotten.
    pub(crate) in_session: bool,
}

impl Posting {
    /// A message that any success accepts.
    pub(crate) fn one_way(
        shared: &Arc<Shared>,
        elsewhere: Option<Uri>,
        headers: impl Into<Arc<HeaderMap>>,
        body: &Bytes,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            elsewhere,
            headers: headers.into(),
            body: body.clone(),
            delivery: Delivery::new(Dispatched::default()),
            expected: Expected::Acceptance,
            in_session: false,
        }
    }
}

impl Opener for Posting {
    fn open(&mut self, _opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        let shared = Arc::clone(&self.shared);
        let (expected, in_session) = (self.expected.clone(), self.in_session);
        let call = Call {
            method: Method::POST,
            elsewhere: self.elsewhere.clone(),
            headers: Arc::clone(&self.headers),
            body: Some((self.body.clone(), Arc::clone(&self.delivery))),
            connected,
        };
        let delivery = Arc::clone(&self.delivery);
        Box::pin(async move {
            let opened = match send(&shared, &call).await {
                Ok((_, response)) => {
                    answer::to_post(&shared, response, &expected, in_session).await
                }
                Err(failure) => Opened::Failed(failure),
            };
            if let Opened::Failed(failure) = &opened
                && let Decision::SendAgain { hint, .. } =
                    classify(&failure.trouble, Leg::Post, Facts::default())
            {
                let wait = hint.map(|hint| shared.config.reconnect.clamp_hint(hint.wait));
                let until = wait.map(|wait| backoff::after(now(), wait));
                delivery.not_processed(until.map(Instant::from_std));
            }
            opened
        })
    }
}
