//! States that begin would refuse, made after the commit has looked for them; and attempts after a
//! failed one.

use std::fs;
use std::process::Command;

use super::{Fail, Scene};
use crate::error::{CommitError, Conflict};
use crate::name::DatasetName;
use crate::receipt::Strategy;
use crate::refusal::Refusal;
use crate::txn::{Step, Transaction};

fn shell(script: &str) {
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

fn begin(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    scene.engine.set(&[]);
    let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
    fs::write(transaction.path().join("file"), "new").unwrap();
    transaction
}

fn conflict(error: CommitError) -> (Conflict, Transaction) {
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    (conflict, *transaction)
}

/// The promote hands the root to the workspace; it is handed back, and the key is loaded as before.
#[test]
fn a_key_of_its_own_just_before_the_promote_is_a_conflict_and_stays_loaded() {
    let scene = Scene::new();
    let (root, target) = (scene.pool.dataset("e"), scene.name("e/t"));
    let key = scene.pool.directory().join("key");
    fs::write(&key, "1".repeat(32)).unwrap();
    let options = format!("-o keyformat=raw -o keylocation=file://{}", key.display());
    shell(&format!("zfs create -o encryption=on {options} {root}; zfs create {target}"));
    let transaction = begin(&scene, &target, Strategy::Promote);
    let change = format!("zfs change-key {options} {target}");
    scene.engine.before("promote", move || shell(&change));
    let (conflict, transaction) = conflict(transaction.commit().unwrap_err());
    let refusal = Refusal::EncryptionRoot;
    assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
    let listed = ["get", "-Ho", "value", "encryptionroot,keystatus", target.as_str()];
    assert_eq!(scene.pool.zfs(&listed), format!("{target}\navailable\n"));
    shell(&format!("zfs change-key -i {target}"));
    assert!(transaction.commit().unwrap().leftovers.is_empty());
    assert_eq!(scene.pool.zfs(&listed), format!("{root}\navailable\n"));
    scene.pool.cleanup();
}

#[test]
fn readonly_just_before_the_target_is_renamed_is_a_conflict() {
    let scene = Scene::new();
    let target = scene.name("t");
    let transaction = begin(&scene, &target, Strategy::Promote);
    let set = format!("zfs set readonly=on {target}");
    scene.engine.before("rename", move || shell(&set));
    let (conflict, transaction) = conflict(transaction.commit().unwrap_err());
    let refusal = Refusal::ReadOnly;
    assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
    shell(&format!("zfs inherit readonly {target}"));
    assert!(transaction.commit().unwrap().leftovers.is_empty());
    scene.pool.cleanup();
}

/// For a receive that goes on, the kernel's answer is to be waited for; for one that stopped, not.
#[test]
fn a_receive_that_stopped_just_before_the_commits_own_is_a_conflict() {
    let scene = Scene::new();
    let (source, target) = (scene.pool.dataset("source"), scene.name("received"));
    let path = scene.pool.mountpoint().join("source/large");
    shell(&format!(
        "zfs create {source}; zfs snapshot {source}@1; zfs send {source}@1 | zfs receive {target}; \
         dd if=/dev/urandom of={} bs=1M count=8 status=none; zfs snapshot {source}@2",
        path.display()
    ));
    let transaction = begin(&scene, &target, Strategy::InPlace);
    let receive = format!(
        "zfs send -i @1 {source}@2 | head -c 4000000 | zfs receive -s {target}; [ $? -ne 0 ]"
    );
    scene.engine.before("transfer", move || shell(&receive));
    let (conflict, transaction) = conflict(transaction.commit().unwrap_err());
    let refusal = Refusal::PartlyReceived;
    assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
    shell(&format!("zfs receive -A {target}"));
    assert!(transaction.commit().unwrap().leftovers.is_empty());
    assert_eq!(scene.content(&target).as_deref(), Some("new"));
    scene.pool.cleanup();
}

/// A snapshot that could not be destroyed after a comparison would stand for the base in the next
/// attempt, and what was written before it would be lost.
#[test]
fn what_an_earlier_attempt_has_compared_does_not_count() {
    for strategy in [Strategy::Promote, Strategy::InPlace] {
        let scene = Scene::new();
        let target = scene.name("in-place");
        let transaction = begin(&scene, &target, strategy);
        let path = scene.pool.mountpoint().join("in-place/file");
        fs::write(&path, "theirs").unwrap();
        // The effects of a refused commit, up to the destroy of what was taken to compare.
        scene.engine.set(&[]);
        let (found, transaction) = conflict(transaction.commit().unwrap_err());
        assert_eq!(found, Conflict::Modified { target: target.clone() });
        let effects = scene.engine.seen();
        let at = effects.iter().position(|verb| *verb == "destroy").unwrap();
        // Tried again, and in vain, so that it is still there.
        scene.engine.set(&[(at, Fail::Before)]);
        let error = transaction.commit().unwrap_err();
        let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
        assert_eq!(error.step, Step::DestroyLook, "{error}");
        assert_eq!(scene.engine.sprung(), ["destroy"]);
        scene.engine.set(&[]);
        let (found, transaction) = conflict(transaction.commit().unwrap_err());
        assert_eq!(found, Conflict::Modified { target: target.clone() });
        scene.engine.set(&[(at, Fail::Before)]);
        let error = transaction.commit().unwrap_err();
        let CommitError::Unchanged { transaction, .. } = error else { panic!("{error}") };
        // Nor does a rollback leave it; and one that can't remove it leaves it to a sweep.
        scene.engine.set(&[(0, Fail::Before)]);
        let error = transaction.rollback().unwrap_err();
        assert_eq!(scene.engine.sprung(), ["destroy"]);
        assert!(error.left.iter().any(|left| left.name.ends_with("-look")), "{error}");
        scene.engine.set(&[]);
        let swept = scene.zfs.sweep(&target).unwrap();
        assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert!(!scene.state().contains("@txn-"));
        scene.pool.cleanup();
    }
}
