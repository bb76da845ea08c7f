//! Detached and interrupted transactions: what is listed, resumed, finished or left alone (I4, I5).

use std::fs;
use std::process::Command;

use zfs_txn::{
    BeginError, CommitError, Condition, Conflict, DatasetName, Outcome, ResumeError, TransactionId,
    Zfs,
};

use crate::support::{Identity, Scene, State, again, assert_passed, mounts_of};

/// Which target a child process is to act on, and how.
const CHILD: &str = "ZFS_TXN_TEST_CHILD";

/// As a crash leaves it: the process is gone without having undone anything.
pub fn abandon(scene: &Scene, target: &DatasetName, what: &str) -> TransactionId {
    let test = "recovery::a_child_process_leaves_a_transaction";
    let output = again(test, CHILD, &format!("{what} {target}")).output().unwrap();
    assert_passed(&output);
    let pending = scene.zfs.pending(&scene.name("")).unwrap();
    let ours = pending.iter().filter(|pending| pending.target.as_ref() == Some(target));
    ours.max_by_key(|pending| pending.begun).unwrap().id
}

/// No test by itself: what [`abandon`] runs.
#[test]
fn a_child_process_leaves_a_transaction() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (what, target) = order.split_once(' ').unwrap();
    let target: DatasetName = target.parse().unwrap();
    let transaction = Zfs::open().unwrap().transaction(&target).begin().unwrap();
    fs::write(transaction.path().join("file"), "theirs").unwrap();
    match what {
        "detach" => drop(transaction.detach().unwrap()),
        _ => std::mem::forget(transaction),
    }
}

fn the_only(scene: &Scene) -> zfs_txn::Pending {
    let mut pending = scene.zfs.pending(&scene.name("")).unwrap();
    assert_eq!(pending.len(), 1, "{pending:?}");
    pending.remove(0)
}

#[test]
fn a_detached_transaction_is_resumed_by_another_process_and_after_a_reboot() {
    for relative in ["t", "new"] {
        let scene = Scene::new();
        let target = match relative {
            "t" => scene.dataset("t", &[]),
            _ => scene.name("new"),
        };
        let id = abandon(&scene, &target, "detach");
        let pending = the_only(&scene);
        assert_eq!((pending.id, &pending.condition), (id, &Condition::Detached));
        assert!(pending.age().unwrap().as_secs() < 600, "{pending:?}");
        // Neither recovery nor another transaction touches it.
        let recovery = scene.zfs.recover(&scene.name("")).unwrap();
        assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0), "{recovery:?}");
        scene.begin(&target).rollback().unwrap();
        scene.pool.reimport();

        let transaction = scene.zfs.resume(&target, id).unwrap();
        let error = scene.zfs.resume(&target, id).unwrap_err();
        assert!(matches!(error, ResumeError::NotDetached { .. }), "{error}");
        let file = transaction.path().join("file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        fs::write(&file, "ours").unwrap();
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        assert_eq!(scene.read(&target), "ours");
        assert!(matches!(scene.zfs.resume(&target, id), Err(ResumeError::NotFound { .. })));
        scene.end();
    }
}

#[test]
fn a_resumed_transaction_rolls_back_to_nothing_and_still_meets_conflicts() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let before = State::of(&scene, Identity::Kept);
    let id = abandon(&scene, &target, "detach");
    scene.zfs.resume(&target, id).unwrap().rollback().unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    let id = abandon(&scene, &target, "detach");
    scene.pool.zfs(&["set", "compression=zle", target.as_str()]);
    let error = scene.zfs.resume(&target, id).unwrap().commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::SettingsChanged { .. }), "{conflict}");
    transaction.rollback().unwrap();
    scene.end();
}

/// I2 after a crash, by `recover` and by the next begin on the target.
#[test]
fn an_abandoned_transaction_is_undone_by_recovery_or_by_the_next_begin() {
    for relative in ["t", "new"] {
        let scene = Scene::new();
        let target = match relative {
            "t" => scene.dataset("t", &[]),
            _ => scene.name("new"),
        };
        let before = State::of(&scene, Identity::Kept);
        let id = abandon(&scene, &target, "forget");
        assert_eq!(the_only(&scene).condition, Condition::Interrupted);
        let recovery = scene.zfs.recover(&scene.name("")).unwrap();
        assert_eq!(recovery.finished.len(), 1, "{recovery:?}");
        let finished = &recovery.finished[0];
        assert_eq!((finished.id, finished.outcome), (id, Outcome::RolledBack));
        before.assert_same(&State::of(&scene, Identity::Kept));
        let again = scene.zfs.recover(&scene.name("")).unwrap();
        assert_eq!(again, zfs_txn::Recovery::default());

        abandon(&scene, &target, "forget");
        let transaction = scene.begin(&target);
        assert_eq!(the_only(&scene).id, transaction.id());
        transaction.rollback().unwrap();
        before.assert_same(&State::of(&scene, Identity::Kept));
        scene.end();
    }
}

#[test]
fn what_a_living_process_has_is_left_alone() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let pid = std::process::id();
    assert_eq!(the_only(&scene).condition, Condition::Open { pid });
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0), "{recovery:?}");
    fs::write(transaction.path().join("file"), "ours").unwrap();
    transaction.commit().unwrap();
    assert_eq!(scene.read(&target), "ours");
    scene.end();
}

/// I5: a record that came by send and receive is seen, and not acted on.
#[test]
fn a_copied_record_is_reported_and_never_acted_on() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let base = format!("{target}@txn-{}", transaction.id());
    let copy = scene.pool.dataset("copy");
    let command = format!("zfs send -R {base} | zfs receive -u {copy}");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    transaction.rollback().unwrap();
    let before = State::of(&scene, Identity::Kept);
    let pending = the_only(&scene);
    assert!(pending.carrier.starts_with(&copy), "{pending:?}");
    assert!(
        matches!(&pending.condition, Condition::Unreadable { reason } if reason.contains("receive"))
    );
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0), "{recovery:?}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.pool.cleanup();
}

/// A receive gives its snapshot the guid of the one that was sent: a backup within the pool, or a stream that
/// somebody has forged, has a record on a snapshot of the same guid and name.
#[test]
fn a_copy_within_the_pool_hides_no_record() {
    let scene = Scene::new();
    let (target, deep) = (scene.dataset("t", &[]), scene.dataset("deep", &[]));
    for (round, forged) in [None, Some("x"), Some("itself")].into_iter().enumerate() {
        let id = abandon(&scene, &target, "forget");
        let (base, property) = (format!("{target}@txn-{id}"), format!("zfs-txn:{id}"));
        // Looked at after the target, and before it.
        let copies = [format!("{deep}/copy-{round}"), scene.pool.dataset(&format!("copy-{round}"))];
        for copy in &copies {
            let command = format!("zfs send -R {base} | zfs receive -u {copy}");
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            let value = match forged {
                None => continue,
                Some("itself") => scene.pool.zfs(&["get", "-Ho", "value", &property, &base]),
                Some(value) => value.to_owned(),
            };
            let set = format!("{property}={}", value.trim());
            scene.pool.zfs(&["set", &set, &format!("{copy}@txn-{id}")]);
        }
        assert_eq!(scene.zfs.pending(&scene.name("")).unwrap().len(), 3);
        let recovery = scene.zfs.recover(&scene.name("")).unwrap();
        // The same record beside the target comes to nothing, if what it is about has gone before.
        let mut ours = recovery.finished.iter().filter(|finished| finished.target == target);
        assert!(ours.all(|it| it.outcome == Outcome::RolledBack), "{recovery:?}");
        for gone in [&base, &format!("{target}-txn-{id}")] {
            assert!(scene.pool.try_zfs(&["list", gone]).is_err(), "{gone}: {recovery:?}");
        }
        for copy in copies {
            scene.pool.zfs(&["list", &copy]);
            scene.pool.zfs(&["destroy", "-r", &copy]);
        }
    }
    scene.end();
}

/// Where others' commits have moved a base, it is looked for by its guid: copies beside the target have it, too.
#[test]
fn a_base_that_has_moved_is_not_taken_for_a_copy_of_it() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let (winner, loser) = (scene.begin(&target), scene.begin(&target));
    fs::write(winner.path().join("file"), "new").unwrap();
    let leaf = format!("txn-{}", loser.id());
    let copies: Vec<String> = (0..6).map(|n| scene.pool.dataset(&format!("copy-{n}"))).collect();
    for copy in &copies {
        let command = format!("zfs send {target}@{leaf} | zfs receive -u {copy}");
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }
    // The loser's workspace keeps the predecessor, which has the loser's base by now.
    let receipt = winner.commit().unwrap();
    assert!(receipt.leftovers[0].name.contains("-old-"), "{receipt:?}");
    loser.rollback().unwrap();
    assert_eq!(scene.zfs.sweep(&scene.name("")).unwrap().finished.len(), 1);
    for copy in &copies {
        scene.pool.zfs(&["list", &format!("{copy}@{leaf}")]);
        scene.pool.zfs(&["destroy", "-r", copy]);
    }
    scene.end();
}

/// I5: an init's record is on the dataset above, and comes with it even to the same name.
#[test]
fn a_copied_record_above_a_target_is_reported_and_never_acted_on() {
    let scene = Scene::new();
    let above = scene.dataset("above", &[]);
    let target = scene.name("above/new");
    let id = abandon(&scene, &target, "forget");
    let stream = scene.pool.directory().join("stream");
    let (snapshot, workspace) = (format!("{above}@s"), format!("{target}-txn-{id}"));
    scene.pool.zfs(&["snapshot", "-r", &snapshot]);
    let send = format!("zfs send -R {snapshot} > {}", stream.display());
    assert!(Command::new("sh").args(["-c", &send]).status().unwrap().success());
    assert_eq!(scene.zfs.recover(&above).unwrap().finished.len(), 1);
    scene.pool.zfs(&["destroy", "-r", above.as_str()]);
    let receive = format!("zfs receive -u {above} < {}", stream.display());
    assert!(Command::new("sh").args(["-c", &receive]).status().unwrap().success());

    // All names, the workspace's and its mark included, are those of the record.
    assert!(scene.pool.zfs(&["list", "-Ho", "name", "-r", above.as_str()]).contains(&workspace));
    let before = State::of(&scene, Identity::Kept);
    let pending = the_only(&scene);
    assert_eq!((pending.id, pending.carrier.as_str()), (id, above.as_str()));
    let copied = matches!(&pending.condition, Condition::Unreadable { reason } if reason.contains("receive"));
    assert!(copied, "{pending:?}");
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0), "{recovery:?}");
    let error = scene.zfs.resume(&target, id).unwrap_err();
    assert!(matches!(error, ResumeError::NotFound { .. }), "{error}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    // It is nobody's, and in nobody's way.
    scene.begin(&target).rollback().unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.publish(&target, "ours");
    assert_eq!(scene.read(&target), "ours");
    assert_eq!(the_only(&scene).id, id);
    scene.pool.zfs(&["list", &workspace]);
    scene.pool.cleanup();
}

/// A clone of a workspace inherits no record, and a snapshot of it none of its own.
#[test]
fn a_clone_of_a_workspace_has_no_record() {
    let scene = Scene::new();
    let target = scene.name("new");
    let transaction = scene.begin(&target);
    let workspace = format!("{target}-txn-{}", transaction.id());
    let (snapshot, clone) = (format!("{workspace}@s"), scene.pool.dataset("clone"));
    scene.pool.zfs(&["snapshot", &snapshot]);
    scene.pool.zfs(&["clone", &snapshot, &clone]);
    assert_eq!(the_only(&scene).id, transaction.id());
    // The clone keeps the workspace from being destroyed, and is not touched.
    let error = transaction.rollback().unwrap_err();
    assert!(!error.left.is_empty(), "{error}");
    assert_eq!(the_only(&scene).condition, Condition::Leftover);
    scene.pool.zfs(&["destroy", &clone]);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");
    scene.end();
}

#[test]
fn a_damaged_record_and_one_of_a_later_version_are_not_acted_on() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let id = abandon(&scene, &target, "forget");
    let (base, property) = (format!("{target}@txn-{id}"), format!("zfs-txn:{id}"));
    let value = scene.pool.zfs(&["get", "-Ho", "value", &property, &base]);
    for damaged in ["1;nonsense", &value.trim()[..40], ""] {
        scene.pool.zfs(&["set", &format!("{property}={damaged}"), &base]);
        let before = State::of(&scene, Identity::Kept);
        assert!(matches!(the_only(&scene).condition, Condition::Unreadable { .. }));
        let recovery = scene.zfs.recover(&scene.name("")).unwrap();
        assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0), "{recovery:?}");
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    // Put right, it is.
    scene.pool.zfs(&["set", &format!("{property}={}", value.trim()), &base]);
    assert_eq!(scene.zfs.recover(&scene.name("")).unwrap().finished.len(), 1);
    scene.end();
}

/// A foreign dataset that stands where recovery would need the name is not touched.
#[test]
fn a_foreign_dataset_under_a_workspaces_name_is_not_recovered() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let id = abandon(&scene, &target, "forget");
    let workspace = format!("{target}-txn-{id}");
    for mount in mounts_of(&workspace) {
        assert!(Command::new("umount").arg(&mount).status().unwrap().success());
        fs::remove_dir(mount).unwrap();
    }
    scene.pool.zfs(&["destroy", &workspace]);
    scene.pool.zfs(&["create", &workspace]);
    let file = scene.mounted_at(&workspace.parse().unwrap()).unwrap().join("precious");
    fs::write(&file, "x").unwrap();
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!(recovery.finished.len(), 1, "{recovery:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    scene.pool.cleanup();
}

/// Renames of the target, or of a dataset above it, don't keep recovery from finding what there is.
#[test]
fn an_abandoned_transaction_is_found_under_another_name() {
    let scene = Scene::new();
    scene.pool.zfs(&["create", &scene.pool.dataset("a")]);
    let target = scene.dataset("a/t", &[]);
    // The command refuses to rename what it takes for a container's.
    let open_gate = |target: &DatasetName, id| {
        scene.pool.zfs(&["inherit", "zoned", &format!("{target}-txn-{id}")]);
    };
    let id = abandon(&scene, &target, "forget");
    open_gate(&target, id);
    scene.pool.zfs(&["rename", &scene.pool.dataset("a"), &scene.pool.dataset("b")]);
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!(recovery.finished.len(), 1, "{recovery:?}");

    let target = scene.name("b/t");
    abandon(&scene, &target, "forget");
    scene.pool.zfs(&["rename", target.as_str(), &scene.pool.dataset("b/x")]);
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!(recovery.finished.len(), 1, "{recovery:?}");

    let target = scene.name("b/x");
    abandon(&scene, &target, "forget");
    scene.pool.zfs(&["rename", target.as_str(), &scene.pool.dataset("far")]);
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!(recovery.finished.len(), 1, "{recovery:?}");
    scene.end();
}

/// A base that somebody wants to destroy is kept by the workspace, which is a clone of it.
#[test]
fn a_base_is_not_destroyed_under_a_transaction() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let base = format!("{target}@txn-{}", transaction.id());
    assert!(scene.pool.try_zfs(&["destroy", &base]).is_err());
    transaction.commit().unwrap();
    scene.end();
}

#[test]
fn records_outside_a_confinement_are_not_looked_for() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let confined = Zfs::confined_to([scene.name("elsewhere")]).unwrap();
    assert!(confined.pending(&scene.name("")).is_err());
    assert!(confined.recover(&target).is_err());
    assert!(confined.resume(&target, transaction.id()).is_err());
    transaction.rollback().unwrap();
    scene.end();
}

/// I7: what lies outside is named, and left as it is, by recovery and by a begin beside it.
#[test]
fn a_confined_handle_does_not_finish_what_has_a_name_outside() {
    let scene = Scene::new();
    let inside = scene.dataset("in", &[]);
    let confined = Zfs::confined_to([&inside]).unwrap();
    // Of a transaction on the dataset itself, the workspace is beside it.
    let on_the_root = abandon(&scene, &inside, "forget");
    // Of one whose target has come here from elsewhere, the workspace has stayed.
    let elsewhere = scene.dataset("moved", &[]);
    let moved_here = abandon(&scene, &elsewhere, "forget");
    let here = scene.name("in/moved");
    scene.pool.zfs(&["rename", elsewhere.as_str(), here.as_str()]);

    let before = State::of(&scene, Identity::Kept);
    let recovery = confined.recover(&inside).unwrap();
    assert_eq!((recovery.finished.len(), recovery.untouched.len()), (0, 0), "{recovery:?}");
    let mut named: Vec<_> = recovery.unfinished.iter().map(|one| one.pending.id).collect();
    named.sort();
    let mut expected = [on_the_root, moved_here];
    expected.sort();
    assert_eq!(named, expected, "{recovery:?}");
    for unfinished in &recovery.unfinished {
        assert!(unfinished.reason.contains("confined"), "{unfinished:?}");
        assert_eq!(unfinished.pending.condition, Condition::Interrupted);
    }
    before.assert_same(&State::of(&scene, Identity::Kept));
    confined.transaction(&here).begin().unwrap().rollback().unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    // Who may, does.
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (2, 0), "{recovery:?}");
    scene.end();
}

/// Two processes that recover at once don't harm each other.
#[test]
fn eight_recoveries_at_once_come_to_the_same() {
    let scene = Scene::new();
    let targets: Vec<DatasetName> =
        ["a", "b", "c"].iter().map(|name| scene.dataset(name, &[])).collect();
    let before = State::of(&scene, Identity::Kept);
    for target in &targets {
        abandon(&scene, target, "forget");
    }
    let pool = scene.name("");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Zfs::open().unwrap().recover(&pool).unwrap());
        }
    });
    assert!(scene.zfs.pending(&pool).unwrap().is_empty());
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

/// A transaction in the middle of its commit, whose process lives, keeps others from beginning.
#[test]
fn an_unreadable_record_of_a_missing_target_refuses_begin() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let id = abandon(&scene, &target, "forget");
    let (base, property) = (format!("{target}@txn-{id}"), format!("zfs-txn:{id}"));
    scene.pool.zfs(&["set", &format!("{property}=2;nothing"), &base]);
    // As between two renames: the target is not there, what was made from it is.
    scene.pool.zfs(&["rename", target.as_str(), &format!("{target}-old-{id}")]);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(matches!(error, BeginError::Unfinished { .. }), "{error}");
    scene.pool.cleanup();
}
