//! Many transactions: of racing commits one wins (I8), no write is lost (I6), nothing leaks (I9).

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Keeps, OnConflict, Strategy};

use crate::support::{Scene, amount, mount_lines, race};
use crate::test_mapping::Interruptions;
use crate::test_pool::{FIGURES, figures};
use crate::test_write::write;

/// I8: in every round exactly one of eight transactions from the same base commits.
#[test]
fn of_eight_racing_commits_one_wins_in_every_round() {
    let rounds = amount("ZFS_TXN_RACES", 5);
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for round in 0..rounds {
        race(&scene.zfs, &target).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    figures(&format!("{rounds} rounds of 8 commits: {rounds} won, {} conflicts", rounds * 7));
    scene.end();
}

/// I6: whatever is written to the target while commits overwrite it is in the target, or in what a
/// receipt names.
#[test]
fn every_line_written_during_overwriting_commits_is_kept() {
    every_line_is_kept(Strategy::Promote);
}

/// The same in place; the fence lets a commit come through, and refuses some lines.
#[test]
fn every_line_written_during_overwriting_commits_in_place_is_kept() {
    every_line_is_kept(Strategy::InPlace);
}

fn every_line_is_kept(strategy: Strategy) {
    let commits = amount("ZFS_TXN_OVERWRITES", 15);
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (done, path) = (Arc::clone(&done), path.join("log"));
        std::thread::spawn(move || {
            let mut written = Vec::new();
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // The path is without a mount for a moment: what is written then is not in ZFS.
                let Ok(mut file) = fs::File::options().append(true).open(&path) else { continue };
                // In one call: a number whose line's end is refused would be the begin of the next.
                let line = format!("{number}\n");
                if file.write_all(line.as_bytes()).is_ok() && file.sync_all().is_ok() {
                    written.push(number.to_string());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            written
        })
    };
    fs::write(path.join("log"), "").unwrap();
    let mut kept = Vec::new();
    for _ in 0..commits {
        let builder = scene.zfs.transaction(&target).on_conflict(OnConflict::Overwrite);
        let builder = match strategy {
            Strategy::InPlace => builder.strategy(strategy).fence(),
            _ => builder,
        };
        let receipt = builder.begin().unwrap().commit().unwrap();
        let changed = |leftover: &&zfs_txn::Leftover| leftover.keeps != Keeps::Nothing;
        kept.extend(receipt.leftovers.iter().filter(changed).map(|left| left.name.clone()));
    }
    done.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    let mut found = std::collections::HashSet::new();
    let mut collect = |text: String| found.extend(text.lines().map(str::to_owned));
    collect(fs::read_to_string(path.join("log")).unwrap());
    for (number, name) in kept.iter().enumerate() {
        let at = scene.pool.directory().join(format!("kept-{number}"));
        fs::create_dir(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        let options = if name.contains('@') { "ro" } else { "zfsutil" };
        mount.args(["-t", "zfs", "-o", options, name]).arg(&at);
        assert!(mount.status().unwrap().success(), "{name}");
        collect(fs::read_to_string(at.join("log")).unwrap());
    }
    let lost: Vec<_> = written.iter().filter(|line| !found.contains(*line)).collect();
    assert!(lost.is_empty(), "{} of {} lines are lost: {lost:?}", lost.len(), written.len());
    assert!(written.len() > commits && !kept.is_empty(), "the writer did not get to write");
    figures(&format!(
        "{strategy:?}: {} lines, {commits} commits, {} predecessors or snapshots kept, 0 lost",
        written.len(),
        kept.len()
    ));
    for number in 0..kept.len() {
        let at = scene.pool.directory().join(format!("kept-{number}"));
        assert!(std::process::Command::new("umount").arg(at).status().unwrap().success());
    }
    scene.pool.cleanup();
}

/// What this process has: descriptors, threads, and KiB of memory.
fn possessions() -> (usize, usize, u64) {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    (count("/proc/self/fd"), count("/proc/self/task"), memory)
}

/// I9, in a process of its own, so that other tests don't count.
#[test]
fn nothing_leaks_in_the_process() {
    const ALONE: &str = "ZFS_TXN_LEAKS_ALONE";
    const WORKERS: usize = 8;
    if std::env::var_os(ALONE).is_none() {
        let test = "endurance::nothing_leaks_in_the_process";
        let output = crate::support::again(test, ALONE, "yes").output().unwrap();
        crate::support::assert_passed(&output);
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.lines().filter_map(|line| line.split_once(FIGURES));
        return said.for_each(|(_, text)| figures(text));
    }
    let (rollbacks, commits) = (amount("ZFS_TXN_ROLLBACKS", 40), amount("ZFS_TXN_COMMITS", 15));
    let scene = Scene::new();
    let targets: [_; WORKERS] = std::array::from_fn(|n| scene.dataset(&format!("t{n}"), &[]));
    let round = |target: &DatasetName, number: usize, commit: bool| {
        let strategy = [Strategy::Promote, Strategy::InPlace][number % 2];
        let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
        write(transaction.path().join("file"), "x").unwrap();
        if commit {
            assert!(transaction.commit().unwrap().leftovers.is_empty());
        } else {
            transaction.rollback().unwrap();
        }
    };
    // Each worker has a target of its own, so that their transaction groups are shared.
    let rounds = |count: usize, commit: bool| {
        std::thread::scope(|scope| {
            for (worker, target) in targets.iter().enumerate() {
                let mine = (worker..count).step_by(WORKERS);
                let round = &round;
                scope
                    .spawn(move || mine.for_each(|number| round(target, number / WORKERS, commit)));
            }
        });
    };
    // What is made once and kept, such as libzfs's handle, is there after the first few.
    for commit in [true, false] {
        rounds(2 * WORKERS, commit);
    }
    // Other tests mount pools of their own.
    let mounts =
        || mount_lines().iter().filter(|line| line.join(" ").contains(scene.pool.name())).count();
    let mounted = mounts();
    std::thread::sleep(Duration::from_secs(1));
    let before = possessions();
    rounds(rollbacks, false);
    rounds(commits, true);
    // Handles of libzfs that are kept for the next call, as many as called at the same time.
    const HANDLES: usize = 8;
    let nothing_more =
        |after: &(usize, usize, u64)| after.0 <= before.0 + HANDLES && after.1 == before.1;
    // A scope waits for its threads' work; they themselves may take a moment more to end.
    let after = (0..100)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            possessions()
        })
        .find(nothing_more)
        .unwrap_or_else(possessions);
    figures(&format!(
        "I9: {rollbacks} rollbacks, {commits} commits: (fds, threads, KiB) {before:?} -> {after:?}"
    ));
    assert!(nothing_more(&after), "{before:?} -> {after:?}");
    assert_eq!(mounts(), mounted);
    // Allocators keep some: a leak of 100 bytes each would show in ten thousand.
    assert!(after.2 < before.2 + 4096, "memory: {before:?} -> {after:?}");
    scene.end();
}

/// I9: a timer that interrupts the process every millisecond, through whole transactions.
#[test]
fn signals_at_every_moment_do_no_harm() {
    const ALONE: &str = "ZFS_TXN_SIGNALLED_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let test = "endurance::signals_at_every_moment_do_no_harm";
        let output = crate::support::again(test, ALONE, "yes").output().unwrap();
        crate::support::assert_passed(&output);
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.lines().filter_map(|line| line.split_once(FIGURES));
        return said.for_each(|(_, text)| figures(text));
    }
    let commits = amount("ZFS_TXN_SIGNALLED", 10);
    let scene = Scene::new();
    let targets = ["promote", "in-place"].map(|name| scene.dataset(name, &[]));
    let round = |number: usize| {
        let strategy = [Strategy::Promote, Strategy::InPlace][number % 2];
        let target = &targets[number % 2];
        let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
        let content = number.to_string();
        write(transaction.path().join("file"), &content).unwrap();
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
        assert_eq!(scene.read(target), content);
        if number % 4 > 1 {
            scene.zfs.transaction(target).strategy(strategy).begin().unwrap().rollback().unwrap();
        }
    };
    // What is made once and kept is there after the first.
    (0..2).for_each(round);
    let interruptions = Interruptions::every(1_000);
    let before = possessions();
    (0..commits).for_each(round);
    let after = possessions();
    drop(interruptions);
    figures(&format!("{commits} commits with a signal each millisecond: {before:?} -> {after:?}"));
    assert_eq!((after.0, after.1), (before.0, before.1));
    scene.end();
}

/// Tells others to end when it is dropped, also by a panic.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One target is changed in place over and over, while somebody reads it, and now and then unmounts it and mounts it again:
/// both have the kernel evict inodes, for which an unmount waits (openzfs#15422).
#[test]
fn a_target_is_swapped_again_and_again_beside_unmounts() {
    const FILES: usize = 100;
    let commits = amount("ZFS_TXN_SWAPS", 20);
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    for file in 0..FILES {
        fs::write(path.join(file.to_string()), "generation 0").unwrap();
    }
    let done = AtomicBool::new(false);
    let going = || !done.load(Ordering::Relaxed);
    let ended = Ended(&done);
    let (longest, unmounts) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for file in (0..FILES).cycle().take_while(|_| going()) {
                // Without a mount there is no file, and a file that is replaced gives EIO.
                let _ = fs::read(path.join(file.to_string()));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let unmounting = scope.spawn(|| {
            let mut unmounts = 0;
            while going() {
                std::thread::sleep(Duration::from_millis(300));
                let mut umount = std::process::Command::new("umount");
                // Refused while a file is being read.
                if umount.arg(&path).output().unwrap().status.success() {
                    unmounts += 1;
                    // While a change is received into what is not mounted, nobody can mount it.
                    let mount = || {
                        let mut mount = std::process::Command::new("zfs");
                        mount.args(["mount", target.as_str()]).output().unwrap().status.success()
                    };
                    let mounted = (0..600).any(|_| {
                        std::thread::sleep(Duration::from_millis(100));
                        mount()
                    });
                    assert!(mounted, "it can't be mounted any more");
                }
            }
            unmounts
        });
        let mut longest = Duration::ZERO;
        for number in 1..=commits {
            let strategy = Strategy::InPlace;
            let transaction = scene.zfs.transaction(&target).strategy(strategy).begin().unwrap();
            let content = format!("generation {number}");
            write(transaction.path().join("file"), &content).unwrap();
            // One that is replaced, whose inode goes.
            let replaced = transaction.path().join((number % FILES).to_string());
            fs::remove_file(&replaced).unwrap();
            fs::write(&replaced, &content).unwrap();
            let started = Instant::now();
            let receipt = transaction.commit().unwrap();
            longest = longest.max(started.elapsed());
            assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        }
        drop(ended);
        (longest, unmounting.join().unwrap())
    });
    figures(&format!("{commits} swaps of one target, {unmounts} unmounts; longest {longest:?}"));
    assert!(unmounts > 0, "nobody unmounted it");
    assert_eq!(scene.read(&target), format!("generation {commits}"));
    scene.end();
}
