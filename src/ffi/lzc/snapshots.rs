//! Snapshots, holds and bookmarks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::super::bindings as c;
use super::super::library::openzfs;
use super::super::nvlist::{DataType, NvError, NvList, Value};
use super::super::signals::uninterrupted;
use super::{Lzc, LzcError, c_name, c_names, check_length, finish};
use crate::errno::Errno;

impl Lzc {
    /// Takes snapshots, all or none, in one transaction group. They are in one pool and of different
    /// datasets; `props` are user properties, as strings.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`, `EXDEV` (several of one dataset, or of several pools), with the names.
    #[doc(alias = "lzc_snapshot")]
    pub(crate) fn snapshot(&self, snapshots: &[&str], props: &NvList) -> Result<(), LzcError> {
        const CALL: &str = "lzc_snapshot";
        let list = c_names(CALL, snapshots)?;
        let mut error = 0;
        let result = call_with_errors(CALL, snapshots, |failed| {
            // SAFETY: lzc_snapshot reads two lists, and stores null or a new list in `failed`.
            error = unsafe { openzfs().lzc_snapshot(list.as_ptr(), props.as_ptr(), failed) };
            error
        });
        // A dataset gets one snapshot a txg. The kernel tries again in the next, and leaves the first
        // try's EAGAIN in the list (dsl_dataset_snapshot_check, dsl_sync_task_common).
        if error == 0 { Ok(()) } else { result }
    }

    /// Destroys snapshots of one pool, all or none; missing ones are ignored. With `defer`, those
    /// that are held or cloned go once they no longer are.
    ///
    /// # Errors
    ///
    /// `EBUSY` (held), `EEXIST` (cloned), with the names.
    #[doc(alias = "lzc_destroy_snaps")]
    pub(crate) fn destroy_snaps(&self, snapshots: &[&str], defer: bool) -> Result<(), LzcError> {
        const CALL: &str = "lzc_destroy_snaps";
        let list = c_names(CALL, snapshots)?;
        let defer = if defer { c::boolean_t::B_TRUE } else { c::boolean_t::B_FALSE };
        call_with_errors(CALL, snapshots, |failed| {
            // SAFETY: lzc_destroy_snaps reads a list, and stores null or a new list in `failed`.
            unsafe { openzfs().lzc_destroy_snaps(list.as_ptr(), defer, failed) }
        })
    }

    /// Holds snapshots, `(snapshot, tag)`, each snapshot once; they are in one pool. With `cleanup`,
    /// a file descriptor of /dev/zfs, the holds end when that is closed.
    ///
    /// # Errors
    ///
    /// `EEXIST` (the tag is taken): nothing is held. `ENOENT`: the listed snapshots don't exist, and
    /// **the others are held**.
    #[doc(alias = "lzc_hold")]
    pub(crate) fn hold(
        &self,
        holds: &[(&str, &str)],
        cleanup: Option<BorrowedFd<'_>>,
    ) -> Result<(), LzcError> {
        const CALL: &str = "lzc_hold";
        let names: Vec<_> = holds.iter().map(|(snapshot, _)| *snapshot).collect();
        let mut list = NvList::new().map_err(|e| unbuilt(CALL, &names, &e))?;
        for (snapshot, tag) in holds {
            check_length(CALL, snapshot)?;
            list.add_str(snapshot, tag).map_err(|e| unbuilt(CALL, &names, &e))?;
        }
        let cleanup = cleanup.map_or(-1, |fd| fd.as_raw_fd());
        call_with_errors(CALL, &names, |failed| {
            // SAFETY: lzc_hold reads a list, and stores null or a new list in `failed`; the kernel
            // takes its own reference to the file.
            unsafe { openzfs().lzc_hold(list.as_ptr(), cleanup, failed) }
        })
    }

    /// Ends holds, `(snapshot, tag)`, of one pool.
    ///
    /// # Errors
    ///
    /// `ENOENT`: the listed snapshots, or tags (`snapshot#tag`), don't exist, and **the others are
    /// released**.
    #[doc(alias = "lzc_release")]
    pub(crate) fn release(&self, holds: &[(&str, &str)]) -> Result<(), LzcError> {
        const CALL: &str = "lzc_release";
        let mut tags: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (snapshot, tag) in holds {
            tags.entry(snapshot).or_default().push(tag);
        }
        let names: Vec<_> = tags.keys().copied().collect();
        let mut list = NvList::new().map_err(|e| unbuilt(CALL, &names, &e))?;
        for (snapshot, tags) in &tags {
            check_length(CALL, snapshot)?;
            let mut of_one = NvList::new().map_err(|e| unbuilt(CALL, &names, &e))?;
            for tag in tags {
                of_one.add_flag(tag).map_err(|e| unbuilt(CALL, &names, &e))?;
            }
            list.add_nvlist(snapshot, &of_one).map_err(|e| unbuilt(CALL, &names, &e))?;
        }
        call_with_errors(CALL, &names, |failed| {
            // SAFETY: lzc_release reads a list, and stores null or a new list in `failed`.
            unsafe { openzfs().lzc_release(list.as_ptr(), failed) }
        })
    }

    /// The holds of a snapshot: the tags, and when each was made, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "lzc_get_holds")]
    pub(crate) fn get_holds(&self, snapshot: &str) -> Result<Vec<(OsString, u64)>, LzcError> {
        const CALL: &str = "lzc_get_holds";
        let c_snapshot = c_name(CALL, snapshot)?;
        let holds = call_with_result(CALL, snapshot, |out| {
            // SAFETY: lzc_get_holds reads a C string, and stores null or a new list in `out`.
            unsafe { openzfs().lzc_get_holds(c_snapshot.as_ptr(), out) }
        })?;
        let holds = holds.iter().map(|entry| match entry? {
            (tag, Value::U64(time)) => Ok((tag.to_owned(), time)),
            (tag, other) => Err(other.is_not(&tag.to_string_lossy(), DataType::U64)),
        });
        holds
            .collect::<Result<_, NvError>>()
            .map_err(|e| LzcError::new(CALL, snapshot, Errno::INVAL).with_detail(e.to_string()))
    }

    /// Makes bookmarks, `(new bookmark, source)`, of one pool, all or none. A source is a snapshot or
    /// bookmark of the bookmark's own dataset or of what that was cloned from.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`, [`Errno::ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR`], with the names.
    #[doc(alias = "lzc_bookmark")]
    pub(crate) fn bookmark(&self, bookmarks: &[(&str, &str)]) -> Result<(), LzcError> {
        const CALL: &str = "lzc_bookmark";
        let names: Vec<_> = bookmarks.iter().map(|(bookmark, _)| *bookmark).collect();
        let mut list = NvList::new().map_err(|e| unbuilt(CALL, &names, &e))?;
        for (bookmark, source) in bookmarks {
            check_length(CALL, bookmark)?;
            check_length(CALL, source)?;
            list.add_str(bookmark, source).map_err(|e| unbuilt(CALL, &names, &e))?;
        }
        call_with_errors(CALL, &names, |failed| {
            // SAFETY: lzc_bookmark reads a list, and stores null or a new list in `failed`.
            unsafe { openzfs().lzc_bookmark(list.as_ptr(), failed) }
        })
    }

    /// The bookmarks of a dataset: short names, each with a list of the wanted properties (`guid`,
    /// `createtxg`, `creation`, …), each of which is a list with the key `value`.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "lzc_get_bookmarks")]
    pub(crate) fn get_bookmarks(&self, name: &str, props: &[&str]) -> Result<NvList, LzcError> {
        const CALL: &str = "lzc_get_bookmarks";
        let c_dataset = c_name(CALL, name)?;
        let props = c_names(CALL, props)?;
        call_with_result(CALL, name, |out| {
            // SAFETY: lzc_get_bookmarks reads a C string and a list, and stores null or a new list.
            unsafe { openzfs().lzc_get_bookmarks(c_dataset.as_ptr(), props.as_ptr(), out) }
        })
    }

    /// Destroys bookmarks of one pool, all or none; missing ones are ignored.
    ///
    /// # Errors
    ///
    /// With the names.
    #[doc(alias = "lzc_destroy_bookmarks")]
    pub(crate) fn destroy_bookmarks(&self, bookmarks: &[&str]) -> Result<(), LzcError> {
        const CALL: &str = "lzc_destroy_bookmarks";
        let list = c_names(CALL, bookmarks)?;
        call_with_errors(CALL, bookmarks, |failed| {
            // SAFETY: lzc_destroy_bookmarks reads a list, and stores null or a new list in `failed`.
            unsafe { openzfs().lzc_destroy_bookmarks(list.as_ptr(), failed) }
        })
    }
}

/// Makes a call that hands out a list of what failed.
fn call_with_errors(
    call: &'static str,
    names: &[&str],
    run: impl FnOnce(*mut *mut c::nvlist_t) -> i32,
) -> Result<(), LzcError> {
    let mut failed = ptr::null_mut();
    let error = uninterrupted(|| run(&mut failed));
    // SAFETY: the call stored null or a list that is the caller's to free.
    let failed = unsafe { NvList::take(failed) };
    finish(call, names.first().copied().unwrap_or_default(), error, failed)
}

/// Makes a call that hands out a list as its result; none stands for an empty one.
fn call_with_result(
    call: &'static str,
    subject: &str,
    run: impl FnOnce(*mut *mut c::nvlist_t) -> i32,
) -> Result<NvList, LzcError> {
    let mut out = ptr::null_mut();
    let error = run(&mut out);
    // SAFETY: the call stored null or a list that is the caller's to free.
    let out = unsafe { NvList::take(out) };
    finish(call, subject, error, None)?;
    match out {
        Some(list) => Ok(list),
        None => NvList::new().map_err(|e| LzcError::unbuilt(call, subject, &e)),
    }
}

fn unbuilt(call: &'static str, names: &[&str], error: &NvError) -> LzcError {
    LzcError::unbuilt(call, names.first().copied().unwrap_or_default(), error)
}
