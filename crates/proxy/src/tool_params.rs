//! What is known of the server's tools where one side has headers and the other has none.
//!
//! A modern client mirrors some arguments of a `tools/call` into headers, as the tool's definition
//! says (2026-07-28, "Custom Headers from Tool Parameters"). Before a stdio server the proxy is the
//! only one that can check them; behind a stdio client it is the only one that can make them. Both
//! need the definitions, so the proxy lists the tools itself, when the first call needs it and then
//! not often. What cannot be learnt is not checked: the server answers the call either way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::tool_params::{MirroredParams, ToolPage};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::session::{Outgoing, Session};

/// How long the server may take to list its tools; a call waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// A list of this age is asked for again, whatever it says.
const MAX_AGE: Duration = Duration::from_secs(300);
/// A list of this age is asked for again when a call does not fit it.
const MIN_AGE: Duration = Duration::from_secs(10);
/// Pages of one list.
const MAX_PAGES: usize = 100;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct ToolParams(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tools: HashMap<String, MirroredParams>,
    asked: Option<Instant>,
}

impl ToolParams {
    /// Compares the headers of a call with its arguments.
    ///
    /// # Errors
    /// The header that does not fit.
    pub(crate) async fn check(
        &self,
        session: &Arc<Session>,
        headers: &HeaderMap,
        call: &Message,
    ) -> Result<(), Rejection> {
        let Some(tool) = inspect::tool_name(call) else {
            return Ok(());
        };
        let mut known = self.0.lock().await;
        let checked = known.params(session, &tool).await.check(headers, call);
        if checked.is_ok() || known.is_younger_than(MIN_AGE) {
            return checked;
        }
        known.ask(session).await;
        known.params(session, &tool).await.check(headers, call)
    }

    /// The headers that a call must carry.
    pub(crate) async fn headers(&self, session: &Arc<Session>, call: &Message) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(tool) = inspect::tool_name(call) {
            let mut known = self.0.lock().await;
            let params = known.params(session, &tool).await;
            params.insert(&mut headers, call);
        }
        headers
    }
}

impl Known {
    async fn params(&mut self, session: &Arc<Session>, tool: &str) -> MirroredParams {
        let enough = match self.tools.contains_key(tool) {
            true => MAX_AGE,
            false => MIN_AGE,
        };
        if !self.is_younger_than(enough) {
            self.ask(session).await;
        }
        self.tools.get(tool).cloned().unwrap_or_default()
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < age)
    }

    /// Lists the tools; keeps what was known if the server does not say.
    async fn ask(&mut self, session: &Arc<Session>) {
        if let Ok(Some(tools)) = timeout(PATIENCE, list(session)).await {
            self.tools = tools;
        }
        self.asked = Some(Instant::now());
    }
}

async fn list(session: &Arc<Session>) -> Option<HashMap<String, MirroredParams>> {
    let mut tools = HashMap::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let page = page(session, build::list_tools(cursor.as_deref())).await?;
        tools.extend(page.tools);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Some(tools);
        }
    }
    Some(tools)
}

async fn page(session: &Arc<Session>, request: Message) -> Option<ToolPage> {
    let Kind::Request { id, .. } = request.kind() else {
        return None;
    };
    let id = id.clone();
    let headers = HeaderMap::new();
    let mut outgoings = session.request_untracked(request, id, Method::ToolsList, headers);
    loop {
        match outgoings.next().await? {
            Outgoing::Response { message, .. } => return ToolPage::read(&message),
            last if last.is_last() => return None,
            _ => {}
        }
    }
}
