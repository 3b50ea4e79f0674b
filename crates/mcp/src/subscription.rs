//! What a `subscriptions/listen` is about (2026-07-28, "Subscriptions").

use serde::Deserialize;

use crate::build;
use crate::json;
use crate::message::{Kind, Message, RequestId};
use crate::method::Method;

/// What a server acknowledged to tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    lists: Vec<Method>,
    uris: Vec<String>,
}

impl Subscription {
    /// Reads a `notifications/subscriptions/acknowledged`; `None` for any other message. What does
    /// not fit counts as not acknowledged.
    #[must_use]
    pub fn read(acknowledged: &Message) -> Option<Self> {
        #[derive(Deserialize)]
        struct Params {
            notifications: Filter,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Filter {
            tools_list_changed: bool,
            prompts_list_changed: bool,
            resources_list_changed: bool,
            resource_subscriptions: Vec<String>,
        }
        let method = Method::SubscriptionsAcknowledged;
        match acknowledged.kind() {
            Kind::Notification { method: given } if *given == method => {}
            _ => return None,
        }
        let params = acknowledged.body().and_then(json::object::<Params>);
        let filter = params.map(|params| params.notifications);
        let filter = filter.unwrap_or_default();
        let lists = [
            (filter.tools_list_changed, Method::ToolsListChanged),
            (filter.prompts_list_changed, Method::PromptsListChanged),
            (filter.resources_list_changed, Method::ResourcesListChanged),
        ];
        let lists = lists.into_iter().filter(|(told, _)| *told);
        Some(Self {
            lists: lists.map(|(_, method)| method).collect(),
            uris: filter.resource_subscriptions,
        })
    }

    /// The notifications that make the client of the request `id` look again at everything that
    /// was acknowledged.
    pub fn changes<'a>(&'a self, id: &'a RequestId) -> impl Iterator<Item = Message> + 'a {
        let lists = self.lists.iter();
        let lists = lists.map(|method| build::tagged_notification(method, id, None));
        let uris = self.uris.iter().map(|uri| {
            let method = &Method::ResourcesUpdated;
            build::tagged_notification(method, id, Some(uri))
        });
        lists.chain(uris)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::inspect;

    fn read(params: &str) -> Option<Subscription> {
        let method = "notifications/subscriptions/acknowledged";
        let json = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
        Subscription::read(&Message::parse(Bytes::from(json)).unwrap())
    }

    #[test]
    fn what_was_acknowledged_is_said_to_have_changed() {
        let filter = r#"{"notifications":{"promptsListChanged":true,"toolsListChanged":true,"resourcesListChanged":false,"resourceSubscriptions":["a:\"b"]}}"#;
        let id = RequestId::String("s".into());
        let subscription = read(filter).unwrap();
        let changes: Vec<_> = subscription.changes(&id).collect();
        let methods: Vec<_> = changes.iter().filter_map(Message::method).collect();
        let expected = [
            &Method::ToolsListChanged,
            &Method::PromptsListChanged,
            &Method::ResourcesUpdated,
        ];
        assert_eq!(methods, expected);
        for change in &changes {
            assert_eq!(inspect::subscription_id(change), Some(id.clone()));
        }
        assert_eq!(inspect::resource_uri(&changes[2]).as_deref(), Some("a:\"b"));
    }

    #[test]
    fn what_cannot_be_read_was_not_acknowledged() {
        for params in [
            "{}",
            "[]",
            r#"{"notifications":[]}"#,
            r#"{"notifications":{"toolsListChanged":1}}"#,
        ] {
            assert_eq!(read(params), Some(Subscription::default()), "{params}");
        }
        assert_eq!(Subscription::read(&build::initialized()), None);
    }
}
