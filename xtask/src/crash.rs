//! `cargo xtask crash`: power cuts while transactions run, each followed by a boot, a recovery and a
//! look at everything.
//!
//! # What a power cut is
//! QEMU is killed at a random moment. The pool's disk has a volatile write cache as the guest sees it
//! (`write-cache=on`), so ZFS flushes it. QEMU logs every write and flush before the guest is told that
//! it is done (`blklogwrites`); the image that it writes to is thrown away, and the next boot's disk is
//! made from the log ([`power`]): all writes before the last flush, and of the later ones all, none,
//! or some, torn ones among them. Killing QEMU alone would not do: what it has written is in the
//! host's page cache, flushed or not.
//!
//! So what was not flushed when it was acknowledged is lost in most cuts that come soon enough. That
//! the campaign notices can be seen with `ZFS_TXN_CRASH_BREAK=ack-early`, which makes the load
//! acknowledge each commit before it calls it: the campaign then ends with `lost` above 0.
//!
//! # What is checked
//! See [`ledger`]. Some cuts come during the recovery instead of the load, so that a recovery is
//! interrupted as well.

mod facts;
mod ledger;
mod power;
#[path = "../../tests/crash/random.rs"]
mod random;

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::Outcome;
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::progress::Step;
use crate::vm::{End, Job, LoggedDisk, Machine, Power, Stream};
use crate::{process, sysroot};
use facts::{Facts, Problems};
use ledger::Ledger;
use power::Log;
use random::Random;

const PROGRAM: &str = "crash-load";
/// Makes the load acknowledge too early.
const BREAK: &str = "ZFS_TXN_CRASH_BREAK";
const DISK_SIZE: u64 = 1 << 30;
/// The longest that one boot may take, with what is done in it until the power is cut.
const LIMIT: Duration = Duration::from_secs(10 * 60);
const SILENCE: Duration = Duration::from_secs(5 * 60);
const COPY_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long after the beginning of the load the power is cut, in milliseconds.
const LOAD: std::ops::Range<u64> = 200..8_000;
/// How long after the beginning of the recovery.
const RECOVERY: std::ops::Range<u64> = 0..1_000;
/// One cut of so many comes during the recovery.
const RECOVERIES: u64 = 8;
/// How many machines run at once.
const MACHINES: u64 = 2;
/// How many cuts between two lines of progress.
const PROGRESS: u64 = 10;
/// Of how many boots with problems all is shown and the disk is kept, of each machine.
const KEPT: usize = 3;
/// The last lines of a load that are shown with a problem.
const SHOWN: usize = 30;

/// Cuts the power `cuts` times.
pub(crate) fn run(cache: &Cache, line: &Line, cuts: u64, seed: Option<u64>) -> Result<Outcome> {
    let machine = Machine::prepare(cache, line)?;
    let step = Step::begin_quiet("building the load");
    let mut build = sysroot::guest_cargo(&machine.root, "build", sysroot::GUEST);
    let built = sysroot::build(build.args(["--example", PROGRAM]))?;
    step.done();
    let program = built
        .iter()
        .find(|artefact| artefact.target == PROGRAM)
        .context("cargo did not build the load")?;
    let seed = seed.unwrap_or_else(random_seed);
    println!("power cuts to come: {cuts}, seed {seed}");
    let started = Instant::now();
    let totals = Totals { cuts, seed, ..Totals::default() };
    // Each with a pool of its own: one machine, most of the time booting, keeps one processor busy.
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let machines = MACHINES.min(processors).min(cuts).max(1);
    std::thread::scope(|scope| {
        for number in 0..machines {
            let share = (cuts + number) / machines;
            let (machine, totals) = (&machine, &totals);
            scope.spawn(move || {
                let outcome = Campaign::new(cache, &program.executable, number, totals)
                    .and_then(|mut campaign| campaign.run(machine, share));
                if let Err(error) = outcome {
                    totals.fail(&format!("{error:#}"));
                }
            });
        }
    });
    Ok(totals.close(started.elapsed()))
}

fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Random::new(now.as_nanos() as u64).below(1_000_000_000)
}

/// What all campaigns of a run add up to.
#[derive(Debug, Default)]
struct Totals {
    /// How many cuts there are to be.
    cuts: u64,
    seed: u64,
    counts: Mutex<Counts>,
    /// Whether a campaign could not go on: the others need not either.
    stop: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    cuts: u64,
    acknowledged: u64,
    lost: usize,
    mixed: usize,
    leftovers: usize,
    snapshots: usize,
    mounts: usize,
    strays: usize,
    unflushed: usize,
    dropped: usize,
    failed: bool,
}

impl Totals {
    fn count(&self, change: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        *counts
    }

    /// One more power cut.
    fn cut(&self, cut: power::Cut) {
        let counts = self.count(|counts| {
            counts.cuts += 1;
            counts.unflushed += cut.unflushed;
            counts.dropped += cut.lost;
        });
        if counts.cuts % PROGRESS == 0 {
            eprintln!("==> {} of {} power cuts: {}", counts.cuts, self.cuts, counts.summary());
        }
    }

    fn problems(&self, problems: &Problems) {
        self.count(|counts| {
            counts.lost += problems.lost.len();
            counts.mixed += problems.mixed.len();
            counts.leftovers += problems.leftovers.len();
            counts.mounts += problems.mounts.len();
            counts.strays += problems.strays;
        });
    }

    fn fail(&self, error: &str) {
        eprintln!("error: {error}");
        self.stop.store(true, Ordering::Relaxed);
        self.count(|counts| counts.failed = true);
    }

    fn close(&self, took: Duration) -> Outcome {
        let counts = self.count(|_| ());
        let seconds = took.as_secs_f64();
        println!(
            "writes not flushed when the power was cut: {}, of which lost: {}",
            counts.unflushed, counts.dropped
        );
        println!("seed {}, {:.1} cuts a minute", self.seed, counts.cuts as f64 * 60.0 / seconds);
        println!("snapshots of others that were looked into: {}", counts.snapshots);
        println!("workspaces mounted at boot under their own names: {}", counts.strays);
        println!("mounts wrong at boot: {}", counts.mounts);
        let said = format!("{}, {}", counts.cuts, counts.summary());
        println!("power cuts: {said}");
        let wrong = counts.lost + counts.mixed + counts.leftovers + counts.mounts;
        Outcome { said, fine: wrong == 0 && !counts.failed && counts.cuts == self.cuts }
    }
}

impl Counts {
    fn summary(&self) -> String {
        format!(
            "commits acknowledged: {}, lost: {}, mixed: {}, leftovers: {}",
            self.acknowledged, self.lost, self.mixed, self.leftovers
        )
    }
}

/// One machine with its pool, from power cut to power cut.
struct Campaign<'a> {
    totals: &'a Totals,
    number: u64,
    payload: Payload,
    random: Random,
    ledger: Ledger,
    /// What the last load said.
    load: Vec<String>,
    /// How many images of disks with problems were kept.
    kept: usize,
}

impl<'a> Campaign<'a> {
    fn new(cache: &Cache, program: &Path, number: u64, totals: &'a Totals) -> Result<Self> {
        let payload = Payload::new(cache, "")?;
        payload.copy(program, &format!("bin/{PROGRAM}"))?;
        let campaign = Self {
            totals,
            number,
            payload,
            random: Random::new(totals.seed ^ (number << 48)),
            ledger: Ledger::default(),
            load: Vec::new(),
            kept: 0,
        };
        let disk = campaign.file("disk.img");
        let created = File::create(&disk).and_then(|file| file.set_len(DISK_SIZE));
        created.with_context(|| format!("creating {}", disk.display()))?;
        Ok(campaign)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.payload.run_dir().join(name)
    }

    /// Boots once more than the power is cut: the last boot only checks.
    fn run(&mut self, machine: &Machine, cuts: u64) -> Result<()> {
        for boot in 0..=cuts {
            if self.totals.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.boot(machine, boot, boot == cuts) {
                self.keep_disk(boot)?;
                self.show_load();
                return Err(error.context(self.moment(boot)));
            }
        }
        Ok(())
    }

    /// What tells a boot from all others.
    fn moment(&self, boot: u64) -> String {
        format!("seed {}, machine {}, boot {boot}", self.totals.seed, self.number)
    }

    /// One boot, until the power is cut, or to its end when it is the last.
    fn boot(&mut self, machine: &Machine, boot: u64, last: bool) -> Result<()> {
        let (disk, image, log) = (self.file("disk.img"), self.file("image"), self.file("log"));
        copy(&disk, &image)?;
        File::create(&log).context("emptying the log")?;
        self.write_job(boot, last)?;
        let off = Cell::new(None);
        let cut = (!last).then(|| Moment::choose(boot, &mut self.random));
        let acknowledged = self.ledger.acknowledgements;
        let mut boot_told = Told::new(boot, cut, &off, &mut self.ledger);
        let limits =
            Job { disks: &[], limit: Some(LIMIT), silence: Some(SILENCE), interactive: false };
        let power = Power { disk: LoggedDisk { image: &image, log: &log }, off: &off };
        let end = machine.run_with_power(&self.payload, &limits, &power, &mut |stream, bytes| {
            boot_told.feed(stream, bytes);
            Ok(())
        });
        let Told { before, after, problems, lines, errors, checked, .. } = boot_told;
        let acknowledged = self.ledger.acknowledgements - acknowledged;
        self.totals.count(|counts| counts.acknowledged += acknowledged);
        self.totals.problems(&problems);
        self.totals.count(|counts| counts.snapshots += after.snapshots.len());
        let found: Vec<_> = problems.lines().collect();
        for problem in &found {
            eprintln!("{}: {problem}", self.moment(boot));
        }
        if !found.is_empty() && self.kept < KEPT {
            self.keep_disk(boot)?;
            self.show_load();
            show("this boot, before the recovery", before.lines());
            show("the recovery", lines.iter().take_while(|line| !line.ends_with("  load")));
            show("after the recovery", after.lines());
        }
        // An interrupted recovery follows the load that it is about.
        if checked {
            self.load.clear();
        }
        self.load.extend(lines);
        match (end?, last) {
            (End::PowerCut, false) => {}
            (End::Exit(0), true) if checked => return Ok(()),
            (end, _) => bail!("{end:?}: {}", String::from_utf8_lossy(&errors)),
        }
        let log = Log::read(&log, DISK_SIZE)?;
        let disk = File::options().write(true).open(&disk).context("opening the disk image")?;
        let cut = log.cut(&disk, &mut self.random)?;
        if cut.flushes == 0 && checked {
            bail!("the guest has flushed nothing: its disk can't have a volatile cache");
        }
        self.totals.cut(cut);
        Ok(())
    }

    fn write_job(&mut self, boot: u64, last: bool) -> Result<()> {
        let seed = self.random.next().to_string();
        let what = if last { "check" } else { "load" };
        let words = [PROGRAM, &*seed, &*boot.to_string(), what].map(str::to_owned);
        let early = std::env::var(BREAK).unwrap_or_default();
        // The same host at every boot: the pool of another one would not be imported.
        let job = format!(
            "cd\nzgenhostid -f 5a667354\nexport {BREAK}={}\nexec {}\n",
            quote([&*early]),
            quote(words.iter().map(String::as_str))
        );
        self.payload.write(".guest/job", job.as_bytes(), true)
    }

    /// Keeps the disk as a boot found it.
    fn keep_disk(&mut self, boot: u64) -> Result<()> {
        self.kept += 1;
        let name = format!("crash-{}-{}-{boot}.img", self.totals.seed, self.number);
        let directory = self.payload.run_dir().parent().context("the cache's directory")?;
        let kept = directory.join(name);
        copy(&self.file("disk.img"), &kept)?;
        eprintln!("the disk, as this boot found it, is kept: {}", kept.display());
        Ok(())
    }

    fn show_load(&self) {
        show("the last words before", &self.load[self.load.len().saturating_sub(SHOWN)..]);
    }
}

fn show(title: &str, lines: impl IntoIterator<Item = impl std::fmt::Display>) {
    eprintln!("{title}:");
    for line in lines {
        eprintln!("    {line}");
    }
}

/// When to cut the power.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The word of the guest that it comes after.
    word: &'static str,
    delay: Duration,
}

impl Moment {
    fn choose(boot: u64, random: &mut Random) -> Self {
        let (word, range) = match random.below(RECOVERIES) {
            0 if boot > 0 => ("recover", RECOVERY),
            _ => ("load", LOAD),
        };
        let delay = range.start + random.below(range.end - range.start);
        Self { word, delay: Duration::from_millis(delay) }
    }
}

/// What one boot has told so far.
struct Told<'a> {
    boot: u64,
    started: Instant,
    cut: Option<Moment>,
    off: &'a Cell<Option<Instant>>,
    ledger: &'a mut Ledger,
    /// A line that has not ended.
    rest: Vec<u8>,
    before: Facts,
    after: Facts,
    problems: Problems,
    /// All but the facts, to show with a problem.
    lines: Vec<String>,
    errors: Vec<u8>,
    /// Whether all facts were told and judged.
    checked: bool,
}

impl<'a> Told<'a> {
    fn new(
        boot: u64,
        cut: Option<Moment>,
        off: &'a Cell<Option<Instant>>,
        ledger: &'a mut Ledger,
    ) -> Self {
        Self {
            boot,
            started: Instant::now(),
            cut,
            off,
            ledger,
            rest: Vec::new(),
            before: Facts::default(),
            after: Facts::default(),
            problems: Problems::default(),
            lines: Vec::new(),
            errors: Vec::new(),
            checked: false,
        }
    }

    fn feed(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Err {
            return self.errors.extend_from_slice(bytes);
        }
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn line(&mut self, line: &str) {
        let said = format!("{:6.2} s  {line}", self.started.elapsed().as_secs_f64());
        let words: Vec<_> = line.split('\t').collect();
        if let Some(cut) = self.cut.filter(|cut| words[..] == [cut.word]) {
            self.off.set(Some(Instant::now() + cut.delay));
        }
        let known = match words[..] {
            ["before", ref words @ ..] => self.before.add(words),
            ["after", ref words @ ..] => self.after.add(words),
            ["recover"] => {
                self.problems = self.ledger.judge_boot(&self.before);
                true
            }
            ["checked"] => {
                let found = self.ledger.judge_recovered(&self.before, &self.after, self.boot);
                self.problems = Problems {
                    leftovers: found.leftovers,
                    lost: found.lost,
                    mixed: found.mixed,
                    ..std::mem::take(&mut self.problems)
                };
                self.checked = true;
                true
            }
            _ => {
                self.lines.push(said);
                self.problems.lost.extend(self.ledger.hear(&words));
                true
            }
        };
        if !known {
            self.problems.lost.push(format!("the guest says {line:?}"));
        }
    }
}

/// Copies a disk image, as sparse as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = process::bound("cp");
    command.args(["--sparse=auto", "--reflink=auto", "--"]).args([from, to]);
    let mut child = command.spawn().context("starting cp")?;
    let status = process::wait(&mut child, Instant::now() + COPY_LIMIT, || {}).context("cp")?;
    if !status.success() {
        bail!("copying {}: {status}", from.display());
    }
    Ok(())
}
