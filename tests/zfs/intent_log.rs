//! What was synced to a dataset just before a power cut is in its intent log alone, and counts
//! neither as written nor as content until the dataset is mounted. It must not be lost.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use zfs_txn::{CommitError, Conflict, DatasetName};

use crate::support::Scene;

/// Writes and syncs. The first sync of a dataset gives it the log that later ones go to.
fn write_synced(file: &mut File, text: &str) {
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
}

fn open(scene: &Scene, target: &DatasetName) -> File {
    let path = scene.mounted_at(target).unwrap().join("file");
    File::options().append(true).open(path).unwrap()
}

/// What `file` says in a dataset that is not mounted.
fn read_unmounted(scene: &Scene, name: &str) -> String {
    let place = scene.pool.directory().join("look");
    fs::create_dir_all(&place).unwrap();
    let path = place.display().to_string();
    scene.pool.zfs(&["set", &format!("mountpoint={path}"), name]);
    let _ = scene.pool.try_zfs(&["mount", name]);
    fs::read_to_string(Path::new(&path).join("file")).unwrap()
}

#[test]
fn a_workspace_has_what_was_synced_before_a_power_cut() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let mut file = open(&scene, &target);
    write_synced(&mut file, ", first");
    scene.pool.freeze();
    write_synced(&mut file, ", second");
    drop(file);
    scene.pool.reimport_with(&["-N"]);
    assert!(scene.mounted_at(&target).is_none());
    let transaction = scene.begin(&target);
    let content = fs::read_to_string(transaction.path().join("file")).unwrap();
    assert_eq!(content, "generation 0, first, second");
    transaction.rollback().unwrap();
    scene.end();
}

/// I6: it was written after begin, so a commit that doesn't overwrite meets a conflict.
#[test]
fn what_was_synced_to_the_target_before_a_power_cut_is_a_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let mut file = open(&scene, &target);
    write_synced(&mut file, ", first");
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let id = transaction.detach().unwrap();
    scene.pool.freeze();
    write_synced(&mut file, ", second");
    drop(file);
    scene.pool.reimport_with(&["-N"]);
    assert!(scene.mounted_at(&target).is_none());
    let error = scene.zfs.resume(&target, id).unwrap().commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::Modified { .. }), "{conflict}");
    transaction.rollback().unwrap();
    scene.pool.zfs(&["mount", target.as_str()]);
    assert_eq!(scene.read(&target), "generation 0, first, second");
    scene.end();
}

/// I6: a predecessor that was kept because it was in use.
#[test]
fn what_was_synced_to_a_predecessor_before_a_power_cut_is_not_swept_away() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let mut file = open(&scene, &target);
    write_synced(&mut file, ", first");
    let receipt = scene.publish(&target, "ours");
    let predecessor = receipt.leftovers[0].name.clone();
    scene.pool.freeze();
    write_synced(&mut file, ", second");
    drop(file);
    scene.pool.reimport_with(&["-N"]);
    for _ in 0..2 {
        let swept = scene.zfs.recover(&scene.name("")).unwrap();
        assert_eq!((swept.finished.len(), swept.unfinished.len()), (0, 1), "{swept:?}");
    }
    assert_eq!(read_unmounted(&scene, &predecessor), "generation 0, first, second");
    scene.pool.cleanup();
}
