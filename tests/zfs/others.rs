//! What others make of a workspace: snapshots, holds, clones and bookmarks; and what has tools leave it
//! alone.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use zfs_txn::{
    CommitError, DatasetName, Errno, Keeps, OnConflict, Outcome, Step, Strategy, Transaction,
};

use crate::support::{Identity, Scene, State, again, assert_passed, features};

const BOTH: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

fn workspace(transaction: &Transaction) -> String {
    format!("{}-txn-{}", transaction.target(), transaction.id())
}

fn begin(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    scene.zfs.transaction(target).strategy(strategy).begin().unwrap()
}

/// The snapshots and bookmarks of a dataset, and of what is below it.
fn made_of(scene: &Scene, dataset: &str) -> Vec<String> {
    let list = ["list", "-Ho", "name", "-t", "snapshot,bookmark", "-r", dataset];
    scene.pool.zfs(&list).lines().map(str::to_owned).collect()
}

/// What `file` says in a snapshot of the target.
fn read_in(scene: &Scene, target: &DatasetName, leaf: &str) -> String {
    let path = scene.mounted_at(target).unwrap();
    let snapshot = path.join(".zfs/snapshot").join(leaf);
    let said = fs::read_to_string(snapshot.join("file")).unwrap();
    // Mounted by the look at it.
    let _ = std::process::Command::new("umount").arg(&snapshot).status();
    said
}

/// Also the one that says that the pool has clones to be worked off, which takes a while.
fn all_features(scene: &Scene) -> BTreeMap<String, String> {
    let pool = scene.pool.name();
    let livelist = || scene.pool.zpool(&["get", "-Ho", "value", "feature@livelist", pool]);
    for _ in 0..100 {
        if livelist().trim() != "active" {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut features = features(pool);
    features.insert("livelist".to_owned(), livelist());
    features
}

/// A destroyed dataset doesn't give back what its bookmarks count for.
#[test]
fn features_are_given_back_however_a_transaction_ends() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let before = all_features(&scene);
    assert_eq!(before["feature@bookmark_v2"], "enabled", "{before:?}");
    let same = |what: &str| assert_eq!(all_features(&scene), before, "{what}");
    let bookmarked = |transaction: &Transaction| {
        fs::write(transaction.path().join("file"), "new").unwrap();
        let workspace = workspace(transaction);
        scene.pool.zfs(&["snapshot", &format!("{workspace}@mine")]);
        let bookmark = format!("{workspace}#mine");
        scene.pool.zfs(&["bookmark", &format!("{workspace}@mine"), &bookmark]);
        bookmark
    };
    begin(&scene, &target, Strategy::InPlace).commit().unwrap();
    same("a commit in place");
    for strategy in BOTH {
        let transaction = begin(&scene, &target, strategy);
        let bookmark = bookmarked(&transaction);
        let receipt = transaction.commit().unwrap();
        assert!(receipt.workspace_snapshots.contains(&bookmark), "{receipt:?}");
        assert_eq!(receipt.leftovers, []);
        same("a commit of what the caller has bookmarked");
        let transaction = begin(&scene, &target, strategy);
        bookmarked(&transaction);
        transaction.rollback().unwrap();
        same("a rollback of what the caller has bookmarked");
    }
    let mut transaction = begin(&scene, &target, Strategy::InPlace);
    transaction.on_progress(|_| ControlFlow::Break(()));
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { transaction, .. } = error else { panic!("{error}") };
    transaction.rollback().unwrap();
    same("a rollback of what was to be sent");
    scene.end();
}

/// A target that a child process is to leave a transaction on.
const CHILD: &str = "ZFS_TXN_TEST_STAGED";

/// No test by itself: ends as a crash does, with a change that was about to be sent.
#[test]
fn a_child_process_leaves_a_bookmark() {
    let Ok(target) = std::env::var(CHILD) else { return };
    let target: DatasetName = target.parse().unwrap();
    let zfs = zfs_txn::Zfs::open().unwrap();
    let transaction = zfs.transaction(&target).strategy(Strategy::InPlace).begin();
    let mut transaction = transaction.unwrap();
    transaction.on_progress(|_| ControlFlow::Break(()));
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { transaction, .. } = error else { panic!("{error}") };
    std::mem::forget(transaction);
}

#[test]
fn features_are_given_back_by_recovery() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let before = all_features(&scene);
    let test = "others::a_child_process_leaves_a_bookmark";
    assert_passed(&again(test, CHILD, target.as_str()).output().unwrap());
    assert_eq!(features(scene.pool.name())["feature@bookmark_v2"], "active");
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (1, 0), "{recovery:?}");
    assert_eq!(all_features(&scene), before);
    scene.end();
}

/// By `zfs snapshot -r` of the dataset above, in the middle of a transaction.
#[test]
fn no_snapshot_of_the_target_has_what_was_not_committed() {
    for strategy in BOTH {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let builder = scene.zfs.transaction(&target).strategy(strategy);
        let transaction = builder.on_conflict(OnConflict::Overwrite).snapshot("last").begin();
        let transaction = transaction.unwrap();
        let workspace = workspace(&transaction);
        fs::write(transaction.path().join("file"), "half").unwrap();
        scene.pool.zfs(&["snapshot", "-r", &format!("{}@auto", scene.pool.name())]);
        fs::write(transaction.path().join("file"), "whole").unwrap();
        let receipt = transaction.commit().unwrap();
        assert_eq!(receipt.workspace_snapshots, [format!("{workspace}@auto")]);
        let made = made_of(&scene, target.as_str());
        assert!(made.contains(&format!("{target}@last")), "{made:?}");
        assert_eq!(read_in(&scene, &target, "last"), "whole");
        // The genuine one stays.
        assert_eq!(read_in(&scene, &target, "auto"), "generation 0", "{strategy:?}: {made:?}");
        assert_eq!(scene.read(&target), "whole");
        scene.end();
    }
}

#[test]
fn snapshots_taken_in_a_new_datasets_workspace_do_not_come_along() {
    let scene = Scene::new();
    let target = scene.name("new");
    let transaction = scene.zfs.transaction(&target).snapshot("last").begin().unwrap();
    let workspace = workspace(&transaction);
    fs::write(transaction.path().join("file"), "half").unwrap();
    for leaf in ["one", "two"] {
        scene.pool.zfs(&["snapshot", &format!("{workspace}@{leaf}")]);
    }
    fs::write(transaction.path().join("file"), "whole").unwrap();
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.workspace_snapshots, ["one", "two"].map(|l| format!("{workspace}@{l}")));
    assert_eq!(made_of(&scene, target.as_str()), [format!("{target}@last")]);
    assert_eq!(read_in(&scene, &target, "last"), "whole");
    scene.end();
}

/// All or nothing: before anything is changed.
#[test]
fn a_snapshot_of_the_workspace_that_cannot_go_refuses_a_commit_by_promote() {
    let scene = Scene::new();
    let existing = scene.dataset("t", &[]);
    for target in [existing, scene.name("new")] {
        let transaction = scene.begin(&target);
        let workspace = workspace(&transaction);
        fs::write(transaction.path().join("file"), "new").unwrap();
        let (free, kept) = (format!("{workspace}@free"), format!("{workspace}@kept"));
        scene.pool.zfs(&["snapshot", &free]);
        scene.pool.zfs(&["snapshot", &kept]);
        let clone = format!("{}/clone", scene.pool.name());
        let mut transaction = transaction;
        for (keep, errno, release) in [
            (&["hold", "backup", &kept][..], Errno::BUSY, &["release", "backup", &kept][..]),
            (&["clone", &kept, &clone], Errno::EXIST, &["destroy", &clone]),
        ] {
            scene.pool.zfs(keep);
            let before = State::of(&scene, Identity::Kept);
            let error = transaction.commit().unwrap_err();
            let CommitError::Unchanged { error, transaction: back } = error else {
                panic!("{error}")
            };
            assert!(matches!(error.step, Step::Promote | Step::RenameIntoPlace), "{error:?}");
            assert_eq!(error.errno, errno, "{error}");
            let detail = error.detail.clone().unwrap();
            assert!(detail.contains(&kept) && !detail.contains(&free), "{error}");
            before.assert_same(&State::of(&scene, Identity::Kept));
            scene.pool.zfs(release);
            transaction = *back;
        }
        let receipt = transaction.commit().unwrap();
        assert_eq!(receipt.workspace_snapshots, [free, kept]);
        assert_eq!(made_of(&scene, target.as_str()), Vec::<String>::new());
        assert_eq!(scene.read(&target), "new");
    }
    scene.end();
}

/// What is held stays whole, with the workspace, and goes when it is released.
#[test]
fn a_held_snapshot_leaves_the_whole_workspace_until_a_sweep() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for commits in [true, false] {
        let transaction = begin(&scene, &target, Strategy::InPlace);
        let workspace = workspace(&transaction);
        fs::write(transaction.path().join("file"), "new").unwrap();
        let (free, held) = (format!("{workspace}@free"), format!("{workspace}@held"));
        scene.pool.zfs(&["snapshot", &free]);
        scene.pool.zfs(&["snapshot", &held]);
        scene.pool.zfs(&["hold", "backup", &held]);
        let left = match commits {
            true => transaction.commit().unwrap().leftovers,
            false => transaction.rollback().unwrap_err().left,
        };
        let of_workspace = left.iter().find(|leftover| leftover.name == workspace);
        let of_workspace = of_workspace.unwrap_or_else(|| panic!("{left:?}"));
        assert_eq!(of_workspace.keeps, Keeps::Nothing);
        assert!(of_workspace.reason.contains(&held), "{of_workspace:?}");
        assert!(of_workspace.reason.contains("zfs release"), "{of_workspace:?}");
        let made = made_of(&scene, &workspace);
        assert!(made.contains(&free) && made.contains(&held), "{made:?}");
        let swept = scene.zfs.sweep(&scene.name("")).unwrap();
        assert!(swept.finished.iter().all(|done| !done.leftovers.is_empty()), "{swept:?}");
        assert_eq!(made_of(&scene, &workspace), made);
        scene.pool.zfs(&["release", "backup", &held]);
        let swept = scene.zfs.sweep(&scene.name("")).unwrap();
        assert_eq!(swept.unfinished.len(), 0, "{swept:?}");
        let wanted = if commits { Outcome::Swept } else { Outcome::RolledBack };
        assert_eq!(swept.finished[0].outcome, wanted);
        assert_eq!(scene.read(&target), "new", "{commits}");
        assert_eq!(features(scene.pool.name())["feature@bookmark_v2"], "enabled");
    }
    scene.end();
}

/// The target's own values, and those that it inherits, are as before when it is committed.
#[test]
fn tools_leave_workspaces_alone_and_heed_the_target_as_before() {
    let scene = Scene::new();
    let own = ["-o", "com.sun:auto-snapshot=true", "-o", "syncoid:sync=one,two"];
    let target = scene.dataset("t", &[&own[..], &["-o", "autobackup:off=false"]].concat());
    let above = target.parent().unwrap();
    for inherited in ["autobackup:offsite=true", "com.sun:auto-snapshot:daily=true"] {
        scene.pool.zfs(&["set", inherited, above.as_str()]);
    }
    let wanted = [
        ("autobackup:offsite", "false"),
        ("com.sun:auto-snapshot", "false"),
        ("com.sun:auto-snapshot:daily", "false"),
        ("org.complete.simplesnap:exclude", "on"),
        ("org.znapzend:enabled", "off"),
        ("syncoid:sync", "false"),
    ];
    let check = |transaction: &Transaction| {
        let name: DatasetName = workspace(transaction).parse().unwrap();
        for (property, value) in wanted {
            let found = scene.property(&name, property);
            assert_eq!(found, (value.to_owned(), "local".to_owned()), "{name} {property}");
        }
    };
    for (strategy, identity) in
        [(Strategy::Promote, Identity::Replaced), (Strategy::InPlace, Identity::Kept)]
    {
        let before = State::of(&scene, identity);
        let transaction = begin(&scene, &target, strategy);
        check(&transaction);
        transaction.commit().unwrap();
        before.assert_same(&State::of(&scene, identity));
    }
    let transaction = scene.begin(&scene.name("new"));
    check(&transaction);
    transaction.commit().unwrap();
    for (property, _) in wanted {
        let (_, source) = scene.property(&scene.name("new"), property);
        assert!(source == "-" || source.starts_with("inherited"), "{property}: {source}");
    }
    scene.end();
}

/// A promote moves bookmarks, and OpenZFS counts each once more (`dsl_dataset_promote_sync`); a commit in place moves none.
#[test]
fn what_bookmarks_count_is_given_back_after_a_commit_in_place_alone() {
    for (strategy, feature) in [(Strategy::InPlace, "enabled"), (Strategy::Promote, "active")] {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let (snapshot, bookmark) = (format!("{target}@s"), format!("{target}#b"));
        scene.pool.zfs(&["snapshot", &snapshot]);
        scene.pool.zfs(&["bookmark", &snapshot, &bookmark]);
        let transaction = begin(&scene, &target, strategy);
        fs::write(transaction.path().join("new"), "generation 1").unwrap();
        transaction.commit().unwrap();
        scene.pool.zfs(&["destroy", &bookmark]);
        scene.pool.sync();
        assert_eq!(features(scene.pool.name())["feature@bookmark_v2"], feature, "{strategy:?}");
        scene.end();
    }
}
