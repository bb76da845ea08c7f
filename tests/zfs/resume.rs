//! Several that take up one detached transaction at the same moment.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use zfs_txn::{Condition, Errno, ResumeError, Step, Zfs};

use crate::support::{Scene, mount_lines};

/// The pool's lines of the mount table, parted into those at `path` and all others.
fn mounts_at(scene: &Scene, path: &Path) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let below = format!("{}/", scene.pool.name());
    let ours = |line: &Vec<String>| {
        let source = &line[line.len() - 2];
        source == scene.pool.name() || source.starts_with(&below)
    };
    mount_lines().into_iter().filter(ours).partition(|line| Path::new(&line[4]) == path)
}

#[test]
fn of_two_that_resume_at_once_one_gets_the_transaction_and_commits_it() {
    let scene = Scene::new();
    let update = scene.dataset("t", &[]);
    let (mut late, mut close) = (0, 0);
    for round in 0..12 {
        let target = if round % 2 == 0 { update.clone() } else { scene.name(&format!("n{round}")) };
        let transaction = scene.begin(&target);
        let private = transaction.path().to_owned();
        fs::write(private.join("file"), "before").unwrap();
        let id = transaction.detach().unwrap();
        let (at_private, others) = mounts_at(&scene, &private);
        assert!(at_private.is_empty(), "{at_private:?}");

        let start = Barrier::new(2);
        let resume = || {
            let zfs = Zfs::open().unwrap();
            start.wait();
            zfs.resume(&target, id)
        };
        let results = thread::scope(|scope| {
            [scope.spawn(resume), scope.spawn(resume)].map(|thread| thread.join().unwrap())
        });
        let (mut won, mut lost) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(transaction) => won.push(transaction),
                Err(error) => lost.push(error),
            }
        }
        assert_eq!((won.len(), lost.len()), (1, 1), "{won:?} {lost:?}");
        match lost.remove(0) {
            ResumeError::NotDetached { condition: Condition::Open { pid }, .. } => {
                assert_eq!(pid, std::process::id());
                late += 1;
            }
            ResumeError::Failed { error } => {
                assert_eq!((error.step, error.errno), (Step::Resume, Errno::STALE), "{error}");
                close += 1;
            }
            error => panic!("{error}"),
        }
        let (at_private, now) = mounts_at(&scene, &private);
        assert_eq!((at_private.len(), &now), (1, &others), "{at_private:?}");
        // The loser has taken nothing along: it is still known to have a living handle.
        assert!(scene.zfs.recover(&target).unwrap().finished.is_empty());
        let won = won.remove(0);
        assert_eq!(fs::read_to_string(won.path().join("file")).unwrap(), "before");
        fs::write(won.path().join("file"), format!("round {round}")).unwrap();
        let receipt = won.commit().unwrap();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        assert_eq!(scene.read(&target), format!("round {round}"));
    }
    println!("{close} losers saw it detached, {late} came late");
    scene.end();
}
