//! What keeps something from being destroyed is named in the error or the receipt, with who does.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use zfs_txn::{CommitError, Strategy};

use crate::support::{Scene, run};
use crate::test_pool::figures;
use crate::volumes::device_of;

/// Held by tests that need processes to be named, and as a whole by one in which that gets stuck.
pub static NAMES_PROCESSES: RwLock<()> = RwLock::new(());

/// Processes that end when the test does.
struct Processes {
    children: Vec<Child>,
    _named: RwLockReadGuard<'static, ()>,
}

impl Default for Processes {
    fn default() -> Self {
        let named = NAMES_PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
        Self { children: Vec::new(), _named: named }
    }
}

impl Processes {
    /// Starts one and returns its number, when it is what it is to become: `sleep`, or what was started.
    fn start(&mut self, command: &mut Command, comm: &[u8]) -> u32 {
        let child = run(command.stdin(Stdio::null()));
        let pid = child.id();
        self.children.push(child);
        let comm = [comm, b"\n"].concat();
        let is_there = || fs::read(format!("/proc/{pid}/comm")).unwrap() == comm;
        let there = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_there()
        });
        assert!(there, "{command:?}");
        pid
    }

    fn shell(&mut self, script: &str) -> u32 {
        self.start(Command::new("sh").args(["-c", script]), b"sleep")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn processes_that_keep_the_old_content_are_named_in_the_receipt() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    fs::create_dir(path.join("directory")).unwrap();
    // Who starts a program chooses its name.
    let hostile = std::ffi::OsStr::from_bytes(b"a\n\x1b[2J\xff");
    fs::copy("/bin/sleep", path.join(hostile)).unwrap();
    let elsewhere = scene.pool.directory().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let at = path.display();
    let mut processes = Processes::default();
    let open = processes.shell(&format!("exec 7<{at}/file; exec sleep 1000"));
    let current = processes.shell(&format!("cd {at}/directory; exec sleep 1000"));
    let program = processes.start(Command::new(path.join(hostile)).arg("1000"), hostile.as_bytes());
    // Without copies of other tests' mounts.
    let script = format!(
        "umount --all --lazy --types zfs; mount -t zfs -o zfsutil {target} {}; exec sleep 1000",
        elsewhere.display()
    );
    let mounted =
        processes.start(Command::new("unshare").args(["--mount", "sh", "-c", &script]), b"sleep");
    let receipt = scene.publish(&target, "new");
    let old = receipt.leftovers.iter().find(|left| left.name.contains("-old-")).unwrap();
    let said = &old.reason;
    for part in [
        format!(r#"process {open} "sleep" (open "/file")"#),
        format!(r#"process {current} "sleep" (current directory "/directory")"#),
        format!(r#"process {program} "a\n\u{{1b}}[2J\xFF" (program "/a\n\u{{1b}}[2J\xFF")"#),
        format!(
            r#"mounted at "{}" in the mount namespace of process {mounted}"#,
            elsewhere.display()
        ),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    assert!(!said.contains('\n') && !said.contains('\x1b'), "{said}");

    // A sweep says the same, and when they have ended, it removes what was left.
    let swept = scene.zfs.sweep(&target).unwrap();
    assert!(swept.unfinished[0].reason.contains(&format!("process {open}")), "{swept:?}");
    drop(processes);
    let swept = scene.zfs.sweep(&target).unwrap();
    assert!(swept.unfinished.is_empty(), "{swept:?}");
    scene.end();
}

#[test]
fn who_uses_a_workspace_is_named_when_it_is_rolled_back() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let file = transaction.path().join("file");
    let mut processes = Processes::default();
    let pid = processes.shell(&format!("exec 7<{}; exec sleep 1000", file.display()));
    let own = File::open(&file).unwrap();
    let error = transaction.rollback().unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&format!(r#"process {pid} "sleep" (open "/file")"#)), "{said}");
    assert!(said.contains(&format!("process {} ", std::process::id())), "{said}");
    drop((own, processes));
    assert!(scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
    scene.end();
}

#[test]
fn who_has_a_volumes_device_open_is_named_and_so_is_what_is_mounted_from_it() {
    let scene = Scene::new();
    let target = scene.name("volume");
    scene.pool.zfs(&["create", "-s", "-V", "64M", target.as_str()]);
    device_of(target.as_str());
    let begin = || scene.zfs.transaction(&target).strategy(Strategy::InPlace).begin().unwrap();
    let transaction = begin();
    let device = fs::canonicalize(transaction.path()).unwrap();
    let mut processes = Processes::default();
    let pid = processes.shell(&format!("exec 7<{}; exec sleep 1000", device.display()));
    let said = transaction.rollback().unwrap_err().to_string();
    let part = format!(r#"process {pid} "sleep" (open "{}")"#, device.display());
    assert!(said.contains(&part), "{said}");
    drop(processes);
    assert!(scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
    scene.end();
}

#[test]
fn where_a_snapshot_is_mounted_and_who_is_in_there_is_named() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let snapshot = format!("{target}@s");
    scene.pool.zfs(&["snapshot", &snapshot]);
    let place = scene.pool.directory().join("place");
    fs::create_dir(&place).unwrap();
    let mut processes = Processes::default();
    let at = place.display();
    let script = format!(
        "umount --all --lazy --types zfs; mount -t zfs {snapshot} {at}; cd {at}; exec sleep 1000"
    );
    let pid =
        processes.start(Command::new("unshare").args(["--mount", "sh", "-c", &script]), b"sleep");
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let CommitError::Unchanged { error, transaction } = transaction.commit().unwrap_err() else {
        panic!("not unchanged");
    };
    let said = error.to_string();
    for part in [
        format!(r#"mounted at "{at}" in the mount namespace of process {pid}"#),
        format!(r#"process {pid} "sleep" (current directory "#),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    drop(processes);
    let receipt = transaction.commit().unwrap();
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    scene.end();
}

/// Who made them may have made any number: not for each of them is it looked for who uses it.
#[test]
fn of_many_snapshots_that_are_held_a_few_are_explained_and_the_others_named() {
    const MANY: usize = 40;
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let list = scene.pool.zfs(&["list", "-Ho", "name", "-r", scene.pool.name()]);
    let workspace = list.lines().find(|name| name.contains("-txn-")).unwrap();
    let held: Vec<String> = (10..10 + MANY).map(|n| format!("{workspace}@held-{n}")).collect();
    held.iter().for_each(|name| drop(scene.pool.zfs(&["snapshot", name])));
    let all = |command: &[&str]| {
        let names = held.iter().map(String::as_str);
        scene.pool.zfs(&command.iter().copied().chain(names).collect::<Vec<_>>())
    };
    all(&["hold", "backup"]);
    let begun = Instant::now();
    let error = transaction.rollback().unwrap_err();
    let took = begun.elapsed();
    let of_workspace = error.left.iter().find(|left| left.name == workspace).unwrap();
    let said = &of_workspace.reason;
    assert_eq!(said.matches("zfs release").count(), 4, "{took:?}: {said}");
    assert!(said.contains("and 36 more: "), "{said}");
    assert!(held.iter().all(|name| said.contains(name)), "{said}");
    figures(&format!("a rollback with {MANY} snapshots that are held: {took:?}"));
    all(&["release", "backup"]);
    assert!(scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
    scene.end();
}
