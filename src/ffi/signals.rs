//! Calls that no signal interrupts, but the C library's own.
//!
//! A signal to the calling thread ends some calls with `EINTR`, half-way: those that are channel programs within
//! the kernel (`dsl_destroy_snapshots_nvl`), and those that list (`zfs_ioc_snapshot_list_next`).

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr;

/// `sigset_t`, of 1,024 bits with each C library for Linux.
#[repr(C, align(8))]
struct Signals([u8; 128]);

unsafe extern "C" {
    fn pthread_sigmask(how: c_int, set: *const Signals, before: *mut Signals) -> c_int;
}

/// `SIG_SETMASK`.
const SET: c_int = 2;

/// Every signal but the C library's own (glibc's for `setuid` in all threads, and for `pthread_cancel`) is blocked
/// on this thread as long as the value lives; those that come meanwhile are delivered afterwards. The value stays
/// on the thread that has made it.
pub(crate) struct Blocked {
    before: Option<Signals>,
    _of_this_thread: PhantomData<*mut ()>,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        let (all, mut before) = (Signals([0xff; 128]), Signals([0; 128]));
        // SAFETY: reads one mask and writes the other; the C library leaves its own signals out.
        let error = unsafe { pthread_sigmask(SET, &raw const all, &raw mut before) };
        // It has no error but for an unknown `how`.
        Self { before: (error == 0).then_some(before), _of_this_thread: PhantomData }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: reads a mask that pthread_sigmask has written, and changes that of the thread that
            // it was read from, as the value can't be sent to another.
            unsafe { pthread_sigmask(SET, before, ptr::null_mut()) };
        }
    }
}

/// Makes a call with signals blocked.
pub(crate) fn uninterrupted<T>(call: impl FnOnce() -> T) -> T {
    let _blocked = Blocked::new();
    call()
}
