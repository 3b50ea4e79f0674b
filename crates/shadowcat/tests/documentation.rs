//! The documentation names what there is, by the names that it has.

use std::path::Path;

use shadowcat::transport::metrics::Metrics;

fn read(path: &str) -> std::io::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path))
}

/// In the words of a scrape.
#[test]
fn every_metric_is_explained() {
    let text = read("docs/operating.md").unwrap();
    let is_row = |line: &str, (name, help): (&str, &str)| {
        let known = |suffix| line.starts_with(&format!("| `shadowcat_{name}{suffix}` |"));
        (known("") || known("_total")) && line.ends_with(&format!(" | {help} |"))
    };
    let missing: Vec<_> = Metrics::FAMILIES
        .iter()
        .filter(|family| !text.lines().any(|line| is_row(line, **family)))
        .collect();
    assert!(missing.is_empty(), "docs/operating.md lacks {missing:#?}");
}

#[test]
fn no_metric_is_explained_that_does_not_exist() {
    for code in read("docs/operating.md").unwrap().split('`') {
        let Some(name) = code.strip_prefix("shadowcat_") else {
            continue;
        };
        let name = name.split('{').next().unwrap_or(name);
        let name = name.trim_end_matches("_total");
        assert!(
            Metrics::FAMILIES.iter().any(|(known, _)| *known == name),
            "docs/operating.md names shadowcat_{name}"
        );
    }
}

/// Every option that the documents name is one of the promised ones.
#[test]
fn no_option_is_named_that_does_not_exist() {
    let promised = read("crates/shadowcat/tests/options.txt").unwrap();
    let promised: Vec<_> = promised
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let others = [
        // Of cargo, git and other commands, and of `shadowcat demo`, `check` and `sse`.
        "--release",
        "--workspace",
        "--locked",
        "--path",
        "--help",
        "--seed",
        "--json",
    ];
    for document in [
        "README.md",
        "docs/operating.md",
        "docs/protocol.md",
        "docs/resilience.md",
    ] {
        let text = read(document).unwrap();
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
            let is_option = word.starts_with("--") && word.len() > 3 && !word.starts_with("---");
            if is_option && !others.contains(&word) {
                assert!(promised.contains(&word), "{document} names {word}");
            }
        }
    }
}
