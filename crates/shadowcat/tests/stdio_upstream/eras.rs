//! How often a command is started for clients that ask for its era first.

use std::io::{BufRead as _, BufReader, Write as _};

use crate::support::{Http, INITIALIZE, Mark, Proxy, SERVER, Starts, modern, pid_in, request};

/// What `initialize` comes after in an "auto" client.
const DISCOVER: &str = "server/discover";
/// A command that fails as soon as it is started.
const BROKEN: &str = r#"echo started >>"$STARTS"; echo "no such package" >&2; exit 1"#;

fn reverse(starts: &Starts, options: &[&str], script: &str) -> (Proxy, Http) {
    let variable = starts.variable();
    let options = [&["--env", variable.as_str()], options].concat();
    Proxy::reverse(&options, &["sh", "-c", script])
}

/// A client on the pipes of `forward`.
struct Pipes {
    proxy: Proxy,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Pipes {
    fn forward(starts: &Starts, options: &[&str], script: &str) -> Self {
        let variable = starts.variable();
        let arguments = [
            &["forward", "--env", variable.as_str()],
            options,
            &["--", "sh", "-c", script],
        ];
        let mut proxy = Proxy::start(&arguments.concat());
        let stdout = proxy.process().stdout.take().unwrap();
        let lines = BufReader::new(stdout).lines();
        Self { proxy, lines }
    }

    fn ask(&mut self, request: &str) -> String {
        let stdin = self.proxy.process().stdin.as_mut().unwrap();
        writeln!(stdin, "{request}").unwrap();
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn a_client_that_is_refused_its_discovery_goes_on_with_the_process() {
    let starts = Starts::new("auto");
    let mut client = Pipes::forward(&starts, &["--max-children", "1"], SERVER);
    let refused = client.ask(&modern(1, DISCOVER).1);
    assert!(refused.contains("-32022"), "{refused}");
    assert!(refused.contains("refused server/discover"), "{refused}");
    assert!(refused.contains(r#""2025-11-25""#), "{refused}");
    let initialized = client.ask(&request(2, "initialize", INITIALIZE));
    assert!(initialized.contains("protocolVersion"), "{initialized}");
    let answer = client.ask(&request(3, "tools/list", "{}"));
    assert!(answer.contains("inputSchema"), "{answer}");
    assert_eq!(starts.count(), 1);
}

#[test]
fn each_session_has_one_process_of_its_own() {
    let starts = Starts::new("sessions");
    let (_proxy, http) = reverse(&starts, &[], SERVER);
    let mut processes = Vec::new();
    for client in 1..=3 {
        let refused = http.modern(1, DISCOVER);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains("-32022"), "{refused:?}");
        let session = http.session();
        processes.push((session.pid(2), session));
        assert_eq!(starts.count(), client);
    }
    processes.sort_by_key(|(pid, _)| *pid);
    processes.dedup_by_key(|(pid, _)| *pid);
    assert_eq!(processes.len(), 3);
    // What the first one showed is known, with the version.
    let refused = http.modern(1, DISCOVER);
    assert!(
        refused.body.contains("the server only 2025-06-18"),
        "{refused:?}"
    );
}

#[test]
fn a_modern_client_goes_on_with_the_process_that_it_discovered() {
    let starts = Starts::new("modern");
    let (_proxy, http) = reverse(&starts, &["--env", "MODERN=yes"], SERVER);
    let discovered = http.modern(1, DISCOVER);
    assert_eq!(discovered.status, 200, "{discovered:?}");
    let pid = pid_in(&http.modern(1, "x/pid").body);
    assert_eq!(pid_in(&http.modern(2, "x/pid").body), pid);
    assert_eq!(starts.count(), 1);
}

/// Its version can only be learnt in a handshake, which nobody goes on with.
#[test]
fn a_modern_client_that_does_not_discover_is_told_the_version() {
    let starts = Starts::new("pinned");
    let (_proxy, http) = reverse(&starts, &["--max-children", "1"], SERVER);
    let refused = http.modern(1, "tools/list");
    assert!(
        refused.body.contains("the server only 2025-11-25"),
        "{refused:?}"
    );
    assert_eq!(starts.count(), 1);
    http.session();
    assert_eq!(starts.count(), 2);
}

#[test]
fn a_server_that_ends_over_a_discovery_still_serves_sessions() {
    let starts = Starts::new("ends");
    let (_proxy, http) = reverse(&starts, &["--env", "MODERN=ends"], SERVER);
    let failed = http.modern(1, DISCOVER);
    assert_eq!(failed.status, 502, "{failed:?}");
    assert!(failed.body.contains("exit status: 1"), "{failed:?}");
    http.session();
    assert_eq!(starts.count(), 2);
    let refused = http.modern(1, "tools/list");
    assert!(
        refused.body.contains("the server only 2025-11-25"),
        "{refused:?}"
    );
}

#[test]
fn a_command_that_fails_is_started_once_for_each_request() {
    let starts = Starts::new("broken");
    let mut client = Pipes::forward(&starts, &[], BROKEN);
    let messages = [modern(1, DISCOVER).1, request(2, "initialize", INITIALIZE)];
    for (started, message) in messages.iter().enumerate() {
        let failed = client.ask(message);
        assert!(failed.contains("no such package"), "{failed}");
        assert_eq!(starts.count(), started + 1);
    }
}

#[test]
fn a_process_that_nobody_goes_on_with_ends_in_order() {
    let (starts, mark) = (Starts::new("unused"), Mark::new("unused"));
    let mark_variable = mark.variable();
    let options = ["--env", mark_variable.as_str()];
    let mut client = Pipes::forward(&starts, &options, SERVER);
    client.ask(&modern(1, DISCOVER).1);
    drop(client.proxy.process().stdin.take());
    client.proxy.wait();
    assert!(mark.is_made());
}
