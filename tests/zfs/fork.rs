//! A process that forks while it has a transaction: that stays its own.

use std::fs;

use zfs_txn::{
    CommitError, Condition, DatasetName, Errno, Step, StepError, Strategy, Transaction, Zfs,
};

use crate::support::{Scene, again, assert_passed};
use crate::test_fork::{in_child, next_child_in_a_new_pid_namespace};

const POOL: &str = "ZFS_TXN_FORK_POOL";

/// Runs a test again in a process without other tests' threads, with a pool for it.
fn alone(test: &str) {
    let scene = Scene::new();
    scene.dataset("t", &[]);
    assert_passed(&again(test, POOL, scene.pool.name()).output().unwrap());
    scene.end();
}

fn name(relative: &str) -> DatasetName {
    format!("{}/{relative}", std::env::var(POOL).unwrap()).parse().unwrap()
}

/// A transaction of each kind and strategy, with something written.
fn each(zfs: &Zfs, act: impl Fn(Transaction)) {
    for (leaf, strategy) in
        [("t", Strategy::Promote), ("t", Strategy::InPlace), ("new", Strategy::Promote)]
    {
        let transaction = zfs.transaction(&name(leaf)).strategy(strategy).begin().unwrap();
        fs::write(transaction.path().join("file"), "new").unwrap();
        act(transaction);
    }
}

fn assert_not_the_owner(error: &StepError, parent: u32) {
    assert_eq!((error.step, error.errno), (Step::CheckOwner, Errno::PERM), "{error}");
    assert!(error.to_string().contains(&format!("process {parent} ")), "{error}");
}

#[test]
fn a_childs_copy_does_nothing_when_it_is_dropped() {
    if std::env::var_os(POOL).is_none() {
        return alone("fork::a_childs_copy_does_nothing_when_it_is_dropped");
    }
    let zfs = Zfs::open().unwrap();
    each(&zfs, |transaction| {
        let mut transaction = Some(transaction);
        in_child(|| drop(transaction.take()));
        let transaction = transaction.unwrap();
        assert_eq!(fs::read(transaction.path().join("file")).unwrap(), b"new");
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    });
}

#[test]
fn a_child_can_neither_commit_nor_roll_back_nor_detach() {
    if std::env::var_os(POOL).is_none() {
        return alone("fork::a_child_can_neither_commit_nor_roll_back_nor_detach");
    }
    let zfs = Zfs::open().unwrap();
    let parent = std::process::id();
    each(&zfs, |transaction| {
        let mut transaction = Some(transaction);
        in_child(|| match transaction.take().unwrap().commit().unwrap_err() {
            CommitError::Unchanged { error, transaction } => {
                assert_not_the_owner(&error, parent);
                drop(transaction);
            }
            error => panic!("{error}"),
        });
        in_child(|| {
            let error = transaction.take().unwrap().rollback().unwrap_err();
            assert_not_the_owner(&error.errors[0], parent);
            assert_eq!((error.errors.len(), error.left.len()), (1, 0), "{error}");
        });
        in_child(|| {
            let error = transaction.take().unwrap().detach().unwrap_err();
            assert_not_the_owner(&error.error, parent);
        });
        transaction.unwrap().commit().unwrap();
    });
}

/// The child is told of its parent's transaction as of anybody else's, and has transactions of its own.
#[test]
fn a_child_takes_its_parents_transaction_for_open() {
    if std::env::var_os(POOL).is_none() {
        return alone("fork::a_child_takes_its_parents_transaction_for_open");
    }
    let zfs = Zfs::open().unwrap();
    let scope = name("t").parent().unwrap();
    let parent = std::process::id();
    each(&zfs, |transaction| {
        let mut transaction = Some(transaction);
        let id = transaction.as_ref().unwrap().id();
        in_child(|| {
            drop(transaction.take());
            let pending = zfs.pending(&scope).unwrap();
            let [pending] = &pending[..] else { panic!("{pending:?}") };
            assert_eq!((pending.id, &pending.condition), (id, &Condition::Open { pid: parent }));
            let recovery = zfs.recover(&scope).unwrap();
            assert_eq!((recovery.untouched.len(), recovery.finished.len()), (1, 0));
            let own = name("own");
            zfs.transaction(&own).begin().unwrap().commit().unwrap();
            let own = zfs.transaction(&own).begin().unwrap().detach().unwrap();
            zfs.resume(&name("own"), own).unwrap().rollback().unwrap();
        });
        transaction.unwrap().commit().unwrap();
    });
}

#[test]
fn what_the_parent_has_detached_the_child_resumes() {
    if std::env::var_os(POOL).is_none() {
        return alone("fork::what_the_parent_has_detached_the_child_resumes");
    }
    let zfs = Zfs::open().unwrap();
    each(&zfs, |transaction| {
        let target = transaction.target().clone();
        let id = transaction.detach().unwrap();
        in_child(|| {
            let transaction = zfs.resume(&target, id).unwrap();
            assert_eq!(fs::read(transaction.path().join("file")).unwrap(), b"new");
            transaction.commit().unwrap();
        });
    });
}

/// A child in another pid namespace, with the number that its parent has.
#[test]
fn a_child_with_its_parents_number_does_nothing_either() {
    if std::env::var_os(POOL).is_none() {
        return alone("fork::a_child_with_its_parents_number_does_nothing_either");
    }
    let zfs = Zfs::open().unwrap();
    let parent = std::process::id();
    each(&zfs, |transaction| {
        let mut transaction = Some(transaction);
        in_child(|| {
            next_child_in_a_new_pid_namespace();
            in_child(|| {
                let last = "/proc/sys/kernel/ns_last_pid";
                fs::write(last, (parent - 1).to_string()).unwrap();
                in_child(|| {
                    assert_eq!(std::process::id(), parent);
                    let error = transaction.take().unwrap().commit().unwrap_err();
                    let CommitError::Unchanged { error, .. } = &error else { panic!("{error}") };
                    assert_not_the_owner(error, parent);
                });
            });
        });
        transaction.unwrap().commit().unwrap();
    });
}
