//! What goes wrong is found early, undone, and said in a sentence that tells the reader what to do.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use zfs_txn::{
    BeginError, CommitError, Conflict, DatasetName, Errno, OpenError, Refusal, Step, Strategy,
    Transaction, Zfs,
};

use crate::support::{Identity, Scene, State, again, assert_passed};
use crate::volumes::device_of;

/// Opens, unless the module is said to be missing: the test below runs this one without /dev/zfs.
#[test]
fn opening_needs_the_module() {
    match (Zfs::open(), std::env::var_os("ZFS_TXN_WITHOUT_MODULE")) {
        (Err(OpenError::NoModule), Some(_)) => {
            assert!(OpenError::NoModule.to_string().contains("modprobe zfs"));
        }
        (Ok(_), None) => {}
        (result, expected) => panic!("{result:?}, without the module: {expected:?}"),
    }
}

#[test]
fn without_the_module_opening_says_how_to_load_it() {
    let inner = again("errors::opening_needs_the_module", "ZFS_TXN_WITHOUT_MODULE", "1");
    let mut shell = Command::new("unshare");
    // A copy of a pool's mounts in another namespace keeps the pool from being exported.
    let script = "umount --all --lazy --types zfs; mount -t tmpfs none /dev && exec \"$@\"";
    shell.args(["--mount", "sh", "-c", script, "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args()).env("ZFS_TXN_WITHOUT_MODULE", "1");
    assert_passed(&shell.output().unwrap());
}

/// Begins as root, and is told as anybody else: the test below runs this one as `nobody`.
#[test]
fn beginning_needs_root() {
    let Some(target) = std::env::var_os("ZFS_TXN_AS_NOBODY") else {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        scene.begin(&target).rollback().unwrap();
        return scene.end();
    };
    let target: DatasetName = target.to_str().unwrap().parse().unwrap();
    let error = match Zfs::open() {
        Ok(zfs) => zfs.transaction(&target).begin().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("run as root"), "{error}");
}

#[test]
fn somebody_else_than_root_is_told_so_and_changes_nothing() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let before = State::of(&scene, Identity::Kept);
    let mut nobody = again("errors::beginning_needs_root", "ZFS_TXN_AS_NOBODY", target.as_str());
    assert_passed(&nobody.uid(65534).gid(65534).output().unwrap());
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

#[test]
fn a_missing_pool_a_missing_parent_and_a_pools_root_are_told_apart() {
    let scene = Scene::new();
    let begin = |name: &str| {
        let target: DatasetName = name.parse().unwrap();
        scene.zfs.transaction(&target).begin().unwrap_err()
    };
    let error = begin("zfstxn-no-such-pool/t");
    assert!(matches!(&error, BeginError::NoSuchPool { pool } if pool == "zfstxn-no-such-pool"));
    assert!(error.to_string().contains("zpool import"), "{error}");
    let error = begin("zfstxn-no-such-pool");
    assert!(matches!(error, BeginError::NoSuchPool { .. }), "{error}");
    let error = begin(&scene.pool.dataset("missing/t"));
    assert!(matches!(&error, BeginError::NoParent { parent } if *parent == scene.name("missing")));
    let error = begin(scene.pool.name());
    assert!(matches!(error, BeginError::PoolRoot { .. }), "{error}");
    scene.end();
}

/// Whoever has no capability can mount nothing, though all permissions be delegated to them; nothing is left.
#[test]
fn with_all_permissions_delegated_nothing_can_be_mounted() {
    const TARGET: &str = "ZFS_TXN_DELEGATED";
    if let Ok(target) = std::env::var(TARGET) {
        let zfs = Zfs::open().unwrap();
        let error = zfs.transaction(&target.parse().unwrap()).begin().unwrap_err();
        let BeginError::Failed { error, left } = error else { panic!("{error}") };
        // By that mount, what readers of the target see is written to the pool.
        assert_eq!((error.step, error.errno), (Step::TakeBase, Errno::PERM));
        return assert!(left.is_empty(), "{left:?}");
    }
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let permissions = "snapshot,clone,create,mount,promote,rename,destroy,userprop,canmount";
    scene.pool.zfs(&["allow", "-u", "nobody", permissions, scene.pool.name()]);
    // As udev has it.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions("/dev/zfs", everybody).unwrap();
    let before = State::of(&scene, Identity::Kept);
    let test = "errors::with_all_permissions_delegated_nothing_can_be_mounted";
    let mut nobody = again(test, TARGET, target.as_str());
    assert_passed(&nobody.uid(65534).gid(65534).output().unwrap());
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

#[test]
fn what_a_transaction_cannot_be_about_is_refused_at_begin() {
    let scene = Scene::new();
    scene.pool.zfs(&["create", "-s", "-V", "1M", &scene.pool.dataset("volume")]);
    let (parent, readonly) = (scene.dataset("parent", &[]), scene.dataset("readonly", &[]));
    scene.pool.zfs(&["set", "readonly=on", readonly.as_str()]);
    scene.dataset("parent/child", &[]);
    scene.pool.zfs(&["snapshot", &scene.pool.dataset("parent/child@s")]);
    let child = scene.name("parent/child");
    let before = State::of(&scene, Identity::Kept);
    let begin = |target: &DatasetName| scene.zfs.transaction(target).begin().unwrap_err();
    assert!(matches!(begin(&scene.name("volume")), BeginError::Volume { .. }));
    assert!(matches!(begin(&scene.name("volume/t")), BeginError::Volume { .. }));
    assert!(matches!(begin(&parent), BeginError::HasChildren { count: 1, .. }));
    assert!(matches!(begin(&readonly), BeginError::ReadOnly { .. }));
    assert!(matches!(begin(&scene.name("readonly/t")), BeginError::ReadOnly { .. }));
    let error = scene.zfs.transaction(&child).snapshot("s").begin().unwrap_err();
    assert!(matches!(error, BeginError::SnapshotExists { .. }), "{error}");
    let error = scene.zfs.transaction(&child).snapshot("a/b").begin().unwrap_err();
    assert!(matches!(error, BeginError::Name(_)), "{error}");
    let error = scene.zfs.transaction(&child).mountpoint("/elsewhere").begin().unwrap_err();
    assert!(matches!(error, BeginError::MountpointOfExisting { .. }), "{error}");
    for mountpoint in ["relative", "/dev/null/below", &format!("/{}", "l".repeat(256))] {
        let new = scene.name("t");
        let error = scene.zfs.transaction(&new).mountpoint(mountpoint).begin().unwrap_err();
        assert!(matches!(error, BeginError::Mountpoint { .. }), "{error}");
    }
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

#[test]
fn a_target_that_belongs_to_a_zone_is_refused() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "zoned=on"]);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(matches!(error, BeginError::Zoned { .. }), "{error}");
    scene.end();
}

/// A container chooses its mount points, and the host would mount there.
#[test]
fn a_target_to_be_created_in_a_zone_is_refused() {
    let scene = Scene::new();
    let host = scene.pool.directory().join("of-the-host");
    fs::create_dir(&host).unwrap();
    let mountpoint = format!("mountpoint={}", host.display());
    let given = ["-o", "canmount=noauto", "-o", &mountpoint, "-o", "zoned=on"];
    let container = scene.dataset("container", &given);
    let before = State::of(&scene, Identity::Kept);
    for new in ["container/t", "container/parent/t"] {
        let new = scene.name(new);
        let error = scene.zfs.transaction(&new).create_parents().begin().unwrap_err();
        let BeginError::Zoned { target } = &error else { panic!("{error}") };
        assert_eq!(*target, container);
    }
    before.assert_same(&State::of(&scene, Identity::Kept));

    // Given to a container since begin.
    let later = scene.dataset("later", &["-o", "canmount=noauto", "-o", &mountpoint]);
    let transaction = scene.begin(&scene.name("later/t"));
    scene.pool.zfs(&["set", "zoned=on", later.as_str()]);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Refused { target: later, refusal: Refusal::Zoned });
    transaction.rollback().unwrap();
    assert!(fs::read_dir(&host).unwrap().next().is_none());
    scene.end();
}

/// The longest name that begin accepts can be committed; one byte more is refused by begin.
#[test]
fn a_name_too_long_by_one_byte_is_refused_at_begin_and_never_at_commit() {
    let scene = Scene::new();
    let suffixes = "-old-0123456789abcdef@txn-0123456789abcdef-look".len();
    let longest = 255 - suffixes - scene.pool.name().len() - 1;
    let fits = scene.name(&"n".repeat(longest));
    scene.publish(&fits, "init");
    scene.publish(&fits, "update");
    assert_eq!(scene.read(&fits), "update");
    let error = scene.zfs.transaction(&scene.name(&"n".repeat(longest + 1))).begin().unwrap_err();
    assert!(matches!(error, BeginError::NameTooLong { len: 256, .. }), "{error}");

    let target = scene.dataset("t", &[]);
    let workspace = target.as_str().len() + "-txn-0123456789abcdef@".len();
    let snapshot = |len: usize| format!("{target}@{}", "s".repeat(len));
    scene.pool.zfs(&["snapshot", &snapshot(255 - workspace)]);
    scene.publish(&target, "with the longest snapshot name");
    scene.pool.zfs(&["snapshot", &snapshot(256 - workspace)]);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(matches!(error, BeginError::NameTooLong { len: 256, .. }), "{error}");
    scene.end();
}

#[test]
fn a_read_only_pool_is_found_before_anything_is_changed() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    scene.pool.reimport_with(&["-o", "readonly=on"]);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    let BeginError::Failed { error: step, left } = &error else { panic!("{error}") };
    assert_eq!((step.step, step.errno, left.len()), (Step::Look, Errno::ROFS, 0));
    assert!(error.to_string().contains("read-only"), "{error}");
    scene.end();
}

/// A pool whose device ran out of room under it: I/O errors suspend it.
#[test]
fn a_suspended_pool_is_found_before_anything_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    };
    let (dir, name) = (path.display(), format!("zfstxn-test-{}-suspended", std::process::id()));
    shell(&format!(
        "mount -t tmpfs -o size=100m none {dir}; truncate -s 1G {dir}/device; \
         zpool create -o cachefile=none -o failmode=wait -O mountpoint={dir}/mnt -O compression=off \
         {name} {dir}/device; zfs create {name}/t; zpool sync {name}"
    ));
    fill(&path.join("device.ballast"));
    shell(&format!(
        "dd if=/dev/urandom of={dir}/mnt/big bs=1M count=20 2>/dev/null; \
         (zpool sync {name} >/dev/null 2>&1 &); for i in $(seq 100); do \
         grep -q SUSPENDED /proc/spl/kstat/zfs/{name}/state && exit 0; sleep 0.2; done; exit 1"
    ));
    let target: DatasetName = format!("{name}/t").parse().unwrap();
    let zfs = Zfs::open();
    let result = zfs.as_ref().map(|zfs| zfs.transaction(&target).begin());
    // Give the room back, so that the pool can be destroyed whatever is asserted below.
    fs::remove_file(path.join("device.ballast")).unwrap();
    shell(&format!("zpool clear {name}; zpool sync {name}"));
    let then = zfs.as_ref().map(|zfs| zfs.transaction(&target).begin().map(Transaction::rollback));
    shell(&format!("zpool destroy {name}; umount {dir}"));
    // What the error says has helped.
    then.unwrap().unwrap().unwrap();
    let error = result.unwrap().unwrap_err();
    let BeginError::Failed { error: step, left } = &error else { panic!("{error}") };
    assert_eq!((step.step, step.errno, left.len()), (Step::Look, Errno::AGAIN, 0));
    assert!(error.to_string().contains("zpool clear"), "{error}");
}

/// Writes until the file system is full.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = vec![7; 1 << 16];
    while file.write_all(&block).is_ok() {}
}

#[test]
fn a_full_pool_lets_a_commit_fail_with_nothing_changed_or_succeed_whole() {
    let scene = Scene::with_options(&["-O", "compression=off"]);
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    fill(&scene.pool.mountpoint().join("ballast"));
    scene.pool.sync();
    let second = scene.zfs.transaction(&target).begin();
    match second {
        Err(error) => assert!(error.to_string().contains("no room left"), "{error}"),
        Ok(second) => second.rollback().unwrap(),
    }
    match transaction.commit() {
        Ok(receipt) => assert!(receipt.leftovers.is_empty(), "{receipt:?}"),
        Err(CommitError::Unchanged { error, transaction }) => {
            assert_eq!(error.errno, Errno::NOSPC, "{error}");
            assert_eq!(scene.read(&target), "generation 0");
            fs::remove_file(scene.pool.mountpoint().join("ballast")).unwrap();
            scene.pool.sync();
            transaction.commit().unwrap();
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(scene.read(&target), "ours");
    scene.end();
}

/// A clone needs room for its own reservation: the parent's quota has none left for a second one.
#[test]
fn a_quota_that_is_reached_is_named_and_begin_leaves_nothing() {
    let scene = Scene::new();
    scene.dataset("parent", &["-o", "quota=100M"]);
    let target = scene.dataset("parent/t", &["-o", "reservation=60M"]);
    let before = State::of(&scene, Identity::Kept);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    let BeginError::Failed { error: step, left } = &error else { panic!("{error}") };
    assert_eq!((step.step, left.len()), (Step::CloneWorkspace, 0), "{error}");
    assert!(matches!(step.errno, Errno::NOSPC | Errno::DQUOT), "{error}");
    assert!(error.to_string().contains("reservation"), "{error}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

#[test]
fn a_snapshot_in_use_makes_promote_busy_and_the_commit_can_be_tried_again() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let snapshot = format!("{target}@s");
    scene.pool.zfs(&["snapshot", &snapshot]);
    let place = scene.pool.directory().join("snapshot");
    fs::create_dir(&place).unwrap();
    let mounted = Command::new("mount").args(["-t", "zfs", &snapshot]).arg(&place).status();
    assert!(mounted.unwrap().success());
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
    assert_eq!((error.step, error.errno), (Step::Promote, Errno::BUSY));
    assert!(error.to_string().contains(".zfs"), "{error}");
    assert_eq!(scene.read(&target), "generation 0");
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    transaction.commit().unwrap();
    assert_eq!(scene.read(&target), "ours");
    scene.end();
}

/// I9: what a commit will have to write down is weighed at begin, with a mount point and a place of bytes
/// that take up the most.
#[test]
fn a_record_that_would_outgrow_its_property_is_refused_at_begin() {
    let scene = Scene::new();
    let path = |parts: usize| format!("{}/{}", scene.pool.directory().display(), long_path(parts));
    let option = |parts: usize| format!("mountpoint={}", path(parts));
    for (name, parts, fits) in [("short", 8, true), ("long", 15, false)] {
        let above = scene.name(name);
        let options = ["create", "-o", "canmount=off", "-o", &option(parts), above.as_str()];
        scene.pool.zfs(&options);
        let target = scene.name(&format!("{name}/t"));
        scene.pool.zfs(&["create", "-u", target.as_str()]);
        let before = State::of(&scene, Identity::Kept);
        match scene.zfs.transaction(&target).begin() {
            Ok(transaction) => {
                assert!(fits);
                transaction.commit().unwrap();
            }
            Err(BeginError::RecordTooLong { target: named, length }) => {
                assert!(!fits && named == target && length > 8_191, "{length}");
                before.assert_same(&State::of(&scene, Identity::Kept));
            }
            Err(error) => panic!("{name}: {error}"),
        }
        // No mount point is written down.
        let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
        builder.begin().unwrap().commit().unwrap();
    }
    scene.end();
}

/// Some parts of a path, of 200 bytes that take three each in a record.
fn long_path(parts: usize) -> String {
    vec![" ".repeat(200); parts].join("/")
}

/// What a change in place needs of the pool is found out before anything is made, and the advice is right.
#[test]
fn a_pool_without_bookmarks_is_found_at_begin_and_what_the_error_says_helps() {
    // Without features, and of before there were any.
    for options in [&["-d"][..], &["-o", "version=28"]] {
        let scene = Scene::with_options(options);
        let target = scene.dataset("t", &[]);
        let volume = scene.name("volume");
        scene.pool.zfs(&["create", "-s", "-V", "1M", volume.as_str()]);
        let before = State::of(&scene, Identity::Kept);
        let in_place =
            |name: &DatasetName| scene.zfs.transaction(name).strategy(Strategy::InPlace).begin();
        for name in [&target, &volume] {
            let error = in_place(name).unwrap_err();
            assert!(matches!(&error, BeginError::NoBookmarks { target } if target == name));
            let advice = format!("`zpool set feature@bookmarks=enabled {}`", scene.pool.name());
            assert!(error.to_string().contains(&advice), "{error}");
        }
        before.assert_same(&State::of(&scene, Identity::Kept));

        // A commit by promote doesn't go over to what can't be done.
        let transaction = scene.begin(&target);
        scene.pool.zfs(&["snapshot", &format!("{target}@newer")]);
        let CommitError::Conflict { conflict, transaction } = transaction.commit().unwrap_err()
        else {
            panic!("no conflict");
        };
        assert!(matches!(conflict, Conflict::NewerSnapshot { .. }), "{conflict}");
        transaction.rollback().unwrap();

        scene.pool.zpool(&["set", "feature@bookmarks=enabled", scene.pool.name()]);
        let transaction = in_place(&target).unwrap();
        fs::write(transaction.path().join("file"), "ours").unwrap();
        transaction.commit().unwrap();
        assert_eq!(scene.read(&target), "ours");
        scene.end();
    }
}

/// A control group that allows no further thread: the kernel's EAGAIN is not that of a suspended pool.
#[test]
fn a_limit_of_threads_is_told_from_a_suspended_pool_and_what_the_error_says_helps() {
    const GROUP: &str = "ZFS_TXN_GROUP";
    let test =
        "errors::a_limit_of_threads_is_told_from_a_suspended_pool_and_what_the_error_says_helps";
    let Ok(group) = std::env::var(GROUP) else {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        let mount = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(top).status();
        assert!(mount.unwrap().success());
        fs::write(top.join("cgroup.subtree_control"), "+pids").unwrap();
        let group = top.join("zfs-txn-test");
        fs::create_dir(&group).unwrap();
        let output = again(test, GROUP, group.to_str().unwrap()).output().unwrap();
        fs::remove_dir(&group).unwrap();
        assert!(Command::new("umount").arg(top).status().unwrap().success());
        return assert_passed(&output);
    };
    let group = Path::new(&group);
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let current = fs::read_to_string(group.join("pids.current")).unwrap();
    let current: u32 = current.trim().parse().unwrap();
    let mut transaction = Some(transaction);
    // Each of the threads that a commit has.
    for more in 0..3 {
        fs::write(group.join("pids.max"), (current + more).to_string()).unwrap();
        let error = transaction.take().unwrap().commit().unwrap_err();
        let CommitError::Unchanged { error: step, transaction: back } = error else {
            panic!("{error}")
        };
        assert_eq!(step.errno, Errno::AGAIN, "{step}");
        let said = step.to_string();
        assert!(said.contains("thread") && said.contains("pids.max"), "{said}");
        assert!(!said.contains("suspended"), "{said}");
        transaction = Some(*back);
    }
    fs::write(group.join("pids.max"), (current + 3).to_string()).unwrap();
    transaction.unwrap().commit().unwrap();
    fs::write(group.join("pids.max"), "max").unwrap();
    assert_eq!(scene.read(&target), "ours");
    scene.end();
}

/// The base keeps what the target has, and the reservation is for as much again.
#[test]
fn a_refreservation_that_leaves_no_room_for_a_snapshot_is_named_with_what_is_missing() {
    const MIB: u64 = 1 << 20;
    let scene = Scene::with_options(&["-O", "compression=off"]);
    scene.dataset("parent", &["-o", "quota=100M"]);
    let (volume, filesystem) = (scene.name("parent/volume"), scene.name("parent/fs"));
    scene.pool.zfs(&["create", "-V", "40M", volume.as_str()]);
    let mut device = File::options().write(true).open(device_of(volume.as_str())).unwrap();
    device.write_all(&vec![7; 30 << 20]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    scene.dataset("parent/fs", &["-o", "refreservation=40M"]);
    fs::write(scene.mounted_at(&filesystem).unwrap().join("large"), vec![7; 30 << 20]).unwrap();
    scene.pool.sync();
    let begin =
        |target: &DatasetName, strategy| scene.zfs.transaction(target).strategy(strategy).begin();
    let all = || scene.pool.zfs(&["list", "-Hro", "name", "-t", "all", scene.pool.name()]);
    let before = all();
    for (target, strategy) in [
        (&volume, Strategy::InPlace),
        (&filesystem, Strategy::InPlace),
        (&filesystem, Strategy::Promote),
    ] {
        let error = begin(target, strategy).unwrap_err();
        let said = error.to_string();
        let BeginError::NoRoomForSnapshot { needed, missing: Some(missing), .. } = error else {
            panic!("{said}");
        };
        assert!((30 * MIB..42 * MIB).contains(&needed) && missing < needed, "{said}");
        assert!(said.contains(&format!("refreservation=none {target}")), "{said}");
        assert_eq!(all(), before);
        if strategy == Strategy::Promote {
            continue;
        }
        // As much as that, and no less.
        let quota = |more: u64| {
            scene.pool.zfs(&[
                "set",
                &format!("quota={}", 100 * MIB + more),
                &scene.pool.dataset("parent"),
            ])
        };
        quota(missing - MIB);
        assert!(matches!(begin(target, strategy), Err(BeginError::NoRoomForSnapshot { .. })));
        quota(missing + MIB);
        begin(target, strategy).unwrap().rollback().unwrap();
        quota(0);
    }
    // Where a quota of its own hides how much there is.
    scene.pool.zfs(&["set", "refquota=40M", filesystem.as_str()]);
    let error = begin(&filesystem, Strategy::Promote).unwrap_err();
    assert!(matches!(error, BeginError::NoRoomForSnapshot { missing: None, .. }), "{error}");
    // The other way that is named.
    for target in [&volume, &filesystem] {
        scene.pool.zfs(&["set", "refreservation=none", target.as_str()]);
        begin(target, Strategy::InPlace).unwrap().rollback().unwrap();
    }
    scene.end();
}
