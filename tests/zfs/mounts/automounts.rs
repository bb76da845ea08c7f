//! Snapshots of the target that ZFS has mounted by itself, because somebody looked into `.zfs/snapshot`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use zfs_txn::{CommitError, DatasetName, Errno, Step, StepError, Transaction};

use crate::support::{Scene, again, assert_passed, mounts_of};

/// Looks into a snapshot, which ZFS mounts for that.
fn visit(target: &Path, snapshot: &str) {
    let file = target.join(".zfs/snapshot").join(snapshot).join("file");
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn begin(scene: &Scene, target: &DatasetName, content: &str) -> Transaction {
    let transaction = scene.begin(target);
    fs::write(transaction.path().join("file"), content).unwrap();
    transaction
}

/// The commit fails at the promote, and changes nothing.
fn refused(transaction: Transaction) -> (StepError, Transaction) {
    match transaction.commit() {
        Err(CommitError::Unchanged { error, transaction }) => {
            assert_eq!((error.step, error.errno), (Step::Promote, Errno::BUSY), "{error}");
            (error, *transaction)
        }
        Err(error) => panic!("{error}"),
        Ok(receipt) => panic!("{receipt:?}"),
    }
}

#[test]
fn a_visit_to_snapshots_of_the_target_is_not_in_the_way_of_a_promote() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for snapshot in ["a", "b"] {
        scene.pool.zfs(&["snapshot", &format!("{target}@{snapshot}")]);
        visit(&path, snapshot);
    }
    let transaction = begin(&scene, &target, "1");
    visit(&path, "a");
    // The base as well: whoever lists `.zfs/snapshot` finds it.
    visit(&path, &format!("txn-{}", transaction.id()));
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(scene.read(&target), "1");
    // What was looked into before is found again.
    visit(&path, "b");
    let receipt = begin(&scene, &target, "2").commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    for snapshot in ["a", "b"] {
        let file = path.join(".zfs/snapshot").join(snapshot).join("file");
        assert_eq!(fs::read_to_string(file).unwrap(), "generation 0");
    }
    scene.end();
}

/// `zfs promote` doesn't take a snapshot away from under somebody either.
#[test]
fn who_is_in_a_snapshot_keeps_it_and_the_error_names_it() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for snapshot in ["free", "used"] {
        scene.pool.zfs(&["snapshot", &format!("{target}@{snapshot}")]);
        visit(&path, snapshot);
    }
    let mut file = File::open(path.join(".zfs/snapshot/used/file")).unwrap();
    let (error, transaction) = refused(begin(&scene, &target, "new"));
    let said = error.to_string();
    assert!(said.contains(&format!("{target}@used")), "{said}");
    assert!(said.contains(&path.join(".zfs/snapshot/used").display().to_string()), "{said}");
    assert!(!said.contains("@free"), "{said}");
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!((content.as_str(), scene.read(&target).as_str()), ("generation 0", "generation 0"));
    drop(file);
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");

    // A mount that somebody asked for is never taken away.
    let own = scene.pool.directory().join("own");
    fs::create_dir(&own).unwrap();
    super::mount(&["-t", "zfs", &format!("{target}@free"), own.to_str().unwrap()]);
    let (error, transaction) = refused(begin(&scene, &target, "newer"));
    let said = error.to_string();
    assert!(said.contains("@free") && said.contains(own.to_str().unwrap()), "{said}");
    assert_eq!(mounts_of(&format!("{target}@free")), std::slice::from_ref(&own));
    super::unmount(&own);
    transaction.commit().unwrap();
    scene.end();
}

/// A hold of a snapshot is none of the promote's business; a send that goes on is.
#[test]
fn a_snapshot_that_is_sent_is_named() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "compression=off"]);
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("large"), vec![b'x'; 8 << 20]).unwrap();
    for snapshot in ["idle", "sent"] {
        scene.pool.zfs(&["snapshot", &format!("{target}@{snapshot}")]);
    }
    scene.pool.zfs(&["hold", "tag", &format!("{target}@idle")]);
    let mut send = Command::new("zfs");
    let mut send =
        send.args(["send", &format!("{target}@sent")]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4096];
    send.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let (error, transaction) = refused(begin(&scene, &target, "new"));
    let said = error.to_string();
    assert!(said.contains(&format!("{target}@sent")) && said.contains("zfs send"), "{said}");
    assert!(!said.contains("@idle"), "{said}");
    send.kill().unwrap();
    send.wait().unwrap();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    scene.pool.zfs(&["release", "tag", &format!("{target}@idle")]);
    scene.end();
}

/// The kernel mounts a snapshot where a mount's `mntpoint=` says, if it is a process in a chroot that looks.
#[test]
fn who_lives_in_a_chroot_gets_at_snapshots_after_a_commit_as_before() {
    const JAIL: &str = "ZFS_TXN_JAIL";
    const TEST: &str =
        "mounts::automounts::who_lives_in_a_chroot_gets_at_snapshots_after_a_commit_as_before";
    if let Ok(jail) = std::env::var(JAIL) {
        let (jail, file) = jail.split_once(':').unwrap();
        std::os::unix::fs::chroot(jail).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "generation 0");
        return;
    }
    let scene = Scene::new();
    let jail = scene.pool.mountpoint();
    let look = |file: &str| {
        let jail = format!("{}:{file}", jail.display());
        assert_passed(&again(TEST, JAIL, &jail).output().unwrap());
    };
    let target = scene.dataset("t", &[]);
    scene.pool.zfs(&["snapshot", &format!("{target}@s")]);
    look("/t/.zfs/snapshot/s/file");
    for content in ["1", "2"] {
        scene.publish(&target, content);
        look("/t/.zfs/snapshot/s/file");
    }
    // One that is mounted at another place than its own, and one that is created.
    let legacy = scene.dataset("legacy", &["-o", "mountpoint=legacy"]);
    let place = jail.join("place");
    fs::create_dir(&place).unwrap();
    super::mount(&["-t", "zfs", legacy.as_str(), place.to_str().unwrap()]);
    fs::write(place.join("file"), "generation 0").unwrap();
    scene.pool.zfs(&["snapshot", &format!("{legacy}@s")]);
    scene.publish(&legacy, "1");
    look("/place/.zfs/snapshot/s/file");
    let new = scene.name("parent/new");
    let transaction = scene.zfs.transaction(&new).create_parents().begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 0").unwrap();
    transaction.commit().unwrap();
    fs::write(jail.join("parent/file"), "generation 0").unwrap();
    scene.pool.zfs(&["snapshot", "-r", &format!("{}@s", scene.name("parent"))]);
    look("/parent/new/.zfs/snapshot/s/file");
    look("/parent/.zfs/snapshot/s/file");
    super::unmount(&place);
    scene.end();
}
