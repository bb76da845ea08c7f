//! The library makes no process: a commit runs where making one is deadly.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::support::{Scene, again, assert_passed};

/// System call numbers of x86-64, and the flag that makes clone(2) start a thread.
const CLONE: i64 = 56;
const FORK: i64 = 57;
const VFORK: i64 = 58;
const EXECVE: i64 = 59;
const EXECVEAT: i64 = 322;
const CLONE3: i64 = 435;
const CLONE_THREAD: u64 = 0x0001_0000;

/// From here on, this thread dies, with its process, at the first try to make one.
fn forbid_processes() {
    let not_a_thread =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(CLONE_THREAD), 0);
    let clone = SeccompRule::new(vec![not_a_thread.unwrap()]).unwrap();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        [FORK, VFORK, EXECVE, EXECVEAT, CLONE3].map(|call| (call, Vec::new())).into();
    rules.insert(CLONE, vec![clone]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn transactions_of_both_kinds_make_no_process() {
    const VARIABLE: &str = "ZFS_TXN_NO_PROCESS_POOL";
    let Ok(pool) = std::env::var(VARIABLE) else {
        let scene = Scene::new();
        scene.dataset("there", &["-o", "com.example:note=x"]);
        let test = "process::transactions_of_both_kinds_make_no_process";
        assert_passed(&again(test, VARIABLE, scene.pool.name()).output().unwrap());
        assert_eq!(scene.read(&scene.name("there")), "no process");
        assert_eq!(scene.read(&scene.name("new")), "no process");
        return scene.end();
    };
    forbid_processes();
    let zfs = zfs_txn::Zfs::open().unwrap();
    for name in ["there", "new", "there", "new"] {
        let target = format!("{pool}/{name}").parse().unwrap();
        let ownership = zfs_txn::Ownership::new().group("daemon");
        let begin = || zfs.transaction(&target).ownership(ownership.clone()).begin().unwrap();
        begin().rollback().unwrap();
        drop(begin());
        let transaction = begin();
        fs::write(transaction.path().join("file"), "no process").unwrap();
        transaction.commit().unwrap();
    }
    // At the first process made, this one would have died: see the test below.
}

/// The check above can fail.
#[test]
fn making_a_process_under_the_filter_is_deadly() {
    const VARIABLE: &str = "ZFS_TXN_MAKE_PROCESS";
    if std::env::var_os(VARIABLE).is_some() {
        forbid_processes();
        let _ = Command::new("true").status();
        return;
    }
    let test = "process::making_a_process_under_the_filter_is_deadly";
    let output = again(test, VARIABLE, "1").output().unwrap();
    const SIGSYS: i32 = 31;
    assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");
}
