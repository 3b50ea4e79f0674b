//! JSON-RPC without its boilerplate.

use bytes::Bytes;
use shadowcat_mcp::message::{Message, Payload};

pub fn parse(json: &str) -> Message {
    Message::parse(Bytes::from(json.to_owned())).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// A message from an object without its `jsonrpc`.
pub fn message(json: &str) -> Message {
    parse(&versioned(json))
}

/// A message, or an array of them.
pub fn payload(json: &str) -> Payload {
    let json = if json.starts_with('[') {
        json.to_owned()
    } else {
        versioned(json)
    };
    Payload::parse(Bytes::from(json)).expect("a payload")
}

pub fn versioned(json: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{}"#, &json[1..])
}

pub fn text(message: &Message) -> String {
    String::from_utf8(message.raw().to_vec()).expect("UTF-8")
}
