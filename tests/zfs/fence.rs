//! The fence: writes to the target are refused during a commit, and `readonly` is put back.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use zfs_txn::{
    CommitError, Conflict, DatasetName, Errno, Keeps, Refusal, Step, Strategy, Transaction,
};

use crate::support::{Identity, Scene, State};

const BOTH: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

fn begin(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    let transaction = scene.zfs.transaction(target).strategy(strategy).fence().begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    transaction
}

/// Whether the library mounts anew what gets another `readonly`, right after the property is set.
fn remounts(library: &str) -> bool {
    let numbers: Vec<u32> =
        library.split(['.', '-']).map_while(|part| part.parse().ok()).take(3).collect();
    numbers < vec![2, 3, 7] || (vec![2, 4, 0]..vec![2, 4, 2]).contains(&numbers)
}

/// Whoever writes during the commit gets EROFS, by an open file as well, and so nothing is written that
/// would have to be kept.
#[test]
fn a_writer_is_refused_for_a_moment_and_nothing_of_its_has_to_be_kept() {
    for strategy in BOTH {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let path = scene.mounted_at(&target).unwrap();
        let mut log = File::options().append(true).create(true).open(path.join("log")).unwrap();
        log.write_all(b"begin\n").unwrap();
        let transaction = begin(&scene, &target, strategy);
        let (done, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let without_a_gap = scene.swaps_without_a_gap();
        let remounts = remounts(&scene.zfs.capabilities().unwrap().library);
        let writer = {
            let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
            // The commit flushes, and begins to refuse, before anything is written.
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_secs(60);
                while !done.load(Ordering::Relaxed) && Instant::now() < end {
                    let reopen = || File::options().write(true).open(path.join("log"));
                    match reopen() {
                        Err(error) if error.raw_os_error() == Some(30) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            // An open file is refused as well, as long as the fence stands.
                            if log.write_all(b"line\n").is_ok() {
                                match reopen() {
                                    Ok(_) => {}
                                    // Before Linux 6.5 there is nothing at the path for a moment.
                                    Err(error) if error.kind() == ErrorKind::NotFound => {
                                        assert!(!without_a_gap);
                                    }
                                    // The dataset can be written to by then, and its mount is about to be.
                                    Err(error) if error.raw_os_error() == Some(30) => {
                                        assert!(remounts, "{strategy:?}: {error}");
                                    }
                                    Err(error) => panic!("{strategy:?}: {error}"),
                                }
                            }
                        }
                        _ => {}
                    }
                }
            })
        };
        let receipt = transaction.commit().unwrap();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(refused.load(Ordering::Relaxed) > 0, "{strategy:?}: nothing was refused");
        // The open file kept the predecessor, in which nothing is that the target hasn't.
        assert!(receipt.leftovers.iter().all(|l| l.keeps != Keeps::Changes), "{receipt:?}");
        assert!(scene.zfs.sweep(&scene.name("")).unwrap().unfinished.is_empty());
        assert_eq!(scene.read(&target), "generation 1");
        assert_eq!(scene.property(&target, "readonly"), ("off".into(), "default".into()));
        fs::write(scene.mounted_at(&target).unwrap().join("file"), "writable").unwrap();
        scene.end();
    }
}

/// The property, its source and the mount are as before, after a commit and after a refused one.
#[test]
fn readonly_is_put_back_with_its_source_whatever_comes_of_the_commit() {
    for (strategy, options) in BOTH
        .iter()
        .flat_map(|strategy| [&[][..], &["-o", "readonly=off"]].map(|options| (*strategy, options)))
    {
        let scene = Scene::new();
        let target = scene.dataset("t", options);
        let before = State::of(&scene, Identity::Replaced);
        let transaction = begin(&scene, &target, strategy);
        let other = scene.mounted_at(&target).unwrap().join("other");
        fs::write(&other, "theirs").unwrap();
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert!(matches!(conflict, Conflict::Modified { .. }), "{conflict}");
        fs::remove_file(other).unwrap();
        transaction.rollback().unwrap();
        before.assert_same(&State::of(&scene, Identity::Replaced));
        begin(&scene, &target, strategy).commit().unwrap();
        fs::write(scene.mounted_at(&target).unwrap().join("file"), "generation 0").unwrap();
        before.assert_same(&State::of(&scene, Identity::Replaced));
        scene.end();
    }
}

/// What could not be put back is not begun.
#[test]
fn a_target_that_is_mounted_read_only_by_itself_is_not_fenced() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let remount = ["-o", "remount,bind,ro"];
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(remount).arg(&path).status().unwrap().success());
    let before = State::of(&scene, Identity::Kept);
    let error = begin(&scene, &target, Strategy::InPlace).commit().unwrap_err();
    let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
    assert_eq!((error.step, error.errno), (Step::Fence, Errno::ROFS));
    drop(transaction);
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

/// A fence that was never set is not taken away.
#[test]
fn readonly_that_was_set_meanwhile_is_a_conflict_and_stays() {
    for strategy in BOTH {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let transaction = begin(&scene, &target, strategy);
        scene.pool.zfs(&["set", "readonly=on", target.as_str()]);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        let refusal = Refusal::ReadOnly;
        assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
        assert_eq!(scene.property(&target, "readonly"), ("on".into(), "local".into()));
        drop(transaction);
        assert_eq!(scene.property(&target, "readonly"), ("on".into(), "local".into()));
        scene.end();
    }
}
