//! The showpiece of `cargo xtask demo`, in the virtual machine: commits land in a dataset while four
//! processes read and verify it, one holds files of it open and runs a program from it, and one walks
//! it with `find`. Beside it, the same under a script that runs `zfs` commands.
//!
//! `watched COMMITS READS STRATEGY`: as many commits, and more of them until there are as many reads;
//! the strategy is `promote`, `in-place` or `both`, in turn.
#![allow(missing_docs, reason = "a demonstration has no users")]

mod content;
mod holder;
mod load;
mod reader;
mod tally;
#[path = "../../src/test_pool.rs"]
mod test_pool;
#[path = "../../src/test_write.rs"]
mod test_write;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Strategy, Zfs};

use content::{By, MANIFEST, Manifest};
use load::{ALL, Load, READERS};
use tally::Tally;
use test_pool::TestPool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a script does that runs `zfs` commands.
const COMMANDS: &str = include_str!("../../benches/command-sequence.sh");
/// Commits of the script.
const SCRIPTED: u64 = 10;
/// The longest that the commits may go on for more reads.
const LIMIT: Duration = Duration::from_secs(100 * 60);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("watched: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        [role, path] => load::play(role, Path::new(path)),
        [commits, reads, strategy] => {
            let strategies: &[Strategy] = match *strategy {
                "promote" => &[Strategy::Promote],
                "in-place" => &[Strategy::InPlace],
                "both" => &[Strategy::Promote, Strategy::InPlace],
                other => return Err(format!("no strategy {other:?}").into()),
            };
            let watched = scripted(ALL, "under readers, a holder and find")?;
            let unheld = scripted(READERS, "under readers alone")?;
            let ours = transactions(commits.parse()?, reads.parse()?, strategies)?;
            println!();
            watched.tell("zfs commands");
            unheld.tell("zfs commands, no file held");
            ours.tell("demo");
            Ok(if ours.is_flawless() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => Err("usage: watched COMMITS READS promote|in-place|both".into()),
    }
}

/// How a series of commits went, and what readers met meanwhile.
#[derive(Default)]
struct Outcome {
    commits: u64,
    refused: u64,
    /// The longest time for which the mount point was bare during a commit.
    gap: Option<Duration>,
    /// Whether this kernel swaps mounts without one.
    spares_gaps: bool,
    tally: Tally,
}

impl Outcome {
    fn tell(&self, who: &str) {
        for problem in &self.tally.problems {
            println!("{who}:   {problem}");
        }
        let Tally { reads, failed, mixed, longest, .. } = &self.tally;
        let refused = match self.refused {
            0 => String::new(),
            refused => format!(" of which {refused} failed,"),
        };
        let gap = self.gap.map(|gap| format!(", longest gap {} ms", gap.as_millis().max(1)));
        println!(
            "{who}: {} commits,{refused} {reads} reads, {failed} failed, {mixed} mixed, longest stall \
             {} ms{}",
            self.commits,
            longest.as_millis(),
            gap.unwrap_or_default()
        );
    }

    fn is_flawless(&self) -> bool {
        let Tally { reads, failed, mixed, crossings, .. } = self.tally;
        // Where no commit fell between two reads of a pass, nothing was put to the test.
        let tested = reads > 0 && self.commits > 0 && crossings > 0;
        // Before Linux 6.5 a promote leaves the mount point bare for a moment, and reads fail in it.
        let may_miss = !self.spares_gaps && self.gap.is_some();
        let misses_none = self.gap.is_none() && failed == 0;
        tested && (misses_none || may_miss) && (self.refused, mixed) == (0, 0)
    }
}

/// A dataset with the first generation.
fn target(pool: &TestPool) -> Result<(DatasetName, std::path::PathBuf)> {
    let (target, path) = (pool.dataset("site"), pool.directory().join("site"));
    let mountpoint = format!("mountpoint={}", path.display());
    pool.zfs(&["create", "-o", "atime=on", "-o", &mountpoint, &target]);
    content::write(&path, 0, By::Replacing)?;
    Ok((target.parse()?, path))
}

/// In place, a file that is replaced is gone for whoever has just looked it up.
fn by(strategy: Strategy) -> By {
    match strategy {
        Strategy::InPlace => By::Writing,
        _ => By::Replacing,
    }
}

/// Commits by transactions.
fn transactions(commits: u64, reads: u64, strategies: &[Strategy]) -> Result<Outcome> {
    println!("\n== {commits} transactions ({strategies:?}) under the same");
    let pool = TestPool::new();
    let zfs = Zfs::open()?;
    let (target, path) = target(&pool)?;
    let load = Load::start(ALL, &path)?;
    let (begun, mut told) = (Instant::now(), Instant::now());
    let capabilities = zfs.capabilities()?;
    println!("{capabilities}\n");
    let spares_gaps = capabilities.swaps_without_a_gap != Some(false);
    let mut outcome = Outcome { spares_gaps, ..Outcome::default() };
    let (mut generation, mut kept, mut swept) = (0, 0, 0);
    let mut times: Vec<(Strategy, Duration)> = Vec::new();
    while outcome.commits < commits || load.tally().reads < reads {
        if begun.elapsed() > LIMIT {
            return Err("the reads took too long".into());
        }
        for &strategy in strategies {
            generation += 1;
            let transaction = zfs.transaction(&target).strategy(strategy).begin()?;
            content::write(transaction.path(), generation, by(strategy))?;
            let start = Instant::now();
            outcome.commits += 1;
            match transaction.commit() {
                Ok(receipt) => {
                    times.push((strategy, start.elapsed()));
                    kept += usize::from(!receipt.leftovers.is_empty());
                    outcome.gap = outcome.gap.max(receipt.gap);
                }
                Err(error) => {
                    outcome.refused += 1;
                    println!("commit {generation} ({strategy:?}): {error}");
                }
            }
        }
        // What readers have held for long is removed as soon as they let go of it.
        swept += zfs.sweep(&target)?.finished.len();
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!("   {} commits, {} reads", outcome.commits, load.tally().reads);
        }
    }
    outcome.tally = load.stop()?;
    let last = manifest(&path).map(|manifest| manifest.generation);
    if last != Some(generation) && outcome.refused == 0 {
        return Err(format!("the target is of generation {last:?}, not {generation}").into());
    }
    swept += zfs.sweep(&target)?.finished.len();
    nothing_left(&pool)?;
    println!(
        "   {} passes of readers had a commit land in them; {kept} commits left an old content in use, \
         {swept} were swept when it was let go",
        outcome.tally.crossings
    );
    for &strategy in strategies {
        let mut times: Vec<_> =
            times.iter().filter(|(of, _)| *of == strategy).map(|(_, time)| *time).collect();
        times.sort();
        if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
            println!(
                "   {strategy:?}: {} commits, median {median:.1?}, longest {longest:.1?}",
                times.len()
            );
        }
    }
    pool.cleanup();
    Ok(outcome)
}

/// Commits by a script, in the same way.
fn scripted(roles: &[&'static str], how: &str) -> Result<Outcome> {
    println!("\n== {SCRIPTED} commits by a script of zfs commands, {how}");
    let pool = TestPool::new();
    let (target, path) = target(&pool)?;
    let source = pool.directory().join("source");
    let load = Load::start(roles, &path)?;
    let mut outcome = Outcome::default();
    for generation in 1..=SCRIPTED {
        content::write(&source, generation, By::Replacing)?;
        let run = Command::new("sh")
            .args(["-c", COMMANDS, "sh", target.as_str()])
            .args([&path, Path::new(&generation.to_string()), &source])
            .output()?;
        outcome.commits += 1;
        let landed = manifest(&path).is_some_and(|manifest| manifest.generation == generation);
        if !run.status.success() || !landed {
            outcome.refused += 1;
            let said = String::from_utf8_lossy(&run.stderr);
            println!("   commit {generation}: {}", said.lines().next().unwrap_or("not there"));
        }
    }
    outcome.tally = load.stop()?;
    pool.cleanup();
    Ok(outcome)
}

fn manifest(path: &Path) -> Option<Manifest> {
    Manifest::parse(&fs::read(path.join(MANIFEST)).ok()?)
}

fn nothing_left(pool: &TestPool) -> Result<()> {
    let names = pool.zfs(&["list", "-Ho", "name", "-t", "all", "-r", pool.name()]);
    let left =
        names.lines().find(|name| ["-txn-", "-old-", "@txn-"].iter().any(|n| name.contains(n)));
    match left {
        Some(left) => Err(format!("left: {left}").into()),
        None => Ok(()),
    }
}
