//! Coming back: when to connect again, from where, and when not to.
//!
//! Three values, three questions. [`classify`](classify()) says what a failure means,
//! [`Policy`] and [`backoff`] how long to wait, an [`Origin`] whether there is room for one more.
//! An [`Engine`] asks them for one stream and keeps what the stream knows: its cursor, what it
//! brought already, how it was treated by the server.
//!
//! Nothing here has a clock or a socket. The shell owns the connection, tells the engine what
//! becomes of it, and asks what to do:
//!
//! ```
//! use std::task::Waker;
//! use std::time::{Duration, Instant};
//! use bytes::Bytes;
//! use shadowcat_sse::reconnect::{
//!     Action, Engine, Input, Kind, Opening, Origin, Policy, Trouble, Verdict,
//! };
//! use shadowcat_sse::{Decoder, Item, Limits};
//!
//! # let start = Instant::now();
//! # let mut clock = start;
//! # // A server in two connections: it breaks, then repeats its last event before it goes on.
//! # let mut connections = vec!["id: 2\ndata: two\n\nid: 3\ndata: three\n\n", "id: 1\ndata: one\n\nid: 2\ndata: two\n\n"];
//! # let mut asked = Vec::new();
//! # let mut received: Vec<String> = Vec::new();
//! let mut engine = Engine::new(Kind::Standalone, Policy::default(), 7);
//! let mut origin = Origin::default(); // one per server, behind a lock in a real shell
//! let mut decoder = Decoder::default();
//! let mut body: Option<Bytes> = None; // a real shell has a response here
//!
//! loop {
//! #   if connections.is_empty() && body.is_none() && received.len() == 3 { break }
//!     let now = clock; // `Instant::now()`
//!     match engine.poll(now, &mut origin, Waker::noop()) {
//!         Action::Connect(attempt) => {
//!             // Send the request; `Last-Event-ID` is the cursor.
//!             let Opening::Get(cursor) = attempt.opening else { unreachable!() };
//! #           asked.push(cursor.map(|cursor| cursor.as_bytes().to_vec()));
//!             decoder = Decoder::new(Limits::default());
//! #           body = connections.pop().map(Bytes::from);
//!             engine.handle(now, &mut origin, Input::Opened)?; // or `Input::Failed(...)`
//!         }
//!         Action::Read(_until) => match body.take() {
//!             Some(chunk) => {
//!                 engine.received(now);
//!                 decoder.push(chunk);
//!                 while let Some(item) = decoder.next_item()? {
//!                     if engine.item(now, &item)? == Verdict::Deliver {
//!                         let Item::Event(event) = item else { unreachable!() };
//! #                       received.push(String::from_utf8(event.data.to_vec())?);
//!                         // Hand the event over. Only when it was accepted:
//!                         engine.commit();
//!                     }
//!                 }
//!             }
//!             None => engine.handle(now, &mut origin, Input::Failed(Trouble::Reset))?,
//!         },
//!         Action::AwaitHead(until) | Action::Wait(until) => {
//!             // Sleep until then, or until woken.
//! #           clock = until.unwrap_or(clock + Duration::from_secs(1));
//!         }
//!         Action::Finish(_) => break,
//!     }
//! }
//! # assert_eq!(received, ["one", "two", "three"]);
//! # assert_eq!(asked, [None, Some(b"2".to_vec())]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A reader that is pulled commits when it is asked for the next item: being asked is the proof
//! that the last one was accepted. `poll` is called before each wait, never in between: what it
//! says while the stream is open is from when on the silence counts.

pub mod backoff;
pub mod classify;
pub mod cursor;
mod dedup;
mod engine;
pub mod fault;
pub mod hint;
pub mod origin;
pub mod policy;
pub mod session_window;

pub use classify::{Decision, Facts, Leg, Parking, Refusal, Trouble, classify, may_follow};
pub use cursor::Cursor;
pub use dedup::{Digests, EventKey};
pub use engine::{
    Action, Attempt, Cause, Counters, Engine, Finish, Health, Input, Kind, Liveness, Opening,
    StateName, Transition, Unexpected, Verdict,
};
pub use fault::{Executed, Fault, FaultKind};
pub use origin::{Lend, Origin, OriginPolicy, OriginSummary};
pub use policy::Policy;
pub use session_window::SessionWindow;
