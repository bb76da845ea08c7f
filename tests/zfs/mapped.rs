//! What is stored through a shared mapping: it may be in memory alone for as long as the kernel likes,
//! and everybody reads it all the same. Before begin it is content; later it is somebody else's change.

mod exact;

use std::any::Any;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zfs_txn::{
    CommitError, Conflict, DatasetName, Keeps, OnConflict, Receipt, Strategy, Transaction,
};

use crate::memory::{
    Elsewhere, NoFlusher, is_kept, look_at, make, remount, store, store_by, store_by_another,
    store_by_one_that_stays,
};
use crate::support::{Scene, amount};
use crate::test_mapping::Mapping;
use crate::test_pool::figures;
use crate::test_write::write;

const STRATEGIES: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];
const PAGE: usize = 4096;

type Checked = Result<(), String>;

/// Fails with what is wrong, so that the other cases of a test are seen as well.
macro_rules! ensure {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

/// Each strategy with each way to meet a conflict.
fn in_each_way(check: impl Fn(Strategy, OnConflict) -> Checked) {
    let ways = STRATEGIES.map(|s| [(s, OnConflict::Fail), (s, OnConflict::Overwrite)]);
    let failed: Vec<String> = ways
        .into_iter()
        .flatten()
        .filter_map(|(strategy, on_conflict)| {
            let failed = check(strategy, on_conflict).err()?;
            Some(format!("{strategy:?}, {on_conflict:?}: {failed}"))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn begin(
    scene: &Scene,
    target: &DatasetName,
    (strategy, on_conflict): (Strategy, OnConflict),
) -> Transaction {
    let builder = scene.zfs.transaction(target).strategy(strategy);
    builder.on_conflict(on_conflict).begin().unwrap()
}

/// Whether a file has `count` bytes of one value from an offset on.
fn has(path: &Path, offset: usize, count: usize, byte: u8) -> bool {
    let Ok(content) = fs::read(path) else { return false };
    content.get(offset..offset + count).is_some_and(|part| part.iter().all(|b| *b == byte))
}

fn commit(transaction: Transaction) -> Result<Receipt, String> {
    match transaction.commit() {
        Ok(receipt) => Ok(receipt),
        Err(CommitError::Conflict { conflict, transaction }) => {
            transaction.rollback().unwrap();
            Err(format!("a conflict: {conflict:?}"))
        }
        Err(error) => Err(format!("{error}")),
    }
}

/// The content of a target with stores that were not written back: a new file, which is all holes on
/// disk; a page of an old one; some pages of a large one, by a process that has gone; and a page that
/// was stored into twice.
fn prepare(root: &Path) {
    fs::write(root.join("page"), vec![1; 3 * PAGE]).unwrap();
    fs::write(root.join("large"), vec![2; 700_000]).unwrap();
    for name in ["page", "large"] {
        File::open(root.join(name)).unwrap().sync_all().unwrap();
    }
    make(&root.join("large.new"), 1_000_000);
}

fn store_all(root: &Path) {
    if !root.join("new").exists() {
        make(&root.join("new"), PAGE as u64);
    }
    store(&root.join("new"), 0, &[7; PAGE]);
    store(&root.join("page"), PAGE + 100, &[7; 50]);
    store_by_another(&root.join("large"), 300_000, (10_000, 7));
    store_by_another(&root.join("large.new"), 999_000, (1_000, 7));
    store(&root.join("page"), 2 * PAGE, &[6; 10]);
    store(&root.join("page"), 2 * PAGE, &[7; 10]);
}

fn stored(root: &Path) -> Checked {
    for (name, offset, count) in [
        ("new", 0, PAGE),
        ("page", PAGE + 100, 50),
        ("page", 2 * PAGE, 10),
        ("large", 300_000, 10_000),
        ("large.new", 999_000, 1_000),
    ] {
        ensure!(has(&root.join(name), offset, count, 7), "{name} is not as it was stored");
    }
    Ok(())
}

/// What readers of the target see at begin is what the transaction is based on.
#[test]
fn what_is_stored_before_begin_is_in_the_workspace_and_stays() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    in_each_way(|strategy, on_conflict| {
        let target = scene.dataset(&format!("{strategy:?}-{on_conflict:?}"), &[]);
        let path = scene.mounted_at(&target).unwrap();
        prepare(&path);
        store_all(&path);
        let transaction = begin(&scene, &target, (strategy, on_conflict));
        stored(transaction.path()).map_err(|error| format!("in the workspace, {error}"))?;
        write(transaction.path().join("file"), "generation 1").unwrap();
        let receipt = commit(transaction)?;
        let clean = receipt.overridden.is_empty() && receipt.leftovers.is_empty();
        ensure!(clean && receipt.stale.is_empty(), "{receipt:?}");
        stored(&path).map_err(|error| format!("after the commit, {error}"))?;
        remount(&scene, &target);
        stored(&path).map_err(|error| format!("mounted anew, {error}"))?;
        ensure!(scene.read(&target) == "generation 1", "the change is lost");
        Ok(())
    });
    scene.end();
}

/// The same where this process's mount namespace doesn't have the target.
#[test]
fn what_is_stored_elsewhere_before_begin_is_in_the_workspace_and_stays() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    in_each_way(|strategy, on_conflict| {
        let name = format!("{strategy:?}-{on_conflict:?}");
        let target = scene.dataset(&name, &["-o", "mountpoint=legacy"]);
        let elsewhere = Elsewhere::mount(&scene, &target);
        let root = elsewhere.file("");
        prepare(&root);
        store_all(&root);
        let transaction = begin(&scene, &target, (strategy, on_conflict));
        stored(transaction.path()).map_err(|error| format!("in the workspace, {error}"))?;
        write(transaction.path().join("file"), "generation 1").unwrap();
        let receipt = commit(transaction)?;
        ensure!(receipt.overridden.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
        // By promote that mount goes on with the old content, which is kept for as long as it is there.
        let kept = strategy == Strategy::Promote;
        ensure!(receipt.leftovers.is_empty() != kept, "{receipt:?}");
        stored(&root).map_err(|error| format!("elsewhere, {error}"))?;
        drop(elsewhere);
        let swept = scene.zfs.sweep(&target).unwrap();
        let finished = swept.finished.len() == usize::from(kept);
        ensure!(swept.unfinished.is_empty() && finished, "{swept:?}");
        look_at(&scene, target.as_str(), stored)
            .map_err(|error| format!("after the commit, {error}"))
    });
    scene.end();
}

/// The owner of a transaction may store as well: by a mapping that is gone, or one that stays.
#[test]
fn what_is_stored_in_the_workspace_is_committed() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    in_each_way(|strategy, on_conflict| {
        let target = scene.dataset(&format!("{strategy:?}-{on_conflict:?}"), &[]);
        let path = scene.mounted_at(&target).unwrap();
        prepare(&path);
        fs::write(path.join("held"), vec![1; 2 * PAGE]).unwrap();
        File::open(path.join("held")).unwrap().sync_all().unwrap();
        let builder = scene.zfs.transaction(&target).strategy(strategy).on_conflict(on_conflict);
        let transaction = builder.snapshot("v1").begin().unwrap();
        store_all(transaction.path());
        let (held, file) = opened(&transaction.path().join("held"));
        store_by(&held, &file, PAGE, &[7; 100]);
        drop(file);
        // In place, a workspace in which something is mapped is left for a moment.
        let receipt = commit(transaction)?;
        drop(held);
        let look = |root: &Path| {
            stored(root)?;
            ensure!(has(&root.join("held"), PAGE, 100, 7), "held is not as it was stored");
            Ok(())
        };
        look(&path).map_err(|error| format!("after the commit, {error}"))?;
        let snapshot = receipt.final_snapshot.unwrap();
        look_at(&scene, snapshot.name.as_str(), look)
            .map_err(|error| format!("in the snapshot, {error}"))?;
        remount(&scene, &target);
        look(&path).map_err(|error| format!("mounted anew, {error}"))?;
        let swept = scene.zfs.sweep(&target).unwrap();
        ensure!(swept.unfinished.is_empty(), "{swept:?}");
        Ok(())
    });
    scene.end();
}

/// Whoever has the file mapped still, until this is dropped.
type Who = Option<Box<dyn Any>>;

/// A way to store `[9; 100]` at the begin of the file's second page while a transaction is open.
struct Case {
    name: &'static str,
    before: fn(&Path) -> Vec<Mapping>,
    after: fn(&Path, Vec<Mapping>) -> Who,
}

const OURS: (usize, [u8; 100]) = (PAGE, [9; 100]);

fn opened(path: &Path) -> (Mapping, File) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    (Mapping::of(&file, true), file)
}

/// A mapping through which something has been stored that is not written back.
fn dirty(path: &Path) -> Mapping {
    let (mapping, file) = opened(path);
    store_by(&mapping, &file, PAGE, &[8; 100]);
    mapping
}

fn store_here(mappings: Vec<Mapping>) -> Who {
    mappings.iter().for_each(|mapping| mapping.store(OURS.0, &OURS.1));
    Some(Box::new(mappings))
}

const CASES: [Case; 9] = [
    Case {
        name: "a clean page",
        before: |_| Vec::new(),
        after: |path, _| {
            store(path, OURS.0, &OURS.1);
            None
        },
    },
    Case {
        name: "a page that was dirty at begin, by the same mapping",
        before: |path| vec![dirty(path)],
        after: |_, mappings| store_here(mappings),
    },
    Case {
        name: "a page that was dirty at begin, by a mapping that goes",
        before: |path| vec![dirty(path)],
        after: |_, mappings| {
            drop(store_here(mappings));
            None
        },
    },
    Case {
        name: "a page that was dirty at begin and has no mapping any more",
        before: |path| {
            drop(dirty(path));
            Vec::new()
        },
        after: |path, _| {
            store(path, OURS.0, &OURS.1);
            None
        },
    },
    Case {
        name: "a page that was only read before begin, by the same mapping",
        before: |path| {
            let (mapping, _) = opened(path);
            mapping.touch();
            vec![mapping]
        },
        after: |_, mappings| store_here(mappings),
    },
    Case {
        name: "two mappings",
        before: |path| vec![dirty(path), dirty(path)],
        after: |_, mappings| {
            mappings[0].store(OURS.0, &OURS.1[..50]);
            mappings[1].store(OURS.0 + 50, &OURS.1[50..]);
            Some(Box::new(mappings))
        },
    },
    Case {
        name: "two mappings, of which one goes",
        before: |path| vec![dirty(path), opened(path).0],
        after: |_, mut mappings| {
            mappings[1].store(OURS.0, &OURS.1);
            mappings.truncate(1);
            Some(Box::new(mappings))
        },
    },
    Case {
        name: "a process that has gone",
        before: |path| {
            store_by_another(path, PAGE, (100, 8));
            Vec::new()
        },
        after: |path, _| {
            store_by_another(path, PAGE, (100, 9));
            None
        },
    },
    Case {
        name: "a process that stays",
        before: |path| {
            drop(dirty(path));
            Vec::new()
        },
        after: |path, _| Some(Box::new(store_by_one_that_stays(path, PAGE, (100, 9)))),
    },
];

/// Each case by each strategy, with a target in which it is prepared. Nothing of it was done about when the
/// transactions begin: that is told by no clock.
fn prepared(
    scene: &Scene,
) -> impl Iterator<Item = (&'static Case, Strategy, DatasetName, PathBuf, Vec<Mapping>)> {
    let cases = CASES.iter().enumerate();
    let cases =
        cases.flat_map(|(number, case)| STRATEGIES.map(|strategy| (number, case, strategy)));
    let prepare = |(number, case, strategy): (usize, &'static Case, Strategy)| {
        let target = scene.dataset(&format!("{strategy:?}-{number}"), &[]);
        let Some(at) = scene.mounted_at(&target) else {
            // Seen once, on 2.4.4: is the mount missing, or was it overlooked?
            let mounted = scene.property(&target, "mounted").0;
            panic!("{target}: mounted={mounted}, a second look: {:?}", scene.mounted_at(&target));
        };
        let path = at.join("mapped");
        fs::write(&path, vec![1; 3 * PAGE]).unwrap();
        scene.pool.sync();
        let mappings = (case.before)(&path);
        (case, strategy, target, path, mappings)
    };
    let prepared: Vec<_> = cases.map(prepare).collect();
    std::thread::sleep(Duration::from_secs(4));
    prepared.into_iter()
}

#[test]
fn what_is_stored_after_begin_is_a_conflict() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let mut failed = Vec::new();
    for (case, strategy, target, path, mappings) in prepared(&scene) {
        let transaction = begin(&scene, &target, (strategy, OnConflict::Fail));
        write(transaction.path().join("file"), "generation 1").unwrap();
        let who = (case.after)(&path, mappings);
        let found = conflict_of(transaction);
        let expected = Conflict::Modified { target };
        if found.as_ref() != Ok(&expected) {
            failed.push(format!("{}, {strategy:?}: {found:?}", case.name));
        } else if !has(&path, OURS.0, OURS.1.len(), 9) {
            failed.push(format!("{}, {strategy:?}: it is lost", case.name));
        }
        drop(who);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    scene.end();
}

/// The conflict that a commit finds; the transaction is rolled back.
fn conflict_of(transaction: Transaction) -> Result<Conflict, String> {
    match transaction.commit() {
        Ok(receipt) => Err(format!("committed: {receipt:?}")),
        Err(CommitError::Conflict { conflict, transaction }) => {
            transaction.rollback().unwrap();
            Ok(conflict)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_is_stored_after_begin_and_overwritten_is_kept() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let mut failed = Vec::new();
    for (case, strategy, target, path, mappings) in prepared(&scene) {
        let transaction = begin(&scene, &target, (strategy, OnConflict::Overwrite));
        write(transaction.path().join("file"), "generation 1").unwrap();
        let who = (case.after)(&path, mappings);
        if let Err(error) = overwritten(&scene, &target, transaction, who) {
            failed.push(format!("{}, {strategy:?}: {error}", case.name));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    scene.pool.cleanup();
}

/// Commits, and looks for what somebody has stored. In place, what is replaced can't be in use.
fn overwritten(
    scene: &Scene,
    target: &DatasetName,
    transaction: Transaction,
    mut who: Who,
) -> Checked {
    let held = who.is_some();
    let receipt = match transaction.commit() {
        Err(CommitError::Conflict { conflict: Conflict::InUse { .. }, transaction }) if held => {
            who = None;
            commit(*transaction)?
        }
        Err(error) => return Err(error.to_string()),
        Ok(receipt) => receipt,
    };
    let expected = [Conflict::Modified { target: target.clone() }];
    ensure!(receipt.overridden == expected, "{receipt:?}");
    ensure!(scene.read(target) == "generation 1", "the change is lost");
    drop(who);
    let kept = is_kept(scene, &receipt, |root| has(&root.join("mapped"), OURS.0, 100, 9));
    ensure!(kept, "nothing that is left has it: {:?}", receipt.leftovers);
    ensure!(!has(&scene.mounted_at(target).unwrap().join("mapped"), OURS.0, 1, 9), "both have it");
    Ok(())
}

/// The same where this process's mount namespace doesn't have the target.
#[test]
fn what_is_stored_elsewhere_after_begin_is_a_conflict() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    in_each_way(|strategy, on_conflict| {
        let name = format!("{strategy:?}-{on_conflict:?}");
        let target = scene.dataset(&name, &["-o", "mountpoint=legacy"]);
        let elsewhere = Elsewhere::mount(&scene, &target);
        let path = elsewhere.file("mapped");
        fs::write(&path, vec![1; 3 * PAGE]).unwrap();
        scene.pool.sync();
        let mapping = dirty(&path);
        let transaction = begin(&scene, &target, (strategy, on_conflict));
        write(transaction.path().join("file"), "generation 1").unwrap();
        mapping.store(OURS.0, &OURS.1);
        drop(mapping);
        if on_conflict == OnConflict::Fail {
            let found = conflict_of(transaction)?;
            ensure!(found == Conflict::Modified { target }, "{found:?}");
            ensure!(has(&path, OURS.0, 100, 9), "it is lost");
            return Ok(());
        }
        let receipt = commit(transaction)?;
        ensure!(receipt.overridden == [Conflict::Modified { target }], "{receipt:?}");
        drop(elsewhere);
        let kept = is_kept(&scene, &receipt, |root| has(&root.join("mapped"), OURS.0, 100, 9));
        ensure!(kept, "nothing that is left has it: {:?}", receipt.leftovers);
        Ok(())
    });
    scene.pool.cleanup();
}

/// I6, for somebody who stores all the time through a mapping that stays: the last store is in the
/// target, or in what the receipt names.
#[test]
fn every_store_during_commits_is_kept() {
    let rounds = amount("ZFS_TXN_STORES", 2);
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let mut committed = 0;
    for round in 0..rounds {
        in_each_way(|strategy, on_conflict| {
            let target = scene.dataset(&format!("{strategy:?}-{on_conflict:?}-{round}"), &[]);
            let path = scene.mounted_at(&target).unwrap().join("counter");
            fs::write(&path, vec![0; 2 * PAGE]).unwrap();
            scene.pool.sync();
            let (mapping, done) = (Mapping::writable(&path), AtomicBool::new(false));
            let count = || {
                let mut number = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    number += 1;
                    mapping.store(PAGE, &number.to_le_bytes());
                    std::thread::sleep(Duration::from_millis(1));
                }
                number
            };
            let (last, result) = std::thread::scope(|scope| {
                let counter = scope.spawn(count);
                let transaction = begin(&scene, &target, (strategy, on_conflict));
                write(transaction.path().join("file"), "generation 1").unwrap();
                let result = transaction.commit();
                done.store(true, Ordering::Relaxed);
                (counter.join().unwrap(), result)
            });
            drop(mapping);
            let is_last = |root: &Path| {
                let found = fs::read(root.join("counter"));
                found.is_ok_and(|found| found[PAGE..][..8] == last.to_le_bytes())
            };
            let in_target = is_last(path.parent().unwrap());
            match result {
                Ok(receipt) => {
                    let kept = in_target || is_kept(&scene, &receipt, is_last);
                    ensure!(kept, "store {last} is lost: {receipt:?}");
                }
                Err(CommitError::Conflict { conflict, transaction }) => {
                    transaction.rollback().unwrap();
                    ensure!(in_target, "store {last} is lost: {conflict:?}");
                }
                // Who never pauses can keep a commit from its end.
                Err(CommitError::Unchanged { error, transaction }) => {
                    transaction.rollback().unwrap();
                    ensure!(in_target, "store {last} is lost: {error}");
                }
                Err(error) => return Err(error.to_string()),
            }
            Ok(())
        });
        committed += 4;
    }
    figures(&format!("{committed} commits under stores through a mapping: none was lost"));
    scene.pool.cleanup();
}

/// Who writes into the predecessor after the commit, with the old times put back or through a mapping,
/// has made it worth keeping; who has it open and writes what is there already, has not.
#[test]
fn a_sweep_tells_a_predecessor_with_a_store_from_one_without() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    for changes in [false, true] {
        let target = scene.dataset(&format!("t-{changes}"), &[]);
        let path = scene.mounted_at(&target).unwrap().join("mapped");
        fs::write(&path, vec![1; 3 * PAGE]).unwrap();
        let (mapping, file) = opened(&path);
        store_by(&mapping, &file, PAGE, &[8; 100]);
        let receipt = scene.publish(&target, "generation 1");
        let left = receipt.leftovers.iter().find(|left| left.name.contains("-old-"));
        let Some(left) = left else { panic!("{receipt:?}") };
        assert_eq!(left.keeps, Keeps::Unknown);
        let modified = file.metadata().unwrap().modified().unwrap();
        mapping.store(PAGE, &[if changes { 9 } else { 8 }; 100]);
        file.set_modified(modified).unwrap();
        drop((mapping, file));
        let swept = scene.zfs.sweep(&target).unwrap();
        let found = (swept.finished.len(), swept.unfinished.len());
        assert_eq!(found, if changes { (0, 1) } else { (1, 0) }, "{changes}: {swept:?}");
        if changes {
            assert!(is_kept(&scene, &receipt, |root| has(&root.join("mapped"), PAGE, 100, 9)));
            scene.pool.zfs(&["destroy", "-r", &left.name]);
        }
        assert!(scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
    }
    scene.end();
}
