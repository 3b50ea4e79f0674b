//! The figures as a document: Markdown whose tables are aligned, so that a terminal shows it as well.

use std::fmt::{self, Write};

use crate::marks::{Limit, Mark};
use crate::results::{Calls, Results, TargetCalls};
use crate::stats::Spread;
use crate::suite::{DRAWS_OF_ONE, Settings};
use crate::wire::Tool;

const INTRODUCTION: &str = "\
# Performance

What the bench printed; nothing here is written by hand. Every answer of every call was checked (status, type, id, nonce,
order of progress), and one wrong or missing answer would have ended the run.

- **direct**: the load generator calls the scripted MCP server itself.
- **floor**: an empty pass-through between them: hyper on both sides, a pooled client, TCP_NODELAY, as many workers as Shadowcat.
- **reverse**, **forward**: Shadowcat as `shadowcat reverse --listen` and `shadowcat forward --listen`, with default options.
- **nginx**, where installed: `proxy_pass` with upstream keep-alive and without buffering.

Every process runs on this one machine. *Added* is what a target takes beyond the direct connection, *x floor* is that as a
multiple of what the floor adds; *CPU s/1000* is the target's own processor time, user and system, per 1000 calls. Each figure is the median over rounds (smallest to largest in parentheses); added figures
and ratios are taken within a round, where every target was measured in turn. Latency is from before the request is written until its response is parsed.

The decoder of event streams beside others, and what the reconnection engine adds, is in [benches](../benches/README.md).
";

/// The whole document.
pub(crate) fn document(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_document(&mut out, results);
    out
}

fn write_document(out: &mut String, results: &Results) -> fmt::Result {
    out.push_str(INTRODUCTION);
    write_machine(out, results)?;
    if !results.marks.is_empty() {
        writeln!(out, "\n## Marks\n")?;
        out.push_str(&marks(&results.marks).render());
    }
    writeln!(out, "\n## Calls")?;
    for scenario in &results.calls {
        writeln!(out, "\n### {}\n", scenario.name)?;
        out.push_str(&calls(scenario).render());
    }
    writeln!(out, "\n## Start to first answer\n")?;
    let mut table = Table::new(&["", "ms"]);
    for start in &results.starts {
        table.row(vec![start.target.clone(), with_range(start.spread_ms(), 1)]);
    }
    out.push_str(&table.render());
    writeln!(out, "\n## Memory\n")?;
    out.push_str(&memory(results).render());
    Ok(())
}

fn write_machine(out: &mut String, results: &Results) -> fmt::Result {
    let machine = &results.machine;
    let Settings {
        rounds,
        window,
        warm_up,
        starts,
        per_session,
        workers,
        ..
    } = &results.settings;
    writeln!(
        out,
        "\n## Run\n\n```\n{}\n```\n",
        machine.command.trim_end()
    )?;
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    writeln!(
        out,
        "- {}, load average {:.2} before the run\n- {}, {} cores, {gib:.1} GiB, Linux {}",
        machine.date, machine.load_before, machine.processor, machine.cores, machine.kernel
    )?;
    let programs = [&machine.shadowcat, &machine.nginx];
    for program in programs.into_iter().flatten() {
        writeln!(out, "- {program}")?;
    }
    if let Some(bytes) = results.binary_bytes {
        writeln!(out, "- release binary {:.1} MB", bytes as f64 / 1e6)?;
    }
    if let Some(revision) = &machine.revision {
        writeln!(out, "- sources at {revision}")?;
    }
    writeln!(
        out,
        "- {rounds} rounds, windows of {window:?} after {warm_up:?} of warm-up, {DRAWS_OF_ONE} a round for JSON and event-stream \
         answers with 1 in flight, {starts} starts, {per_session} calls per session, {workers} workers"
    )
}

fn marks(marks: &[Mark]) -> Table {
    let mut table = Table::new(&["", "", "limit", "measured", ""]);
    for mark in marks {
        let limit = match mark.limit {
            Limit::AtMost(limit) => format!("<= {limit}"),
            Limit::AtLeast(limit) => format!(">= {limit}"),
            Limit::Below(limit) => format!("< {limit}"),
        };
        let value = mark
            .value
            .map_or("not measured".to_owned(), |value| format!("{value:.2}"));
        let verdict = if mark.met { "met" } else { "MISSED" }.to_owned();
        table.row(vec![
            mark.target.clone(),
            mark.what.clone(),
            limit,
            value,
            verdict,
        ]);
    }
    table
}

fn calls(scenario: &Calls) -> Table {
    let burst = scenario.tool == Tool::Burst;
    let mut table = Table::new(&[
        "",
        "p50 us",
        "p95 us",
        "added p50 us",
        "p50 x floor",
        "added p95 us",
        "p95 x floor",
        "p95 / direct",
        "calls/s",
        "calls/s / floor",
        "CPU s/1000",
    ]);
    if burst {
        table.head.push("added us/event".to_owned());
    }
    for of in &scenario.targets {
        let mut row = calls_row(of);
        if burst {
            row.push(
                of.added_us_per_event()
                    .map_or(NOTHING.to_owned(), |us| format!("{us:.2}")),
            );
        }
        table.row(row);
    }
    table
}

fn calls_row(of: &TargetCalls) -> Vec<String> {
    let direct = of.over_direct;
    let floor = of.over_floor;
    let cpu = if direct.is_some() {
        format!("{:.3}", of.cpu_seconds_per_1000)
    } else {
        NOTHING.to_owned()
    };
    vec![
        of.target.clone(),
        format!("{:.0}", of.p50_us),
        format!("{:.0}", of.p95_us),
        with_range(direct.map(|over| over.added_p50_us), 0),
        with_range(floor.and_then(|over| over.added_p50_ratio), 2),
        with_range(direct.map(|over| over.added_p95_us), 0),
        with_range(floor.and_then(|over| over.added_p95_ratio), 2),
        with_range(direct.map(|over| over.p95_ratio), 2),
        format!("{:.0}", of.per_second),
        with_range(floor.and_then(|over| over.per_second_ratio), 2),
        cpu,
    ]
}

fn memory(results: &Results) -> Table {
    let sessions = results.settings.sessions;
    let held = format!("{sessions} sessions, MB");
    let fed = format!("{sessions} streams fed after, s");
    let mut table = Table::new(&["", "idle MB", &held, "threads", &fed]);
    for memory in &results.memory {
        table.row(vec![
            memory.target.clone(),
            format!("{:.1}", memory.idle_bytes as f64 / 1e6),
            format!("{:.1}", memory.held_bytes as f64 / 1e6),
            memory.threads.to_string(),
            format!("{:.1}", memory.fed_after_seconds),
        ]);
    }
    table
}

const NOTHING: &str = "-";

fn with_range(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or(NOTHING.to_owned(), |Spread { median, min, max }| {
        format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
    })
}

/// A Markdown table, columns padded to their widest cell.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self
                    .rows
                    .iter()
                    .chain([&self.head])
                    .filter_map(|row| row.get(column));
                cells.map(String::len).max().unwrap_or(0).max(3)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{}{rows}", line(&self.head), line(&rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_padded() {
        let mut table = Table::new(&["", "ms"]);
        table.row(vec!["reverse".to_owned(), "1.5".to_owned()]);
        assert_eq!(
            table.render(),
            "|         | ms  |\n| ------- | --- |\n| reverse | 1.5 |\n"
        );
    }
}
