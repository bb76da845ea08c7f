//! Snapshots of real file systems compared, by handle and by path.

use std::fs;
use std::path::Path;

use super::*;
use crate::ffi::lzc::Lzc;
use crate::test_pool::TestPool;
use crate::transfer::look;

/// The difference that an act makes, as it is found by the numbers of objects.
fn made(pool: &TestPool, number: usize, act: impl FnOnce(&Path)) -> Difference {
    let dataset = pool.dataset("t");
    let path = pool.mountpoint().join("t");
    let [then, now] = ["then", "now"].map(|name| format!("{dataset}@{name}-{number}"));
    pool.zfs(&["snapshot", &then]);
    act(&path);
    pool.sync();
    pool.zfs(&["snapshot", &now]);
    look(Lzc::open().unwrap(), &now, Some(&then), |stream| difference(stream, &now, &then)).unwrap()
}

#[test]
fn access_times_are_no_difference_and_bytes_are() {
    let pool = TestPool::new();
    pool.zfs(&["create", "-o", "atime=on", "-o", "relatime=off", &pool.dataset("t")]);
    let path = pool.mountpoint().join("t");
    fs::create_dir(path.join("d")).unwrap();
    fs::write(path.join("d/file"), "x").unwrap();
    std::os::unix::fs::symlink("d/file", path.join("link")).unwrap();
    let read = made(&pool, 1, |path| {
        fs::read(path.join("d/file")).unwrap();
        fs::read_dir(path).unwrap().count();
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    });
    assert_eq!(read, Difference::Nothing);
    assert_eq!(
        made(&pool, 2, |path| fs::write(path.join("d/file"), "y").unwrap()),
        Difference::Content
    );
    assert_eq!(
        made(&pool, 3, |path| fs::write(path.join("new"), "").unwrap()),
        Difference::Content
    );
    assert_eq!(made(&pool, 4, |_| ()), Difference::Nothing);
    pool.cleanup();
}
