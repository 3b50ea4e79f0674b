//! One line for what cannot be parsed.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use crate::failure::Failure;

/// Words of a command that are repeated in an error.
const SHOWN_WORDS: usize = 4;

/// Help and version are texts for stdout; everything else is an error of one line. `subcommand` is
/// the one that the words were for, as far as there is one, and `words` are those after it.
pub(crate) fn explain(
    error: &Error,
    subcommand: Option<&Command>,
    words: &[OsString],
) -> Result<String, Failure> {
    let rendered = error.render().to_string();
    let text = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(rendered),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command given".to_owned(),
        ErrorKind::UnknownArgument => match (misplaced(subcommand, words), stray_word(error)) {
            (Some(written), _) => format!("a command to start goes after \"--\": {written}"),
            (None, Some(word)) => format!(
                "unexpected word {word:?}; a command to start goes after \"--\", words with blanks \
                 into quotes"
            ),
            (None, None) => negative(error, words)
                .or_else(|| mistyped(error))
                .unwrap_or_else(|| one_line(&rendered)),
        },
        _ => one_line(&rendered),
    };
    let text = text + &variables(&refused(error), subcommand, words);
    let see = subcommand.map_or(String::new(), |command| format!(" {}", command.get_name()));
    Err(Failure::Usage(format!(
        "{text}; see \"shadowcat{see} --help\""
    )))
}

/// The failure, with the variables that the options it refuses were given by. These are what it
/// begins with; what it says to do may name others.
pub(crate) fn with_variables(
    failure: Failure,
    subcommand: Option<&Command>,
    words: &[OsString],
) -> Failure {
    match failure {
        Failure::Usage(text) => {
            let refused = text.split(';').next().filter(|text| text.starts_with("--"));
            let variables = variables(refused.unwrap_or_default(), subcommand, words);
            Failure::Usage(text + &variables)
        }
        failure @ Failure::Runtime(_) => failure,
    }
}

/// The arguments that the library refuses. Its text may name others: similar ones, and what a value
/// holds.
fn refused(error: &Error) -> String {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        Some(ContextValue::Strings(arguments)) => arguments.join(" "),
        _ => String::new(),
    }
}

/// Where the values of the options that `refused` names come from, as far as that is the
/// environment: whoever reads it wrote no such option.
fn variables(refused: &str, subcommand: Option<&Command>, words: &[OsString]) -> String {
    let mut origins = String::new();
    let arguments = subcommand.into_iter().flat_map(Command::get_arguments);
    for argument in arguments.filter(|argument| !is_written(argument, words)) {
        if let (Some(option), Some(variable)) = (argument.get_long(), argument.get_env())
            && names(refused, option)
            && std::env::var_os(variable).is_some()
        {
            let variable = variable.to_string_lossy();
            origins += &format!("; --{option} is set by {variable} in the environment");
        }
    }
    origins
}

/// Whether an option stands on the command line itself.
fn is_written(argument: &Arg, words: &[OsString]) -> bool {
    let Some(option) = argument.get_long() else {
        return true;
    };
    let words = words.iter().map(|word| word.to_string_lossy());
    let mut options = words.take_while(|word| word != "--");
    options.any(|word| {
        let name = word.split('=').next().unwrap_or_default();
        name.strip_prefix("--") == Some(option)
    })
}

/// Whether a text names an option, and not one that only begins like it.
fn names(text: &str, option: &str) -> bool {
    let mut mentions = text.split("--").skip(1);
    mentions.any(|mention| {
        let rest = mention.strip_prefix(option);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
    })
}

/// The command line as it should be, where the words of a command stand without "--" before them.
fn misplaced(subcommand: Option<&Command>, words: &[OsString]) -> Option<String> {
    let subcommand = subcommand?;
    let takes_command = |argument: &Arg| argument.get_id() == "command";
    subcommand.get_arguments().find(|a| takes_command(a))?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let mut at = 0;
    while words.get(at)?.starts_with('-') {
        at += 1 + usize::from(takes_next_word(subcommand, &words[at])?);
    }
    let (options, command) = words.split_at(at);
    if command[0].contains(':') {
        // A URL, or half of one.
        return None;
    }
    let shown = command.iter().take_while(|word| may_be_shown(word));
    let shown: Vec<_> = shown.take(SHOWN_WORDS).map(|word| &**word).collect();
    let name = subcommand.get_name();
    let options = if options.is_empty() { "" } else { " [OPTIONS]" };
    let rest = if shown.len() < command.len() {
        " ..."
    } else {
        ""
    };
    Some(format!(
        "shadowcat {name}{options} -- {}{rest}",
        shown.join(" ")
    ))
}

/// Whether the value of an option is the next word; `None` for what is no option.
fn takes_next_word(subcommand: &Command, word: &str) -> Option<bool> {
    let name = word.strip_prefix("--").filter(|name| !name.is_empty())?;
    let (name, value) = match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    };
    let mut known = subcommand.get_arguments();
    let option = known.find(|argument| argument.get_long() == Some(name))?;
    Some(value.is_none() && option.get_action().takes_values())
}

/// Whether a word of a command can be repeated in an error: none that may be a secret, or would
/// have to be quoted.
fn may_be_shown(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@/._-+".contains(c);
    !word.starts_with("--") && word.chars().all(plain)
}

/// The word that no option or argument takes, if it is no mistyped option.
fn stray_word(error: &Error) -> Option<&str> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(word) if !word.starts_with('-') => Some(word),
        _ => None,
    }
}

/// A value that begins with a minus sign and is no number: the library takes it for an option.
fn negative(error: &Error, words: &[OsString]) -> Option<String> {
    let taken_for = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(word) => word,
        _ => return None,
    };
    let digit = |c: char| c.is_ascii_digit();
    taken_for
        .strip_prefix('-')
        .filter(|rest| rest.starts_with(digit))?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let pair = words.windows(2).find(|pair| {
        pair[0].starts_with("--") && !pair[0].contains('=') && pair[1].starts_with(taken_for)
    })?;
    Some(format!(
        "invalid value '{}' for '{}': it must not be negative",
        pair[1], pair[0]
    ))
}

/// A mistyped option. The library's own message goes on to say how a server's command would be given
/// it, which is not what was meant.
fn mistyped(error: &Error) -> Option<String> {
    let word = |kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        ContextValue::Strings(words) => words.first().cloned(),
        _ => None,
    };
    let option = word(ContextKind::InvalidArg)?;
    Some(match word(ContextKind::SuggestedArg) {
        Some(known) => format!("there is no option '{option}'; a similar one is '{known}'"),
        None => format!("there is no option '{option}'"),
    })
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
