use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn parse(text: &'static str) -> Message {
    Message::parse(Bytes::from_static(text.as_bytes())).unwrap()
}

#[test]
fn tokens_and_ids_are_replaced_in_place() {
    let request = parse(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"x": 1, "progressToken" : "t" }}}"#,
    );
    let token = ProgressToken::from_id(RequestId::Integer(99));
    let changed = with_requested_progress_token(&request, &token);
    assert_eq!(requested_progress_token(&changed), Some(token.clone()));
    assert_eq!(
        changed.raw().as_ref(),
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"x": 1, "progressToken" : 99 }}}"#
    );
    let progress = parse(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":99,"progress":1}}"#,
    );
    assert_eq!(progress_token(&progress), Some(token));
    let cancelled =
        parse(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#);
    let changed = with_cancelled_id(&cancelled, &RequestId::Integer(3));
    assert_eq!(cancelled_id(&changed), Some(RequestId::Integer(3)));
}

#[test]
fn claims_are_read() {
    let with = |meta: &str| {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{meta}}}}}"#);
        claim(&Message::parse(Bytes::from(text)).unwrap())
    };
    assert_eq!(with("{}"), Claim::None);
    assert_eq!(
        with(
            r#"{"io.modelcontextprotocol/protocolVersion":"v","io.modelcontextprotocol/clientCapabilities":{}}"#
        ),
        Claim::WellFormed {
            version: "v".into()
        }
    );
    for bad in [
        r#"{"io.modelcontextprotocol/protocolVersion":7}"#,
        r#"{"io.modelcontextprotocol/protocolVersion":"v"}"#,
        r#"{"io.modelcontextprotocol/protocolVersion":"v","io.modelcontextprotocol/clientCapabilities":[]}"#,
    ] {
        assert!(matches!(with(bad), Claim::Malformed { .. }), "{bad}");
    }
}

#[test]
fn only_annotated_tools_are_repeatable() {
    let list = parse(
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","annotations":{"readOnlyHint":true}},{"name":"b"},{"name":"c","annotations":{"idempotentHint":true}},{"name":"d","annotations":{}}]}}"#,
    );
    assert_eq!(repeatable_tools(&list), ["a", "c"]);
}

#[test]
fn params_by_position_have_no_names() {
    let request = parse(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[{"progressToken":"t"},"t",1,"uri","name"]}"#,
    );
    assert_eq!(requested_progress_token(&request), None);
    assert_eq!(routing_name(&request), None);
    assert_eq!(claim(&request), Claim::None);
    let meta = parse(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":["t"]}}"#);
    assert_eq!(requested_progress_token(&meta), None);
}

#[test]
fn a_member_that_stands_twice_is_no_value() {
    let call = |params: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        Message::parse(Bytes::from(text)).unwrap()
    };
    for params in [
        r#"{"name":"safe","name":"danger"}"#,
        r#"{"name":"a","_meta":{},"_meta":{}}"#,
        r#"{"name":"a","_meta":{"progressToken":1,"progressToken":2}}"#,
    ] {
        let request = call(params);
        assert_eq!(requested_progress_token(&request), None, "{params}");
        assert_eq!(claim(&request), Claim::None, "{params}");
    }
    let claims = [
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#,
        r#""io.modelcontextprotocol\/protocolVersion":"2026-07-28""#,
        r#""io.modelcontextprotocol/\u0070rotocolVersion":"2026-07-28""#,
    ];
    for claimed in claims {
        for params in [
            format!(r#"{{"name":"safe","name":"danger","_meta":{{{claimed}}}}}"#),
            format!(r#"{{"_meta":{{{claimed}}},"_meta":{{}}}}"#),
            format!(r#"{{"_meta":{{{claimed},{}}}}}"#, claims[0]),
        ] {
            assert!(
                matches!(
                    claim(&call(&params)),
                    Claim::Malformed { version: None, .. }
                ),
                "{params}"
            );
        }
        let once = format!(r#"{{"_meta":{{{claimed}}}}}"#);
        assert_ne!(claim(&call(&once)), Claim::None, "{once}");
    }
}

#[test]
fn the_end_of_a_subscription_is_tagged_in_its_result() {
    let tag = r#""_meta":{"io.modelcontextprotocol/subscriptionId":7}"#;
    for (text, prefix) in [
        (
            format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"resultType":"complete",{tag}}}}}"#),
            "result",
        ),
        (
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{{tag}}}}}"#),
            "params",
        ),
    ] {
        let message = Message::parse(Bytes::from(text.clone())).unwrap();
        assert_eq!(
            subscription_id(&message),
            Some(RequestId::Integer(7)),
            "{prefix}"
        );
        let changed = with_subscription_id(&message, &RequestId::String("s".into()));
        let expected = text.replace(r#"subscriptionId":7"#, r#"subscriptionId":"s""#);
        assert_eq!(changed.raw().as_ref(), expected.as_bytes());
    }
}

#[test]
fn what_is_no_id_is_neither_read_nor_replaced() {
    for value in ["{}", "[1]", "null", "true", r#""\ud800""#] {
        for (template, read, replace) in FIELDS {
            let body = template.replace('@', "1").replace('#', value);
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x",{body}}}"#);
            let message = Message::parse(Bytes::from(text)).unwrap();
            assert_eq!(read(&message), None, "{body}");
            assert_eq!(replace(&message, &RequestId::Integer(2)), message, "{body}");
        }
    }
}

/// Reads a token or id of a message, and replaces it.
type Field = (
    &'static str,
    fn(&Message) -> Option<RequestId>,
    fn(&Message, &RequestId) -> Message,
);

const FIELDS: [Field; 4] = [
    (
        r#""params":{"a":@, "_meta" : {"b":@,"progressToken":#,"c":@}}"#,
        |message| requested_progress_token(message).map(|token| token.0),
        |message, id| with_requested_progress_token(message, &ProgressToken(id.clone())),
    ),
    (
        r#""params":{"progressToken" : # ,"a":@}"#,
        |message| progress_token(message).map(|token| token.0),
        |message, id| with_progress_token(message, &ProgressToken(id.clone())),
    ),
    (
        r#""params":{"a":@,"requestId":#}"#,
        cancelled_id,
        with_cancelled_id,
    ),
    (
        r#""params":{"_meta":{"io.modelcontextprotocol/subscriptionId":#},"a":@}"#,
        subscription_id,
        with_subscription_id,
    ),
];

proptest! {
    #[test]
    fn a_replaced_field_changes_nothing_else(
        field in 0..FIELDS.len(),
        filler in r#"1|"[a-z\u{e9}\\]{0,4}"|\[\{"progressToken":3\}\]|\{"requestId":\[\]\}"#,
        first in -1000_i64..1000,
        second in ".{0,8}",
        id_last: bool,
    ) {
        let (template, read, replace) = FIELDS[field];
        let filler = filler.replace('\\', "\\\\");
        let text = |value: &RequestId| {
            let body = template.replace('@', &filler).replace('#', &value.to_json());
            if id_last {
                format!(r#"{{"jsonrpc":"2.0",{body},"method":"x","id":1}}"#)
            } else {
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x",{body}}}"#)
            }
        };
        let (first, second) = (RequestId::Integer(first), RequestId::String(second.into()));
        let message = Message::parse(text(&first).into()).unwrap();
        prop_assert_eq!(read(&message), Some(first.clone()));
        let changed = replace(&message, &second);
        prop_assert_eq!(changed.raw(), &Bytes::from(text(&second)));
        prop_assert_eq!(read(&changed), Some(second));
        // The spans moved with it.
        let renamed = changed.with_id(&RequestId::Integer(99));
        prop_assert_eq!(renamed.body(), changed.body());
        let back = replace(&changed, &first);
        prop_assert_eq!(back.raw(), message.raw());
    }
}

#[test]
fn progress_is_a_number() {
    let read = |value: &str| {
        let params = format!(r#"{{"progressToken":1,"progress":{value}}}"#);
        let json =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#);
        progress(&Message::parse(json.into()).unwrap())
    };
    for (value, number) in [("3", 3.0), ("-1", -1.0), ("0.5", 0.5), ("25e-1", 2.5)] {
        assert_eq!(read(value), Some(number));
    }
    for value in ["\"3\"", "null", "[3]", "true"] {
        assert_eq!(read(value), None);
    }
}
