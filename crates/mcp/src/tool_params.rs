//! Tool parameters that are mirrored into headers (2026-07-28, "Custom Headers from Tool
//! Parameters").
//!
//! A tool's `inputSchema` marks them by `x-mcp-header`. Between a transport with headers and one
//! without, the proxy is what the specification calls the server, and checks them, or the client,
//! and makes them. Finding the definitions is the caller's business.

use std::borrow::Cow;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::classify::agrees;
use crate::fault::Rejection;
use crate::headers;
use crate::json;
use crate::message::Message;

/// Integers beyond this are not mirrored: not every reader holds them exactly.
const SAFE: u64 = (1 << 53) - 1;

/// The mirrored parameters of one tool; empty for most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MirroredParams(Vec<Mirrored>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirrored {
    name: HeaderName,
    /// As the definition spells it, for error texts.
    shown: String,
    /// The chain of `properties` that leads to the parameter.
    path: Vec<String>,
}

/// One page of a `tools/list` result.
#[derive(Debug, Default)]
pub struct ToolPage {
    /// The tools by name.
    pub tools: HashMap<String, MirroredParams>,
    /// Where the list goes on.
    pub next_cursor: Option<String>,
}

impl ToolPage {
    /// Reads a response to `tools/list`; `None` if it is none.
    #[must_use]
    pub fn read(response: &Message) -> Option<Self> {
        #[derive(Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            tools: Vec<Tool<'a>>,
            #[serde(default, rename = "nextCursor")]
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Tool<'a> {
            name: String,
            #[serde(borrow, default, rename = "inputSchema")]
            schema: Option<&'a RawValue>,
        }
        let page: Page<'_> = json::object(response.body()?)?;
        let tools = page.tools.into_iter().map(|tool| {
            let schema = tool.schema.map(RawValue::get);
            let marked = schema.filter(|schema| schema.contains("x-mcp-header"));
            let params = marked.map(MirroredParams::in_schema).unwrap_or_default();
            (tool.name, params)
        });
        Some(Self {
            tools: tools.collect(),
            next_cursor: page.next_cursor,
        })
    }
}

impl MirroredParams {
    /// A definition that breaks the specification's constraints mirrors nothing.
    fn in_schema(schema: &str) -> Self {
        let mut found = Vec::new();
        let schema: Value = serde_json::from_str(schema).unwrap_or_default();
        let valid = collect(&schema, &mut Vec::new(), &mut found).is_some();
        let unique = found
            .iter()
            .enumerate()
            .all(|(at, one)| found[..at].iter().all(|other| other.name != one.name));
        Self(if valid && unique { found } else { Vec::new() })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares the headers of a `tools/call` with its arguments, as a server must that reads both.
    ///
    /// # Errors
    /// The first header that is missing, repeated, unreadable or different.
    pub fn check(&self, headers: &HeaderMap, call: &Message) -> Result<(), Rejection> {
        let arguments = arguments(call);
        self.0.iter().try_for_each(|param| {
            let value = param.value(&arguments);
            let shown = Cow::Owned(param.shown.clone());
            agrees(headers, &param.name, shown, says, value.as_deref())
        })
    }

    /// Adds the headers that a client must send with this `tools/call`.
    pub fn insert(&self, headers: &mut HeaderMap, call: &Message) {
        let arguments = arguments(call);
        for param in &self.0 {
            let value = param.value(&arguments);
            if let Some(Ok(value)) =
                value.map(|value| HeaderValue::from_str(&headers::encoded(&value)))
            {
                headers.insert(param.name.clone(), value);
            }
        }
    }
}

/// Collects the marked properties of a schema; `None` if one of them must not be marked.
fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> Option<()> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Some(());
    };
    for (property, schema) in properties {
        path.push(property.clone());
        if let Some(mark) = schema.get("x-mcp-header") {
            let shown = format!(
                "Mcp-Param-{}",
                mark.as_str().filter(|mark| !mark.is_empty())?
            );
            let primitive = schema.get("type").and_then(Value::as_str)?;
            matches!(primitive, "string" | "integer" | "boolean").then_some(())?;
            found.push(Mirrored {
                name: HeaderName::from_bytes(shown.as_bytes()).ok()?,
                shown,
                path: path.clone(),
            });
        }
        collect(schema, path, found)?;
        path.pop();
    }
    Some(())
}

impl Mirrored {
    /// What the arguments say, as a header says it.
    fn value(&self, arguments: &Value) -> Option<String> {
        let found = self
            .path
            .iter()
            .try_fold(arguments, |at, step| at.get(step))?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) => number
                .as_i64()
                .or_else(|| whole(number.as_f64()?))
                .map(|n| n.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

fn whole(number: f64) -> Option<i64> {
    // The cast is exact: the value is an integer of at most 53 bits.
    (number.fract() == 0.0 && number.abs() <= SAFE as f64).then_some(number as i64)
}

/// Whether a header says the same; numbers are compared as numbers.
fn says(header: &HeaderValue, body: &str) -> bool {
    let Some(said) = headers::decoded(header) else {
        return false;
    };
    let number = |text: &str| text.parse::<f64>().ok().and_then(whole);
    said == body
        || matches!((number(&said), body.parse::<i64>()), (Some(said), Ok(body)) if said == body)
}

fn arguments(call: &Message) -> Value {
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        arguments: Value,
    }
    let params = call.body().and_then(json::object::<Params>);
    params.map(|params| params.arguments).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(json: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    fn call(arguments: &str) -> Message {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
        ))
    }

    fn page(tools: &str) -> ToolPage {
        let json =
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{tools},"nextCursor":"n"}}}}"#);
        ToolPage::read(&message(&json)).unwrap()
    }

    fn params(schema: &str) -> MirroredParams {
        let mut page = page(&format!(r#"[{{"name":"t","inputSchema":{schema}}}]"#));
        page.tools.remove("t").unwrap()
    }

    fn marked() -> MirroredParams {
        params(
            r#"{"type":"object","properties":{
                "region":{"type":"string","x-mcp-header":"Region"},
                "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},
                "dry":{"type":"boolean","x-mcp-header":"Dry"}, "plain":{"type":"string"}}}"#,
        )
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn a_page_is_read_and_most_tools_mirror_nothing() {
        let page = page(r#"[{"name":"a"},{"name":"b","inputSchema":{"type":"object"}}]"#);
        assert!(page.tools["a"].is_empty() && page.tools["b"].is_empty());
        assert_eq!(page.next_cursor.as_deref(), Some("n"));
        assert!(ToolPage::read(&message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).is_none());
        assert!(!marked().is_empty());
    }

    #[test]
    fn headers_are_made_and_pass_their_own_check() {
        let params = marked();
        let call = call(r#"{"region":"é ","deep":{"n":42.0},"dry":false,"plain":"x"}"#);
        let mut made = HeaderMap::new();
        params.insert(&mut made, &call);
        assert_eq!(made["mcp-param-region"], "=?base64?w6kg?=");
        assert_eq!(made["mcp-param-n"], "42");
        assert_eq!(made["mcp-param-dry"], "false");
        assert_eq!(made.len(), 3);
        assert_eq!(params.check(&made, &call), Ok(()));
    }

    #[test]
    fn what_has_no_value_has_no_header() {
        let params = marked();
        let without = call(r#"{"region":null,"deep":{"n":1.5}}"#);
        let mut made = HeaderMap::new();
        params.insert(&mut made, &without);
        assert!(made.is_empty());
        assert_eq!(params.check(&made, &without), Ok(()));
        let unmatched = params.check(&headers(&[("mcp-param-region", "x")]), &without);
        assert!(matches!(unmatched, Err(Rejection::UnmatchedHeader { .. })));
    }

    #[test]
    fn header_and_argument_must_agree() {
        let params = marked();
        let call = call(r#"{"region":"Hello","deep":{"n":42}}"#);
        for (region, n) in [
            ("Hello", "42"),
            ("=?base64?SGVsbG8=?=", "42.0"),
            ("Hello", "4.2e1"),
        ] {
            let sent = headers(&[("mcp-param-region", region), ("mcp-param-n", n)]);
            assert_eq!(params.check(&sent, &call), Ok(()), "{region} {n}");
        }
        for (region, n) in [
            ("hello", "42"),
            ("=?base64?SGVsbG8?=", "42"),
            ("=?base64?SGVs!!!bG8=?=", "42"),
            ("Hello", "43"),
            ("Hello", "x"),
        ] {
            let sent = headers(&[("mcp-param-region", region), ("mcp-param-n", n)]);
            let refused = params.check(&sent, &call).unwrap_err();
            assert!(
                matches!(refused, Rejection::HeaderMismatch { .. }),
                "{region} {n}"
            );
            assert_eq!(refused.code(), -32020);
        }
        let sent = headers(&[("mcp-param-n", "42")]);
        let missing = params.check(&sent, &call).unwrap_err();
        assert_eq!(
            missing.to_string(),
            r#"Mcp-Param-Region is missing; send what the body says: "Hello""#
        );
    }

    #[test]
    fn a_definition_against_the_rules_mirrors_nothing() {
        for (why, property) in [
            ("empty", r#"{"type":"string","x-mcp-header":""}"#),
            ("no token", r#"{"type":"string","x-mcp-header":"a b"}"#),
            ("no string", r#"{"type":"string","x-mcp-header":1}"#),
            ("no primitive", r#"{"type":"object","x-mcp-header":"A"}"#),
            ("a number", r#"{"type":"number","x-mcp-header":"A"}"#),
            ("no type", r#"{"x-mcp-header":"A"}"#),
        ] {
            let schema = format!(r#"{{"properties":{{"p":{property}}}}}"#);
            assert!(params(&schema).is_empty(), "{why}");
        }
        let twice = r#"{"properties":{"p":{"type":"string","x-mcp-header":"A"},"q":{"type":"string","x-mcp-header":"a"}}}"#;
        assert!(params(twice).is_empty());
    }
}
