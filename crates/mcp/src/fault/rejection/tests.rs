use bytes::Bytes;

use super::*;
use crate::message::Payload;

fn parse_error(body: &'static str) -> Rejection {
    Payload::parse(Bytes::from_static(body.as_bytes()))
        .unwrap_err()
        .into()
}

fn version(text: &str) -> ProtocolVersion {
    text.parse().unwrap()
}

/// Every refusal: status, code, extra header, and what its text tells the client to do.
#[test]
fn the_table() {
    use Rejection::*;
    let retry = |seconds| Some(("retry-after", seconds));
    for (rejection, status, code, header, hint) in [
        (parse_error("{"), 400, -32700, None, "not JSON"),
        (parse_error("[]"), 400, -32600, None, "empty batch"),
        (parse_error("{}"), 400, -32600, None, "jsonrpc is not"),
        (InvalidRequest("why".into()), 400, -32600, None, "why"),
        (BatchNotAllowed, 400, -32600, None, "one message at a time"),
        (SessionRequired, 400, -32600, None, "send initialize first"),
        (UnknownSession, 404, -32600, None, "start a new one"),
        (MalformedSessionId, 400, -32600, None, "visible ASCII"),
        (
            UnknownEventId,
            400,
            -32600,
            None,
            "open the stream without it",
        ),
        (
            UnsupportedVersionHeader {
                header: "1.0".into(),
            },
            400,
            -32600,
            None,
            "send the version that initialize settled",
        ),
        (
            VersionConflict {
                header: "2025-11-25".into(),
                body: "2025-06-18".into(),
            },
            400,
            -32600,
            None,
            "is 2025-11-25, but the version in the body (or settled by initialize) is 2025-06-18",
        ),
        (
            ModernInitialize {
                header: version("2026-07-28"),
            },
            400,
            -32020,
            None,
            "leave the header out",
        ),
        (
            HeaderMismatch {
                header: "Mcp-Name".into(),
                said: "a".into(),
                body: "b".into(),
            },
            400,
            -32020,
            None,
            r#"Mcp-Name is "a", but the body says "b""#,
        ),
        (
            MissingHeader {
                header: "Mcp-Name".into(),
                body: "b".into(),
            },
            400,
            -32020,
            None,
            r#"Mcp-Name is missing; send what the body says: "b""#,
        ),
        (
            UnmatchedHeader {
                header: "Mcp-Name".into(),
                said: "a".into(),
            },
            400,
            -32020,
            None,
            "send both or neither",
        ),
        (
            DuplicateHeader {
                header: "Mcp-Method".into(),
            },
            400,
            -32020,
            None,
            "send it once",
        ),
        (
            InitializeClaims {
                version: version("2026-07-28"),
            },
            404,
            -32601,
            None,
            "2026-07-28 has no initialize",
        ),
        (
            MissingMetadata("needs _meta"),
            400,
            -32602,
            None,
            "needs _meta",
        ),
        (
            UnsupportedVersion {
                requested: "2031-01-01".into(),
                supported: Served {
                    versions: vec![version("2026-07-28")],
                    option: None,
                },
            },
            400,
            -32022,
            None,
            "use one of: 2026-07-28",
        ),
        (NotFound, 404, -32600, None, "/mcp"),
        (
            MethodNotAllowed { allow: "POST" },
            405,
            -32600,
            Some(("allow", "POST")),
            "allowed: POST",
        ),
        (
            NotAcceptable {
                needed: "text/event-stream",
            },
            406,
            -32600,
            None,
            "must allow text/event-stream",
        ),
        (
            UnsupportedMediaType,
            415,
            -32600,
            None,
            "must be application/json",
        ),
        (
            OriginNotAllowed {
                origin: "http://a".into(),
            },
            403,
            -32600,
            None,
            "--allow-origin",
        ),
        (
            HostNotAllowed { host: "a".into() },
            421,
            -32600,
            None,
            "--allow-host",
        ),
        (
            BodyTooLarge { limit: 9 },
            413,
            -32600,
            None,
            "--max-message-size",
        ),
        (HeadersTooLarge, 431, -32600, None, "fewer or shorter"),
        (TooManySessions, 503, -32603, retry("10"), "--max-sessions"),
        (
            Overloaded {
                what: "w",
                retry_after: 7,
            },
            503,
            -32603,
            retry("7"),
            "w; try again later",
        ),
    ] {
        assert_eq!(rejection.status(), status, "{rejection:?}");
        assert_eq!(rejection.code(), code, "{rejection:?}");
        let found = rejection.header();
        let found = found
            .as_ref()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(found, header, "{rejection:?}");
        assert!(rejection.to_string().contains(hint), "{rejection}");
        let response = rejection.to_response(Some(&RequestId::Integer(3)));
        assert_eq!(response.id(), Some(&RequestId::Integer(3)));
    }
}

#[test]
fn what_a_client_needs_to_go_on_is_in_the_data() {
    for (rejection, data) in [
        (
            Rejection::UnsupportedVersion {
                requested: "x".into(),
                supported: Served {
                    versions: vec![version("2026-07-28"), version("2025-11-25")],
                    option: None,
                },
            },
            r#""data":{"supported":["2026-07-28","2025-11-25"],"requested":"x"}"#,
        ),
        (
            Rejection::VersionConflict {
                header: "2025-11-25".into(),
                body: "2025-06-18".into(),
            },
            r#""data":{"header":"2025-11-25","body":"2025-06-18"}"#,
        ),
        (
            Rejection::UnsupportedVersionHeader { header: "x".into() },
            r#""data":{"supported":["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05"],"requested":"x"}"#,
        ),
    ] {
        let response = rejection.to_response(None);
        let text = std::str::from_utf8(response.raw()).unwrap();
        assert!(text.contains(data), "{text}");
        assert_eq!(response.id(), None);
    }
}

#[test]
fn an_invalid_message_s_own_id_is_used() {
    let rejection = parse_error(r#"{"jsonrpc":"2.0","id":"a","method":7}"#);
    let response = rejection.to_response(None);
    assert_eq!(response.id(), Some(&RequestId::String("a".into())));
}
