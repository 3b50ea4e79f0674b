//! Many modern clients on one process.

use crate::support::{Proxy, SERVER, modern, modern_call, pid_in};

fn server() -> (Proxy, crate::support::Http) {
    Proxy::reverse(&["--env", "MODERN=yes"], &["sh", "-c", SERVER])
}

#[test]
fn clients_with_equal_ids_share_a_process_and_get_their_own_answers() {
    let (mut proxy, http) = server();
    let first = pid_in(&http.modern(1, "x/pid").body);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| http.modern(7, "x/hold"));
        proxy.until("sh: holding");
        let progress = http.modern(7, "x/progress");
        assert!(
            progress.body.contains(r#""progressToken":7,"#),
            "{progress:?}"
        );
        assert!(
            progress.body.contains(r#""id":7,"result":{}"#),
            "{progress:?}"
        );
        let released = http.modern(7, "x/release");
        assert!(
            released.body.contains(r#""id":7,"result":{}"#),
            "{released:?}"
        );
        let held = held.join().unwrap();
        assert!(
            held.body.contains(r#""id":7,"result":{"held":true}"#),
            "{held:?}"
        );
        assert!(!held.body.contains("progress"), "{held:?}");
    });
    assert_eq!(pid_in(&http.modern(1, "x/pid").body), first);
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let (mut proxy, http) = server();
    http.modern(1, "x/pid");
    let (fields, body) = modern(9, "x/hold");
    let socket = http.open("POST", &fields, &body);
    proxy.until("sh: holding");
    drop(socket);
    // It was the third on this process: the first asked for the era.
    proxy.until("sh: cancelled 3");
}

#[test]
fn a_process_that_died_is_replaced_at_the_next_request() {
    let (_proxy, http) = server();
    let first = pid_in(&http.modern(1, "x/pid").body);
    let lost = http.modern(2, "x/exit");
    assert_eq!(lost.status, 502, "{lost:?}");
    assert!(lost.body.contains("exit status: 3"), "{lost:?}");
    assert_ne!(pid_in(&http.modern(3, "x/pid").body), first);
}

#[test]
fn mirrored_arguments_are_checked_where_the_server_sees_no_headers() {
    let (_proxy, http) = server();
    for (header, status) in [
        ("Mcp-Param-Region: west", 200),
        ("Mcp-Param-Region: =?base64?d2VzdA==?=", 200),
        ("Mcp-Param-Region: east", 400),
        ("Mcp-Param-Region: =?base64?d2VzdA?=", 400),
        ("X-Other: west", 400),
    ] {
        let (fields, body) = modern_call("west", header);
        let answer = http.exchange("POST", &fields, &body);
        assert_eq!(answer.status, status, "{header}: {answer:?}");
        assert_eq!(answer.body.contains("-32020"), status == 400, "{answer:?}");
    }
}
