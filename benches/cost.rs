//! What an update costs by each strategy: time, transaction groups and bytes written to the pool,
//! for targets of two sizes of which a little, 1 % or all is changed: `cargo xtask bench cost`.
//! Needs root, the zfs module, the `zfs` commands, and in `ZFS_TXN_BENCH_DISK` a disk to make a pool
//! on, of at least 8 GiB, whose content is lost.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark has no users")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Strategy, Zfs};

#[path = "../src/test_pool.rs"]
mod test_pool;
use test_pool::TestPool;

const FILES: u64 = 1000;
const MEGABYTE: u64 = 1_000_000;
/// How often each case is measured; the median counts.
const RUNS: usize = 3;
/// How long ZFS may take to free what was destroyed.
const FREEING: Duration = Duration::from_secs(120);

/// Bytes that no compression makes fewer.
struct Noise(u64);

impl Noise {
    fn write(&mut self, path: &Path, size: u64) {
        let mut bytes = Vec::with_capacity(size as usize + 8);
        while (bytes.len() as u64) < size {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(size as usize);
        File::create(path).unwrap().write_all(&bytes).unwrap();
    }
}

/// What was written by each transaction group up to now, by its number.
fn written_by_txg(pool: &str) -> Vec<(u64, u64)> {
    let table = fs::read_to_string(format!("/proc/spl/kstat/zfs/{pool}/txgs")).unwrap();
    let mut lines = table.lines().skip_while(|line| !line.starts_with("txg"));
    let titles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let column = |name| titles.iter().position(|title| *title == name).unwrap();
    let (txg, written) = (column("txg"), column("nwritten"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields[txg].parse().unwrap(), fields[written].parse().unwrap())
        })
        .collect()
}

fn txg(pool: &str) -> u64 {
    written_by_txg(pool).last().unwrap().0
}

/// Lets everything settle, so that one case's rest is not counted with the next.
fn settle(pool: &TestPool) {
    let end = Instant::now() + FREEING;
    while pool.zpool(&["get", "-Hpo", "value", "freeing", pool.name()]).trim() != "0" {
        assert!(Instant::now() < end, "ZFS is still freeing");
        std::thread::sleep(Duration::from_millis(200));
    }
    // What is freed in a txg is reused three later.
    (0..4).for_each(|_| pool.sync());
}

#[derive(Clone, Copy)]
struct Cost {
    begin: Duration,
    change: Duration,
    commit: Duration,
    txgs: u64,
    written: u64,
}

fn measure(
    (pool, zfs): (&TestPool, &Zfs),
    noise: &mut Noise,
    strategy: Strategy,
    (files, size): (u64, u64),
) -> Cost {
    let target: DatasetName = pool.dataset("t").parse().unwrap();
    settle(pool);
    let first = txg(pool.name());
    let start = Instant::now();
    let transaction = zfs.transaction(&target).strategy(strategy).begin().unwrap();
    let begin = start.elapsed();
    let begun = txg(pool.name());
    let start = Instant::now();
    for number in 0..files {
        noise.write(&transaction.path().join(number.to_string()), size);
    }
    let change = start.elapsed();
    let committing = txg(pool.name());
    let start = Instant::now();
    let receipt = transaction.commit().unwrap();
    let commit = start.elapsed();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    let last = txg(pool.name());
    settle(pool);
    let written = written_by_txg(pool.name());
    assert!(written[0].0 <= first, "the kernel keeps too few transaction groups");
    Cost {
        begin,
        change,
        commit,
        txgs: begun - first + last - committing,
        written: written.iter().filter(|(txg, _)| *txg > first).map(|(_, bytes)| bytes).sum(),
    }
}

fn main() {
    let disk = std::env::var("ZFS_TXN_BENCH_DISK").unwrap();
    fs::write("/sys/module/zfs/parameters/zfs_txg_history", "10000").unwrap();
    println!("| target | changed | strategy | begin | change | commit | txgs | written |");
    println!("|---|---|---|---|---|---|---|---|");
    for total in [100 * MEGABYTE, 2_000 * MEGABYTE] {
        let pool = TestPool::on_device(Path::new(&disk));
        let zfs = Zfs::open().unwrap();
        pool.zfs(&["create", &pool.dataset("t")]);
        let (size, mut noise) = (total / FILES, Noise(total));
        for number in 0..FILES {
            noise.write(&pool.mountpoint().join(format!("t/{number}")), size);
        }
        for (changed, files) in [("1 file", 1), ("1 %", FILES / 100), ("all", FILES)] {
            for strategy in [Strategy::Promote, Strategy::InPlace] {
                let mut cost = || measure((&pool, &zfs), &mut noise, strategy, (files, size));
                let mut costs: Vec<Cost> = (0..RUNS).map(|_| cost()).collect();
                costs.sort_by_key(|cost| cost.begin + cost.commit);
                let Cost { begin, change, commit, txgs, written } = costs[RUNS / 2];
                println!(
                    "| {} MB | {changed} | `{strategy:?}` | {:.2} s | {:.2} s | {:.2} s | {txgs} | \
                     {:.1} MB |",
                    total / MEGABYTE,
                    begin.as_secs_f64(),
                    change.as_secs_f64(),
                    commit.as_secs_f64(),
                    written as f64 / MEGABYTE as f64,
                );
            }
        }
        pool.cleanup();
    }
}
