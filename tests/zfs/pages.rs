//! What is read after a commit in place of files that were mapped before: a read of them goes through the
//! kernel's page cache, which a receive leaves as it is. No page of the old content may be left, by
//! whatever name, mount or descriptor a file is read; and a file that is mapped can't be changed.

mod long;
mod partitions;

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, XattrFlags, fallocate};
use zfs_txn::{CommitError, Conflict, DatasetName, OnConflict, Receipt, Strategy, Transaction};

pub use long::Deep;

use crate::memory::{Elsewhere, map_once, map_once_of};
use crate::support::{Identity, Scene, State, again, amount, assert_passed};
use crate::test_mapping::{Interruptions, Mapping};
use crate::test_pool::figures;

const O_TMPFILE: i32 = 0o20_200_000;
const RECORD: usize = 131_072;
const SIZE: usize = 2 * RECORD + 5_000;

fn begin(scene: &Scene, target: &DatasetName) -> Transaction {
    scene.zfs.transaction(target).strategy(Strategy::InPlace).begin().unwrap()
}

/// Writes into a file that is there: into its second record, and into its last.
fn change(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[b'n'; 3_000], RECORD as u64 + 1_000).unwrap();
    file.write_all_at(&[b'n'; 3_000], SIZE as u64 - 3_000).unwrap();
}

fn create(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![b'o'; SIZE]).unwrap();
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn assert_clean(receipt: &Receipt) {
    assert!(receipt.stale.is_empty() && receipt.leftovers.is_empty(), "{receipt:?}");
}

/// Files by their names before a commit and after it, which were mapped once and are open all the time:
/// they are read as the workspace has them.
fn read_as_new(
    prepare: impl Fn(&Path),
    files: &[(&str, &str)],
    change: impl Fn(&Path),
) -> (Scene, DatasetName) {
    read_as_new_but(&[], prepare, files, change)
}

/// The same, where the receipt names these, which what is open keeps from being forgotten.
fn read_as_new_but(
    stale: &[&str],
    prepare: impl Fn(&Path),
    files: &[(&str, &str)],
    change: impl Fn(&Path),
) -> (Scene, DatasetName) {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    prepare(&path);
    scene.pool.sync();
    let mut held: Vec<File> =
        files.iter().map(|(name, _)| File::open(path.join(name)).unwrap()).collect();
    held.iter().for_each(map_once_of);
    let transaction = begin(&scene, &target);
    change(transaction.path());
    let read = |root: &Path| -> Vec<Vec<u8>> {
        files.iter().map(|(_, name)| fs::read(root.join(name)).unwrap()).collect()
    };
    let expected = read(transaction.path());
    assert!(expected.iter().zip(&mut held).all(|(new, old)| *new != content(old)), "no change");
    let receipt = transaction.commit().unwrap();
    let told: HashSet<&Path> = receipt.stale.iter().map(PathBuf::as_path).collect();
    let expected_names: HashSet<&Path> = stale.iter().map(Path::new).collect();
    assert_eq!((told, &receipt.leftovers[..]), (expected_names, &[][..]));
    for (((_, name), expected), (now, file)) in
        files.iter().zip(expected).zip(read(&path).into_iter().zip(&mut held))
    {
        assert!(now == expected, "{name}: old content by its name");
        assert!(content(file) == expected, "{name}: old content by a descriptor");
    }
    (scene, target)
}

/// However a filesystem has its files described: with attributes beside or in files of their own, lists,
/// projects, in large descriptions, encrypted, and as before SA.
#[test]
fn files_are_read_as_new_however_they_are_described() {
    let scene = Scene::new();
    let key = scene.pool.directory().join("key");
    fs::write(&key, "a passphrase").unwrap();
    let location = format!("keylocation=file://{}", key.display());
    let kinds: [&[&str]; 5] = [
        &["xattr=sa", "acltype=posix", "dnodesize=auto", "recordsize=1M"],
        &["xattr=dir", "recordsize=16K", "compression=off"],
        &["encryption=on", "keyformat=passphrase", &location, "xattr=sa"],
        &["version=4", "xattr=dir"],
        &["dedup=on", "checksum=sha256", "compression=zstd", "atime=on"],
    ];
    let mut old = Vec::new();
    for (number, options) in kinds.into_iter().enumerate() {
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        let target = scene.dataset(&format!("t{number}"), &options);
        let path = scene.mounted_at(&target).unwrap();
        let names = ["plain", "small", "large", "project", "owner", "linked"];
        names.iter().for_each(|name| create(&path.join(name)));
        let set = |name: &str, value: &[u8]| {
            let name = path.join(name);
            rustix::fs::lsetxattr(name, "user.name", value, XattrFlags::empty()).unwrap();
        };
        set("small", b"value");
        set("large", &[7; 30_000]);
        if number != 3 {
            let project = path.join("project").display().to_string();
            scene.pool.zfs(&["project", "-s", "-p", "42", &project]);
        }
        std::os::unix::fs::chown(path.join("owner"), Some(4_000_000_000), Some(70_000)).unwrap();
        fs::hard_link(path.join("linked"), path.join("link")).unwrap();
        fs::remove_file(path.join("link")).unwrap();
        scene.pool.sync();
        let mut held = names.map(|name| File::open(path.join(name)).unwrap());
        held.iter().for_each(map_once_of);
        let transaction = begin(&scene, &target);
        names.iter().for_each(|name| change(&transaction.path().join(name)));
        let expected = names.map(|name| fs::read(transaction.path().join(name)).unwrap());
        assert_clean(&transaction.commit().unwrap());
        for ((name, expected), file) in names.iter().zip(&expected).zip(&mut held) {
            if fs::read(path.join(name)).unwrap() != *expected || content(file) != *expected {
                old.push(format!("{name} with {options:?}"));
            }
        }
    }
    assert!(old.is_empty(), "old content:\n{}", old.join("\n"));
    scene.end();
}

/// Package stores and backups are trees of links: the link by which a file was last known may be gone.
#[test]
fn a_file_that_has_lost_its_newest_link_is_read_as_new() {
    let prepare = |root: &Path| {
        create(&root.join("a/f"));
        fs::create_dir(root.join("b")).unwrap();
        fs::hard_link(root.join("a/f"), root.join("b/f")).unwrap();
        rustix::fs::sync();
        fs::remove_file(root.join("b/f")).unwrap();
    };
    read_as_new(prepare, &[("a/f", "a/f")], |root| change(&root.join("a/f"))).0.end();
}

#[test]
fn a_file_that_has_lost_its_oldest_link_is_read_as_new() {
    let prepare = |root: &Path| {
        for name in ["a/f", "a/g"] {
            create(&root.join(name));
        }
        fs::create_dir(root.join("b")).unwrap();
        for name in ["b/f", "b/second"] {
            fs::hard_link(root.join("a/f"), root.join(name)).unwrap();
        }
        fs::hard_link(root.join("a/g"), root.join("b/g")).unwrap();
        rustix::fs::sync();
        for name in ["a/f", "b/f", "a/g"] {
            fs::remove_file(root.join(name)).unwrap();
        }
        // And where the link was, there is another file.
        create(&root.join("b/f"));
    };
    let files = ["b/second", "b/f", "b/g"].map(|name| (name, name));
    let all = |root: &Path| files.iter().for_each(|(name, _)| change(&root.join(name)));
    read_as_new(prepare, &files, all).0.end();
}

/// Directories are renamed and changed about, in the transaction and before.
#[test]
fn files_below_renamed_directories_are_read_as_new() {
    let prepare = |root: &Path| {
        for name in ["a/x/f", "b/x/f", "c/x/y/f", "d/f", "was/f", "gone/f"] {
            create(&root.join(name));
        }
        rustix::fs::sync();
        fs::rename(root.join("was"), root.join("is")).unwrap();
    };
    let files = [
        ("a/x/f", "b/x/f"),
        ("b/x/f", "a/x/f"),
        ("c/x/y/f", "new/deep/y/f"),
        ("d/f", "d/g"),
        ("is/f", "is/f"),
        ("gone/f", "f"),
    ];
    let renamed = |root: &Path| {
        let rename = |from: &str, to: &str| fs::rename(root.join(from), root.join(to)).unwrap();
        rename("a", "third");
        rename("b", "a");
        rename("third", "b");
        fs::create_dir(root.join("new")).unwrap();
        rename("c/x", "new/deep");
        rename("d/f", "d/g");
        rename("gone/f", "f");
        fs::remove_dir(root.join("gone")).unwrap();
        files.iter().for_each(|(_, name)| change(&root.join(name)));
    };
    read_as_new_but(&["a", "b", "c/x", "d/f"], prepare, &files, renamed).0.end();
}

/// What is behind a file's end has no block, and so no record in the stream, but pages.
#[test]
fn a_file_that_is_cut_at_a_block_has_zeros_where_it_grows_again() {
    let files = [("one", "one"), ("two", "two"), ("all", "all")];
    let prepare = |root: &Path| files.iter().for_each(|(name, _)| create(&root.join(name)));
    let cut = |root: &Path| {
        for (name, length) in [("one", RECORD), ("two", 2 * RECORD), ("all", 0)] {
            let file = File::options().write(true).open(root.join(name)).unwrap();
            file.set_len(length as u64).unwrap();
        }
    };
    let (scene, target) = read_as_new(prepare, &files, cut);
    let path = scene.mounted_at(&target).unwrap();
    for (name, length) in [("one", RECORD), ("two", 2 * RECORD), ("all", 0)] {
        let file = File::options().write(true).open(path.join(name)).unwrap();
        file.set_len(SIZE as u64).unwrap();
        let now = fs::read(path.join(name)).unwrap();
        assert!(now.len() == SIZE && now[..length].iter().all(|byte| *byte == b'o'), "{name}");
        assert!(now[length..].iter().all(|byte| *byte == 0), "{name}: what was cut is back");
    }
    scene.end();
}

/// The stream has no record of what is free at a file's end, whatever the file's length is.
#[test]
fn a_file_that_has_lost_its_last_blocks_has_zeros_there() {
    let files = [("longer again", "longer again"), ("punched", "punched"), ("all", "all")];
    let whole = 3 * RECORD;
    let prepare = |root: &Path| {
        files.iter().for_each(|(name, _)| fs::write(root.join(name), vec![b'o'; whole]).unwrap());
    };
    let free = |root: &Path| {
        let open = |name| File::options().write(true).open(root.join(name)).unwrap();
        open("longer again").set_len(RECORD as u64).unwrap();
        open("longer again").set_len(whole as u64 + 1).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(open("punched"), punch, RECORD as u64, 2 * RECORD as u64).unwrap();
        fallocate(open("all"), punch, 0, whole as u64).unwrap();
    };
    let (scene, target) = read_as_new(prepare, &files, free);
    let path = scene.mounted_at(&target).unwrap();
    for (name, kept) in [("longer again", RECORD), ("punched", RECORD), ("all", 0)] {
        let now = fs::read(path.join(name)).unwrap();
        assert!(now[..kept].iter().all(|byte| *byte == b'o'), "{name}");
        assert!(now[kept..].iter().all(|byte| *byte == 0), "{name}: what was freed is back");
    }
    scene.end();
}

/// A file's pages are looked for where there are any, and not all over its length.
#[test]
fn a_sparse_file_of_a_terabyte_is_read_as_new_and_takes_no_longer() {
    const LENGTH: u64 = 1 << 40;
    let time = |length: u64| {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let path = scene.mounted_at(&target).unwrap().join("sparse");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        let last = length - 3_000;
        for offset in [0, length / 2, last] {
            file.write_all_at(&[b'o'; 3_000], offset).unwrap();
        }
        scene.pool.sync();
        Mapping::part(&file, SIZE, false).touch();
        let transaction = begin(&scene, &target);
        let changed = transaction.path().join("sparse");
        let changed = File::options().write(true).open(changed).unwrap();
        for offset in [0, last] {
            changed.write_all_at(&[b'n'; 3_000], offset).unwrap();
        }
        drop(changed);
        let start = Instant::now();
        assert_clean(&transaction.commit().unwrap());
        let elapsed = start.elapsed();
        let mut found = [0; 3_000];
        for (offset, expected) in [(0, b'n'), (length / 2, b'o'), (last, b'n')] {
            file.read_exact_at(&mut found, offset).unwrap();
            assert_eq!(found, [expected; 3_000]);
        }
        drop(file);
        scene.end();
        elapsed
    };
    // Before Linux 6.5 no kernel tells what of a file is cached, and its length counts.
    let scene = Scene::new();
    let length = if scene.swaps_without_a_gap() { LENGTH } else { LENGTH >> 7 };
    scene.end();
    let (small, large) = (time(1 << 20), time(length));
    figures(&format!("a sparse file of 1 MiB: {small:?}, of {} GiB: {large:?}", length >> 30));
    assert!(large < 3 * small + Duration::from_secs(10), "{small:?}, but {large:?}");
}

/// Nothing of what others have written, and a reader has cached, is read after it was replaced.
#[test]
fn what_others_have_changed_and_the_commit_replaces_is_read_as_new() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for name in ["theirs", "grown", "cut", "ours", "both", "untouched"] {
        create(&path.join(name));
    }
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    for name in ["ours", "both"] {
        change(&transaction.path().join(name));
    }
    let open = |name: &str| File::options().write(true).open(path.join(name)).unwrap();
    for name in ["theirs", "both"] {
        open(name).write_all_at(&[b't'; 3_000], 100).unwrap();
    }
    open("grown").write_all_at(&[b't'; 200_000], SIZE as u64).unwrap();
    open("cut").set_len(RECORD as u64).unwrap();
    create(&path.join("new"));
    let names = ["theirs", "grown", "cut", "ours", "both", "untouched"];
    let mut held = names.map(|name| File::open(path.join(name)).unwrap());
    held.iter().for_each(map_once_of);
    let expected = names.map(|name| fs::read(transaction.path().join(name)).unwrap());
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.overridden, [Conflict::Modified { target: target.clone() }]);
    assert!(receipt.stale.is_empty(), "{receipt:?}");
    for ((name, expected), file) in names.iter().zip(expected).zip(&mut held) {
        assert!(fs::read(path.join(name)).unwrap() == expected, "{name}: old, by its name");
        assert!(content(file) == expected, "{name}: old, by a descriptor");
    }
    assert!(!path.join("new").exists());
    open("grown").set_len(2 * SIZE as u64).unwrap();
    let grown = fs::read(path.join("grown")).unwrap();
    assert!(grown[SIZE..].iter().all(|byte| *byte == 0), "what was behind its end is back");
    drop(held);
    scene.pool.cleanup();
}

/// A file without a name that takes the number of a new one makes the commit replace everything.
#[test]
fn files_are_read_as_new_where_everything_is_replaced_for_one_without_a_name() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for name in ["changed", "untouched"] {
        create(&path.join(name));
        map_once(&path.join(name));
    }
    let transaction = begin(&scene, &target);
    let ours: HashSet<u64> = (0..300)
        .map(|number| {
            let file = transaction.path().join(number.to_string());
            fs::write(&file, "ours").unwrap();
            fs::metadata(file).unwrap().ino()
        })
        .collect();
    change(&transaction.path().join("changed"));
    // In another txg: files of one number and one generation are a conflict.
    scene.pool.sync();
    let nameless = |_| {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(O_TMPFILE);
        let mut file = options.open(&path).unwrap();
        file.write_all(&[b't'; 10_000]).unwrap();
        map_once_of(&file);
        file
    };
    let held: Vec<File> = (0..400).map(nameless).collect();
    let same = held.iter().filter(|file| ours.contains(&file.metadata().unwrap().ino()));
    assert!(same.count() > 0, "no number was given out twice");
    let expected = fs::read(transaction.path().join("changed")).unwrap();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.overridden.is_empty(), "{receipt:?}");
    assert_clean(&receipt);
    assert!(fs::read(path.join("changed")).unwrap() == expected, "old content");
    assert!(fs::read(path.join("untouched")).unwrap() == vec![b'o'; SIZE]);
    for number in 0..300 {
        assert_eq!(fs::read_to_string(path.join(number.to_string())).unwrap(), "ours");
    }
    drop(held);
    scene.end();
}

/// The pages are the file system's, and not a mount's: whoever has it mounted reads the same.
#[test]
fn a_target_that_is_mounted_elsewhere_alone_is_read_as_new() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let elsewhere = Elsewhere::mount(&scene, &target);
    create(&elsewhere.file("directory/f"));
    create(&elsewhere.file("replaced"));
    scene.pool.sync();
    let mut held = File::open(elsewhere.file("directory/f")).unwrap();
    map_once_of(&held);
    let mapping = Mapping::read_only(&elsewhere.file("replaced"));
    mapping.touch();
    let transaction = begin(&scene, &target);
    change(&transaction.path().join("directory/f"));
    fs::remove_file(transaction.path().join("replaced")).unwrap();
    create(&transaction.path().join("replaced"));
    let expected = fs::read(transaction.path().join("directory/f")).unwrap();
    assert_clean(&transaction.commit().unwrap());
    assert!(fs::read(elsewhere.file("directory/f")).unwrap() == expected, "old, by its name");
    assert!(content(&mut held) == expected, "old, by a descriptor");
    drop((mapping, held, elsewhere));
    scene.end();
}

/// A process with a timer, as profilers and language runtimes have, gets signals all the time.
#[test]
fn signals_meanwhile_change_nothing() {
    const ALONE: &str = "ZFS_TXN_SIGNALS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let test = "pages::signals_meanwhile_change_nothing";
        return assert_passed(&again(test, ALONE, "yes").output().unwrap());
    }
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("directory/{number}")).collect();
    names.iter().for_each(|name| create(&path.join(name)));
    for (round, byte) in [b'1', b'2', b'3'].into_iter().enumerate() {
        names.iter().for_each(|name| map_once(&path.join(name)));
        let transaction = begin(&scene, &target);
        for name in &names {
            let file = File::options().write(true).open(transaction.path().join(name)).unwrap();
            file.write_all_at(&vec![byte; SIZE], 0).unwrap();
        }
        let interruptions = Interruptions::every(1_000);
        let result = transaction.commit();
        drop(interruptions);
        assert_clean(&result.unwrap());
        for name in &names {
            let now = fs::read(path.join(name)).unwrap();
            assert!(now == vec![byte; SIZE], "{name} is old in round {round}");
        }
    }
    scene.end();
}

/// A file that somebody has mapped and the transaction has changed, by a path for the test.
struct Mapped {
    name: &'static str,
    prepare: fn(&Path),
    change: fn(&Path),
}

/// What changes a file's content, in any way, is refused as long as the file is mapped; and nothing of
/// the pool is then other than it was.
#[test]
fn a_file_that_is_mapped_is_not_changed() {
    let cases = [
        Mapped { name: "mapped", prepare: |path| create(path), change },
        Mapped {
            name: "a/has lost a link",
            prepare: |path| {
                create(path);
                let link = path.with_file_name("link");
                fs::hard_link(path, &link).unwrap();
                rustix::fs::sync();
                fs::remove_file(link).unwrap();
            },
            change,
        },
        Mapped {
            name: "cut at a block",
            prepare: |path| create(path),
            change: |path| {
                File::options().write(true).open(path).unwrap().set_len(RECORD as u64).unwrap();
            },
        },
    ];
    let scene = Scene::new();
    for (number, Mapped { name, prepare, change }) in cases.into_iter().enumerate() {
        let target = scene.dataset(&format!("t{number}"), &[]);
        let path = scene.mounted_at(&target).unwrap().join(name);
        prepare(&path);
        let mapping = Mapping::read_only(&path);
        mapping.touch();
        let transaction = begin(&scene, &target);
        change(&transaction.path().join(name));
        let expected = fs::read(transaction.path().join(name)).unwrap();
        let id = transaction.id().to_string();
        let before = State::of(&scene, Identity::Kept).besides(&id);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        let in_use = Conflict::InUse { target: target.clone(), path: name.to_owned() };
        assert_eq!(conflict, in_use);
        before.assert_same(&State::of(&scene, Identity::Kept).besides(&id));
        assert_eq!(mapping.load(SIZE - 3_000, 3_000), [b'o'; 3_000]);
        drop(mapping);
        assert_clean(&transaction.commit().unwrap());
        assert!(fs::read(&path).unwrap() == expected, "{name} is old");
    }
    scene.end();
}

/// The same where it is mapped in another mount namespace, which alone has the target mounted.
#[test]
fn a_file_that_is_mapped_elsewhere_is_not_changed() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let elsewhere = Elsewhere::mount(&scene, &target);
    let path = elsewhere.file("mapped");
    create(&path);
    let mapping = Mapping::read_only(&path);
    mapping.touch();
    let transaction = begin(&scene, &target);
    change(&transaction.path().join("mapped"));
    let id = transaction.id().to_string();
    let before = State::of(&scene, Identity::Kept).besides(&id);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::InUse { target: target.clone(), path: "mapped".to_owned() });
    before.assert_same(&State::of(&scene, Identity::Kept).besides(&id));
    assert!(fs::read(&path).unwrap() == vec![b'o'; SIZE]);
    drop(mapping);
    assert_clean(&transaction.commit().unwrap());
    assert_eq!(fs::read(&path).unwrap()[SIZE - 3_000..], [b'n'; 3_000]);
    drop(elsewhere);
    scene.end();
}

/// Somebody maps a file, reads it and lets go of it, again and again, also between the moment when its pages
/// are let go of and the one when the content changes: it is read as new, or the receipt names it.
#[test]
fn a_file_that_is_mapped_again_and_again_is_read_as_new_or_named() {
    let rounds = amount("ZFS_TXN_MAPPERS", 5);
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap().join("mapped");
    create(&path);
    let (mut refused, mut named) = (0, 0);
    for round in 0..rounds {
        let transaction = begin(&scene, &target);
        let expected = vec![b'0' + (round % 10) as u8; SIZE];
        let file = File::options().write(true).open(transaction.path().join("mapped")).unwrap();
        file.write_all_at(&expected, 0).unwrap();
        drop(file);
        let before = fs::read(&path).unwrap();
        let done = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Mapping::read_only(&path).touch();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let result = transaction.commit();
            done.store(true, Ordering::Relaxed);
            result
        });
        let now = fs::read(&path).unwrap();
        match result {
            Ok(receipt) if receipt.stale.is_empty() => {
                assert!(now == expected, "round {round}: it is old, and not named");
            }
            Ok(receipt) => {
                assert_eq!(receipt.stale, [PathBuf::from("mapped")]);
                named += 1;
                // Nobody has it mapped any more.
                crate::memory::remount(&scene, &target);
                assert!(fs::read(&path).unwrap() == expected, "round {round}: it is another");
            }
            Err(CommitError::Conflict { conflict, transaction }) => {
                let in_use = Conflict::InUse { target: target.clone(), path: "mapped".to_owned() };
                assert_eq!(conflict, in_use);
                assert!(now == before, "round {round}: it has changed");
                transaction.rollback().unwrap();
                refused += 1;
            }
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    figures(&format!("{rounds} commits under mappers: {refused} refused, {named} files named"));
    scene.end();
}

/// What is mapped and not written into is in nobody's way, though it is described beside what is: the
/// neighbours of a changed file, and what is replaced, deleted, renamed, or has another mode.
#[test]
fn what_is_mapped_and_not_written_into_is_no_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let neighbours: Vec<String> = (0..40).map(|number| format!("neighbour-{number}")).collect();
    let names = ["changed", "replaced", "deleted", "renamed", "mode"];
    let all: Vec<&str> = names.into_iter().chain(neighbours.iter().map(String::as_str)).collect();
    all.iter().for_each(|name| create(&path.join(name)));
    let mappings: Vec<Mapping> =
        all[1..].iter().map(|name| Mapping::read_only(&path.join(name))).collect();
    mappings.iter().for_each(Mapping::touch);
    map_once(&path.join("changed"));
    let transaction = begin(&scene, &target);
    let root = transaction.path().to_owned();
    change(&root.join("changed"));
    create(&root.join("new"));
    change(&root.join("new"));
    fs::rename(root.join("new"), root.join("replaced")).unwrap();
    fs::remove_file(root.join("deleted")).unwrap();
    fs::rename(root.join("renamed"), root.join("directory")).unwrap();
    fs::set_permissions(root.join("mode"), Permissions::from_mode(0o600)).unwrap();
    let receipt = transaction.commit().unwrap();
    // A name that was given up leads to the file for as long as somebody holds it.
    assert_eq!((&receipt.stale[..], receipt.leftovers.len()), (&[PathBuf::from("renamed")][..], 0));
    let old = vec![b'o'; SIZE];
    for (name, mapping) in all[1..].iter().zip(&mappings) {
        assert!(mapping.load(0, SIZE) == old, "the mapping of {name} has changed");
    }
    for name in ["changed", "replaced"] {
        let now = fs::read(path.join(name)).unwrap();
        assert_eq!(now[SIZE - 3_000..], [b'n'; 3_000], "{name} is old");
    }
    assert_eq!(fs::metadata(path.join("mode")).unwrap().mode() & 0o777, 0o600);
    let kept: Vec<PathBuf> = neighbours.iter().map(|name| path.join(name)).collect();
    kept.iter().for_each(|name| assert!(fs::read(name).unwrap() == old, "{name:?}"));
    drop(mappings);
    scene.end();
}
