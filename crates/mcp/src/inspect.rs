//! Single fields of messages, read when they are needed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::{Kind, Message, RequestId, present};

/// A progress token: compared, like a request id, as its sender spelt it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProgressToken(RequestId);

impl ProgressToken {
    /// A token of our own.
    #[must_use]
    pub fn from_id(id: RequestId) -> Self {
        Self(id)
    }

    /// The token as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.0.to_json()
    }
}

impl fmt::Debug for ProgressToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        rename = "progressToken",
        deserialize_with = "present"
    )]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId", deserialize_with = "present")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId", deserialize_with = "present")]
    task_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(
        borrow,
        default,
        rename = "progressToken",
        deserialize_with = "present"
    )]
    progress_token: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        rename = "io.modelcontextprotocol/protocolVersion",
        deserialize_with = "present"
    )]
    protocol_version: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        rename = "io.modelcontextprotocol/clientCapabilities",
        deserialize_with = "present"
    )]
    client_capabilities: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        rename = "io.modelcontextprotocol/subscriptionId",
        deserialize_with = "present"
    )]
    subscription_id: Option<&'a RawValue>,
}

fn params(message: &Message) -> Option<Params<'_>> {
    matches!(
        message.kind(),
        Kind::Request { .. } | Kind::Notification { .. }
    )
    .then(|| serde_json::from_str(message.body()?).ok())?
}

fn meta<'a>(params: &Params<'a>) -> Option<Meta<'a>> {
    serde_json::from_str(params.meta?.get()).ok()
}

fn string(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

fn id(raw: Option<&RawValue>) -> Option<RequestId> {
    RequestId::parse(raw?.get())
}

/// The progress token that a request asks to be used.
#[must_use]
pub fn requested_progress_token(request: &Message) -> Option<ProgressToken> {
    id(meta(&params(request)?)?.progress_token).map(ProgressToken)
}

/// The token of a `notifications/progress`.
#[must_use]
pub fn progress_token(notification: &Message) -> Option<ProgressToken> {
    id(params(notification)?.progress_token).map(ProgressToken)
}

/// The request that a `notifications/cancelled` names.
#[must_use]
pub fn cancelled_id(notification: &Message) -> Option<RequestId> {
    id(params(notification)?.request_id)
}

/// The subscription that a notification on a `subscriptions/listen` stream is tagged with.
#[must_use]
pub fn subscription_id(notification: &Message) -> Option<RequestId> {
    id(meta(&params(notification)?)?.subscription_id)
}

/// A request with another progress token; unchanged if it asks for none.
#[must_use]
pub fn with_requested_progress_token(request: &Message, token: &ProgressToken) -> Message {
    let part = params(request)
        .and_then(|params| meta(&params))
        .and_then(|m| m.progress_token);
    part.map_or_else(
        || request.clone(),
        |part| request.with_part(part.get(), &token.to_json()),
    )
}

/// A `notifications/progress` with another token.
#[must_use]
pub fn with_progress_token(notification: &Message, token: &ProgressToken) -> Message {
    let part = params(notification).and_then(|params| params.progress_token);
    part.map_or_else(
        || notification.clone(),
        |part| notification.with_part(part.get(), &token.to_json()),
    )
}

/// A `notifications/cancelled` that names another request.
#[must_use]
pub fn with_cancelled_id(notification: &Message, id: &RequestId) -> Message {
    let part = params(notification).and_then(|params| params.request_id);
    part.map_or_else(
        || notification.clone(),
        |part| notification.with_part(part.get(), &id.to_json()),
    )
}

/// A notification tagged with another subscription.
#[must_use]
pub fn with_subscription_id(notification: &Message, id: &RequestId) -> Message {
    let part = params(notification)
        .and_then(|params| meta(&params))
        .and_then(|m| m.subscription_id);
    part.map_or_else(
        || notification.clone(),
        |part| notification.with_part(part.get(), &id.to_json()),
    )
}

/// The `uri` of a resource request.
#[must_use]
pub fn resource_uri(request: &Message) -> Option<String> {
    string(params(request)?.uri)
}

/// The `name` of a tool call.
#[must_use]
pub fn tool_name(request: &Message) -> Option<String> {
    string(params(request)?.name)
}

/// What `Mcp-Name` mirrors, for the methods that have it.
#[must_use]
pub fn routing_name(request: &Message) -> Option<String> {
    let member = request.method()?.name_param()?;
    let params = params(request)?;
    string(match member {
        "name" => params.name,
        "uri" => params.uri,
        _ => params.task_id,
    })
}

/// What a request claims in its `_meta` about the modern era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// No `io.modelcontextprotocol/protocolVersion`.
    None,
    /// A version and capabilities, each of the right type.
    WellFormed {
        /// As the client spelt it.
        version: String,
    },
    /// A version of the wrong type, or without capabilities; says what is wrong.
    Malformed {
        /// What is wrong.
        why: &'static str,
        /// The version, if it is a string.
        version: Option<String>,
    },
}

/// Reads a request's claim.
#[must_use]
pub fn claim(message: &Message) -> Claim {
    let Some(meta) = params(message).and_then(|params| meta(&params)) else {
        return Claim::None;
    };
    let Some(raw) = meta.protocol_version else {
        return Claim::None;
    };
    let Ok(version) = serde_json::from_str::<String>(raw.get()) else {
        let why = "_meta[\"io.modelcontextprotocol/protocolVersion\"] must be a string";
        return Claim::Malformed { why, version: None };
    };
    match meta.client_capabilities {
        Some(capabilities) if capabilities.get().starts_with('{') => Claim::WellFormed { version },
        _ => Claim::Malformed {
            why: "_meta[\"io.modelcontextprotocol/clientCapabilities\"] must be an object",
            version: Some(version),
        },
    }
}

/// The code of an error response.
#[must_use]
pub fn error_code(response: &Message) -> Option<i64> {
    error_field(response, |error| error.code)
}

/// The text of an error response.
#[must_use]
pub fn error_text(response: &Message) -> Option<String> {
    error_field(response, |error| error.message.map(Cow::into_owned))
}

fn error_field<T>(response: &Message, read: impl FnOnce(ErrorBody<'_>) -> Option<T>) -> Option<T> {
    if !matches!(response.kind(), Kind::Error { .. }) {
        return None;
    }
    read(serde_json::from_str(response.body()?).ok()?)
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(default)]
    code: Option<i64>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Whether an error response is one of ours ([`crate::fault::Fault::to_response`]).
#[must_use]
pub fn is_own_fault(response: &Message) -> bool {
    error_field(response, |error| {
        Some(error.data?.get().starts_with("{\"shadowcat\":"))
    })
    .unwrap_or(false)
}

/// Whether only a modern server answers like this: a result with `resultType`, or one of the codes
/// -32020 to -32022.
#[must_use]
pub fn is_modern_response(response: &Message) -> bool {
    #[derive(Deserialize)]
    struct Result<'a> {
        #[serde(borrow, default, rename = "resultType")]
        result_type: Option<&'a RawValue>,
    }
    if let Some(code) = error_code(response) {
        return (-32022..=-32020).contains(&code);
    }
    let body = response
        .body()
        .and_then(|body| serde_json::from_str::<Result<'_>>(body).ok());
    body.is_some_and(|body| body.result_type.is_some())
}

/// Whether this answer to `initialize` may come from a server that has no `initialize`.
#[must_use]
pub fn may_refuse_legacy(response: &Message) -> bool {
    matches!(
        error_code(response),
        Some(-32022..=-32020 | -32601 | -32602)
    )
}

/// The tools in a `tools/list` result that are declared harmless to repeat.
#[must_use]
pub fn repeatable_tools(response: &Message) -> Vec<String> {
    #[derive(Deserialize)]
    struct Tools {
        tools: Vec<Tool>,
    }
    #[derive(Deserialize)]
    struct Tool {
        name: String,
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Annotations {
        read_only_hint: bool,
        idempotent_hint: bool,
    }
    let tools = response
        .body()
        .and_then(|body| serde_json::from_str::<Tools>(body).ok());
    let repeatable = |tool: &Tool| {
        tool.annotations
            .as_ref()
            .is_some_and(|a| a.read_only_hint || a.idempotent_hint)
    };
    let tools = tools.map(|tools| tools.tools).unwrap_or_default();
    tools
        .into_iter()
        .filter(repeatable)
        .map(|tool| tool.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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
        let cancelled = parse(
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#,
        );
        let changed = with_cancelled_id(&cancelled, &RequestId::Integer(3));
        assert_eq!(cancelled_id(&changed), Some(RequestId::Integer(3)));
    }

    #[test]
    fn claims_are_read() {
        let with = |meta: &str| {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{meta}}}}}"#
            );
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
}
