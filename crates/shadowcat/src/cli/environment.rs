//! Variables that look like options and are none: a mistyped name would be ignored in silence.

use std::collections::BTreeSet;
use std::ffi::OsString;

/// What every option's variable begins with.
const PREFIX: &str = "SHADOWCAT_";
/// What Kubernetes gives every container beside a service that is called shadowcat.
const SERVICE: &str = "SHADOWCAT_SERVICE_HOST";
const OF_SERVICES: [&str; 2] = ["SHADOWCAT_SERVICE_", "SHADOWCAT_PORT"];

/// A variable that no option has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) name: String,
    /// An option's variable with a name much like it.
    pub(crate) similar: Option<String>,
}

/// The strangers in the environment. `arguments`: the command line, whose `${NAME}` are no options.
pub(crate) fn strangers(arguments: &[OsString]) -> Vec<Stranger> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut texts: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    texts.extend(std::env::var("SHADOWCAT_HEADER"));
    among(names, &texts.join("\n"))
}

/// The strangers among these names. Those that `texts` refers to are there for a header's value.
fn among(names: impl Iterator<Item = String>, texts: &str) -> Vec<Stranger> {
    let known = known();
    let names: BTreeSet<_> = names.filter(|name| name.starts_with(PREFIX)).collect();
    let of_service = |name: &str| {
        names.contains(SERVICE) && OF_SERVICES.iter().any(|prefix| name.starts_with(prefix))
    };
    names
        .iter()
        .filter(|name| !known.contains(*name) && !of_service(name))
        .filter(|name| !texts.contains(&format!("${{{name}}}")))
        .map(|name| Stranger {
            name: name.clone(),
            similar: similar(name, &known),
        })
        .collect()
}

/// The variables of all options of all commands.
fn known() -> BTreeSet<String> {
    let grammar = super::command();
    let arguments = grammar
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    arguments
        .filter_map(|argument| argument.get_env())
        .map(|variable| variable.to_string_lossy().into_owned())
        .collect()
}

/// The known name that it was probably meant to be.
fn similar(name: &str, known: &BTreeSet<String>) -> Option<String> {
    const CLOSE: f64 = 0.8;
    let rest = |name: &str| name[PREFIX.len()..].replace('_', "");
    let name = rest(name);
    let likeness = |known: &String| strsim::jaro_winkler(&name, &rest(known));
    let best = known
        .iter()
        .map(|known| (likeness(known), known))
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= CLOSE).then(|| best.1.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], texts: &str) -> Vec<(String, String)> {
        let names = names.iter().map(|name| (*name).to_owned());
        let strangers = among(names, texts).into_iter();
        strangers
            .map(|stranger| (stranger.name, stranger.similar.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_mistyped_name_is_found_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("SHADOWCAT_LOGLEVEL", "SHADOWCAT_LOG_LEVEL"),
            (
                "SHADOWCAT_RETRY_MAX_ATTEMPT",
                "SHADOWCAT_RETRY_MAX_ATTEMPTS",
            ),
            ("SHADOWCAT_DRAIN_TIMOUT", "SHADOWCAT_DRAIN_TIMEOUT"),
            ("SHADOWCAT_LISTEN_ADDRESS", "SHADOWCAT_LISTEN"),
            ("SHADOWCAT_HEADERS", "SHADOWCAT_HEADER"),
            ("SHADOWCAT_XYZ", ""),
        ] {
            let expected = [(name.to_owned(), meant.to_owned())];
            assert_eq!(found(&[name], ""), expected);
        }
    }

    #[test]
    fn what_is_known_or_for_somebody_else_is_no_stranger() {
        let fine = [
            "SHADOWCAT_LISTEN",
            "SHADOWCAT_SEED",
            "SHADOWCAT_TIMEOUT",
            "PATH",
            "XSHADOWCAT_A",
        ];
        assert_eq!(found(&fine, ""), []);
        assert_eq!(
            found(&["SHADOWCAT_TOKEN"], "A: Bearer ${SHADOWCAT_TOKEN}"),
            []
        );
        let service = [
            "SHADOWCAT_SERVICE_HOST",
            "SHADOWCAT_SERVICE_PORT_HTTP",
            "SHADOWCAT_PORT",
            "SHADOWCAT_PORT_8080_TCP_ADDR",
        ];
        assert_eq!(found(&service, ""), []);
        assert_eq!(found(&["SHADOWCAT_PORT"], "").len(), 1);
    }
}
