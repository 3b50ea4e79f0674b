//! Under which request something is logged, found out when something is.
//!
//! Nearly all requests are answered without a line in the log, and a span costs more than anything
//! else that is done for such a request here. So what works on a request carries the means to make
//! its span; a line about trouble on the way makes it. Where debugging is on for anything at all,
//! its lines want it, and it is there from the start.

use std::sync::{Arc, OnceLock};

use shadowcat_mcp::message::RequestId;
use shadowcat_mcp::method::Method;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

tokio::task_local! {
    /// The request that is being worked on.
    static CURRENT: Arc<RequestSpan>;
}

/// The span of one request; see the [module](self).
pub struct RequestSpan {
    /// Shared: a clone of a span is counted where all threads do.
    session: Arc<Span>,
    id: RequestId,
    method: Method,
    span: OnceLock<Span>,
}

impl RequestSpan {
    /// The span of a request in its session's.
    #[must_use]
    pub fn new(session: &Arc<Span>, id: &RequestId, method: &Method) -> Arc<Self> {
        Arc::new(Self {
            session: Arc::clone(session),
            id: id.clone(),
            method: method.clone(),
            span: OnceLock::new(),
        })
    }

    /// Does `work` on the request's behalf: what it logs by [`in_request`] stands in its span.
    pub fn scope<T>(self: Arc<Self>, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let span = match LevelFilter::current() >= LevelFilter::DEBUG {
            true => self.span().clone(),
            false => Span::none(),
        };
        CURRENT.scope(self, work.instrument(span))
    }

    fn span(&self) -> &Span {
        let Self {
            session,
            id,
            method,
            span,
        } = self;
        span.get_or_init(|| tracing::error_span!(parent: &**session, "request", %id, %method))
    }
}

/// Logs a line in the span of the request that is being worked on, if one is. For every line at
/// info and above that may stand in a request's way.
pub fn in_request(log: impl FnOnce()) {
    in_span_of(current().as_deref(), log);
}

/// The request that is being worked on, for who has to tell of it elsewhere.
pub(crate) fn current() -> Option<Arc<RequestSpan>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Logs a line in the span of a request, if there is one.
pub(crate) fn in_span_of(request: Option<&RequestSpan>, log: impl FnOnce()) {
    match request {
        Some(request) => request.span().in_scope(log),
        None => log(),
    }
}
