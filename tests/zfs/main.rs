//! Transactions on real ZFS, through the public interface. Needs root and the zfs module: run with
//! `cargo xtask test`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a helper that fails, fails the test, and this crate has no users"
)]

mod advice;
mod busy;
mod bytes;
mod capabilities;
mod commit;
mod container;
mod endurance;
mod errors;
mod fence;
mod forged;
mod fork;
mod forks;
mod go_over;
mod held;
mod in_place;
mod in_place_content;
mod intent_log;
mod mapped;
mod meanwhile;
mod memory;
mod mounts;
mod nfs;
mod others;
mod ownership;
mod pages;
mod process;
mod random;
mod recovery;
mod resume;
mod rollback;
mod sent;
mod strangers;
mod support;
mod suspended;
#[path = "../../src/ffi/test_fork.rs"]
mod test_fork;
#[path = "../../src/ffi/test_mapping.rs"]
mod test_mapping;
#[path = "../../src/test_pool.rs"]
mod test_pool;
#[path = "../../src/test_write.rs"]
mod test_write;
mod volumes;
mod walk;
mod workspace;
