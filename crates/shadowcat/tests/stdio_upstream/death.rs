//! How processes end, and what everybody is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{INITIALIZE, Mark, Proxy, SERVER, eventually, request, runs};

/// Waiting requests are answered within this.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_crash_answers_every_waiting_request_and_the_next_one_finds_a_new_process() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let session = http.session();
    let first = session.pid(2);
    let (held, asked) = std::thread::scope(|scope| {
        let held = scope.spawn(|| session.call(3, "x/hold"));
        proxy.until("sh: holding");
        let asked = Instant::now();
        let body = session.call(4, "x/exit").body;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        assert!(body.contains("exit status: 3"), "{body}");
        assert!(
            body.contains(r#""kind":"child_exited","executed":"unknown""#),
            "{body}"
        );
        (held.join().unwrap(), asked)
    });
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert!(held.body.contains("exit status: 3"), "{held:?}");
    let second = session.pid(5);
    assert_ne!(first, second);
}

/// Of a command that never answered anything the client learns what to do next, in either mode.
#[test]
fn a_command_that_fails_at_once_is_to_be_started_by_hand() {
    let command = ["sh", "-c", "exit 3"];
    let (_proxy, http) = Proxy::reverse(&[], &command);
    let mut proxy = Proxy::start(&["forward", "--", "sh", "-c", "exit 3"]);
    let mut stdin = proxy.process().stdin.take().unwrap();
    let mut answers = BufReader::new(proxy.process().stdout.take().unwrap()).lines();
    writeln!(stdin, "{}", request(1, "initialize", INITIALIZE)).unwrap();
    for body in [http.initialize().body, answers.next().unwrap().unwrap()] {
        assert!(body.contains("exit status: 3"), "{body}");
        assert!(body.contains("start the command by hand"), "{body}");
    }
    // Of one that had answered there is nothing to see by that.
    let (_proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let body = http.session().call(2, "x/exit").body;
    assert!(!body.contains("by hand"), "{body}");
}

/// A lost session that is passed on ends the process of a stdio client, whether or not the client had
/// said that it is initialized.
#[test]
fn a_process_that_dies_takes_the_client_with_it_where_that_is_wanted() {
    for initialized in [false, true] {
        let options = ["forward", "--on-session-loss", "propagate", "--"];
        let mut proxy = Proxy::start(&[&options[..], &["sh", "-c", SERVER]].concat());
        let mut stdin = proxy.process().stdin.take().unwrap();
        let mut answers = BufReader::new(proxy.process().stdout.take().unwrap()).lines();
        writeln!(stdin, "{}", request(1, "initialize", INITIALIZE)).unwrap();
        answers.next().unwrap().unwrap();
        if initialized {
            let said = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            writeln!(stdin, "{said}").unwrap();
        }
        writeln!(stdin, "{}", request(2, "x/pid", "{}")).unwrap();
        let answer = answers.next().unwrap().unwrap();
        let (_, pid) = answer.split_once(r#""pid":"#).unwrap();
        let pid = pid.split('}').next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let status = proxy.wait();
        assert_eq!(status.code(), Some(1), "{initialized}: {status}");
        proxy.until("--on-session-loss propagate ends the client's with it");
    }
}

/// What a local user is told of a server that says "no database at s3cret-place" and exits.
const TOLD: &str = "exit status: 4; its last line on stderr: no database at ***";
const COMPLAINS: [&str; 2] = ["--env", "PLACE=s3cret-place"];

#[test]
fn a_local_user_is_told_what_the_server_said_last_without_secrets() {
    let local = ["forward", "--listen", "127.0.0.1:0"];
    let (_proxy, http) = Proxy::listening(&local, &COMPLAINS, &["sh", "-c", SERVER]);
    let body = http.session().call(2, "x/complain").body;
    assert!(body.contains(TOLD), "{body}");

    let mut arguments = vec!["forward"];
    arguments.extend(COMPLAINS);
    arguments.extend(["--", "sh", "-c", SERVER]);
    let mut proxy = Proxy::start(&arguments);
    let mut stdin = proxy.process().stdin.take().unwrap();
    let mut answers = BufReader::new(proxy.process().stdout.take().unwrap()).lines();
    for (id, method, params) in [(1, "initialize", INITIALIZE), (2, "x/complain", "{}")] {
        writeln!(stdin, "{}", request(id, method, params)).unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert_eq!(answer.contains(TOLD), id == 2, "{answer}");
    }
}

#[test]
fn whoever_reaches_us_is_told_how_the_server_ended_and_the_log_what_it_said() {
    let remote = ["forward", "--allow-remote", "--listen", "0.0.0.0:0"];
    for mode in [&["reverse", "--listen", "127.0.0.1:0"][..], &remote] {
        let (mut proxy, http) = Proxy::listening(mode, &COMPLAINS, &["sh", "-c", SERVER]);
        let body = http.session().call(2, "x/complain").body;
        assert!(body.contains("(sh) ended with exit status: 4"), "{body}");
        assert!(!body.contains("stderr"), "{body}");
        assert!(!body.contains("no database"), "{body}");
        let logged = proxy.until("a server's process ended by itself");
        assert!(logged.contains("no database at ***"), "{logged}");
    }
}

#[test]
fn a_crash_is_noticed_while_a_descendant_holds_the_pipe_and_ends_the_descendant() {
    let local = ["forward", "--listen", "127.0.0.1:0"];
    let (mut proxy, http) = Proxy::listening(&local, &[], &["sh", "-c", SERVER]);
    let session = http.session();
    let asked = Instant::now();
    let body = session.call(2, "x/die").body;
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert!(body.contains("signal: 9"), "{body}");
    // What it wrote before is read, though its stderr has no end.
    assert!(body.contains("its last line on stderr: left "), "{body}");
    let left = proxy.until("sh: left ");
    let left: i32 = left.split("left ").nth(1).unwrap().parse().unwrap();
    eventually("the descendant ends", || !runs(left));
}

#[test]
fn a_server_that_closes_its_stdout_is_dead() {
    let (_proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let session = http.session();
    let server = session.pid(2);
    let asked = Instant::now();
    let body = session.call(3, "x/mute").body;
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert!(body.contains("closed its stdout"), "{body}");
    eventually("it is ended", || !runs(server));
}

#[test]
fn a_server_that_closes_its_stdin_is_dead() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let session = http.session();
    let server = session.pid(2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| session.call(3, "x/deaf").body);
        proxy.until("sh: deaf");
        // What is written into nothing was not executed, and goes to the next process.
        eventually("the pipe is closed", || stdin_is_closed(server));
        let asked = Instant::now();
        assert_ne!(session.pid(4), server);
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        let body = waiting.join().unwrap();
        assert!(body.contains("closed its stdin"), "{body}");
    });
    eventually("it is ended", || !runs(server));
}

fn stdin_is_closed(pid: i32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}/fd/0")).exists()
}

#[test]
fn every_session_has_a_process_of_its_own_until_it_is_deleted() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let sessions = [http.session(), http.session(), http.session()];
    let pids = sessions.each_ref().map(|session| session.pid(2));
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2]);
    for ended in 0..3 {
        assert!(pids[ended..].iter().all(|pid| runs(*pid)));
        assert_eq!(sessions[ended].delete().status, 204);
        eventually("its process is gone", || !runs(pids[ended]));
    }
    proxy.signal(Signal::TERM);
    assert!(proxy.wait().success());
}

/// As `npx` starts a server: the child is a shell, the server its descendant.
#[test]
fn our_own_sudden_death_kills_the_child_and_ends_the_stdin_of_its_descendants() {
    let mark = Mark::new("killed");
    let tree = "sh -c \"$0\"; echo the shell outlived us";
    let (mut proxy, http) =
        Proxy::reverse(&["--env", &mark.variable()], &["sh", "-c", tree, SERVER]);
    let server = http.session().pid(2);
    let shell = parent_of(server);
    assert_eq!(
        parent_of(shell),
        i32::try_from(proxy.process().id()).unwrap()
    );
    proxy.process().kill().unwrap();
    eventually("the child is killed", || !runs(shell));
    eventually("its descendant sees the end of stdin", || mark.is_made());
    eventually("the descendant ends", || !runs(server));
}

#[test]
fn an_orderly_shutdown_closes_stdin_and_waits() {
    let mark = Mark::new("orderly");
    let (mut proxy, http) = Proxy::reverse(&["--env", &mark.variable()], &["sh", "-c", SERVER]);
    let server = http.session().pid(2);
    proxy.signal(Signal::TERM);
    assert!(proxy.wait().success());
    assert!(mark.is_made() && !runs(server));
}

#[test]
fn a_server_that_will_not_end_is_killed_with_its_group() {
    let mark = Mark::new("stubborn");
    let options = ["--env", &mark.variable(), "--env", "STUBBORN=yes"];
    let tree = "trap '' TERM; sh -c \"$0\"; sleep 300";
    let (mut proxy, http) = Proxy::reverse(&options, &["sh", "-c", tree, SERVER]);
    let server = http.session().pid(2);
    let shell = parent_of(server);
    let asked = Instant::now();
    proxy.signal(Signal::TERM);
    assert!(proxy.wait().success());
    assert!(
        asked.elapsed() > Duration::from_secs(3),
        "it was asked first"
    );
    assert!(mark.is_made());
    eventually("both are killed", || !runs(server) && !runs(shell));
}

#[test]
fn the_end_of_a_stdio_client_ends_the_server() {
    let mark = Mark::new("eof");
    let variable = mark.variable();
    let mut proxy = Proxy::start(&["forward", "--env", &variable, "--", "sh", "-c", SERVER]);
    let mut stdin = proxy.process().stdin.take().unwrap();
    writeln!(stdin, "{}", request(1, "initialize", INITIALIZE)).unwrap();
    proxy.until("session initialized");
    drop(stdin);
    assert!(proxy.wait().success());
    assert!(mark.is_made());
}

#[test]
fn sessions_that_came_and_went_leave_nothing_behind() {
    let (mut proxy, http) = Proxy::reverse(&[], &["sh", "-c", SERVER]);
    let proxy = proxy.process().id();
    let come_and_go = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..count / 4 {
                        let session = http.session();
                        session.pid(2);
                        assert_eq!(session.delete().status, 204);
                    }
                });
            }
        });
    };
    come_and_go(40);
    let before = memory(proxy);
    come_and_go(200);
    eventually("no child is left", || children(proxy) == 0);
    eventually("no descriptor is left", || descriptors(proxy) < 40);
    let grown = memory(proxy).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
}

fn children(pid: u32) -> usize {
    let parent = i32::try_from(pid).unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| try_parent_of(*id) == Some(parent)).count()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Resident memory in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn parent_of(pid: i32) -> i32 {
    try_parent_of(pid).unwrap()
}

fn try_parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit(')').next()?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}
