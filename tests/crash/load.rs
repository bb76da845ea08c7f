//! The load of `cargo xtask crash`: `crash-load SEED BOOT load|check`, in the virtual machine.
//!
//! Makes or imports the pool, tells what a boot has mounted, recovers, tells what is there, and then
//! runs transactions until the power is cut. It judges nothing: each line on stdout is one fact,
//! its words separated by tabs, and the host knows what may be. The first words:
//!
//! - `before`, `after`: a fact from before or after the recovery.
//! - `recover`, `recovered`, `checked`, `load`: what begins, or is done.
//!   Snapshots that others took during the load go between two recoveries, with what only they have kept:
//!   what each holds is a fact from after the first.
//! - `destroy T`, `destroyed T`: a target of an earlier load is removed, so that they don't pile up.
//! - `try T G`, then `ack T G`, `refused T G WHY` or `doubt T G WHY`: a commit of generation G of
//!   target T. Generations only grow, per target and from boot to boot.
//! - `wrong TEXT`: what may never be. `note TEXT`: what is good to know when something is wrong.

mod content;
mod pool;
mod random;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zfs_txn::{BeginError, CommitError, DatasetName, Strategy, Transaction, Zfs};

use content::Purpose;
use pool::{PARENT, POOL, Result, TARGETS, own_mountpoint, run};
use random::Random;

const THREADS: u64 = 3;
/// The user who is let into some of the workspaces, and where those are.
const WORKER: u32 = 1234;
const PLACE: &str = "/run/crash-places";
/// How many of a hundred acts are snapshots of everything.
const PERIODIC: u64 = 15;
/// Targets of earlier loads that stay.
const KEPT: usize = 3;
/// How many numbers a boot has for its generations.
const PER_BOOT: u64 = 10_000;
/// The longest that a load runs: the host cuts the power much earlier.
const LIMIT: Duration = Duration::from_secs(120);
/// After an error that time heals.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crash-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says one line to the host. Nobody is there to tell when that fails.
pub(crate) fn say(words: &[&str]) {
    let words: Vec<_> = words.iter().map(|word| word.replace(['\t', '\n'], " ")).collect();
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{}\n", words.join("\t")).as_bytes());
    let _ = out.flush();
}

fn start(arguments: &[String]) -> Result<()> {
    let [seed, boot, what] = arguments else {
        return Err("usage: crash-load SEED BOOT load|check".into());
    };
    let (seed, boot): (u64, u64) = (seed.parse()?, boot.parse()?);
    // The disk of a power cut can be looked at again with `cargo xtask vm --disk`.
    if what == "load" {
        pool::check_disk()?;
    }
    match boot {
        0 => pool::create()?,
        _ => pool::import()?,
    }
    pool::tell_mounts("before")?;
    let zfs = Zfs::open()?;
    let scope: DatasetName = POOL.parse()?;
    say(&["recover"]);
    let recovery = zfs.recover(&scope)?;
    say(&["recovered", &format!("{recovery:?}")]);
    pool::retire_snapshots()?;
    let recovery = zfs.recover(&scope)?;
    say(&["recovered", &format!("{recovery:?}")]);
    pool::tell_mounts("after")?;
    pool::tell_state("after")?;
    for pending in zfs.pending(&scope)? {
        say(&["after", "state", "pending", &format!("{pending:?}")]);
    }
    say(&["checked"]);
    if what != "load" {
        return Ok(());
    }
    let targets = thin_out()?;
    say(&["load"]);
    let load = Load {
        zfs,
        boot,
        early: std::env::var("ZFS_TXN_CRASH_BREAK").is_ok_and(|value| value == "ack-early"),
        count: AtomicU64::new(boot * PER_BOOT + 1),
        targets: Mutex::new(targets),
        over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (load, mut random) = (&load, Random::new(seed ^ (number << 56)));
            scope.spawn(move || {
                while !load.over.load(Ordering::Relaxed) {
                    if let Err(error) = load.act(&mut random) {
                        say(&["note", &error.to_string()]);
                        thread::sleep(PAUSE);
                    }
                }
            });
        }
        thread::sleep(LIMIT);
        load.over.store(true, Ordering::Relaxed);
    });
    Err("the power was not cut".into())
}

/// The targets that are there, after destroying most of those that earlier loads have made.
fn thin_out() -> Result<Vec<String>> {
    let listed = run(&["zfs", "list", "-H", "-o", "name", "-s", "creation", "-r", PARENT])?;
    let made = |name: &&str| {
        let leaf = name.rsplit('/').next().unwrap_or_default();
        let numbers = leaf.strip_prefix("new-").or_else(|| leaf.strip_prefix("own-"));
        let parts = numbers.map(|numbers| numbers.split('-').collect::<Vec<_>>());
        parts.is_some_and(|parts| {
            parts.len() == 2 && parts.iter().all(|part| part.parse::<u64>().is_ok())
        })
    };
    let made: Vec<&str> = listed.lines().filter(made).collect();
    let (old, kept) = made.split_at(made.len().saturating_sub(KEPT));
    for name in old {
        say(&["destroy", name]);
        // The command would remove the mount point's directory after the dataset, which a cut may undo.
        let mounted = run(&["zfs", "get", "-Hpo", "value", "mountpoint", name])?;
        run(&["zfs", "unmount", name])?;
        match std::fs::remove_dir(mounted.trim_end()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
            _ => run(&["zpool", "sync", POOL])?,
        };
        run(&["zfs", "destroy", "-r", name])?;
        say(&["destroyed", name]);
    }
    Ok(TARGETS.iter().chain(kept).map(|&name| name.to_owned()).collect())
}

struct Load {
    zfs: Zfs,
    boot: u64,
    /// Whether to lie, so that the campaign must find it out: acknowledge before the commit.
    early: bool,
    count: AtomicU64,
    targets: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Load {
    /// One transaction, or two; or what a periodic job does beside them.
    fn act(&self, random: &mut Random) -> Result<()> {
        if random.below(100) < PERIODIC {
            return pool::snapshot_all(self.count.fetch_add(1, Ordering::Relaxed));
        }
        let target: DatasetName = match random.below(100) {
            0..20 => self.new_name(random).parse()?,
            _ => self.any(random).parse()?,
        };
        match random.below(100) {
            0..70 => self.commit(self.begin(&target)?).map(drop),
            70..85 => self.roll_back(self.begin(&target)?),
            _ => self.conflict(&target),
        }
    }

    fn new_name(&self, random: &mut Random) -> String {
        let kind = if random.below(3) == 0 { "own" } else { "new" };
        format!("{PARENT}/{kind}-{}-{}", self.boot, self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn targets(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any(&self, random: &mut Random) -> String {
        let targets = self.targets();
        let index = random.below(targets.len() as u64);
        usize::try_from(index)
            .ok()
            .and_then(|index| targets.get(index))
            .cloned()
            .unwrap_or_default()
    }

    fn begin(&self, target: &DatasetName) -> std::result::Result<Transaction, BeginError> {
        let there = self.targets().iter().any(|name| name == target.as_str());
        let strategy = match self.count.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Strategy::Promote,
            _ => Strategy::InPlace,
        };
        let builder = self.zfs.transaction(target).strategy(strategy);
        let builder = match self.count.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => builder.workspace_for(WORKER, PLACE),
            _ => builder,
        };
        match own_mountpoint(target.as_str()).filter(|_| !there) {
            Some(path) => builder.mountpoint(path).begin(),
            None => builder.begin(),
        }
    }

    /// Writes a generation's content. The number is drawn after begin: of two commits of a target the
    /// later one began after the earlier one's commit point, so it has the larger number.
    fn write(&self, transaction: &Transaction, purpose: Purpose) -> Result<u64> {
        let generation = self.count.fetch_add(1, Ordering::Relaxed);
        content::write(transaction.path(), transaction.target().as_str(), generation, purpose)?;
        Ok(generation)
    }

    /// Writes and commits; whether it took place.
    fn commit(&self, transaction: Transaction) -> Result<bool> {
        let generation = self.write(&transaction, Purpose::Commit)?;
        self.finish(transaction, generation)
    }

    fn finish(&self, transaction: Transaction, generation: u64) -> Result<bool> {
        let target = transaction.target().to_string();
        let number = generation.to_string();
        say(&["try", &target, &number]);
        if self.early {
            say(&["ack", &target, &number]);
        }
        let (why, transaction) = match transaction.commit() {
            Ok(receipt) => {
                say(&["ack", &target, &number]);
                for leftover in &receipt.leftovers {
                    say(&["note", &leftover.to_string()]);
                }
                let mut targets = self.targets();
                if !targets.contains(&target) {
                    targets.push(target);
                }
                return Ok(true);
            }
            Err(CommitError::Conflict { conflict, transaction }) => {
                (conflict.to_string(), transaction)
            }
            Err(CommitError::Unchanged { error, transaction }) => {
                say(&["note", &error.to_string()]);
                (error.to_string(), transaction)
            }
            Err(error) => {
                say(&["doubt", &target, &number, &error.to_string()]);
                return Ok(false);
            }
        };
        say(&["refused", &target, &number, &why]);
        transaction.rollback()?;
        Ok(false)
    }

    fn roll_back(&self, transaction: Transaction) -> Result<()> {
        self.write(&transaction, Purpose::Rollback)?;
        Ok(transaction.rollback()?)
    }

    /// Two transactions on one target: when the first one has committed, the other one can't.
    fn conflict(&self, target: &DatasetName) -> Result<()> {
        let (first, second) = (self.begin(target)?, self.begin(target)?);
        let generation = self.write(&second, Purpose::Commit)?;
        // Drawn later than the loser's, and so a larger number than it.
        let first = self.commit(first)?;
        if self.finish(second, generation)? && first {
            say(&[
                "wrong",
                &format!("two commits of {target} on one base, the second {generation}"),
            ]);
        }
        Ok(())
    }
}
