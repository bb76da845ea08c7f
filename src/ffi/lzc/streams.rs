//! Send and receive.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::super::bindings as c;
use super::super::library::openzfs;
use super::{Lzc, LzcError, c_name, finish};

bitflags::bitflags! {
    /// What a stream may contain.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SendFlags: u32 {
        /// Small blocks as they are in their pointers.
        const EMBED_DATA = c::lzc_send_flags::LZC_SEND_FLAG_EMBED_DATA.0;
        /// Blocks over 128 KiB.
        const LARGE_BLOCK = c::lzc_send_flags::LZC_SEND_FLAG_LARGE_BLOCK.0;
        /// Blocks as they are compressed on disk.
        const COMPRESS = c::lzc_send_flags::LZC_SEND_FLAG_COMPRESS.0;
        /// Blocks as they are encrypted on disk.
        const RAW = c::lzc_send_flags::LZC_SEND_FLAG_RAW.0;
    }
}

impl Lzc {
    /// Writes a snapshot as a stream; with `from`, an earlier snapshot or bookmark, only the changes
    /// since. Into anything but a pipe, a thread of libzfs_core's copies.
    ///
    /// # Errors
    ///
    /// `EXDEV` (`from` isn't an earlier state of the snapshot), `EPIPE` (the reader went away, for
    /// which the process may also get SIGPIPE; Rust programs ignore that).
    #[doc(alias = "lzc_send")]
    pub(crate) fn send(
        &self,
        snapshot: &str,
        from: Option<&str>,
        to: BorrowedFd<'_>,
        flags: SendFlags,
    ) -> Result<(), LzcError> {
        const CALL: &str = "lzc_send";
        let c_snapshot = c_name(CALL, snapshot)?;
        let c_from = from.map(|from| c_name(CALL, from)).transpose()?;
        let from = c_from.as_ref().map_or(ptr::null(), |from| from.as_ptr());
        let flags = c::lzc_send_flags(flags.bits());
        // SAFETY: lzc_send reads a C string and a C string or null, and writes to an open file.
        let error = unsafe { openzfs().lzc_send(c_snapshot.as_ptr(), from, to.as_raw_fd(), flags) };
        finish(CALL, snapshot, error, None)
    }

    /// An estimate of the stream's length in bytes.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    #[doc(alias = "lzc_send_space")]
    pub(crate) fn send_space(
        &self,
        snapshot: &str,
        from: Option<&str>,
        flags: SendFlags,
    ) -> Result<u64, LzcError> {
        const CALL: &str = "lzc_send_space";
        let c_snapshot = c_name(CALL, snapshot)?;
        let c_from = from.map(|from| c_name(CALL, from)).transpose()?;
        let from = c_from.as_ref().map_or(ptr::null(), |from| from.as_ptr());
        let flags = c::lzc_send_flags(flags.bits());
        let mut space = 0;
        // SAFETY: reads a C string and a C string or null, and stores a number in `space`.
        let error =
            unsafe { openzfs().lzc_send_space(c_snapshot.as_ptr(), from, flags, &mut space) };
        finish(CALL, snapshot, error, None)?;
        Ok(space)
    }

    /// Receives a stream as a snapshot. The change becomes visible at the end, in one transaction
    /// group; a mounted filesystem stays mounted. `origin` is for a stream that makes a clone. With
    /// `force`, changes since the latest snapshot are lost. `raw` says that the stream was sent with
    /// [`SendFlags::RAW`].
    ///
    /// No properties are passed: with any list, even an empty one, the first receive into a dataset
    /// clears all of its local properties (`zfs_ioc_recv_impl`, `first_recvd_props`).
    ///
    /// # Errors
    ///
    /// `ETXTBSY` (changed since the latest snapshot), `ENODEV` (the latest snapshot isn't what the
    /// stream starts from), `EEXIST`, `EINVAL`, `EIO` (the stream ends early).
    #[doc(alias = "lzc_receive")]
    pub(crate) fn receive(
        &self,
        snapshot: &str,
        origin: Option<&str>,
        force: bool,
        raw: bool,
        from: BorrowedFd<'_>,
    ) -> Result<(), LzcError> {
        const CALL: &str = "lzc_receive";
        let c_snapshot = c_name(CALL, snapshot)?;
        let c_origin = origin.map(|origin| c_name(CALL, origin)).transpose()?;
        let origin = c_origin.as_ref().map_or(ptr::null(), |origin| origin.as_ptr());
        let c_bool = |yes| {
            if yes { c::boolean_t::B_TRUE } else { c::boolean_t::B_FALSE }
        };
        // SAFETY: reads a C string, null for no list, a C string or null, and an open file.
        let error = unsafe {
            openzfs().lzc_receive(
                c_snapshot.as_ptr(),
                ptr::null_mut(),
                origin,
                c_bool(force),
                c_bool(raw),
                from.as_raw_fd(),
            )
        };
        finish(CALL, snapshot, error, None)
    }
}
