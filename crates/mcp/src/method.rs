//! The methods that a proxy must know by name.
//!
//! Everything else passes as [`Method::Other`]: an unknown method is relayed, never refused.

use std::fmt;
use std::sync::Arc;

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A JSON-RPC method of MCP.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`")] $(#[$doc])* $variant,)*
            /// Any other method.
            Other(Arc<str>),
        }

        impl Method {
            /// All methods known by name.
            pub const KNOWN: &[Method] = &[$(Method::$variant),*];

            /// The method of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($name => Method::$variant,)*
                    other => Method::Other(other.into()),
                }
            }

            /// Its place in [`Method::KNOWN`]; the place after the last for any other method.
            #[must_use]
            pub fn place(&self) -> usize {
                enum Place {
                    $($variant,)*
                }
                match self {
                    $(Method::$variant => Place::$variant as usize,)*
                    Method::Other(_) => Self::KNOWN.len(),
                }
            }

            /// The name on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Method::$variant => $name,)*
                    Method::Other(name) => name,
                }
            }
        }
    };
}

methods! {
    Initialize = "initialize",
    Discover = "server/discover",
    Ping = "ping",
    ToolsList = "tools/list",
    ToolsCall = "tools/call",
    PromptsList = "prompts/list",
    PromptsGet = "prompts/get",
    ResourcesList = "resources/list",
    ResourceTemplatesList = "resources/templates/list",
    ResourcesRead = "resources/read",
    ResourcesSubscribe = "resources/subscribe",
    ResourcesUnsubscribe = "resources/unsubscribe",
    CompletionComplete = "completion/complete",
    LoggingSetLevel = "logging/setLevel",
    SubscriptionsListen = "subscriptions/listen",
    TasksGet = "tasks/get",
    TasksResult = "tasks/result",
    TasksList = "tasks/list",
    TasksCancel = "tasks/cancel",
    TasksUpdate = "tasks/update",
    SamplingCreateMessage = "sampling/createMessage",
    ElicitationCreate = "elicitation/create",
    RootsList = "roots/list",
    Initialized = "notifications/initialized",
    Cancelled = "notifications/cancelled",
    Progress = "notifications/progress",
    LogMessage = "notifications/message",
    ToolsListChanged = "notifications/tools/list_changed",
    PromptsListChanged = "notifications/prompts/list_changed",
    ResourcesListChanged = "notifications/resources/list_changed",
    ResourcesUpdated = "notifications/resources/updated",
    RootsListChanged = "notifications/roots/list_changed",
    SubscriptionsAcknowledged = "notifications/subscriptions/acknowledged",
}

impl Method {
    /// Whether executing a request of this method twice does no harm, so that it may be sent once
    /// more when its answer was lost (resilience, "Sent once", rule b).
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(
            self,
            Self::Ping
                | Self::ToolsList
                | Self::PromptsList
                | Self::ResourcesList
                | Self::ResourceTemplatesList
                | Self::TasksList
                | Self::ResourcesRead
                | Self::PromptsGet
                | Self::CompletionComplete
                | Self::Discover
        )
    }

    /// The member of `params` that `Mcp-Name` mirrors (2026-07-28, "Standard headers").
    #[must_use]
    pub fn name_param(&self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead => Some("uri"),
            Self::TasksGet | Self::TasksResult | Self::TasksCancel | Self::TasksUpdate => {
                Some("taskId")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_reads_back() {
        for method in Method::KNOWN {
            assert_eq!(Method::from_name(method.as_str()), *method);
            assert_eq!(Method::KNOWN.get(method.place()), Some(method));
        }
        let other = Method::from_name("x/y");
        assert_eq!(other, Method::Other("x/y".into()));
        assert_eq!(other.place(), Method::KNOWN.len());
    }

    #[test]
    fn only_reading_methods_are_safe() {
        let safe: Vec<_> = Method::KNOWN
            .iter()
            .filter(|m| m.is_safe())
            .map(Method::as_str)
            .collect();
        assert_eq!(
            safe,
            [
                "server/discover",
                "ping",
                "tools/list",
                "prompts/list",
                "prompts/get",
                "resources/list",
                "resources/templates/list",
                "resources/read",
                "completion/complete",
                "tasks/list",
            ]
        );
    }
}
