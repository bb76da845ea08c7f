//! Rollback, drop and panic: the pool is as before begin (I2).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use zfs_txn::{DatasetName, Transaction};

use crate::support::{Identity, Scene, State};

/// Begins a transaction of each kind, writes, ends it with `end`, and compares the whole pool.
fn leaves_nothing(end: impl Fn(Transaction)) {
    let scene = Scene::new();
    let (new, existing) = (scene.name("new"), scene.dataset("existing", &[]));
    scene.pool.zfs(&["snapshot", &format!("{existing}@kept")]);
    let before = State::of(&scene, Identity::Kept);
    for target in [&new, &existing] {
        let private = write_in(&scene, target, &end);
        assert!(!private.exists(), "{} is left", private.display());
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    scene.end();
}

fn write_in(scene: &Scene, target: &DatasetName, end: impl Fn(Transaction)) -> PathBuf {
    let transaction = scene.zfs.transaction(target).snapshot("final").begin().unwrap();
    let private = transaction.path().to_owned();
    fs::write(private.join("file"), "never seen").unwrap();
    end(transaction);
    private
}

#[test]
fn rollback_of_both_kinds_leaves_nothing() {
    leaves_nothing(|transaction| transaction.rollback().unwrap());
}

#[test]
fn drop_of_both_kinds_leaves_nothing() {
    leaves_nothing(drop);
}

#[test]
fn drop_while_panicking_leaves_nothing() {
    leaves_nothing(|transaction| {
        let result = catch_unwind(AssertUnwindSafe(move || {
            let _held = transaction;
            panic!("on purpose");
        }));
        assert!(result.is_err());
    });
}

#[test]
fn a_transaction_ends_well_on_another_thread() {
    leaves_nothing(|transaction| {
        std::thread::spawn(move || transaction.rollback().unwrap()).join().unwrap();
    });
}

#[test]
fn a_rollback_that_finds_the_workspace_in_use_says_what_is_left_and_touches_no_target() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let open = fs::File::create(transaction.path().join("open")).unwrap();
    let error = transaction.rollback().unwrap_err();
    let names: Vec<&str> = error.left.iter().map(|leftover| leftover.name.as_str()).collect();
    let id = error.id;
    assert_eq!(names, [format!("{target}-txn-{id}"), format!("{target}@txn-{id}")]);
    assert!(error.to_string().contains("close files"), "{error:#?}");
    assert_eq!(scene.read(&target), "generation 0");
    drop(open);
    for name in names {
        scene.pool.zfs(&["destroy", name]);
    }
    scene.end();
}

/// I5: a dataset that merely has the workspace's name is not this transaction's to destroy.
#[test]
fn a_foreign_dataset_under_the_workspaces_name_is_left_alone() {
    let scene = Scene::new();
    let target = scene.name("t");
    let transaction = scene.begin(&target);
    let workspace = format!("{target}-txn-{}", transaction.id());
    // The command refuses to rename what it takes for a container's.
    scene.pool.zfs(&["inherit", "zoned", &workspace]);
    scene.pool.zfs(&["rename", "-u", &workspace, &format!("{target}-elsewhere")]);
    scene.pool.zfs(&["create", "-u", &workspace]);
    let error = transaction.rollback().unwrap_err();
    assert!(error.to_string().contains("left alone"), "{error}");
    assert_eq!(scene.pool.zfs(&["list", "-Ho", "name", &workspace]).trim(), workspace);
    scene.pool.cleanup();
}

/// What can't be removed is found by the sweep, and with it the parents that were made for it.
#[test]
fn what_a_rollback_has_left_below_new_parents_is_swept() {
    let scene = Scene::new();
    let target = scene.name("one/two/new");
    let before = State::of(&scene, Identity::Kept);
    let transaction = scene.zfs.transaction(&target).create_parents().begin().unwrap();
    let path = transaction.path().join("file");
    fs::write(&path, "x").unwrap();
    let held = fs::File::open(&path).unwrap();
    transaction.rollback().unwrap_err();
    drop(held);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");
    assert!(swept.finished[0].leftovers.is_empty(), "{swept:?}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}
