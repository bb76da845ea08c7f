//! Files by the numbers of their objects, and not by a path (open_by_handle_at(2)).
//!
//! ZFS makes a handle of an object's number and generation (`zfs_fid`, `zfid_short_t`): both stand in a
//! send stream.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::last_errno;
use crate::stream::passage::FileId;

/// How many bytes there are in ZFS's short handle: a length, the object's number, the generation.
const LENGTH: usize = 12;
/// `FILEID_INO32_GEN`, under which Linux passes it on.
const KIND: c_int = 1;
/// Room for handles of any kind.
const ROOM: usize = 128;

/// `struct file_handle`, with room for its bytes.
#[repr(C)]
struct Handle {
    length: u32,
    kind: c_int,
    bytes: [u8; ROOM],
}

unsafe extern "C" {
    fn open_by_handle_at(mount: c_int, handle: *mut Handle, flags: c_int) -> c_int;
    fn name_to_handle_at(
        directory: c_int,
        path: *const c_char,
        handle: *mut Handle,
        mount: *mut c_int,
        flags: c_int,
    ) -> c_int;
}

/// `AT_EMPTY_PATH`.
const EMPTY_PATH: c_int = 0x1000;

fn handle_of(file: FileId) -> Handle {
    let mut bytes = [0; ROOM];
    // The length of what follows it, in the host's byte order; the rest is little-endian everywhere.
    bytes[..2].copy_from_slice(&(LENGTH as u16 - 2).to_ne_bytes());
    bytes[2..8].copy_from_slice(&file.object.to_le_bytes()[..6]);
    bytes[8..LENGTH].copy_from_slice(&short(file.generation).to_le_bytes());
    Handle { length: LENGTH as u32, kind: KIND, bytes }
}

/// The generation as it is in a handle, where zero stands for a control directory.
fn short(generation: u64) -> u32 {
    (generation as u32).max(1)
}

/// Opens a file of the dataset in which `directory` is.
///
/// # Errors
/// `ESTALE` where there is no such file, or no name leads to it any more; `EPERM` for whom the kernel
/// refuses handles: they need `CAP_DAC_READ_SEARCH` in the initial user namespace.
pub(crate) fn open(
    directory: BorrowedFd<'_>,
    file: FileId,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let mut handle = handle_of(file);
    let flags = (flags | OFlags::CLOEXEC).bits() as c_int;
    // SAFETY: the handle says how many of its bytes are in use, which are fewer than it has.
    match unsafe { open_by_handle_at(directory.as_raw_fd(), &mut handle, flags) } {
        // SAFETY: the call has succeeded, and made a descriptor that nobody else owns.
        descriptor @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(last_errno()),
    }
}

/// The handle of an open file.
fn of(opened: BorrowedFd<'_>) -> Result<Handle, Errno> {
    let mut handle = Handle { length: ROOM as u32, kind: 0, bytes: [0; ROOM] };
    let mut mount = 0;
    // SAFETY: the path is a C string; the handle says how much room it has; the number of the mount is
    // written to an integer.
    let error = unsafe {
        name_to_handle_at(opened.as_raw_fd(), c"".as_ptr(), &mut handle, &mut mount, EMPTY_PATH)
    };
    if error == 0 { Ok(handle) } else { Err(last_errno()) }
}

/// Whether an open file is this one, and no other that has its number in another generation.
pub(crate) fn is(opened: BorrowedFd<'_>, file: FileId) -> Result<bool, Errno> {
    let (found, expected) = (of(opened)?, handle_of(file));
    let same = found.bytes[..LENGTH] == expected.bytes[..LENGTH];
    Ok(found.length == expected.length && found.kind == KIND && same)
}

/// Whether two open files of one dataset, or of a clone of it, are the same object, and no other that has its
/// number in another generation.
pub(crate) fn are_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (one, other) = (of(one)?, of(other)?);
    Ok((one.length, one.kind, one.bytes) == (other.length, other.kind, other.bytes))
}

/// The number of an open file's object. It is the inode's, but for the root of a snapshot.
pub(crate) fn object_of(opened: BorrowedFd<'_>) -> Result<u64, Errno> {
    let Handle { length, kind, bytes } = of(opened)?;
    if (length, kind) != (LENGTH as u32, KIND) {
        return Err(Errno::NOTSUP);
    }
    let mut number = [0; 8];
    number[..6].copy_from_slice(&bytes[2..8]);
    Ok(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_has_the_bytes_that_zfs_gives_it() {
        let handle = handle_of(FileId { object: 128, generation: 254 });
        let expected = [10, 0, 128, 0, 0, 0, 0, 0, 254, 0, 0, 0];
        assert_eq!((handle.length, handle.kind, &handle.bytes[..LENGTH]), (12, 1, &expected[..]));
        let high = handle_of(FileId { object: 0x0102_0304_0506, generation: 1 << 32 });
        assert_eq!(high.bytes[2..LENGTH], [6, 5, 4, 3, 2, 1, 1, 0, 0, 0]);
    }
}
