//! How much a commit in place sends: about as much as was changed, whatever the kernel does in the target
//! meanwhile on its own account.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zfs_txn::{DatasetName, Strategy};

use crate::memory::remount;
use crate::support::Scene;
use crate::test_pool::figures;

const O_TMPFILE: i32 = 0o20_200_000;
/// What is in the target and stays, in bytes.
const KEPT: usize = 30_000_000;
/// What sending a small change may come to: the descriptions of a few hundred files.
const LIMIT: u64 = 2_000_000;

/// Bytes that no compression makes fewer.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..KEPT / 8).flat_map(next).collect()
}

/// A small change of a target, during which something is done: how many bytes are sent for it.
fn sent(scene: &Scene, target: &DatasetName, meanwhile: impl FnOnce(&Path)) -> u64 {
    let path = scene.pool.mountpoint().join("t");
    let mut transaction =
        scene.zfs.transaction(target).strategy(Strategy::InPlace).begin().unwrap();
    fs::write(transaction.path().join("small"), "x").unwrap();
    meanwhile(&path);
    scene.pool.sync();
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    transaction.on_progress(move |progress| {
        seen.store(progress.bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty() && receipt.overridden.is_empty(), "{receipt:?}");
    assert_eq!(fs::read_to_string(path.join("small")).unwrap(), "x");
    assert!(fs::read(path.join("kept")).unwrap() == noise(), "what was kept is another");
    sent.load(Ordering::Relaxed)
}

fn nameless(directory: &Path, count: usize) -> Vec<File> {
    let one = |_| {
        let mut options = File::options();
        let mut file = options.write(true).custom_flags(O_TMPFILE).open(directory).unwrap();
        file.write_all(b"nobody's").unwrap();
        file
    };
    (0..count).map(one).collect()
}

/// A file system that was received has the deleted files that were open where it was sent; the kernel frees
/// them when it is mounted, in the background.
#[test]
fn a_delete_queue_that_is_worked_off_costs_nothing() {
    let scene = Scene::new();
    let source = scene.dataset("source", &[]);
    let path = scene.mounted_at(&source).unwrap();
    fs::write(path.join("kept"), noise()).unwrap();
    let held = nameless(&path, 600);
    let target = scene.name("t");
    let pipe = format!("zfs snapshot {source}@1 && zfs send {source}@1 | zfs receive -u {target}");
    assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
    drop(held);
    let sent = sent(&scene, &target, |_| {
        scene.pool.zfs(&["mount", target.as_str()]);
        std::thread::sleep(Duration::from_secs(3));
    });
    remount(&scene, &target);
    figures(&format!("a small change while 600 deleted files are freed: {sent} bytes"));
    assert!(sent < LIMIT, "{sent} bytes were sent");
    scene.end();
}

#[test]
fn files_that_are_deleted_and_closed_meanwhile_cost_nothing() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("kept"), noise()).unwrap();
    // One was made before the transaction, and one is larger than a record.
    let mut before = nameless(&path, 20);
    let deleted = path.join("deleted");
    fs::write(&deleted, vec![7; 1_000_000]).unwrap();
    before.push(File::open(&deleted).unwrap());
    fs::remove_file(deleted).unwrap();
    let sent_for = |meanwhile: &dyn Fn(&Path)| sent(&scene, &target, meanwhile);
    let before = std::cell::Cell::new(before);
    let counts = [
        ("closed", sent_for(&|_| drop(before.take()))),
        ("made and closed", sent_for(&|path| drop(nameless(path, 50)))),
        ("made and held", sent_for(&|path| before.set(nameless(path, 50)))),
        ("read", sent_for(&|path| drop(fs::read(path.join("kept")).unwrap()))),
    ];
    drop(before);
    remount(&scene, &target);
    assert!(fs::read(path.join("kept")).unwrap() == noise(), "what was kept is another");
    figures(&format!("a small change while files without a name are: {counts:?} bytes"));
    for (what, count) in counts {
        assert!(count < LIMIT, "{what}: {count} bytes were sent");
    }
    scene.end();
}
