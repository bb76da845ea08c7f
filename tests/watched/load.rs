//! The processes that watch a target, and what they have met so far.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Result;
use crate::content;
use crate::holder;
use crate::reader::Reader;
use crate::tally::Tally;

pub(crate) const ALL: &[&str] = &["read", "read", "read", "read", "hold", "find"];
pub(crate) const READERS: &[&str] = &["read", "read", "read", "read"];
/// How often a process tells what it has met.
const TOLD_EVERY: Duration = Duration::from_millis(200);
/// The longest that a process may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

struct Watcher {
    role: &'static str,
    child: Child,
    /// It ends when this is closed.
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Tally>>,
    listener: JoinHandle<()>,
}

/// All that watches one target.
pub(crate) struct Load(Vec<Watcher>);

impl Load {
    /// Starts the processes and waits until each has begun.
    pub(crate) fn start(roles: &[&'static str], path: &Path) -> Result<Self> {
        let watchers: Result<Vec<_>> =
            roles.iter().map(|role| Watcher::start(role, path)).collect();
        let load = Self(watchers?);
        let end = Instant::now() + PATIENCE;
        while !load.0.iter().all(|watcher| watcher.tally().reads > 0) {
            if Instant::now() > end {
                return Err("a reader did not begin".into());
            }
            thread::sleep(TOLD_EVERY);
        }
        Ok(load)
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.0.iter().for_each(|watcher| sum.add(&watcher.tally()));
        sum
    }

    /// Ends the processes; what they have met in all.
    pub(crate) fn stop(mut self) -> Result<Tally> {
        self.0.iter_mut().for_each(|watcher| drop(watcher.stdin.take()));
        let mut sum = Tally::default();
        for mut watcher in self.0 {
            let end = Instant::now() + PATIENCE;
            let status = loop {
                match watcher.child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() > end => {
                        return Err(format!("{} does not end", watcher.role).into());
                    }
                    None => thread::sleep(Duration::from_millis(20)),
                }
            };
            if watcher.listener.join().is_err() || !status.success() {
                return Err(format!("the process that is to {}: {status}", watcher.role).into());
            }
            sum.add(&watcher.heard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(sum)
    }
}

impl Watcher {
    fn start(role: &'static str, path: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no output")?;
        let heard = Arc::new(Mutex::new(Tally::default()));
        let hears = Arc::clone(&heard);
        let listener = thread::spawn(move || {
            for tally in BufReader::new(stdout).lines().map_while(|line| Tally::parse(&line.ok()?))
            {
                *hears.lock().unwrap_or_else(PoisonError::into_inner) = tally;
            }
        });
        Ok(Self { role, child, stdin, heard, listener })
    }

    fn tally(&self) -> Tally {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one of the processes does, until its input is closed.
pub(crate) fn play(role: &str, path: &Path) -> Result<ExitCode> {
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ends.store(true, Ordering::Relaxed);
    });
    let mut told = Instant::now();
    let mut tell = |tally: &Tally, always: bool| {
        if always || told.elapsed() > TOLD_EVERY {
            told = Instant::now();
            println!("{}", tally.line());
        }
    };
    let mut tally = Tally::default();
    let mut reader = Reader::new(path);
    let mut passes = 0_u64;
    while !over.load(Ordering::Relaxed) {
        passes += 1;
        match role {
            "read" => {
                reader.pass(passes % 2 == 0);
                tally.clone_from(reader.tally());
            }
            "hold" => holder::hold(path, &mut tally),
            "find" => find(path, &mut tally),
            other => return Err(format!("nobody is to {other}").into()),
        }
        tell(&tally, passes == 1);
    }
    tell(&tally, true);
    Ok(ExitCode::SUCCESS)
}

/// Walks the tree, and asks for the status of each file.
fn find(path: &Path, tally: &mut Tally) {
    let start = Instant::now();
    let found = Command::new("find").arg(path).args(["-type", "f", "-size", "-9999k"]).output();
    tally.longest = tally.longest.max(start.elapsed());
    tally.reads += 1;
    match found {
        Err(error) => tally.fail(format!("find: {error}")),
        Ok(out) if !out.status.success() || !out.stderr.is_empty() => {
            tally.fail(String::from_utf8_lossy(&out.stderr).trim().replace(['\n', '\t'], "; "));
        }
        Ok(out) => {
            // With the manifest and the tool.
            let (count, all) =
                (out.stdout.split(|b| *b == b'\n').count() - 1, content::files().len() + 2);
            // A mount point without its mount, which a kernel before Linux 6.5 has for a moment.
            if count == 0 {
                tally.fail("find saw no file".to_owned());
            } else if count != all {
                tally.mix(format!("find saw {count} files of {all}"));
            }
        }
    }
}
