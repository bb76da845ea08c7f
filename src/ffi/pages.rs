//! The kernel's page cache of one file.
//!
//! ZFS has a cache of its own and uses the kernel's only for memory mappings; but a read of a file
//! that was ever mapped goes through its cached pages, and a receive into a mounted file system
//! leaves them as they are (`zfs_rezget`, Linux). POSIX_FADV_DONTNEED does nothing on ZFS
//! (`zpl_fadvise`), so the pages are given to reclaim, through a mapping.

use std::ffi::{c_int, c_uchar, c_void};
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

unsafe extern "C" {
    fn mincore(address: *mut c_void, length: usize, resident: *mut c_uchar) -> c_int;
}

/// How much is looked at in one go, in bytes.
const WINDOW: u64 = 256 << 20;

/// Lets go of all cached pages of a file that has `length` bytes and is open for reading. Says
/// whether all are gone: those that a process has mapped, or that are being read, stay.
///
/// # Errors
///
/// `EINVAL` on a kernel before Linux 5.14; `ENOMEM`.
pub(crate) fn let_go(file: BorrowedFd<'_>, length: u64) -> Result<bool, Errno> {
    let page = rustix::param::page_size();
    let mut gone = true;
    let mut offset = 0;
    while offset < length {
        let window = Window::map(file, offset, (length - offset).min(WINDOW) as usize)?;
        gone &= window.let_go(page)?;
        offset += WINDOW;
    }
    Ok(gone)
}

/// A part of a file in memory; nothing reads it through this mapping.
struct Window {
    address: *mut c_void,
    length: usize,
}

impl Window {
    fn map(file: BorrowedFd<'_>, offset: u64, length: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let address = unsafe {
            mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, offset)
        }?;
        Ok(Self { address, length })
    }

    /// For each page whether it is in the cache.
    fn resident(&self, page: usize) -> Result<Vec<c_uchar>, Errno> {
        let mut resident = vec![0; self.length.div_ceil(page)];
        // SAFETY: the range is mapped, and there is one byte for each page of it.
        match unsafe { mincore(self.address, self.length, resident.as_mut_ptr()) } {
            0 => Ok(resident),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    fn let_go(&self, page: usize) -> Result<bool, Errno> {
        let is_in = |flags: &c_uchar| flags & 1 != 0;
        let resident = self.resident(page)?;
        if !resident.iter().any(is_in) {
            return Ok(true);
        }
        // Only pages in a page table are given up, so these are put into this mapping's.
        let first = resident.iter().position(is_in).unwrap_or_default();
        for run in resident[first..].chunk_by(|a, b| is_in(a) == is_in(b)) {
            let start = run.as_ptr().addr() - resident.as_ptr().addr();
            if run.first().is_some_and(is_in) {
                self.advise(start * page, run.len() * page, Advice::LinuxPopulateRead)?;
            }
        }
        self.advise(0, self.length, Advice::LinuxPageOut)?;
        Ok(!self.resident(page)?.iter().any(is_in))
    }

    fn advise(&self, start: usize, length: usize, advice: Advice) -> Result<(), Errno> {
        let length = length.min(self.length - start);
        // SAFETY: the range is within the mapping, which nobody reads, and neither advice changes
        // what it holds.
        unsafe { madvise(self.address.byte_add(start), length, advice) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and is not used again.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
