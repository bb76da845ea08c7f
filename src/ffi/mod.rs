//! The only unsafe code of the crate: OpenZFS's C libraries behind safe, typed calls.
//!
//! - [`nvlist`]: name-value lists, the argument and result of almost every call;
//! - [`lzc`]: libzfs_core, one call for each operation of the kernel module, thread-safe;
//! - [`libzfs`]: the little that only libzfs can do, behind a lock;
//! - [`pages`]: the kernel's page cache of a file;
//! - [`zvol`]: the dataset behind a block device.
#![allow(unsafe_code, reason = "calls into C; each block names the guarantee that it relies on")]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        unused_imports,
        reason = "one-to-one with C: not every verb is used by every strategy"
    )
)]

mod bindings;
pub(crate) mod libzfs;
pub(crate) mod lzc;
pub(crate) mod nvlist;
pub(crate) mod pages;
pub(crate) mod zvol;

use std::ffi::CString;

/// Copies `text` for C, or `None` if it contains a NUL byte and C would read a shorter one.
fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

/// Blocks every signal on the calling thread, for as long as it lives: for threads that do nothing
/// but one long call, which a signal would interrupt.
pub(crate) fn block_signals() {
    // SAFETY: changes the signal mask of the calling thread alone. It can't fail: its arguments are
    // valid.
    unsafe { bindings::zfs_txn_block_signals() };
}
