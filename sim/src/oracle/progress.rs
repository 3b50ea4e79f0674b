//! What a client is told of its call's progress: it increases with each notification, whichever
//! execution makes it (MCP specification, "Progress").

use super::JudgedCall;
use crate::ledger::Mark;

impl JudgedCall<'_> {
    pub(super) fn judge_progress(&self, found: &mut Vec<String>) {
        let value = |mark: &Mark| self.call.progress.get(mark);
        let told: Vec<_> = (self.call.got.iter())
            .filter_map(|(_, mark)| value(mark))
            .collect();
        for pair in told.windows(2) {
            if pair[1] <= pair[0] {
                let (key, before, after) = (self.key, pair[0], pair[1]);
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
