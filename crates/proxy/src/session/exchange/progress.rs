//! What the notifications of a request's progress mean besides their words.
//!
//! They move the deadline of `--request-timeout`. And where the request was sent a second time, its
//! server begins at the beginning again, while the `progress` that a client is told must increase
//! with each notification (MCP specification, "Progress"): what is no news to it is dropped.
//!
//! Notifications are read only where one of both may be.

use shadowcat_mcp::inspect::{self, ProgressToken};
use shadowcat_mcp::message::Message;
use shadowcat_transport::metrics::Reason;
use tokio::time::Instant;
use tracing::debug;

use super::Exchange;

/// What is known of a request's progress.
pub(super) struct Progress {
    /// What its notifications name it by.
    token: Option<ProgressToken>,
    /// What the client was told last.
    told: Option<f64>,
}

impl Progress {
    fn of(request: &Message) -> Box<Self> {
        Box::new(Self {
            token: inspect::requested_progress_token(request),
            told: None,
        })
    }
}

impl Exchange {
    /// Takes note of a notification of progress; false if the client is not to be told.
    pub(super) fn is_news(&mut self, notification: &Message) -> bool {
        let timeout = self.bounds.session.shared.config.request_timeout;
        let perhaps_repeated = self.is_perhaps_repeated();
        if timeout.is_none() && !perhaps_repeated {
            return true;
        }
        let progress = (self.progress).get_or_insert_with(|| Progress::of(&self.request));
        if progress.token.is_none() || inspect::progress_token(notification) != progress.token {
            return true;
        }
        if let Some(timeout) = timeout {
            self.bounds.deadline.set(Instant::now() + timeout);
        }
        let value = match perhaps_repeated {
            true => inspect::progress(notification),
            false => None,
        };
        let Some(value) = value else {
            return true;
        };
        if self.repeated && progress.told.is_some_and(|told| value <= told) {
            let reason = Reason::of("progress told before");
            let given_up = &self.bounds.session.shared.metrics.messages_given_up;
            given_up.get_or_create(&reason).inc();
            debug!(value, "dropped progress that the first sending had made");
            return false;
        }
        progress.told = Some(value);
        true
    }
}
