//! The MCP messages that the load generator and the scripted server exchange: legacy protocol 2025-11-25 over
//! Streamable HTTP, no more of it than is measured.
//!
//! The event-stream reader here is deliberately not Shadowcat's own: the judge of a stream must not share its decoder. It
//! reads what well-behaved HTTP peers write (lines that end in LF or CRLF), which is all that a bench meets.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{WrongAnswer, excerpt};

/// The protocol version that every session negotiates.
pub(crate) const PROTOCOL_VERSION: &str = "2025-11-25";
/// Header names, in the spelling that HTTP libraries want.
pub(crate) const SESSION_HEADER: &str = "mcp-session-id";
pub(crate) const VERSION_HEADER: &str = "mcp-protocol-version";
pub(crate) const JSON: &str = "application/json";
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// Progress notifications in one answer of [`Tool::Burst`].
pub(crate) const BURST_EVENTS: u64 = 100;

/// The tools of the scripted server. Each echoes the argument `nonce` as its text, except [`Tool::Session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tool {
    /// Answers at once with one JSON body.
    Json,
    /// Answers at once with an event stream that holds the response.
    Stream,
    /// Answers with an event stream of [`BURST_EVENTS`] progress notifications and the response, each written as an own chunk.
    Burst,
    /// Answers after 10 ms with one JSON body.
    Sleep10,
    /// Answers with the server's own number of this session, which the standalone stream's notifications carry too.
    Session,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Stream => "stream",
            Self::Burst => "burst",
            Self::Sleep10 => "sleep10",
            Self::Session => "session",
        }
    }

    /// The content type that the server answers with.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Sleep10 | Self::Session => JSON,
            Self::Stream | Self::Burst => EVENT_STREAM,
        }
    }

    fn progress_events(self) -> u64 {
        if self == Self::Burst { BURST_EVENTS } else { 0 }
    }
}

/// A `tools/call` of `tool`; `id` is the progress token too.
pub(crate) fn tools_call(id: u64, tool: Tool, nonce: &str) -> String {
    let name = tool.name();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{{"nonce":"{nonce}"}},"_meta":{{"progressToken":{id}}}}}}}"#
    )
}

/// The client's `initialize`.
pub(crate) fn initialize(id: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{PROTOCOL_VERSION}","capabilities":{{}},"clientInfo":{{"name":"shadowcat-bench","version":"1"}}}}}}"#
    )
}

/// The client's `notifications/initialized`.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The server's answer to `initialize`.
pub(crate) fn initialize_result(id: &RawValue) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{PROTOCOL_VERSION}","capabilities":{{"tools":{{}},"logging":{{}}}},"serverInfo":{{"name":"shadowcat-bench-upstream","version":"1"}}}}}}"#
    )
}

/// The server's answer to a `tools/call`. `text` needs no escaping: it is a nonce or a number.
pub(crate) fn tool_result(id: &RawValue, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#
    )
}

/// Number `n` of a burst.
pub(crate) fn progress(token: &RawValue, n: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n},"total":{BURST_EVENTS}}}}}"#
    )
}

/// Notification `seq` (from 1) on the standalone stream of the server's session number `session`.
pub(crate) fn standalone(session: u64, seq: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":{{"session":{session},"seq":{seq}}}}}}}"#
    )
}

/// A server's answer that is an error.
pub(crate) fn error(id: &str, code: i32, message: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

/// One message as an event.
pub(crate) fn event(message: &str) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// A client's message as the server reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct ClientMessage<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) params: Option<&'a RawValue>,
}

/// The params of a `tools/call` as the server reads them.
#[derive(Debug, Deserialize)]
pub(crate) struct CallParams<'a> {
    pub(crate) name: Tool,
    #[serde(borrow)]
    pub(crate) arguments: Arguments<'a>,
    #[serde(borrow, rename = "_meta")]
    pub(crate) meta: Option<Meta<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Arguments<'a> {
    #[serde(borrow)]
    pub(crate) nonce: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    pub(crate) progress_token: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct ServerMessage<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<ToolResult<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct ToolResult<'a> {
    #[serde(borrow)]
    content: [Content<'a>; 1],
}

#[derive(Debug, Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    progress_token: u64,
    progress: u64,
}

#[derive(Debug, Deserialize)]
struct LogMessage {
    data: StandaloneData,
}

#[derive(Debug, Deserialize)]
struct StandaloneData {
    session: u64,
    seq: u64,
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, WrongAnswer> {
    serde_json::from_slice(text).map_err(|error| WrongAnswer::Json {
        error,
        text: excerpt(text),
    })
}

/// Checks the messages of one answer to a `tools/call`: its progress in order, then the one response with its id and
/// nonce, then nothing.
#[derive(Debug)]
pub(crate) struct AnswerCheck<'a> {
    id: u64,
    nonce: &'a str,
    progress_due: u64,
    progress_seen: u64,
    text: Option<String>,
}

impl<'a> AnswerCheck<'a> {
    /// The check for one call of `tool`.
    pub(crate) fn new(id: u64, tool: Tool, nonce: &'a str) -> Self {
        Self {
            id,
            nonce,
            progress_due: tool.progress_events(),
            progress_seen: 0,
            text: None,
        }
    }

    /// True once the response was seen.
    pub(crate) fn answered(&self) -> bool {
        self.text.is_some()
    }

    /// Takes the next message of the answer.
    pub(crate) fn message(&mut self, message: &[u8]) -> Result<(), WrongAnswer> {
        if self.answered() {
            return Err(WrongAnswer::AfterResponse(excerpt(message)));
        }
        let parsed: ServerMessage<'_> = parse(message)?;
        if let Some(error) = parsed.error {
            return Err(WrongAnswer::Rpc(error.get().to_owned()));
        }
        match (parsed.id, parsed.result, parsed.params) {
            (
                Some(id),
                Some(ToolResult {
                    content: [Content { text }],
                }),
                _,
            ) if id == self.id && (self.nonce.is_empty() || text == self.nonce) => {
                if self.progress_seen != self.progress_due {
                    let expected = self.progress_seen + 1;
                    return Err(WrongAnswer::Progress {
                        expected,
                        got: self.progress_due + 1,
                    });
                }
                self.text = Some(text.into_owned());
                Ok(())
            }
            (None, None, Some(params)) => self.progress(parse(params.get().as_bytes())?),
            _ => Err(WrongAnswer::Foreign(excerpt(message))),
        }
    }

    fn progress(&mut self, progress: Progress) -> Result<(), WrongAnswer> {
        let expected = self.progress_seen + 1;
        if progress.progress_token != self.id {
            return Err(WrongAnswer::Foreign(format!(
                "token {}",
                progress.progress_token
            )));
        }
        if progress.progress != expected || expected > self.progress_due {
            return Err(WrongAnswer::Progress {
                expected,
                got: progress.progress,
            });
        }
        self.progress_seen = expected;
        Ok(())
    }

    /// The text of the response; an error when the answer ended without one.
    pub(crate) fn finish(self) -> Result<String, WrongAnswer> {
        self.text.ok_or(WrongAnswer::NoResponse)
    }
}

/// Checks the notifications of one standalone stream: all of its own session, each number one above the last.
#[derive(Debug)]
pub(crate) struct StandaloneCheck {
    session: u64,
    last: u64,
}

impl StandaloneCheck {
    /// The check for the stream of the server's session number `session`.
    pub(crate) fn new(session: u64) -> Self {
        Self { session, last: 0 }
    }

    /// Takes the next message of the stream.
    pub(crate) fn message(&mut self, message: &[u8]) -> Result<(), WrongAnswer> {
        let params = parse::<ServerMessage<'_>>(message)?
            .params
            .map_or("null", RawValue::get);
        let StandaloneData { session, seq } = parse::<LogMessage>(params.as_bytes())?.data;
        if session != self.session || seq != self.last + 1 {
            return Err(WrongAnswer::Standalone {
                session: self.session,
                got_session: session,
                after: self.last,
                got_seq: seq,
            });
        }
        self.last = seq;
        Ok(())
    }
}

/// Splits an event stream into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    data: Vec<u8>,
}

impl EventReader {
    /// Feeds `chunk` and calls `each` with the data of every event that it completes. Events without data (a priming
    /// event, a comment) are passed over.
    pub(crate) fn feed<E>(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                Self::line(&mut self.data, line, &mut each)?;
            } else {
                self.partial.extend_from_slice(line);
                Self::line(&mut self.data, &self.partial, &mut each)?;
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    fn line<E>(
        data: &mut Vec<u8>,
        line: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(value) = line.strip_prefix(b"data:") {
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        } else if line.is_empty() && !data.is_empty() {
            each(data)?;
            data.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
