//! One line for what cannot be parsed.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use crate::failure::Failure;

/// Help and version are texts for stdout; everything else is an error of one line. `subcommand` is
/// the one that the words were for, as far as there is one.
pub(crate) fn explain(error: &Error, subcommand: Option<&Command>) -> Result<String, Failure> {
    let rendered = error.render().to_string();
    let text = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(rendered),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command given".to_owned(),
        ErrorKind::UnknownArgument => match stray_word(error) {
            Some(word) => format!(
                "unexpected word {word:?}; a command to start goes after \"--\", words with blanks \
                 into quotes"
            ),
            None => one_line(&rendered),
        },
        _ => one_line(&rendered),
    };
    let see = subcommand.map_or(String::new(), |command| format!(" {}", command.get_name()));
    Err(Failure::Usage(format!(
        "{text}; see \"shadowcat{see} --help\""
    )))
}

/// The word that no option or argument takes, if it is no mistyped option.
fn stray_word(error: &Error) -> Option<&str> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(word) if !word.starts_with('-') => Some(word),
        _ => None,
    }
}

/// The library's message: its several paragraphs in one line, without the usage summary.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let text = text.split("\nUsage: ").next().unwrap_or_default();
    let text = text
        .split("\nFor more information")
        .next()
        .unwrap_or_default();
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
        lines.join("; ").replace(":; ", ": ").replace("; [", " [")
    });
    let parts: Vec<_> = paragraphs.filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}
