use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Message, ParseError> {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()))
}

fn kind_of(text: &str) -> Kind {
    parse(text).unwrap().kind().clone()
}

#[test]
fn the_four_kinds_are_told_apart() {
    let id = RequestId::Integer(7);
    assert_eq!(
        kind_of(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#),
        Kind::Request {
            id: id.clone(),
            method: Method::Ping
        }
    );
    assert_eq!(
        kind_of(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        Kind::Notification {
            method: Method::Initialized
        }
    );
    assert_eq!(
        kind_of(r#"{"result":null,"id":7,"jsonrpc":"2.0"}"#),
        Kind::Response { id }
    );
    assert_eq!(
        kind_of(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#),
        Kind::Error { id: None }
    );
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for bad in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":3}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#,
        "[]",
        r#"["2.0",1,"ping"]"#,
        "1",
        "null",
    ] {
        assert_eq!(parse(bad).unwrap_err().code(), -32600, "{bad}");
    }
    for bad in ["", "{", "{}{}", "nonsense", "{\"jsonrpc\":\"2.0\",}"] {
        assert_eq!(parse(bad).unwrap_err().code(), -32700, "{bad}");
    }
    assert_eq!(
        Message::parse(Bytes::from_static(b"\xff"))
            .unwrap_err()
            .code(),
        -32700
    );
}

#[test]
fn what_is_wrong_is_said_under_the_request_s_id() {
    for (bad, id) in [
        (r#"{"jsonrpc":"2.0","id":5,"method":7}"#, Some(5)),
        (r#"{"jsonrpc":2.0,"id":5,"method":"ping"}"#, Some(5)),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"x","params":1}"#,
            Some(5),
        ),
        (r#"{"jsonrpc":"2.0","id":5,"id":6,"method":"ping"}"#, None),
        ("[]", None),
    ] {
        let Err(ParseError::Invalid(_, found)) = parse(bad) else {
            panic!("{bad}")
        };
        assert_eq!(found, id.map(RequestId::Integer), "{bad}");
    }
}

#[test]
fn nesting_is_bounded() {
    // The message and its params are two levels.
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 2), "]".repeat(depth - 2));
        parse(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{open}{close}}}}}"#
        ))
    };
    assert!(nested(MAX_DEPTH).is_ok());
    let error = nested(MAX_DEPTH + 1).unwrap_err();
    assert_eq!(error.code(), -32600);
    assert!(error.to_string().contains(&MAX_DEPTH.to_string()));
    assert!(nested(1_000_000).is_err());
}

#[test]
fn escaped_names_are_the_same_names() {
    assert_eq!(
        kind_of(r#"{"jsonrpc":"2\u002e0","\u0069d":1,"method":"tools\/call"}"#),
        Kind::Request {
            id: RequestId::Integer(1),
            method: Method::ToolsCall
        }
    );
}

#[test]
fn elements_of_a_batch_are_messages_themselves() {
    for bad in [
        r#"[["2.0",1,"ping"]]"#,
        r#"[[{"jsonrpc":"2.0","method":"x"}]]"#,
        "[1]",
    ] {
        let error = Payload::parse(Bytes::from_static(bad.as_bytes())).unwrap_err();
        assert_eq!(error.code(), -32600, "{bad}");
    }
}

#[test]
fn a_batch_shares_its_bytes() {
    let raw = Bytes::from_static(
        br#" [ {"jsonrpc":"2.0","id":1,"method":"ping"} , {"jsonrpc":"2.0","method":"x"} ] "#,
    );
    let Payload::Batch(messages) = Payload::parse(raw).unwrap() else {
        panic!("no batch")
    };
    assert_eq!(
        messages[1].raw().as_ref(),
        br#"{"jsonrpc":"2.0","method":"x"}"#
    );
    assert_eq!(
        Payload::parse(Bytes::from_static(b"[]")).unwrap_err(),
        ParseError::EmptyBatch
    );
    let many = format!(
        "[{}]",
        vec![r#"{"jsonrpc":"2.0","method":"x"}"#; MAX_BATCH + 1].join(",")
    );
    assert_eq!(
        Payload::parse(many.into()).unwrap_err(),
        ParseError::BatchTooLong
    );
}

#[test]
fn a_pretty_printed_message_fits_a_line() {
    let message = parse("{\r\n \"jsonrpc\": \"2.0\",\n \"method\": \"x\"\n}").unwrap();
    let line = message.as_line();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    assert_eq!(Message::parse(line).unwrap().kind(), message.kind());
}

#[test]
fn an_error_without_the_member_gets_an_id() {
    let error = parse(r#" {"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#).unwrap();
    let first = error.with_id(&RequestId::String("a".into()));
    assert_eq!(
        first.raw().as_ref(),
        br#" {"id":"a","jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#
    );
    assert_eq!(first.body(), error.body());
    let second = first.with_id(&RequestId::Integer(10));
    assert_eq!(
        parse(std::str::from_utf8(second.raw()).unwrap()),
        Ok(second)
    );
}

#[test]
fn the_id_can_stand_after_the_body() {
    let message = parse(r#"{"jsonrpc":"2.0","params":{"a":[1]},"method":"x","id":1}"#).unwrap();
    let changed = message.with_id(&RequestId::String("long-id".into()));
    assert_eq!(
        changed.raw().as_ref(),
        br#"{"jsonrpc":"2.0","params":{"a":[1]},"method":"x","id":"long-id"}"#
    );
    assert_eq!(changed.body(), Some(r#"{"a":[1]}"#));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".*".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::hash_map("[a-z_]{0,6}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Payload::parse(bytes.into());
    }

    #[test]
    fn a_message_spoilt_anywhere_never_panics(
        at in 0_usize..90, byte: u8, cut: bool, batch: bool,
    ) {
        let text = r#"{"jsonrpc":"2.0","id":"\u0041","method":"x","params":{"_meta":{"progressToken":1}}}"#;
        let mut bytes = if batch { format!("[{text},{text}]") } else { text.to_owned() }.into_bytes();
        if let Some(spoilt) = bytes.get_mut(at) {
            *spoilt = byte;
        }
        if cut {
            bytes.truncate(at);
        }
        match Payload::parse(bytes.clone().into()) {
            Ok(Payload::Single(message)) => {
                prop_assert_eq!(message.raw().as_ref(), &bytes[..]);
                let _ = message.with_id(&RequestId::Integer(7)).as_line();
            }
            Ok(Payload::Batch(messages)) => prop_assert_eq!(messages.len(), 2),
            Err(error) => prop_assert!(matches!(error.code(), -32700 | -32600)),
        }
    }

    #[test]
    fn any_object_around_a_message_keeps_its_bytes(
        extra in proptest::collection::hash_map("x[a-z_]{0,6}", json(), 0..6), id: i64, pretty: bool,
    ) {
        let mut members: serde_json::Map<_, _> = extra.into_iter().collect();
        members.insert("jsonrpc".into(), "2.0".into());
        members.insert("id".into(), id.into());
        members.insert("result".into(), serde_json::Value::Null);
        let value = serde_json::Value::Object(members);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let message = parse(&text).unwrap();
        prop_assert_eq!(message.raw().as_ref(), text.as_bytes());
        prop_assert_eq!(message.id(), Some(&RequestId::Integer(id)));
        let line: serde_json::Value = serde_json::from_slice(&message.as_line()).unwrap();
        prop_assert_eq!(line, value);
    }

    #[test]
    fn a_batch_is_the_messages_that_stand_in_it(
        results in proptest::collection::vec(json(), 1..8), gap in "[ \t\r\n]{0,3}",
    ) {
        let message = |(id, result): (usize, &serde_json::Value)| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
        };
        let texts: Vec<_> = results.iter().enumerate().map(message).collect();
        let inside = texts.join(&format!("{gap},{gap}"));
        let batch = format!("{gap}[{gap}{inside}{gap}]{gap}");
        let Payload::Batch(messages) = Payload::parse(batch.into()).unwrap() else {
            panic!("no batch")
        };
        let raw: Vec<_> = messages.iter().map(|message| message.raw().as_ref()).collect();
        let texts: Vec<_> = texts.iter().map(|text| text.as_bytes()).collect();
        prop_assert_eq!(raw, texts);
    }

    #[test]
    fn a_changed_id_changes_nothing_else(
        params in proptest::collection::hash_map("[a-z]{1,4}", json(), 0..4),
        first: i64,
        second in ".{0,12}",
        pretty: bool,
    ) {
        let value = serde_json::json!({
            "jsonrpc": "2.0", "id": first, "method": "tools/call", "params": params, "extra": [1],
        });
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let message = parse(&text).unwrap();
        prop_assert_eq!(message.raw().as_ref(), text.as_bytes());
        let id = RequestId::String(second.as_str().into());
        let changed = message.with_id(&id);
        let reparsed = Message::parse(changed.raw().clone()).unwrap();
        prop_assert_eq!(reparsed.kind(), changed.kind());
        prop_assert_eq!(reparsed.body(), message.body());
        let back = changed.with_id(&RequestId::Integer(first));
        prop_assert_eq!(back.raw(), message.raw());
    }
}
