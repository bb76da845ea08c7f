//! What others have made or hold in a target that is changed in place: files that happen to have the numbers
//! of the change's files, leases, mount options, and snapshots of the workspace by the final one's name.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use zfs_txn::{CommitError, Conflict, DatasetName, OnConflict, Ownership, Strategy, Transaction};

use crate::memory::remount;
use crate::support::Scene;
use crate::test_mapping::Lease;

const O_TMPFILE: i32 = 0o20_200_000;

fn begin(scene: &Scene, target: &DatasetName, on_conflict: OnConflict) -> Transaction {
    let builder = scene.zfs.transaction(target).strategy(Strategy::InPlace);
    builder.on_conflict(on_conflict).begin().unwrap()
}

fn open(path: &Path, flags: i32) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(flags == 0).custom_flags(flags);
    options.open(path).unwrap()
}

/// A file's number is free in both file systems, and its generation is the txg in which it is made: so a file
/// of the change can be, to the kernel, one that somebody has open in the target. Nobody gets the change's
/// files by a descriptor that was never allowed to open them.
#[test]
fn nobodys_descriptor_becomes_one_of_a_file_of_the_change() {
    let scene = Scene::new();
    for (name, flags, on_conflict) in [
        ("nameless", O_TMPFILE, OnConflict::Fail),
        ("nameless-replaced", O_TMPFILE, OnConflict::Overwrite),
        ("named-replaced", 0, OnConflict::Overwrite),
    ] {
        let target = scene.dataset(name, &[]);
        let path = scene.mounted_at(&target).unwrap();
        // Numbers are given out from the lowest on where it was mounted just now, as in the workspace.
        remount(&scene, &target);
        let transaction = begin(&scene, &target, on_conflict);
        let mut held = Vec::new();
        let mut ours = std::collections::HashSet::new();
        for number in 0..200 {
            let secret = transaction.path().join(format!("secret-{number}"));
            fs::write(&secret, "secret").unwrap();
            ours.insert(fs::metadata(secret).unwrap().ino());
            let theirs = path.join(format!("theirs-{number}"));
            let mut file = open(if flags == 0 { &theirs } else { &path }, flags);
            file.write_all(b"theirs").unwrap();
            held.push(file);
        }
        let same = held.iter().filter(|file| ours.contains(&file.metadata().unwrap().ino()));
        assert!(same.count() > 0, "no number was given out twice");
        if on_conflict == OnConflict::Overwrite {
            fs::write(path.join("foreign"), "foreign").unwrap();
        }
        let transaction = match transaction.commit() {
            Err(CommitError::Conflict { conflict, transaction }) => {
                let Conflict::InUse { path, .. } = conflict else { panic!("{conflict}") };
                assert!(path.starts_with("object "), "{path}");
                transaction
            }
            other => panic!("{name}: {other:?}"),
        };
        for file in &mut held {
            let mut said = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut said).unwrap();
            assert_eq!(said, "theirs");
        }
        transaction.rollback().unwrap();
        assert_eq!(scene.read(&target), "generation 0");
        drop(held);
    }
    scene.pool.cleanup();
}

/// A lease on what doesn't change stays, and one on what changes is a conflict unless it is given up.
#[test]
fn leases_are_not_broken_for_nothing() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for number in 0..40 {
        fs::write(path.join(number.to_string()), "old").unwrap();
    }
    // Neighbours in a block of objects: the stream tells of them as well.
    let untouched = Lease::for_writing(open(&path.join("7"), 0));
    let transaction = begin(&scene, &target, OnConflict::Fail);
    let file = File::options().write(true).open(transaction.path().join("8")).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    drop(file);
    transaction.commit().unwrap();
    assert_eq!(fs::read_to_string(path.join("8")).unwrap(), "new");
    assert!(untouched.is_held());

    let changed = Lease::for_writing(open(&path.join("9"), 0));
    let transaction = begin(&scene, &target, OnConflict::Fail);
    fs::write(transaction.path().join("9"), "new").unwrap();
    match transaction.commit() {
        Err(CommitError::Conflict { conflict, transaction }) => {
            assert_eq!(conflict, Conflict::InUse { target: target.clone(), path: "9".to_owned() });
            drop(changed);
            transaction.commit().unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_to_string(path.join("9")).unwrap(), "new");
    drop(untouched);
    scene.pool.cleanup();
}

/// Whoever is let into a workspace can do no more there than in the target.
#[test]
fn a_workspace_has_the_limits_of_its_target() {
    let scene = Scene::new();
    let limits = ["-o", "setuid=off", "-o", "devices=off", "-o", "exec=off"];
    let target = scene.dataset("limited", &limits);
    let free = scene.dataset("free", &[]);
    for strategy in [Strategy::Promote, Strategy::InPlace] {
        for (target, limited) in [(&target, true), (&free, false)] {
            let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let at = transaction.path().to_str().unwrap();
            let line = table.lines().find(|line| line.split(' ').nth(4) == Some(at)).unwrap();
            let options: Vec<&str> = line.split(' ').nth(5).unwrap().split(',').collect();
            for option in ["nosuid", "nodev", "noexec"] {
                assert_eq!(options.contains(&option), limited, "{strategy:?}: {line}");
            }
            transaction.rollback().unwrap();
        }
    }
    scene.pool.cleanup();
}

/// A snapshot of the workspace by the name of the one that the commit is to take.
#[test]
fn a_snapshot_by_the_final_ones_name_is_in_nobodys_way() {
    let scene = Scene::new();
    for (name, strategy) in [("promote", Strategy::Promote), ("in-place", Strategy::InPlace)] {
        let target = scene.dataset(name, &[]);
        let builder = scene.zfs.transaction(&target).strategy(strategy).snapshot("daily");
        let transaction = builder.ownership(Ownership::new().mode(0o750)).begin().unwrap();
        let workspace = format!("{target}-txn-{}", transaction.id());
        scene.pool.zfs(&["snapshot", &format!("{workspace}@daily")]);
        fs::write(transaction.path().join("file"), "new").unwrap();
        let receipt = transaction.commit().unwrap();
        assert!(receipt.final_snapshot.is_some(), "{receipt:?}");
        let daily = scene.mounted_at(&target).unwrap().join(".zfs/snapshot/daily/file");
        assert_eq!(fs::read_to_string(&daily).unwrap(), "new");
        let _ = std::process::Command::new("umount").arg(daily.parent().unwrap()).status();
    }
    scene.pool.cleanup();
}
