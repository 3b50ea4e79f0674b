//! The answer to a modern POST as an event stream: dropping it drops the exchange, which is the
//! cancel.

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use shadowcat_transport::downstream::EventBytes;

use super::keep_alive::{COMMENT, KeepAlive};
use super::{CHUNK, write};
use crate::session::{Outgoing, Outgoings, Shared};

/// Carries an exchange. `first` is an item that was already taken.
pub(in super::super) fn modern(
    shared: &Shared,
    outgoings: Outgoings,
    first: Option<Outgoing>,
) -> EventBytes {
    let modern = Modern {
        keep_alive: KeepAlive::new(shared),
        outgoings,
        first,
        over: false,
    };
    Box::pin(futures_util::stream::unfold(
        modern,
        |mut modern| async move { modern.next().await.map(|bytes| (bytes, modern)) },
    ))
}

struct Modern {
    outgoings: Outgoings,
    first: Option<Outgoing>,
    keep_alive: KeepAlive,
    over: bool,
}

impl Modern {
    async fn next(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        if let Some(first) = self.first.take() {
            self.encode(Some(first), &mut bytes);
        }
        while !self.over && bytes.len() < CHUNK {
            match self.outgoings.next().now_or_never() {
                Some(outgoing) => self.encode(outgoing, &mut bytes),
                None => break,
            }
        }
        while bytes.is_empty() && !self.over {
            tokio::select! {
                biased;
                outgoing = self.outgoings.next() => self.encode(outgoing, &mut bytes),
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
        self.keep_alive.sent();
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    fn encode(&mut self, outgoing: Option<Outgoing>, bytes: &mut BytesMut) {
        self.over = outgoing.as_ref().is_none_or(Outgoing::is_last);
        if let Some(message) = outgoing.and_then(Outgoing::into_message) {
            write(bytes, None, &message.as_line());
        }
    }
}
