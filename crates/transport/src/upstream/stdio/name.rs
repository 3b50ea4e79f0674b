//! What a command is called in logs and errors.
//!
//! Many servers are started by the same few programs: three of four are called `npx`. A launcher's
//! server is told by the package or the script that it runs, and by nothing else of its arguments,
//! which may hold secrets.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Characters of a name at most.
const MOST: usize = 64;

/// Programs that run a package, by its name.
const PACKAGE_RUNNERS: [&str; 4] = ["npx", "bunx", "pnpx", "uvx"];
/// Programs that run a script, by its path.
const INTERPRETERS: [&str; 6] = ["node", "bun", "deno", "ruby", "php", "perl"];
/// Subcommands of such programs and of package managers that stand before the name.
const SUBCOMMANDS: [&str; 5] = ["run", "tool", "dlx", "exec", "x"];
/// Package managers that run something only by a subcommand.
const MANAGERS: [&str; 5] = ["npm", "pnpm", "yarn", "uv", "pipx"];
/// Options of all of these that stand alone, and what such ones begin with. After one that is not
/// known nothing is taken for a name: it may be the option's value.
const SWITCHES: [&str; 15] = [
    "-y",
    "--yes",
    "-q",
    "--quiet",
    "-s",
    "--silent",
    "-u",
    "-B",
    "-O",
    "-A",
    "-v",
    "--verbose",
    "--isolated",
    "--offline",
    "--refresh",
];
const SWITCHES_BEGIN: [&str; 7] = [
    "--no-",
    "--allow-",
    "--experimental-",
    "--trace-",
    "--enable-",
    "--prefer-",
    "--inspect",
];
/// Options of all of these whose value is the next word.
const WITH_VALUE: [&str; 18] = [
    "--package",
    "-p",
    "--registry",
    "--from",
    "--with",
    "--python",
    "--index",
    "--index-url",
    "--directory",
    "--project",
    "-r",
    "--require",
    "--import",
    "--loader",
    "--env-file",
    "--config",
    "-W",
    "-X",
];
/// File names that say nothing, and folders that say nothing of them either.
const PLAIN_FILES: [&str; 6] = ["index", "main", "server", "cli", "app", "__main__"];
const PLAIN_FOLDERS: [&str; 6] = ["dist", "build", "src", "bin", "lib", "out"];

/// The name of the server that `program` with `arguments` starts.
pub(super) fn of(program: &OsStr, arguments: &[OsString]) -> String {
    let program = base_name(program);
    let stem = program.strip_suffix(".exe").unwrap_or(&program);
    let stem = stem.strip_suffix(".cmd").unwrap_or(stem);
    let python = stem.strip_prefix("python").or(stem.strip_prefix("pypy"));
    let python = python.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'));
    let name = if python {
        module(arguments).or_else(|| first_word(arguments).map(|word| script(&word)))
    } else if PACKAGE_RUNNERS.contains(&stem) || MANAGERS.contains(&stem) {
        first_word(arguments).map(|word| package(&word))
    } else if INTERPRETERS.contains(&stem) {
        first_word(arguments).map(|word| script(&word))
    } else {
        None
    };
    let name = name.filter(|name| !name.is_empty()).unwrap_or(program);
    name.chars()
        .filter(|c| !c.is_control())
        .take(MOST)
        .collect()
}

fn base_name(path: &OsStr) -> String {
    let name = Path::new(path).file_name().unwrap_or(path);
    name.to_string_lossy().into_owned()
}

/// The module of `python -m MODULE`.
fn module(arguments: &[OsString]) -> Option<String> {
    let at = arguments.iter().position(|word| word == "-m")?;
    let before = arguments[..at].iter();
    let switches = before
        .map(|word| word.to_string_lossy())
        .all(|word| word.starts_with('-'));
    switches
        .then(|| arguments.get(at + 1))?
        .map(|word| word.to_string_lossy().into_owned())
}

/// The first word that is no option, no option's value and no subcommand. `None` also where the
/// program is given on the command line itself.
fn first_word(arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match &*word {
            "-c" | "-e" | "--eval" | "--call" | "-" => return None,
            "--" => {}
            option if WITH_VALUE.contains(&option) => {
                words.next();
            }
            option if option.starts_with("--") && option.contains('=') => {}
            option if SWITCHES.contains(&option) => {}
            option if SWITCHES_BEGIN.iter().any(|begin| option.starts_with(begin)) => {}
            option if option.starts_with('-') => return None,
            subcommand if SUBCOMMANDS.contains(&subcommand) => {}
            name => return Some(name.to_owned()),
        }
    }
    None
}

/// `@scope/server-x@1.2` and `git+https://host/path/server-x.git@main` are `server-x`.
fn package(word: &str) -> String {
    if is_script(word) {
        return script(word);
    }
    let path = word.split(['?', '#', '[', '=']).next().unwrap_or_default();
    let last = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let (name, version) = last.split_once('@').unwrap_or((last, ""));
    let name = if name.is_empty() { version } else { name };
    if name.contains(':') {
        // The user and the password of a URL without a path.
        return String::new();
    }
    name.strip_suffix(".git").unwrap_or(name).to_owned()
}

fn is_script(word: &str) -> bool {
    let extension = Path::new(word).extension().and_then(OsStr::to_str);
    extension.is_some_and(|found| ["py", "js", "mjs", "cjs", "ts"].contains(&found))
}

/// `path/x.js` is `x`, and `server-x/dist/index.js` is `server-x`.
fn script(word: &str) -> String {
    let path = Path::new(word);
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if !PLAIN_FILES.contains(&&*stem) {
        return stem;
    }
    let folders = path.parent().into_iter().flat_map(Path::components).rev();
    let mut names = folders.map(|folder| folder.as_os_str().to_string_lossy());
    let telling = names
        .find(|name| !PLAIN_FOLDERS.contains(&&**name) && name.chars().any(char::is_alphanumeric));
    telling.map_or(stem, |name| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> String {
        let mut words = line.split(' ').map(OsString::from);
        let program = words.next().unwrap();
        of(&program, &words.collect::<Vec<_>>())
    }

    #[test]
    fn servers_of_one_launcher_have_names_of_their_own() {
        for (line, name) in [
            (
                "npx -y @modelcontextprotocol/server-filesystem /notes",
                "server-filesystem",
            ),
            ("npx -y @scope/server-x@1.2.3", "server-x"),
            (
                "npx mcp-remote https://host/mcp --header s3cret",
                "mcp-remote",
            ),
            ("/usr/bin/npx -p tool server", "server"),
            ("npx.cmd --yes server@latest", "server"),
            ("npm exec server", "server"),
            ("uvx mcp-server-git", "mcp-server-git"),
            (
                "uvx --from git+https://user:s3cret@host/a/b.git server",
                "server",
            ),
            (
                "uvx git+https://user:s3cret@host/a/server.git@main",
                "server",
            ),
            ("uv run --directory /srv server.py", "server"),
            ("uv tool run mcp-server-time==1.0", "mcp-server-time"),
            ("node path/weather.js --token s3cret", "weather"),
            (
                "node --import tsx /srv/server-everything/dist/index.js stdio",
                "server-everything",
            ),
            ("node index.js", "index"),
            ("python -m weather", "weather"),
            (
                "python3.11 -u -m mcp_server_fetch --key s3cret",
                "mcp_server_fetch",
            ),
            ("python /srv/weather.py -m x", "weather"),
            ("deno run -A weather.ts", "weather"),
        ] {
            assert_eq!(named(line), name, "{line}");
        }
    }

    #[test]
    fn what_tells_nothing_else_is_called_by_its_program() {
        for (line, name) in [
            ("/usr/local/bin/server --token s3cret", "server"),
            ("npx", "npx"),
            ("npx -y", "npx"),
            ("node -e s3cret", "node"),
            ("python -c s3cret", "python"),
            ("npx -c s3cret", "npx"),
            ("uvx git+https://user:s3cret@host", "uvx"),
            ("sh -c s3cret", "sh"),
            ("pythonista s3cret", "pythonista"),
        ] {
            assert_eq!(named(line), name, "{line}");
        }
        let long = named(&format!("npx {}", "x".repeat(1000)));
        assert_eq!(long.len(), MOST);
    }
}
