//! Which server: a URL, or a command that speaks MCP on its pipes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use http::{HeaderMap, Uri};

use super::header;
use crate::failure::Failure;

/// The server on the command line.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// The server's URL: Streamable HTTP, or HTTP+SSE where it speaks nothing newer
    #[arg(value_name = "URL")]
    pub url: Option<String>,

    /// A command that speaks MCP on stdin and stdout
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Header field for the server (repeatable); ${ENV} is expanded, never logged
    #[arg(long, value_name = "'NAME: VALUE'", help_heading = "Server")]
    pub header: Vec<String>,

    /// Environment variable for a command (repeatable), besides the inherited ones
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Server")]
    pub env: Vec<String>,

    /// Working directory for a command [default: inherited]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub cwd: Option<PathBuf>,
}

/// The server, checked.
#[derive(Debug, Clone)]
pub enum Server {
    /// Reached over HTTP.
    Http {
        /// The endpoint.
        url: Uri,
        /// Sent with every request; the values are marked sensitive.
        headers: HeaderMap,
    },
    /// Started by us.
    Command(ServerCommand),
}

/// A command that speaks MCP on its pipes.
#[derive(Clone)]
pub struct ServerCommand {
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables besides the inherited ones.
    pub environment: Vec<(String, String)>,
    /// Where it runs; `None`: where we do.
    pub directory: Option<PathBuf>,
}

impl std::fmt::Debug for ServerCommand {
    /// Without arguments and values: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("ServerCommand")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .field("environment", &names)
            .field("directory", &self.directory)
            .finish()
    }
}

impl ServerOptions {
    /// Checks the parts against each other. `command_name` is for the error texts.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what to write instead.
    pub fn parse(self, command_name: &str) -> Result<Server, Failure> {
        if let Some(url) = &self.url {
            if !self.command.is_empty() {
                return Err(Failure::Usage(
                    "one server, please: either a URL or a command after \"--\"".into(),
                ));
            }
            if !self.env.is_empty() || self.cwd.is_some() {
                return Err(Failure::Usage(
                    "--env and --cwd are for a command that shadowcat starts; with a URL leave \
                     them out"
                        .into(),
                ));
            }
            let headers = header::parse(&self.header, |name| std::env::var(name).ok())
                .map_err(|error| Failure::Usage(error.to_string()))?;
            return Ok(Server::Http {
                url: parse_url(url, command_name)?,
                headers,
            });
        }
        if !self.header.is_empty() {
            return Err(Failure::Usage(
                "--header is for a server with a URL; give a command its secrets with --env".into(),
            ));
        }
        let mut words = self.command.into_iter();
        let Some(program) = words.next().filter(|program| !program.is_empty()) else {
            return Err(Failure::Usage(format!(
                "no server given; write its URL (shadowcat {command_name} http://HOST:PORT/mcp) or \
                 its command (shadowcat {command_name} -- COMMAND)"
            )));
        };
        Ok(Server::Command(ServerCommand {
            program,
            arguments: words.collect(),
            environment: parse_environment(&self.env)?,
            directory: self.cwd.map(parse_directory).transpose()?,
        }))
    }
}

/// An `http` or `https` URL with a host and without credentials.
///
/// # Errors
/// [`Failure::Usage`]; a text that looks like a command is told where it belongs.
pub fn parse_url(text: &str, command_name: &str) -> Result<Uri, Failure> {
    let usage = |why: &str| Err(Failure::Usage(why.to_owned()));
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Failure::Usage(format!(
            "{text:?} is no URL; write http://HOST:PORT/mcp, or a command after \"--\": \
             shadowcat {command_name} -- {text}"
        )));
    };
    if !["http", "https"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return usage("the server's URL must begin with http:// or https://");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return usage(
            "the server's URL must not hold credentials; give them with \
             --header 'Authorization: Bearer ${TOKEN}'",
        );
    }
    match text.parse::<Uri>() {
        Ok(url) if url.authority().is_some_and(is_reachable) => Ok(url),
        _ => usage("the server's URL cannot be read; write http://HOST:PORT/mcp"),
    }
}

/// Whether there is a host, and no port that is none.
fn is_reachable(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    !host.is_empty() && (authority.as_str() == host || authority.port_u16().is_some())
}

fn parse_environment(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pairs = given.iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() && !pair.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        // Whatever stands there may be a secret.
        _ => Err(Failure::Usage("--env: write NAME=VALUE".into())),
    });
    pairs.collect()
}

fn parse_directory(directory: PathBuf) -> Result<PathBuf, Failure> {
    if directory.is_dir() {
        Ok(directory)
    } else {
        let shown = directory.display();
        Err(Failure::Usage(format!(
            "--cwd: there is no directory {shown}; name one that exists"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert!(parse_url("HTTPS://mcp.example/mcp?key=1", "reverse").is_ok());
        for (text, hint) in [
            ("node", "-- node"),
            ("localhost:8080/mcp", "is no URL"),
            ("ftp://h/", "http://"),
            ("http://user:s3cret@h/", "--header"),
            ("http://", "HOST:PORT"),
            ("http://h:99999999/", "HOST:PORT"),
            ("http:///mcp", "HOST:PORT"),
        ] {
            let Failure::Usage(error) = parse_url(text, "reverse").unwrap_err() else {
                panic!("{text} is a usage error");
            };
            assert!(
                error.contains(hint) && !error.contains("s3cret"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_command_shows_no_arguments_and_no_values() {
        let command = ServerCommand {
            program: "server".into(),
            arguments: vec!["--token=s3cret".into()],
            environment: vec![("TOKEN".into(), "s3cret".into())],
            directory: None,
        };
        let shown = format!("{command:?}");
        assert!(
            shown.contains("server") && shown.contains("TOKEN") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
