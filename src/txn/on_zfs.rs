//! Faults injected at each verb of the engine, on real ZFS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

use rustix::mount::MountAttrFlags;

use crate::engine::{
    Engine, Facts, Fault, Place, PreparedMount, Promotion, PropertyValue, Settings,
};
use crate::errno::Errno;
use crate::error::{BeginError, CommitError};
use crate::ffi::lzc::Lzc;
use crate::ffi::nvlist::NvList;
use crate::kernel::Kernel;
use crate::name::{DatasetName, SnapshotName};
use crate::ownership::{Ids, Ownership};
use crate::receipt::Guid;
use crate::test_pool::TestPool;
use crate::txn::Transaction;
use crate::zfs::Zfs;

/// Whether a verb that is made to fail has its effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fail {
    Before,
    After,
}

#[derive(Debug, Default)]
struct Trap {
    /// How many more effects succeed before one fails; `None`: all succeed.
    countdown: Option<(usize, Fail)>,
    /// The effects so far.
    seen: Vec<&'static str>,
    /// The effect that was made to fail.
    sprung: Option<&'static str>,
}

/// The kernel, with one effect that fails.
#[derive(Debug)]
struct Faulty {
    kernel: Kernel,
    trap: Mutex<Trap>,
}

impl Faulty {
    fn open() -> Arc<Self> {
        Arc::new(Self { kernel: Kernel::open().unwrap(), trap: Mutex::default() })
    }

    fn set(&self, countdown: Option<(usize, Fail)>) {
        *self.trap.lock().unwrap() = Trap { countdown, ..Trap::default() };
    }

    fn sprung(&self) -> Option<&'static str> {
        self.trap.lock().unwrap().sprung
    }

    fn effect<T>(
        &self,
        verb: &'static str,
        call: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let fail = {
            let mut trap = self.trap.lock().unwrap();
            trap.seen.push(verb);
            match &mut trap.countdown {
                Some((0, fail)) => {
                    let fail = *fail;
                    (trap.countdown, trap.sprung) = (None, Some(verb));
                    Some(fail)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        let injected = || Fault { errno: Errno::IO, detail: Some("injected".to_owned()) };
        match fail {
            Some(Fail::Before) => Err(injected()),
            Some(Fail::After) => call().and_then(|_| Err(injected())),
            None => call(),
        }
    }
}

/// Forwards questions as they are, and effects through [`Faulty::effect`].
macro_rules! forward {
    (questions { $(fn $q:ident($($qa:ident: $qt:ty),*) -> $qr:ty;)* }
     effects { $(fn $e:ident($($ea:ident: $et:ty),*) -> $er:ty;)* }) => {
        impl Engine for Faulty {
            $(fn $q(&self, $($qa: $qt),*) -> Result<$qr, Fault> { self.kernel.$q($($qa),*) })*
            $(fn $e(&self, $($ea: $et),*) -> Result<$er, Fault> {
                self.effect(stringify!($e), || self.kernel.$e($($ea),*))
            })*
        }
    };
}

forward! {
    questions {
        fn facts(name: &str) -> Option<Facts>;
        fn settings(dataset: &DatasetName) -> Settings;
        fn snapshots_since(dataset: &DatasetName, base: Guid) -> Vec<String>;
        fn written_since(dataset: &DatasetName, snapshot: &str) -> u64;
        fn differs(dataset: &DatasetName, snapshot: &str) -> bool;
        fn places(dataset: &DatasetName) -> Vec<Place>;
        fn mount_options(dataset: &DatasetName) -> MountAttrFlags;
        fn mounts_on(place: &Place) -> Vec<PathBuf>;
    }
    effects {
        fn create(name: &DatasetName, own: &[(String, PropertyValue)]) -> ();
        fn snapshot(name: &SnapshotName) -> ();
        fn clone_snapshot(
            name: &DatasetName, origin: &SnapshotName, own: &[(String, PropertyValue)]) -> ();
        fn copy_permissions(from: &DatasetName, to: &DatasetName) -> ();
        fn promote(promotion: Promotion<'_>) -> ();
        fn rename(from: &DatasetName, to: &DatasetName) -> ();
        fn destroy(name: &str, guid: Guid) -> ();
        fn destroy_unchanged(name: &str, guid: Guid, base: &str, written: u64) -> ();
        fn inherit_mountpoint(name: &DatasetName, guid: Guid) -> ();
        fn set_mountpoint(name: &DatasetName, value: &str) -> ();
        fn keep_from_boot_mounts(name: &DatasetName) -> ();
        fn mount_private(dataset: &DatasetName, at: &Path) -> ();
        fn unmount_private(at: &Path) -> ();
        fn flush(at: &Path) -> ();
        fn set_ownership(at: &Path, ids: &Ids) -> ();
        fn prepare_mount(dataset: &DatasetName, place: Place) -> PreparedMount;
        fn attach(prepared: PreparedMount) -> ();
    }
}

/// A pool with a target to update and one to create, each with all optional steps.
struct Scene {
    pool: TestPool,
    engine: Arc<Faulty>,
    zfs: Zfs,
}

impl Scene {
    fn new() -> Self {
        let (pool, engine) = (TestPool::new(), Faulty::open());
        let path = pool.directory().join("local");
        let mountpoint = format!("mountpoint={}", path.display());
        let target = pool.dataset("t");
        pool.zfs(&["create", "-o", &mountpoint, &target]);
        fs::write(path.join("file"), "old").unwrap();
        pool.zfs(&["allow", "root", "snapshot", &target]);
        pool.zfs(&["snapshot", &pool.dataset("t@kept")]);
        let zfs = Zfs::on(Arc::clone(&engine) as Arc<dyn Engine>);
        Self { pool, engine, zfs }
    }

    fn name(&self, relative: &str) -> DatasetName {
        self.pool.dataset(relative).parse().unwrap()
    }

    fn begin(&self, target: &DatasetName) -> Result<Transaction, BeginError> {
        let builder = self.zfs.transaction(target).create_parents().snapshot("final");
        builder.ownership(Ownership::new().mode(0o700)).begin()
    }

    /// What must be as before when nothing was committed.
    fn state(&self) -> String {
        let pool = self.pool.name();
        let stable = "name,guid,mountpoint,canmount,origin,mounted";
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let here = |line: &&str| line.starts_with(pool);
        let mounts: Vec<&str> = mounts.lines().filter(here).collect();
        let listed = self.pool.zfs(&["list", "-Hp", "-o", stable, "-t", "all", "-r", pool]);
        format!(
            "{listed}{}\n{}",
            self.pool.zfs(&["allow", &self.pool.dataset("t")]),
            mounts.join("\n")
        )
    }

    fn content(&self, target: &DatasetName) -> Option<String> {
        let place = self.engine.kernel.places(target).unwrap().into_iter().next()?;
        fs::read_to_string(place.path.join("file")).ok()
    }
}

/// The effects of one whole transaction, by verb.
fn effects_of(scene: &Scene, target: &DatasetName) -> (usize, usize) {
    scene.engine.set(None);
    let transaction = scene.begin(target).unwrap();
    let begin = scene.engine.trap.lock().unwrap().seen.len();
    fs::write(transaction.path().join("file"), "old").unwrap();
    transaction.commit().unwrap();
    let all = scene.engine.trap.lock().unwrap().seen.len();
    scene.pool.zfs(&["destroy", &format!("{target}@final")]);
    (begin, all)
}

fn remove(scene: &Scene, target: &DatasetName) {
    if target.as_str().ends_with("/new") {
        let _ = scene.pool.try_zfs(&["destroy", "-r", &scene.pool.dataset("parent")]);
    } else {
        let _ = scene.pool.try_zfs(&["destroy", &format!("{target}@final")]);
    }
}

/// What must hold after a fault at one effect of begin or commit.
fn one_fault(scene: &Scene, target: &DatasetName, at: usize, fail: Fail) -> &'static str {
    let case = format!("{target}, effect {at}, {fail:?}");
    let (before, old) = (scene.state(), scene.content(target));
    scene.engine.set(Some((at, fail)));
    let outcome = match scene.begin(target) {
        Err(BeginError::Failed { left, .. }) => {
            // Whether a parent is this transaction's can't be known: it is named, and kept.
            if (scene.engine.sprung(), fail, at) == (Some("create"), Fail::After, 0) {
                assert_eq!(left.len(), 1, "{case}: {left:?}");
                scene.pool.zfs(&["destroy", &left[0].name]);
            } else {
                assert!(left.is_empty(), "{case}: {left:?}");
            }
            assert_eq!(scene.state(), before, "{case}");
            "begin undone"
        }
        Err(error) => panic!("{case}: {error}"),
        Ok(transaction) => {
            fs::write(transaction.path().join("file"), "new").unwrap();
            match transaction.commit() {
                Ok(receipt) => {
                    assert_eq!(scene.content(target).as_deref(), Some("new"), "{case}");
                    for leftover in &receipt.leftovers {
                        scene.pool.zfs(&["destroy", &leftover.name]);
                    }
                    if receipt.leftovers.is_empty() { "committed" } else { "leftover" }
                }
                Err(CommitError::Unchanged { transaction, error }) => {
                    assert_eq!(scene.content(target), old, "{case}: {error}");
                    // The transaction is as it was: it can be committed now.
                    assert_eq!(fs::read_to_string(transaction.path().join("file")).unwrap(), "new");
                    let receipt = transaction.commit().unwrap();
                    assert!(receipt.leftovers.is_empty(), "{case}: {receipt:?}");
                    assert_eq!(scene.content(target).as_deref(), Some("new"), "{case}");
                    "handed back"
                }
                Err(CommitError::InDoubt { receipt, errors, .. }) => {
                    let receipt = receipt.unwrap_or_else(|| panic!("{case}: {errors:?}"));
                    assert_eq!(receipt.target, *target);
                    assert_eq!(errors.len(), 1, "{case}: {errors:?}");
                    "past the commit point"
                }
                Err(error) => panic!("{case}: {error}"),
            }
        }
    };
    assert!(scene.engine.sprung().is_some(), "{case}: no fault was injected");
    println!("{case} ({}): {outcome}", scene.engine.sprung().unwrap_or_default());
    outcome
}

/// I4 for errors: before the commit point everything is undone, after it the commit goes on.
fn every_effect_fails_once(relative: &str) {
    let scene = Scene::new();
    let target = scene.name(relative);
    let (begin, all) = effects_of(&scene, &target);
    remove(&scene, &target);
    let mut outcomes = std::collections::BTreeMap::<_, usize>::new();
    for fail in [Fail::Before, Fail::After] {
        for at in 0..all {
            let outcome = one_fault(&scene, &target, at, fail);
            assert_eq!(outcome == "begin undone", at < begin, "{relative} {at} {fail:?}");
            *outcomes.entry(outcome).or_default() += 1;
            put_right(&scene, &target);
        }
    }
    println!("{relative}: {all} effects, each failing before and after: {outcomes:?}");
    assert!(outcomes["handed back"] > 0 && outcomes["past the commit point"] > 0);
    scene.engine.set(None);
    scene.pool.cleanup();
}

/// What a person would do after a commit in doubt, so that the next case starts from the same.
fn put_right(scene: &Scene, target: &DatasetName) {
    scene.engine.set(None);
    let listed = scene.pool.zfs(&["list", "-Ho", "name", "-t", "all", "-r", scene.pool.name()]);
    for name in listed.lines().filter(|name| name.contains("-old-") || name.contains("@txn-")) {
        let _ = scene.pool.try_zfs(&["destroy", name]);
    }
    for line in fs::read_to_string("/proc/self/mounts").unwrap().lines() {
        let path = line.split(' ').nth(1).unwrap();
        if line.starts_with(scene.pool.name()) && path.starts_with("/run/zfs-txn/") {
            crate::mount::detach(Path::new(path)).unwrap();
            fs::remove_dir(path).unwrap();
        }
    }
    remove(scene, target);
    if target.as_str().ends_with("/t") {
        let mountpoint = format!("mountpoint={}", scene.pool.directory().join("local").display());
        scene.pool.zfs(&["set", &mountpoint, target.as_str()]);
        let _ = scene.pool.try_zfs(&["mount", target.as_str()]);
        for name in scene.pool.zfs(&["list", "-Ho", "name", "-r", scene.pool.name()]).lines() {
            if name.contains("-old-") {
                scene.pool.zfs(&["destroy", name]);
            }
        }
    }
}

#[test]
fn an_update_survives_a_fault_at_every_effect() {
    every_effect_fails_once("t");
}

#[test]
fn an_init_survives_a_fault_at_every_effect() {
    every_effect_fails_once("parent/new");
}

/// A rollback tells what a failing effect left, and removes all the rest.
#[test]
fn a_rollback_goes_on_after_a_fault_at_any_effect() {
    let scene = Scene::new();
    let target = scene.name("t");
    for at in 0..3 {
        let before = scene.state();
        scene.engine.set(None);
        let transaction = scene.begin(&target).unwrap();
        let private = transaction.path().to_owned();
        scene.engine.set(Some((at, Fail::Before)));
        let error = transaction.rollback().unwrap_err();
        assert!(!error.left.is_empty() && !error.errors.is_empty(), "{error:?}");
        assert_eq!(scene.content(&target).as_deref(), Some("old"));
        let _ = crate::mount::detach(&private);
        let _ = fs::remove_dir(&private);
        for leftover in error.left.iter().filter(|leftover| leftover.guid != Guid(0)) {
            scene.pool.zfs(&["destroy", &leftover.name]);
        }
        assert_eq!(scene.state(), before, "effect {at}");
    }
    scene.pool.cleanup();
}

#[test]
fn a_target_with_a_thousand_snapshots_keeps_them_all() {
    let scene = Scene::new();
    let (target, lzc) = (scene.name("t"), Lzc::open().unwrap());
    let none = NvList::new().unwrap();
    for number in 0..1000 {
        lzc.snapshot(&[&format!("{target}@s{number:04}")], &none).unwrap();
    }
    let list = || {
        let listed =
            scene.pool.zfs(&["list", "-Hpo", "name,guid", "-t", "snapshot", target.as_str()]);
        listed.lines().filter(|line| line.contains("@s")).collect::<Vec<_>>().join("\n")
    };
    let before = list();
    assert_eq!(before.lines().count(), 1000);
    let transaction = scene.begin(&target).unwrap();
    fs::write(transaction.path().join("file"), "new").unwrap();
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(list(), before);
    assert_eq!(scene.content(&target).as_deref(), Some("new"));
    scene.pool.cleanup();
}
