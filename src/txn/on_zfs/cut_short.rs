//! A transaction that stops for good just before one of its effects, as if it was killed there.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use super::{Fail, Scene, Trap, effects_of, remove};
use crate::engine::{Engine, Place, Private};
use crate::errno::Errno;
use crate::error::{CommitError, ResumeError};
use crate::kernel::Kernel;
use crate::mount::detach;
use crate::name::{DatasetName, TransactionId};
use crate::receipt::Keeps;
use crate::recovery::Outcome;
use crate::txn::Step;
use crate::zfs::{Zfs, private_path};

impl Scene {
    /// How many effects come before the mounts are swapped; has them all once.
    fn effects_before_swap(&self, target: &DatasetName) -> usize {
        let (_, normal) = effects_of(self, target);
        remove(self, target);
        normal.iter().position(|effect| *effect == "attach").unwrap()
    }

    /// A commit that passes the commit point and dies when it would swap the mounts, after `last`.
    fn die_before_swap(
        &self,
        target: &DatasetName,
        effects: usize,
        last: impl FnOnce() + Send + 'static,
    ) -> TransactionId {
        let countdowns = std::iter::once(effects).chain([0; 16]).map(|left| (left, Fail::Before));
        *self.engine.trap.lock().unwrap() = Trap {
            countdowns: countdowns.collect(),
            hook: Some(("attach", Box::new(last))),
            ..Trap::default()
        };
        let transaction = self.begin(target).unwrap();
        let id = transaction.id();
        fs::write(transaction.path().join("file"), "new").unwrap();
        let error = transaction.commit().unwrap_err();
        assert!(matches!(error, CommitError::InDoubt { receipt: Some(_), .. }), "{error}");
        let sprung = self.engine.sprung();
        assert_eq!((sprung[0], sprung.contains(&"conclude")), ("attach", true), "{sprung:?}");
        self.engine.set(&[]);
        id
    }

    fn places(&self, name: &str) -> Vec<Place> {
        self.engine.kernel.places(&name.parse().unwrap()).unwrap()
    }

    fn assert_nothing_left(&self) {
        let state = self.state();
        let traces = ["-old-", "-txn-", "@txn-"].map(|trace| state.contains(trace));
        assert_eq!(traces, [false; 3], "{state}");
    }
}

/// Killed when the old mount was taken away and the new one not there yet, or unmounted by hand.
#[test]
fn a_target_that_a_killed_commit_left_mounted_nowhere_is_mounted_by_recovery() {
    let scene = Scene::new();
    let inherits = scene.name("inherits");
    scene.pool.zfs(&["create", "-o", "exec=off", inherits.as_str()]);
    for target in [scene.name("t"), inherits] {
        let effects = scene.effects_before_swap(&target);
        let place = scene.places(target.as_str()).remove(0);
        let path = place.path.clone();
        let id = scene.die_before_swap(&target, effects, move || detach(&path).unwrap());
        assert!(scene.places(&format!("{target}-old-{id}")).is_empty());
        let private = scene.places(target.as_str());
        assert_eq!(private.len(), 1, "{private:?}");
        assert_eq!(private[0].path, private_path(id));

        let recovery = scene.zfs.recover(&scene.name("")).unwrap();
        let outcomes: Vec<_> = recovery.finished.iter().map(|f| (f.id, f.outcome)).collect();
        assert_eq!(outcomes, [(id, Outcome::Committed)], "{recovery:?}");
        let mounted = scene.places(target.as_str());
        let seen: Vec<_> = mounted.iter().map(|place| (&place.path, place.options)).collect();
        assert_eq!(seen, [(&place.path, place.options)]);
        assert_eq!(fs::read_to_string(place.path.join("file")).unwrap(), "new");
        scene.assert_nothing_left();
    }
    scene.pool.cleanup();
}

/// I6: past the commit point, the old content got a write that is only in its intent log.
#[test]
fn what_was_synced_to_the_old_content_before_a_power_cut_is_kept_by_recovery() {
    let scene = Scene::new();
    let target = scene.name("t");
    let effects = scene.effects_before_swap(&target);
    let path = scene.places(target.as_str()).remove(0).path;
    let mut file = fs::File::options().append(true).open(path.join("file")).unwrap();
    // Only what has a log before the pool is frozen can be written to it afterwards.
    file.write_all(b", first").and_then(|()| file.sync_all()).unwrap();
    let pool = scene.pool.name().to_owned();
    let id = scene.die_before_swap(&target, effects, move || {
        let frozen = std::process::Command::new("zpool").args(["freeze", &pool]).status();
        assert!(frozen.unwrap().success());
        file.write_all(b", second").and_then(|()| file.sync_all()).unwrap();
    });
    let predecessor = format!("{target}-old-{id}");
    let mounts = [scene.places(&predecessor), scene.places(target.as_str())].concat();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    for place in mounts {
        detach(&place.path).unwrap();
    }
    scene.pool.reimport_with(&["-N"]);
    assert!(scene.places(&predecessor).is_empty());

    // The one without faults has an intent log replayed.
    let zfs = Zfs::on(Arc::new(Kernel::open().unwrap()), None);
    let recovery = zfs.recover(&scene.name("")).unwrap();
    let [finished] = &recovery.finished[..] else { panic!("{recovery:?}") };
    assert_eq!(finished.outcome, Outcome::Committed);
    let kept = finished.leftovers.iter().find(|leftover| leftover.name == predecessor);
    assert_eq!(kept.map(|kept| kept.keeps), Some(Keeps::Changes), "{finished:?}");
    assert_eq!(scene.content(&target).as_deref(), Some("new"));
    // In a directory that is made for it, where nobody else gets.
    let look = scene.pool.directory().join("place/look");
    let (kernel, at) = (&scene.engine.kernel, Private { path: &look, user: None, becomes: None });
    let root = kernel.mount_private(&predecessor.parse().unwrap(), at).unwrap();
    assert_eq!(fs::read_to_string(look.join("file")).unwrap(), "old, first, second");
    kernel.unmount_private(at, Some(root.as_fd()), &[]).unwrap();
    drop(root);
    scene.pool.cleanup();
}

/// Two have read the record as detached; the second writes when the first has the transaction.
#[test]
fn who_resumes_second_leaves_the_first_ones_mount_alone() {
    let scene = Scene::new();
    for relative in ["t", "new"] {
        let target = scene.name(relative);
        scene.engine.set(&[]);
        let transaction = scene.begin(&target).unwrap();
        let private: PathBuf = transaction.path().to_owned();
        fs::write(private.join("file"), "old").unwrap();
        let id = transaction.detach().unwrap();
        let (sender, receiver) = mpsc::channel();
        let (first, its_target) =
            (Zfs::on(Arc::new(Kernel::open().unwrap()), None), target.clone());
        let mounted_at = |path: &Path| {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let at = format!(" {} ", path.display());
            table.lines().filter(|l| l.contains(&at)).map(str::to_owned).collect::<Vec<_>>()
        };
        let at = private.clone();
        scene.engine.before("write_record", move || {
            let transaction = first.resume(&its_target, id).unwrap();
            sender.send((mounted_at(&at), transaction)).unwrap();
        });
        let ResumeError::Failed { error } = scene.zfs.resume(&target, id).unwrap_err() else {
            panic!("not a step that failed")
        };
        assert_eq!((error.step, error.errno), (Step::Resume, Errno::STALE), "{error}");
        let (mount, transaction) = receiver.recv().unwrap();
        assert_eq!((mount.len(), &mounted_at(&private)), (1, &mount));
        assert!(scene.zfs.recover(&scene.name("")).unwrap().finished.is_empty());
        fs::write(transaction.path().join("file"), "new").unwrap();
        assert!(transaction.commit().unwrap().leftovers.is_empty());
        assert_eq!(scene.content(&target).as_deref(), Some("new"));
    }
    scene.pool.cleanup();
}
