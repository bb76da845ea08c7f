//! The mode of a file that is open for its path alone (fchmodat2(2), Linux 6.6).

use std::ffi::{CStr, c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::last_errno;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `fchmodat2(2)`.
const FCHMODAT2: c_long = 452;
/// `AT_EMPTY_PATH`.
const EMPTY_PATH: c_int = 0x1000;

/// Sets the permission bits of what a descriptor is open for, `O_PATH` included.
///
/// # Errors
/// `ENOSYS` before Linux 6.6, where a filter of system calls may say `EPERM` as well; else those of chmod(2).
pub(crate) fn set_mode(file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    let path: &CStr = c"";
    let (file, mode) = (c_long::from(file.as_raw_fd()), c_uint::from(mode.bits()));
    // SAFETY: the arguments are those of fchmodat2(2): a descriptor, a path that ends with a NUL byte, the
    // bits, and flags. The kernel reads the path alone.
    match unsafe { syscall(FCHMODAT2, file, path.as_ptr(), mode, EMPTY_PATH) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}
