//! Commits of both kinds: what they change, and what they leave alone (I2, I3, I6, I8).

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use zfs_txn::{CommitError, Conflict, Keeps, Kind, OnConflict, Ownership, Snapshot, Strategy, Zfs};

use crate::support::{Identity, Scene, State};

#[test]
fn init_commit_creates_the_target_with_content_mount_point_and_owner() {
    let scene = Scene::new();
    let (target, path) = (scene.name("new"), scene.pool.directory().join("srv"));
    let transaction = scene
        .zfs
        .transaction(&target)
        .mountpoint(&path)
        .ownership(Ownership::new().user(1234).group(4321).mode(0o2750))
        .snapshot("first")
        .begin()
        .unwrap();
    assert_eq!(transaction.kind(), Kind::Init);
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    assert!(scene.pool.try_zfs(&["list", target.as_str()]).is_err(), "visible before commit");
    let private = transaction.path().to_owned();
    let receipt = transaction.commit().unwrap();

    assert_eq!(receipt.mounted, std::slice::from_ref(&path));
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(receipt.guid.to_string(), scene.property(&target, "guid").0);
    let snapshot = receipt.final_snapshot.unwrap();
    assert_eq!(snapshot.name.as_str(), format!("{target}@first"));
    assert_snapshot(&scene, &snapshot, "generation 1", (1234, 4321, 0o2750));
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "generation 1");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 4321, 0o2750));
    let expected = (path.display().to_string(), "local".to_owned());
    assert_eq!(scene.property(&target, "mountpoint"), expected);
    assert_eq!(scene.property(&target, "canmount").1, "default");
    assert!(!private.exists());
    scene.end();
}

/// A final snapshot has the content, and the owner and mode of its root, that readers get.
fn assert_snapshot(scene: &Scene, snapshot: &Snapshot, content: &str, owner: (u32, u32, u32)) {
    let guid = scene.pool.zfs(&["get", "-Hpo", "value", "guid", snapshot.name.as_str()]);
    assert_eq!(guid.trim(), snapshot.guid.to_string());
    let look = scene.pool.directory().join("look");
    fs::create_dir_all(&look).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "zfs", snapshot.name.as_str()]).arg(&look);
    assert!(mount.status().unwrap().success());
    assert_eq!(fs::read_to_string(look.join("file")).unwrap(), content);
    let meta = fs::metadata(&look).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), owner);
    assert!(Command::new("umount").arg(&look).status().unwrap().success());
}

#[test]
fn an_update_commit_takes_the_final_snapshot_of_what_readers_get() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let ownership = Ownership::new().user(7).group(8).mode(0o750);
    let transaction =
        scene.zfs.transaction(&target).ownership(ownership).snapshot("final").begin().unwrap();
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let receipt = transaction.commit().unwrap();
    let snapshot = receipt.final_snapshot.unwrap();
    assert_eq!(snapshot.name.as_str(), format!("{target}@final"));
    assert_snapshot(&scene, &snapshot, "ours", (7, 8, 0o750));
    let base = receipt.base.unwrap();
    assert_eq!(base.name.dataset(), target);
    assert_ne!(base.guid, snapshot.guid);
    scene.end();
}

#[test]
fn init_commit_inherits_the_mount_point_and_creates_parents_when_told() {
    let scene = Scene::new();
    let target = scene.name("a/b/c");
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(error.to_string().contains("create_parents"), "{error}");
    let before = State::of(&scene, Identity::Kept);
    scene.zfs.transaction(&target).create_parents().begin().unwrap().rollback().unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));

    let transaction = scene.zfs.transaction(&target).create_parents().begin().unwrap();
    fs::write(transaction.path().join("file"), "x").unwrap();
    let receipt = transaction.commit().unwrap();
    let path = scene.pool.mountpoint().join("a/b/c");
    assert_eq!(receipt.mounted.last(), Some(&path));
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "x");
    for name in ["a", "a/b", "a/b/c"] {
        let mountpoint = scene.property(&scene.name(name), "mountpoint");
        assert_eq!(mountpoint.0, scene.pool.mountpoint().join(name).display().to_string());
        assert!(mountpoint.1.starts_with("inherited"), "{mountpoint:?}");
        assert_eq!(scene.property(&scene.name(name), "mounted").0, "yes");
    }
    scene.pool.reimport();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "x");
    scene.end();
}

/// I2 and I3: ten commits in a row that put the same content back leave a pool that looks as before.
#[test]
fn ten_update_commits_in_a_row_leave_everything_else_as_it_was() {
    let scene = Scene::with_options(&["-O", "compression=zstd"]);
    let local = scene.pool.directory().join("local");
    let mountpoint = format!("mountpoint={}", local.display());
    for (name, options) in [
        ("inherited", &["-o", "recordsize=16K", "-o", "com.example:note=kept"][..]),
        ("local", &["-o", &mountpoint, "-o", "quota=200M", "-o", "reservation=8M"][..]),
        ("limits", &["-o", "refquota=100M", "-o", "canmount=on", "-o", "exec=off"][..]),
    ] {
        let target = scene.dataset(name, options);
        scene.pool.zfs(&["snapshot", "-o", "com.example:s=1", &format!("{target}@kept")]);
        scene.pool.zfs(&["hold", "mine", &format!("{target}@kept")]);
        scene.pool.zfs(&["bookmark", &format!("{target}@kept"), &format!("{target}#mark")]);
        scene.pool.zfs(&["allow", "root", "snapshot,mount", target.as_str()]);
        scene.pool.zfs(&["set", "userquota@1000=50M", target.as_str()]);
        let before = State::of(&scene, Identity::Replaced);
        for generation in 1..=10 {
            let receipt = scene.publish(&target, &format!("generation {generation}"));
            assert!(receipt.leftovers.is_empty(), "{receipt:?}");
            assert_eq!(scene.read(&target), format!("generation {generation}"));
            let path = scene.mounted_at(&target).unwrap();
            assert_eq!(crate::support::claims(&scene, &path), 1);
        }
        scene.publish(&target, "generation 0");
        before.assert_same(&State::of(&scene, Identity::Replaced));
    }
    scene.pool.reimport();
    assert_eq!(fs::read_to_string(local.join("file")).unwrap(), "generation 0");
    scene.end();
}

#[test]
fn files_are_added_changed_and_deleted_links_and_modes_included() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    assert_eq!(transaction.kind(), Kind::Update);
    let work = transaction.path();
    fs::create_dir_all(work.join("a/b")).unwrap();
    fs::write(work.join("a/b/new"), "new").unwrap();
    symlink("a/b/new", work.join("link")).unwrap();
    fs::remove_file(work.join("file")).unwrap();
    let path = scene.mounted_at(&target).unwrap();
    assert!(path.join("file").exists() && !path.join("link").exists(), "seen before commit");
    transaction.commit().unwrap();
    assert!(!path.join("file").exists());
    assert_eq!(fs::read_to_string(path.join("link")).unwrap(), "new");
    scene.end();
}

#[test]
fn ownership_by_group_name_reaches_the_whole_tree_and_is_there_from_the_first_moment() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let ownership = Ownership::new().user("nobody").group("daemon").mode(0o2770).whole_tree();
    let transaction = scene.zfs.transaction(&target).ownership(ownership).begin().unwrap();
    fs::create_dir(transaction.path().join("dir")).unwrap();
    fs::write(transaction.path().join("dir/data"), "x").unwrap();
    transaction.commit().unwrap();
    let path = scene.mounted_at(&target).unwrap();
    for (relative, mode) in [("", 0o2770), ("dir", 0o2770), ("dir/data", 0o660), ("file", 0o660)] {
        let meta = fs::metadata(path.join(relative)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (65534, 1, mode), "{relative}");
    }
    scene.end();
}

#[test]
fn a_target_that_appears_during_init_is_a_conflict_and_both_contents_live() {
    let scene = Scene::new();
    let target = scene.name("t");
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    scene.dataset("t", &[]);
    let before = State::of(&scene, Identity::Kept);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::TargetAppeared { target: target.clone() });
    before.assert_same(&State::of(&scene, Identity::Kept));
    assert_eq!(fs::read_to_string(transaction.path().join("file")).unwrap(), "ours");
    assert_eq!(scene.read(&target), "generation 0");
    transaction.rollback().unwrap();
    scene.end();
}

/// I8: whichever commits first wins; the other is told, keeps its workspace, and loses nothing.
#[test]
fn of_two_transactions_on_one_target_one_wins() {
    let scene = Scene::new();
    for (name, elder_first) in [("elder", true), ("younger", false)] {
        let target = scene.dataset(name, &[]);
        let elder = scene.begin(&target);
        let younger = scene.begin(&target);
        fs::write(elder.path().join("file"), "elder").unwrap();
        fs::write(younger.path().join("file"), "younger").unwrap();
        let (first, second, said) =
            if elder_first { (elder, younger, "younger") } else { (younger, elder, "elder") };
        first.commit().unwrap();
        let error = second.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert!(matches!(conflict, Conflict::TargetReplaced { .. }), "{conflict}");
        assert_eq!(fs::read_to_string(transaction.path().join("file")).unwrap(), said);
        assert_eq!(scene.read(&target), name);
        transaction.rollback().unwrap();
        assert_eq!(scene.read(&target), name);
    }
    scene.pool.cleanup();
}

/// I8, when it is close: eight commits at the same moment, and the losers roll back at once.
#[test]
fn of_eight_commits_at_the_same_moment_one_wins() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let open: Vec<_> = (0..8).map(|_| scene.begin(&target)).collect();
    let barrier = std::sync::Barrier::new(open.len());
    let results: Vec<_> = std::thread::scope(|scope| {
        let commits: Vec<_> = open
            .into_iter()
            .map(|transaction| {
                let (barrier, id) = (&barrier, transaction.id().to_string());
                fs::write(transaction.path().join("file"), &id).unwrap();
                scope.spawn(move || {
                    barrier.wait();
                    match transaction.commit() {
                        Ok(receipt) => Some((id, receipt)),
                        Err(CommitError::Conflict { transaction, .. }) => {
                            transaction.rollback().unwrap();
                            None
                        }
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        commits.into_iter().map(|commit| commit.join().unwrap()).collect()
    });
    let winners: Vec<_> = results.into_iter().flatten().collect();
    let [(id, receipt)] = &winners[..] else { panic!("{winners:?}") };
    assert_eq!(scene.read(&target), *id);
    for leftover in &receipt.leftovers {
        scene.pool.zfs(&["destroy", &leftover.name]);
    }
    scene.end();
}

/// The base of another transaction, taken later, must not hide it.
#[test]
fn a_snapshot_taken_between_two_begins_is_carried_along_by_the_elder() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let elder = scene.begin(&target);
    fs::write(elder.path().join("file"), "elder").unwrap();
    scene.pool.zfs(&["snapshot", &format!("{target}@hourly")]);
    let younger = scene.begin(&target);
    let receipt = elder.commit().unwrap();
    assert_eq!(receipt.strategy, Strategy::InPlace);
    let error = younger.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Modified { target: target.clone() });
    transaction.rollback().unwrap();
    // One from before both is in nobody's way.
    let receipt = scene.begin(&target).commit().unwrap();
    assert_eq!(receipt.strategy, Strategy::Promote);
    assert_eq!(
        scene.pool.zfs(&["list", "-Ho", "name", "-t", "snapshot", target.as_str()]).trim(),
        format!("{target}@hourly")
    );
    scene.end();
}

/// A commit would put the old settings back, and give back permissions that were revoked.
#[test]
fn settings_and_permissions_changed_meanwhile_are_a_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    scene.pool.zfs(&["allow", "root", "snapshot,mount", target.as_str()]);
    for change in [
        &["set", "compression=lz4"][..],
        &["set", "com.example:note=new"],
        &["inherit", "compression"],
        &["unallow", "root", "mount"],
    ] {
        let transaction = scene.begin(&target);
        scene.pool.zfs(&[change, &[target.as_str()]].concat());
        let before = State::of(&scene, Identity::Kept);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert_eq!(conflict, Conflict::SettingsChanged { target: target.clone() }, "{change:?}");
        before.assert_same(&State::of(&scene, Identity::Kept));
        transaction.rollback().unwrap();
    }
    scene.end();
}

#[test]
fn a_child_created_meanwhile_is_a_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    scene.dataset("t/child", &[]);
    let error = transaction.commit().unwrap_err();
    assert!(matches!(error, CommitError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains("child"), "{error}");
    drop(error);
    assert_eq!(scene.read(&target), "generation 0");
    scene.end();
}

/// I6: what is written to the target while a transaction is open is a conflict; overwritten, it is
/// kept, and named.
#[test]
fn a_write_to_the_target_meanwhile_is_a_conflict_or_kept_when_told_to_overwrite() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let careful = scene.begin(&target);
    let bold = scene.zfs.transaction(&target).on_conflict(OnConflict::Overwrite).begin().unwrap();
    fs::write(bold.path().join("file"), "ours").unwrap();
    fs::write(path.join("theirs"), "theirs").unwrap();
    let before = State::of(&scene, Identity::Kept);
    let error = careful.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::Modified { .. }), "{conflict}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    transaction.rollback().unwrap();

    let receipt = bold.commit().unwrap();
    assert!(matches!(receipt.overridden[..], [Conflict::Modified { .. }]), "{receipt:?}");
    let [predecessor, base] = &receipt.leftovers[..] else { panic!("{receipt:?}") };
    assert_eq!((predecessor.keeps, base.keeps), (Keeps::Changes, Keeps::Nothing), "{receipt:?}");
    assert_eq!(scene.read(&target), "ours");
    assert_eq!(crate::support::claims(&scene, &path), 1);
    let kept = scene.pool.directory().join("kept");
    scene.pool.zfs(&["set", &format!("mountpoint={}", kept.display()), &predecessor.name]);
    scene.pool.zfs(&["mount", &predecessor.name]);
    assert_eq!(fs::read_to_string(kept.join("theirs")).unwrap(), "theirs");
    // A sweep keeps what is found nowhere else; what a person destroys, it cleans up after.
    scene.pool.zfs(&["unmount", &predecessor.name]);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (0, 1), "{swept:?}");
    // It is in nobody's way.
    assert!(scene.publish(&target, "later").leftovers.is_empty());
    scene.pool.zfs(&["destroy", &predecessor.name]);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");
    assert!(scene.zfs.pending(&scene.name("")).unwrap().is_empty());
    scene.end();
}

/// A small write over an access time's: the number of bytes written says nothing of it.
#[test]
fn a_write_after_a_read_meanwhile_is_a_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "atime=on", "-o", "relatime=off"]);
    let transaction = scene.begin(&target);
    assert_eq!(scene.read(&target), "generation 0");
    scene.pool.sync();
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("file"), "generation X").unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::Modified { .. }), "{conflict}");
    transaction.rollback().unwrap();
    scene.end();
}

/// Reading moves access times, and ZFS counts those as written: mere reading loses nothing.
/// That doesn't move a file's change time.
#[test]
fn a_project_set_meanwhile_is_a_conflict() {
    for name in ["file", ""] {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let path = scene.mounted_at(&target).unwrap().join(name);
        let transaction = scene.begin(&target);
        fs::write(transaction.path().join("file"), "new").unwrap();
        scene.pool.zfs(&["project", "-p", "7", path.to_str().unwrap()]);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert_eq!(conflict, Conflict::Modified { target: target.clone() }, "{name:?}");
        transaction.rollback().unwrap();
        scene.end();
    }
}

#[test]
fn a_target_that_was_only_read_meanwhile_leaves_nothing_behind() {
    let scene = Scene::new();
    let options = ["-o", "atime=on", "-o", "relatime=off", "-o", "snapdir=visible"];
    let target = scene.dataset("t", &options);
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    assert_eq!(scene.read(&target), "generation 0");
    // Access times reach the pool with the next txg.
    scene.pool.sync();
    assert_ne!(
        scene.property(&target, "written").0,
        "0",
        "the read left no trace to be told apart"
    );
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    scene.end();
}

#[test]
fn a_file_open_in_the_old_content_keeps_it_as_a_leftover_that_is_never_mounted_at_boot() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let open = fs::File::open(path.join("file")).unwrap();
    let receipt = scene.publish(&target, "ours");
    let predecessor = &receipt.leftovers[0];
    assert_eq!(predecessor.keeps, Keeps::Unknown, "{receipt:?}");
    assert_eq!(std::io::read_to_string(&open).unwrap(), "generation 0");
    assert_eq!(scene.read(&target), "ours");
    assert_eq!(crate::support::claims(&scene, &path), 1);
    drop(open);
    scene.pool.reimport();
    assert_eq!(scene.read(&target), "ours");
    assert!(crate::support::mounts_of(&predecessor.name).is_empty());
    // It never blocks a later transaction.
    scene.publish(&target, "again");
    for leftover in &receipt.leftovers {
        scene.pool.zfs(&["destroy", &leftover.name]);
    }
    scene.end();
}

#[test]
fn an_encrypted_target_keeps_its_encryption_root_and_its_loaded_key() {
    let scene = Scene::new();
    let key = scene.pool.directory().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let location = format!("keylocation=file://{}", key.display());
    let options = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", &location];
    let root = scene.dataset("secret", &options);
    let target = scene.dataset("secret/t", &[]);
    let before = State::of(&scene, Identity::Replaced);
    scene.publish(&target, "generation 1");
    scene.publish(&target, "generation 0");
    before.assert_same(&State::of(&scene, Identity::Replaced));
    assert_eq!(scene.property(&target, "encryptionroot").0, root.as_str());
    let own = scene.dataset("own", &options);
    let error = scene.zfs.transaction(&own).begin().unwrap_err();
    assert!(error.to_string().contains("change-key -i"), "{error}");
    scene.pool.zfs(&["unmount", target.as_str()]);
    scene.pool.zfs(&["unmount", root.as_str()]);
    scene.pool.zfs(&["unload-key", root.as_str()]);
    for target in [&target, &scene.name("secret/new")] {
        let error = scene.zfs.transaction(target).begin().unwrap_err();
        assert!(error.to_string().contains("load-key"), "{error}");
    }
    scene.end();
}

/// I7: names outside are refused before any call; those inside work.
#[test]
fn a_confined_library_touches_nothing_outside() {
    let scene = Scene::new();
    let (inside, outside) = (scene.dataset("in/t", &["-p"]), scene.dataset("out", &[]));
    let confined = Zfs::confined_to([scene.name("in")]).unwrap();
    let before = State::of(&scene, Identity::Kept);
    let missing = scene.name("missing/t");
    for target in [&outside, &scene.name("in"), &missing, &scene.name("in2/t")] {
        let error = confined.transaction(target).create_parents().begin().unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
    }
    before.assert_same(&State::of(&scene, Identity::Kept));
    confined.transaction(&inside).begin().unwrap().commit().unwrap();
    assert!(Zfs::confined_to(["not//a name"]).is_err());
    scene.end();
}

/// I6: overridden settings are in the predecessor alone; neither recovery nor sweep takes them for
/// nothing.
#[test]
fn overridden_settings_are_kept_until_a_person_has_seen_them() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction =
        scene.zfs.transaction(&target).on_conflict(OnConflict::Overwrite).begin().unwrap();
    scene.pool.zfs(&["set", "com.example:note=theirs", target.as_str()]);
    let receipt = transaction.commit().unwrap();
    assert!(matches!(receipt.overridden[..], [Conflict::SettingsChanged { .. }]), "{receipt:?}");
    assert_eq!(receipt.leftovers[0].keeps, Keeps::Changes, "{receipt:?}");
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (0, 1), "{recovery:?}");
    let kept = receipt.leftovers[0].name.parse().unwrap();
    assert_eq!(scene.property(&kept, "com.example:note").0, "theirs");
    scene.pool.zfs(&["destroy", kept.as_str()]);
    assert_eq!(scene.zfs.sweep(&scene.name("")).unwrap().finished.len(), 1);
    scene.end();
}

/// A mount point that somebody has set meanwhile is a conflict, also where others are overridden.
#[test]
fn a_mount_point_set_meanwhile_is_never_overridden() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction =
        scene.zfs.transaction(&target).on_conflict(OnConflict::Overwrite).begin().unwrap();
    let theirs = scene.pool.directory().join("theirs").display().to_string();
    scene.pool.zfs(&["set", &format!("mountpoint={theirs}"), target.as_str()]);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::SettingsChanged { .. }), "{conflict}");
    transaction.rollback().unwrap();
    assert_eq!(scene.property(&target, "mountpoint"), (theirs, "local".to_owned()));
    scene.end();
}

/// A bookmark made meanwhile is somebody's base for the next send.
#[test]
fn a_bookmark_made_meanwhile_is_kept_with_the_predecessor() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let (snapshot, bookmark) = (format!("{target}@s"), format!("{target}#s"));
    scene.pool.zfs(&["snapshot", &snapshot]);
    scene.pool.zfs(&["bookmark", &snapshot, &bookmark]);
    scene.pool.zfs(&["destroy", &snapshot]);
    let receipt = transaction.commit().unwrap();
    let kept = &receipt.leftovers[0].name;
    scene.pool.zfs(&["list", "-t", "bookmark", &format!("{kept}#s")]);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (0, 1), "{swept:?}");
    scene.pool.cleanup();
}

/// A person who undoes a commit by hand promotes the predecessor: then it is theirs.
#[test]
fn a_predecessor_that_was_promoted_by_hand_is_not_swept() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let open = fs::File::open(path.join("file")).unwrap();
    let receipt = scene.publish(&target, "ours");
    drop(open);
    let kept = receipt.leftovers[0].name.clone();
    scene.pool.zfs(&["promote", &kept]);
    scene.pool.zfs(&["destroy", target.as_str()]);
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (0, 1), "{recovery:?}");
    scene.pool.zfs(&["list", &kept]);
    scene.pool.cleanup();
}

/// The kernel would panic: it moves the target's bookmarks to the workspace without a look at those
/// that it has. So the workspace's go before.
#[test]
fn a_bookmark_of_the_workspace_by_the_name_of_one_of_the_targets_goes_before_the_promote() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    scene.pool.zfs(&["snapshot", &format!("{target}@daily")]);
    scene.pool.zfs(&["bookmark", &format!("{target}@daily"), &format!("{target}#daily")]);
    let guid = |name: &str| scene.pool.zfs(&["get", "-Hpo", "value", "guid", name]);
    let before = guid(&format!("{target}#daily"));
    let transaction = scene.begin(&target);
    let workspace = format!("{target}-txn-{}", transaction.id());
    let (mine, bookmark) = (format!("{workspace}@mine"), format!("{workspace}#daily"));
    scene.pool.zfs(&["snapshot", &mine]);
    scene.pool.zfs(&["bookmark", &mine, &bookmark]);
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.workspace_snapshots, [mine, bookmark]);
    assert_eq!(guid(&format!("{target}#daily")), before);
    scene.end();
}
