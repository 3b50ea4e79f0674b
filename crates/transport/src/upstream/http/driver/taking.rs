//! Whether an event is for this stream, where its session has others: see [`siblings`].
//!
//! [`siblings`]: super::super::siblings

use shadowcat_mcp::message::Payload;

use super::super::siblings::Owner;
use super::Driver;
use crate::metrics::Reason;

impl Driver {
    /// Whether what the event that was just given holds is to be delivered here. If not, the event
    /// is taken back, and counted.
    pub(crate) fn takes(&mut self, payload: &Payload) -> bool {
        let Some(sibling) = &self.sibling else {
            return true;
        };
        let resumed = self.engine.is_resumed();
        // What stands on a first connection is its own business, but for the responses that its
        // reader will reject: they are not delivered.
        let owner = match payload {
            Payload::Single(message) if resumed || message.is_response() => sibling.owner(payload),
            Payload::Batch(_) if resumed => sibling.owner(payload),
            _ => Owner::Unnamed,
        };
        let key = self.engine.key();
        let metrics = &self.shared.counters.metrics;
        match (owner, key) {
            (Owner::Other | Owner::Nobody | Owner::Abandoned, _) if !resumed => return true,
            (Owner::Other, _) => {
                metrics.events_left.inc();
                self.engine.leave();
                return false;
            }
            (Owner::Nobody | Owner::Abandoned, Some(key)) if sibling.knows(key) => {
                self.engine.repeated();
            }
            (Owner::Abandoned, _) => {
                let reason = Reason::of("progress of a failed request");
                metrics.messages_given_up.get_or_create(&reason).inc();
                self.engine.leave();
            }
            (Owner::Nobody, _) => {
                metrics.stray_responses.inc();
                self.engine.leave();
            }
            (Owner::Own | Owner::Unnamed, None) => return true,
            (Owner::Own | Owner::Unnamed, Some(key)) => {
                let (granted, overflow) = sibling.claim(key, resumed);
                metrics.dedup_overflows.inc_by(overflow);
                if granted {
                    return true;
                }
                self.engine.repeated();
            }
        }
        self.observe();
        false
    }

    /// The event that was just given says nothing. What stands in a replay for an event of another
    /// stream does not move this one.
    pub(crate) fn take_nothing(&mut self) {
        if self.engine.is_resumed() {
            self.engine.leave();
        } else {
            self.engine.skip();
        }
    }

    /// An event only gave its id: on a first connection that is an id of the session.
    pub(super) fn note_id(&self) {
        if let (Some(sibling), Some(key)) = (&self.sibling, self.engine.key())
            && !self.engine.is_resumed()
        {
            let (_, overflow) = sibling.claim(key, false);
            let metrics = &self.shared.counters.metrics;
            metrics.dedup_overflows.inc_by(overflow);
        }
    }
}
