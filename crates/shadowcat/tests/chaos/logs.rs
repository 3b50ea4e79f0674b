//! What a person reads of a break: what was recovered, and what is lost.

use std::sync::Mutex;

use serde_json::json;

use crate::support::client::Session;
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::support::{MODES, until};

/// A server whose answers to `lists` first requests of a list, and to all calls, break without an id.
fn breaking(lists: usize) -> impl Fn(&Request) -> Answer + Send + Sync {
    let left = Mutex::new(lists);
    move |request| match request.rpc().as_str() {
        "tools/list" if *left.lock().unwrap() > 0 => {
            *left.lock().unwrap() -= 1;
            Answer::events().then(Step::Close)
        }
        "tools/list" => Answer::result(&request.id(), json!({"tools": []})),
        "tools/call" => Answer::events().then(Step::Close),
        _ => upstream::basics(request).unwrap_or_default(),
    }
}

/// The lines about this request once there is one, and all warnings.
async fn lines(proxy: &Proxy, id: &str) -> (Vec<String>, Vec<String>) {
    let of = |part: &str| {
        let lines = proxy.process.stderr().into_iter();
        lines.filter(|line| line.contains(part)).collect::<Vec<_>>()
    };
    let about = format!("request{{id=\"{id}\"");
    until("the log is told", || !of(&about).is_empty()).await;
    (of(&about), of("WARN"))
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":"list","method":"tools/list"}"#;
const CALL: &str = r#"{"jsonrpc":"2.0","id":"call","method":"tools/call","params":{"name":"t"}}"#;

#[tokio::test]
async fn a_lost_answer_is_no_warning_if_the_request_is_sent_once_more() {
    for mode in MODES {
        let upstream = Upstream::start(breaking(1)).await;
        let proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let answer = session.exchange(LIST).await;
        assert!(answer.body.contains("tools"), "{mode}: {answer:?}");
        let (about, warnings) = lines(&proxy, "list").await;
        assert_eq!(about.len(), 1, "{mode}: {about:#?}");
        let told = about[0].contains("INFO") && about[0].contains("once more");
        assert!(told, "{mode}: {about:#?}");
        assert!(warnings.is_empty(), "{mode}: {warnings:#?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_for_good_is_one_warning() {
    for mode in MODES {
        for (id, request) in [("list", LIST), ("call", CALL)] {
            let upstream = Upstream::start(breaking(2)).await;
            let proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let answer = session.exchange(request).await;
            assert!(answer.body.contains("stream_ended"), "{mode}: {answer:?}");
            // A line before it may be told of another try.
            let warned = || {
                let lines = proxy.process.stderr();
                lines.iter().any(|line| line.contains("WARN"))
            };
            until("the warning is told", warned).await;
            let (about, warnings) = lines(&proxy, id).await;
            assert_eq!(warnings, about[about.len() - 1..], "{mode}: {about:#?}");
            let told = warnings[0].contains("stream ended");
            assert!(told, "{mode}: {warnings:#?}");
        }
    }
}
