//! Where and on what a run took place, so that its figures can be read later.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// The machine, the program and the command.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// When the run began, RFC 3339 in UTC.
    pub(crate) date: String,
    /// The command line, as given to this program.
    pub(crate) command: String,
    /// `shadowcat --version`.
    pub(crate) shadowcat: Option<String>,
    /// The revision of the sources beside this program.
    pub(crate) revision: Option<String>,
    /// `nginx -v`.
    pub(crate) nginx: Option<String>,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Load average of the last minute, before the run began.
    pub(crate) load_before: f64,
}

impl Machine {
    /// Looks around. What cannot be found out is left empty.
    pub(crate) fn look(shadowcat: Option<&Path>, nginx: Option<&Path>) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).map(quoted).collect();
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: format!(
                "cargo run --release -p shadowcat-bench -- {}",
                arguments.join(" ")
            ),
            shadowcat: shadowcat.and_then(|program| printed(program, &["--version"])),
            revision: printed(Path::new("git"), &["describe", "--always", "--dirty"]),
            nginx: nginx.and_then(|program| printed(program, &["-v"])),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes().unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: read("/proc/loadavg")
                .split_ascii_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        }
    }
}

fn quoted(argument: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:".contains(c);
    if argument.chars().all(plain) {
        argument
    } else {
        format!("'{argument}'")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The model's name; where the kernel hides it, vendor, family and model.
fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    match field("model name") {
        Some(name) if name != "unknown" => name,
        _ => ["vendor_id", "cpu family", "model"]
            .map(|name| field(name).unwrap_or_default())
            .join(" "),
    }
}

fn memory_bytes() -> Option<u64> {
    let text = read("/proc/meminfo");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// The first line that `program` prints, on either output.
fn printed(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    Some(
        String::from_utf8_lossy(&text)
            .lines()
            .next()?
            .trim()
            .to_owned(),
    )
}
