//! Each call on a real pool: once as it should go, and once as it typically fails.

mod datasets;
mod programs;
mod snapshots;
mod streams;

use std::fs;

use super::*;
use crate::test_pool::TestPool;

fn none() -> NvList {
    NvList::new().unwrap()
}

/// Properties of a filesystem that the tests mount themselves, or not at all.
fn quiet() -> NvList {
    let mut props = none();
    props.add_u64("canmount", 2).unwrap();
    props
}

fn start() -> (Lzc, TestPool) {
    (Lzc::open().unwrap(), TestPool::new())
}

fn filesystem(lzc: Lzc, pool: &TestPool, name: &str) -> String {
    let name = pool.dataset(name);
    lzc.create(&name, DatasetKind::Filesystem, &quiet()).unwrap();
    name
}

fn snapshot(lzc: Lzc, name: &str, short: &str) -> String {
    let name = format!("{name}@{short}");
    lzc.snapshot(&[&name], &none()).unwrap();
    name
}

fn mounted(name: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').next() == Some(name))
}
