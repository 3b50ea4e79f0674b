use proptest::prelude::*;

use super::*;

#[test]
fn detached_fields_are_the_same_fields() {
    let mut headers = HeaderMap::new();
    headers.append("x-tag", HeaderValue::from_static("one"));
    headers.append("x-tag", HeaderValue::from_bytes(b"tw\xf6").unwrap());
    let mut secret = HeaderValue::from_static("Bearer s3cret");
    secret.set_sensitive(true);
    headers.insert(http::header::AUTHORIZATION, secret);
    let own = detached(&headers);
    assert_eq!(own, headers);
    assert!(own[http::header::AUTHORIZATION].is_sensitive());
}

fn with(name: &'static str, values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn accept_needs_both_types_and_knows_wildcards() {
    for (values, both) in [
        (&["application/json, text/event-stream"][..], true),
        (&["text/event-stream", "application/json;q=0.5"], true),
        (&["*/*"], true),
        (&["application/*, text/*"], true),
        (&["APPLICATION/JSON , Text/Event-Stream;q=1"], true),
        (&["application/json"], false),
        (&["text/event-stream"], false),
        (&["*/*, text/event-stream;q=0"], false),
        (&["*/*;q=0"], false),
        (&["text/html"], false),
        (&[""], false),
        (&[], false),
    ] {
        assert_eq!(
            accepts_json_and_events(&with("accept", values)),
            both,
            "{values:?}"
        );
    }
}

#[test]
fn two_different_versions_are_no_version() {
    let name = "mcp-protocol-version";
    assert_eq!(version(&with(name, &[])), VersionHeader::Absent);
    let known = VersionHeader::Known(ProtocolVersion::V2025_06_18);
    assert_eq!(version(&with(name, &["2025-06-18"])), known);
    assert_eq!(version(&with(name, &["2025-06-18", "2025-06-18"])), known);
    let both = with(name, &["2025-06-18", "2025-11-25"]);
    assert_eq!(
        version(&both),
        VersionHeader::Unknown("2025-06-18, 2025-11-25".into())
    );
}

#[test]
fn a_session_id_is_visible_ascii_and_masked() {
    let name = "mcp-session-id";
    for bad in ["", "a b", "caf\u{e9}"] {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
        assert_eq!(
            client_session_id(&headers),
            Err(Rejection::MalformedSessionId)
        );
    }
    assert_eq!(
        client_session_id(&with(name, &["a", "b"])),
        Err(Rejection::MalformedSessionId)
    );
    let id = client_session_id(&with(name, &["secret"]))
        .unwrap()
        .unwrap();
    assert!(!format!("{id:?}").contains("secret"));
}

#[test]
fn credentials_and_hop_by_hop_fields_stay() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer t"),
        ("cookie", "a=b"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("mcp-session-id", "s"),
        ("mcp-method", "tools/call"),
        ("mcp-param-region", "eu"),
        ("traceparent", "00-1"),
        ("x-custom", "1"),
        ("sec-fetch-mode", "cors"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let names = |era, auth| {
        let kept = to_upstream(&headers, era, auth);
        let mut names: Vec<_> = kept.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(Era::Legacy, false), ["traceparent", "x-custom"]);
    assert_eq!(
        names(Era::Modern, false),
        ["mcp-param-region", "traceparent", "x-custom"]
    );
    assert_eq!(
        names(Era::Legacy, true),
        ["authorization", "cookie", "traceparent", "x-custom"]
    );
}

#[test]
fn names_survive_their_encoding() {
    for (name, header) in [
        ("us-west1", "us-west1"),
        ("Hello, \u{4e16}\u{754c}", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("", ""),
    ] {
        assert_eq!(encoded(name), header);
        let header = HeaderValue::from_str(header).unwrap();
        assert_eq!(decoded(&header).as_deref(), Some(name));
    }
    for bad in ["=?base64?!?=", "=?base64?/w==?=", "caf\u{e9}"] {
        let value = HeaderValue::from_bytes(bad.as_bytes()).unwrap();
        assert_eq!(decoded(&value), None, "{bad}");
    }
}

#[test]
fn routing_headers_come_from_the_body() {
    let message = Message::parse(bytes::Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///\u00e9"}}"#,
    ));
    let mut headers = with("mcp-name", &["stale"]);
    insert_routing(&mut headers, &message.unwrap());
    assert_eq!(headers[METHOD], "resources/read");
    assert_eq!(headers[NAME], "=?base64?ZmlsZTovLy/DqQ==?=");
    let message = Message::parse(bytes::Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":1,"method":"caf\u00e9"}"#,
    ));
    let mut headers = HeaderMap::new();
    insert_routing(&mut headers, &message.unwrap());
    assert!(headers.is_empty(), "no header holds this method");
}

#[test]
fn a_server_s_own_fields_stay_with_its_leg() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("retry-after", "5"),
        ("www-authenticate", "Bearer"),
        ("set-cookie", "a=b"),
        ("mcp-session-id", "s"),
        ("content-type", "application/json"),
        ("access-control-allow-origin", "*"),
        ("x-custom", "1"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let names = |auth| {
        let kept = to_client(&headers, auth);
        let mut names: Vec<_> = kept.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(false), ["retry-after", "x-custom"]);
    assert_eq!(
        names(true),
        ["retry-after", "set-cookie", "www-authenticate", "x-custom"]
    );
}

#[test]
fn content_types_are_compared_by_their_essence() {
    for (value, json) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/json-rpc", false),
        ("text/plain", false),
        ("", false),
    ] {
        assert_eq!(is_json(&with("content-type", &[value])), json, "{value}");
    }
    assert!(!is_json(&HeaderMap::new()));
}

/// Names that mean something to a proxy, and others.
fn name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "connection",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
        "host",
        "authorization",
        "cookie",
        "set-cookie",
        "www-authenticate",
        "mcp-session-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-param-region",
        "last-event-id",
        "sec-fetch-mode",
        "access-control-allow-origin",
        "traceparent",
    ]);
    prop_oneof![known.prop_map(str::to_owned), "x-[a-c]"]
}

fn some_headers() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![
        "[ -~]{0,12}",
        "(close|x-[a-c]|mcp-param-region)(, x-[a-c]){0,2}"
    ];
    prop::collection::vec((name(), value), 0..12).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(&value).unwrap());
        }
        headers
    })
}

fn eras() -> impl Strategy<Value = Era> {
    prop::sample::select(vec![Era::Legacy, Era::Modern])
}

proptest! {
    #[test]
    fn any_name_survives_its_encoding(name: String) {
        let header = HeaderValue::from_str(&encoded(&name)).unwrap();
        let back = decoded(&header);
        prop_assert_eq!(back.as_deref(), Some(name.as_str()));
    }

    #[test]
    fn no_value_of_a_field_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        for name in [SESSION_ID, PROTOCOL_VERSION, LAST_EVENT_ID, METHOD, NAME, ACCEPT, CONTENT_TYPE] {
            headers.insert(name, value.clone());
        }
        if let Ok(Some(id)) = client_session_id(&headers) {
            prop_assert_eq!(id.as_str().as_bytes(), value.as_bytes());
        }
        let _ = (version(&headers), last_event_id(&headers), decoded(&value));
        let _ = (accepts_json_and_events(&headers), is_json(&headers));
    }

    /// What passes a proxy passes the next one, with all its values in order; what does not is
    /// gone.
    #[test]
    fn what_passes_was_there_and_passes_again(
        headers in some_headers(), era in eras(), forward_auth: bool,
    ) {
        let up = to_upstream(&headers, era, forward_auth);
        let down = to_client(&headers, forward_auth);
        prop_assert_eq!(&to_upstream(&up, era, forward_auth), &up);
        prop_assert_eq!(&to_client(&down, forward_auth), &down);
        let hop_by_hop = connection_options(&headers);
        for passed in [&up, &down] {
            for name in passed.keys() {
                let (before, after) = (headers.get_all(name).iter(), passed.get_all(name).iter());
                prop_assert!(before.eq(after), "{} changed", name);
                prop_assert!(!hop_by_hop.iter().any(|option| option == name.as_str()), "{}", name);
                prop_assert!(!belongs_to_the_connection(name), "{}", name);
                prop_assert!(forward_auth || !is_credential(name), "{}", name);
            }
        }
        let made_anew = |name: &HeaderName| {
            name.as_str().starts_with("mcp-")
                && !(era == Era::Modern && name.as_str().starts_with(PARAM_PREFIX))
        };
        prop_assert!(!up.keys().any(made_anew));
        prop_assert!(!down.contains_key(SESSION_ID));
    }

    /// More in `Accept` never takes away what was accepted, unless it says so by `q=0`.
    #[test]
    fn what_is_accepted_stays_so_with_more_ranges(
        more in prop::collection::vec("[a-z]{1,5}/([a-z]{1,5}|\\*)(;q=0\\.[1-9])?", 0..4),
        at in 0_usize..3,
    ) {
        let mut ranges = vec!["application/json".to_owned(), "text/event-stream;q=0.2".to_owned()];
        for range in more {
            ranges.insert(at.min(ranges.len()), range);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(&ranges.join(" , ")).unwrap());
        prop_assert!(accepts_json_and_events(&headers));
    }
}
