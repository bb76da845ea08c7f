//! The workspace is what `path()` leads to, from begin to commit: what is written elsewhere is never
//! published.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use zfs_txn::{CommitError, DatasetName, Errno, Ownership, Step, StepError, Strategy, Transaction};

use crate::support::{Identity, Scene, State, mounts_of};

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
        error.transaction.rollback().unwrap();
        assert!(!path.exists());
        before.assert_same(&State::of(&scene, Identity::Kept));
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
    let error = transaction.rollback().unwrap_err();
    let left: Vec<_> = error.left.iter().map(|leftover| leftover.name.as_str()).collect();
    assert_eq!(left, [text(&path)], "{error}");
    assert_eq!(fs::read(mine.join("precious")).unwrap(), b"x");
    run(&["umount", text(&mine)]);
    scene.zfs.recover(&scene.name("")).unwrap();
    let _ = fs::remove_dir_all(&path);
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
        transaction.rollback().unwrap();
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
