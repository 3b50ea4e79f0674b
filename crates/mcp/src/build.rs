//! Messages that Shadowcat itself sends.

use bytes::Bytes;

use crate::message::{Message, RequestId, json_string};
use crate::method::Method;
use crate::version::ProtocolVersion;

/// A message from JSON that this crate wrote: the text is valid by construction, so the fallback
/// (an error without an id) is never met.
fn message(json: String) -> Message {
    Message::parse(Bytes::from(json)).unwrap_or_else(|_| {
        const INTERNAL: &[u8] =
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"internal error"}}"#;
        Message::from_static_error(Bytes::from_static(INTERNAL))
    })
}

/// An error response. `data` is raw JSON.
#[must_use]
pub fn error(id: Option<&RequestId>, code: i32, text: &str, data: Option<&str>) -> Message {
    let id = id.map_or_else(|| "null".to_owned(), RequestId::to_json);
    let data = data
        .map(|data| format!(r#","data":{data}"#))
        .unwrap_or_default();
    let text = json_string(text);
    message(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{text}{data}}}}}"#
    ))
}

/// A successful response. `result` is raw JSON.
#[must_use]
pub fn result(id: &RequestId, result: &str) -> Message {
    message(format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
        id.to_json()
    ))
}

/// A notification. `params` is raw JSON.
#[must_use]
pub fn notification(method: &Method, params: Option<&str>) -> Message {
    let method = json_string(method.as_str());
    let params = params
        .map(|params| format!(r#","params":{params}"#))
        .unwrap_or_default();
    message(format!(r#"{{"jsonrpc":"2.0","method":{method}{params}}}"#))
}

/// `notifications/initialized`.
#[must_use]
pub fn initialized() -> Message {
    notification(&Method::Initialized, None)
}

/// `notifications/cancelled`.
#[must_use]
pub fn cancelled(id: &RequestId, reason: &str) -> Message {
    let params = format!(
        r#"{{"requestId":{},"reason":{}}}"#,
        id.to_json(),
        json_string(reason)
    );
    notification(&Method::Cancelled, Some(&params))
}

/// `notifications/resources/updated`.
#[must_use]
pub fn resource_updated(uri: &str) -> Message {
    notification(
        &Method::ResourcesUpdated,
        Some(&format!(r#"{{"uri":{}}}"#, json_string(uri))),
    )
}

/// A notification on the stream of the `subscriptions/listen` with this id; `uri` is the resource
/// that it is about.
#[must_use]
pub fn tagged_notification(
    method: &Method,
    subscription: &RequestId,
    uri: Option<&str>,
) -> Message {
    let uri = uri.map(|uri| format!(r#""uri":{},"#, json_string(uri)));
    let params = format!(
        r#"{{{}"_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}"#,
        uri.unwrap_or_default(),
        subscription.to_json(),
    );
    notification(method, Some(&params))
}

/// An `initialize` of our own, to learn what a server speaks.
#[must_use]
pub fn initialize(version: ProtocolVersion) -> Message {
    message(format!(
        r#"{{"jsonrpc":"2.0","id":"shadowcat-initialize","method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{}}}}}"#,
        client_info(),
    ))
}

/// A request of our own, to learn what a server offers. `params` is raw JSON.
#[must_use]
pub fn request(id: &str, method: &Method, params: Option<&str>) -> Message {
    let params = params
        .map(|params| format!(r#","params":{params}"#))
        .unwrap_or_default();
    message(format!(
        r#"{{"jsonrpc":"2.0","id":{},"method":{}{params}}}"#,
        json_string(id),
        json_string(method.as_str()),
    ))
}

/// The same to a modern server, with the metadata that every request needs there.
#[must_use]
pub fn modern_request(id: &str, method: &Method) -> Message {
    request(id, method, Some(&format!("{{{}}}", modern_meta())))
}

/// A `tools/list` of our own to a modern server.
#[must_use]
pub fn list_tools(cursor: Option<&str>) -> Message {
    let cursor = cursor.map(|cursor| format!(r#","cursor":{}"#, json_string(cursor)));
    let params = format!("{{{}{}}}", modern_meta(), cursor.unwrap_or_default());
    request("shadowcat-tools", &Method::ToolsList, Some(&params))
}

/// The member of `params` that every modern request needs.
fn modern_meta() -> String {
    format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{}}}"#,
        ProtocolVersion::V2026_07_28,
        client_info(),
    )
}

/// A `server/discover` of our own, to learn what a server speaks.
#[must_use]
pub fn discover() -> Message {
    modern_request("shadowcat-discover", &Method::Discover)
}

fn client_info() -> String {
    format!(
        r#"{{"name":"shadowcat","version":"{}"}}"#,
        env!("CARGO_PKG_VERSION")
    )
}

/// Whether two notifications of this method with equal params say no more than one: the receiver
/// fetches the current state after either.
#[must_use]
pub fn is_coalescible(message: &Message) -> bool {
    matches!(
        message.method(),
        Some(
            Method::ToolsListChanged
                | Method::PromptsListChanged
                | Method::ResourcesListChanged
                | Method::ResourcesUpdated
        )
    )
}

/// What two notifications have in common that say no more than one, however each is written; `None`
/// for what has to be told as often as it comes.
#[must_use]
pub fn coalescing_key(message: &Message) -> Option<Bytes> {
    if !is_coalescible(message) {
        return None;
    }
    let params = message.body().map_or("{}", str::trim);
    Some(Bytes::from(format!(
        "{} {params}",
        message.method()?.as_str()
    )))
}
