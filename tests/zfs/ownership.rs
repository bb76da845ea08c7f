//! Who owns the committed content: only what is wrong is changed, and nobody gains by it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{IFlags, XattrFlags, getxattr, ioctl_getflags, ioctl_setflags, setxattr};
use zfs_txn::{CommitError, DatasetName, Ownership, Strategy, Transaction};

use crate::support::{Scene, amount};
use crate::test_pool::figures;

const BOTH: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];
const CAPABILITIES: &str = "security.capability";
/// `struct vfs_cap_data` of the second revision: CAP_NET_RAW, permitted.
const NET_RAW: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ACCESS_LIST: &str = "system.posix_acl_access";

fn begin(
    scene: &Scene,
    target: &DatasetName,
    strategy: Strategy,
    ownership: Ownership,
) -> Transaction {
    scene.zfs.transaction(target).strategy(strategy).ownership(ownership).begin().unwrap()
}

fn make(path: &Path, (user, group): (u32, u32), mode: u32) {
    if !path.exists() {
        fs::write(path, "x").unwrap();
    }
    chown(path, Some(user), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn has(path: &Path) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

fn empower(path: &Path) {
    setxattr(path, CAPABILITIES, &NET_RAW, XattrFlags::empty()).unwrap();
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut room = vec![0; 256];
    let length = getxattr(path, name, &mut room[..]).ok()?;
    room.truncate(length);
    Some(room)
}

/// An access list as the kernel takes it: owner rw, user 1000 r, group r, the mask, others nothing.
fn share(path: &Path, mask: u16) {
    let entries =
        [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, mask, u32::MAX), (32, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(rights));
        list.extend(u32::to_le_bytes(id));
    }
    setxattr(path, ACCESS_LIST, &list, XattrFlags::empty()).unwrap();
}

fn flag(path: &Path, flags: IFlags) {
    let file = File::open(path).unwrap();
    let others = ioctl_getflags(&file).unwrap() - IFlags::IMMUTABLE - IFlags::APPEND;
    ioctl_setflags(&file, others | flags).unwrap();
}

#[test]
fn a_file_that_is_given_away_loses_its_set_id_bits() {
    let scene = Scene::new();
    for (number, strategy) in BOTH.into_iter().enumerate() {
        let target = scene.dataset(&format!("t{number}"), &[]);
        let path = scene.mounted_at(&target).unwrap();
        fs::create_dir(path.join("shared")).unwrap();
        make(&path.join("theirs"), (1000, 1000), 0o4755);
        fs::hard_link(path.join("theirs"), path.join("shared/link")).unwrap();
        make(&path.join("group's"), (1000, 1000), 0o2755);
        make(&path.join("marked"), (1000, 1000), 0o2644);
        make(&path.join("ours"), (0, 1000), 0o6755);
        make(&path.join("shared"), (1000, 1000), 0o2775);
        let transaction = begin(&scene, &target, strategy, Ownership::new().user(0).whole_tree());
        make(&transaction.path().join("new"), (1000, 1000), 0o6755);
        transaction.commit().unwrap();
        for (name, mode) in [
            ("theirs", 0o755),
            ("shared/link", 0o755),
            ("group's", 0o755),
            ("marked", 0o644),
            ("new", 0o755),
            // Its owner and its group stay.
            ("ours", 0o6755),
            // Of a directory the bit says which group is inherited.
            ("shared", 0o2775),
        ] {
            assert_eq!(has(&path.join(name)), (0, 1000, mode), "{strategy:?} {name}");
        }
        let transaction = begin(&scene, &target, strategy, Ownership::new().group(0).whole_tree());
        fs::write(transaction.path().join("file"), "x").unwrap();
        transaction.commit().unwrap();
        assert_eq!(has(&path.join("ours")), (0, 0, 0o755), "{strategy:?}");
    }
    scene.end();
}

/// How many bytes a commit in place sends.
fn sent(mut transaction: Transaction) -> u64 {
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    transaction.on_progress(move |progress| {
        seen.store(progress.bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    transaction.commit().unwrap();
    sent.load(Ordering::Relaxed)
}

/// Change times, owners and modes, capabilities and access lists.
type Everything = BTreeMap<PathBuf, ((i64, i64), (u32, u32, u32), [Option<Vec<u8>>; 2])>;

fn everything(directory: &Path) -> Everything {
    let entries = fs::read_dir(directory).unwrap();
    let all = entries.map(|entry| {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let more = [CAPABILITIES, ACCESS_LIST].map(|name| attribute(&path, name));
        (path.clone(), ((meta.ctime(), meta.ctime_nsec()), has(&path), more))
    });
    all.collect()
}

#[test]
fn what_is_right_is_not_touched_and_not_sent() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "acltype=posix", "-o", "xattr=sa"]);
    let path = scene.mounted_at(&target).unwrap();
    let kept = path.join("kept");
    fs::create_dir(&kept).unwrap();
    for number in 0..500 {
        make(&kept.join(number.to_string()), (0, 0), 0o644);
    }
    make(&kept.join("tool"), (0, 0), 0o755);
    empower(&kept.join("tool"));
    share(&kept.join("1"), 4);
    make(&kept.join("su"), (0, 0), 0o4755);
    flag(&kept.join("2"), IFlags::IMMUTABLE);
    flag(&kept.join("3"), IFlags::APPEND);
    let before = everything(&kept);
    let right = || Ownership::new().user(0).group(0).whole_tree();
    let change = |strategy, ownership, content| {
        let transaction = begin(&scene, &target, strategy, ownership);
        fs::write(transaction.path().join("file"), content).unwrap();
        transaction
    };
    let plain = sent(change(Strategy::InPlace, Ownership::new(), "one"));
    let owned = sent(change(Strategy::InPlace, right(), "two"));
    assert_eq!(everything(&kept), before);
    figures(&format!("500 files that are owned as asked: {owned} bytes are sent, else {plain}"));
    assert!(owned <= plain + 4096, "{owned} bytes are sent, and {plain} without an ownership");
    change(Strategy::Promote, right(), "three").commit().unwrap();
    assert_eq!(everything(&kept), before);
    // A mode as well: those that have another are changed, and no other file.
    for name in ["2", "3"] {
        flag(&kept.join(name), IFlags::empty());
    }
    let before = everything(&kept);
    change(Strategy::Promote, right().mode(0o755), "four").commit().unwrap();
    let mut after = everything(&kept);
    for (name, mode) in [("su", 0o755), ("1", 0o644)] {
        let path = kept.join(name);
        let was = after.insert(path.clone(), before[&path].clone()).unwrap();
        assert_eq!(was.1, (0, 0, mode), "{name}");
    }
    // The access list stays; the bits for the group are its mask.
    assert_eq!(after, before);
    assert!(attribute(&kept.join("1"), ACCESS_LIST).is_some());
    scene.end();
}

#[test]
fn capabilities_stay_with_a_file_that_is_given_away_where_nobody_gains_them() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "acltype=posix", "-o", "xattr=sa"]);
    let path = scene.mounted_at(&target).unwrap();
    let give = |strategy, ownership: Ownership| {
        let transaction = begin(&scene, &target, strategy, ownership.whole_tree());
        fs::write(transaction.path().join("file"), "x").unwrap();
        transaction.commit().unwrap();
    };
    for strategy in BOTH {
        let files = [("all", 0o755), ("few", 0o750), ("writers", 0o775), ("list", 0o755)];
        let to = |ownership: Ownership, expected: [bool; 4]| {
            for (name, mode) in files {
                let file = path.join(name);
                let _ = fs::remove_file(&file);
                make(&file, (1000, 1000), mode);
                if name == "list" {
                    share(&file, 5);
                    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
                }
                empower(&file);
            }
            give(strategy, ownership);
            for ((name, _), expected) in files.into_iter().zip(expected) {
                let found = attribute(&path.join(name), CAPABILITIES);
                assert_eq!(found, expected.then(|| NET_RAW.to_vec()), "{strategy:?} {name}");
            }
        };
        to(Ownership::new().group(50), [true, false, false, false]);
        to(Ownership::new().user(0), [true; 4]);
        to(Ownership::new().user(33), [false; 4]);
        to(Ownership::new().user(0).group(0), [true, false, false, false]);
        to(Ownership::new().user(1000).group(1000), [true; 4]);
    }
    scene.end();
}

#[test]
fn an_immutable_file_is_named_to_the_byte() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let name = OsStr::from_bytes(b"Gr\xfcn");
    for strategy in BOTH {
        let user = if strategy == Strategy::Promote { 1000 } else { 1001 };
        let ownership = Ownership::new().user(user).whole_tree();
        let mut transaction = begin(&scene, &target, strategy, ownership);
        let directory = transaction.path().join("dir");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), "x").unwrap();
        for (flags, what) in [(IFlags::IMMUTABLE, "immutable"), (IFlags::APPEND, "append-only")] {
            flag(&directory.join(name), flags);
            let error = match transaction.commit().unwrap_err() {
                CommitError::Unchanged { error, transaction: back } => {
                    transaction = *back;
                    error
                }
                error => panic!("{error}"),
            };
            let said = error.to_string();
            assert!(said.contains("set the ownership in the workspace"), "{said}");
            assert!(said.contains(r#""dir/Gr\xFCn": its owner or group"#), "{said}");
            assert!(said.contains(&format!("it is {what}")), "{said}");
            assert!(said.contains("chattr") && !said.contains("CAP_SYS_ADMIN"), "{said}");
        }
        flag(&directory.join(name), IFlags::empty());
        transaction.commit().unwrap();
        assert_eq!(has(&path.join("dir").join(name)), (user, 0, 0o644));
    }
    scene.end();
}

#[test]
fn what_is_mounted_inside_is_left_alone() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    // Of the same file system, too, and so with the same device number.
    let elsewhere = scene.pool.directory().join("elsewhere");
    let other = scene.dataset("other", &[]);
    let outside = scene.mounted_at(&other).unwrap().join("file");
    let ownership = Ownership::new().user(1000).mode(0o700).whole_tree();
    let transaction = begin(&scene, &target, Strategy::Promote, ownership);
    fs::create_dir(&elsewhere).unwrap();
    for name in ["on", "below", "on a file"] {
        fs::create_dir(transaction.path().join(name)).unwrap();
    }
    fs::write(transaction.path().join("covered"), "x").unwrap();
    let below = transaction.path().join("below");
    let mounts = [
        (below.clone(), transaction.path().join("on")),
        (outside.clone(), transaction.path().join("covered")),
    ];
    for (from, on) in &mounts {
        assert!(Command::new("mount").arg("--bind").args([from, on]).status().unwrap().success());
    }
    let before = has(&outside);
    let result = transaction.commit();
    for (_, on) in &mounts {
        let _ = Command::new("umount").arg(on).status();
    }
    result.unwrap();
    assert_eq!(has(&outside), before);
    assert_eq!(has(&path.join("below")), (1000, 0, 0o700));
    scene.end();
}

/// What a whole-tree ownership costs: `OWNED_FILES`, by default few.
#[test]
fn a_tree_of_many_files() {
    let files = amount("OWNED_FILES", 2_000);
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for number in 0..files {
        let directory = path.join((number / 1000).to_string());
        if number % 1000 == 0 {
            fs::create_dir(&directory).unwrap();
        }
        File::create(directory.join(number.to_string())).unwrap();
    }
    scene.pool.sync();
    let timed = |strategy, what: &str, ownership: Ownership| {
        let transaction = begin(&scene, &target, strategy, ownership);
        fs::write(transaction.path().join("file"), what).unwrap();
        let start = Instant::now();
        transaction.commit().unwrap();
        let took = start.elapsed();
        figures(&format!("{files} files, {strategy:?}, {what}: a commit takes {took:.2?}"));
    };
    let mut owners = [(0, 0), (7, 8)];
    for strategy in BOTH {
        let [has, other] = owners.map(|(user, group)| Ownership::new().user(user).group(group));
        timed(strategy, "the root alone is owned", has.clone());
        timed(strategy, "the whole tree is owned as asked", has.whole_tree());
        timed(strategy, "every file is given away", other.whole_tree());
        owners.reverse();
    }
    scene.end();
}
