//! How many times as fast as the others, as a table: every decoder in turn, round after round.
//!
//! A shared machine changes its speed from second to second. What is measured within a few
//! milliseconds of each other can be compared nevertheless: a ratio is taken within a round,
//! and the table says the median of the rounds' ratios with their quartiles.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use shadowcat_benches::{DECODERS, chunks, corpora, fastest, is_bench};

const ROUNDS: usize = 41;
/// How long a decoder runs in a round, at least.
const WINDOW: Duration = Duration::from_millis(5);

fn main() -> Result<(), Box<dyn Error>> {
    if !is_bench() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let others = DECODERS[1..].iter();
    let others: Vec<_> = others.map(|(name, _)| format!("x {name} | ")).collect();
    writeln!(
        out,
        "| events | chunks | x the best of them | {}ns per event |",
        others.concat()
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for corpus in corpora() {
        for size in [16 * 1024, 1400] {
            let chunks = chunks(&corpus.text, size);
            let rounds: Vec<_> = (0..ROUNDS).map(|round| measure(&chunks, round)).collect();
            let best = rounds.iter().map(|[ours, others @ ..]| {
                others.iter().copied().fold(f64::INFINITY, f64::min) / ours
            });
            write!(out, "| {} | {size} B | {} |", corpus.name, spread(best))?;
            for other in 1..DECODERS.len() {
                let ratios = rounds.iter().map(|times| times[other] / times[0]);
                write!(out, " {} |", spread(ratios))?;
            }
            let mut ours: Vec<_> = rounds.iter().map(|times| times[0]).collect();
            ours.sort_by(f64::total_cmp);
            let event = ours[ROUNDS / 2] / corpus.events as f64;
            writeln!(out, " {:.0} |", event * 1e9)?;
        }
    }
    Ok(())
}

/// Seconds that each decoder takes for the corpus. Another one begins in each round.
fn measure(chunks: &[Bytes], round: usize) -> [f64; DECODERS.len()] {
    let mut times = [0.0; DECODERS.len()];
    for turn in 0..DECODERS.len() {
        let number = (round + turn) % DECODERS.len();
        let decode = DECODERS[number].1;
        times[number] = fastest(WINDOW, || {
            black_box(decode(black_box(chunks)));
        });
    }
    times
}

/// The median, and the quartiles.
fn spread(ratios: impl Iterator<Item = f64>) -> String {
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
    format!("{:.2} ({:.2} to {:.2})", at(2), at(1), at(3))
}
