//! Single fields of messages, read when they are needed.
//!
//! A member that stands twice has no value that all readers agree on. Where it would decide
//! something ([`claim`]), the message is refused; elsewhere the fields beside it count as absent.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, present};
use crate::message::{Kind, Message, RequestId};

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
    #[serde(borrow, default, deserialize_with = "present")]
    progress: Option<&'a RawValue>,
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

/// An object whose members cannot be read, because one stands twice.
struct Contradictory;

/// The params of a request or a notification; `None` if there is no object.
fn read_params(message: &Message) -> Result<Option<Params<'_>>, Contradictory> {
    match message.kind() {
        Kind::Request { .. } | Kind::Notification { .. } => read(message.body()),
        Kind::Response { .. } | Kind::Error { .. } => Ok(None),
    }
}

fn read<'a, T: Deserialize<'a>>(text: Option<&'a str>) -> Result<Option<T>, Contradictory> {
    match text {
        Some(text) if json::is_object(text) => json::object(text).map(Some).ok_or(Contradictory),
        _ => Ok(None),
    }
}

fn params(message: &Message) -> Option<Params<'_>> {
    read_params(message).ok().flatten()
}

fn meta<'a>(params: &Params<'a>) -> Option<Meta<'a>> {
    json::object(params.meta?.get())
}

fn string(raw: Option<&RawValue>) -> Option<String> {
    json::string(raw?).map(Cow::into_owned)
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

/// How far a `notifications/progress` says that its request has come; `None` if that is no number.
#[must_use]
pub fn progress(notification: &Message) -> Option<f64> {
    serde_json::from_str(params(notification)?.progress?.get()).ok()
}

/// The request that a `notifications/cancelled` names.
#[must_use]
pub fn cancelled_id(notification: &Message) -> Option<RequestId> {
    id(params(notification)?.request_id)
}

/// The subscription that a message on a `subscriptions/listen` stream is tagged with: a
/// notification in its params, the response that ends the stream in its result.
#[must_use]
pub fn subscription_id(message: &Message) -> Option<RequestId> {
    id(subscription_tag(message))
}

fn subscription_tag(message: &Message) -> Option<&RawValue> {
    // `_meta` stands in the result of a response where it stands in the params of a notification.
    meta(&json::object(message.body()?)?)?.subscription_id
}

/// A request with another progress token; unchanged if it asks for none.
#[must_use]
pub fn with_requested_progress_token(request: &Message, token: &ProgressToken) -> Message {
    let part = params(request)
        .and_then(|params| meta(&params))
        .and_then(|meta| meta.progress_token);
    with_id_at(request, part, &token.0)
}

/// A `notifications/progress` with another token; unchanged if it has none.
#[must_use]
pub fn with_progress_token(notification: &Message, token: &ProgressToken) -> Message {
    let part = params(notification).and_then(|params| params.progress_token);
    with_id_at(notification, part, &token.0)
}

/// A `notifications/cancelled` that names another request; unchanged if it names none.
#[must_use]
pub fn with_cancelled_id(notification: &Message, id: &RequestId) -> Message {
    let part = params(notification).and_then(|params| params.request_id);
    with_id_at(notification, part, id)
}

/// A message tagged with another subscription; unchanged if it has no tag.
#[must_use]
pub fn with_subscription_id(message: &Message, id: &RequestId) -> Message {
    with_id_at(message, subscription_tag(message), id)
}

/// Replaces an id by another. What is no id stays, as it is none for readers either.
fn with_id_at(message: &Message, part: Option<&RawValue>, new: &RequestId) -> Message {
    match part {
        Some(part) if id(Some(part)).is_some() => message.with_part(part.get(), &new.to_json()),
        _ => message.clone(),
    }
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
    /// A version of the wrong type or without capabilities, or members that stand twice, so that
    /// other readers might find a claim; says what is wrong.
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
    if !message.body().is_some_and(may_claim) {
        return Claim::None;
    }
    let meta = match read_meta(message) {
        Ok(Some(meta)) => meta,
        Ok(None) => return Claim::None,
        Err(Contradictory) => {
            let why = "a member of params or params._meta stands twice";
            return Claim::Malformed { why, version: None };
        }
    };
    let Some(raw) = meta.protocol_version else {
        return Claim::None;
    };
    let Some(version) = string(Some(raw)) else {
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

/// Whether any reader could find a claim in a text: it spells the member's name, or has an escape
/// that might. Nearly no legacy request does, and each is asked.
fn may_claim(text: &str) -> bool {
    static NAME: LazyLock<Finder<'_>> =
        LazyLock::new(|| Finder::new("io.modelcontextprotocol/protocolVersion"));
    let text = text.as_bytes();
    NAME.find(text).is_some() || memchr::memchr(b'\\', text).is_some()
}

fn read_meta(message: &Message) -> Result<Option<Meta<'_>>, Contradictory> {
    let params = read_params(message)?;
    read(params.and_then(|params| params.meta).map(RawValue::get))
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

fn error_field<T>(response: &Message, field: impl FnOnce(ErrorBody<'_>) -> Option<T>) -> Option<T> {
    if !matches!(response.kind(), Kind::Error { .. }) {
        return None;
    }
    field(json::object(response.body()?)?)
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
    let body = response.body().and_then(json::object::<Result<'_>>);
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
    let tools = response.body().and_then(json::object::<Tools>);
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
mod tests;
