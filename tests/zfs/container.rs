//! Root in a container that a dataset was given to (zfs-zone(8)): it may run no channel programs, and
//! all is done by plain calls.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zfs_txn::{
    CommitError, Condition, Conflict, DatasetName, OnConflict, Outcome, Strategy, Transaction, Zfs,
};

use crate::memory::{NoFlusher, map_once, store};
use crate::support::{Scene, again, amount, assert_passed, mounts_of, race};
use crate::test_mapping::Mapping;
use crate::test_pool::figures;
use crate::test_write::write;

/// Tells a process of this binary which dataset its container has.
const DATASET: &str = "ZFS_TXN_CONTAINED";
/// And a process in the container, which is to be killed, its target.
const DIES: &str = "ZFS_TXN_DIES";
const STRATEGIES: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

/// A dataset for a container.
fn create(scene: &Scene) -> DatasetName {
    let dataset = scene.name("container");
    let mountpoint = format!("mountpoint={}", scene.pool.directory().join("container").display());
    let create = ["create", "-u", "-o", "zoned=on", "-o", &mountpoint, dataset.as_str()];
    scene.pool.zfs(&create);
    dataset
}

/// A test of this binary as root of a user and mount namespace.
fn container(test: &str, dataset: &DatasetName, more: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    // A copy of other tests' mounts would keep their predecessors busy; and in a user namespace it could
    // not be taken away any more.
    let script = "umount --all --lazy --types zfs; exec unshare \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.args(["--user", "--mount", "--map-root-user"]).args(more).arg("--");
    let inner = again(test, DATASET, dataset.as_str());
    command.arg(inner.get_program()).args(inner.get_args()).env(DATASET, dataset.as_str());
    command
}

/// Runs a test again in a container that has a dataset.
fn in_container(test: &str) {
    let scene = Scene::new();
    let dataset = create(&scene);
    let mut command = container(test, &dataset, &[]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    give(&scene, &child, &dataset);
    let output = child.wait_with_output().unwrap();
    assert_passed(&output);
    scene.end();
}

/// Gives the dataset to the user namespace of a process, once that has one.
fn give(scene: &Scene, child: &Child, dataset: &DatasetName) {
    let namespace = format!("/proc/{}/ns/user", child.id());
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    wait_for(|| fs::read_link(&namespace).is_ok_and(|its| its != own));
    scene.pool.zfs(&["zone", &namespace, dataset.as_str()]);
}

fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited for too long");
}

fn zfs(args: &[&str]) -> String {
    let output = Command::new("zfs").args(args).output().unwrap();
    assert!(output.status.success(), "zfs {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that is there below a dataset.
fn all(dataset: &DatasetName) -> String {
    let columns = "name,guid,mountpoint,mounted,readonly";
    zfs(&["list", "-Hpo", columns, "-t", "all", "-r", dataset.as_str()])
}

/// In the container: the library, and a target for each strategy, mounted and with a file.
struct Inside {
    zfs: Zfs,
    dataset: DatasetName,
}

impl Inside {
    fn new(dataset: &str) -> Self {
        wait_for(|| Command::new("zfs").args(["mount", dataset]).status().unwrap().success());
        Self { zfs: Zfs::open().unwrap(), dataset: dataset.parse().unwrap() }
    }

    fn target(&self, leaf: &str) -> DatasetName {
        let target: DatasetName = format!("{}/{leaf}", self.dataset).parse().unwrap();
        zfs(&["create", target.as_str()]);
        fs::write(path_of(&target).join("file"), "old").unwrap();
        target
    }

    fn begin(&self, target: &DatasetName, strategy: Strategy) -> Transaction {
        let transaction = self.zfs.transaction(target).strategy(strategy).begin().unwrap();
        write(transaction.path().join("file"), "new").unwrap();
        transaction
    }

    /// Nothing of a transaction may be left.
    fn end(self) {
        let pending = self.zfs.pending(&self.dataset).unwrap();
        assert!(pending.is_empty(), "{pending:?}");
        let left = all(&self.dataset);
        for trace in ["-txn-", "-old-", "@txn-"] {
            assert!(!left.contains(trace), "{left}");
        }
    }
}

fn path_of(target: &DatasetName) -> PathBuf {
    let [path] = &mounts_of(target.as_str())[..] else { panic!("{target} is not mounted once") };
    path.clone()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path.join("file")).unwrap()
}

#[test]
fn root_of_a_container_commits_and_rolls_back() {
    let Ok(dataset) = std::env::var(DATASET) else {
        return in_container("container::root_of_a_container_commits_and_rolls_back");
    };
    let inside = Inside::new(&dataset);
    let program = ["program", "-n", dataset.split('/').next().unwrap(), "/dev/null"];
    // Of programs it makes no use where the module lets it run them, by mistake (CVE-2026-79619).
    let bugs = inside.zfs.capabilities().unwrap().known_bugs();
    let may = bugs.iter().any(|bug| bug.what.contains("CVE-2026-79619"));
    assert_eq!(Command::new("zfs").args(program).output().unwrap().status.success(), may);
    for (leaf, strategy) in ["promoted", "in-place"].into_iter().zip(STRATEGIES) {
        let target = inside.target(leaf);
        let path = path_of(&target);
        let before = all(&inside.dataset);
        inside.begin(&target, strategy).rollback().unwrap();
        drop(inside.begin(&target, strategy));
        assert_eq!(all(&inside.dataset), before, "{strategy:?}");
        for round in 0..3 {
            let transaction = inside.begin(&target, strategy);
            write(transaction.path().join("file"), round.to_string()).unwrap();
            let receipt = transaction.commit().unwrap();
            assert!(receipt.leftovers.is_empty(), "{receipt:?}");
            assert_eq!((path_of(&target), read(&path)), (path.clone(), round.to_string()));
        }
        // What a boot mounts.
        assert_eq!(zfs(&["get", "-Ho", "value", "canmount", target.as_str()]), "on\n");
    }
    let new: DatasetName = format!("{}/parent/new", inside.dataset).parse().unwrap();
    let transaction = inside.zfs.transaction(&new).create_parents().begin().unwrap();
    write(transaction.path().join("file"), "first").unwrap();
    assert!(transaction.commit().unwrap().leftovers.is_empty());
    assert_eq!(read(&path_of(&new)), "first");
    assert_eq!(zfs(&["get", "-Ho", "value", "canmount", new.as_str()]), "on\n");
    inside.end();
}

/// The `zfs` command finds the workspace busy, where it would mount it in public; in place, it leaves it
/// out.
#[test]
fn a_new_mount_point_reaches_no_workspace_in_a_container() {
    let Ok(dataset) = std::env::var(DATASET) else {
        return in_container("container::a_new_mount_point_reaches_no_workspace_in_a_container");
    };
    let inside = Inside::new(&dataset);
    for (leaf, strategy) in ["promoted", "in-place"].into_iter().zip(STRATEGIES) {
        let target = inside.target(leaf);
        let transaction = inside.begin(&target, strategy);
        let workspace = format!("{target}-txn-{}", transaction.id());
        let elsewhere = path_of(&inside.dataset).with_extension(leaf);
        let set = format!("mountpoint={}", elsewhere.display());
        let set = Command::new("zfs").args(["set", &set, inside.dataset.as_str()]).status();
        assert_eq!(set.unwrap().success(), strategy == Strategy::InPlace);
        assert_eq!(mounts_of(&workspace), [transaction.path()]);
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        assert_eq!(read(&path_of(&target)), "new");
    }
    inside.end();
}

#[test]
fn root_of_a_container_gets_conflicts() {
    let Ok(dataset) = std::env::var(DATASET) else {
        return in_container("container::root_of_a_container_gets_conflicts");
    };
    let inside = Inside::new(&dataset);
    for (leaf, strategy) in ["promoted", "in-place"].into_iter().zip(STRATEGIES) {
        let target = inside.target(leaf);
        let transaction = inside.begin(&target, strategy);
        fs::write(path_of(&target).join("other"), "somebody else's").unwrap();
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { transaction, .. } = error else { panic!("{error}") };
        transaction.rollback().unwrap();
        assert_eq!(read(&path_of(&target)), "old");

        let builder = inside.zfs.transaction(&target).strategy(strategy);
        let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
        fs::write(path_of(&target).join("another"), "somebody else's").unwrap();
        let receipt = transaction.commit().unwrap();
        let [kept, ..] = &receipt.leftovers[..] else { panic!("{receipt:?}") };
        zfs(&["destroy", "-r", &kept.name]);
        let swept = inside.zfs.sweep(&inside.dataset).unwrap();
        assert!(swept.unfinished.is_empty(), "{swept:?}");
    }
    inside.end();
}

/// I1: no file can be opened by its number in a container, and none is read as old all the same; by
/// whatever name it has, and in whatever directory.
#[test]
fn a_file_that_was_mapped_in_a_container_is_read_as_new() {
    let Ok(dataset) = std::env::var(DATASET) else {
        return in_container("container::a_file_that_was_mapped_in_a_container_is_read_as_new");
    };
    let inside = Inside::new(&dataset);
    let target = inside.target("t");
    let path = path_of(&target);
    let change = |root: &Path, name: &str| {
        let file = fs::File::options().write(true).open(root.join(name)).unwrap();
        file.write_all_at(&[b'n'; 3_000], 140_000).unwrap();
    };
    for name in ["a", "b", "c"] {
        fs::create_dir(path.join(name)).unwrap();
        fs::write(path.join(name).join("f"), [b'o'; 150_000]).unwrap();
    }
    fs::hard_link(path.join("a/f"), path.join("b/link")).unwrap();
    rustix::fs::sync();
    fs::remove_file(path.join("b/link")).unwrap();
    for name in ["a/f", "b/f"] {
        map_once(&path.join(name));
    }
    let mapping = Mapping::read_only(&path.join("c/f"));
    mapping.touch();
    let transaction = inside.begin(&target, Strategy::InPlace);
    let root = transaction.path().to_owned();
    fs::rename(root.join("b"), root.join("renamed")).unwrap();
    for name in ["a/f", "renamed/f", "c/f"] {
        change(&root, name);
    }
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::InUse { target, path: "c/f".to_owned() });
    assert_eq!(fs::read(path.join("a/f")).unwrap(), [b'o'; 150_000]);
    drop(mapping);
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
    for name in ["a/f", "renamed/f", "c/f"] {
        let now = fs::read(path.join(name)).unwrap();
        assert!(now[0] == b'o' && now[140_000..143_000] == [b'n'; 3_000], "{name} is old");
    }
    inside.end();
}

/// I6: what is stored through a mapping, and not written back, is content before begin and a conflict
/// after it; what is written as it was, is none.
#[test]
fn what_is_stored_in_a_container_is_content_or_a_conflict() {
    let Ok(dataset) = std::env::var(DATASET) else {
        let _no_flusher = NoFlusher::new();
        return in_container("container::what_is_stored_in_a_container_is_content_or_a_conflict");
    };
    let inside = Inside::new(&dataset);
    for (leaf, strategy) in ["promoted", "in-place"].into_iter().zip(STRATEGIES) {
        let target = inside.target(leaf);
        let mapped = path_of(&target).join("mapped");
        let byte = |root: &Path| fs::read(root.join("mapped")).unwrap()[5_000];
        fs::write(&mapped, [b'o'; 10_000]).unwrap();
        rustix::fs::sync();
        store(&mapped, 5_000, b"1");
        let transaction = inside.begin(&target, strategy);
        assert_eq!(byte(transaction.path()), b'1', "{strategy:?}: not in the workspace");
        transaction.commit().unwrap();
        assert_eq!(byte(&path_of(&target)), b'1', "{strategy:?}: lost");

        let transaction = inside.begin(&target, strategy);
        let file = fs::File::options().write(true).open(&mapped).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        store(&mapped, 5_000, b"1");
        file.set_modified(modified).unwrap();
        drop(file);
        transaction.commit().unwrap();

        let transaction = inside.begin(&target, strategy);
        store(&mapped, 5_000, b"2");
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert_eq!(conflict, Conflict::Modified { target: target.clone() });
        transaction.rollback().unwrap();
        assert_eq!(byte(&path_of(&target)), b'2', "{strategy:?}: lost");
    }
    inside.end();
}

/// I8: as `of_eight_racing_commits_one_wins_in_every_round`.
#[test]
fn of_eight_racing_in_a_container_one_wins_in_every_round() {
    let rounds = amount("ZFS_TXN_RACES", 5);
    let Ok(dataset) = std::env::var(DATASET) else {
        in_container("container::of_eight_racing_in_a_container_one_wins_in_every_round");
        return figures(&format!("{rounds} rounds of 8 commits in a container: one won in each"));
    };
    let inside = Inside::new(&dataset);
    let target = inside.target("t");
    for round in 0..rounds {
        race(&inside.zfs, &target).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    inside.end();
}

#[test]
fn what_dies_in_a_container_is_recovered_there() {
    const TEST: &str = "container::what_dies_in_a_container_is_recovered_there";
    if let Ok(target) = std::env::var(DIES) {
        let zfs = Zfs::open().unwrap();
        let target = target.parse().unwrap();
        let transaction = zfs.transaction(&target).begin().unwrap();
        write(transaction.path().join("file"), "new").unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
    let Ok(dataset) = std::env::var(DATASET) else { return in_container(TEST) };
    let inside = Inside::new(&dataset);
    let target = inside.target("t");
    let before = all(&inside.dataset);
    let died = again(TEST, DIES, target.as_str()).output().unwrap();
    assert_eq!(died.status.signal(), Some(9), "{died:?}");
    let [pending] = &inside.zfs.pending(&inside.dataset).unwrap()[..] else { panic!("not one") };
    assert_eq!(pending.condition, Condition::Interrupted);
    let recovery = inside.zfs.recover(&inside.dataset).unwrap();
    let [finished] = &recovery.finished[..] else { panic!("{recovery:?}") };
    assert_eq!(finished.outcome, Outcome::RolledBack);
    assert_eq!(all(&inside.dataset), before);
    inside.end();
}

/// Nobody in a new container can tell what became of the processes of an earlier one; the host can.
#[test]
fn what_died_with_its_container_is_recovered_from_the_host() {
    const TEST: &str = "container::what_died_with_its_container_is_recovered_from_the_host";
    const READY: &str = "ZFS_TXN_READY";
    if let Ok(dataset) = std::env::var(DATASET) {
        let inside = Inside::new(&dataset);
        let target = inside.target("t");
        let _transaction = inside.begin(&target, Strategy::Promote);
        fs::write(std::env::var_os(READY).unwrap(), all(&inside.dataset)).unwrap();
        // Until it is killed.
        std::thread::sleep(Duration::from_secs(300));
        panic!("nobody has killed it");
    }
    let scene = Scene::new();
    let dataset = create(&scene);
    let ready = scene.pool.directory().join("ready");
    let pids = ["--pid", "--fork", "--kill-child=KILL"];
    let mut container = container(TEST, &dataset, &pids);
    let mut container = container.env(READY, &ready).stdout(Stdio::null()).spawn().unwrap();
    give(&scene, &container, &dataset);
    wait_for(|| fs::metadata(&ready).is_ok_and(|meta| meta.len() > 0));
    let pending = scene.zfs.pending(&dataset).unwrap();
    assert!(matches!(pending[0].condition, Condition::OutOfSight { .. }), "{pending:?}");
    let recovery = scene.zfs.recover(&dataset).unwrap();
    assert_eq!((recovery.finished.len(), recovery.untouched.len()), (0, 1), "{recovery:?}");
    container.kill().unwrap();
    container.wait().unwrap();
    wait_for(|| scene.zfs.pending(&dataset).unwrap()[0].condition == Condition::Interrupted);
    let recovery = scene.zfs.recover(&dataset).unwrap();
    let [finished] = &recovery.finished[..] else { panic!("{recovery:?}") };
    assert_eq!(finished.outcome, Outcome::RolledBack);
    assert!(finished.leftovers.is_empty(), "{finished:?}");
    scene.end();
}
