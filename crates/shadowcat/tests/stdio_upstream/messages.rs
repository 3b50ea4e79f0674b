//! What passes the pipe, and what does not.

use std::io::{BufRead as _, BufReader};

use crate::support::{Proxy, SERVER, request};

#[test]
fn a_server_gets_its_environment_and_its_directory() {
    let options = ["--env", "PLACE=here", "--cwd", "/"];
    let (_proxy, http) = Proxy::reverse(&options, &["sh", "-c", SERVER]);
    let body = http.session().call(2, "x/place").body;
    assert!(
        body.contains(r#"{"place":"here","directory":"/"}"#),
        "{body}"
    );
}

#[test]
fn stderr_is_relayed_with_the_server_s_name() {
    let (mut proxy, http) = Proxy::reverse(&["--log-level", "error"], &["sh", "-c", SERVER]);
    http.session().call(2, "x/say");
    proxy.until("sh: words for people");
}

#[test]
fn lines_that_are_no_messages_are_quoted_and_skipped() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let answer = http.session().call(2, "x/noise");
    assert!(answer.body.contains(r#""result":{}"#), "{answer:?}");
    for quoted in [r#"line="not JSON""#, "line=\"\u{fffd}\"", r#"line="[]""#] {
        let warning = proxy.until("the server sent a line that is no message");
        assert!(
            warning.contains("WARN") && warning.contains(quoted),
            "{warning}"
        );
    }
}

#[test]
fn an_answer_that_is_too_long_is_replaced_by_an_error() {
    let (_proxy, http) = Proxy::reverse(&["--max-message-size", "4000"], &["sh", "-c", SERVER]);
    let session = http.session();
    let body = session.call(2, "x/long").body;
    assert!(
        body.contains(r#""kind":"too_large","executed":"unknown""#),
        "{body}"
    );
    assert!(
        body.contains(r#""id":2"#) && body.contains("--max-message-size"),
        "{body}"
    );
    session.pid(3);
}

#[test]
fn a_server_s_batch_is_taken_apart() {
    let (_proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let body = http.session().call(2, "x/batch").body;
    assert!(body.contains(r#""method":"x/y""#), "{body}");
    assert!(body.contains(r#""id":2,"result":{}"#), "{body}");
}

#[test]
fn what_belongs_to_a_request_rides_its_stream() {
    let (_proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let session = http.session();
    let params = r#"{"_meta":{"progressToken":"p"}}"#;
    let answer = session.post(&request(2, "x/progress", params));
    let place = |what: &str| {
        let found = answer.body.find(what);
        found.unwrap_or_else(|| panic!("no {what}: {answer:?}"))
    };
    assert!(answer.head.contains("text/event-stream"), "{answer:?}");
    assert!(place(r#""progressToken":"p""#) < place("working"));
    assert!(place("working") < place(r#""id":2,"result""#));
}

#[test]
fn what_belongs_to_no_request_rides_the_standalone_stream() {
    let (_proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let session = http.session();
    session.call(2, "x/change");
    let stream = http.open("GET", &session.fields(), "");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("notifications/tools/list_changed")));
}
