//! Threads that each do one long call, and end with the process.
//!
//! A thread that the kernel has writing a stream into a pipe has been seen to outlive its process: the
//! signal that was to kill it stayed pending, and the pipe's other end stayed open, because the threads
//! of a process share their descriptors (Linux 6.12, OpenZFS 2.3.9; the cause was not found). So the
//! far ends of the pipes belong to a thread that shares none: they are closed when it ends, and whoever
//! waits at the near ends is woken.
//!
//! A process that another thread forks at that time has copies of that thread's descriptors. So the near
//! ends belong to a table that no thread of the caller has: else a child that goes on would keep a pipe
//! open, and whoever waits for its end would wait for the child's.

use std::ffi::{c_long, c_uint};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::channel;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::last_errno;
use super::signals::uninterrupted;
use crate::engine::Fault;
use crate::errno::Errno;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `close_range(2)`, for which not every C library has a function.
const CLOSE_RANGE: c_long = 436;

/// What an `EAGAIN` is about that doesn't come from ZFS, where it says that the pool is suspended.
pub(crate) const NO_THREAD: &str = "no further thread could be started";

/// Starts a thread that no signal interrupts.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    call: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Fault> {
    let started = Builder::new().spawn_scoped(scope, move || uninterrupted(call));
    started.map_err(|_| Fault { errno: Errno::AGAIN, detail: Some(NO_THREAD.to_owned()) })
}

/// Starts a thread with a table of descriptors of its own, in which ZFS's device is, and nothing else.
/// Threads that it starts share the table with it. The other descriptors are closed in the copy, which a file
/// system in user space and NFS are told of (a flush).
///
/// # Errors
/// In the thread's result: `EMFILE`, `ENOMEM`, or `ENOSYS` on a kernel before Linux 5.9.
pub(crate) fn start_aside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    call: impl FnOnce() -> Result<T, Fault> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, Fault>>, Fault> {
    start(scope, move || {
        // First the table of its own: in the shared one, a number may come to mean another file.
        keep_all()?;
        keep_only(&zfs_devices()?)?;
        call()
    })
}

/// Gives the calling thread a table of its own, with all descriptors.
fn keep_all() -> Result<(), Fault> {
    // SAFETY: nothing is closed. What the thread opens from now on is in its own table, and so are the
    // threads that may use it: those that it starts.
    Ok(unsafe { unshare_unsafe(UnshareFlags::FILES) }?)
}

/// The descriptors of ZFS's device, by which libzfs_core makes its calls: the number is its secret.
fn zfs_devices() -> Result<Vec<RawFd>, Fault> {
    let io = |error: std::io::Error| match rustix::io::Errno::from_io_error(&error) {
        Some(errno) => Fault::from(errno),
        None => Errno::IO.into(),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/thread-self/fd").map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let number: Option<RawFd> = name.to_str().and_then(|name| name.parse().ok());
        // By its name alone: to ask a file that somebody else has open may take as long as that one likes.
        let is_zfs = fs::read_link(entry.path()).is_ok_and(|path| {
            // Somebody may have made the node in /dev anew since.
            path.ends_with("zfs") || path.ends_with("zfs (deleted)")
        });
        found.extend(number.filter(|_| is_zfs));
    }
    found.sort_unstable();
    Ok(found)
}

/// Leaves the calling thread these descriptors, in ascending order, in a table of its own.
fn keep_only(sorted: &[RawFd]) -> Result<(), Fault> {
    keep_all()?;
    let mut next = 0;
    for kept in sorted.iter().map(|kept| kept.unsigned_abs()) {
        if kept > next {
            close_range(next, kept - 1)?;
        }
        next = kept + 1;
    }
    close_range(next, c_uint::MAX)
}

/// Closes the descriptors from `first` to `last` of the calling thread's own table.
fn close_range(first: c_uint, last: c_uint) -> Result<(), Fault> {
    // SAFETY: the arguments are those of close_range(2), two numbers and no flags. The table is this thread's
    // alone; whatever it owned in the shared one (nothing) it would lose.
    match unsafe { syscall(CLOSE_RANGE, first, last, 0_u32) } {
        0 => Ok(()),
        _ => Err(last_errno().into()),
    }
}

/// Starts a thread that has these descriptors, and no others, in a table of its own. The process's other
/// threads have them no longer when this returns.
///
/// # Errors
/// In the thread's result: `EMFILE`, `ENOMEM`, or `ENOSYS` on a kernel before Linux 5.9.
pub(crate) fn start_apart<'scope, const N: usize, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    descriptors: [OwnedFd; N],
    call: impl FnOnce([OwnedFd; N]) -> Result<T, Fault> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, Fault>>, Fault> {
    let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
    let (ready, is_ready) = channel::<()>();
    let thread = start(scope, move || {
        let mut sorted = numbers;
        sorted.sort_unstable();
        let kept = keep_only(&sorted);
        drop(ready);
        kept?;
        // SAFETY: all are open in this thread's table, as `descriptors` was not dropped before, and
        // nothing else owns them there.
        call(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
    })?;
    // Nothing is sent: it ends when the thread has its table, or has failed.
    let _ = is_ready.recv();
    drop(descriptors);
    Ok(thread)
}
