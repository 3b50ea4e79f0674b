use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::*;
use crate::version::Served;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const RESPONSE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

fn modern(method: &str, version: &str, extra: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{extra}"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The verdict in short: "legacy", "modern", or status and code.
fn judge(body: &str, fields: &[(&str, &str)]) -> String {
    let payload = Payload::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    match post(&headers(fields), &payload, &VersionPolicy::default()) {
        Classified::Legacy(_) => "legacy".into(),
        Classified::Modern(_) => "modern".into(),
        Classified::Rejected(rejection) => {
            format!("{} {}", rejection.status().as_u16(), rejection.code())
        }
    }
}

const VERSION: &str = "mcp-protocol-version";
const MODERN: (&str, &str) = (VERSION, "2026-07-28");
const LEGACY: (&str, &str) = (VERSION, "2025-11-25");
const LIST: (&str, &str) = ("mcp-method", "tools/list");

#[test]
fn the_table_of_client_eras() {
    let list = modern("tools/list", "2026-07-28", "");
    let malformed = list.replace("\"2026-07-28\"", "7");
    for (body, fields, verdict) in [
        (list.as_str(), &[MODERN, LIST][..], "modern"),
        (&list, &[LIST], "400 -32020"),
        (&list, &[LEGACY, LIST], "400 -32020"),
        (&malformed, &[MODERN, LIST], "400 -32602"),
        (&malformed, &[LEGACY], "400 -32602"),
        (PING, &[MODERN], "400 -32602"),
        (PING, &[LEGACY], "legacy"),
        (PING, &[], "legacy"),
        (
            &modern("tools/list", "2025-11-25", ""),
            &[LEGACY],
            "400 -32022",
        ),
        (
            &modern("tools/list", "2031-01-01", ""),
            &[(VERSION, "2031-01-01")],
            "400 -32022",
        ),
        (INITIALIZE, &[MODERN], "400 -32020"),
        (INITIALIZE, &[], "legacy"),
        (
            &modern("initialize", "2026-07-28", ""),
            &[MODERN, ("mcp-method", "initialize")],
            "404 -32601",
        ),
        (
            &INITIALIZE.replace("2025-11-25", "2026-07-28"),
            &[],
            "legacy",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#,
            &[],
            "400 -32602",
        ),
        (NOTIFICATION, &[MODERN], "modern"),
        (NOTIFICATION, &[], "legacy"),
        (RESPONSE, &[MODERN], "400 -32600"),
        (RESPONSE, &[LEGACY], "legacy"),
        (&format!("[{list}]"), &[], "400 -32600"),
        (&format!("[{PING}]"), &[MODERN], "400 -32600"),
        (&format!("[{PING}]"), &[], "legacy"),
        (&format!("[{INITIALIZE}]"), &[], "400 -32600"),
        (&format!("[{PING},{list}]"), &[], "400 -32600"),
        (
            &list.replace(r#""_meta":{"#, r#""_meta":{},"_meta":{"#),
            &[],
            "400 -32602",
        ),
        (
            &modern("server/discover", "2026-07-28", ""),
            &[MODERN, ("mcp-method", "server/discover")],
            "modern",
        ),
        (
            &modern("tools/list", "2031-01-01", ""),
            &[LIST],
            "400 -32022",
        ),
        (
            &modern("tools/list", "2031-01-01", ""),
            &[MODERN, LIST],
            "400 -32020",
        ),
        (
            &modern("tools/list", "2025-11-25", ""),
            &[MODERN, LIST],
            "400 -32020",
        ),
        (
            &modern("tools/list", "2031-01-01", ""),
            &[(VERSION, "2031-01-01"), (VERSION, "2031-01-01")],
            "400 -32020",
        ),
    ] {
        assert_eq!(judge(body, fields), verdict, "{body} {fields:?}");
    }
}

#[test]
fn routing_headers_say_once_what_the_body_says() {
    let call = modern("tools/call", "2026-07-28", r#""name":"café","#);
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "=?base64?Y2Fmw6k=?=");
    assert_eq!(judge(&call, &[MODERN, method, name]), "modern");
    let param = ("mcp-param-region", "eu");
    assert_eq!(judge(&call, &[MODERN, method, name, param]), "modern");
    for fields in [
        &[MODERN, name][..],
        &[MODERN, method],
        &[MODERN, MODERN, method, name],
        &[MODERN, method, method, name],
        &[MODERN, method, name, name],
        &[MODERN, method, name, param, param],
        &[MODERN, method, ("mcp-name", "other")],
        &[MODERN, method, ("mcp-name", "=?base64?!?=")],
        &[MODERN, ("mcp-method", "tools/list"), name],
        &[MODERN, ("mcp-method", "=?base64?dG9vbHMvY2FsbA==?="), name],
    ] {
        assert_eq!(judge(&call, fields), "400 -32020", "{fields:?}");
    }
}

#[test]
fn a_name_that_the_body_lacks_is_no_name() {
    let method = ("mcp-method", "tools/call");
    for params in ["", r#""name":7,"#] {
        let call = modern("tools/call", "2026-07-28", params);
        // Without either, the server says what is missing.
        assert_eq!(judge(&call, &[MODERN, method]), "modern");
        let safe = ("mcp-name", "safe");
        assert_eq!(judge(&call, &[MODERN, method, safe]), "400 -32020");
    }
    let twice = modern(
        "tools/call",
        "2026-07-28",
        r#""name":"safe","name":"danger","#,
    );
    let fields = [MODERN, method, ("mcp-name", "safe")];
    assert_eq!(judge(&twice, &fields), "400 -32602");
}

#[test]
fn bytes_beyond_ascii_are_no_name() {
    let call = modern("tools/call", "2026-07-28", r#""name":"café","#);
    let mut fields = headers(&[MODERN, ("mcp-method", "tools/call")]);
    let raw = HeaderValue::from_bytes("café".as_bytes()).unwrap();
    fields.insert(headers::NAME, raw);
    let payload = Payload::parse(call.into()).unwrap();
    let Classified::Rejected(rejection) = post(&fields, &payload, &VersionPolicy::default()) else {
        panic!("accepted")
    };
    assert_eq!(rejection.code(), -32020);
}

#[test]
fn a_modern_client_is_told_what_the_operator_allows() {
    let list = modern("tools/list", "2026-07-28", "");
    let payload = Payload::parse(list.into()).unwrap();
    let policy = VersionPolicy {
        min: None,
        pin: Some(ProtocolVersion::V2025_11_25),
    };
    assert_eq!(
        post(&headers(&[MODERN, LIST]), &payload, &policy),
        Classified::Rejected(Rejection::UnsupportedVersion {
            requested: "2026-07-28".into(),
            supported: Served {
                versions: vec![ProtocolVersion::V2025_11_25],
                option: Some("--pin 2025-11-25".into()),
            },
        })
    );
}

#[test]
fn the_modern_era_has_neither_get_nor_delete() {
    let known = VersionHeader::Known(ProtocolVersion::V2025_11_25);
    assert_eq!(bodiless(&headers(&[LEGACY])), Ok(known));
    assert_eq!(bodiless(&headers(&[])), Ok(VersionHeader::Absent));
    let rejection = bodiless(&headers(&[MODERN])).unwrap_err();
    assert_eq!(rejection.status(), 405);
    let allow = rejection.header().map(|(_, value)| value);
    assert_eq!(allow.as_deref(), Some("POST"));
}

#[test]
fn a_header_must_name_the_settled_version() {
    let settled = Some(ProtocolVersion::V2025_06_18);
    let check =
        |fields: &[(&str, &str)]| check_version(headers::version(&headers(fields)), settled);
    assert_eq!(check(&[]), Ok(None));
    assert_eq!(check(&[(VERSION, "2025-06-18")]), Ok(settled));
    let Err(conflict) = check(&[LEGACY]) else {
        panic!("accepted")
    };
    let text = String::from_utf8(conflict.to_response(None).raw().to_vec()).unwrap();
    assert!(
        text.contains("2025-06-18") && text.contains("2025-11-25"),
        "{text}"
    );
    assert!(matches!(
        check(&[(VERSION, "1.0")]),
        Err(Rejection::UnsupportedVersionHeader { .. })
    ));
}

#[test]
fn the_header_of_initialize_must_not_contradict_its_body() {
    let message = Message::parse(Bytes::from_static(INITIALIZE.as_bytes())).unwrap();
    let check =
        |fields: &[(&str, &str)]| check_initialize(headers::version(&headers(fields)), &message);
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[LEGACY]), Ok(()));
    assert!(check(&[(VERSION, "2025-06-18")]).is_err());
}

#[test]
fn a_pipe_has_one_era() {
    let judge = |body: &str, connection| {
        let message = Message::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        stdio(&message, connection, &VersionPolicy::default()).map_err(|r| r.code())
    };
    let list = modern("tools/list", "2026-07-28", "");
    let (legacy, modern_era) = (Some(Era::Legacy), Some(Era::Modern));
    assert_eq!(judge(INITIALIZE, None), Ok(Era::Legacy));
    assert_eq!(judge(&list, None), Ok(Era::Modern));
    assert_eq!(judge(PING, legacy), Ok(Era::Legacy));
    assert_eq!(judge(&list, legacy), Err(-32600));
    assert_eq!(judge(INITIALIZE, modern_era), Err(-32022));
    let claiming = modern("initialize", "2026-07-28", "");
    assert_eq!(judge(&claiming, None), Err(-32601));
    assert_eq!(judge(&claiming, modern_era), Err(-32601));
    assert_eq!(
        judge(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, modern_era),
        Err(-32602)
    );
    assert_eq!(judge(NOTIFICATION, modern_era), Ok(Era::Modern));
}

#[test]
fn only_a_handshake_or_a_claim_pins_a_pipe() {
    let decides =
        |body: &str| decides_era(&Message::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap());
    assert!(decides(INITIALIZE));
    assert!(decides(&modern("tools/list", "2026-07-28", "")));
    assert!(!decides(&modern("server/discover", "2026-07-28", "")));
    assert!(!decides(&modern("ping", "2026-07-28", "")));
    assert!(!decides(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#
    ));
    for body in [PING, NOTIFICATION, RESPONSE] {
        assert!(!decides(body), "{body}");
    }
}
