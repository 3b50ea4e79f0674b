//! The command line's promises: names, defaults, exit statuses, one line per error, no secrets.
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod environment;

use std::collections::BTreeMap;
use std::process::{Command, Output};

fn shadowcat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowcat"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SHADOWCAT_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs something that must fail with one line on stderr and nothing on stdout.
fn complaint(command: &mut Command, status: i32) -> String {
    let Output {
        status: found,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = text(&stderr);
    assert_eq!(found.code(), Some(status), "{command:?}: {stderr}");
    assert!(stdout.is_empty(), "{command:?}: {}", text(&stdout));
    assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
    assert!(stderr.starts_with("shadowcat: "), "{command:?}: {stderr}");
    stderr
}

/// The options in a long help text, each with its paragraph.
fn options_of(mode: &str) -> BTreeMap<String, String> {
    let output = shadowcat(&[mode, "--help"]).output().unwrap();
    assert!(output.status.success());
    let help = text(&output.stdout);
    let mut options = BTreeMap::new();
    for block in help.split("\n      --").skip(1) {
        let end = block
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap();
        options.insert(format!("--{}", &block[..end]), block.to_owned());
    }
    options
}

#[test]
fn the_help_lists_the_promised_options_and_no_others() {
    for mode in ["forward", "reverse"] {
        let mut options = options_of(mode);
        let listed = include_str!("../options.txt")
            .lines()
            .filter(|line| !line.starts_with('#'));
        for line in listed {
            let words: Vec<_> = line.split_whitespace().collect();
            let (name, default) = (words[0], words[1]);
            if words.get(2).is_some_and(|only| *only != mode) {
                continue;
            }
            let help = options
                .remove(name)
                .unwrap_or_else(|| panic!("{mode} has no {name}"));
            let variable = name[2..].to_uppercase().replace('-', "_");
            assert!(
                help.contains(&format!("[env: SHADOWCAT_{variable}]")),
                "{mode} {name}: {help}"
            );
            let shown = help
                .split("\n          [default: ")
                .nth(1)
                .map(|rest| rest.split(']').next().unwrap());
            assert_eq!(shown.unwrap_or("-"), default, "{mode} {name}: {help}");
        }
        let unlisted: Vec<_> = options.into_keys().collect();
        assert_eq!(
            unlisted, [""; 0],
            "{mode} has options that options.txt does not list"
        );
    }
}

#[test]
fn every_command_teaches_by_examples() {
    let help = text(&shadowcat(&["--help"]).output().unwrap().stdout);
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = commands
        .lines()
        .map(|line| line.split_whitespace().next().unwrap());
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(
        ["forward", "reverse", "sse", "check", "demo", "completions"]
            .iter()
            .all(|name| names.contains(name)),
        "{help}"
    );
    for name in names {
        for flag in ["-h", "--help"] {
            let output = shadowcat(&[name, flag]).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty());
            let example = format!("  shadowcat {name}");
            let help = text(&output.stdout);
            let examples = help.split("Examples:\n").nth(1);
            assert!(
                examples.is_some_and(|text| text.contains(&example)),
                "{name} {flag}: {help}"
            );
        }
    }
}

#[test]
fn usage_errors_are_one_line_that_says_what_to_do() {
    for (arguments, hint) in [
        (&[][..], "shadowcat --help"),
        (&["froward"], "'forward'"),
        (&["forward"], "-- COMMAND"),
        (&["forward", "node"], "shadowcat forward -- node"),
        (
            &["forward", "node", "server.js"],
            "shadowcat forward -- node server.js;",
        ),
        (
            &["forward", "npx", "-y", "foo"],
            "shadowcat forward -- npx -y foo;",
        ),
        (
            &[
                "reverse",
                "--listen",
                "127.0.0.1:0",
                "npx",
                "-y",
                "@a/b",
                "--key",
                "s3cret",
            ],
            "shadowcat reverse [OPTIONS] -- npx -y @a/b ...;",
        ),
        (
            &["check", "--json", "uvx", "a=s3cret", "-v"],
            "shadowcat check [OPTIONS] -- uvx ...;",
        ),
        (
            &["forward", "http://h/", "--lisen", "x"],
            "there is no option '--lisen'; a similar one is '--listen'; see",
        ),
        (&["sse", "http://h/", "-y"], "no option '-y'; see"),
        (
            &["reverse", "--retry-jitter", "-1", "http://h/"],
            "invalid value '-1' for '--retry-jitter <FACTOR>': write a factor from 0 to 1",
        ),
        (
            &["reverse", "--retry-max", "-1s", "http://h/"],
            "invalid value '-1s' for '--retry-max': it must not be negative; see",
        ),
        (
            &["reverse", "--allow-remote=maybe", "http://h/"],
            "for '--allow-remote[=<BOOL>]': write on or off, 1 or 0, yes or no; see",
        ),
        (&["forward", "http://h/", "--", "node"], "either"),
        (&["forward", "--lisen", "x"], "'--listen'"),
        (&["forward", "ftp://h/"], "http://"),
        (&["reverse", "http://user:s3cret@h/mcp"], "--header"),
        (
            &["reverse", "--listen", "8080", "http://h/"],
            "127.0.0.1:8080",
        ),
        (
            &["reverse", "--listen", "0.0.0.0:0", "http://h/"],
            "--allow-remote",
        ),
        (
            &["reverse", "--admin", "[::]:0", "http://h/"],
            "--allow-remote",
        ),
        (&["reverse", "--retry-max", "5", "http://h/"], "5s"),
        (
            &["reverse", "--retry-max", "10ms", "http://h/"],
            "raise --retry-max",
        ),
        (
            &["reverse", "--idle-timeout", "0s", "http://h/"],
            "longer than zero",
        ),
        (
            &["reverse", "--max-message-size", "16MB", "http://h/"],
            "16MiB",
        ),
        (
            &["reverse", "--max-sessions", "0", "http://h/"],
            "at least 1",
        ),
        (
            &["reverse", "--retry-jitter", "2", "http://h/"],
            "from 0 to 1",
        ),
        (
            &["reverse", "--pin", "2025-01-01", "http://h/"],
            "2025-11-25",
        ),
        (
            &[
                "reverse",
                "--min-version",
                "2025-11-25",
                "--pin",
                "2025-06-18",
                "http://h/",
            ],
            "drop one",
        ),
        (
            &["reverse", "--on-session-loss", "cry", "http://h/"],
            "heal, propagate",
        ),
        (
            &["reverse", "--allow-origin", "app.example", "http://h/"],
            "https://app.example",
        ),
        (&["reverse", "--env", "A=1", "http://h/"], "leave them out"),
        (&["reverse", "--env", "s3cret", "--", "node"], "NAME=VALUE"),
        (&["reverse", "--header", "X-A: 1", "--", "node"], "--env"),
        (
            &["reverse", "--header", "s3cret", "http://h/"],
            "Name: value",
        ),
        (
            &[
                "reverse",
                "--header",
                "X-A: ${NO_SUCH_VARIABLE}",
                "http://h/",
            ],
            "NO_SUCH_VARIABLE",
        ),
        (
            &["reverse", "--cwd", "/no/such/directory", "--", "node"],
            "/no/such/directory",
        ),
        (&["check"], "shadowcat check -- COMMAND"),
        (&["check", "node"], "shadowcat check -- node"),
        (
            &["check", "--timeout", "0s", "http://h/"],
            "longer than zero",
        ),
        (&["demo", "--seed", "x"], "--seed"),
        (&["sse"], "<URL>"),
        (&["sse", "ftp://h/"], "http://"),
        (&["sse", "localhost:3000/"], "http://HOST:PORT/PATH"),
        (&["sse", "--header", "s3cret", "http://h/"], "Name: value"),
        (
            &["sse", "--retry-max", "10ms", "http://h/"],
            "raise --retry-max",
        ),
        (&["completions", "tcsh"], "bash"),
    ] {
        let error = complaint(&mut shadowcat(arguments), 2);
        assert!(error.contains(hint), "{arguments:?}: {error}");
        assert!(!error.contains("s3cret"), "{arguments:?}: {error}");
    }
}

#[test]
fn a_port_that_is_taken_is_a_runtime_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--listen", "--admin"] {
        let mut command = shadowcat(&[
            "reverse",
            "--listen",
            "127.0.0.1:0",
            option,
            &address,
            "http://127.0.0.1:9/mcp",
        ]);
        if option == "--listen" {
            command = shadowcat(&["reverse", option, &address, "http://127.0.0.1:9/mcp"]);
        }
        let error = complaint(&mut command, 1);
        assert!(
            error.contains(&address) && error.contains(option),
            "{error}"
        );
    }
}

#[test]
fn a_failure_that_nobody_reads_keeps_its_status() {
    for (arguments, status) in [
        (&["forward", "--no-such-option"][..], 2),
        (&["check", "--", "/no/such/command"], 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = shadowcat(arguments).stderr(writer).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = shadowcat(&["completions", shell]).output().unwrap();
        assert!(output.status.success());
        for word in ["retry-hint-max", "last-event-id", "check", "demo"] {
            assert!(text(&output.stdout).contains(word), "{shell} {word}");
        }
        if ["bash", "zsh", "fish"].contains(&shell) {
            let versions = text(&output.stdout).matches("2025-11-25").count();
            assert!(versions >= 4, "{shell}: for two options of two commands");
        }
    }
}

#[test]
fn the_version_is_the_package_s() {
    let output = shadowcat(&["--version"]).output().unwrap();
    assert_eq!(
        text(&output.stdout),
        concat!("shadowcat ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for command in ["forward", "reverse", "check", "sse", "demo"] {
        let output = shadowcat(&[command, "--version"]).output().unwrap();
        let version = text(&output.stdout);
        assert!(
            version.contains(env!("CARGO_PKG_VERSION")) && version.contains(command),
            "{version}"
        );
    }
}
