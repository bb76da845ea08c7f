//! For tests: processes that are made by fork(2) and nothing else, each with copies of all that its parent
//! has, whatever their flags.
//!
//! Self-contained, so that the integration tests can include it by path.
#![allow(unsafe_code, reason = "each block names the guarantee that it relies on")]
#![allow(dead_code, unreachable_pub, reason = "not every includer uses every function")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails, fails the test")]

use std::ffi::{c_int, c_uint};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The flag that puts the children of a process into a new pid namespace.
const CLONE_NEWPID: c_int = 0x2000_0000;

unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn sleep(seconds: c_uint) -> c_uint;
    fn unshare(flags: c_int) -> c_int;
}

/// The child, in the parent.
fn child(pid: c_int) -> Pid {
    let found = Pid::from_raw(pid).filter(|_| pid > 0);
    found.unwrap_or_else(|| panic!("fork: {}", io::Error::last_os_error()))
}

/// Does something in a forked child, and waits for its end. To be used in a process that has no threads of
/// other tests: what they have locked would stay so in the child.
///
/// # Panics
///
/// When the child has panicked.
pub fn in_child(act: impl FnOnce()) {
    // SAFETY: the child has this thread alone, and no other thread of the parent holds a lock that it
    // takes, as the caller has seen to. It leaves by `_exit` below.
    let pid = unsafe { fork() };
    if pid == 0 {
        let done = catch_unwind(AssertUnwindSafe(act)).is_ok();
        // SAFETY: ends the process, and has nothing done that is the parent's to do at its end.
        unsafe { _exit(c_int::from(!done)) }
    }
    let (_, status) = waitpid(Some(child(pid)), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child has panicked");
}

/// A copy of this process that only sleeps. It is killed when this is dropped.
#[derive(Debug)]
pub struct Fork(Pid);

impl Fork {
    /// Makes one that ends by itself after so many seconds.
    pub fn sleeping(seconds: u32) -> Self {
        // SAFETY: other threads may hold any lock at this moment, so the child calls nothing but
        // sleep(3) and _exit(2), which may be called after a fork of a process with threads.
        let pid = unsafe {
            match fork() {
                0 => {
                    sleep(seconds);
                    _exit(0)
                }
                pid => pid,
            }
        };
        Self(child(pid))
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Has the next child of this process be the first of a new pid namespace.
///
/// # Panics
///
/// When that is not permitted.
pub fn next_child_in_a_new_pid_namespace() {
    // SAFETY: a call with a number, which changes where later children of this process count.
    let error = unsafe { unshare(CLONE_NEWPID) };
    assert_eq!(error, 0, "{}", io::Error::last_os_error());
}
