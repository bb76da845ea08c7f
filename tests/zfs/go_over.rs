//! Snapshots that the target gets while a commit by promote is open: they are carried along, by a commit
//! in place.

use std::fs;
use std::ops::ControlFlow;

use zfs_txn::{
    CommitError, Conflict, DatasetName, Keeps, OnConflict, Outcome, Strategy, Transaction,
};

use crate::support::{Identity, Scene, State, again, assert_passed, claims};

fn begin(scene: &Scene, target: &DatasetName) -> Transaction {
    let transaction = scene.zfs.transaction(target).snapshot("last").begin().unwrap();
    fs::write(transaction.path().join("file"), "new").unwrap();
    transaction
}

fn guid(scene: &Scene, name: &str) -> String {
    scene.pool.zfs(&["get", "-Hpo", "value", "guid", name])
}

fn read_in(scene: &Scene, target: &DatasetName, leaf: &str) -> String {
    let snapshot = scene.mounted_at(target).unwrap().join(".zfs/snapshot").join(leaf);
    let said = fs::read_to_string(snapshot.join("file")).unwrap();
    // Mounted by the look at it.
    let _ = std::process::Command::new("umount").arg(&snapshot).status();
    said
}

/// Its guid says that it is the same, and the target's that it was changed in place.
#[test]
fn a_snapshot_taken_meanwhile_is_carried_along() {
    let scene = Scene::new();
    let own = ["-o", "com.sun:auto-snapshot=true", "-o", "quota=1G"];
    for (target, options) in [("inherited", &own[..]), ("own", &["-o", "mountpoint=/tmp/own"])] {
        let target = scene.dataset(target, options);
        let path = scene.mounted_at(&target).unwrap();
        let before = State::of(&scene, Identity::Kept);
        let dataset = guid(&scene, target.as_str());
        let transaction = begin(&scene, &target);
        let auto = format!("{target}@auto");
        scene.pool.zfs(&["snapshot", "-r", &format!("{}@auto", scene.pool.name())]);
        let taken = guid(&scene, &auto);
        let receipt = transaction.commit().unwrap();
        assert_eq!(receipt.strategy, Strategy::InPlace);
        assert_eq!((&receipt.overridden[..], &receipt.leftovers[..]), (&[][..], &[][..]));
        assert_eq!(receipt.workspace_snapshots.len(), 1, "{receipt:?}");
        assert_eq!(receipt.guid.to_string(), dataset.trim());
        assert_eq!((guid(&scene, target.as_str()), guid(&scene, &auto)), (dataset, taken));
        assert_eq!(scene.read(&target), "new");
        for (leaf, said) in [("auto", "generation 0"), ("last", "new")] {
            assert_eq!(read_in(&scene, &target, leaf), said);
            scene.pool.zfs(&["destroy", &format!("{target}@{leaf}")]);
        }
        assert_eq!(claims(&scene, &path), 1);
        scene.pool.zfs(&["destroy", "-r", &format!("{}@auto", scene.pool.name())]);
        fs::write(path.join("file"), "generation 0").unwrap();
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    scene.end();
}

/// What others have written besides is a conflict as ever; or overwritten, and kept in a snapshot.
#[test]
fn what_was_written_besides_is_a_conflict_or_kept() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for overwrite in [false, true] {
        let on_conflict = if overwrite { OnConflict::Overwrite } else { OnConflict::Fail };
        let begun = scene.zfs.transaction(&target).on_conflict(on_conflict).begin();
        let transaction = begun.unwrap();
        let theirs = format!("theirs-{overwrite}");
        fs::write(transaction.path().join("file"), "ours").unwrap();
        fs::write(path.join(&theirs), "before").unwrap();
        let auto = format!("{target}@auto-{overwrite}");
        scene.pool.zfs(&["snapshot", &auto]);
        fs::write(path.join(&theirs), "after").unwrap();
        let taken = guid(&scene, &auto);
        match transaction.commit() {
            Err(CommitError::Conflict { conflict, transaction }) if !overwrite => {
                assert_eq!(conflict, Conflict::Modified { target: target.clone() });
                // It is handed back whole: it can be carried over, and tried again.
                let id = transaction.detach().unwrap();
                let transaction = scene.zfs.resume(&target, id).unwrap();
                let error = transaction.commit().unwrap_err();
                let CommitError::Conflict { transaction, .. } = error else { panic!("{error}") };
                transaction.rollback().unwrap();
                assert_eq!(scene.read(&target), "generation 0");
            }
            Ok(receipt) if overwrite => {
                assert_eq!(receipt.strategy, Strategy::InPlace);
                assert_eq!(receipt.overridden, [Conflict::Modified { target: target.clone() }]);
                let kept = receipt.leftovers.iter().find(|left| left.keeps == Keeps::Changes);
                let (_, leaf) = kept.unwrap().name.split_once('@').unwrap();
                let snapshot = path.join(".zfs/snapshot").join(leaf);
                assert_eq!(fs::read_to_string(snapshot.join(&theirs)).unwrap(), "after");
                assert_eq!(
                    (scene.read(&target).as_str(), path.join(&theirs).exists()),
                    ("ours", false)
                );
            }
            other => panic!("{overwrite}: {other:?}"),
        }
        assert_eq!(guid(&scene, &auto), taken);
    }
    scene.pool.cleanup();
}

/// Which target a child process is to act on.
const CHILD: &str = "ZFS_TXN_TEST_GO_OVER";

/// No test by itself: ends as a crash does, when the commit had gone over.
#[test]
fn a_child_process_goes_over() {
    let Ok(target) = std::env::var(CHILD) else { return };
    let target: DatasetName = target.parse().unwrap();
    let zfs = zfs_txn::Zfs::open().unwrap();
    let mut transaction = zfs.transaction(&target).begin().unwrap();
    fs::write(transaction.path().join("file"), "new").unwrap();
    let auto = format!("{target}@auto");
    assert!(
        std::process::Command::new("zfs").args(["snapshot", &auto]).status().unwrap().success()
    );
    transaction.on_progress(|_| ControlFlow::Break(()));
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { transaction, .. } = error else { panic!("{error}") };
    std::mem::forget(transaction);
}

#[test]
fn a_crash_after_going_over_comes_to_the_old_content() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let test = "go_over::a_child_process_goes_over";
    let before = State::of(&scene, Identity::Kept);
    assert_passed(&again(test, CHILD, target.as_str()).output().unwrap());
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    let outcomes: Vec<Outcome> = recovery.finished.iter().map(|done| done.outcome).collect();
    assert_eq!((&outcomes[..], recovery.unfinished.len()), (&[Outcome::RolledBack][..], 0));
    scene.pool.zfs(&["destroy", &format!("{target}@auto")]);
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}
