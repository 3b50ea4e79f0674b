//! What `initialize` and `server/discover` say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::build;
use crate::json;
use crate::message::{Kind, Message};
use crate::method::Method;
use crate::version::VersionError;

/// What a client offers in `initialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    version: String,
}

impl Offer {
    /// Reads the parameters of an `initialize` request.
    ///
    /// # Errors
    /// [`VersionError::Malformed`] without a `protocolVersion`.
    pub fn read(initialize: &Message) -> Result<Self, VersionError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params<'a> {
            #[serde(borrow)]
            protocol_version: Cow<'a, str>,
        }
        let params = initialize.body().and_then(json::object::<Params<'_>>);
        let params = params.ok_or(VersionError::Malformed(
            "initialize needs params.protocolVersion, a string such as \"2025-11-25\"",
        ))?;
        Ok(Self {
            version: params.protocol_version.into_owned(),
        })
    }

    /// The version that the client asks for, as it spelt it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// What a server says in its answer to `initialize`, as far as a proxy needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitializeResult {
    version: String,
    list_changes: Vec<Method>,
}

impl InitializeResult {
    /// Reads a successful response to `initialize`.
    ///
    /// # Errors
    /// [`VersionError::Malformed`] if it is an error, or has no `protocolVersion`.
    pub fn read(response: &Message) -> Result<Self, VersionError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Result<'a> {
            #[serde(borrow)]
            protocol_version: Cow<'a, str>,
            #[serde(borrow, default)]
            capabilities: BTreeMap<Cow<'a, str>, &'a RawValue>,
        }
        let malformed =
            VersionError::Malformed("the server's answer to initialize names no protocolVersion");
        if !matches!(response.kind(), Kind::Response { .. }) {
            return Err(malformed);
        }
        let body = response.body().and_then(json::object::<Result<'_>>);
        let body = body.ok_or(malformed)?;
        let lists = [
            ("tools", Method::ToolsListChanged),
            ("prompts", Method::PromptsListChanged),
            ("resources", Method::ResourcesListChanged),
        ];
        let declares = |name: &str| {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Capability {
                #[serde(default)]
                list_changed: bool,
            }
            let capability = body.capabilities.get(name);
            capability
                .and_then(|raw| json::object::<Capability>(raw.get()))
                .is_some_and(|capability| capability.list_changed)
        };
        let list_changes = lists
            .into_iter()
            .filter(|(name, _)| declares(name))
            .map(|(_, method)| method);
        Ok(Self {
            list_changes: list_changes.collect(),
            version: body.protocol_version.into_owned(),
        })
    }

    /// The version that the server answered, as it spelt it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A `list_changed` for each list that the server declared may change.
    pub fn list_changes(&self) -> impl Iterator<Item = Message> + '_ {
        self.list_changes
            .iter()
            .map(|method| build::notification(method, None))
    }
}

/// What a modern server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverResult {
    /// The versions that it serves.
    pub versions: Vec<String>,
}

impl DiscoverResult {
    /// Reads a response to `server/discover`; `None` if it is none.
    #[must_use]
    pub fn read(response: &Message) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Result {
            supported_versions: Vec<String>,
        }
        if !matches!(response.kind(), Kind::Response { .. }) {
            return None;
        }
        let result: Result = json::object(response.body()?)?;
        Some(Self {
            versions: result.supported_versions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RequestId;

    #[test]
    fn only_declared_lists_are_announced() {
        let response = build::result(
            &RequestId::Integer(1),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":false},"x":7}}"#,
        );
        let result = InitializeResult::read(&response).unwrap();
        let methods: Vec<_> = result.list_changes().map(|m| m.method().cloned()).collect();
        assert_eq!(methods, [Some(Method::ToolsListChanged)]);
        assert_eq!(result.version(), "2025-06-18");
    }

    #[test]
    fn an_error_is_no_result() {
        let error = build::error(Some(&RequestId::Integer(1)), -32000, "no", None);
        assert!(InitializeResult::read(&error).is_err());
        assert!(DiscoverResult::read(&error).is_none());
    }
}
