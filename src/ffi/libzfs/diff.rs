//! Which files differ between two snapshots: what `zfs diff` says.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use super::super::bindings as c;
use super::{HEAD, LibZfs, LibZfsError, failed, last_errno};
use crate::errno::Errno;
use crate::ffi::c_string;

/// `ZFS_DIFF_PARSEABLE | ZFS_DIFF_CLASSIFY`: tabs between the fields, and each file's type.
const FLAGS: i32 = 1 << 0 | 1 << 2;

impl LibZfs {
    /// Writes a line for each file of `dataset` that is not the same in two snapshots, `to` of
    /// `dataset` and `from` of it or of the dataset that it is a clone of, to a file. Both datasets
    /// must be mounted in this mount namespace; the paths begin with `dataset`'s mount point.
    ///
    /// Its cost grows with the number of changed files, not of all.
    ///
    /// # Errors
    ///
    /// `ENOENT`; `EINVAL` where something is not mounted, or `from` is not earlier than `to`.
    #[doc(alias = "zfs_show_diffs")]
    pub(crate) fn diff(
        &self,
        dataset: &str,
        (from, to): (&str, &str),
        out: &OwnedFd,
    ) -> Result<(), LibZfsError> {
        const CALL: &str = "zfs_show_diffs";
        let fail = |errno| failed(CALL, dataset, errno);
        let names = c_string(from).zip(c_string(to)).ok_or_else(|| fail(Errno::INVAL))?;
        let handle = self.dataset(dataset, HEAD)?;
        let out = out.as_fd().try_clone_to_owned().map_err(|_| fail(last_errno()))?;
        // SAFETY: takes an open dataset, a descriptor that it closes (this function gives up its
        // own), and two C strings.
        let error = unsafe {
            c::zfs_show_diffs(
                handle.raw.as_ptr(),
                out.into_raw_fd(),
                names.0.as_ptr(),
                names.1.as_ptr(),
                FLAGS,
            )
        };
        if error == 0 { Ok(()) } else { Err(handle.error(CALL)) }
    }
}
