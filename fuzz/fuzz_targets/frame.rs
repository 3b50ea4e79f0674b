//! Whatever bytes a peer sends as a message: no panic, the bytes stay as they are, and what is
//! replaced is replaced alone.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shadowcat_mcp::handshake::{DiscoverResult, InitializeResult, Offer};
use shadowcat_mcp::inspect::{self, ProgressToken};
use shadowcat_mcp::message::{Kind, Message, Payload, RequestId};
use shadowcat_mcp::version::{Era, VersionPolicy};
use shadowcat_mcp::{build, classify, fault};

fuzz_target!(|data: &[u8]| {
    let raw = Bytes::copy_from_slice(data);
    match Payload::parse(raw.clone()) {
        Ok(Payload::Single(message)) => {
            assert_eq!(message.raw(), &raw);
            check(&message);
        }
        Ok(Payload::Batch(messages)) => {
            assert!(!messages.is_empty());
            for message in messages {
                let (start, end) = (data.len(), message.raw().len());
                assert!(end < start, "the array's brackets are no part of a message");
                check(&message);
            }
        }
        Err(error) => {
            assert!(matches!(error.code(), -32700 | -32600));
            let _ = error.to_string();
        }
    }
});

fn check(message: &Message) {
    let again = Message::parse(message.raw().clone()).expect("a message is one");
    assert_eq!(&again, message);
    line(message);
    for id in [
        RequestId::Integer(7),
        RequestId::String("n\"\\\u{7}é".into()),
    ] {
        renumbered(message, &id);
    }
    rewritten(message);
    read(message);
}

/// A line says the same without a line's end.
fn line(message: &Message) {
    let line = message.as_line();
    assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    let again = Message::parse(line).expect("a line is a message");
    assert_eq!(again.kind(), message.kind());
}

/// Another id, and nothing else.
fn renumbered(message: &Message, id: &RequestId) {
    let changed = message.with_id(id);
    let again = Message::parse(changed.raw().clone()).expect("still a message");
    assert_eq!(again, changed);
    assert_eq!(again.body(), message.body());
    if matches!(message.kind(), Kind::Notification { .. }) {
        assert_eq!(changed.raw(), message.raw());
        return;
    }
    assert_eq!(changed.id(), Some(id));
    if let (Some(before), Some(mut after)) = (value(message), value(&changed)) {
        after["id"] = before["id"].clone();
        let before = match before.get("id") {
            Some(_) => before,
            None => with_null_id(before),
        };
        assert_eq!(before, after);
    }
}

fn value(message: &Message) -> Option<Value> {
    // Numbers beyond a double's range are JSON, but no `Value`.
    serde_json::from_slice(message.raw()).ok()
}

fn with_null_id(mut message: Value) -> Value {
    message["id"] = Value::Null;
    message
}

/// Tokens and ids in the body, each replaced and found again.
fn rewritten(message: &Message) {
    let id = RequestId::Integer(-4);
    let token = ProgressToken::from_id(id.clone());
    let changes: [(bool, Message); 4] = [
        (
            inspect::requested_progress_token(message).is_some(),
            inspect::with_requested_progress_token(message, &token),
        ),
        (
            inspect::progress_token(message).is_some(),
            inspect::with_progress_token(message, &token),
        ),
        (
            inspect::cancelled_id(message).is_some(),
            inspect::with_cancelled_id(message, &id),
        ),
        (
            inspect::subscription_id(message).is_some(),
            inspect::with_subscription_id(message, &id),
        ),
    ];
    for (n, (there, changed)) in changes.into_iter().enumerate() {
        let again = Message::parse(changed.raw().clone()).expect("still a message");
        assert_eq!(again, changed);
        assert_eq!(changed.kind(), message.kind());
        if !there {
            assert_eq!(changed.raw(), message.raw());
            continue;
        }
        let found = match n {
            0 => inspect::requested_progress_token(&changed) == Some(token.clone()),
            1 => inspect::progress_token(&changed) == Some(token.clone()),
            2 => inspect::cancelled_id(&changed).as_ref() == Some(&id),
            _ => inspect::subscription_id(&changed).as_ref() == Some(&id),
        };
        assert!(found, "change {n}");
    }
}

/// Everything that reads a message.
fn read(message: &Message) {
    let policy = VersionPolicy::default();
    let _ = inspect::claim(message);
    let _ = inspect::resource_uri(message);
    let _ = inspect::tool_name(message);
    let _ = inspect::routing_name(message);
    let _ = inspect::error_code(message);
    let _ = inspect::error_text(message);
    let _ = inspect::is_own_fault(message);
    let _ = inspect::is_modern_response(message);
    let _ = inspect::may_refuse_legacy(message);
    let _ = inspect::repeatable_tools(message);
    let _ = build::is_coalescible(message);
    let _ = fault::status_of_answer(Era::Modern, message);
    let _ = classify::stdio(message, None, &policy);
    let _ = classify::stdio(message, Some(Era::Modern), &policy);
    let _ = classify::decides_era(message);
    let _ = Offer::read(message).map(|offer| offer.version().to_owned());
    if let Ok(result) = InitializeResult::read(message) {
        let _ = (result.version(), result.list_changes().count());
    }
    let _ = DiscoverResult::read(message);
    let _ = format!("{message:?}");
}
