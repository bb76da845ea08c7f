//! Faults injected at each verb of the engine, on real ZFS.

mod cut_short;
mod meanwhile;
mod mount_points;

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::engine::{Engine, Fault, Private};
use crate::errno::Errno;
use crate::error::{BeginError, CommitError, Conflict};
use crate::ffi::lzc::Lzc;
use crate::ffi::nvlist::NvList;
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::ownership::Ownership;
use crate::receipt::{Guid, Keeps, OnConflict, Strategy};
use crate::test_pool::TestPool;
use crate::txn::forwarding::forward_to_kernel;
use crate::txn::{Step, Transaction};
use crate::zfs::Zfs;

/// The last part of the name of a target that is changed in place.
const IN_PLACE: &str = "in-place";

/// Whether a verb that is made to fail has its effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fail {
    Before,
    After,
}

/// What happens just before an effect.
type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Trap {
    /// How many more effects succeed before one fails, and how; the next follows when it has.
    countdowns: VecDeque<(usize, Fail)>,
    /// What to do just before the first effect of a kind.
    hook: Option<(&'static str, Hook)>,
    /// The effects so far.
    seen: Vec<&'static str>,
    /// The effects that were made to fail.
    sprung: Vec<&'static str>,
    /// How many questions were asked.
    asked: usize,
}

/// The kernel, with effects that fail.
struct Faulty {
    kernel: Kernel,
    trap: Mutex<Trap>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    fn open() -> Arc<Self> {
        Arc::new(Self { kernel: Kernel::open().unwrap(), trap: Mutex::default() })
    }

    fn set(&self, countdowns: &[(usize, Fail)]) {
        let countdowns = countdowns.iter().copied().collect();
        *self.trap.lock().unwrap() = Trap { countdowns, ..Trap::default() };
    }

    fn before(&self, verb: &'static str, hook: impl FnOnce() + Send + 'static) {
        *self.trap.lock().unwrap() = Trap { hook: Some((verb, Box::new(hook))), ..Trap::default() };
    }

    fn seen(&self) -> Vec<&'static str> {
        self.trap.lock().unwrap().seen.clone()
    }

    fn sprung(&self) -> Vec<&'static str> {
        self.trap.lock().unwrap().sprung.clone()
    }

    fn question<T>(&self, call: impl FnOnce() -> T) -> T {
        self.trap.lock().unwrap().asked += 1;
        call()
    }

    fn effect<T>(
        &self,
        verb: &'static str,
        call: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (hook, fail) = {
            let mut trap = self.trap.lock().unwrap();
            trap.seen.push(verb);
            let hook = trap.hook.take_if(|(wanted, _)| *wanted == verb);
            let fail = match trap.countdowns.front_mut() {
                Some((0, fail)) => Some(*fail),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            };
            if fail.is_some() {
                trap.countdowns.pop_front();
                trap.sprung.push(verb);
            }
            (hook, fail)
        };
        if let Some((_, hook)) = hook {
            hook();
        }
        let injected = || Fault { errno: Errno::IO, detail: Some("injected".to_owned()) };
        match fail {
            Some(Fail::Before) => Err(injected()),
            Some(Fail::After) => call().and_then(|_| Err(injected())),
            None => call(),
        }
    }
}

forward_to_kernel!(Faulty);

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
        let in_place = pool.dataset(IN_PLACE);
        pool.zfs(&["create", &in_place]);
        fs::write(pool.mountpoint().join(IN_PLACE).join("file"), "old").unwrap();
        let zfs = Zfs::on(Arc::clone(&engine) as Arc<dyn Engine>, None);
        Self { pool, engine, zfs }
    }

    fn name(&self, relative: &str) -> DatasetName {
        self.pool.dataset(relative).parse().unwrap()
    }

    fn begin(&self, target: &DatasetName) -> Result<Transaction, BeginError> {
        let builder = self.zfs.transaction(target).create_parents().snapshot("final");
        let builder = match target.leaf() {
            IN_PLACE => builder.strategy(Strategy::InPlace).fence(),
            _ => builder,
        };
        builder.ownership(Ownership::new().mode(0o700)).begin()
    }

    /// Has the target renamed and another dataset get its name, right before an effect.
    fn swap_before(&self, verb: &'static str, target: &DatasetName) {
        let (name, elsewhere) = (target.to_string(), format!("{target}-elsewhere"));
        self.engine.before(verb, move || {
            for command in [&["rename", "-u", &name, &elsewhere][..], &["create", "-u", &name]] {
                assert!(Command::new("zfs").args(command).status().unwrap().success());
            }
        });
    }

    /// What must be as before when nothing was committed.
    fn state(&self) -> String {
        // With what follows the name of this pool, and not that of a longer one.
        let pool = self.pool.name();
        let stable = "name,guid,mountpoint,canmount,origin,mounted,readonly";
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let ours = [" ", "/"].map(|end| format!("{pool}{end}"));
        let here = |line: &&str| ours.iter().any(|name| line.starts_with(name));
        let mounts: Vec<&str> = mounts.lines().filter(here).collect();
        // A bookmark in a workspace is nobody's business.
        let types = "filesystem,volume,snapshot";
        let listed = self.pool.zfs(&["list", "-Hp", "-o", stable, "-t", types, "-r", pool]);
        format!(
            "{listed}{}\n{}",
            self.pool.zfs(&["allow", &self.pool.dataset("t")]),
            mounts.join("\n")
        )
    }

    fn guid(&self, name: &str) -> Option<Guid> {
        self.engine.kernel.facts(name).unwrap().map(|facts| facts.guid)
    }

    fn content(&self, target: &DatasetName) -> Option<String> {
        let place = self.engine.kernel.places(target).unwrap().into_iter().next()?;
        fs::read_to_string(place.path.join("file")).ok()
    }
}

/// The effects of one whole transaction, in order, and how many of them are begin's.
fn effects_of(scene: &Scene, target: &DatasetName) -> (usize, Vec<&'static str>) {
    scene.engine.set(&[]);
    let transaction = scene.begin(target).unwrap();
    let begin = scene.engine.seen().len();
    fs::write(transaction.path().join("file"), "old").unwrap();
    transaction.commit().unwrap();
    (begin, scene.engine.seen())
}

fn remove(scene: &Scene, target: &DatasetName) {
    if target.as_str().ends_with("/new") {
        let _ = scene.pool.try_zfs(&["destroy", "-r", &scene.pool.dataset("parent")]);
    } else {
        let _ = scene.pool.try_zfs(&["destroy", &format!("{target}@final")]);
    }
}

/// What must hold after a fault at one effect of begin or commit. `normal` are the effects of a
/// transaction without a fault.
fn one_fault(
    scene: &Scene,
    target: &DatasetName,
    normal: &[&'static str],
    (at, fail): (usize, Fail),
) -> &'static str {
    let case = format!("{target}, effect {at} ({}), {fail:?}", normal[at]);
    let (before, old) = (scene.state(), scene.content(target));
    scene.engine.set(&[(at, fail)]);
    let transaction = match scene.begin(target) {
        Err(BeginError::Failed { left, .. }) => {
            assert!(left.is_empty(), "{case}: {left:?}");
            assert_eq!(scene.state(), before, "{case}");
            return "begin undone";
        }
        Err(error) => panic!("{case}: {error}"),
        Ok(transaction) => transaction,
    };
    fs::write(transaction.path().join("file"), "new").unwrap();
    let begun = scene.state();
    let outcome = match transaction.commit() {
        Ok(receipt) => {
            assert_eq!(scene.content(target).as_deref(), Some("new"), "{case}");
            for leftover in &receipt.leftovers {
                scene.pool.zfs(&["destroy", &leftover.name]);
            }
            if receipt.leftovers.is_empty() { "committed" } else { "leftover" }
        }
        Err(CommitError::Unchanged { transaction, error }) => {
            assert_eq!(scene.content(target), old, "{case}: {error}");
            assert_eq!(scene.state(), begun, "{case}: {error}");
            // The transaction is as it was: it can be committed now.
            assert_eq!(fs::read_to_string(transaction.path().join("file")).unwrap(), "new");
            let receipt = transaction.commit().unwrap();
            assert!(receipt.leftovers.is_empty(), "{case}: {receipt:?}");
            assert_eq!(scene.content(target).as_deref(), Some("new"), "{case}");
            "handed back"
        }
        Err(CommitError::InDoubt { receipt, errors, .. }) => {
            let receipt = receipt.unwrap_or_else(|| panic!("{case}: {errors:?}"));
            assert_eq!(errors.len(), 1, "{case}: {errors:?}");
            let facts = scene.engine.kernel.facts(target.as_str()).unwrap().unwrap();
            assert_eq!((&receipt.target, receipt.guid), (target, facts.guid), "{case}");
            scene.engine.set(&[]);
            let recovery = scene.zfs.recover(&scene.name("")).unwrap();
            assert!(recovery.unfinished.is_empty(), "{case}: {recovery:?}");
            assert_eq!(scene.content(target).as_deref(), Some("new"), "{case}: {recovery:?}");
            let listed = scene.state();
            let traces = ["-old-", "-txn-", "@txn-"].map(|trace| listed.contains(trace));
            assert_eq!(traces, [false; 3], "{case}: {listed}");
            scene.engine.trap.lock().unwrap().sprung.push(normal[at]);
            "past the commit point"
        }
        Err(error) => panic!("{case}: {error}"),
    };
    assert_eq!(scene.engine.sprung(), [normal[at]], "{case}");
    println!("{case}: {outcome}");
    outcome
}

/// I4 for errors: before the commit point everything is undone, after it the commit goes on.
fn every_effect_fails_once(relative: &str) {
    let scene = Scene::new();
    let target = scene.name(relative);
    let (begin, normal) = effects_of(&scene, &target);
    remove(&scene, &target);
    let mut outcomes = std::collections::BTreeMap::<_, usize>::new();
    for fail in [Fail::Before, Fail::After] {
        for at in 0..normal.len() {
            let outcome = one_fault(&scene, &target, &normal, (at, fail));
            assert_eq!(outcome == "begin undone", at < begin, "{relative} {at} {fail:?}");
            *outcomes.entry(outcome).or_default() += 1;
            put_right(&scene, &target);
        }
    }
    println!("{relative}: {} effects, each before and after: {outcomes:?}", normal.len());
    assert!(outcomes["handed back"] > 0 && outcomes["past the commit point"] > 0);
    scene.engine.set(&[]);
    scene.pool.cleanup();
}

/// Undoing a commit fails, too: both contents are kept, and dropping the error destroys nothing.
#[test]
fn a_commit_that_cannot_be_undone_keeps_both_contents() {
    // The commit point fails, and then one of the three effects that undo what was before it.
    for (undo, verb) in ["rename", "promote", "destroy"].into_iter().enumerate() {
        let scene = Scene::new();
        let target = scene.name("t");
        let (_, normal) = effects_of(&scene, &target);
        remove(&scene, &target);
        let at = normal.iter().rposition(|effect| *effect == "rename").unwrap();
        let old = scene.guid(target.as_str());
        scene.engine.set(&[(at, Fail::Before), (undo, Fail::Before)]);
        let transaction = scene.begin(&target).unwrap();
        fs::write(transaction.path().join("file"), "new").unwrap();
        let (id, private) = (transaction.id(), transaction.path().to_owned());
        let error = transaction.commit().unwrap_err();
        assert_eq!(scene.engine.sprung(), ["rename", verb]);
        let text = error.to_string();
        let CommitError::InDoubt { receipt: None, errors, .. } = error else { panic!("{text}") };
        assert!(errors.len() >= 2, "{text}");
        drop(errors);
        assert_eq!(fs::read_to_string(private.join("file")).unwrap(), "new", "{text}");
        let workspace = format!("{target}-txn-{id}");
        assert!(text.contains(&workspace), "{text}");
        let old_is_at = [target.to_string(), format!("{target}-old-{id}")]
            .into_iter()
            .filter(|name| scene.guid(name) == old)
            .count();
        assert_eq!(old_is_at, 1, "{text}");
        assert!(scene.guid(&workspace).is_some());
        crate::mount::detach(&private).unwrap();
        fs::remove_dir(&private).unwrap();
        scene.pool.cleanup();
    }
}

#[test]
fn a_predecessor_that_can_be_neither_destroyed_nor_parked_is_said() {
    let scene = Scene::new();
    let target = scene.name("t");
    let (_, normal) = effects_of(&scene, &target);
    remove(&scene, &target);
    let at = normal.iter().position(|effect| *effect == "conclude").unwrap();
    // Concluded in vain, because a file is open, then without the predecessor.
    scene.engine.set(&[(at + 2, Fail::Before)]);
    let transaction = scene.begin(&target).unwrap();
    let path = scene.engine.kernel.places(&target).unwrap().remove(0).path;
    let reader = fs::File::open(path.join("file")).unwrap();
    let error = transaction.commit().unwrap_err();
    assert_eq!(scene.engine.sprung(), ["keep_from_boot_mounts"]);
    let CommitError::InDoubt { receipt: Some(receipt), errors, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(errors[0].step, Step::ParkPredecessor);
    assert!(receipt.leftovers[0].name.contains("-old-"), "{receipt:?}");
    drop(reader);
    let swept = scene.zfs.sweep(&scene.name("")).unwrap();
    assert_eq!((swept.finished.len(), swept.unfinished.len()), (1, 0), "{swept:?}");
    assert!(scene.zfs.pending(&scene.name("")).unwrap().is_empty());
    scene.pool.cleanup();
}

/// Begin fails, and so does one effect that undoes it: what is left is named, and only that is left.
#[test]
fn a_begin_that_cannot_be_undone_names_what_is_left() {
    let scene = Scene::new();
    let target = scene.name("t");
    let (begin, _) = effects_of(&scene, &target);
    remove(&scene, &target);
    for undo in 0..3 {
        let before = scene.state();
        scene.engine.set(&[(begin - 1, Fail::After), (undo, Fail::Before)]);
        let error = scene.begin(&target).unwrap_err();
        let BeginError::Failed { left, .. } = error else { panic!("{error}") };
        assert!(!left.is_empty(), "undo {undo}");
        for leftover in &left {
            if leftover.guid == Guid(0) {
                crate::mount::detach(Path::new(&leftover.name)).unwrap();
                fs::remove_dir(&leftover.name).unwrap();
            } else {
                scene.pool.zfs(&["destroy", &leftover.name]);
            }
        }
        assert_eq!(scene.state(), before, "undo {undo}: {left:?}");
    }
    scene.pool.cleanup();
}

/// The kernel would panic; what was there earlier is destroyed.
#[test]
fn a_bookmark_made_just_before_the_promote_is_refused() {
    let scene = Scene::new();
    let target = scene.name("t");
    let (kept, taken) = (format!("{target}@kept"), format!("{target}#daily"));
    scene.pool.zfs(&["bookmark", &kept, &taken]);
    scene.engine.set(&[]);
    let transaction = scene.begin(&target).unwrap();
    let twice = format!("{target}-txn-{}#daily", transaction.id());
    scene.engine.before("promote", move || {
        assert!(Command::new("zfs").args(["bookmark", &kept, &twice]).status().unwrap().success());
    });
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { transaction, error } = error else { panic!("{error}") };
    assert_eq!((error.step, error.errno), (Step::Promote, Errno::EXIST));
    assert!(error.detail.unwrap().contains(&taken));
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.workspace_snapshots.len(), 1, "{receipt:?}");
    put_right(&scene, &target);
    scene.pool.cleanup();
}

/// Whenever the snapshot comes, before the promote or after it.
#[test]
fn a_snapshot_taken_at_the_last_moment_is_carried_along() {
    let scene = Scene::new();
    let target = scene.name("t");
    for (verb, overwrite) in [
        ("promote", OnConflict::Fail),
        ("promote", OnConflict::Overwrite),
        ("rename", OnConflict::Fail),
    ] {
        scene.engine.set(&[]);
        let transaction = scene.zfs.transaction(&target).on_conflict(overwrite).begin().unwrap();
        let content = format!("{verb} {overwrite:?}");
        fs::write(transaction.path().join("file"), &content).unwrap();
        let (before, guid) = (scene.content(&target), scene.guid(target.as_str()));
        let late = format!("{target}@late");
        let taken = late.clone();
        scene.engine.before(verb, move || {
            assert!(Command::new("zfs").args(["snapshot", &taken]).status().unwrap().success());
        });
        let receipt = transaction.commit().unwrap();
        assert_eq!(receipt.strategy, Strategy::InPlace, "{content}");
        assert_eq!((&receipt.leftovers[..], &receipt.overridden[..]), (&[][..], &[][..]));
        assert_eq!(scene.guid(target.as_str()), guid);
        assert_eq!(scene.content(&target).as_deref(), Some(&*content));
        assert!(before.is_some() && scene.guid(&late).is_some());
        scene.pool.zfs(&["destroy", &late]);
    }
    scene.pool.cleanup();
}

/// I8: a rival commits after the target was looked at; the promote's own check finds out.
#[test]
fn a_rival_that_commits_just_before_the_promote_wins() {
    let scene = Scene::new();
    let target = scene.name("t");
    for rival_is_younger in [true, false] {
        let rival_zfs = Zfs::on(Arc::new(Kernel::open().unwrap()), None);
        let begin_rival = || rival_zfs.transaction(&target).begin().unwrap();
        scene.engine.set(&[]);
        let (ours, rival) = if rival_is_younger {
            let ours = scene.begin(&target).unwrap();
            (ours, begin_rival())
        } else {
            let rival = begin_rival();
            (scene.begin(&target).unwrap(), rival)
        };
        fs::write(ours.path().join("file"), "ours").unwrap();
        fs::write(rival.path().join("file"), "rival").unwrap();
        scene.engine.before("promote", move || drop(rival.commit().unwrap()));
        let error = ours.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert!(matches!(conflict, Conflict::TargetReplaced { .. }), "{conflict}");
        assert_eq!(scene.content(&target).as_deref(), Some("rival"));
        transaction.rollback().unwrap();
        assert_eq!(scene.content(&target).as_deref(), Some("rival"));
        put_right(&scene, &target);
    }
    scene.pool.cleanup();
}

/// I6: a write between the last look at the predecessor and its destroy.
#[test]
fn a_write_that_slips_in_just_before_the_destroy_is_kept() {
    let scene = Scene::new();
    let target = scene.name("t");
    scene.engine.set(&[]);
    let transaction = scene.begin(&target).unwrap();
    let path = scene.engine.kernel.places(&target).unwrap().remove(0).path;
    let mut late = fs::File::options().append(true).open(path.join("file")).unwrap();
    scene.engine.before("conclude", move || late.write_all(b" and more").unwrap());
    let receipt = transaction.commit().unwrap();
    let kept = &receipt.leftovers[0];
    assert_eq!(kept.keeps, Keeps::Changes, "{receipt:?}");
    // In a directory that is made for it, where nobody else gets.
    let look = scene.pool.directory().join("place/look");
    let name: DatasetName = kept.name.parse().unwrap();
    let at = Private { path: &look, user: None, becomes: None };
    let root = scene.engine.kernel.mount_private(&name, at).unwrap();
    assert_eq!(fs::read_to_string(look.join("file")).unwrap(), "old and more");
    scene.engine.kernel.unmount_private(at, Some(root.as_fd()), &[]).unwrap();
    drop(root);
    scene.pool.cleanup();
}

/// What somebody writes into the directory below a workspace while it is committed stays, and is told of.
#[test]
fn what_is_written_below_a_workspace_during_a_commit_is_kept() {
    let scene = Scene::new();
    for relative in ["t", IN_PLACE] {
        let target = scene.name(relative);
        scene.engine.set(&[]);
        let transaction = scene.begin(&target).unwrap();
        let path = transaction.path().to_owned();
        fs::write(path.join("file"), "new").unwrap();
        let below = path.clone();
        scene.engine.before("unmount_private", move || {
            let unmount = Command::new("umount").arg("--lazy").arg(&below).status();
            assert!(unmount.unwrap().success());
            fs::create_dir(below.join("deep")).unwrap();
            fs::write(below.join("deep/stray"), "stray").unwrap();
        });
        let receipt = transaction.commit().unwrap();
        let left: Vec<_> = receipt.leftovers.iter().map(|left| (&*left.name, left.keeps)).collect();
        assert_eq!(left, [(path.to_str().unwrap(), Keeps::Changes)]);
        assert_eq!(fs::read(path.join("deep/stray")).unwrap(), b"stray");
        assert_eq!(scene.content(&target).as_deref(), Some("new"));
        fs::remove_dir_all(&path).unwrap();
        assert!(scene.zfs.pending(&scene.name("")).unwrap().is_empty());
    }
    scene.pool.cleanup();
}

/// A rename goes by name: a foreign dataset under the target's name gets it back.
#[test]
fn a_target_swapped_just_before_the_rename_keeps_its_name() {
    let scene = Scene::new();
    let target = scene.name("t");
    scene.engine.set(&[]);
    let transaction = scene.begin(&target).unwrap();
    let old = scene.guid(target.as_str());
    scene.swap_before("rename", &target);
    let error = transaction.commit().unwrap_err();
    assert!(matches!(error, CommitError::InDoubt { receipt: None, .. }), "{error}");
    let now = scene.guid(target.as_str());
    assert!(now.is_some() && now != old, "{error}");
    assert_eq!(scene.guid(&format!("{target}-elsewhere")), old, "{error}");
    put_right(&scene, &target);
    scene.pool.cleanup();
}

/// A fence goes by name as well: what another commit has made the target meanwhile stays writable.
#[test]
fn a_target_swapped_just_before_the_fence_can_be_written() {
    let scene = Scene::new();
    let target = scene.name(IN_PLACE);
    scene.engine.set(&[]);
    let transaction = scene.begin(&target).unwrap();
    scene.swap_before("fence", &target);
    let error = transaction.commit().unwrap_err();
    let conflict =
        matches!(error, CommitError::Conflict { conflict: Conflict::TargetReplaced { .. }, .. });
    assert!(conflict, "{error}");
    assert_eq!(scene.engine.seen().iter().filter(|verb| **verb == "fence").count(), 1);
    for name in [target.to_string(), format!("{target}-elsewhere")] {
        let readonly = scene.pool.zfs(&["get", "-Ho", "value", "readonly", &name]);
        assert_eq!(readonly, "off\n", "{name}");
    }
    drop(error);
    scene.pool.cleanup();
}

/// I7: a name outside is refused before ZFS is asked anything.
#[test]
fn a_confined_handle_asks_nothing_about_names_outside() {
    let scene = Scene::new();
    let confined = [scene.name("in")];
    let zfs = Zfs::on(Arc::clone(&scene.engine) as Arc<dyn Engine>, Some(&confined));
    scene.engine.set(&[]);
    for name in ["in", "t", "in2/t", "missing/t"] {
        let target = scene.name(name);
        let error = zfs.transaction(&target).create_parents().begin().unwrap_err();
        assert!(matches!(error, BeginError::OutsideConfinement { .. }), "{error}");
    }
    let trap = scene.engine.trap.lock().unwrap();
    assert_eq!((trap.asked, trap.seen.len()), (0, 0));
    drop(trap);
    scene.pool.cleanup();
}

/// What a person would do after a commit in doubt, so that the next case starts from the same.
fn put_right(scene: &Scene, target: &DatasetName) {
    scene.engine.set(&[]);
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
fn an_update_in_place_survives_a_fault_at_every_effect() {
    every_effect_fails_once(IN_PLACE);
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
        scene.engine.set(&[]);
        let transaction = scene.begin(&target).unwrap();
        let private = transaction.path().to_owned();
        scene.engine.set(&[(at, Fail::Before)]);
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
