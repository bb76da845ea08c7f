//! The kernel's page cache of one file.
//!
//! ZFS has a cache of its own and uses the kernel's only for memory mappings; but a read of a file
//! that was ever mapped goes through its cached pages, and a receive into a mounted file system
//! leaves them as they are (`zfs_rezget`, Linux; openzfs#10931).
//!
//! `POSIX_FADV_DONTNEED` drops clean pages that nobody has mapped from OpenZFS 2.3.7 and 2.4.2 on
//! (`zpl_fadvise`). Earlier releases ignore the advice: there the pages are given to reclaim, through a
//! mapping.

use std::ffi::{c_int, c_long, c_uchar, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::fs::{Advice as FileAdvice, fadvise, fdatasync, fstat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::last_errno;

unsafe extern "C" {
    fn mincore(address: *mut c_void, length: usize, resident: *mut c_uchar) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// `cachestat(2)`, which has one number on all architectures.
const CACHESTAT: c_long = 451;

/// How much of a file is mapped in one go, in bytes.
const WINDOW: u64 = 256 << 20;

/// Lets go of all cached pages of a file that is open for reading. Says whether all are gone: those
/// that a process has mapped stay. Dirty ones are written first.
///
/// Costs what the cached pages are. Before Linux 6.5 nobody tells where these are, and the cost grows
/// with the file's length.
///
/// # Errors
/// `EINVAL` on a kernel before Linux 5.14; `ENOMEM`; what writing a page has come to.
pub(crate) fn let_go(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    if !may_be_cached(file, 0, 0)? {
        return Ok(true);
    }
    fadvise(file, 0, None, FileAdvice::DontNeed)?;
    if gone(file)? {
        return Ok(true);
    }
    // A page that is being written, or could not be dropped for being dirty.
    fdatasync(file)?;
    fadvise(file, 0, None, FileAdvice::DontNeed)?;
    if gone(file)? {
        return Ok(true);
    }
    reclaim(file)
}

/// Whether pages of a file are waiting to be written, or are being written; `false` where the kernel can't
/// tell (Linux before 6.5).
pub(crate) fn are_dirty(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(counts(file, 0, 0)?.is_some_and(|[_, dirty, writing, ..]| dirty + writing > 0))
}

/// Whether the kernel can say that no page is left.
fn gone(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(cached(file, 0, 0)? == Some(0))
}

fn may_be_cached(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<bool, Errno> {
    Ok(cached(file, offset, length)? != Some(0))
}

/// How many pages of a range are cached, behind the file's end as well; a length of 0 means the whole
/// rest. `None` where the kernel can't tell (Linux before 6.5).
pub(crate) fn cached(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Option<u64>, Errno> {
    Ok(counts(file, offset, length)?.map(|[cached, ..]| cached))
}

/// Of the pages of a range: cached, dirty, being written, evicted, evicted lately.
fn counts(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Option<[u64; 5]>, Errno> {
    let range = [offset, length];
    let mut counts = [0_u64; 5];
    let descriptor = c_long::from(file.as_raw_fd());
    let flags: c_uint = 0;
    // SAFETY: the arguments are those of cachestat(2): a descriptor, `struct cachestat_range` of two
    // numbers, `struct cachestat` of five, which the kernel writes, and flags.
    match unsafe { syscall(CACHESTAT, descriptor, range.as_ptr(), counts.as_mut_ptr(), flags) } {
        0 => Ok(Some(counts)),
        _ => match last_errno() {
            // What filters system calls often refuses new ones with EPERM.
            Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP => Ok(None),
            errno => Err(errno),
        },
    }
}

/// Gives the pages to reclaim, window by window.
fn reclaim(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let length = fstat(file)?.st_size as u64;
    let page = rustix::param::page_size();
    let mut gone = true;
    let mut offset = 0;
    while offset < length {
        let part = (length - offset).min(WINDOW);
        if may_be_cached(file, offset, part)? {
            gone &= Window::map(file, offset, part as usize)?.let_go(page)?;
        }
        offset += WINDOW;
    }
    // Where the kernel can tell, it also knows of those behind the end.
    Ok(match cached(file, 0, 0)? {
        Some(count) => count == 0,
        None => gone,
    })
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
            _ => Err(last_errno()),
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
