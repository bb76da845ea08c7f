//! What content a commit in place carries: all of it, by each kind of stream.

mod edits;
mod random;
mod tree;
mod ways;

use std::fs;

use zfs_txn::{OnConflict, Strategy};

use crate::memory::remount;
use crate::support::Scene;
use edits::EDITS;
use tree::{assert_same, tree};

/// Which stream the change goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// From the base.
    Plain,
    /// From a snapshot of the target that differs from the base in access times alone.
    Rebased,
    /// All of the workspace, in the place of what others have written.
    Replacing,
}

/// Each edit, in a dataset with these options, by each stream; the target is looked at as it is
/// mounted, and mounted anew.
fn all_is_carried(scene: &Scene, parent: &str, options: &[&str]) {
    for stream in [Stream::Plain, Stream::Rebased, Stream::Replacing] {
        let times: &[&str] = match stream {
            Stream::Rebased => &["-o", "atime=on", "-o", "relatime=off"],
            _ => &[],
        };
        let name = format!("{parent}{stream:?}");
        let target = scene.dataset(&name, &[options, times].concat());
        let path = scene.mounted_at(&target).unwrap();
        for edit in EDITS {
            fs::create_dir(path.join(edit.name)).unwrap();
            (edit.prepare)(&path.join(edit.name));
        }
        rustix::fs::sync();
        let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
        let on_conflict = match stream {
            Stream::Replacing => OnConflict::Overwrite,
            _ => OnConflict::Fail,
        };
        let transaction = builder.on_conflict(on_conflict).begin().unwrap();
        for edit in EDITS {
            (edit.change)(&transaction.path().join(edit.name));
        }
        rustix::fs::sync();
        let expected = tree(transaction.path());
        let projects = projects(scene, transaction.path());
        match stream {
            Stream::Plain => {}
            Stream::Rebased => {
                fs::read(path.join("file")).unwrap();
                // Access times are written when the inode is forgotten.
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                scene.pool.sync();
                assert_ne!(scene.property(&target, "written").0, "0");
            }
            Stream::Replacing => {
                // In another txg: files of one number and one generation are a conflict.
                scene.pool.sync();
                fs::write(path.join("foreign"), "foreign").unwrap();
            }
        }
        let receipt = transaction.commit().unwrap();
        let overridden = stream == Stream::Replacing;
        assert_eq!(receipt.overridden.len(), usize::from(overridden), "{receipt:?}");
        assert_same(&format!("{name} as mounted"), &expected, &tree(&path));
        remount(scene, &target);
        assert_same(&format!("{name} mounted anew"), &expected, &tree(&path));
        assert_eq!(projects, self::projects(scene, &path));
    }
}

/// The project that each file belongs to.
fn projects(scene: &Scene, top: &std::path::Path) -> Vec<String> {
    let top = top.join("projects").display().to_string();
    let lines = scene.pool.zfs(&["project", "-r", &top]);
    lines.lines().map(|line| line.replace(&top, "")).collect()
}

#[test]
fn files_of_all_kinds_and_their_attributes_are_carried() {
    let scene = Scene::new();
    let options = ["-o", "xattr=sa", "-o", "acltype=posix", "-o", "dnodesize=auto"];
    all_is_carried(&scene, "", &options);
    scene.pool.zpool(&["scrub", "-w", scene.pool.name()]);
    let status = scene.pool.zpool(&["status", scene.pool.name()]);
    assert!(status.contains("with 0 errors"), "{status}");
    scene.pool.cleanup();
}

#[test]
fn files_in_large_compressed_and_deduplicated_blocks_are_carried() {
    let scene = Scene::new();
    let options = ["recordsize=1M", "compression=zstd", "dedup=on", "xattr=dir", "acltype=posix"];
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    all_is_carried(&scene, "", &options);
    scene.pool.cleanup();
}

#[test]
fn files_in_small_and_encrypted_blocks_are_carried() {
    let scene = Scene::new();
    let key = scene.pool.directory().join("key");
    fs::write(&key, "a passphrase").unwrap();
    let location = format!("keylocation=file://{}", key.display());
    let encryption = ["-o", "encryption=on", "-o", "keyformat=passphrase", "-o", &location];
    scene.dataset("root", &encryption);
    let options = ["-o", "recordsize=16K", "-o", "compression=off", "-o", "acltype=posix"];
    all_is_carried(&scene, "root/", &options);
    scene.pool.cleanup();
}

/// A file keeps the record size that it was made with, as after a promote; a new file has the
/// setting's.
#[test]
fn settings_of_blocks_may_change_between_commits_and_during_one() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "recordsize=16K"]);
    let path = scene.mounted_at(&target).unwrap();
    let large = |seed: usize| edits::bytes(seed, 700_000);
    fs::write(path.join("old"), large(1)).unwrap();
    let settings = ["recordsize=1M", "compression=off", "recordsize=4K", "compression=zstd"];
    let more = ["dedup=on", "recordsize=128K", "checksum=sha256", "copies=2", "compression=lz4"];
    for (number, setting) in settings.iter().chain(&more).enumerate() {
        let begin = || scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
        let before = begin();
        scene.pool.zfs(&["set", setting, target.as_str()]);
        before.rollback().unwrap();
        let transaction = begin();
        fs::write(transaction.path().join("old"), large(number + 2)).unwrap();
        fs::write(transaction.path().join(format!("new-{number}")), large(number)).unwrap();
        rustix::fs::sync();
        let expected = tree(transaction.path());
        let next = more[number % more.len()];
        scene.pool.zfs(&["set", next, target.as_str()]);
        transaction.commit().unwrap();
        let (name, value) = next.split_once('=').unwrap();
        let kept = scene.pool.zfs(&["get", "-Ho", "value,source", name, target.as_str()]);
        assert_eq!(kept.trim_end(), format!("{value}\tlocal"));
        remount(&scene, &target);
        assert_same(setting, &expected, &tree(&path));
    }
    scene.end();
}

/// They are part of the filesystem's content to ZFS.
#[test]
fn quotas_of_users_and_projects_set_in_the_workspace_come_along() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    scene.pool.zfs(&["set", "userquota@1234=1G", target.as_str()]);
    let transaction = scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
    let workspace = format!("{target}-txn-{}", transaction.id());
    let quotas = ["userquota@1234=2G", "groupquota@5678=3G", "projectobjquota@42=1000"];
    quotas.iter().for_each(|quota| drop(scene.pool.zfs(&["set", quota, &workspace])));
    transaction.commit().unwrap();
    for mounted in [true, false] {
        for quota in quotas {
            let (name, value) = quota.split_once('=').unwrap();
            let found = scene.pool.zfs(&["get", "-Ho", "value", name, target.as_str()]);
            assert_eq!(found.trim_end(), value, "{quota}, mounted anew: {}", !mounted);
        }
        remount(&scene, &target);
    }
    scene.end();
}

/// A visit to `.zfs` keeps snapshots mounted for minutes.
#[test]
fn a_visit_to_a_snapshot_of_the_target_is_not_in_the_way() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "snapdir=visible"]);
    scene.pool.zfs(&["snapshot", &format!("{target}@kept")]);
    let snapshot = scene.mounted_at(&target).unwrap().join(".zfs/snapshot/kept");
    let held = fs::File::open(snapshot.join("file")).unwrap();
    for number in 1..=2 {
        let content = format!("generation {number}");
        let transaction =
            scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
        fs::write(transaction.path().join("file"), &content).unwrap();
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        assert_eq!(scene.read(&target), content);
        assert_eq!(fs::read_to_string(snapshot.join("file")).unwrap(), "generation 0");
    }
    assert_eq!(std::io::read_to_string(held).unwrap(), "generation 0");
    let umount = std::process::Command::new("umount").arg(&snapshot).status().unwrap();
    assert!(umount.success());
    scene.end();
}

/// What the caller has snapshotted in the workspace is not part of the change, and goes with it.
#[test]
fn snapshots_of_the_workspace_do_not_come_along() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
    let workspace = format!("{target}-txn-{}", transaction.id());
    fs::write(transaction.path().join("file"), "generation 1/2").unwrap();
    scene.pool.zfs(&["snapshot", &format!("{workspace}@half")]);
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    assert!(transaction.commit().unwrap().leftovers.is_empty());
    assert_eq!(scene.read(&target), "generation 1");
    let snapshots =
        scene.pool.zfs(&["list", "-Ho", "name", "-t", "snapshot", "-r", target.as_str()]);
    assert_eq!(snapshots, "");
    scene.end();
}
