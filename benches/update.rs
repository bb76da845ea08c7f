//! One update transaction against the command sequence that users would otherwise run, on the same
//! pool: `cargo xtask bench`. Needs root, the zfs module and the `zfs` commands.
//!
//! The seconds are those of the machine, emulated or not; the ratio and the number of transaction
//! groups are what to compare.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark has no users")]

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use zfs_txn::{DatasetName, Zfs};

#[path = "../src/test_pool.rs"]
mod test_pool;
use test_pool::TestPool;

/// The commands that the transaction is compared with.
const COMMANDS: &str = include_str!("command-sequence.sh");

/// The transaction group that the pool is at.
fn txg(pool: &str) -> u64 {
    let table = fs::read_to_string(format!("/proc/spl/kstat/zfs/{pool}/txgs")).unwrap();
    let last = table.lines().last().unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

/// Times and transaction groups of each run.
#[derive(Default)]
struct Runs {
    times: Vec<Duration>,
    txgs: Vec<u64>,
}

impl Runs {
    fn measure<T>(
        &mut self,
        pool: &str,
        iterations: u64,
        mut prepare: impl FnMut() -> T,
        mut run: impl FnMut(T),
    ) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            let prepared = prepare();
            let (txg_before, begin) = (txg(pool), Instant::now());
            run(prepared);
            let time = begin.elapsed();
            self.txgs.push(txg(pool) - txg_before);
            self.times.push(time);
            total += time;
        }
        total
    }

    fn medians(&mut self) -> (Duration, u64) {
        self.times.sort();
        self.txgs.sort_unstable();
        (self.times[self.times.len() / 2], self.txgs[self.txgs.len() / 2])
    }
}

fn target(pool: &TestPool, name: &str) -> (DatasetName, String) {
    let target = pool.dataset(name);
    let path = pool.directory().join(name).display().to_string();
    pool.zfs(&["create", "-o", &format!("mountpoint={path}"), &target]);
    (target.parse().unwrap(), path)
}

fn update(criterion: &mut Criterion) {
    let (pool, zfs) = (TestPool::new(), Zfs::open().unwrap());
    let (ours, commands) = (RefCell::new(Runs::default()), RefCell::new(Runs::default()));
    let mut group = criterion.benchmark_group("update");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));

    let (name, path) = target(&pool, "ours");
    group.bench_function("zfs-txn", |bencher| {
        bencher.iter_custom(|iterations| {
            ours.borrow_mut().measure(
                pool.name(),
                iterations,
                || (),
                |()| {
                    let transaction = zfs.transaction(&name).begin().unwrap();
                    fs::write(transaction.path().join("file"), "content").unwrap();
                    assert!(transaction.commit().unwrap().leftovers.is_empty());
                },
            )
        });
    });
    assert_eq!(fs::read_to_string(Path::new(&path).join("file")).unwrap(), "content");

    let source = pool.directory().join("source").display().to_string();
    fs::create_dir(&source).unwrap();
    fs::write(Path::new(&source).join("file"), "content").unwrap();
    let mut number = 0_u64;
    group.bench_function("zfs commands", |bencher| {
        bencher.iter_custom(|iterations| {
            // Each on a dataset of its own: a second commit of one leaves two datasets mounted at
            // one path.
            let prepare = || {
                number += 1;
                target(&pool, &format!("commands{number}"))
            };
            commands.borrow_mut().measure(pool.name(), iterations, prepare, |(name, path)| {
                let arguments = ["-c", COMMANDS, "sh", name.as_str(), &path, "1", &source];
                assert!(Command::new("sh").args(arguments).status().unwrap().success());
            })
        });
    });
    group.finish();

    let ((our_time, our_txgs), (their_time, their_txgs)) =
        (ours.borrow_mut().medians(), commands.borrow_mut().medians());
    println!("zfs-txn:       {our_time:?}, {our_txgs} txgs (median of one update)");
    println!("zfs commands:  {their_time:?}, {their_txgs} txgs (median of one update)");
    println!("ratio:         {:.1}", their_time.as_secs_f64() / our_time.as_secs_f64());
    pool.cleanup();
}

criterion_group!(benches, update);
criterion_main!(benches);
