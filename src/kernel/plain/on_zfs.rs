//! Questions of plain calls, on real ZFS, while others' commits move names and snapshots; and copies of those.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Engine, Fault, Known, LOOK, Promoted, Promotion};
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::receipt::{Guid, OnConflict, Strategy};
use crate::test_pool::{TestPool, figures};
use crate::txn::journal::{Record, State, property};
use crate::zfs::Zfs;

const QUESTIONS: usize = 50;

fn guid_of(kernel: &Kernel, name: &str) -> Guid {
    kernel.facts(name).unwrap().unwrap().guid
}

/// What a commit does to names and snapshots, again and again: each of two datasets is the clone in turn.
fn commit_until(stop: &AtomicBool, kernel: &Kernel, target: &DatasetName, clone: &DatasetName) {
    let aside: DatasetName = format!("{target}-old-1").parse().unwrap();
    let base = guid_of(kernel, &format!("{target}@base"));
    while !stop.load(Ordering::Relaxed) {
        let promotion = Promotion {
            clone: Known { name: clone, guid: guid_of(kernel, clone.as_str()) },
            head: Known { name: target, guid: guid_of(kernel, target.as_str()) },
            head_origin: None,
            base,
            since: None,
            record: ("zfs-txn:test", "promoted"),
            undoes: false,
        };
        assert_eq!(kernel.promote(promotion), Ok(Promoted::Done));
        for (from, to) in [(target, &aside), (clone, target), (&aside, clone)] {
            kernel.rename(from, to).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_commits_move_is_always_found() {
    let pool = TestPool::new();
    pool.zfs(&["create", "-o", "mountpoint=none", &pool.dataset("parent")]);
    let [parent, target, clone] =
        ["parent", "parent/t", "parent/t-txn-1"].map(|name| pool.dataset(name));
    let base = format!("{target}@base");
    pool.zfs(&["create", &target]);
    // Theirs is older, and moves each time.
    pool.zfs(&["snapshot", &format!("{target}@looked-for")]);
    pool.zfs(&["snapshot", &base]);
    pool.zfs(&["clone", &base, &clone]);
    for sibling in 0..10 {
        pool.zfs(&["create", &format!("{parent}/sibling-{sibling}")]);
    }
    let kernel = Kernel::open_plain().unwrap();
    let looked_for = format!("{target}@looked-for");
    let id = kernel.facts(&looked_for).unwrap().unwrap().id();
    let [target, clone] = [target, clone].map(|name| name.parse().unwrap());
    let stop = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        let other = Kernel::open_plain().unwrap();
        let (stop, target, clone) = (&stop, &target, &clone);
        let mover = scope.spawn(move || commit_until(stop, &other, target, clone));
        let ask = |_| -> Result<bool, Fault> {
            Ok(kernel.find_snapshot(target, "looked-for", id)?.is_none())
        };
        let missed: Result<Vec<bool>, Fault> =
            (0..QUESTIONS).take_while(|_| !mover.is_finished()).map(ask).collect();
        stop.store(true, Ordering::Relaxed);
        mover.join().unwrap();
        missed.unwrap()
    });
    assert_eq!(missed.len(), QUESTIONS);
    assert_eq!(missed.iter().filter(|missed| **missed).count(), 0);
    figures(&format!("a moved snapshot was looked for {QUESTIONS} times, and found each time"));
    pool.cleanup();
}

/// A receive gives its snapshot the guid of the one that was sent: copies beside a target have that of its base.
#[test]
fn copies_of_a_base_are_not_destroyed_with_it() {
    let pool = TestPool::new();
    let target = pool.dataset("t");
    pool.zfs(&["create", &target]);
    let kernels = [Kernel::open().unwrap(), Kernel::open_plain().unwrap()];
    for (round, kernel) in kernels.into_iter().enumerate() {
        let zfs = Zfs::on(Arc::new(kernel), None);
        let name: DatasetName = target.parse().unwrap();
        for (case, strategy) in
            [None, Some(Strategy::Promote), Some(Strategy::InPlace)].iter().enumerate()
        {
            let builder = zfs.transaction(&name).strategy(strategy.unwrap_or_default());
            let transaction = builder.begin().unwrap();
            let leaf = format!("txn-{}", transaction.id());
            let copies = [0, 1, 2].map(|n| pool.dataset(&format!("copy-{round}-{case}-{n}")));
            for copy in &copies {
                let command = format!("zfs send {target}@{leaf} | zfs receive -u {copy}");
                assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            }
            std::fs::write(transaction.path().join("file"), "new").unwrap();
            match strategy {
                None => transaction.rollback().unwrap(),
                Some(_) => assert_eq!(transaction.commit().unwrap().leftovers, []),
            }
            assert!(pool.try_zfs(&["list", &format!("{target}@{leaf}")]).is_err());
            for copy in &copies {
                pool.zfs(&["list", &format!("{copy}@{leaf}")]);
            }
        }
    }
    pool.cleanup();
}

/// Who may receive, take snapshots and set properties on a dataset can have all of another target there: copies of what
/// a commit has kept, with their guids, names and marks, and a record of a transaction on that dataset.
#[test]
fn a_forged_record_with_marked_copies_leads_to_no_other_snapshot() {
    let pool = TestPool::new();
    let kernels = [Kernel::open().unwrap(), Kernel::open_plain().unwrap()];
    for (round, kernel) in kernels.into_iter().enumerate() {
        let [target, theirs] = ["t", "d"].map(|name| pool.dataset(&format!("{name}{round}")));
        pool.zfs(&["create", &target]);
        std::fs::write(pool.mountpoint().join(format!("t{round}/file")), "old").unwrap();
        let kernel = Arc::new(kernel);
        let zfs = Zfs::on(Arc::clone(&kernel) as Arc<dyn Engine>, None);
        let name: DatasetName = target.parse().unwrap();
        let builder = zfs.transaction(&name).strategy(Strategy::InPlace);
        let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
        let id = transaction.id();
        std::fs::write(transaction.path().join("file"), "ours").unwrap();
        std::fs::write(pool.mountpoint().join(format!("t{round}/file")), "the only copy").unwrap();
        transaction.commit().unwrap();
        let [base, look] = [id.base_leaf(), id.look_leaf()];
        let command = format!(
            "zfs send {target}@{base} | zfs receive -u {theirs} && \
             zfs send -i @{base} {target}@{look} | zfs receive -u {theirs}"
        );
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        let kept = [&base, &look].map(|leaf| guid_of(&kernel, &format!("{target}@{leaf}")));
        let their_guid = guid_of(&kernel, &theirs);
        let record = property(id);
        let value = pool.zfs(&["get", "-Hpo", "value", &record, &format!("{target}@{base}")]);
        let genuine = Record::decode(&record, OsStr::new(value.trim())).unwrap();
        let mut ended = 0;
        for (strategy, state) in [
            (Strategy::Promote, State::Committing),
            (Strategy::Promote, State::Committed),
            (Strategy::Promote, State::Open),
            (Strategy::Promote, State::RolledBack),
            (Strategy::InPlace, State::Committing),
            (Strategy::InPlace, State::Committed),
            (Strategy::InPlace, State::RolledBack),
        ] {
            let forged = Record {
                strategy,
                state,
                target: theirs.parse().unwrap(),
                target_guid: Some(their_guid),
                overwrite: false,
                fence: None,
                ..genuine.clone()
            };
            let forged = format!("{record}={}", forged.encode());
            if pool.try_zfs(&["set", &forged, &format!("{theirs}@{base}")]).is_err() {
                // The base went with an earlier record: the next one is on another snapshot, the mark on a copy.
                pool.zfs(&["snapshot", "-o", &forged, &format!("{theirs}@{base}")]);
            }
            let copied = format!("zfs send {target}@{look} | zfs receive -Fu {theirs}-copy");
            let mark = format!("{LOOK}={id}");
            if pool.try_zfs(&["set", &mark, &format!("{theirs}@{look}")]).is_err() {
                assert!(Command::new("sh").args(["-c", &copied]).status().unwrap().success());
                pool.zfs(&["set", &mark, &format!("{theirs}-copy@{look}")]);
            }
            let pool_name: DatasetName = pool.name().parse().unwrap();
            let recovery = zfs.recover(&pool_name).unwrap();
            zfs.sweep(&pool_name).unwrap();
            ended += recovery.finished.iter().filter(|it| it.target.as_str() == theirs).count();
            let now = [&base, &look].map(|leaf| guid_of(&kernel, &format!("{target}@{leaf}")));
            assert_eq!(now, kept, "{strategy:?} {state:?}: {recovery:?}");
            let _ = pool.try_zfs(&["destroy", "-r", &format!("{theirs}-copy")]);
        }
        assert!(ended > 0, "each record was refused at first sight: nothing is proved");
    }
    pool.cleanup();
}
