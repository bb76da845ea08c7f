//! Mounts that a commit doesn't reach are named in the receipt.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use zfs_txn::{DatasetName, ElsewhereMount, Receipt};

use super::{mount, unmount};
use crate::support::Scene;

/// A process in a mount namespace of its own, in which nothing of ZFS is mounted but `target`.
fn process_with_mount(target: &DatasetName, path: &Path) -> Child {
    // Mounts of other tests' pools would be kept busy.
    let script =
        "umount -a -l -t zfs && mount -t zfs \"$0\" \"$1\" && echo ready && exec sleep 1000";
    let mut process = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, target.as_str()])
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    process
}

fn assert_kept(receipt: &Receipt) {
    assert_eq!(receipt.leftovers[0].name, format!("{}-old-{}", receipt.target, receipt.id));
}

#[test]
fn a_mount_in_another_mount_namespace_is_named_and_keeps_the_old_content() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let path = scene.pool.directory().join("elsewhere");
    fs::create_dir(&path).unwrap();
    let mut process = process_with_mount(&target, &path);
    let receipt = scene.publish(&target, "x");
    assert_kept(&receipt);
    let pid = process.id();
    assert_eq!(receipt.mounted_elsewhere, [ElsewhereMount { pid, path }]);
    assert_eq!((receipt.gap, receipt.mounted), (None, vec![]));
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(scene.zfs.sweep(&scene.name("")).unwrap().finished.len(), 1);
    scene.end();
}

#[test]
fn a_bind_mount_of_a_directory_in_the_target_is_named() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let (inside, bound) =
        (scene.mounted_at(&target).unwrap().join("inside"), scene.pool.directory().join("bound"));
    for path in [&inside, &bound] {
        fs::create_dir(path).unwrap();
    }
    fs::write(inside.join("file"), "old").unwrap();
    mount(&["--bind", inside.to_str().unwrap(), bound.to_str().unwrap()]);
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("inside/file"), "new").unwrap();
    let receipt = transaction.commit().unwrap();
    assert_kept(&receipt);
    assert_eq!(fs::read_to_string(bound.join("file")).unwrap(), "old");
    let elsewhere = ElsewhereMount { pid: std::process::id(), path: bound.clone() };
    assert_eq!(receipt.mounted_elsewhere, [elsewhere]);
    unmount(&bound);
    assert_eq!(scene.zfs.sweep(&scene.name("")).unwrap().finished.len(), 1);
    scene.end();
}
