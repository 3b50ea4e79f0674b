//! Bounds, and commands that cannot serve.

use crate::support::{Mark, Proxy, SERVER, eventually, shadowcat};

#[test]
fn beyond_max_children_a_client_is_told_when_to_come_back() {
    let (_proxy, http) = Proxy::reverse(&["--max-children", "2"], &["sh", "-c", SERVER]);
    let (first, _second) = (http.session(), http.session());
    let refused = http.initialize();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("retry-after: 10"), "{refused:?}");
    assert!(refused.body.contains("--max-children"), "{refused:?}");
    assert!(
        refused
            .body
            .contains(r#""executed":"no","retry_safe":true"#),
        "{refused:?}"
    );
    assert_eq!(first.delete().status, 204);
    http.session();
}

/// As for the modern request that finds out what the server speaks, by a process of its own.
#[test]
fn a_start_waits_for_a_process_that_is_ending() {
    let mark = Mark::new("slow");
    let variable = mark.variable();
    let options = ["--max-children", "1", "--env", "SLOW=1", "--env", &variable];
    let (_proxy, http) = Proxy::reverse(&options, &["sh", "-c", SERVER]);
    let first = http.session();
    assert_eq!(first.delete().status, 204);
    eventually("it is ending", || mark.is_made());
    http.session();
}

#[test]
fn a_command_that_always_crashes_is_not_started_for_ever() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", "echo >&2 no database; exit 3"]);
    for _ in 0..10 {
        let body = http.initialize().body;
        assert!(body.contains("exit status: 3"), "{body}");
    }
    proxy.until("sh: no database");
    let body = http.initialize().body;
    assert!(body.contains("keeps ending before it answers"), "{body}");
    assert!(
        body.contains(r#""kind":"child_not_started","executed":"no""#),
        "{body}"
    );
    // The shortest distance of a session's looks, 48 s, less what this test took.
    assert!(
        body.contains(r#""retry_after":48"#) || body.contains(r#""retry_after":4"#),
        "{body}"
    );
}

#[test]
fn a_command_that_cannot_run_is_a_startup_error() {
    for mode in ["forward", "reverse"] {
        let output = shadowcat(&[mode, "--", "no-such-command-here"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            stderr,
            "shadowcat: there is no command no-such-command-here in PATH; install it, or give its path\n"
        );
    }
}

#[test]
fn a_command_that_vanished_is_named_in_the_error() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join(format!("vanishing-{}", std::process::id()));
    std::fs::copy("/bin/sh", &program).unwrap();
    let (_proxy, http) = Proxy::reverse(&[], &[program.to_str().unwrap(), "-c", SERVER]);
    std::fs::remove_file(&program).unwrap();
    let body = http.initialize().body;
    assert!(body.contains("child_not_started"), "{body}");
    assert!(
        body.contains("no such command") && body.contains("vanishing"),
        "{body}"
    );
}

#[test]
fn what_children_do_is_counted() {
    let (proxy, http) = Proxy::reverse(&["--admin", "127.0.0.1:0"], &["sh", "-c", SERVER]);
    let session = http.session();
    session.call(2, "x/exit");
    session.pid(3);
    let admin = crate::support::Http::at(&proxy.admin());
    let wanted = [
        "shadowcat_children 1",
        "shadowcat_child_starts_total 2",
        "shadowcat_child_restarts_total 1",
        "shadowcat_child_crashes_total 1",
        r#"shadowcat_child_exits_total{reason="exit_status"} 1"#,
    ];
    let text = admin.get("/metrics");
    for line in wanted {
        assert!(text.contains(line), "{line}: {text}");
    }
    session.delete();
    eventually("the end is counted", || {
        let text = admin.get("/metrics");
        text.contains(r#"shadowcat_child_exits_total{reason="stopped"} 1"#)
            && text.contains("shadowcat_children 0")
    });
    assert!(admin.get("/readyz").contains("200 OK"));
}
