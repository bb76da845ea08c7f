//! What is a change of the target, and what is none: told by what can be seen, and by no change time.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags,
    fallocate, ioctl_getflags, ioctl_setflags, lremovexattr, lsetxattr, mknodat, utimensat,
};
use zfs_txn::{Conflict, OnConflict, Strategy};

use super::{PAGE, STRATEGIES, begin, commit, conflict_of, has};
use crate::memory::{NoFlusher, is_kept, remount, store};
use crate::support::Scene;
use crate::test_write::write;

const SIZE: usize = 300_000;
/// A file's second record begins here.
const BLOCK: usize = 131_072;
const O_TMPFILE: i32 = 0o20_200_000;

/// What somebody does to a target, and whether this is a change.
struct Act {
    name: &'static str,
    act: fn(&Path) -> Vec<File>,
    changes: bool,
}

/// What is there when a transaction begins.
fn prepare(root: &Path) {
    for name in ["data", "other", "linked", "flagged"] {
        fs::write(root.join(name), vec![b'd'; SIZE]).unwrap();
        set(&root.join(name), b"value");
    }
    fs::hard_link(root.join("linked"), root.join("link")).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("directory/file"), "below").unwrap();
    symlink("data", root.join("symlink")).unwrap();
}

fn set(path: &Path, value: &[u8]) {
    lsetxattr(path, "user.name", value, XattrFlags::empty()).unwrap();
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Puts a file's times back after an act; nothing but its change time tells that something was done.
fn unseen(path: &Path, act: impl FnOnce()) {
    let meta = fs::metadata(path).unwrap();
    act();
    let last_access = Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() };
    let last_modification = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
    let times = Timestamps { last_access, last_modification };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

macro_rules! acts {
    ($($name:literal => $changes:literal, |$root:ident| $act:expr;)*) => {
        &[$(Act { name: $name, changes: $changes, act: |$root| { let _ = $act; Vec::new() } }),*]
    };
}

const ACTS: &[Act] = acts! {
    "the same bytes are written, and its time put back" => false, |root| {
        unseen(&root.join("data"), || {
            open(&root.join("data")).write_all_at(&[b'd'; 200_000], 50_000).unwrap();
        })
    };
    "the same bytes are stored, and its time put back" => false, |root| {
        unseen(&root.join("data"), || store(&root.join("data"), 2 * PAGE, &[b'd'; 5000]))
    };
    "a file is read" => false, |root| {
        fs::read(root.join("data")).unwrap();
        // Access times are written when the inode is forgotten.
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    "a directory is read" => false, |root| {
        fs::read_dir(root.join("directory")).unwrap().count();
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    "one byte is written, and its time put back" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).write_all_at(b"x", 150_001).unwrap();
    });
    "one byte is stored, and its time put back" => true, |root| unseen(&root.join("data"), || {
        store(&root.join("data"), 150_001, b"x");
    });
    "all after a block is replaced by a hole" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).set_len(BLOCK as u64).unwrap();
        open(&root.join("data")).set_len(SIZE as u64).unwrap();
    });
    "all is replaced by a hole" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).set_len(0).unwrap();
        open(&root.join("data")).set_len(SIZE as u64).unwrap();
    });
    "a hole is punched" => true, |root| unseen(&root.join("data"), || {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(open(&root.join("data")), punch, 5_000, 3_000).unwrap();
    });
    "a file is cut by a byte" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).set_len(SIZE as u64 - 1).unwrap();
    });
    "a file is longer by a hole" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).set_len(3 * SIZE as u64).unwrap();
    });
    "a file is cut at a block" => true, |root| unseen(&root.join("data"), || {
        open(&root.join("data")).set_len(BLOCK as u64).unwrap();
    });
    "an attribute is set" => true, |root| {
        lsetxattr(root.join("data"), "user.second", b"v", XattrFlags::empty()).unwrap()
    };
    "an attribute is changed" => true, |root| set(&root.join("data"), b"VALUE");
    "an attribute is removed" => true, |root| lremovexattr(root.join("data"), "user.name").unwrap();
    "an attribute of a directory is set" => true, |root| set(&root.join("directory"), b"value");
    "an attribute of the root is set" => true, |root| set(root, b"value");
    "a mode is changed" => true, |root| {
        fs::set_permissions(root.join("data"), Permissions::from_mode(0o640)).unwrap()
    };
    "an owner is changed" => true, |root| chown(root.join("data"), Some(1234), None).unwrap();
    "the root's mode is changed" => true, |root| {
        fs::set_permissions(root, Permissions::from_mode(0o750)).unwrap()
    };
    "a flag is set" => true, |root| {
        let file = open(&root.join("flagged"));
        ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | IFlags::NODUMP).unwrap()
    };
    "a project is set" => true, |root| {
        let mut command = Command::new("zfs");
        command.args(["project", "-s", "-p", "42"]).arg(root.join("data"));
        assert!(command.status().unwrap().success())
    };
    "a link is made" => true, |root| fs::hard_link(root.join("data"), root.join("new")).unwrap();
    "a link is removed" => true, |root| fs::remove_file(root.join("link")).unwrap();
    "a file is renamed" => true, |root| fs::rename(root.join("data"), root.join("new")).unwrap();
    "a file is moved" => true, |root| {
        fs::rename(root.join("data"), root.join("directory/data")).unwrap()
    };
    "a directory is renamed" => true, |root| {
        fs::rename(root.join("directory"), root.join("renamed")).unwrap()
    };
    "a directory is made" => true, |root| fs::create_dir(root.join("new")).unwrap();
    "a directory is removed" => true, |root| fs::remove_dir(root.join("empty")).unwrap();
    "a file is made" => true, |root| fs::write(root.join("new"), "").unwrap();
    "a file is removed" => true, |root| fs::remove_file(root.join("data")).unwrap();
    "a file is replaced" => true, |root| {
        fs::write(root.join("new"), vec![b'x'; SIZE]).unwrap();
        fs::rename(root.join("new"), root.join("data")).unwrap();
    };
    "a pipe is made" => true, |root| {
        mknodat(CWD, root.join("new"), FileType::Fifo, Mode::RUSR, 0).unwrap()
    };
    "a link leads elsewhere" => true, |root| {
        fs::remove_file(root.join("symlink")).unwrap();
        symlink("none", root.join("symlink")).unwrap();
    };
};

/// Files without a name, which nobody can find in a tree, are no content.
const NAMELESS: &[Act] = &[
    Act {
        name: "nameless files are made, and go",
        changes: false,
        act: |root| {
            drop(nameless(root, 20));
            Vec::new()
        },
    },
    Act {
        name: "nameless files are made, and stay",
        changes: false,
        act: |root| nameless(root, 20),
    },
    Act {
        name: "a file is made and deleted, but open",
        changes: false,
        act: |root| {
            let file = nameless(root, 1);
            file[0].write_all_at(&[b'x'; SIZE], 10).unwrap();
            file
        },
    },
];

fn nameless(root: &Path, count: usize) -> Vec<File> {
    let one = |_| {
        let mut options = File::options();
        let mut file = options.write(true).custom_flags(O_TMPFILE).open(root).unwrap();
        file.write_all(b"nobody's").unwrap();
        file
    };
    (0..count).map(one).collect()
}

/// Each act in the target of a transaction: one that is no change by each strategy, and the others, which
/// are many, by one or the other.
fn told_apart(acts: &[&[Act]], options: &[&str]) {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let times = ["-o", "atime=on", "-o", "relatime=off"];
    let mut wrong = Vec::new();
    for strategy in STRATEGIES {
        for (number, act) in acts.iter().copied().flatten().enumerate() {
            if act.changes && (number % 2 == 0) != (strategy == STRATEGIES[0]) {
                continue;
            }
            let name = format!("{strategy:?}-{number}");
            let target = scene.dataset(&name, &[&times[..], options].concat());
            let root = scene.mounted_at(&target).unwrap();
            prepare(&root);
            scene.pool.sync();
            let transaction = begin(&scene, &target, (strategy, OnConflict::Fail));
            write(transaction.path().join("file"), "generation 1").unwrap();
            let held = (act.act)(&root);
            let found = match (conflict_of(transaction), act.changes) {
                (Ok(Conflict::Modified { .. }), true) => None,
                (Err(error), false) if error.starts_with("committed") => {
                    (scene.read(&target) != "generation 1").then(|| "the change is lost".to_owned())
                }
                (Ok(conflict), _) => Some(format!("{conflict:?}")),
                (Err(error), _) => Some(error),
            };
            wrong.extend(found.map(|found| format!("{strategy:?}, {}: {found}", act.name)));
            drop(held);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert!(swept.unfinished.is_empty(), "{swept:?}");
    scene.end();
}

#[test]
fn a_change_is_told_from_what_is_none() {
    told_apart(&[ACTS, NAMELESS], &["-o", "xattr=sa"]);
}

/// Where attributes are files of their own, without compression, which would make holes of zeros.
#[test]
fn a_change_of_attributes_in_directories_is_told_from_what_is_none() {
    let attributes = ACTS.iter().position(|act| act.name == "an attribute is set").unwrap();
    let options = ["-o", "xattr=dir", "-o", "compression=off"];
    told_apart(&[&ACTS[..2], &ACTS[attributes..attributes + 5]], &options);
}

/// A file that was deleted while it was open, and is closed during the transaction: it is freed then.
#[test]
fn a_deleted_file_that_is_closed_is_no_change() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for strategy in STRATEGIES {
        let target = scene.dataset(&format!("{strategy:?}"), &[]);
        let root = scene.mounted_at(&target).unwrap();
        let mut held = nameless(&root, 5);
        for number in 0..5 {
            let path = root.join(format!("deleted-{number}"));
            fs::write(&path, vec![b'd'; SIZE]).unwrap();
            held.push(open(&path));
            fs::remove_file(path).unwrap();
        }
        scene.pool.sync();
        let transaction = begin(&scene, &target, (strategy, OnConflict::Fail));
        write(transaction.path().join("file"), "generation 1").unwrap();
        drop(held);
        scene.pool.sync();
        match commit(transaction) {
            Ok(receipt) if receipt.leftovers.is_empty() && receipt.overridden.is_empty() => {}
            found => wrong.push(format!("{strategy:?}: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.end();
}

/// What was larger for a while is as before to everybody, but has blocks of other sizes, which the change that is
/// received doesn't know of.
#[test]
fn what_was_larger_for_a_while_is_whole_after_a_commit() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "xattr=sa"]);
    let root = scene.mounted_at(&target).unwrap();
    fs::write(root.join("small"), vec![b's'; 1_000]).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    (0..3).for_each(|n| fs::write(root.join(format!("directory/{n}")), "kept").unwrap());
    let transaction = begin(&scene, &target, (Strategy::InPlace, OnConflict::Fail));
    // Their objects are beside those of what was larger.
    write(transaction.path().join("file"), "generation 1").unwrap();
    fs::write(transaction.path().join("new"), "new").unwrap();
    unseen(&root.join("small"), || {
        fs::write(root.join("small"), vec![b'x'; 500_000]).unwrap();
        scene.pool.sync();
        fs::write(root.join("small"), vec![b's'; 1_000]).unwrap();
    });
    unseen(&root.join("directory"), || {
        let more = |n| root.join(format!("directory/{}-{n}", "x".repeat(100)));
        (0..3_000).for_each(|n| drop(File::create(more(n)).unwrap()));
        scene.pool.sync();
        (0..3_000).for_each(|n| fs::remove_file(more(n)).unwrap());
    });
    scene.pool.sync();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.overridden.is_empty() && receipt.leftovers.is_empty(), "{receipt:?}");
    for mounted in ["as before", "anew"] {
        assert!(fs::read(root.join("small")).unwrap() == vec![b's'; 1_000], "mounted {mounted}");
        let names = fs::read_dir(root.join("directory")).unwrap().count();
        let all = (0..3).all(|n| root.join(format!("directory/{n}")).exists());
        assert!(names == 3 && all, "mounted {mounted}: {names}");
        assert_eq!(fs::read_to_string(root.join("new")).unwrap(), "new");
        remount(&scene, &target);
    }
    scene.end();
}

/// With `Overwrite`, what is no change is not kept, and what is one is, whatever its times say.
#[test]
fn what_is_overwritten_is_kept_if_it_is_a_change() {
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for strategy in STRATEGIES {
        for changes in [false, true] {
            let target = scene.dataset(&format!("{strategy:?}-{changes}"), &[]);
            let root = scene.mounted_at(&target).unwrap();
            prepare(&root);
            scene.pool.sync();
            let transaction = begin(&scene, &target, (strategy, OnConflict::Overwrite));
            write(transaction.path().join("file"), "generation 1").unwrap();
            let byte = if changes { b'x' } else { b'd' };
            unseen(&root.join("data"), || {
                open(&root.join("data")).write_all_at(&[byte], 150_001).unwrap();
            });
            let receipt = transaction.commit().unwrap();
            let expected = (usize::from(changes), changes);
            let kept = is_kept(&scene, &receipt, |root| has(&root.join("data"), 150_001, 1, b'x'));
            let left = receipt.leftovers.is_empty() != changes;
            if (receipt.overridden.len(), kept) != expected || !left {
                wrong.push(format!("{strategy:?}, {changes}: {receipt:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.pool.cleanup();
}

/// Quotas of users are content to ZFS, but stand in no file: set meanwhile, they are a conflict or carried
/// along.
#[test]
fn a_quota_that_others_set_is_not_lost() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for strategy in STRATEGIES {
        let quotas = ["userquota@1234", "groupquota@5678", "projectobjquota@42"];
        for (number, quota) in quotas.into_iter().enumerate() {
            for before in [None, Some("1G")].into_iter().skip(number % 2) {
                let name = format!("{strategy:?}-{number}-{}", before.is_some());
                let target = scene.dataset(&name, &[]);
                let set = |value: &str| {
                    scene.pool.zfs(&["set", &format!("{quota}={value}"), target.as_str()]);
                };
                before.into_iter().for_each(set);
                let transaction = begin(&scene, &target, (strategy, OnConflict::Fail));
                write(transaction.path().join("file"), "generation 1").unwrap();
                set("2G");
                let result = conflict_of(transaction);
                let now = scene.pool.zfs(&["get", "-Ho", "value", quota, target.as_str()]);
                let now = now.trim_end();
                // One of objects is shown as a number.
                if !matches!(now, "2G" | "2.00G" | "2147483648" | "2.15G") {
                    wrong.push(format!(
                        "{strategy:?}, {quota} from {before:?} is {now}: {result:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.end();
}
