//! What a check found out.

use serde_json::Value;
use shadowcat_transport::upstream::http::Examination;

/// How the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Stdio,
    StreamableHttp,
    HttpSse,
}

impl Transport {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::StreamableHttp => "Streamable HTTP",
            Self::HttpSse => "HTTP+SSE (2024-11-05)",
        }
    }
}

/// Everything.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) transport: Transport,
    /// `initialize` was answered.
    pub(super) legacy: Option<EraFindings>,
    /// `server/discover` was answered.
    pub(super) modern: Option<EraFindings>,
    /// Of a legacy Streamable HTTP server.
    pub(super) examination: Option<Examination>,
}

/// What a server says in one era.
#[derive(Debug)]
pub(super) struct EraFindings {
    pub(super) versions: Vec<String>,
    /// Its own name and version, if it told them.
    pub(super) name: Option<String>,
    pub(super) capabilities: Value,
    /// `None`: none declared, or the list was refused.
    pub(super) tools: Option<usize>,
}

impl EraFindings {
    /// From the result of `initialize` or `server/discover`.
    pub(super) fn new(versions: Vec<String>, mut body: Value, tools: Option<usize>) -> Self {
        let info = match &body["serverInfo"] {
            Value::Null => &body["_meta"]["io.modelcontextprotocol/serverInfo"],
            info => info,
        };
        let word = |key: &str| info[key].as_str();
        let name = word("name").map(|name| match word("version") {
            Some(version) => format!("{name} {version}"),
            None => name.to_owned(),
        });
        Self {
            versions,
            name,
            capabilities: body["capabilities"].take(),
            tools,
        }
    }
}
