//! The command line: what can be written, and what it means.
//!
//! Parsing ends in an [`Invocation`], whose parts need no further check. What cannot be parsed is a
//! [`Failure::Usage`] of one line ([`usage`]); `--help` and `--version` are text for stdout.

pub(crate) mod environment;
pub mod header;
pub mod options;
pub mod server;
mod usage;
pub mod values;

use std::ffi::OsString;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use http::{HeaderMap, Uri};
use shadowcat_transport::upstream::stdio::Audience;

use crate::failure::Failure;
use options::{LogOptions, ProxyOptions, RetryOptions};
use server::{Server, ServerOptions};
use values::Listen;

const AFTER: &str = "\
Every option can also be given as an environment variable: SHADOWCAT_ and its name, for example
SHADOWCAT_LISTEN or SHADOWCAT_RETRY_MAX. The command line beats the environment, the environment
beats the default. Durations are written 250ms, 5s or 1h30m; sizes in bytes, KiB or MiB.";

const EXAMPLES: &str = "\
Examples:
  shadowcat forward https://mcp.example/mcp                 a remote server for a stdio client
  shadowcat reverse -- npx -y @scope/some-mcp-server        a stdio server for HTTP clients
  shadowcat demo                                            see it work, with no other program
  shadowcat help forward                                    all options, with their meanings";

const FORWARD_EXAMPLES: &str = "\
Examples:
  A remote server for a client that starts its servers as commands:
    shadowcat forward https://mcp.example/mcp
  The same with a token, which the client's configuration need not hold:
    shadowcat forward --header 'Authorization: Bearer ${TOKEN}' https://mcp.example/mcp
  A local command that is restarted when it crashes:
    shadowcat forward -- npx -y @modelcontextprotocol/server-filesystem /data
  One address on this machine for several HTTP clients:
    shadowcat forward --listen 127.0.0.1:8080 https://mcp.example/mcp";

const REVERSE_EXAMPLES: &str = "\
Examples:
  A stdio server for HTTP clients, one process per session, at http://127.0.0.1:8080/mcp:
    shadowcat reverse -- npx -y @modelcontextprotocol/server-everything
  An HTTP server whose clients keep their sessions over its restarts:
    shadowcat reverse --listen 127.0.0.1:9000 http://127.0.0.1:3001/mcp
  Reachable from other machines, for one host name and one web application:
    shadowcat reverse --listen 0.0.0.0:8080 --allow-remote --allow-host mcp.example \\
        --allow-origin https://app.example http://127.0.0.1:3001/mcp
  With health checks and metrics on another port:
    shadowcat reverse --admin 127.0.0.1:9090 http://127.0.0.1:3001/mcp";

const CHECK_EXAMPLES: &str = "\
Examples:
  shadowcat check https://mcp.example/mcp                   transport, versions, sessions, resumption
  shadowcat check --json http://127.0.0.1:3001/mcp          the same for a program, one line of JSON
  shadowcat check -- npx -y @scope/some-mcp-server          a command; it is started and ended again
A command that answers server/discover, or ends over it, is started a second time: only a fresh
process shows whether it takes initialize.";

const SSE_EXAMPLES: &str = "\
Examples:
  shadowcat sse https://stream.example/events               id, type and data of each event, in one line
  shadowcat sse --json https://stream.example/events        each event as an object
  shadowcat sse --last-event-id 42 http://127.0.0.1:3000/   go on after an event
  shadowcat sse --header 'Authorization: Bearer ${TOKEN}' https://stream.example/events
  shadowcat sse --header 'Mcp-Session-Id: ${SESSION}' http://127.0.0.1:8080/mcp";

const DEMO_EXAMPLES: &str = "\
Examples:
  shadowcat demo                      calls through the proxy to a server that breaks, then the sums
  shadowcat demo --seed 42            other calls and other faults; the same for the same seed
  shadowcat demo --log-level info     with the proxy's own account of what broke and came back";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  shadowcat completions bash > ~/.local/share/bash-completion/completions/shadowcat
  shadowcat completions zsh > \"${fpath[1]}/_shadowcat\"
  shadowcat completions fish > ~/.config/fish/completions/shadowcat.fish";

#[derive(Debug, Parser)]
#[command(
    name = "shadowcat",
    version,
    propagate_version = true,
    about = "An MCP proxy that keeps broken connections from losing, duplicating or reordering messages",
    after_help = EXAMPLES,
    disable_help_subcommand = false,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    /// Beside the client: stdio in (or --listen), one server out
    #[command(
        after_long_help = format!("{FORWARD_EXAMPLES}\n\n{AFTER}"), after_help = FORWARD_EXAMPLES,
        override_usage = "shadowcat forward [OPTIONS] <URL | -- COMMAND [ARG...]>"
    )]
    Forward(Box<ForwardWords>),
    /// Beside the server: Streamable HTTP in, one server out
    #[command(
        after_long_help = format!("{REVERSE_EXAMPLES}\n\n{AFTER}"), after_help = REVERSE_EXAMPLES,
        override_usage = "shadowcat reverse [OPTIONS] <URL | -- COMMAND [ARG...]>"
    )]
    Reverse(Box<ReverseWords>),
    /// Probe a server: transport, versions, session, resumable or not
    ///
    /// The exit status is 0 if the server can be used, and 1 if not; then stderr says what is wrong
    /// and what to do next.
    #[command(
        after_help = CHECK_EXAMPLES,
        override_usage = "shadowcat check [OPTIONS] <URL | -- COMMAND [ARG...]>"
    )]
    Check(Box<CheckWords>),
    /// Follow any event stream: reconnects and resumes; one line per event
    ///
    /// Events go to stdout; what becomes of the connection goes to stderr. In an event's data, LF is
    /// written \n and a backslash \\. The exit status is 0 when the server says that there is no more
    /// (204) and after a signal, 1 when the stream is given up.
    #[command(after_help = SSE_EXAMPLES)]
    Sse(Box<SseWords>),
    /// See it work: a built-in server that breaks, calls through the proxy, nothing lost
    ///
    /// Everything runs in this process and on the loopback interface. Progress goes to stderr, the
    /// sums to stdout. The exit status is 1 if a message was lost, came twice or out of order, or if
    /// anything hung.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoWords),
    /// Print the completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct ForwardWords {
    #[command(flatten)]
    server: ServerOptions,

    /// Serve Streamable HTTP at /mcp here instead of stdio; port 0 picks one
    #[arg(long, value_name = "HOST:PORT", help_heading = "Client")]
    listen: Option<Listen>,

    #[command(flatten)]
    proxy: ProxyOptions,
}

#[derive(Debug, Args)]
struct ReverseWords {
    #[command(flatten)]
    server: ServerOptions,

    /// Serve Streamable HTTP at /mcp here; port 0 picks one
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080",
        help_heading = "Client"
    )]
    listen: Listen,

    #[command(flatten)]
    proxy: ProxyOptions,
}

#[derive(Debug, Args)]
struct CheckWords {
    #[command(flatten)]
    server: ServerOptions,

    /// Print the findings as one line of JSON
    #[arg(long, value_parser = values::switch())]
    json: bool,

    /// How long the whole check may take, besides what a command takes to end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    timeout: Duration,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Args)]
struct SseWords {
    /// The stream's URL
    #[arg(value_name = "URL")]
    url: String,

    /// Header field for the server (repeatable); ${ENV} is expanded, never logged
    #[arg(long, value_name = "'NAME: VALUE'")]
    header: Vec<String>,

    /// Go on after the event with this id
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,

    /// Print each event as an object of id, event and data
    #[arg(long, value_parser = values::switch())]
    json: bool,

    #[command(flatten)]
    retry: RetryOptions,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Args)]
struct DemoWords {
    /// Which calls are made and what breaks; the same seed, the same plan
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,

    #[command(flatten)]
    log: LogOptions,
}

/// What the process was asked to do.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Run the proxy.
    Proxy(Box<Proxy>),
    /// Probe a server.
    Check(Box<Check>),
    /// Follow an event stream.
    Sse(Box<Sse>),
    /// Run the demo.
    Demo(Demo),
    /// Print a completion script.
    Completions(Shell),
    /// Print a text: help or version.
    Print(String),
}

/// What `forward` and `reverse` are told.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where HTTP clients are served; `None`: one client on stdin and stdout.
    pub listen: Option<Listen>,
    /// Who the clients are; for `reverse`, always anyone.
    pub audience: Audience,
    /// The server.
    pub server: Server,
    /// The rest.
    pub options: ProxyOptions,
    /// Whether `--log-level` stands on the command line itself, and so outranks `RUST_LOG`.
    pub log_level_given: bool,
}

/// What `check` is told.
#[derive(Debug, Clone)]
pub struct Check {
    /// The server.
    pub server: Server,
    /// Whether a program reads the findings.
    pub json: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// What is logged.
    pub log: LogOptions,
    /// As in [`Proxy::log_level_given`].
    pub log_level_given: bool,
}

/// What `sse` is told.
#[derive(Debug, Clone)]
pub struct Sse {
    /// The stream.
    pub url: Uri,
    /// Sent with every request; the values are marked sensitive.
    pub headers: HeaderMap,
    /// Where to go on.
    pub last_event_id: Option<String>,
    /// Whether a program reads the events.
    pub json: bool,
    /// How broken streams come back.
    pub retry: RetryOptions,
    /// What is logged.
    pub log: LogOptions,
    /// As in [`Proxy::log_level_given`].
    pub log_level_given: bool,
}

/// What `demo` is told.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Determines calls and faults.
    pub seed: u64,
    /// What is logged.
    pub log: LogOptions,
    /// As in [`Proxy::log_level_given`].
    pub log_level_given: bool,
}

/// The command line's grammar, with an environment variable for every option.
#[must_use]
pub fn command() -> clap::Command {
    let with_variable = |arg: clap::Arg| match arg.get_long() {
        Some(long) => {
            let variable = format!("SHADOWCAT_{}", long.to_uppercase().replace('-', "_"));
            // What is out of range is told so, and is not taken for an option.
            let with_value = arg.get_action().takes_values() && !arg.is_require_equals_set();
            let arg = arg.allow_negative_numbers(with_value);
            // Values may be secrets: the help shows names only.
            arg.env(variable).hide_env_values(true)
        }
        None => arg,
    };
    let log_quietly =
        |command: clap::Command| command.mut_arg("log_level", |level| level.default_value("error"));
    Cli::command()
        .mut_subcommands(|subcommand| subcommand.mut_args(with_variable))
        // What breaks is said in the sums.
        .mut_subcommand("demo", log_quietly)
        .mut_subcommand("check", log_quietly)
        .mut_subcommand("sse", log_quietly)
}

/// What a proxy's options are when none is given.
///
/// # Errors
/// As [`parse`], for what the environment says.
pub fn default_options() -> Result<ProxyOptions, Failure> {
    let words = ["forward", "http://localhost/"].map(OsString::from);
    match parse(words.to_vec())? {
        Invocation::Proxy(proxy) => Ok(proxy.options),
        _ => Err(Failure::Usage("forward is no proxy".into())),
    }
}

/// Reads the command line, `arguments` without the program's name.
///
/// # Errors
/// [`Failure::Usage`], one line that says what is wrong and what to do.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, Failure> {
    let words = std::iter::once(OsString::from("shadowcat")).chain(arguments.iter().cloned());
    let parsed = command().try_get_matches_from(words);
    let read = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?.command, matches)));
    let grammar = command();
    let (first, rest) = arguments.split_at(arguments.len().min(1));
    let subcommand = first.first().and_then(|name| grammar.find_subcommand(name));
    match read {
        Ok((words, matches)) => words
            .parse(&matches)
            .map_err(|failure| usage::with_variables(failure, subcommand, rest)),
        Err(error) => usage::explain(&error, subcommand, rest).map(Invocation::Print),
    }
}

impl Words {
    fn parse(self, matches: &ArgMatches) -> Result<Invocation, Failure> {
        let source = |option: &str| {
            let (_, matches) = matches.subcommand()?;
            matches
                .try_contains_id(option)
                .ok()
                .filter(|known| *known)?;
            matches.value_source(option)
        };
        let from_environment = |option| source(option) == Some(ValueSource::EnvVariable);
        let split = |server: ServerOptions| ServerOptions {
            env: if from_environment("env") {
                lines(&server.env)
            } else {
                server.env
            },
            ..server
        };
        let log_level_given = source("log_level") == Some(ValueSource::CommandLine);
        Ok(match self {
            Self::Forward(words) => {
                let server = split(words.server).parse("forward")?;
                let audience = values::forward_audience(words.listen.as_ref());
                proxy(words.listen, audience, server, words.proxy, log_level_given)?
            }
            Self::Reverse(words) => {
                let server = split(words.server).parse("reverse")?;
                let (listen, audience) = (Some(words.listen), Audience::Anyone);
                proxy(listen, audience, server, words.proxy, log_level_given)?
            }
            Self::Check(words) => {
                let words = *words;
                Invocation::Check(Box::new(Check {
                    server: split(words.server).parse("check")?,
                    json: words.json,
                    timeout: words.timeout,
                    log: words.log,
                    log_level_given,
                }))
            }
            Self::Sse(words) => sse(*words, log_level_given)?,
            Self::Demo(words) => Invocation::Demo(Demo {
                seed: words.seed,
                log: words.log,
                log_level_given,
            }),
            Self::Completions { shell } => Invocation::Completions(shell),
        })
    }
}

fn sse(words: SseWords, log_level_given: bool) -> Result<Invocation, Failure> {
    if !words.url.contains("://") {
        return Err(Failure::Usage(format!(
            "{:?} is no URL; write http://HOST:PORT/PATH",
            words.url
        )));
    }
    let headers = header::parse_any(&words.header, |name| std::env::var(name).ok())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Invocation::Sse(Box::new(Sse {
        url: server::parse_url(&words.url, "sse")?,
        headers,
        last_event_id: words.last_event_id,
        json: words.json,
        retry: checked(words.retry)?,
        log: words.log,
        log_level_given,
    })))
}

/// The values of a variable that holds one a line.
fn lines(values: &[String]) -> Vec<String> {
    let lines = values.iter().flat_map(|value| value.lines());
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn proxy(
    listen: Option<Listen>,
    audience: Audience,
    server: Server,
    options: ProxyOptions,
    log_level_given: bool,
) -> Result<Invocation, Failure> {
    let addresses = [
        ("--listen", listen.as_ref()),
        ("--admin", options.operation.admin.as_ref()),
    ];
    for (option, address) in addresses {
        if let Some(address) = address.filter(|address| !address.is_loopback())
            && !options.access.allow_remote
        {
            return Err(Failure::Usage(format!(
                "{option} {address} would let other machines reach the server behind it without \
                 any login; keep to 127.0.0.1, or add --allow-remote if that is what you want"
            )));
        }
    }
    let (min, pin) = (options.protocol.min_version, options.protocol.pin);
    if let (Some(min), Some(pin)) = (min, pin)
        && pin < min
    {
        return Err(Failure::Usage(format!(
            "--pin {pin} is below --min-version {min}, so no version is left; drop one of them"
        )));
    }
    let options = ProxyOptions {
        retry: checked(options.retry)?,
        ..options
    };
    Ok(Invocation::Proxy(Box::new(Proxy {
        listen,
        audience,
        server,
        options,
        log_level_given,
    })))
}

fn checked(retry: RetryOptions) -> Result<RetryOptions, Failure> {
    if retry.retry_initial <= retry.retry_max {
        return Ok(retry);
    }
    Err(Failure::Usage(format!(
        "--retry-initial {} is longer than --retry-max {}; raise --retry-max",
        humantime::format_duration(retry.retry_initial),
        humantime::format_duration(retry.retry_max),
    )))
}
