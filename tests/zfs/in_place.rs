//! Commits in place: what they change, and what they leave alone (I1, I3, I6, I8).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use zfs_txn::{
    CommitError, Conflict, DatasetName, Errno, Keeps, OnConflict, Receipt, Strategy, Transaction,
};

use crate::support::{Identity, Scene, State, run};

/// Linux's `O_TMPFILE`.
const O_TMPFILE: i32 = 0o20_200_000;

fn begin(scene: &Scene, target: &DatasetName) -> Transaction {
    scene.zfs.transaction(target).strategy(Strategy::InPlace).begin().unwrap()
}

fn publish(scene: &Scene, target: &DatasetName, content: &str) -> Receipt {
    let transaction = begin(scene, target);
    fs::write(transaction.path().join("file"), content).unwrap();
    transaction.commit().unwrap()
}

/// I3: the dataset, its mounts, properties, permissions, holds, snapshots and children stay.
#[test]
fn only_the_content_changes() {
    let scene = Scene::new();
    let target = scene
        .dataset("t", &["-o", "quota=100M", "-o", "compression=gzip", "-o", "com.example:note=x"]);
    scene.dataset("t/child", &[]);
    let kept = format!("{target}@kept");
    scene.pool.zfs(&["snapshot", &kept]);
    scene.pool.zfs(&["hold", "tag", &kept]);
    scene.pool.zfs(&["allow", "root", "snapshot", target.as_str()]);
    scene.pool.zfs(&["set", "userquota@1234=10M", target.as_str()]);
    let path = scene.mounted_at(&target).unwrap();
    let (before, inode) = (State::of(&scene, Identity::Kept), fs::metadata(&path).unwrap().ino());
    for generation in ["generation 1", "generation 2", "generation 0"] {
        let receipt = publish(&scene, &target, generation);
        assert_eq!(receipt.strategy, Strategy::InPlace);
        assert_eq!(receipt.guid.to_string(), scene.property(&target, "guid").0);
        assert!(receipt.leftovers.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
        assert_eq!(scene.read(&target), generation);
    }
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

/// The first receive into a dataset must not take its properties for old received ones.
#[test]
fn properties_of_every_source_survive_the_first_receive() {
    let scene = Scene::new();
    let source = scene.dataset("source", &[]);
    let target = scene.name("t");
    scene.pool.zfs(&["set", "com.example:came=along", source.as_str()]);
    scene.pool.zfs(&["snapshot", &format!("{source}@s")]);
    let pipe = format!("zfs send -p {source}@s | zfs receive {target}");
    assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
    scene.pool.zfs(&["set", "com.example:set=here", target.as_str()]);
    let before = State::of(&scene, Identity::Kept);
    publish(&scene, &target, "generation 1");
    publish(&scene, &target, "generation 0");
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

#[test]
fn a_snapshot_of_the_committed_content_is_taken_where_one_is_asked_for() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace).snapshot("v1");
    let transaction = builder.begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    let receipt = transaction.commit().unwrap();
    let snapshot = receipt.final_snapshot.unwrap();
    assert_eq!(snapshot.name.as_str(), format!("{target}@v1"));
    let guid = scene.pool.zfs(&["get", "-Hpo", "value", "guid", snapshot.name.as_str()]);
    assert_eq!(guid.trim(), snapshot.guid.to_string());
    let path = scene.mounted_at(&target).unwrap().join(".zfs/snapshot/v1/file");
    assert_eq!(fs::read_to_string(path).unwrap(), "generation 1");
    scene.end();
}

/// I6: the kernel finds it in the txg of the swap; nothing is overwritten.
#[test]
fn a_write_to_the_target_is_a_conflict_and_the_transaction_is_handed_back() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = begin(&scene, &target);
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    let other = scene.mounted_at(&target).unwrap().join("other");
    fs::write(&other, "theirs").unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Modified { target: target.clone() });
    assert_eq!(
        (&*scene.read(&target), &*fs::read_to_string(other).unwrap()),
        ("generation 0", "theirs")
    );
    transaction.rollback().unwrap();
    scene.end();
}

/// I8, and that a foreign snapshot without a change is none.
#[test]
fn of_two_transactions_the_first_wins_and_snapshots_of_others_are_no_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let (one, two) = (begin(&scene, &target), begin(&scene, &target));
    fs::write(one.path().join("file"), "one").unwrap();
    fs::write(two.path().join("file"), "two").unwrap();
    scene.pool.zfs(&["snapshot", &format!("{target}@theirs")]);
    one.commit().unwrap();
    let error = two.commit().unwrap_err();
    assert!(
        matches!(error, CommitError::Conflict { conflict: Conflict::Modified { .. }, .. }),
        "{error}"
    );
    drop(error);
    assert_eq!(scene.read(&target), "one");
    scene.pool.zfs(&["list", &format!("{target}@theirs")]);
    scene.end();
}

/// Reading writes access times, which is no conflict. The stream is then made to start from another
/// snapshot, so it is one with records of every kind.
#[test]
fn a_target_that_was_only_read_is_no_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "atime=on", "-o", "relatime=off"]);
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("unchanged"), "x").unwrap();
    let transaction = begin(&scene, &target);
    let noise: Vec<u8> =
        (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(transaction.path().join("noise"), &noise).unwrap();
    fs::write(transaction.path().join("zeros"), vec![7; 300_000]).unwrap();
    File::create(transaction.path().join("sparse"))
        .unwrap()
        .write_all_at(b"x", 10_000_000)
        .unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    fs::read(path.join("unchanged")).unwrap();
    // Access times are written when the inode is forgotten.
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    scene.pool.sync();
    let written = scene.property(&target, &format!("written@txn-{}", transaction.id())).0;
    assert_ne!(written, "0", "nothing has to be told apart");
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(scene.read(&target), "generation 1");
    assert_eq!(fs::read(path.join("noise")).unwrap(), noise);
    assert_eq!(fs::read(path.join("zeros")).unwrap(), vec![7; 300_000]);
    let mut byte = [0; 1];
    File::open(path.join("sparse")).unwrap().read_exact_at(&mut byte, 10_000_000).unwrap();
    assert_eq!(&byte, b"x");
    assert_eq!(fs::read_to_string(path.join("unchanged")).unwrap(), "x");
    scene.end();
}

/// Files without a name are in no comparison of trees, but have numbers that new files have in the
/// workspace, and the target has a list of them to be freed.
#[test]
fn files_without_a_name_in_the_target_take_none_of_the_new_ones_away() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let transaction = begin(&scene, &target);
    let name = |number: usize| number.to_string();
    let ours: HashMap<u64, usize> = (0..300)
        .map(|number| {
            let file = transaction.path().join(name(number));
            fs::write(&file, "ours").unwrap();
            (fs::metadata(file).unwrap().ino(), number)
        })
        .collect();
    // In another txg: files of one number and one generation are a conflict.
    scene.pool.sync();
    let nameless = |_| {
        let mut options = File::options();
        let mut file = options.write(true).custom_flags(O_TMPFILE).open(&path).unwrap();
        file.write_all(b"nobody's").unwrap();
        file
    };
    let held: Vec<File> = (0..600).map(nameless).collect();
    let same = held.iter().filter(|file| ours.contains_key(&file.metadata().unwrap().ino()));
    assert!(same.count() > 0, "no number was given out twice");
    let receipt = transaction.commit().unwrap();
    assert!(receipt.overridden.is_empty() && receipt.leftovers.is_empty(), "{receipt:?}");
    drop(held);
    scene.pool.reimport();
    for number in ours.into_values() {
        assert_eq!(fs::read_to_string(path.join(name(number))).unwrap(), "ours");
    }
    scene.end();
}

/// A renamed file may have a name at which there is something else in the target.
#[test]
fn a_file_may_take_the_name_of_a_link() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    std::os::unix::fs::symlink("file", path.join("current")).unwrap();
    let transaction = begin(&scene, &target);
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    fs::rename(transaction.path().join("file"), transaction.path().join("current")).unwrap();
    transaction.commit().unwrap();
    assert!(!path.join("current").is_symlink());
    assert_eq!(fs::read_to_string(path.join("current")).unwrap(), "generation 1");
    scene.end();
}

/// Progress is told on this thread, in bytes, and can end the commit without a trace.
#[test]
fn a_commit_tells_its_progress_and_can_be_cancelled() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "compression=off"]);
    let before = State::of(&scene, Identity::Kept);
    let mut transaction = begin(&scene, &target);
    fs::write(transaction.path().join("big"), vec![7; 20_000_000]).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, me) = (Arc::clone(&told), std::thread::current().id());
    transaction.on_progress(move |progress| {
        assert_eq!(std::thread::current().id(), me);
        seen.lock().unwrap().push(progress);
        if progress.bytes > 5_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { error, mut transaction } = error else { panic!("{error}") };
    assert_eq!(error.errno, Errno::CANCELED);
    {
        let told = told.lock().unwrap();
        assert!(told.iter().all(|p| (20_000_000..25_000_000).contains(&p.estimate)), "{told:?}");
        assert!(told.len() > 2 && told.is_sorted_by_key(|p| p.bytes), "{told:?}");
        assert!(told.last().unwrap().bytes < 20_000_000, "{told:?}");
    }
    let last = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&last);
    transaction.on_progress(move |progress| {
        seen.store(progress.bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    transaction.commit().unwrap();
    assert!(last.load(Ordering::Relaxed) >= 20_000_000);
    fs::remove_file(scene.mounted_at(&target).unwrap().join("big")).unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    scene.end();
}

/// A program in the target: running it maps it into memory, and so into the kernel's page cache.
fn program(scene: &Scene, target: &DatasetName, name: &str) -> PathBuf {
    let path = scene.mounted_at(target).unwrap().join(name);
    fs::copy("/bin/sleep", &path).unwrap();
    path
}

/// I1: a file that was ever mapped is read through the kernel's page cache, which a receive leaves as
/// it is.
#[test]
fn a_file_that_was_mapped_is_read_as_new_after_the_commit() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = program(&scene, &target, "tool");
    assert!(run(Command::new(&path).arg("0")).wait().unwrap().success());
    let transaction = begin(&scene, &target);
    let new = vec![7; fs::metadata(&path).unwrap().len() as usize];
    fs::write(transaction.path().join("tool"), &new).unwrap();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.stale.is_empty(), "{receipt:?}");
    assert!(fs::read(&path).unwrap() == new, "old content");
    scene.end();
}

/// As long as it is mapped it can't be made to be read as new: the commit is refused.
#[test]
fn a_file_that_is_mapped_and_changed_in_place_is_a_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let name = "wei rd\u{e4}\\";
    let path = program(&scene, &target, name);
    let mut running = run(Command::new(&path).arg("1000"));
    let transaction = begin(&scene, &target);
    fs::write(transaction.path().join(name), "new").unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    let expected = Conflict::InUse { target: target.clone(), path: name.to_owned() };
    assert_eq!(conflict, expected);
    running.kill().unwrap();
    running.wait().unwrap();
    transaction.commit().unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "new");
    scene.end();
}

/// An encryption root keeps its key, and the workspace needs none of its own.
#[test]
fn an_encryption_root_with_a_loaded_key_can_be_changed() {
    let scene = Scene::new();
    let key = scene.pool.directory().join("key");
    File::create(&key).unwrap().write_all(b"0123456789").unwrap();
    let location = format!("keylocation=file://{}", key.display());
    let target =
        scene.dataset("t", &["-o", "encryption=on", "-o", "keyformat=passphrase", "-o", &location]);
    for generation in ["generation 1", "generation 2"] {
        publish(&scene, &target, generation);
        assert_eq!(scene.read(&target), generation);
    }
    assert_eq!(scene.property(&target, "keystatus").0, "available");
    assert_eq!(scene.property(&target, "encryptionroot").0, target.as_str());
    scene.end();
}

/// What nobody has mounted can be changed as well.
#[test]
fn a_target_that_is_not_mounted_can_be_changed() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "canmount=noauto"]);
    publish(&scene, &target, "generation 1");
    scene.pool.zfs(&["mount", target.as_str()]);
    assert_eq!(scene.read(&target), "generation 1");
    scene.end();
}

/// What is overridden is in a snapshot that the receipt names; children, snapshots and the rest stay.
#[test]
fn what_others_have_written_can_be_overwritten_and_is_kept() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("old"), vec![1; 500_000]).unwrap();
    fs::create_dir(path.join("directory")).unwrap();
    fs::write(path.join("grows"), vec![4; 200_000]).unwrap();
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    fs::write(transaction.path().join("directory/ours"), vec![2; 300_000]).unwrap();
    fs::hard_link(transaction.path().join("file"), transaction.path().join("link")).unwrap();
    // In another txg: files of one number and one generation are a conflict.
    scene.pool.sync();
    // Objects of the same numbers, and some more.
    for number in 0..100 {
        fs::write(path.join(format!("theirs {number}")), vec![number; 3_000]).unwrap();
    }
    fs::remove_file(path.join("old")).unwrap();
    fs::write(path.join("file"), "theirs").unwrap();
    fs::write(path.join("grows"), vec![3; 1_000_000]).unwrap();
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.overridden, [Conflict::Modified { target: target.clone() }]);
    let mut names: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["directory", "file", "grows", "link", "old"]);
    assert_eq!(fs::read(path.join("grows")).unwrap(), vec![4; 200_000]);
    assert_eq!(
        (scene.read(&target).as_str(), fs::metadata(path.join("link")).unwrap().nlink()),
        ("generation 1", 2)
    );
    assert_eq!(fs::read(path.join("old")).unwrap(), vec![1; 500_000]);
    assert_eq!(fs::read(path.join("directory/ours")).unwrap(), vec![2; 300_000]);
    let kept: Vec<_> = receipt.leftovers.iter().filter(|l| l.keeps == Keeps::Changes).collect();
    let [kept] = kept[..] else { panic!("{receipt:?}") };
    let leaf = kept.name.split_once('@').unwrap().1;
    let inside = path.join(".zfs/snapshot").join(leaf);
    assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "theirs");
    assert_eq!(fs::read(inside.join("theirs 99")).unwrap(), vec![99; 3_000]);
    assert!(!inside.join("old").exists());
    // A mounted snapshot can't be promoted away.
    assert!(Command::new("umount").arg(&inside).status().unwrap().success());
    // It is nobody else's to remove, and in nobody's way.
    let swept = scene.zfs.sweep(&target).unwrap();
    assert_eq!(swept.unfinished.len(), 1, "{swept:?}");
    publish(&scene, &target, "generation 2");
    scene.publish(&target, "generation 3");
    scene.pool.zfs(&["destroy", &kept.name]);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert!(swept.unfinished.is_empty() && swept.finished.len() == 1, "{swept:?}");
    scene.end();
}

/// Blocks can't get smaller again in a receive (`receive_handle_existing_object`): where others have
/// made a file of one record a larger one, overwriting it fails, and all is as it was.
#[test]
fn a_file_of_one_record_that_others_have_grown_is_not_overwritten() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap().join("file");
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    fs::write(transaction.path().join("file"), "generation 1").unwrap();
    fs::write(&path, vec![1; 1_000_000]).unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
    assert!(error.to_string().contains("Strategy::Promote"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), vec![1; 1_000_000]);
    fs::write(&path, "small again").unwrap();
    drop(transaction);
    scene.end();
}

/// A snapshot that somebody takes of the target while the change is received is no change.
#[test]
fn a_snapshot_taken_during_the_receive_is_no_conflict() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "compression=off"]);
    let mut transaction = begin(&scene, &target);
    fs::write(transaction.path().join("big"), vec![7; 10_000_000]).unwrap();
    let name = format!("{target}@during");
    let mut taken = false;
    transaction.on_progress(move |progress| {
        if progress.bytes > 0 && !std::mem::replace(&mut taken, true) {
            assert!(Command::new("zfs").args(["snapshot", &name]).status().unwrap().success());
        }
        ControlFlow::Continue(())
    });
    transaction.commit().unwrap();
    let path = scene.mounted_at(&target).unwrap();
    assert_eq!(fs::metadata(path.join("big")).unwrap().len(), 10_000_000);
    assert!(!path.join(".zfs/snapshot/during/big").exists());
    scene.end();
}
