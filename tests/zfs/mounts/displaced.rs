//! Mounts on directories and files of a target that is changed in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zfs_txn::{CommitError, Conflict, DatasetName, Strategy, Transaction};

use super::{mount, unmount};
use crate::support::{Scene, mounts_of};
use crate::test_write::write;

fn begin(scene: &Scene, target: &DatasetName) -> Transaction {
    scene.zfs.transaction(target).strategy(Strategy::InPlace).begin().unwrap()
}

fn refused(transaction: Transaction, expected: &Path) -> Transaction {
    match transaction.commit() {
        Err(CommitError::Conflict { conflict, transaction }) => {
            assert_eq!(conflict, Conflict::Displaced { path: expected.to_owned() });
            *transaction
        }
        result => panic!("{}: {result:?}", expected.display()),
    }
}

fn bind(what: &Path, to: &Path) {
    mount(&["--bind", what.to_str().unwrap(), to.to_str().unwrap()]);
}

fn replace(root: &Path, name: &str) {
    fs::write(root.join("temporary"), "new").unwrap();
    fs::rename(root.join("temporary"), root.join(name)).unwrap();
}

#[test]
fn a_mount_of_a_file_that_is_replaced_is_found_and_keeps_what_it_has() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let bound = scene.pool.directory().join("bound");
    fs::write(&bound, "").unwrap();
    bind(&path.join("file"), &bound);
    let transaction = begin(&scene, &target);
    replace(transaction.path(), "file");
    let transaction = refused(transaction, &bound);
    assert_eq!(fs::read_to_string(&bound).unwrap(), "generation 0");
    drop(transaction);

    // One that is written into stays what it is, and so does the mount.
    let transaction = begin(&scene, &target);
    write(transaction.path().join("file"), "written").unwrap();
    transaction.commit().unwrap();
    assert_eq!(fs::read_to_string(&bound).unwrap(), "written");

    let transaction = begin(&scene, &target);
    replace(transaction.path(), "file");
    let transaction = refused(transaction, &bound);
    unmount(&bound);
    transaction.commit().unwrap();
    assert_eq!(scene.read(&target), "new");
    scene.end();
}

/// The kernel takes away what is mounted on a directory that is gone (`d_invalidate`).
#[test]
fn a_mount_on_a_directory_that_goes_is_found_be_it_a_childs() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let child = scene.dataset("t/child", &[]);
    fs::create_dir_all(path.join("deep/data")).unwrap();
    mount(&["-t", "tmpfs", "none", path.join("deep/data").to_str().unwrap()]);
    for (name, seen) in [("child", "child"), ("deep", "deep/data")] {
        let transaction = begin(&scene, &target);
        fs::remove_dir_all(transaction.path().join(name)).unwrap();
        let transaction = refused(transaction, &path.join(seen));
        // A new directory of the name is another one.
        fs::create_dir_all(transaction.path().join(seen)).unwrap();
        let transaction = refused(transaction, &path.join(seen));
        drop(transaction);
    }
    let transaction = begin(&scene, &target);
    write(transaction.path().join("deep/file"), "x").unwrap();
    transaction.commit().unwrap();
    assert_eq!(mounts_of(child.as_str()), [path.join("child")]);
    unmount(&path.join("deep/data"));
    let transaction = begin(&scene, &target);
    fs::remove_dir_all(transaction.path().join("deep")).unwrap();
    transaction.commit().unwrap();
    assert_eq!(mounts_of(child.as_str()), [path.join("child")]);
    scene.end();
}

#[test]
fn a_mount_of_a_file_in_another_mount_namespace_is_found() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let place = scene.pool.directory().join("place");
    fs::create_dir(&place).unwrap();
    let script = "umount -a -l -t zfs; mount -t zfs \"$0\" \"$1\" && echo old >\"$1/conf\" && \
                  mount --bind \"$1/conf\" /etc/hostname && echo ready && exec sleep 1000";
    let mut process = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, target.as_str()])
        .arg(&place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut said).unwrap();
    let transaction = begin(&scene, &target);
    replace(transaction.path(), "conf");
    let transaction = refused(transaction, &PathBuf::from("/etc/hostname"));
    process.kill().unwrap();
    process.wait().unwrap();
    transaction.commit().unwrap();
    scene.end();
}
