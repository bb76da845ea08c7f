//! Mount points at which a target that is created can't be mounted.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use zfs_txn::{BeginError, CommitError, Conflict};

use super::{mount, unmount};
use crate::support::{Identity, Scene, State, again, assert_passed};

/// A file system of its own, with or without writes.
fn mount_tmpfs(path: &Path, options: &str) {
    fs::create_dir_all(path).unwrap();
    mount(&["-t", "tmpfs", "-o", options, "none", path.to_str().unwrap()]);
}

fn set_immutable(path: &Path, on: bool) {
    let directory = fs::File::open(path).unwrap();
    let mut flags = ioctl_getflags(&directory).unwrap();
    flags.set(IFlags::IMMUTABLE, on);
    ioctl_setflags(&directory, flags).unwrap();
}

/// Mount points, each with what is in the way, how to make it so, and how to undo that.
type Obstacle = (&'static str, &'static str, fn(&Path), fn(&Path));

const OBSTACLES: [Obstacle; 6] = [
    (
        "full",
        "full",
        |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("precious"), "x").unwrap();
        },
        |path| fs::remove_dir_all(path).unwrap(),
    ),
    ("file", "file", |path| fs::write(path, "x").unwrap(), |path| fs::remove_file(path).unwrap()),
    (
        "dangling",
        "dangling",
        |path| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ),
    (
        "read-only/deep/t",
        "read-only",
        |path| mount_tmpfs(path, "ro"),
        |path| {
            unmount(path);
            fs::remove_dir(path).unwrap();
        },
    ),
    (
        "immutable/t",
        "immutable",
        |path| {
            fs::create_dir(path).unwrap();
            set_immutable(path, true);
        },
        |path| {
            set_immutable(path, false);
            fs::remove_dir(path).unwrap();
        },
    ),
    (
        "home",
        "home/alice",
        |path| mount_tmpfs(path, "rw"),
        |path| {
            unmount(path);
            fs::remove_dir(path).unwrap();
        },
    ),
];

#[test]
fn a_mount_point_that_can_t_be_mounted_is_found_at_begin_and_before_the_commit_point() {
    let scene = Scene::with_options(&["-O", "overlay=off"]);
    let top = scene.pool.mountpoint();
    let target = scene.name("t");
    for (mountpoint, named, spoil, mend) in OBSTACLES {
        let (mountpoint, named) = (top.join(mountpoint), top.join(named));
        let begin = || scene.zfs.transaction(&target).mountpoint(&mountpoint).begin();
        spoil(&named);
        let before = State::of(&scene, Identity::Kept);
        match begin().unwrap_err() {
            BeginError::Unmountable { dataset, path, .. } => {
                assert_eq!((dataset, &path), (target.clone(), &named));
            }
            // Found before anything is changed.
            BeginError::Mountpoint { mountpoint: it } => {
                assert_eq!((it, named.is_file()), (mountpoint.display().to_string(), true));
            }
            error => panic!("{}: {error}", mountpoint.display()),
        }
        before.assert_same(&State::of(&scene, Identity::Kept));
        mend(&named);

        let transaction = begin().unwrap();
        fs::write(transaction.path().join("file"), "new").unwrap();
        spoil(&named);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        let Conflict::Unmountable { dataset, path, .. } = conflict else { panic!("{conflict}") };
        assert_eq!((dataset, &path), (target.clone(), &named));
        mend(&named);
        assert_eq!(transaction.commit().unwrap().mounted, std::slice::from_ref(&mountpoint));
        assert_eq!(fs::read_to_string(mountpoint.join("file")).unwrap(), "new");
        scene.pool.zfs(&["destroy", target.as_str()]);
        let _ = fs::remove_dir_all(top.join(mountpoint));
    }
    scene.end();
}

/// The mount point of a parent that is created hides what is there now, that of the target included.
#[test]
fn the_mount_points_of_parents_count() {
    let scene = Scene::with_options(&["-O", "overlay=off"]);
    let parent = scene.pool.mountpoint().join("parent");
    fs::create_dir_all(parent.join("t")).unwrap();
    let begin = || scene.zfs.transaction(&scene.name("parent/t")).create_parents().begin();
    let BeginError::Unmountable { dataset, path, .. } = begin().unwrap_err() else { panic!() };
    assert_eq!((dataset, path), (scene.name("parent"), parent.clone()));
    // As long as that may hide it, all is well.
    scene.pool.zfs(&["set", "overlay=on", scene.pool.name()]);
    let mounted = begin().unwrap().commit().unwrap().mounted;
    assert_eq!(mounted, [parent.clone(), parent.join("t")]);
    scene.end();
}

/// A mount that passes on to nobody is of no use to the system.
#[test]
fn an_init_in_a_private_mount_namespace_says_that_nobody_else_sees_it() {
    const INNER: &str = "ZFS_TXN_PRIVATE_INIT";
    const TEST: &str =
        "mounts::points::an_init_in_a_private_mount_namespace_says_that_nobody_else_sees_it";
    if let Ok(target) = std::env::var(INNER) {
        let zfs = zfs_txn::Zfs::open().unwrap();
        let receipt = zfs.transaction(&target.parse().unwrap()).begin().unwrap().commit().unwrap();
        assert!(receipt.mounted_here_alone && receipt.mounted.len() == 1, "{receipt:?}");
        // An update says where else the old content is.
        let receipt = zfs.transaction(&target.parse().unwrap()).begin().unwrap().commit().unwrap();
        assert!(!receipt.mounted_here_alone, "{receipt:?}");
        return;
    }
    let scene = Scene::new();
    let target = scene.name("here");
    let receipt = scene.begin(&target).commit().unwrap();
    assert!(!receipt.mounted_here_alone, "{receipt:?}");
    let target = scene.name("private");
    let inner = again(TEST, INNER, target.as_str());
    let mut private = std::process::Command::new("unshare");
    // A copy of other tests' mounts would keep their pools busy.
    let others = format!(
        "awk '$3 == \"zfs\" && $1 !~ /^{0}(\\/|$)/ {{ print $2 }}' /proc/mounts | sort -r | xargs -r umount -l; \
         exec \"$@\"",
        scene.pool.name()
    );
    private.args(["--mount", "--propagation", "private", "sh", "-c", &others, "sh"]);
    private.arg(inner.get_program()).args(inner.get_args()).env(INNER, target.as_str());
    assert_passed(&private.output().unwrap());
    assert_eq!(scene.mounted_at(&target), None::<PathBuf>);
    scene.end();
}
