//! The stream of messages that belong to no request: a GET on the endpoint.
//!
//! It comes back for as long as the session lives. It ends for good where the server offers none
//! in this session (405 and other refusals), and with a lost session, which the reader learns.

use std::sync::Arc;

use shadowcat_sse::reconnect::{Kind, Opening};

use super::client::Connected;
use super::driver::{Driver, Messages, Opened, Opener};
use super::session::Session;
use crate::upstream::{BoxFuture, Incoming};

/// Opens the stream, and waits for what the first attempt came to; `None` where the server offers
/// none.
pub(crate) async fn open(session: Arc<Session>) -> Option<Incoming> {
    let shared = Arc::clone(&session.shared);
    let sibling = session.siblings.join(None);
    let opener = Box::new(Gets(session));
    let mut driver = Box::new(Driver::new(shared, Kind::Standalone, opener, None));
    driver.set_sibling(sibling);
    let offered = driver.settled().await;
    offered.then(|| Incoming::new(Messages::new(driver)))
}

struct Gets(Arc<Session>);

impl Opener for Gets {
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        let cursor = match opening {
            Opening::Get(cursor) => cursor.map(|cursor| cursor.header_value().clone()),
            _ => None,
        };
        self.0.get(self.0.plain_headers(), cursor, connected)
    }
}
