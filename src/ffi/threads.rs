//! Threads that each do one long call, and end with the process.
//!
//! A thread that the kernel has writing a stream into a pipe has been seen to outlive its process: the
//! signal that was to kill it stayed pending, and the pipe's other end stayed open, because the threads
//! of a process share their descriptors (Linux 6.12, OpenZFS 2.3.9; the cause was not found). So the
//! far ends of the pipes belong to a thread that shares none: they are closed when it ends, and whoever
//! waits at the near ends is woken.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::bindings;
use crate::engine::Fault;
use crate::errno::Errno;

/// Starts a thread that no signal interrupts.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    call: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Fault> {
    let started = Builder::new().spawn_scoped(scope, move || {
        // SAFETY: changes the signal mask of the calling thread alone. It can't fail: its arguments
        // are valid.
        unsafe { bindings::zfs_txn_block_signals() };
        call()
    });
    started.map_err(|error| Fault {
        errno: Errno::AGAIN,
        detail: Some(format!("a thread could not be started: {error}")),
    })
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
        // SAFETY: reads as many numbers as there are. It changes the table of this thread alone;
        // whatever it owned in the shared one (nothing) it would lose.
        let error = unsafe { bindings::zfs_txn_keep_only(sorted.as_ptr(), sorted.len()) };
        drop(ready);
        if error != 0 {
            return Err(Errno::from_raw(error).into());
        }
        // SAFETY: all are open in this thread's table, as `descriptors` was not dropped before, and
        // nothing else owns them there.
        call(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
    })?;
    // Nothing is sent: it ends when the thread has its table, or has failed.
    let _ = is_ready.recv();
    drop(descriptors);
    Ok(thread)
}
