//! Whatever header fields a peer sends: no panic, nothing passes that must not, and what is encoded
//! is decoded again.
//!
//! Input: lines `name: value`, an empty line, a message.

#![no_main]

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use shadowcat_mcp::classify::{self, Classified};
use shadowcat_mcp::headers;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_mcp::origin::Access;
use shadowcat_mcp::version::{Era, ProtocolVersion, VersionPolicy};

fuzz_target!(|data: &[u8]| {
    let (headers, body) = read(data);
    fields(&headers);
    for era in [Era::Legacy, Era::Modern] {
        for forward_auth in [false, true] {
            upstream(&headers, era, forward_auth);
            downstream(&headers, forward_auth);
        }
    }
    if let Ok(payload) = Payload::parse(body) {
        judged(&headers, &payload);
        if let Payload::Single(message) = payload {
            routing(&message);
        }
    }
});

fn read(data: &[u8]) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let Some(colon) = colon else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(rest))
}

fn fields(headers: &HeaderMap) {
    if let Ok(Some(id)) = headers::client_session_id(headers) {
        assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        let shown = format!("{id:?}");
        assert!(!shown.contains(id.as_str()) || "ClientSessionId(…)".contains(id.as_str()));
        let mut told = HeaderMap::new();
        headers::insert_session_id(&mut told, &id);
        assert_eq!(
            told.get(headers::SESSION_ID),
            headers.get(headers::SESSION_ID)
        );
    }
    if headers::accepts_json_and_events(headers) {
        assert!(headers::accepts_events(headers));
    }
    let _ = headers::last_event_id(headers);
    let _ = headers::version(headers);
    assert!(!(headers::is_json(headers) && headers::is_event_stream(headers)));
    let _ = classify::bodiless(headers);
    for version in ProtocolVersion::ALL {
        let _ = classify::check_version(headers::version(headers), Some(version));
    }
    let access = Access {
        origins: vec!["https://app.example".into()],
        hosts: vec!["app.example".into()],
    };
    let _ = access.check_origin(headers);
    let _ = access.check_host(None, headers);
    let _ = access.check_host(Some("127.0.0.1:8080"), headers);
}

/// What RFC 9110 (7.6.1) keeps to one connection, and what `Connection` names.
fn hop_by_hop(headers: &HeaderMap) -> HashSet<String> {
    let known = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    ];
    let values = headers.get_all("connection").iter();
    let named = values.filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(','));
    let named = named.map(|name| name.trim().to_ascii_lowercase());
    known.into_iter().map(str::to_owned).chain(named).collect()
}

fn upstream(headers: &HeaderMap, era: Era, forward_auth: bool) {
    let passed = headers::to_upstream(headers, era, forward_auth);
    passes(headers, &passed);
    let credentials = ["authorization", "cookie"];
    let secret = credentials.iter().any(|name| passed.contains_key(*name));
    assert!(forward_auth || !secret);
    for name in passed.keys().map(HeaderName::as_str) {
        let param = era == Era::Modern && name.starts_with("mcp-param-");
        assert!(param || !name.starts_with("mcp-"), "{name}");
    }
    assert_eq!(headers::to_upstream(&passed, era, forward_auth), passed);
}

fn downstream(headers: &HeaderMap, forward_auth: bool) {
    let passed = headers::to_client(headers, forward_auth);
    passes(headers, &passed);
    let secrets = ["set-cookie", "www-authenticate", "authorization"];
    let secret = secrets.iter().any(|name| passed.contains_key(*name));
    assert!(forward_auth || !secret);
    assert!(!passed.contains_key(headers::SESSION_ID));
    assert_eq!(headers::to_client(&passed, forward_auth), passed);
}

/// What passes was there, with all its values in their order, and belongs to no connection.
fn passes(all: &HeaderMap, passed: &HeaderMap) {
    let kept = hop_by_hop(all);
    for name in passed.keys() {
        assert!(!kept.contains(name.as_str()), "{name} passed");
        let before = all.get_all(name).iter();
        assert!(before.eq(passed.get_all(name).iter()), "{name} changed");
    }
}

fn judged(headers: &HeaderMap, payload: &Payload) {
    let policy = VersionPolicy::default();
    if let Classified::Rejected(rejection) = classify::post(headers, payload, &policy) {
        assert!(rejection.status().is_client_error());
        let _ = (rejection.code(), rejection.header());
        let response = rejection.to_response(None);
        Message::parse(response.raw().clone()).expect("our own error is a message");
    }
    if let Payload::Single(message) = payload {
        let _ = classify::check_initialize(headers::version(headers), message);
    }
}

/// The routing headers that we make say what the body says.
fn routing(message: &Message) {
    let mut made = HeaderMap::new();
    headers::insert_routing(&mut made, message);
    let name = inspect::routing_name(message);
    let header = made.get(headers::NAME).and_then(headers::decoded);
    assert_eq!(header.as_deref(), name.as_deref());
    if let Some(method) = made.get(headers::METHOD) {
        let method = method.to_str().expect("visible ASCII");
        assert_eq!(Some(method), message.method().map(|method| method.as_str()));
    }
}
