//! What a `subscriptions/listen` needs besides other requests: after its stream was away, the
//! client is told that what it subscribed to may have changed.

use std::collections::VecDeque;
use std::time::Duration;

use shadowcat_mcp::message::{Message, RequestId};
use shadowcat_mcp::subscription::Subscription;

use super::super::gap::Refreshes;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Listening {
    acknowledged: Option<Subscription>,
    refreshes: Refreshes,
    /// What the client has not been told yet.
    news: VecDeque<Message>,
}

impl Listening {
    /// A notification of the server passes.
    pub(super) fn observe(&mut self, notification: &Message) {
        if let Some(acknowledged) = Subscription::read(notification) {
            self.acknowledged = Some(acknowledged);
        }
    }

    /// The stream of the request `id` was away for so long.
    pub(super) fn missed(&mut self, id: &RequestId, away: Duration) {
        if let Some(acknowledged) = &self.acknowledged
            && self.refreshes.is_due(away)
        {
            self.news.extend(acknowledged.changes(id));
        }
    }

    /// The next of the messages that the client is to be told.
    pub(super) fn news(&mut self) -> Option<Message> {
        self.news.pop_front()
    }
}
