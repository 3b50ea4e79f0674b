//! What comes from the environment: options, the log filter, and whom an error blames.

use super::{complaint, shadowcat, text};

#[test]
fn the_environment_gives_options_and_the_command_line_beats_it() {
    let reverse =
        |arguments: &[&str]| shadowcat(&[&["reverse"], arguments, &["http://h/"]].concat());
    let error = complaint(reverse(&[]).env("SHADOWCAT_RETRY_MAX", "soon"), 2);
    assert!(
        error.contains("--retry-max") && error.contains("soon"),
        "{error}"
    );
    // The first thing that is wrong tells which value counted.
    let error = complaint(
        reverse(&["--retry-max", "10ms"]).env("SHADOWCAT_RETRY_MAX", "20ms"),
        2,
    );
    assert!(error.contains("--retry-max 10ms"), "{error}");
    let error = complaint(reverse(&[]).env("SHADOWCAT_LISTEN", "0.0.0.0:0"), 2);
    assert!(error.contains("--allow-remote"), "{error}");
    let both = reverse(&["--allow-remote=off"])
        .env("SHADOWCAT_ALLOW_REMOTE", "true")
        .env("SHADOWCAT_LISTEN", "0.0.0.0:0")
        .output()
        .unwrap();
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));
    let variables = "X-A: 1\nX-B: ${NO_SUCH_VARIABLE}";
    let error = complaint(reverse(&[]).env("SHADOWCAT_HEADER", variables), 2);
    assert!(error.contains("NO_SUCH_VARIABLE"), "{error}");
    let command = &mut shadowcat(&["reverse", "--", "node"]);
    let error = complaint(command.env("SHADOWCAT_ENV", "A=1\nB"), 2);
    assert!(error.contains("NAME=VALUE"), "{error}");
}

/// Nobody who reads the error wrote the option that it is about.
#[test]
fn a_value_from_the_environment_is_blamed_on_its_variable() {
    let reverse =
        |arguments: &[&str]| shadowcat(&[&["reverse"], arguments, &["http://h/"]].concat());
    for (variable, value, option) in [
        ("RETRY_MAX", "xx", "--retry-max"),
        ("RETRY_MAX", "10ms", "--retry-max"),
        ("ALLOW_REMOTE", "maybe", "--allow-remote"),
        ("RETRY_JITTER", "-1", "--retry-jitter"),
        ("LISTEN", "0.0.0.0:0", "--listen"),
        ("HEADER", "s3cret", "--header"),
    ] {
        let variable = format!("SHADOWCAT_{variable}");
        let error = complaint(reverse(&[]).env(&variable, value), 2);
        let origin = format!("; {option} is set by {variable} in the environment");
        assert_eq!(error.matches(&origin).count(), 1, "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    for written in [&["--retry-max", "10ms"][..], &["--retry-max=10ms"]] {
        let error = complaint(reverse(written).env("SHADOWCAT_RETRY_MAX", "xx"), 2);
        assert!(!error.contains("SHADOWCAT_RETRY_MAX"), "{error}");
    }
    // Another option that begins like it.
    let attempts = reverse(&["--retry-max-attempts", "0"])
        .env("SHADOWCAT_RETRY_MAX", "40s")
        .output()
        .unwrap();
    assert!(!text(&attempts.stderr).contains("SHADOWCAT"));
}

/// An option that is named as the way out, or repeated from what was written, was not refused.
#[test]
fn a_variable_whose_option_is_only_mentioned_is_not_blamed() {
    for (variable, value, arguments) in [
        ("RETRY_MAX", "40s", &["--retry-mx", "5s", "http://h/"][..]),
        (
            "RETRY_MAX",
            "40s",
            &["--retry-initial=--retry-max", "http://h/"],
        ),
        (
            "ALLOW_REMOTE",
            "off",
            &["--listen", "0.0.0.0:0", "http://h/"],
        ),
        ("HEADER", "X-A: 1", &["http://user:s3cret@h/"]),
        ("ENV", "A=1", &["--header", "X-A: 1", "--", "node"]),
    ] {
        let mut reverse = shadowcat(&[&["reverse"], arguments].concat());
        let error = complaint(reverse.env(format!("SHADOWCAT_{variable}"), value), 2);
        let option = variable.to_ascii_lowercase().replace('_', "-");
        assert!(error.contains(&format!("--{option}")), "{error}");
        assert!(!error.contains("SHADOWCAT"), "{error}");
    }
}

#[test]
fn a_flag_s_variable_takes_the_usual_spellings() {
    let check = |value: &str| {
        let mut command = shadowcat(&["check", "--", "no-such-command-here"]);
        command.env("SHADOWCAT_JSON", value);
        command
    };
    for (value, json) in [
        ("1", true),
        ("true", true),
        ("yes", true),
        ("on", true),
        ("0", false),
        ("false", false),
        ("no", false),
    ] {
        let output = check(value).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{value}: {stderr}");
        assert_eq!(text(&output.stdout).starts_with('{'), json, "{value}");
    }
    let error = complaint(&mut check("maybe"), 2);
    assert!(error.contains("write on or off"), "{error}");
    assert!(error.contains("SHADOWCAT_JSON"), "{error}");
}

/// It is there for other programs as often as for this one.
#[test]
fn a_log_filter_that_cannot_be_read_is_warned_of() {
    let output = shadowcat(&["reverse", "--", "no-such-command-here"])
        .env("RUST_LOG", "shadowcat=loud")
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let first = stderr.lines().next().unwrap();
    assert!(
        first.contains("WARN") && first.contains("RUST_LOG is ignored: "),
        "{stderr}"
    );
}

/// The proxy starts all the same, and says so before anything else.
#[test]
fn a_mistyped_variable_is_named_without_its_value() {
    for arguments in [
        &["check", "--", "false"][..],
        &[
            "reverse",
            "--log-level",
            "off",
            "--",
            "no-such-command-here",
        ],
    ] {
        let mut command = shadowcat(arguments);
        let output = command
            .env("SHADOWCAT_RETRY_MAXX", "s3cret")
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        let first = stderr.lines().next().unwrap();
        assert!(first.contains("WARN"), "{stderr}");
        assert!(first.contains("SHADOWCAT_RETRY_MAXX"), "{stderr}");
        assert!(first.ends_with("SHADOWCAT_RETRY_MAX"), "{stderr}");
        assert!(!stderr.contains("s3cret"), "{stderr}");
    }
}

#[test]
fn values_in_the_environment_are_not_in_the_help() {
    let output = shadowcat(&["forward", "--help"])
        .env("SHADOWCAT_HEADER", "Authorization: s3cret")
        .output()
        .unwrap();
    assert!(!text(&output.stdout).contains("s3cret"));
}
