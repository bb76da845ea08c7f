//! A suspended pool stops whoever waits for it, and nobody else.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Strategy, Transaction, Zfs};

use crate::support::Scene;
use crate::test_pool::{TestPool, figures};

/// How long something may take that isn't stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pool on a file system that can be filled up: then ZFS can't write, and waits (`failmode=wait`).
struct Failing {
    scene: Scene,
    directory: tempfile::TempDir,
}

impl Failing {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("zfstxn-full-").tempdir_in("/tmp").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=96M", "none"]).arg(directory.path());
        assert!(mount.status().unwrap().success());
        let device = directory.path().join("device");
        File::create(&device).and_then(|file| file.set_len(1 << 30)).unwrap();
        let scene = Scene { pool: TestPool::on_device(&device), zfs: Zfs::open().unwrap() };
        Self { scene, directory }
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// From now on the pool can write no more.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let zeros = vec![0; 1 << 20];
        while filler.write_all(&zeros).is_ok() {}
    }

    fn is_suspended(&self) -> bool {
        let state = format!("/proc/spl/kstat/zfs/{}/state", self.scene.pool.name());
        fs::read_to_string(state).is_ok_and(|state| state.trim() == "SUSPENDED")
    }

    /// The pool goes on.
    fn resume(&self) {
        let _ = fs::remove_file(self.filler());
        if !self.is_suspended() {
            return;
        }
        let mut clear = Command::new("zpool");
        clear.args(["clear", self.scene.pool.name()]).stderr(Stdio::null());
        let mut clear = clear.spawn().unwrap();
        wait_until(|| clear.try_wait().unwrap().is_some() && !self.is_suspended());
    }

    fn end(self) {
        let Self { scene, directory } = self;
        scene.end();
        unmount(&directory);
    }
}

fn unmount(directory: &tempfile::TempDir) {
    assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
}

fn wait_until(mut is: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// Does something in a thread of its own, which may get stuck.
fn aside<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, is_done) = channel();
    spawn(move || {
        let _ = done.send(what());
    });
    is_done
}

/// Everything that transactions do, on a pool that is well.
fn transactions(zfs: &Zfs, pool: &DatasetName, targets: &[DatasetName]) {
    for target in targets {
        for strategy in [Strategy::Promote, Strategy::InPlace] {
            let begin = || zfs.transaction(target).strategy(strategy).fence().begin().unwrap();
            let transaction = begin();
            fs::write(transaction.path().join("file"), "generation 1").unwrap();
            transaction.commit().unwrap();
            begin().rollback().unwrap();
        }
    }
    let new = format!("{pool}/new").parse().unwrap();
    zfs.transaction(&new).begin().unwrap().commit().unwrap();
    assert!(zfs.pending(pool).unwrap().is_empty());
    assert!(zfs.recover(pool).unwrap().unfinished.is_empty());
}

#[test]
fn threads_that_wait_for_a_suspended_pool_stop_no_transaction_on_another() {
    let (failing, other) = (Failing::new(), Scene::new());
    // What inherits its mount point is pinned; permissions are copied.
    let targets =
        [other.dataset("t", &[]), other.dataset("u", &["-o", "mountpoint=/tmp/zfstxn-u"])];
    other.pool.zfs(&["allow", "-e", "create", targets[0].as_str()]);
    // Flushing a workspace would wait as well, before the calls that are meant here.
    let names = ["a", "b", "c", "d", "e"];
    let stuck = names.map(|name| failing.scene.dataset(name, &["-o", "sync=disabled"]));
    failing.scene.pool.zfs(&["allow", "-e", "create", stuck[4].as_str()]);
    let [a, b, c, d, e] = stuck;
    let open = |target: &DatasetName, strategy| {
        let transaction =
            failing.scene.zfs.transaction(target).strategy(strategy).fence().begin().unwrap();
        fs::write(transaction.path().join("file"), vec![7; 1 << 20]).unwrap();
        transaction
    };
    let (by_promote, in_place) = (open(&a, Strategy::Promote), open(&b, Strategy::InPlace));
    let undone = open(&c, Strategy::Promote);
    failing.fill();
    let zfs = &failing.scene.zfs;
    let (zfs_d, zfs_e) = (zfs.clone(), zfs.clone());
    let begun = Instant::now();
    let said = |result: Result<(), String>| result.err().unwrap_or_default();
    let commit = |transaction: Transaction| {
        aside(move || said(transaction.commit().map(drop).map_err(|error| error.to_string())))
    };
    // The first that waits for a txg suspends the pool; what comes later may be refused.
    let mut waiting = vec![commit(by_promote), commit(in_place)];
    let suspended = wait_until(|| failing.is_suspended());
    let begin = |zfs: Zfs, target: DatasetName| {
        let begin = move || zfs.transaction(&target).begin().map(drop);
        aside(move || said(begin().map_err(|error| error.to_string())))
    };
    waiting.extend([begin(zfs_d, d), begin(zfs_e, e)]);
    waiting.push(aside(move || said(undone.rollback().map_err(|error| error.to_string()))));
    let (zfs, pool) = (other.zfs.clone(), other.name(""));
    let went_on = aside(move || transactions(&zfs, &pool, &targets)).recv_timeout(PATIENCE);
    let took = begun.elapsed();
    let ended: Vec<_> = waiting.iter().map(|end| end.try_recv().ok()).collect();
    failing.resume();
    let waited = waiting.iter().zip(&ended).filter(|(_, ended)| ended.is_none());
    let goes_on = waited.map(|(end, _)| end.recv_timeout(PATIENCE)).all(|end| end.is_ok());
    let _ = failing.scene.zfs.recover(&failing.scene.name(""));
    figures(&format!(
        "suspended pool: {} of {} calls waited for it while the transactions on another took {took:.1?}",
        ended.iter().filter(|end| end.is_none()).count(),
        ended.len()
    ));
    failing.end();
    assert!(suspended, "the pool was not suspended");
    // Those that commit wait for the fence, which libzfs sets.
    assert!(ended[..2].contains(&None), "nobody waited: {ended:?}");
    assert!(goes_on, "who waited for the pool still does");
    assert!(went_on.is_ok(), "the transactions on the other pool did not go on");
    other.end();
}
