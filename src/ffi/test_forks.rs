//! Processes that are made by fork(2) and nothing else, for tests: each has copies of all descriptors that
//! this one had at that moment, whatever their flags, until it ends.
//!
//! Self-contained, so that the integration tests can include it by path.
#![allow(unsafe_code, reason = "fork; each block says why it is sound")]
#![allow(dead_code, unreachable_pub, reason = "not every includer uses every method")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails, fails the test")]

use std::ffi::{c_int, c_uint};
use std::io;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

unsafe extern "C" {
    fn fork() -> c_int;
    fn sleep(seconds: c_uint) -> c_uint;
    fn _exit(status: c_int) -> !;
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
        let error = || io::Error::last_os_error();
        Self(Pid::from_raw(pid).filter(|_| pid > 0).unwrap_or_else(|| panic!("fork: {}", error())))
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}
