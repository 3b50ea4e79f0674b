//! What is started, and whether it can be.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shadowcat_sse::reconnect::Policy;

use super::name;

/// Who reads the errors that clients get, and so whether these quote a server's stderr.
///
/// What a process writes there is meant for who runs it: it may name paths, traces and secrets that
/// nothing here can know and mask (CWE-209).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only the user that started us: the error of a crash tells what the process said last.
    LocalUser,
    /// Whoever reaches us: the error tells how the process ended; what it said last is logged.
    Anyone,
}

/// A command that speaks MCP on its pipes, and the bounds of its processes.
#[derive(Clone)]
pub struct StdioConfig {
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables besides the inherited ones.
    pub environment: Vec<(String, String)>,
    /// Where it runs; `None`: where we do.
    pub directory: Option<PathBuf>,
    /// Who its clients are.
    pub audience: Audience,
    /// What stands between us and the command.
    pub launcher: Launcher,
    /// Processes that may run at once.
    pub max_children: usize,
    /// How many crashes in a row are too many; the rest is for streams.
    pub reconnect: Policy,
    /// Largest message, in bytes.
    pub max_message_size: usize,
}

/// A program that ties the process to ours and then becomes the command.
#[derive(Debug, Clone, Default)]
pub struct Launcher {
    /// The words to put before the command; empty: none.
    pub words: Vec<OsString>,
    /// How the one line on stderr begins by which it says that the command cannot be run. It is
    /// the launcher's, not the server's.
    pub complaint: &'static str,
}

impl StdioConfig {
    /// What the server is called: the command's file name, or what it is a launcher of.
    pub(super) fn display_name(&self) -> String {
        name::of(&self.program, &self.arguments)
    }

    /// Looks for the program as the process will, without starting it.
    ///
    /// # Errors
    /// In words for an operator.
    pub(super) fn find(&self) -> Result<(), String> {
        let shown = Path::new(&self.program).display();
        let path = Path::new(&self.program);
        if path.components().count() > 1 || path.is_absolute() {
            let path = self.based(path);
            return if is_executable(&path) {
                Ok(())
            } else if path.exists() {
                Err(format!("{shown} cannot be executed; check its permissions"))
            } else {
                Err(format!("there is no command {shown}; check its path"))
            };
        }
        let found = std::env::split_paths(&self.search_path())
            .any(|directory| is_executable(&self.based(&directory).join(path)));
        if found {
            Ok(())
        } else {
            Err(format!(
                "there is no command {shown} in PATH; install it, or give its path"
            ))
        }
    }

    fn search_path(&self) -> OsString {
        let given = self
            .environment
            .iter()
            .rev()
            .find(|(name, _)| name == "PATH");
        match given {
            Some((_, path)) => path.into(),
            None => std::env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// A relative path means one from where the command runs.
    fn based(&self, path: &Path) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.join(path),
            None => path.to_owned(),
        }
    }

    /// The process to start: in a group of its own, with pipes.
    pub(super) fn command(&self) -> Command {
        let mut words = self.launcher.words.iter().map(OsString::as_os_str);
        let command_words = std::iter::once(self.program.as_os_str())
            .chain(self.arguments.iter().map(OsString::as_os_str));
        let mut command = match words.next() {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.args(words).args(command_words);
                command
            }
            None => {
                let mut command = Command::new(&self.program);
                command.args(&self.arguments);
                command
            }
        };
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }
}

impl std::fmt::Debug for StdioConfig {
    /// Without arguments and values: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program: &OsStr = &self.program;
        f.debug_struct("StdioConfig")
            .field("program", &program)
            .finish_non_exhaustive()
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    // The shell's own suffixes.
    path.is_file()
        || ["exe", "cmd", "bat", "com"]
            .iter()
            .any(|suffix| path.with_extension(suffix).is_file())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn config(program: &str) -> StdioConfig {
        StdioConfig {
            program: program.into(),
            arguments: vec!["--token=s3cret".into()],
            environment: vec![("TOKEN".into(), "s3cret".into())],
            directory: None,
            audience: Audience::Anyone,
            launcher: Launcher::default(),
            max_children: 1,
            reconnect: Policy::default(),
            max_message_size: 1000,
        }
    }

    #[test]
    fn a_command_is_found_as_the_process_will_find_it() {
        assert_eq!(config("sh").find(), Ok(()));
        assert_eq!(config("/bin/sh").find(), Ok(()));
        let mut relative = config("./sh");
        relative.directory = Some("/bin".into());
        assert_eq!(relative.find(), Ok(()));
        let mut elsewhere = config("sh");
        elsewhere.environment.push(("PATH".into(), "/".into()));
        assert!(elsewhere.find().unwrap_err().contains("in PATH"));
        for (program, hint) in [
            ("no-such-command-here", "install it"),
            ("/no/such/command", "check its path"),
            ("/", "check its permissions"),
            ("/etc/passwd", "check its permissions"),
            ("", "install it"),
        ] {
            let error = config(program).find().unwrap_err();
            assert!(error.contains(hint), "{program}: {error}");
        }
    }

    #[test]
    fn the_launcher_stands_before_the_command() {
        let mut launched = config("sh");
        launched.launcher.words = vec!["/launch".into(), "--".into()];
        let command = launched.command();
        assert_eq!(command.get_program(), "/launch");
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["--", "sh", "--token=s3cret"]);
        assert_eq!(config("sh").command().get_program(), "sh");
    }

    #[test]
    fn names_and_logs_show_no_arguments() {
        let config = config("/usr/bin/server");
        assert_eq!(config.display_name(), "server");
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
