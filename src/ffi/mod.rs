//! The only unsafe code of the crate: OpenZFS's C libraries behind safe, typed calls.
//!
//! - [`nvlist`]: name-value lists, the argument and result of almost every call;
//! - [`lzc`]: libzfs_core, one call for each operation of the kernel module, thread-safe;
//! - [`libzfs`]: the little that only libzfs can do, with a handle for each call;
//! - [`pages`]: the kernel's page cache of a file;
//! - [`handles`]: files by the numbers of their objects;
//! - [`zvol`]: the dataset behind a block device;
//! - [`attributes`]: a file's flags and its project;
//! - [`mode`]: the mode of a file that is open for its path alone;
//! - [`signals`]: calls that no signal interrupts;
//! - [`threads`]: threads for long calls, and ones whose descriptors are their own.
#![allow(unsafe_code, reason = "calls into C; each block names the guarantee that it relies on")]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        unused_imports,
        reason = "one-to-one with C: not every verb is used by every strategy"
    )
)]

pub(crate) mod attributes;
mod bindings;
pub(crate) mod handles;
pub(crate) mod libzfs;
pub(crate) mod lzc;
pub(crate) mod mode;
pub(crate) mod nvlist;
pub(crate) mod pages;
pub(crate) mod signals;
pub(crate) mod threads;
pub(crate) mod zvol;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

/// What the C library's last call on this thread failed with.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Copies `text` for C, or `None` if it contains a NUL byte and C would read a shorter one.
fn c_string(text: &(impl AsRef<OsStr> + ?Sized)) -> Option<CString> {
    CString::new(text.as_ref().as_bytes()).ok()
}
