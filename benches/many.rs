//! What a commit in place costs where many files are changed: time, system calls, bytes sent and memory, for
//! 10,000 of 20,000 files in 20 directories, and for 3,000 of 99,000 files in one directory, written to or
//! replaced by a rename, each with and without pages in the kernel's cache: `cargo xtask bench many`. Needs
//! root, the zfs module, the `zfs` commands, and in `ZFS_TXN_BENCH_DISK` a disk to make a pool on, of at
//! least 8 GiB, whose content is lost.
//!
//! The seconds are those of the machine, emulated or not: compare them with each other. System calls are
//! counted of the whole machine, which does nothing else, by a histogram of the kernel's tracing.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark has no users")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Strategy, Zfs};

#[path = "../src/ffi/test_mapping.rs"]
mod test_mapping;
#[path = "../src/test_pool.rs"]
mod test_pool;
use test_mapping::Mapping;
use test_pool::TestPool;

/// The size of each file, in bytes.
const SIZE: usize = 5_000;

/// A number from this process's status, in KiB.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The event of a system call, in the kernel's tracing.
const EVENT: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter";
const HISTOGRAM: &str = "hist:keys=id";

/// Counts all system calls from here on.
fn count_calls() {
    // Refused where it is mounted already.
    let _ = Command::new("mount").args(["-t", "tracefs", "none", "/sys/kernel/tracing"]).output();
    fs::write(format!("{EVENT}/trigger"), HISTOGRAM).unwrap();
}

/// How many there have been.
fn calls() -> u64 {
    let histogram = fs::read_to_string(format!("{EVENT}/hist")).unwrap();
    fs::write(format!("{EVENT}/trigger"), format!("!{HISTOGRAM}")).unwrap();
    let hits = histogram.lines().find_map(|line| line.trim().strip_prefix("Hits:")).unwrap();
    hits.trim().parse().unwrap()
}

/// What one commit has cost.
struct Cost {
    begin: Duration,
    commit: Duration,
    calls: u64,
    sent: u64,
    /// By how much this process was larger than before, at most, in KiB.
    memory: u64,
}

struct Shape {
    directories: usize,
    files: usize,
    /// One of so many files is changed.
    one_of: usize,
    /// Whether each is replaced by another file, as many programs do, rather than written to.
    replaced: bool,
}

impl Shape {
    fn paths(&self, root: &Path) -> Vec<PathBuf> {
        let path = |number: usize| root.join(format!("{}/{number}", number % self.directories));
        (0..self.files).map(path).collect()
    }

    /// Spread over all of them.
    fn changed(&self, root: &Path) -> Vec<PathBuf> {
        let all = self.paths(root).into_iter().enumerate();
        let changed = all.filter(|(number, _)| (number / self.directories) % self.one_of == 0);
        changed.map(|(_, path)| path).collect()
    }
}

fn measure(zfs: &Zfs, target: &DatasetName, root: &Path, shape: &Shape, round: u8) -> Cost {
    let start = Instant::now();
    let mut transaction = zfs.transaction(target).strategy(Strategy::InPlace).begin().unwrap();
    let begin = start.elapsed();
    for path in shape.changed(transaction.path()) {
        if shape.replaced {
            let new = transaction.path().join("new");
            fs::write(&new, [round; SIZE]).unwrap();
            fs::rename(new, path).unwrap();
        } else {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(&[round; 100], 1_000).unwrap();
        }
    }
    rustix::fs::sync();
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    transaction.on_progress(move |progress| {
        seen.store(progress.bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    // From here on the peak is counted anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    count_calls();
    let start = Instant::now();
    let receipt = transaction.commit().unwrap();
    let commit = start.elapsed();
    let calls = calls();
    let memory = status("VmHWM:").saturating_sub(before);
    assert!(receipt.leftovers.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
    for path in shape.changed(root) {
        let mut bytes = [0; 100];
        File::open(path).unwrap().read_exact_at(&mut bytes, 1_000).unwrap();
        assert_eq!(bytes, [round; 100]);
    }
    Cost { begin, commit, calls, sent: sent.load(Ordering::Relaxed), memory }
}

fn main() {
    let disk = std::env::var("ZFS_TXN_BENCH_DISK").unwrap();
    println!("| files | directories | changed | pages | begin | commit | calls | sent | memory |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for shape in [
        Shape { directories: 20, files: 20_000, one_of: 2, replaced: false },
        Shape { directories: 1, files: 99_000, one_of: 33, replaced: false },
        Shape { directories: 1, files: 99_000, one_of: 33, replaced: true },
    ] {
        let pool = TestPool::on_device(Path::new(&disk));
        let zfs = Zfs::open().unwrap();
        let target: DatasetName = pool.dataset("t").parse().unwrap();
        pool.zfs(&["create", target.as_str()]);
        let root = pool.mountpoint().join("t");
        for number in 0..shape.directories {
            fs::create_dir(root.join(number.to_string())).unwrap();
        }
        let mut bytes = vec![0; SIZE];
        let mut noise = File::open("/dev/urandom").unwrap();
        for path in shape.paths(&root) {
            noise.read_exact(&mut bytes).unwrap();
            File::create(path).unwrap().write_all(&bytes).unwrap();
        }
        rustix::fs::sync();
        for (round, pages) in [(1, "none"), (2, "none"), (3, "of all that is changed")] {
            if round == 3 {
                shape.changed(&root).iter().for_each(|path| Mapping::read_only(path).touch());
            }
            let cost = measure(&zfs, &target, &root, &shape, round);
            println!(
                "| {} | {} | {}{} | {pages} | {:.2} s | {:.2} s | {} | {:.1} MB | {} KiB |",
                shape.files,
                shape.directories,
                shape.changed(&root).len(),
                if shape.replaced { " replaced" } else { "" },
                cost.begin.as_secs_f64(),
                cost.commit.as_secs_f64(),
                cost.calls,
                cost.sent as f64 / 1e6,
                cost.memory,
            );
        }
        pool.cleanup();
    }
}
