//! What a client is told of its call's progress: it increases with each notification, whichever
//! execution makes it (MCP specification, "Progress").

use std::time::Duration;

use super::JudgedCall;
use crate::ledger::Mark;
use crate::plan::Transport;

impl JudgedCall<'_> {
    pub(super) fn judge_progress(&self, found: &mut Vec<String>) {
        let value = |mark: &Mark| self.call.progress.get(mark);
        // What a server says of a call that has failed comes with the news of the session, from
        // whichever execution it is.
        let over = (self.call.outcomes.first()).map_or(Duration::MAX, |(at, _)| *at);
        let told: Vec<_> = (self.call.got.iter())
            .filter(|(at, _)| *at <= over)
            .filter_map(|(_, mark)| Some((mark.0, value(mark)?)))
            .collect();
        // Over HTTP+SSE an execution also tells between two sendings, when the call reads nothing.
        let apart = self.plan.server.transport == Transport::Sse;
        for pair in told.windows(2) {
            let [(earlier, before), (later, after)] = [pair[0], pair[1]];
            if after <= before && (earlier == later || !apart) {
                let key = self.key;
                found.push(format!("{key} was told progress {after} after {before}"));
            }
        }
    }

    /// Progress that an earlier execution had made already, as the client was told.
    pub(super) fn is_no_news(&self, mark: Mark) -> bool {
        let value = |mark: &Mark| self.call.progress.get(mark);
        let Some(made) = value(&mark) else {
            return false;
        };
        let mut earlier = (self.call.got.iter()).filter(|(_, told)| told.0 < mark.0);
        earlier.any(|(_, told)| value(told).is_some_and(|told| told >= made))
    }
}
