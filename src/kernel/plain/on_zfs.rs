//! Questions of plain calls, on real ZFS, while others' commits move names and snapshots; and copies of those.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Engine, Fault, Known, Promoted, Promotion};
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::receipt::{Guid, Strategy};
use crate::test_pool::{TestPool, figures};
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
    let guid = guid_of(&kernel, &format!("{target}@looked-for"));
    let [parent, target, clone] = [parent, target, clone].map(|name| name.parse().unwrap());
    let stop = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        let other = Kernel::open_plain().unwrap();
        let (stop, target, clone) = (&stop, &target, &clone);
        let mover = scope.spawn(move || commit_until(stop, &other, target, clone));
        let ask = |_| -> Result<bool, Fault> {
            Ok(kernel.find_snapshot(&parent, "looked-for", guid)?.is_none())
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
