use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;

use super::*;

#[test]
fn create() {
    let (lzc, pool) = start();
    let name = pool.dataset("a");
    let mut props = quiet();
    props.add_str("mountpoint", "/somewhere").unwrap();
    props.add_str("test:note", "ü").unwrap();
    assert!(!lzc.exists(&name).unwrap());
    lzc.create(&name, DatasetKind::Filesystem, &props).unwrap();
    assert!(lzc.exists(&name).unwrap() && !mounted(&name));
    let shown = pool.zfs(&["get", "-Hpo", "value", "mountpoint,canmount,test:note", &name]);
    assert_eq!(shown, "/somewhere\nnoauto\nü\n");

    let error = lzc.create(&name, DatasetKind::Filesystem, &props).unwrap_err();
    assert_eq!((error.call, error.errno), ("lzc_create", Errno::EXIST));
    let orphan = pool.dataset("no/child");
    let error = lzc.create(&orphan, DatasetKind::Filesystem, &none()).unwrap_err();
    assert_eq!(error.errno, Errno::NOENT);

    let volume = pool.dataset("v");
    let mut props = none();
    props.add_u64("volsize", 1 << 20).unwrap();
    lzc.create(&volume, DatasetKind::Volume, &props).unwrap();
    let child = pool.dataset("v/child");
    let error = lzc.create(&child, DatasetKind::Filesystem, &none()).unwrap_err();
    assert_eq!(error.errno, Errno::ZFS_ERR_WRONG_PARENT);
    pool.cleanup();
}

#[test]
fn clone_promote_and_rename() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let base = snapshot(lzc, &a, "base");
    let clone = pool.dataset("clone");
    lzc.clone(&clone, &base, &quiet()).unwrap();
    assert_eq!(pool.zfs(&["get", "-Ho", "value", "origin", &clone]), format!("{base}\n"));
    assert_eq!(lzc.clone(&clone, &base, &none()).unwrap_err().errno, Errno::EXIST);
    let missing = format!("{a}@missing");
    let error = lzc.clone(&pool.dataset("c"), &missing, &none()).unwrap_err();
    assert_eq!(error.errno, Errno::NOENT);

    assert_eq!(lzc.promote(&a).unwrap_err().errno, Errno::INVAL);
    let blocking = snapshot(lzc, &clone, "same");
    // A snapshot moves only if it is not newer than the origin: make the clone's origin the newest.
    let _ = snapshot(lzc, &a, "same");
    let last = snapshot(lzc, &a, "last");
    let second = pool.dataset("second");
    lzc.clone(&second, &last, &quiet()).unwrap();
    let _ = snapshot(lzc, &second, "same");
    let error = lzc.promote(&second).unwrap_err();
    assert_eq!(error.errno, Errno::EXIST);
    assert!(error.detail.as_deref().unwrap().ends_with("same"), "{error}");
    lzc.destroy_snaps(&[&blocking], false).unwrap();
    lzc.promote(&clone).unwrap();
    assert_eq!(pool.zfs(&["get", "-Ho", "value", "origin", &a]), format!("{clone}@base\n"));

    let (before, after) = (pool.dataset("clone"), pool.dataset("renamed"));
    lzc.rename(&before, &after).unwrap();
    assert!(lzc.exists(&after).unwrap() && !lzc.exists(&before).unwrap());
    let error = lzc.rename(&after, &a).unwrap_err();
    assert_eq!((error.errno, error.subject), (Errno::EXIST, after));
    pool.cleanup();
}

#[test]
fn rename_leaves_a_mount_in_place() {
    let (lzc, pool) = start();
    let (a, b) = (pool.dataset("a"), pool.dataset("b"));
    pool.zfs(&["create", &a]);
    let file = pool.mountpoint().join("a/file");
    fs::write(&file, "1").unwrap();
    lzc.rename(&a, &b).unwrap();
    assert!(mounted(&b) && !mounted(&a));
    assert_eq!(fs::read(&file).unwrap(), b"1");
    pool.cleanup();
}

#[test]
fn destroy() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let s = snapshot(lzc, &a, "s");
    assert_eq!(lzc.destroy(&a).unwrap_err().errno, Errno::BUSY);
    lzc.destroy_snaps(&[&s], false).unwrap();
    let child = filesystem(lzc, &pool, "a/child");
    assert_eq!(lzc.destroy(&a).unwrap_err().errno, Errno::EXIST);
    lzc.destroy(&child).unwrap();
    lzc.destroy(&a).unwrap();
    assert_eq!(lzc.destroy(&a).unwrap_err().errno, Errno::NOENT);
    let m = pool.dataset("m");
    pool.zfs(&["create", &m]);
    assert_eq!(lzc.destroy(&m).unwrap_err().errno, Errno::BUSY);
    pool.cleanup();
}

#[test]
fn sync() {
    let (lzc, pool) = start();
    lzc.sync(pool.name(), true).unwrap();
    lzc.sync(pool.name(), false).unwrap();
    assert_eq!(lzc.sync("zfstxn-test-none", false).unwrap_err().errno, Errno::NOENT);
    pool.cleanup();
}

#[test]
fn rollback() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let first = snapshot(lzc, &a, "first");
    lzc.rollback_to(&a, &first).unwrap();
    let second = snapshot(lzc, &a, "second");
    assert_eq!(lzc.rollback_to(&a, &first).unwrap_err().errno, Errno::EXIST);
    lzc.rollback_to(&a, &second).unwrap();
    let missing = format!("{a}@missing");
    assert!(lzc.rollback_to(&a, &missing).is_err());
    pool.cleanup();
}

#[test]
fn threads_may_call_at_the_same_time() {
    const THREADS: usize = 8;
    let pool = Arc::new(TestPool::new());
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let lzc = Lzc::open().unwrap();
                for round in 0..4 {
                    let name = filesystem(lzc, &pool, &format!("t{number}-{round}"));
                    let s = snapshot(lzc, &name, "s");
                    assert!(lzc.exists(&s).unwrap());
                    assert_eq!(lzc.destroy(&name).unwrap_err().errno, Errno::BUSY);
                    lzc.destroy_snaps(&[&s], false).unwrap();
                    lzc.destroy(&name).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.zfs(&["list", "-Hro", "name", "-t", "all", pool.name()]).lines().count(), 1);
    Arc::into_inner(pool).unwrap().cleanup();
}
