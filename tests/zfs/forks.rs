//! A program whose other threads fork children while a commit in place is at it: the children have copies of
//! whatever is open at that moment, the ends of the stream's pipes among them, and keep nobody waiting.

use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use zfs_txn::{CommitError, Errno, Strategy};

use crate::support::{Scene, again, amount, assert_passed};
use crate::test_fork::Fork;
use crate::test_pool::{FIGURES, figures};

/// For how long each child lives, in seconds, if it is not killed.
const LIVES: u32 = 60;
/// How many children there may be at one time.
const CHILDREN: usize = 150;
/// The longest that a commit may take here, where one takes about a second.
const LIMIT: Duration = Duration::from_secs(20);

/// In a process of its own: other tests' commands would wait for pipes that the children have.
#[test]
fn children_that_are_forked_meanwhile_keep_no_commit_waiting() {
    const ALONE: &str = "ZFS_TXN_FORKS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let test = "forks::children_that_are_forked_meanwhile_keep_no_commit_waiting";
        let output = again(test, ALONE, "yes").output().unwrap();
        assert_passed(&output);
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.lines().filter_map(|line| line.split_once(FIGURES));
        return said.for_each(|(_, text)| figures(text));
    }
    let rounds = amount("ZFS_TXN_FORKS", 6);
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "compression=off"]);
    let path = scene.mounted_at(&target).unwrap();
    let (mut longest, mut forked) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let cancelled = round % 2 == 0;
        let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
        let mut transaction = builder.begin().unwrap();
        fs::write(transaction.path().join("big"), vec![round as u8; 6_000_000]).unwrap();
        // Told just before the stream's pipes are made.
        let forking = Arc::new(AtomicBool::new(false));
        let starts = Arc::clone(&forking);
        transaction.on_progress(move |progress| {
            starts.store(true, Ordering::Relaxed);
            match cancelled && progress.bytes > 1_000_000 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let children = Mutex::new(Vec::new());
        let done = AtomicBool::new(false);
        let fork = || {
            while !done.load(Ordering::Relaxed) {
                let full = children.lock().unwrap().len() >= CHILDREN;
                if full || !forking.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(200));
                } else {
                    let child = Fork::sleeping(LIVES);
                    children.lock().unwrap().push(child);
                }
            }
        };
        let (ended, has_ended) = mpsc::channel::<()>();
        let (elapsed, result) = std::thread::scope(|scope| {
            let (children, done) = (&children, &done);
            (0..2).for_each(|_| drop(scope.spawn(fork)));
            // So that this test ends whatever the commit waits for.
            scope.spawn(move || {
                if has_ended.recv_timeout(2 * LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    done.store(true, Ordering::Relaxed);
                    children.lock().unwrap().clear();
                }
            });
            let start = Instant::now();
            let result = transaction.commit();
            let elapsed = start.elapsed();
            done.store(true, Ordering::Relaxed);
            drop(ended);
            (elapsed, result)
        });
        let mut children = children.into_inner().unwrap();
        forked += children.len();
        longest = longest.max(elapsed);
        children.clear();
        assert!(elapsed < LIMIT, "round {round}: the commit took {elapsed:?}");
        match result {
            Ok(_) => {
                assert!(!cancelled, "round {round}: it was not cancelled");
                let now = fs::read(path.join("big")).unwrap();
                assert!(now == vec![round as u8; 6_000_000], "round {round}: another content");
            }
            Err(CommitError::Unchanged { error, transaction }) if cancelled => {
                assert_eq!(error.errno, Errno::CANCELED);
                transaction.rollback().unwrap();
            }
            Err(error) => panic!("round {round}: {error}"),
        }
        // A child may have kept something in use.
        let swept = scene.zfs.sweep(&target).unwrap();
        assert!(swept.unfinished.is_empty(), "{swept:?}");
    }
    figures(&format!("{rounds} commits while {forked} children were forked: {longest:?} at most"));
    scene.end();
}
