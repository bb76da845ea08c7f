//! The workspace is what `path()` leads to, from begin to commit: what is written elsewhere is never
//! published.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use zfs_txn::{
    BeginError, CommitError, DatasetName, Errno, Keeps, Outcome, Ownership, ResumeError,
    RollbackError, Step, StepError, Strategy, Transaction, Zfs,
};

use crate::support::{Identity, Scene, State, again, assert_passed, mounts_of};

const STRATEGIES: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

/// Runs a command; says whether it succeeded, and what it said.
fn try_run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn run(words: &[&str]) {
    try_run(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A transaction that sets an owner of the whole tree, with something written in it.
fn begin(scene: &Scene, target: &DatasetName, strategy: Strategy) -> Transaction {
    let ownership = Ownership::new().user(1234).mode(0o2775).whole_tree();
    let builder = scene.zfs.transaction(target).strategy(strategy).ownership(ownership);
    let transaction = builder.begin().unwrap();
    fs::write(transaction.path().join("file"), "first half").unwrap();
    transaction
}

/// The commit changes nothing, and says that the path has come to lead elsewhere.
fn refused(transaction: Transaction) -> Transaction {
    match transaction.commit().unwrap_err() {
        CommitError::Unchanged { error, transaction } => {
            assert_elsewhere(&error, transaction.path());
            *transaction
        }
        error => panic!("{error}"),
    }
}

fn assert_elsewhere(error: &StepError, path: &Path) {
    let subject = error.subject.as_str();
    assert_eq!((error.step, error.errno), (Step::CheckWorkspace, Errno::STALE), "{error}");
    assert_eq!(subject, text(path), "{error}");
}

/// All is rolled back, and what somebody has written at the path is left, and named.
fn assert_left(rolled_back: Result<(), RollbackError>, path: &Path) {
    let error = rolled_back.unwrap_err();
    let left: Vec<_> = error.left.iter().map(|left| (&*left.name, left.keeps)).collect();
    assert_eq!((left, error.errors.len()), (vec![(text(path), Keeps::Changes)], 0), "{error}");
}

#[test]
fn plain_unmounts_of_a_workspace_are_refused() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let cases = [(&target, Strategy::Promote), (&target, Strategy::InPlace)];
    let new = scene.name("new");
    for (target, strategy) in cases.into_iter().chain([(&new, Strategy::Promote)]) {
        let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
        let workspace = format!("{target}-txn-{}", transaction.id());
        let path = transaction.path().to_owned();
        fs::write(path.join("file"), "first half").unwrap();
        try_run(&["umount", text(&path)]).expect_err("it is in use");
        // Of what is zoned, the command says that it has unmounted it, and doesn't.
        let _ = try_run(&["zfs", "unmount", &workspace]);
        assert_eq!(mounts_of(&workspace), [path.as_path()]);
        fs::write(path.join("file"), format!("{strategy:?}")).unwrap();
        transaction.commit().unwrap();
        assert_eq!(scene.read(target), format!("{strategy:?}"));
    }
    scene.end();
}

#[test]
fn a_pool_is_not_exported_from_under_a_transaction() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for strategy in STRATEGIES {
        let transaction = begin(&scene, &target, strategy);
        try_run(&["zpool", "export", scene.pool.name()]).expect_err("it is in use");
        assert_eq!(fs::read(transaction.path().join("file")).unwrap(), b"first half");
        transaction.rollback().unwrap();
    }
    scene.pool.reimport();
    assert_eq!(scene.read(&target), "generation 0");
    scene.end();
}

#[test]
fn what_is_written_below_a_workspace_that_was_unmounted_is_never_published() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let new = scene.name("new");
    let before = State::of(&scene, Identity::Kept);
    for (target, strategy) in
        [(&target, STRATEGIES[0]), (&target, STRATEGIES[1]), (&new, STRATEGIES[0])]
    {
        let transaction = begin(&scene, target, strategy);
        let path = transaction.path().to_owned();
        run(&["umount", "--lazy", text(&path)]);
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "second half").unwrap();
        let owner = || {
            let meta = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.mode()));
            [meta(&path).unwrap(), meta(&path.join("sub/file")).unwrap()]
        };
        let below = owner();
        let transaction = refused(transaction);
        assert_eq!(owner(), below);
        let error = transaction.detach().unwrap_err();
        assert_elsewhere(&error.error, &path);
        assert_eq!(owner(), below);
        assert_left(error.transaction.rollback(), &path);
        assert_eq!(fs::read(path.join("sub/file")).unwrap(), b"second half");
        fs::remove_dir_all(&path).unwrap();
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    scene.end();
}

/// Runs a script in a mount namespace of its own, in which the workspace is not mounted.
fn below(path: &Path, script: &str) {
    let script = format!("umount --lazy \"$0\"; {script}");
    run(&["unshare", "--mount", "sh", "-c", &script, text(path)]);
}

#[test]
fn what_is_written_below_a_workspace_that_is_mounted_is_in_the_way_of_its_commit() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for strategy in STRATEGIES {
        let transaction = begin(&scene, &target, strategy);
        let path = transaction.path().to_owned();
        below(&path, "echo stray > \"$0/stray\"");
        assert!(!path.join("stray").exists());
        let transaction = refused(transaction);
        let error = transaction.detach().unwrap_err();
        assert_elsewhere(&error.error, &path);
        below(&path, "rm \"$0/stray\"");
        fs::write(path.join("file"), format!("{strategy:?}")).unwrap();
        let receipt = error.transaction.commit().unwrap();
        assert_eq!(receipt.leftovers, []);
        assert_eq!(scene.read(&target), format!("{strategy:?}"));
        assert!(!path.exists());

        let transaction = begin(&scene, &target, strategy);
        let path = transaction.path().to_owned();
        below(&path, "mkdir \"$0/sub\"; echo stray > \"$0/sub/stray\"");
        assert_left(transaction.rollback(), &path);
        assert_eq!(fs::read(path.join("sub/stray")).unwrap(), b"stray\n");
        fs::remove_dir_all(&path).unwrap();
    }
    scene.end();
}

#[test]
fn a_rollback_leaves_alone_what_is_mounted_in_the_directory_below() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let path = transaction.path().to_owned();
    run(&["umount", "--lazy", text(&path)]);
    let mine = path.join("mine");
    fs::create_dir(&mine).unwrap();
    run(&["mount", "-t", "tmpfs", "none", text(&mine)]);
    fs::write(mine.join("precious"), "x").unwrap();
    assert_left(transaction.rollback(), &path);
    assert_eq!(fs::read(mine.join("precious")).unwrap(), b"x");
    run(&["umount", text(&mine)]);
    assert_eq!(scene.zfs.pending(&scene.name("")).unwrap(), []);
    fs::remove_dir_all(&path).unwrap();
    scene.end();
}

#[test]
fn a_workspace_that_is_covered_can_be_committed_when_it_is_uncovered() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for strategy in STRATEGIES {
        let transaction = begin(&scene, &target, strategy);
        let path = transaction.path().to_owned();
        run(&["mount", "-t", "tmpfs", "none", text(&path)]);
        fs::write(path.join("file"), "on the cover").unwrap();
        let transaction = refused(transaction);
        run(&["umount", text(&path)]);
        fs::write(path.join("file"), format!("{strategy:?}")).unwrap();
        transaction.commit().unwrap();
        assert_eq!(scene.read(&target), format!("{strategy:?}"));

        // The rollback takes the cover away, which is on the workspace.
        let transaction = begin(&scene, &target, strategy);
        let path = transaction.path().to_owned();
        run(&["mount", "-t", "tmpfs", "none", text(&path)]);
        refused(transaction).rollback().unwrap();
        assert!(!path.exists());
    }
    scene.end();
}

#[test]
fn a_workspace_that_is_mounted_again_by_somebody_is_not_taken_for_the_own() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let before = State::of(&scene, Identity::Kept);
    for strategy in STRATEGIES {
        let transaction = begin(&scene, &target, strategy);
        let path = transaction.path().to_owned();
        let elsewhere = scene.pool.directory().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        run(&["mount", "--move", text(&path), text(&elsewhere)]);
        fs::write(path.join("file"), "second half").unwrap();
        let transaction = refused(transaction);
        fs::remove_file(path.join("file")).unwrap();
        run(&["mount", "--bind", text(&elsewhere), text(&path)]);
        let transaction = refused(transaction);
        run(&["umount", text(&path)]);
        // Moved back, it is what it was; moved away, a rollback finds it.
        run(&["mount", "--move", text(&elsewhere), text(&path)]);
        fs::write(path.join("file"), "second half").unwrap();
        run(&["mount", "--move", text(&path), text(&elsewhere)]);
        refused(transaction).rollback().unwrap();
        assert!(!path.exists());
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    scene.end();
}

#[test]
fn a_file_of_the_workspace_stays_open_across_a_promote() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let mut file = fs::File::create(transaction.path().join("file")).unwrap();
    file.write_all(b"before").unwrap();
    transaction.commit().unwrap();
    file.write_all(b", after").unwrap();
    assert_eq!(scene.read(&target), "before, after");
    drop(file);
    scene.end();
}

#[test]
fn a_volume_whose_link_leads_elsewhere_is_not_committed() {
    let scene = Scene::new();
    let target = scene.name("volume");
    scene.pool.zfs(&["create", "-V", "16M", target.as_str()]);
    let before = State::of(&scene, Identity::Kept);
    for act in ["remove", "file", "directory", "other"] {
        let transaction =
            scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
        let path = transaction.path().to_owned();
        let device = fs::read_link(&path).unwrap();
        fs::remove_file(&path).unwrap();
        match act {
            "file" => fs::write(&path, "first half").unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            "other" => std::os::unix::fs::symlink("/dev/null", &path).unwrap(),
            _ => {}
        }
        let transaction = refused(transaction);
        if act == "file" {
            assert_left(transaction.rollback(), &path);
            assert_eq!(fs::read(&path).unwrap(), b"first half");
            fs::remove_file(&path).unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        assert!(fs::symlink_metadata(&path).is_err());
        before.assert_same(&State::of(&scene, Identity::Kept));
        assert!(device.starts_with("/dev"), "{device:?}");
    }
    scene.end();
}

/// The command would mount a workspace that inherits, in public.
#[test]
fn a_new_mount_point_of_the_parent_reaches_no_workspace() {
    for strategy in STRATEGIES {
        let scene = Scene::new();
        let parent = scene.dataset("parent", &[]);
        let target = scene.dataset("parent/t", &[]);
        let transaction = scene.zfs.transaction(&target).strategy(strategy).begin().unwrap();
        let workspace = format!("{target}-txn-{}", transaction.id());
        let path = transaction.path().to_owned();
        let elsewhere = scene.pool.directory().join("elsewhere");
        let set = format!("mountpoint={}", elsewhere.display());
        let set = try_run(&["zfs", "set", &set, parent.as_str()]);
        let expected: Vec<PathBuf> = vec![path.clone()];
        assert_eq!(mounts_of(&workspace), expected, "{strategy:?}");
        // The command refuses to reach what it takes for a container's.
        assert_eq!(set.is_ok(), strategy == Strategy::InPlace, "{set:?}");
        fs::write(path.join("file"), "second half").unwrap();
        transaction.commit().unwrap();
        assert_eq!(scene.read(&target), "second half");
        let at = match strategy {
            Strategy::InPlace => elsewhere.join("t"),
            _ => scene.pool.mountpoint().join("parent/t"),
        };
        assert_eq!(mounts_of(target.as_str()), [at]);
        assert_ne!(scene.property(&target, "mountpoint").1, "local");
        scene.end();
    }
}

/// A user without any rights, and another one.
const WORKER: u32 = 1234;
const STRANGER: u32 = 1235;

/// A directory that everybody may go through, and a place in it whose name is no text.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("zfstxn-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let place = directory.path().join(OsStr::from_bytes(b"odd \xff;=,%\n")).join("place");
    (directory, place)
}

/// Whether a user can write a file of the workspace.
fn can_write(user: u32, path: &Path, content: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf %s \"$1\" > \"$0/file\" && ls \"$0\""]).arg(path).arg(content);
    shell.uid(user).gid(user).output().unwrap().status.success()
}

fn mode_and_owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid())
}

#[test]
fn who_is_let_in_fills_the_workspace_and_nobody_else_can_enter() {
    let scene = Scene::new();
    let (_directory, place) = place();
    let (old, new) = (scene.dataset("t", &[]), scene.name("new"));
    for (target, strategy) in [(&old, STRATEGIES[0]), (&old, STRATEGIES[1]), (&new, STRATEGIES[0])]
    {
        let begin = || {
            let builder = scene.zfs.transaction(target).strategy(strategy);
            builder.workspace_for(WORKER, &place).begin().unwrap()
        };
        let mut transaction = begin();
        let id = transaction.id();
        let path = transaction.path().to_owned();
        assert_eq!(path, place.join(id.to_string()).join("workspace"));
        chown(&path, Some(WORKER), None).unwrap();
        let _ = fs::remove_file(path.join("file"));
        for round in 0..2 {
            assert_eq!(mode_and_owner(&place), (0o711, 0));
            assert_eq!(mode_and_owner(path.parent().unwrap()), (0o700, WORKER));
            assert_eq!(mode_and_owner(&path), (0o755, WORKER));
            assert!(can_write(WORKER, &path, &format!("{round}")));
            assert!(!can_write(STRANGER, &path, "stranger"));
            assert!(fs::metadata(path.join("file")).unwrap().mode() & 0o004 != 0);
            assert_eq!(transaction.detach().unwrap(), id);
            assert!(!path.parent().unwrap().exists());
            transaction = scene.zfs.resume(target, id).unwrap();
            assert_eq!(transaction.path(), path);
        }
        // What else the user puts there is no part of the content, and stays, out of the user's reach.
        let gate = path.parent().unwrap();
        assert!(can_write(WORKER, gate, "beside"));
        let receipt = transaction.commit().unwrap();
        assert_eq!(scene.read(target), "1");
        let left: Vec<_> = receipt.leftovers.iter().map(|left| (&left.name, left.keeps)).collect();
        assert_eq!(left, [(&gate.display().to_string(), Keeps::Changes)]);
        assert_eq!(fs::read(gate.join("file")).unwrap(), b"beside");
        assert_eq!(mode_and_owner(gate), (0o700, 0));
        assert_eq!(fs::read_dir(gate).unwrap().count(), 1);
        fs::remove_dir_all(gate).unwrap();
        begin().rollback().unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
    scene.end();
}

const LEFT: &str = "ZFS_TXN_LEFT_TARGET";
const LEFT_AT: &str = "ZFS_TXN_LEFT_AT";

/// No test by itself: leaves a transaction as a crash does.
#[test]
fn a_child_process_leaves_a_workspace_at_a_place() {
    let (Ok(target), Some(place)) = (std::env::var(LEFT), std::env::var_os(LEFT_AT)) else {
        return;
    };
    let target: DatasetName = target.parse().unwrap();
    let zfs = Zfs::open().unwrap();
    let transaction = zfs.transaction(&target).workspace_for(WORKER, place).begin().unwrap();
    fs::write(transaction.path().parent().unwrap().join("beside"), "x").unwrap();
    std::mem::forget(transaction);
}

#[test]
fn recovery_finds_a_workspace_wherever_it_is() {
    let scene = Scene::new();
    let (_directory, place) = place();
    for target in [scene.dataset("t", &[]), scene.name("new")] {
        let test = "workspace::a_child_process_leaves_a_workspace_at_a_place";
        let mut child = again(test, LEFT, target.as_str());
        assert_passed(&child.env(LEFT_AT, &place).output().unwrap());
        let gate = only_entry(&place);
        assert_eq!(recovered(&scene), [gate.display().to_string()]);
        assert_eq!(fs::read(gate.join("beside")).unwrap(), b"x");
        assert_eq!((mode_and_owner(&gate), fs::read_dir(&gate).unwrap().count()), ((0o700, 0), 1));
        fs::remove_dir_all(gate).unwrap();
    }
    scene.end();
}

fn only_entry(place: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [only] = &entries[..] else { panic!("{entries:?}") };
    only.clone()
}

/// Has the one transaction there is rolled back by recovery; what that leaves.
fn recovered(scene: &Scene) -> Vec<String> {
    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    let ([done], []) = (&recovery.finished[..], &recovery.unfinished[..]) else {
        panic!("{recovery:?}");
    };
    assert_eq!(done.outcome, Outcome::RolledBack);
    done.leftovers.iter().map(|left| left.name.clone()).collect()
}

#[test]
fn recovery_touches_nothing_behind_a_link() {
    let scene = Scene::new();
    let (directory, place) = place();
    let target = scene.dataset("t", &[]);
    // In the place of the gate, and of the place.
    for at_gate in [true, false] {
        let test = "workspace::a_child_process_leaves_a_workspace_at_a_place";
        let mut child = again(test, LEFT, target.as_str());
        assert_passed(&child.env(LEFT_AT, &place).output().unwrap());
        let gate = only_entry(&place);
        let unmount = Command::new("umount").arg(gate.join("workspace")).status().unwrap();
        assert!(unmount.success());
        fs::remove_dir_all(&gate).unwrap();
        let id = gate.file_name().unwrap();
        let others = directory.path().join("others");
        let mine =
            others.join(if at_gate { Path::new("") } else { Path::new(id) }).join("workspace");
        fs::create_dir_all(&mine).unwrap();
        run(&["mount", "-t", "tmpfs", "none", text(&mine)]);
        fs::write(mine.join("precious"), "x").unwrap();
        let link = if at_gate { &gate } else { &place };
        if !at_gate {
            fs::remove_dir(&place).unwrap();
        }
        symlink(&others, link).unwrap();
        assert_eq!(recovered(&scene), [gate.join("workspace").display().to_string()]);
        assert_eq!(fs::read(mine.join("precious")).unwrap(), b"x");
        assert_eq!(fs::read_link(link).unwrap(), others);
        run(&["umount", text(&mine)]);
        fs::remove_dir_all(&others).unwrap();
        fs::remove_file(link).unwrap();
    }
    scene.end();
}

#[test]
fn a_resume_changes_no_directory_that_the_user_has_a_link_to() {
    let scene = Scene::new();
    let (directory, place) = place();
    let target = scene.dataset("t", &[]);
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let builder = scene.zfs.transaction(&target).workspace_for(WORKER, &place);
    let transaction = builder.begin().unwrap();
    let path = transaction.path().to_owned();
    let gate = path.parent().unwrap();
    let id = transaction.detach().unwrap();
    let make_gate = |owner| {
        fs::create_dir(gate).unwrap();
        chown(gate, Some(owner), None).unwrap();
        symlink(&other, &path).unwrap();
    };
    make_gate(STRANGER);
    let error = scene.zfs.resume(&target, id).unwrap_err();
    let ResumeError::Failed { error } = error else { panic!("{error}") };
    assert_eq!((error.step, error.errno), (Step::MountWorkspace, Errno::NOTSUP), "{error}");
    assert_eq!(mode_and_owner(gate).1, STRANGER);
    assert_eq!(fs::read_link(&path).unwrap(), other);
    fs::remove_dir_all(gate).unwrap();

    make_gate(WORKER);
    let transaction = scene.zfs.resume(&target, id).unwrap();
    assert_eq!(mode_and_owner(gate), (0o700, WORKER));
    assert!(can_write(0, &path, "new"));
    transaction.commit().unwrap();
    assert_eq!(scene.read(&target), "new");
    assert_eq!(mode_and_owner(&other), (0o755, 0));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    scene.end();
}

#[test]
fn a_volumes_device_is_linked_where_its_user_gets() {
    let scene = Scene::new();
    let (_directory, place) = place();
    let target = scene.name("volume");
    scene.pool.zfs(&["create", "-V", "16M", target.as_str()]);
    let builder = scene.zfs.transaction(&target).strategy(Strategy::InPlace);
    let transaction = builder.workspace_for(WORKER, &place).begin().unwrap();
    let path = transaction.path().to_owned();
    assert_eq!(mode_and_owner(path.parent().unwrap()), (0o700, WORKER));
    let mut device = fs::File::options().write(true).open(&path).unwrap();
    device.write_all(&[b'n'; 4096]).unwrap();
    drop(device);
    transaction.commit().unwrap();
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    scene.end();
}

/// The place that a begin finds unsafe, before anything is changed.
fn unsafe_place(error: BeginError) -> PathBuf {
    match error {
        BeginError::UnsafePlace { path, .. } => path,
        error => panic!("{error}"),
    }
}

#[test]
fn a_place_that_others_could_change_is_refused_before_anything_is_changed() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let (directory, _) = place();
    let top = directory.path();
    let make = |name: &str, mode: u32, owner: u32| {
        let path = top.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), None).unwrap();
        path
    };
    let foreign = make("foreign", 0o755, WORKER);
    let writable = make("writable", 0o757, 0);
    let group = make("group", 0o770, 0);
    let group_above = make("group-above", 0o775, 0);
    let sticky = make("sticky", 0o1777, 0);
    symlink(make("real", 0o755, 0), top.join("link")).unwrap();
    let before = State::of(&scene, Identity::Kept);
    for (place, named) in [
        (foreign.clone(), foreign.clone()),
        (foreign.join("below"), foreign),
        (writable.clone(), writable.clone()),
        (writable.join("below"), writable),
        (group.clone(), group),
        (group_above.join("below"), group_above),
        (sticky.clone(), sticky),
        (top.join("link"), top.join("link")),
        (top.join("link/below"), top.join("link")),
        (PathBuf::from("relative"), PathBuf::from("relative")),
        (top.join("real/../real"), top.join("real/../real")),
        (PathBuf::from("/"), PathBuf::from("/")),
    ] {
        let error =
            scene.zfs.transaction(&target).workspace_for(WORKER, place).begin().unwrap_err();
        assert_eq!(unsafe_place(error), named);
        before.assert_same(&State::of(&scene, Identity::Kept));
    }
    let long = top.join(OsStr::from_bytes(&b"/\xff".repeat(1985)[1..]));
    let error = scene.zfs.transaction(&target).workspace_for(WORKER, long).begin().unwrap_err();
    assert!(matches!(error, BeginError::RecordTooLong { .. }), "{error}");
    before.assert_same(&State::of(&scene, Identity::Kept));
    let unknown = scene.zfs.transaction(&target).workspace_for("nobody-by-this-name", "/run/x");
    let error = unknown.begin().unwrap_err();
    assert!(matches!(error, BeginError::UnknownPrincipal { what: "user", .. }), "{error}");
    scene.end();
}

/// What is at `/run/zfs-txn` in a mount namespace of the test's own.
const AT_DEFAULT: &str = "ZFS_TXN_AT_DEFAULT";

#[test]
fn the_default_place_is_looked_at_before_it_is_used() {
    let own = Path::new("/run/zfs-txn");
    if let Ok(target) = std::env::var(AT_DEFAULT) {
        let (target, fit) = target.split_once(' ').unwrap();
        let target: DatasetName = target.parse().unwrap();
        let begun = Zfs::open().unwrap().transaction(&target).begin();
        match fit {
            "fit" => begun.unwrap().rollback().unwrap(),
            _ => assert_eq!(unsafe_place(begun.unwrap_err()), own),
        }
        return;
    }
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    for (make, fit) in [
        ("true", "fit"),
        ("mkdir -m 0700 zfs-txn", "fit"),
        ("mkdir -m 0777 zfs-txn", "unfit"),
        ("mkdir -m 0755 zfs-txn", "unfit"),
        ("mkdir -m 0700 zfs-txn; chown 1234 zfs-txn", "unfit"),
        ("mkdir -m 0700 there; ln -s there zfs-txn", "unfit"),
    ] {
        let script = format!(
            "umount --all --lazy --types zfs; mount -t tmpfs -o mode=755 none /run; cd /run; {make}; \
             cd /; exec \"$@\""
        );
        let test = "workspace::the_default_place_is_looked_at_before_it_is_used";
        let inner = again(test, AT_DEFAULT, "");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(inner.get_program());
        command.args(inner.get_args()).env(AT_DEFAULT, format!("{target} {fit}"));
        assert_passed(&command.output().unwrap());
    }
    scene.end();
}
