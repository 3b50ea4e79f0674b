//! What an exchange produces.

use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::Message;
use shadowcat_transport::upstream::BoxFuture;

/// One item of an exchange.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The server answers with an event stream; no message yet.
    StreamOpened {
        /// End-to-end response headers.
        headers: Fields,
    },
    /// A notification or a request of the server.
    Message(Message),
    /// The response, or the error in its place: the last item.
    Response {
        /// The upstream's status, of interest to modern clients.
        status: StatusCode,
        /// End-to-end response headers.
        headers: Fields,
        /// The response.
        message: Message,
    },
    /// An HTTP status in place of the response, for who has not sent one yet: the last item.
    Refused {
        /// The status and what goes with it.
        refusal: Refusal,
        /// The error response for everybody else.
        message: Message,
    },
}

/// See [`Outgoing::Refused`].
#[derive(Debug)]
pub(crate) enum Refusal {
    /// An authentication challenge to be relayed.
    Challenge {
        status: StatusCode,
        headers: Fields,
        body: Bytes,
    },
    /// The client's session is lost with the server's.
    SessionLost,
}

impl Outgoing {
    /// Whether the exchange ends with this item.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Response { .. } | Self::Refused { .. })
    }

    /// The message, where the item's place is a stream that has begun.
    pub(crate) fn into_message(self) -> Option<Message> {
        match self {
            Self::StreamOpened { .. } => None,
            Self::Message(message)
            | Self::Response { message, .. }
            | Self::Refused { message, .. } => Some(message),
        }
    }
}

/// The items of one exchange. Dropping it abandons the request.
pub(crate) type Outgoings = Pin<Box<dyn Stream<Item = Outgoing> + Send + 'static>>;

/// What finds out the headers of a request before it is sent, or the error that it gets in the
/// place of an answer, with its status.
pub(crate) type Preparation = BoxFuture<Result<HeaderMap, (StatusCode, Message)>>;

/// A challenge in words, for a client that cannot be shown its status. It is relayed with
/// `--forward-auth` only.
pub(super) fn challenge(status: StatusCode) -> Fault {
    Fault::new(Side::Upstream, FaultKind::Unauthorized, Executed::No).because(format!(
        "the server answered {status}: it wants other credentials than those of the client, which --forward-auth passes on"
    ))
}
