//! States that begin would refuse, made while a transaction is open: the commit meets them all, and what
//! it doesn't mind is as it was afterwards.

use std::fs;
use std::process::Command;

use zfs_txn::{
    BeginError, CommitError, Conflict, DatasetName, Errno, OnConflict, Refusal, ResumeError, Step,
    Strategy, Transaction,
};

use crate::support::Scene;

const BOTH: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

fn begin(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    transaction
}

fn begin_overwriting(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    let builder = scene.zfs.transaction(target).strategy(strategy);
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    transaction
}

/// The commit is refused for this, and the transaction handed back.
fn refused(transaction: Transaction, target: &DatasetName, refusal: Refusal) -> Transaction {
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
    *transaction
}

fn commit(scene: &Scene, transaction: Transaction) {
    let target = transaction.target().clone();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(scene.read(&target), "generation 1");
}

fn shell(script: &str) {
    let output = Command::new("bash").args(["-o", "pipefail", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// An encrypted dataset `e`, and options for another key.
fn encrypted(scene: &Scene) -> (DatasetName, [String; 2]) {
    let key = |name: &str, text: &str| {
        let path = scene.pool.directory().join(name);
        fs::write(&path, text).unwrap();
        format!("keylocation=file://{}", path.display())
    };
    let (one, other) = (key("one", &"1".repeat(32)), key("other", &"2".repeat(32)));
    let root = scene.dataset("e", &["-o", "encryption=on", "-o", "keyformat=raw", "-o", &one]);
    (root, ["keyformat=raw".to_owned(), other])
}

fn change_key(scene: &Scene, dataset: &DatasetName, [format, location]: &[String; 2]) {
    scene.pool.zfs(&["change-key", "-o", format, "-o", location, dataset.as_str()]);
}

/// The key that a target has got meanwhile would be unloaded by a promote.
#[test]
fn a_key_of_its_own_is_a_conflict_by_promote_and_none_in_place() {
    let scene = Scene::new();
    let (root, new) = encrypted(&scene);
    let target = scene.dataset("e/t", &[]);
    let transaction = begin_overwriting(&scene, &target, Strategy::Promote);
    change_key(&scene, &target, &new);
    let transaction = refused(transaction, &target, Refusal::EncryptionRoot);
    assert_eq!(scene.property(&target, "keystatus").0, "available");
    scene.pool.zfs(&["change-key", "-i", target.as_str()]);
    commit(&scene, transaction);
    assert_eq!(scene.property(&target, "encryptionroot").0, root.as_str());

    for own in [true, false] {
        let transaction = begin(&scene, &target, Strategy::InPlace);
        match own {
            true => change_key(&scene, &target, &new),
            false => drop(scene.pool.zfs(&["change-key", "-i", target.as_str()])),
        }
        commit(&scene, transaction);
        let expected = if own { &target } else { &root };
        assert_eq!(scene.property(&target, "encryptionroot").0, expected.as_str());
        assert_eq!(scene.property(&target, "keystatus").0, "available");
    }
    scene.end();
}

/// Workspace and target get another encryption root together, whose key is loaded.
#[test]
fn another_key_of_a_dataset_above_is_no_conflict() {
    for strategy in BOTH {
        let scene = Scene::new();
        let (_, new) = encrypted(&scene);
        let middle = scene.dataset("e/middle", &[]);
        let target = scene.dataset("e/middle/t", &[]);
        let transaction = begin(&scene, &target, strategy);
        change_key(&scene, &middle, &new);
        commit(&scene, transaction);
        assert_eq!(scene.property(&target, "encryptionroot").0, middle.as_str());
        let transaction = begin(&scene, &target, strategy);
        scene.pool.zfs(&["change-key", "-i", middle.as_str()]);
        commit(&scene, transaction);
        assert_eq!(scene.property(&target, "keystatus").0, "available");
        scene.pool.zfs(&["unmount", target.as_str()]);
        scene.pool.zfs(&["mount", target.as_str()]);
        scene.end();
    }
}

/// A key can't be unloaded as long as the workspace is mounted. Of a detached one it can, and nothing is
/// resumed then.
#[test]
fn a_key_that_was_unloaded_while_a_transaction_was_detached_is_said() {
    for strategy in BOTH {
        let scene = Scene::new();
        let (root, _) = encrypted(&scene);
        let target = scene.dataset("e/t", &[]);
        let transaction = begin(&scene, &target, strategy);
        // `zfs unmount` would try the workspace as well.
        for name in [&target, &root] {
            let path = scene.mounted_at(name).unwrap();
            assert!(Command::new("umount").arg(path).status().unwrap().success());
        }
        assert!(scene.pool.try_zfs(&["unload-key", root.as_str()]).is_err());
        let id = transaction.detach().unwrap();
        scene.pool.zfs(&["unload-key", root.as_str()]);
        let error = scene.zfs.resume(&target, id).unwrap_err();
        let ResumeError::Failed { error } = error else { panic!("{error}") };
        assert_eq!(error.step, Step::MountWorkspace, "{error}");
        scene.pool.zfs(&["load-key", root.as_str()]);
        for name in [&root, &target] {
            scene.pool.zfs(&["mount", name.as_str()]);
        }
        commit(&scene, scene.zfs.resume(&target, id).unwrap());
        scene.end();
    }
}

#[test]
fn readonly_own_or_inherited_is_a_conflict_that_nothing_overrides() {
    for strategy in BOTH {
        let scene = Scene::new();
        let parent = scene.dataset("p", &[]);
        let target = scene.dataset("p/t", &[]);
        for on in [&target, &parent] {
            let transaction = begin_overwriting(&scene, &target, strategy);
            scene.pool.zfs(&["set", "readonly=on", on.as_str()]);
            let transaction = refused(transaction, &target, Refusal::ReadOnly);
            assert_eq!(scene.property(&target, "readonly").0, "on");
            assert_eq!(scene.read(&target), "generation 0");
            scene.pool.zfs(&["inherit", "readonly", on.as_str()]);
            commit(&scene, transaction);
            fs::write(scene.mounted_at(&target).unwrap().join("file"), "generation 0").unwrap();
        }
        scene.end();
    }
}

/// The fence of an attempt before doesn't hide it, and isn't taken for the owner of it.
#[test]
fn readonly_after_an_attempt_with_a_fence_is_a_conflict_and_stays() {
    for strategy in BOTH {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let transaction = scene.zfs.transaction(&target).strategy(strategy).fence().begin();
        let other = scene.mounted_at(&target).unwrap().join("other");
        fs::write(&other, "theirs").unwrap();
        let error = transaction.unwrap().commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert_eq!(conflict, Conflict::Modified { target: target.clone() });
        assert_eq!(scene.property(&target, "readonly").0, "off");
        fs::remove_file(other).unwrap();
        scene.pool.zfs(&["set", "readonly=on", target.as_str()]);
        let transaction = refused(*transaction, &target, Refusal::ReadOnly);
        assert_eq!(scene.property(&target, "readonly"), ("on".into(), "local".into()));
        drop(transaction);
        assert_eq!(scene.property(&target, "readonly"), ("on".into(), "local".into()));
        scene.end();
    }
}

#[test]
fn a_parent_that_is_readonly_by_now_is_a_conflict_of_an_init() {
    let scene = Scene::new();
    let parent = scene.dataset("p", &[]);
    let target = scene.name("p/new");
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    scene.pool.zfs(&["set", "readonly=on", parent.as_str()]);
    let transaction = refused(transaction, &parent, Refusal::ReadOnly);
    scene.pool.zfs(&["set", "readonly=off", parent.as_str()]);
    commit(&scene, transaction);
    scene.end();
}

/// By promote, the end of the commit would take a container's dataset away from it.
#[test]
fn a_target_that_was_given_to_a_zone_is_a_conflict_and_stays_there() {
    for strategy in BOTH {
        let scene = Scene::new();
        let own = format!("mountpoint={}", scene.pool.directory().join("own").display());
        let target = scene.dataset("t", &["-o", &own]);
        let transaction = begin_overwriting(&scene, &target, strategy);
        scene.pool.zfs(&["set", "zoned=on", target.as_str()]);
        let transaction = refused(transaction, &target, Refusal::Zoned);
        drop(transaction);
        assert_eq!(scene.property(&target, "zoned"), ("on".into(), "local".into()));
        scene.end();
    }
}

/// A target that was received, and how to begin another receive into it that stops on its way.
fn received(scene: &Scene) -> (DatasetName, impl Fn() + use<>) {
    let source = scene.dataset("source", &[]);
    let path = scene.mounted_at(&source).unwrap();
    let target = scene.name("t");
    shell(&format!("zfs snapshot {source}@1; zfs send {source}@1 | zfs receive {target}"));
    shell(&format!(
        "dd if=/dev/urandom of={}/large bs=1M count=8 status=none; zfs snapshot {source}@2",
        path.display()
    ));
    let into = target.clone();
    let receive = move || {
        let sent = format!("zfs send -i @1 {source}@2 | head -c 4000000");
        shell(&format!("{sent} | zfs receive -s {into}; [ $? -ne 0 ]"));
        let got = Command::new("zfs")
            .args(["get", "-Ho", "value", "receive_resume_token", into.as_str()])
            .output()
            .unwrap();
        assert!(got.stdout.len() > 10, "there is no token: {got:?}");
    };
    (target, receive)
}

#[test]
fn a_target_that_is_partly_received_is_refused_at_begin() {
    let scene = Scene::new();
    let (target, receive) = received(&scene);
    receive();
    for strategy in BOTH {
        let error = scene.zfs.transaction(&target).strategy(strategy).begin().unwrap_err();
        assert!(matches!(&error, BeginError::PartlyReceived { target: it } if *it == target));
        assert!(error.to_string().contains("zfs receive -A"), "{error}");
    }
    // A dataset of which nothing but a part was received yet.
    let new = scene.name("new");
    let source = scene.name("source");
    shell(&format!("zfs send {source}@2 | head -c 4000000 | zfs receive -s {new}; [ $? -ne 0 ]"));
    let error = scene.zfs.transaction(&new).begin().unwrap_err();
    assert!(matches!(error, BeginError::PartlyReceived { .. }), "{error}");
    scene.pool.zfs(&["receive", "-A", target.as_str()]);
    for strategy in BOTH {
        commit(&scene, begin(&scene, &target, strategy));
    }
    scene.end();
}

/// The token neither goes to the predecessor, nor is waited for.
#[test]
fn a_receive_that_stopped_on_its_way_is_a_conflict() {
    for strategy in BOTH {
        let scene = Scene::new();
        let (target, receive) = received(&scene);
        // What was received so far is a clone of the newest snapshot, which is the base: a rollback has to
        // leave that, and names it.
        let transaction = scene.zfs.transaction(&target).strategy(strategy).begin().unwrap();
        receive();
        let error = transaction.rollback().unwrap_err();
        let [left] = &error.left[..] else { panic!("{error}") };
        assert!(left.name.contains("@txn-"), "{error}");
        scene.pool.zfs(&["receive", "-A", target.as_str()]);
        let swept = scene.zfs.sweep(&target).unwrap();
        assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");

        let transaction = begin_overwriting(&scene, &target, strategy);
        receive();
        let transaction = refused(transaction, &target, Refusal::PartlyReceived);
        scene.pool.zfs(&["receive", "-A", target.as_str()]);
        commit(&scene, transaction);
        scene.end();
    }
}

/// The kernel would refuse to receive a snapshot of that name.
#[test]
fn the_final_snapshots_name_taken_by_somebody_is_a_conflict_in_place() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace).snapshot("final");
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    let name = target.snapshot("final").unwrap();
    scene.pool.zfs(&["snapshot", name.as_str()]);
    let refusal = Refusal::SnapshotExists { name: name.clone() };
    let transaction = refused(transaction, &target, refusal);
    scene.pool.zfs(&["destroy", name.as_str()]);
    commit(&scene, transaction);
    scene.end();
}

/// Children and properties of a target that stays, and features of the pool, which are only ever turned
/// on.
#[test]
fn what_a_commit_does_not_mind_is_as_it_was() {
    let scene = Scene::with_options(&["-o", "feature@large_dnode=disabled"]);
    let target = scene.dataset("t", &[]);
    let transaction = begin(&scene, &target, Strategy::InPlace);
    // Mounted elsewhere: a mount point made in the target would be a write.
    let child = format!("mountpoint={}", scene.pool.directory().join("child").display());
    scene.dataset("t/child", &["-o", &child]);
    scene.pool.zfs(&["set", "compression=gzip", target.as_str()]);
    scene.pool.zpool(&["set", "feature@large_dnode=enabled", scene.pool.name()]);
    commit(&scene, transaction);
    assert_eq!(scene.property(&target, "compression"), ("gzip".into(), "local".into()));
    assert!(scene.mounted_at(&scene.name("t/child")).is_some());
    scene.end();
}

/// A commit that overrides a conflict keeps what is overridden; what an earlier attempt met is forgotten.
#[test]
fn a_conflict_that_is_gone_keeps_nothing() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = begin_overwriting(&scene, &target, Strategy::Promote);
    scene.pool.zfs(&["set", "com.example:note=theirs", target.as_str()]);
    // That is overridden; and then this has the promote refused.
    let held = format!("{target}-txn-{}@s", transaction.id());
    scene.pool.zfs(&["snapshot", &held]);
    scene.pool.zfs(&["hold", "theirs", &held]);
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
    assert_eq!((error.step, error.errno), (Step::Promote, Errno::BUSY));
    scene.pool.zfs(&["release", "theirs", &held]);
    scene.pool.zfs(&["inherit", "com.example:note", target.as_str()]);
    let receipt = transaction.commit().unwrap();
    assert!(receipt.overridden.is_empty() && receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(scene.read(&target), "generation 1");
    scene.end();
}
