//! Walks on real ZFS, with channel programs and without.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::{LIMITS, Limits};
use crate::engine::Engine;
use crate::errno::Errno;
use crate::ffi::lzc::{DatasetKind, Lzc, ProgramMode};
use crate::ffi::nvlist::NvList;
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::recovery::Condition;
use crate::test_pool::{TestPool, figures};
use crate::zfs::Zfs;

fn amount(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |amount| amount.parse().unwrap())
}

fn run(kernel: &Kernel, pool: &TestPool, text: &str) {
    kernel.program(pool.name(), text, &NvList::new().unwrap(), ProgramMode::Sync).unwrap();
}

/// Makes datasets that nobody mounts, eight at a time.
fn create(names: &[String]) {
    let lzc = Lzc::open().unwrap();
    thread::scope(|scope| {
        for names in names.chunks(names.len().div_ceil(8)) {
            scope.spawn(move || {
                let none = NvList::new().unwrap();
                for name in names {
                    lzc.create(name, DatasetKind::Filesystem, &none).unwrap();
                }
            });
        }
    });
}

/// More records than a program has memory for, beside a dataset that has more on itself than a piece may return:
/// that one is told, and hides nothing.
#[test]
fn a_flood_of_records_hides_no_other() {
    let pool = TestPool::new();
    let kernel = Arc::new(Kernel::open().unwrap());
    let zfs = Zfs::on(Arc::clone(&kernel) as Arc<dyn Engine>, None);
    let [fat, below, last] = ["b", "b/c", "d"].map(|name| pool.dataset(name));
    let many: Vec<String> = (0..30).map(|n| pool.dataset(&format!("a{n}"))).collect();
    create(&many);
    create(&[fat.clone(), last.clone()]);
    create(std::slice::from_ref(&below));
    let each = amount("ZFS_TXN_RECORDS", 4_500) / many.len();
    let records = each * many.len();
    let write = |name: &str, count: usize| {
        let text = format!(
            "value = string.rep(\"x\", 8190)
            for n = 1, {count} do
                property = string.format(\"zfs-txn:%016x\", n)
                assert(zfs.sync.set_prop(\"{name}\", property, value) == 0)
            end"
        );
        run(&kernel, &pool, &text);
    };
    many.iter().for_each(|name| write(name, each));
    write(&fat, usize::try_from(LIMITS.bytes).unwrap() / 8_000);
    write(&below, 1);
    write(&last, 1);
    let all: DatasetName = pool.name().parse().unwrap();
    let begun = Instant::now();
    let recovery = zfs.recover(&all).unwrap();
    let took = begun.elapsed();
    figures(&format!("walk: {records} records of 8 KB: recover {took:.1?}"));
    assert_eq!(recovery.untouched.len(), records + 2);
    let unreadable =
        |found: &crate::recovery::Pending| matches!(found.condition, Condition::Unreadable { .. });
    assert!(recovery.untouched.iter().all(unreadable));
    for name in [&below, &last] {
        assert!(recovery.untouched.iter().any(|found| found.carrier == *name), "{name}");
    }
    let [unread] = &recovery.unread[..] else { panic!("{:?}", recovery.unread) };
    assert_eq!((&unread.subject, unread.errno), (&fat, Errno::TOOBIG));
    let error = zfs.pending(&all).unwrap_err().to_string();
    assert!(error.contains(&format!("look at {fat}")), "{error}");
    pool.cleanup();
}

/// However small the pieces are, the same is found.
#[test]
fn a_dataset_of_more_names_than_a_piece_has_is_gone_through_name_by_name() {
    let pool = TestPool::new();
    let kernel = Kernel::open().unwrap();
    let many = pool.dataset("a");
    create(std::slice::from_ref(&many));
    create(&(0..7).map(|n| format!("{many}/c{n}")).collect::<Vec<_>>());
    for n in 0..7 {
        let names =
            [format!("{many}@txn-{n}"), format!("{many}@auto-{n}"), format!("{many}/c{n}@txn-1")];
        for name in names {
            let text = format!("return zfs.sync.snapshot(\"{name}\")");
            run(&kernel, &pool, &text);
            let text = format!("return zfs.sync.set_prop(\"{name}\", \"zfs-txn:{n}\", \"{name}\")");
            run(&kernel, &pool, &text);
        }
    }
    let all: DatasetName = pool.name().parse().unwrap();
    let sorted = |limits| {
        let walk = kernel.walk_in_pieces(&all, limits).unwrap();
        assert_eq!(walk.unread, []);
        let mut carriers: Vec<_> = walk.entries.into_iter().map(|entry| entry.carrier).collect();
        carriers.sort();
        carriers
    };
    let whole = sorted(LIMITS);
    assert_eq!(whole.len(), 14);
    for (carriers, names, bytes) in
        [(100, 5, 4 << 20), (3, 1_000, 4 << 20), (3, 13, 4_000), (1, 1, 2_000)]
    {
        assert_eq!(sorted(Limits { carriers, names, bytes }), whole, "{carriers} {names} {bytes}");
    }
    pool.cleanup();
}

/// What stays where it is, is found by each walk, whatever is made, renamed and destroyed meanwhile.
#[test]
fn a_walk_finds_what_stays_while_others_come_and_go() {
    const PROPERTY: &str = "zfs-txn:0000000000000001";
    let pool = TestPool::new();
    let (programs, plain) = (Kernel::open().unwrap(), Kernel::open_plain().unwrap());
    let parents: Vec<String> = (0..4).map(|n| pool.dataset(&format!("p{n}"))).collect();
    create(&parents);
    let stable: Vec<String> =
        parents.iter().flat_map(|p| (0..5).map(move |n| format!("{p}/s{n}"))).collect();
    create(&stable);
    let mut expected = HashSet::new();
    for name in &stable {
        for carrier in [name.clone(), format!("{name}@txn-1")] {
            let taken = if carrier.contains('@') {
                format!("assert(zfs.sync.snapshot(\"{carrier}\") == 0)")
            } else {
                String::new()
            };
            let text = format!("{taken} zfs.sync.set_prop(\"{carrier}\", \"{PROPERTY}\", \"x\")");
            run(&programs, &pool, &text);
            expected.insert(carrier);
        }
    }
    let all: DatasetName = pool.name().parse().unwrap();
    // Without programs, names that change all the time are told.
    let (done, renames) = (AtomicBool::new(false), AtomicBool::new(true));
    let lzc = Lzc::open().unwrap();
    thread::scope(|scope| {
        let churns: Vec<_> = parents[..2]
            .iter()
            .map(|parent| {
                let (done, renames) = (&done, &renames);
                scope.spawn(move || {
                    let none = NvList::new().unwrap();
                    let [x, y] = ["x", "y"].map(|leaf| format!("{parent}/{leaf}"));
                    let mut rounds = 0;
                    while !done.load(Ordering::Relaxed) {
                        lzc.create(&x, DatasetKind::Filesystem, &none).unwrap();
                        lzc.snapshot(&[&format!("{x}@txn-1"), &format!("{parent}/s0@y")], &none)
                            .unwrap();
                        let last = if renames.load(Ordering::Relaxed) { &y } else { &x };
                        if last == &y {
                            lzc.rename(&x, &y).unwrap();
                        }
                        lzc.destroy_snaps(&[&format!("{parent}/s0@y")], false).unwrap();
                        lzc.destroy_snaps(&[&format!("{last}@txn-1")], false).unwrap();
                        lzc.destroy(last).unwrap();
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let walks = || {
            for kernel in [&programs, &plain] {
                renames.store(kernel.runs_programs(&all).unwrap(), Ordering::Relaxed);
                for _ in 0..10 {
                    let walk = kernel.walk(&all).map_err(|fault| format!("{fault:?}"))?;
                    if !walk.unread.is_empty() {
                        return Err(format!("{:?}", walk.unread));
                    }
                    let found: HashSet<_> = walk.entries.into_iter().map(|e| e.carrier).collect();
                    let missing: Vec<_> = expected.difference(&found).collect();
                    if !missing.is_empty() {
                        return Err(format!("missing: {missing:?}"));
                    }
                }
            }
            Ok(())
        };
        let walked = walks();
        done.store(true, Ordering::Relaxed);
        let rounds: Vec<i32> = churns.into_iter().map(|churn| churn.join().unwrap()).collect();
        figures(&format!("walk: 20 times, while {rounds:?} datasets were made and destroyed"));
        walked.unwrap();
    });
    pool.cleanup();
}

/// Nothing to do, in a pool of many datasets and snapshots.
#[test]
fn a_walk_through_many_datasets_and_snapshots() {
    let pool = TestPool::new();
    let (datasets, snapshots) = (amount("ZFS_TXN_DATASETS", 60), amount("ZFS_TXN_SNAPSHOTS", 240));
    let kernel = Arc::new(Kernel::open().unwrap());
    let parents: Vec<String> =
        (0..datasets.div_ceil(50)).map(|n| pool.dataset(&format!("d{n}"))).collect();
    create(&parents);
    let below = (parents.len()..datasets).map(|n| format!("{}/e{n}", parents[n % parents.len()]));
    let below: Vec<String> = below.collect();
    create(&below);
    let (lzc, none) = (Lzc::open().unwrap(), NvList::new().unwrap());
    let names: Vec<&String> = parents.iter().chain(&below).collect();
    for round in 0..snapshots.div_ceil(datasets) {
        let taken: Vec<String> = names.iter().map(|name| format!("{name}@auto-{round}")).collect();
        for some in taken.chunks(500) {
            lzc.snapshot(&some.iter().map(String::as_str).collect::<Vec<_>>(), &none).unwrap();
        }
    }
    let all: DatasetName = pool.name().parse().unwrap();
    let zfs = Zfs::on(Arc::clone(&kernel) as Arc<dyn Engine>, None);
    let begun = Instant::now();
    assert_eq!(zfs.pending(&all).unwrap(), []);
    let pending = begun.elapsed();
    let begun = Instant::now();
    let recovery = zfs.recover(&all).unwrap();
    let recover = begun.elapsed();
    assert_eq!((recovery.untouched, recovery.unread), (vec![], vec![]));
    let mut text = format!(
        "walk: {datasets} datasets, {snapshots} snapshots: pending {pending:.1?}, recover {recover:.1?}"
    );
    if amount("ZFS_TXN_PLAIN", 1) == 1 {
        let begun = Instant::now();
        assert_eq!(Kernel::open_plain().unwrap().walk(&all).unwrap().entries, []);
        text.push_str(&format!(", by plain calls {:.1?}", begun.elapsed()));
    }
    figures(&text);
    pool.cleanup();
}
