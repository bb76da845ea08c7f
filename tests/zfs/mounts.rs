//! Mount points: inherited, local, legacy, none; options; what is mounted below; boots.

mod automounts;
mod displaced;
mod elsewhere;
mod points;
mod swap;

use std::fs;
use std::process::Command;

use zfs_txn::{CommitError, Conflict};

use crate::recovery::abandon;
use crate::support::{Identity, Scene, State, claims, mounts_of};

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}");
}

fn unmount(path: &std::path::Path) {
    assert!(Command::new("umount").arg(path).status().unwrap().success());
}

#[test]
fn a_target_that_the_system_does_not_mount_stays_so() {
    let scene = Scene::new();
    let path = scene.pool.directory().join("srv");
    let local = format!("mountpoint={}", path.display());
    for (name, options) in [
        ("none", &["-o", "mountpoint=none"][..]),
        ("legacy", &["-o", "mountpoint=legacy"][..]),
        ("off", &["-o", "canmount=off", "-o", &local][..]),
        ("noauto", &["-o", "canmount=noauto", "-o", &local][..]),
        ("inherited-noauto", &["-o", "canmount=noauto"][..]),
    ] {
        let target = scene.dataset(name, options);
        let before = State::of(&scene, Identity::Replaced);
        for _ in 0..2 {
            let receipt = scene.publish(&target, "x");
            assert!(receipt.mounted.is_empty() && receipt.leftovers.is_empty(), "{receipt:?}");
        }
        before.assert_same(&State::of(&scene, Identity::Replaced));
        assert!(mounts_of(target.as_str()).is_empty());
        let look = scene.pool.directory().join("look");
        fs::create_dir_all(&look).unwrap();
        // The command insists on it, except for a legacy mount point.
        let options = if name == "legacy" { "rw" } else { "zfsutil" };
        mount(&["-t", "zfs", "-o", options, target.as_str(), &look.display().to_string()]);
        assert_eq!(fs::read_to_string(look.join("file")).unwrap(), "x", "{name}");
        unmount(&look);
    }
    scene.end();
}

#[test]
fn a_target_below_a_parent_without_mount_point_inherits_none() {
    let scene = Scene::new();
    scene.dataset("parent", &["-o", "mountpoint=none"]);
    let target = scene.name("parent/t");
    for _ in 0..2 {
        let receipt = scene.publish(&target, "x");
        assert!(receipt.mounted.is_empty(), "{receipt:?}");
        assert_eq!(scene.property(&target, "mountpoint").0, "none");
        assert!(scene.property(&target, "mountpoint").1.starts_with("inherited"));
    }
    scene.end();
}

#[test]
fn an_unmounted_target_is_not_mounted_by_a_commit() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    scene.pool.zfs(&["unmount", target.as_str()]);
    let receipt = scene.publish(&target, "x");
    assert!(receipt.mounted.is_empty());
    assert!(mounts_of(target.as_str()).is_empty());
    scene.pool.zfs(&["mount", target.as_str()]);
    assert_eq!(scene.read(&target), "x");
    scene.end();
}

#[test]
fn a_legacy_mount_is_swapped_where_it_is_with_its_options() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let (one, two) = (scene.pool.directory().join("one"), scene.pool.directory().join("two"));
    for (path, options) in [(&one, "nosuid,nodev,noexec,noatime"), (&two, "rw")] {
        fs::create_dir(path).unwrap();
        mount(&["-t", "zfs", "-o", options, target.as_str(), &path.display().to_string()]);
    }
    // Read-only of its own: the dataset's other mount is writable.
    mount(&["-o", "remount,bind,ro,nosymfollow", &one.display().to_string()]);
    let before = State::of(&scene, Identity::Replaced);
    let mut mounted = scene.publish(&target, "x").mounted;
    mounted.sort();
    assert_eq!(mounted, [one.clone(), two.clone()]);
    assert_eq!(fs::read_to_string(one.join("file")).unwrap(), "x");
    assert!(fs::write(one.join("file"), "y").is_err(), "read-only before, writable now");
    let transaction = scene.begin(&target);
    fs::remove_file(transaction.path().join("file")).unwrap();
    transaction.commit().unwrap();
    before.assert_same(&State::of(&scene, Identity::Replaced));
    unmount(&one);
    unmount(&two);
    scene.end();
}

#[test]
fn the_options_of_a_mount_follow_the_properties_after_an_init() {
    let scene = Scene::with_options(&["-O", "exec=off", "-O", "setuid=off", "-O", "devices=off"]);
    let target = scene.name("t");
    scene.publish(&target, "x");
    let before = State::of(&scene, Identity::Kept);
    // What `zfs mount` makes of the same properties.
    scene.pool.reimport();
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

/// What `zfs mount` does with a link at the mount point, and with a pool's alternate root.
#[test]
fn an_init_mounts_where_zfs_would() {
    let scene = Scene::new();
    let (real, link) = (scene.pool.directory().join("real"), scene.pool.directory().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let target = scene.name("linked");
    scene.zfs.transaction(&target).mountpoint(&link).begin().unwrap().commit().unwrap();
    assert_eq!(scene.mounted_at(&target), Some(real));
    scene.pool.zfs(&["unmount", target.as_str()]);

    let (root, directory) = (scene.pool.directory().join("root"), scene.pool.directory());
    scene.pool.zpool(&["export", scene.pool.name()]);
    scene.pool.zpool(&[
        "import",
        "-N",
        "-R",
        &root.display().to_string(),
        "-o",
        "cachefile=none",
        "-d",
        &directory.display().to_string(),
        scene.pool.name(),
    ]);
    let target = scene.name("rooted");
    let receipt = scene
        .zfs
        .transaction(&target)
        .mountpoint("/zfs-txn-test")
        .begin()
        .unwrap()
        .commit()
        .unwrap();
    assert_eq!(receipt.mounted, [root.join("zfs-txn-test")]);
    assert_eq!(scene.mounted_at(&target), Some(root.join("zfs-txn-test")));
    scene.end();
}

#[test]
fn something_mounted_below_is_never_detached() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let below = scene.mounted_at(&target).unwrap().join("below");
    fs::create_dir(&below).unwrap();
    mount(&["-t", "tmpfs", "none", &below.display().to_string()]);
    fs::write(below.join("precious"), "x").unwrap();
    let transaction = scene.begin(&target);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::MountBelow { path: below.display().to_string() });
    assert_eq!(fs::read_to_string(below.join("precious")).unwrap(), "x");
    unmount(&below);
    transaction.commit().unwrap();
    scene.end();
}

#[test]
fn something_mounted_on_top_is_never_detached() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    mount(&["-t", "tmpfs", "none", &path.display().to_string()]);
    fs::write(path.join("precious"), "x").unwrap();
    let error = scene.begin(&target).commit().unwrap_err();
    assert!(matches!(error, CommitError::Conflict { .. }), "{error}");
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "x");
    drop(error);
    unmount(&path);
    assert_eq!(scene.read(&target), "generation 0");
    scene.end();
}

/// No two datasets claim the target's mount point, at any moment of a transaction.
#[test]
fn at_no_moment_do_two_datasets_claim_the_mount_point() {
    let scene = Scene::new();
    let path = scene.pool.directory().join("srv");
    let target = scene.name("t");
    let transaction = scene.zfs.transaction(&target).mountpoint(&path).begin().unwrap();
    assert_eq!(claims(&scene, &path), 0);
    transaction.commit().unwrap();
    for _ in 0..3 {
        let transaction = scene.begin(&target);
        assert_eq!(claims(&scene, &path), 1);
        transaction.commit().unwrap();
        assert_eq!(claims(&scene, &path), 1);
    }
    scene.end();
}

/// A crash between begin and commit leaves a workspace behind; a boot must not mount it anywhere.
#[test]
fn a_boot_in_the_middle_of_a_transaction_mounts_the_old_content_alone() {
    let scene = Scene::new();
    let path = scene.pool.directory().join("srv");
    let target = scene.dataset("t", &["-o", &format!("mountpoint={}", path.display())]);
    // As after a crash: the handle is gone, and so are the mounts.
    let id = abandon(&scene, &target, "forget");
    let workspace = format!("{target}-txn-{id}");
    let private = mounts_of(&workspace).remove(0);
    unmount(&private);
    fs::remove_dir(&private).unwrap();
    scene.pool.reimport();
    assert_eq!(scene.read(&target), "generation 0");
    assert!(mounts_of(&workspace).is_empty());
    scene.pool.cleanup();
}
