//! Walks on real ZFS, with channel programs and without.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::{LIMITS, Limits};
use crate::engine::{Engine, Scope, SnapshotId};
use crate::errno::Errno;
use crate::error::RecoverError;
use crate::ffi::lzc::{DatasetKind, Lzc, ProgramMode};
use crate::ffi::nvlist::NvList;
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::receipt::Strategy;
use crate::recovery::Condition;
use crate::stream::sample;
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
    let is_unread = |recovery: &crate::recovery::Recovery, name: &str| {
        let [unread] = &recovery.unread[..] else { panic!("{:?}", recovery.unread) };
        assert_eq!((unread.subject.as_str(), unread.errno), (name, Errno::TOOBIG));
    };
    is_unread(&recovery, &fat);
    let error = zfs.pending(&all).unwrap_err().to_string();
    assert!(error.contains(&format!("look at {fat}")), "{error}");
    // Where the walk begins, it hides no more.
    let recovery = zfs.recover(&fat.parse().unwrap()).unwrap();
    is_unread(&recovery, &fat);
    let [found] = &recovery.untouched[..] else { panic!("{:?}", recovery.untouched) };
    assert_eq!(found.carrier, below);
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

/// Inherited properties cost a program as much as its own.
#[test]
fn a_piece_is_bounded_by_properties() {
    let pool = TestPool::new();
    let kernel = Kernel::open().unwrap();
    let above = pool.dataset("a");
    create(std::slice::from_ref(&above));
    let below: Vec<String> = (0..5).map(|n| format!("{above}/c{n}")).collect();
    create(&below);
    let text = format!(
        "for n = 1, 20 do
            assert(zfs.sync.set_prop(\"{above}\", string.format(\"any:%d\", n), \"x\") == 0)
        end
        assert(zfs.sync.set_prop(\"{0}\", \"zfs-txn:1\", \"x\") == 0)",
        below[4]
    );
    run(&kernel, &pool, &text);
    let carriers: Vec<&str> = below.iter().map(String::as_str).collect();
    for (names, done) in [(5, 1), (20, 1), (40, 2), (61, 3), (1_000, 5)] {
        let limits = Limits { names, ..LIMITS };
        assert_eq!(kernel.piece(&carriers, true, limits).unwrap().done, done, "{names}");
        let walk = kernel.walk_in_pieces(&pool.name().parse().unwrap(), limits).unwrap();
        let [entry] = &walk.entries[..] else { panic!("{:?}", walk.entries) };
        assert_eq!((&entry.carrier, &walk.unread), (&below[4], &vec![]));
    }
    pool.cleanup();
}

/// Receives an empty dataset of any type: the kernel compares it with the number of types.
fn receive(pool: &TestPool, name: &str, kind: u64) {
    const MAGIC: u64 = 0x2_f5ba_cbac;
    let begin = sample::record(0, &[(8, MAGIC, 8), (16, 1, 8), (32, kind, 4), (40, 9, 8)], &[]);
    let path = pool.directory().join("stream");
    std::fs::write(&path, sample::sealed(&[begin, sample::end()])).unwrap();
    let stream = std::fs::File::open(path).unwrap();
    let lzc = Lzc::open().unwrap();
    lzc.receive(&format!("{name}@txn-1"), None, false, false, stream.as_fd()).unwrap();
}

/// Whoever may receive can have datasets of any type, and libzfs ends the process that opens one
/// (`make_dataset_handle_common`).
#[test]
fn a_dataset_of_no_type_that_libzfs_opens_is_told_and_hides_no_other() {
    const META: u64 = 1;
    const OTHER: u64 = 4;
    let pool = TestPool::new();
    let (programs, plain) = (Kernel::open().unwrap(), Kernel::open_plain().unwrap());
    let [parent, meta, other, ours] = ["p", "p/a", "p/b", "p/c"].map(|name| pool.dataset(name));
    create(std::slice::from_ref(&parent));
    create(std::slice::from_ref(&ours));
    receive(&pool, &meta, META);
    receive(&pool, &other, OTHER);
    figures(&format!("zfs list of a forged type: {:?}", pool.try_zfs(&["list", &meta])));
    let record = format!("{ours}@txn-1");
    let text = format!(
        "value = string.rep(\"x\", 8190)
        assert(zfs.sync.snapshot(\"{record}\") == 0)
        for _, carrier in ipairs({{\"{record}\", \"{meta}\", \"{meta}@txn-1\"}}) do
            assert(zfs.sync.set_prop(carrier, \"zfs-txn:1\", value) == 0)
        end"
    );
    run(&programs, &pool, &text);
    let all: DatasetName = pool.name().parse().unwrap();
    let small = Limits { carriers: 1, names: 1, bytes: LIMITS.bytes };
    for walk in [programs.walk(&all), programs.walk_in_pieces(&all, small), plain.walk(&all)] {
        let walk = walk.unwrap();
        let [entry] = &walk.entries[..] else { panic!("{walk:?}") };
        assert_eq!(entry.carrier, record);
        assert_eq!(entry.value, "", "of a long value that is no record nothing is kept");
        let unread: HashSet<String> = walk.unread.into_iter().map(|(name, _)| name).collect();
        assert_eq!(unread, HashSet::from([meta.clone(), other.clone()]));
    }
    let journal = |target: &str| {
        let target: DatasetName = target.parse().unwrap();
        plain.journal(Scope { target: &target, above: &[], id: None })
    };
    assert_eq!(journal(&ours).unwrap().len(), 1);
    assert_eq!(journal(&meta).unwrap_err().errno, Errno::NOTSUP);
    // To a program it is as what can't be read: asked for the children of that, the kernel panics.
    let target: DatasetName = meta.parse().unwrap();
    let scope = Scope { target: &target, above: &[], id: None };
    assert_eq!(programs.journal(scope).unwrap_err().errno, Errno::IO);
    assert_eq!(programs.facts(&meta).unwrap_err().errno, Errno::IO);
    let below: DatasetName = format!("{meta}/x").parse().unwrap();
    let id = programs.facts(&record).unwrap().unwrap().id();
    assert_eq!(programs.find_snapshot(&below, "txn-1", id).unwrap_err().errno, Errno::IO);
    assert_eq!(programs.longest_snapshot(&target).unwrap_err().errno, Errno::IO);
    let lzc = Lzc::open().unwrap();
    for name in [&meta, &other] {
        lzc.destroy_snaps(&[&format!("{name}@txn-1")], false).unwrap();
        lzc.destroy(name).unwrap();
    }
    pool.cleanup();
}

/// Overwrites the root of a dataset's or snapshot's content on the disk, all its copies.
fn damage(pool: &TestPool, subject: &str) {
    pool.sync();
    let told = Command::new("zdb")
        .args(["-e", "-p", pool.directory().to_str().unwrap(), "-dddd", subject])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    let line =
        told.lines().find(|line| line.contains("rootbp ")).unwrap_or_else(|| panic!("{told}"));
    let device =
        std::fs::OpenOptions::new().write(true).open(pool.directory().join("device")).unwrap();
    let mut copies = 0;
    for part in line.split("=<").skip(1).map_while(|part| part.split_once('>')) {
        let [_, offset, size] = part.0.split(':').collect::<Vec<_>>()[..] else { break };
        let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
        let nothing = vec![0x5a; number(size) as usize];
        // Behind the two labels and the boot block.
        device.write_all_at(&nothing, number(offset) + (4 << 20)).unwrap();
        copies += 1;
    }
    assert!(copies > 0, "{line}");
    device.sync_all().unwrap();
    // Mounts nothing.
    pool.reimport_with(&["-N"]);
}

/// Asked for the properties of what it can't read, a channel program panics (`zcp_user_props_list`).
#[test]
fn a_damaged_snapshot_is_told_and_hides_no_other() {
    let pool = TestPool::new();
    let [target, beside] = ["t", "u"].map(|name| pool.dataset(name));
    for dataset in [&target, &beside] {
        pool.zfs(&["create", dataset]);
    }
    let taken = |dataset: &str, number| format!("{dataset}@txn-000000000000000{number}");
    let damaged = taken(&target, 1);
    let sound = [taken(&target, 0), taken(&target, 2), taken(&beside, 1)];
    let record = "zfs-txn:0000000000000001=none that can be read";
    for snapshot in [&sound[0], &damaged, &sound[1], &sound[2]] {
        // Each has a root of its own.
        std::fs::write(pool.mountpoint().join("t/file"), snapshot).unwrap();
        pool.zfs(&["snapshot", "-o", record, snapshot]);
    }
    let clone = pool.dataset("clone");
    pool.zfs(&["clone", &damaged, &clone]);
    for dataset in ["t", "clone"] {
        let file = pool.mountpoint().join(dataset).join("file");
        std::fs::write(file, "another root than the snapshots'").unwrap();
    }
    damage(&pool, &damaged);
    let (programs, plain) = (Kernel::open().unwrap(), Kernel::open_plain().unwrap());
    let all: DatasetName = pool.name().parse().unwrap();
    for walk in [programs.walk(&all), plain.walk(&all)] {
        let walk = walk.unwrap();
        let found: HashSet<&String> = walk.entries.iter().map(|entry| &entry.carrier).collect();
        assert_eq!(found, sound.iter().collect());
        let [(unread, _)] = &walk.unread[..] else { panic!("{walk:?}") };
        assert_eq!(*unread, damaged);
    }
    let name: DatasetName = target.parse().unwrap();
    for kernel in [programs, plain] {
        assert_eq!(kernel.facts(&damaged).unwrap_err().errno, Errno::IO);
        let sought = kernel.facts(&sound[0]).unwrap().unwrap().id();
        let leaf = |snapshot: &str| snapshot.split_once('@').unwrap().1.to_owned();
        let found = kernel.find_snapshot(&name, &leaf(&sound[0]), sought).unwrap();
        assert_eq!(found.as_ref(), Some(&sound[0]));
        // That of somebody else stops nobody.
        let other: DatasetName = beside.parse().unwrap();
        let found = kernel.find_snapshot(&other, &leaf(&damaged), sought);
        assert_eq!(found, Ok(None));
        // It may be the one that is looked for.
        let found = kernel.find_snapshot(&name, &leaf(&damaged), sought);
        assert_eq!(found.unwrap_err().errno, Errno::IO);
        let since = kernel.snapshots_since(&name, &sound[0]);
        assert_eq!(since.unwrap_err().errno, Errno::IO);
        // What asks for a clone of it alone goes on; its content is not to be replaced by what no commit could check.
        let facts = kernel.facts(&clone).unwrap().unwrap();
        assert_eq!(facts.origin, Some(SnapshotId::UNREADABLE));
        assert_eq!(kernel.is(&clone, facts.guid), Ok(true));
        let destroyed = kernel.destroy(&damaged, sought.guid);
        assert_eq!(destroyed.unwrap_err().errno, Errno::IO);
        let zfs = Zfs::on(Arc::new(kernel), None);
        let error = zfs.transaction(&name).begin().unwrap_err().to_string();
        assert!(error.contains(&damaged) && error.contains("Input/output error"), "{error}");
        figures(&format!("begin beside a damaged snapshot: {error}"));
        for strategy in [Strategy::Promote, Strategy::InPlace] {
            let of_clone = clone.parse().unwrap();
            let begun = zfs.transaction(&of_clone).strategy(strategy).begin();
            let error = begun.unwrap_err().to_string();
            let why = "the snapshot that it is a clone of can't be read";
            assert!(error.contains(&clone) && error.contains(why), "{error}");
        }
        let pending = zfs.pending(&all);
        assert!(matches!(pending, Err(RecoverError::Incomplete { .. })), "{pending:?}");
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
        // Of so few names that each parent is gone through name by name.
        let small = Limits { carriers: 3, names: 4, bytes: LIMITS.bytes };
        let walks = || {
            for (kernel, limits) in [(&programs, None), (&programs, Some(small)), (&plain, None)] {
                renames.store(kernel.runs_programs(&all).unwrap(), Ordering::Relaxed);
                for _ in 0..10 {
                    let walk = match limits {
                        Some(limits) => kernel.walk_in_pieces(&all, limits),
                        None => kernel.walk(&all),
                    };
                    let walk = walk.map_err(|fault| format!("{fault:?}"))?;
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
        figures(&format!("walk: 30 times, while {rounds:?} datasets were made and destroyed"));
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
