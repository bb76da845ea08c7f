//! What an error tells its reader to do is done here, and helps.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use zfs_txn::{CommitError, DatasetName, Ownership, Step, StepError, Strategy, Transaction};

use crate::support::Scene;

use Strategy::{InPlace, Promote};

/// Runs a script in which `$P` is the pool, `$T` the target and `$K` a file with a key.
fn shell(scene: &Scene, target: &DatasetName, script: &str) {
    let key = scene.pool.directory().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let output = Command::new("sh")
        .args(["-ec", script])
        .env("P", scene.pool.name())
        .env("T", target.as_str())
        .env("K", &key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// Per row: the target's name, what is made, how it is begun, what the error says, what is done about it, and
/// how it can be begun then.
const AT_BEGIN: [(&str, &str, Strategy, &str, &str, Strategy); 9] = [
    (
        "readonly",
        "zfs create -o readonly=on $T",
        Promote,
        "readonly=on: set it to off",
        "zfs set readonly=off $T",
        Promote,
    ),
    ("children", "zfs create -p $T/child", Promote, "use Strategy::InPlace", "", InPlace),
    (
        "children-elsewhere",
        "zfs create -p $T/child",
        Promote,
        "have them elsewhere",
        "zfs rename $T/child $P/child",
        Promote,
    ),
    ("volume", "zfs create -s -V 1M $T", Promote, "in place (Strategy::InPlace)", "", InPlace),
    (
        "volume-snapdev",
        "zfs create -s -V 1M -o snapdev=visible $T",
        InPlace,
        "snapdev=visible, with which a receive can deadlock: set it to hidden",
        "zfs set snapdev=hidden $T",
        InPlace,
    ),
    (
        "volume-none",
        "zfs create -s -V 1M -o volmode=none $T",
        InPlace,
        "volmode=none, and so no block device: set it to dev",
        "zfs set volmode=dev $T",
        InPlace,
    ),
    (
        "root",
        "zfs create -o encryption=on -o keyformat=raw -o keylocation=file://$K $T",
        Promote,
        "use Strategy::InPlace",
        "",
        InPlace,
    ),
    (
        "encrypted/root",
        "zfs create -o encryption=on -o keyformat=raw -o keylocation=file://$K $P/encrypted; \
         zfs create -o encryption=on -o keyformat=raw -o keylocation=file://$K $T",
        Promote,
        "inherit the key of an encrypted parent (`zfs change-key -i`)",
        "zfs change-key -i $T",
        Promote,
    ),
    (
        "unloaded",
        "zfs create -o encryption=on -o keyformat=raw -o keylocation=file://$K $T; \
         zfs unmount $T; zfs unload-key $T",
        InPlace,
        "`zfs load-key` it",
        "zfs load-key $T",
        InPlace,
    ),
];

#[test]
fn what_is_said_at_begin_helps() {
    let scene = Scene::new();
    for (name, make, before, says, follow, after) in AT_BEGIN {
        let target = scene.name(name);
        shell(&scene, &target, make);
        let error = scene.zfs.transaction(&target).strategy(before).begin().unwrap_err();
        assert!(error.to_string().contains(says), "{name}: {error}");
        shell(&scene, &target, follow);
        let begun = scene.zfs.transaction(&target).strategy(after).begin();
        begun.unwrap_or_else(|error| panic!("{name}: {error}")).rollback().unwrap();
    }
    let target = scene.name("missing/t");
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(error.to_string().contains("ask for it with create_parents()"), "{error}");
    scene.zfs.transaction(&target).create_parents().begin().unwrap().rollback().unwrap();
    let target = scene.dataset("taken", &[]);
    scene.pool.zfs(&["snapshot", &format!("{target}@final")]);
    let begin = || scene.zfs.transaction(&target).snapshot("final").begin();
    let error = begin().unwrap_err();
    assert!(error.to_string().contains("destroy or rename that"), "{error}");
    scene.pool.zfs(&["rename", &format!("{target}@final"), "@other"]);
    begin().unwrap().rollback().unwrap();
    scene.end();
}

#[test]
fn what_is_said_of_a_quota_at_begin_helps() {
    let scene = Scene::new();
    scene.dataset("parent", &["-o", "quota=100M"]);
    let target = scene.dataset("parent/t", &["-o", "reservation=60M"]);
    let error = scene.zfs.transaction(&target).begin().unwrap_err();
    assert!(error.to_string().contains("raise the quota"), "{error}");
    shell(&scene, &target, "zfs set quota=200M $P/parent");
    scene.publish(&target, "new");
    scene.end();
}

#[test]
fn what_is_said_of_a_read_only_place_for_workspaces_helps() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&top);
        assert!(mount.status().unwrap().success());
    };
    mount("ro,mode=755");
    let begin = || scene.zfs.transaction(&target).workspace_for(0, top.join("place")).begin();
    let error = begin().unwrap_err();
    assert!(error.to_string().contains("have it writable, or name another one"), "{error}");
    mount("remount,rw");
    begin().unwrap().rollback().unwrap();
    assert!(Command::new("umount").arg(&top).status().unwrap().success());
    scene.end();
}

/// Commits, which fails at a step and says this; the transaction again.
fn fails(transaction: Transaction, step: Step, says: &str) -> Transaction {
    let CommitError::Unchanged { error, transaction } = transaction.commit().unwrap_err() else {
        panic!("not unchanged");
    };
    let StepError { step: found, .. } = error;
    assert!(found == step && error.to_string().contains(says), "{error}");
    *transaction
}

#[test]
fn what_is_said_of_a_users_quota_helps() {
    let scene = Scene::with_options(&["-O", "compression=off"]);
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    fs::write(path.join("large"), vec![7; 1 << 20]).unwrap();
    std::os::unix::fs::chown(path.join("large"), Some(1000), None).unwrap();
    scene.pool.sync();
    shell(&scene, &target, "zfs set userquota@1000=100K $T");
    let ownership = Ownership::new().user(1000).whole_tree();
    let transaction = scene.zfs.transaction(&target).ownership(ownership).begin().unwrap();
    let workspace: DatasetName = format!("{target}-txn-{}", transaction.id()).parse().unwrap();
    let transaction = fails(transaction, Step::SetOwnership, "of a user, group or project in it");
    shell(&scene, &workspace, "zfs set userquota@1000=none $T");
    transaction.commit().unwrap();
    scene.end();
}

#[test]
fn what_is_said_of_a_fence_on_a_read_only_mount_helps() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let remount = |how: &str| {
        let mount = Command::new("mount").args(["-o", how]).arg(&path).status();
        assert!(mount.unwrap().success());
    };
    let transaction = scene.zfs.transaction(&target).fence().begin().unwrap();
    remount("remount,bind,ro");
    let transaction = fails(transaction, Step::Fence, "`mount -o remount,rw`");
    remount("remount,rw");
    transaction.commit().unwrap();
    scene.end();
}

#[test]
fn what_is_said_of_another_receive_helps() {
    let scene = Scene::new();
    let source = scene.dataset("source", &[]);
    let target = scene.name("t");
    fs::write(scene.mounted_at(&source).unwrap().join("large"), vec![7; 1 << 20]).unwrap();
    shell(&scene, &target, "zfs snapshot $P/source@1; zfs send $P/source@1 | zfs receive $T");
    let transaction = scene.zfs.transaction(&target).strategy(InPlace).begin().unwrap();
    fs::write(transaction.path().join("file"), "ours").unwrap();
    shell(
        &scene,
        &target,
        "dd if=/dev/urandom of=$(zfs get -Ho value mountpoint $P/source)/more \
         bs=1M count=4 status=none; zfs snapshot $P/source@2",
    );
    let script =
        format!("(zfs send -i @1 {source}@2 | head -c 2000000; sleep 1000) | zfs receive {target}");
    let mut receive = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    // The first record is read by then.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let transaction = fails(transaction, Step::Receive, "another receive into it goes on");
    shell(&scene, &target, &format!("kill -- -{}", receive.id()));
    receive.wait().unwrap();
    transaction.commit().unwrap();
    assert_eq!(scene.read(&target), "ours");
    scene.end();
}

#[test]
fn what_is_said_of_a_clone_of_the_base_helps() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let transaction = scene.begin(&target);
    let base = format!("{target}@txn-{}", transaction.id());
    scene.pool.zfs(&["clone", &base, &scene.pool.dataset("clone")]);
    let receipt = transaction.commit().unwrap();
    let left = receipt.leftovers.iter().find(|left| left.name == base).unwrap();
    assert!(left.reason.contains("the property `clones`"), "{left}");
    let clones = scene.pool.zfs(&["get", "-Ho", "value", "clones", &base]);
    scene.pool.zfs(&["destroy", clones.trim()]);
    assert!(scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
    scene.end();
}

#[test]
fn what_is_said_of_a_mount_below_helps() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let below = scene.mounted_at(&target).unwrap().join("below");
    fs::create_dir(&below).unwrap();
    let transaction = scene.begin(&target);
    let mount = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).status();
    assert!(mount.unwrap().success());
    let error = transaction.commit().unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&format!("{} is a mount point below", below.display())), "{said}");
    let CommitError::Conflict { transaction, .. } = error else { panic!("{said}") };
    assert!(Command::new("umount").arg(&below).status().unwrap().success());
    transaction.commit().unwrap();
    scene.end();
}
