//! For tests: processes that are forked, with copies of all that their parent has.
//!
//! Self-contained, so that the integration tests can include it by path. To be used in a process that has
//! no threads of other tests: what they have locked would stay so in the child.
#![allow(unsafe_code, reason = "each block names the guarantee that it relies on")]
#![allow(dead_code, unreachable_pub, reason = "not every includer uses every function")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails, fails the test")]

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The flag that puts the children of a process into a new pid namespace.
const CLONE_NEWPID: c_int = 0x2000_0000;

unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
}

/// Does something in a forked child, and waits for its end.
///
/// # Panics
///
/// When the child has panicked.
pub fn in_child(act: impl FnOnce()) {
    // SAFETY: the child has this thread alone, and no other thread of the parent holds a lock that it
    // takes, as the caller has seen to. It leaves by `_exit` below.
    let child = unsafe { fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let done = catch_unwind(AssertUnwindSafe(act)).is_ok();
        // SAFETY: ends the process, and has nothing done that is the parent's to do at its end.
        unsafe { _exit(c_int::from(!done)) }
    }
    let mut status = 0;
    // SAFETY: writes into the integer, which is there.
    let waited = unsafe { waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child has panicked");
}

/// Has the next child of this process be the first of a new pid namespace.
///
/// # Panics
///
/// When that is not permitted.
pub fn next_child_in_a_new_pid_namespace() {
    // SAFETY: a call with a number, which changes where later children of this process count.
    let error = unsafe { unshare(CLONE_NEWPID) };
    assert_eq!(error, 0, "{}", std::io::Error::last_os_error());
}
