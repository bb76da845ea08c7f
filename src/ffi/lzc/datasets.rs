//! Filesystems and volumes: create, clone, promote, rename, destroy, roll back; and pool sync.

use std::ffi::CStr;
use std::ptr;

use super::super::bindings as c;
use super::super::library::openzfs;
use super::super::nvlist::NvList;
use super::{Lzc, LzcError, c_name, finish};

/// The two kinds of dataset that can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatasetKind {
    /// A filesystem.
    Filesystem,
    /// A volume; `volsize` must be among its properties.
    Volume,
}

impl Lzc {
    /// Creates a dataset with its properties, mounting nothing.
    ///
    /// The kernel takes properties in its own form: text and user properties as strings, all others
    /// (such as `canmount`, 0 off, 1 on, 2 noauto) as `u64`.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT` (no parent), `EINVAL` (a property), [`Errno::ZFS_ERR_WRONG_PARENT`].
    ///
    /// [`Errno::ZFS_ERR_WRONG_PARENT`]: crate::errno::Errno::ZFS_ERR_WRONG_PARENT
    #[doc(alias = "lzc_create")]
    pub(crate) fn create(
        &self,
        name: &str,
        kind: DatasetKind,
        props: &NvList,
    ) -> Result<(), LzcError> {
        const CALL: &str = "lzc_create";
        let c_name = c_name(CALL, name)?;
        let kind = match kind {
            DatasetKind::Filesystem => c::lzc_dataset_type::LZC_DATSET_TYPE_ZFS,
            DatasetKind::Volume => c::lzc_dataset_type::LZC_DATSET_TYPE_ZVOL,
        };
        // SAFETY: lzc_create reads a C string and a list; no key is given, of length 0.
        let error = unsafe {
            openzfs().lzc_create(c_name.as_ptr(), kind, props.as_ptr(), ptr::null_mut(), 0)
        };
        finish(CALL, name, error, None)
    }

    /// Clones a snapshot, mounting nothing. Properties are set after the clone exists, in further
    /// transaction groups; [`create`](Self::create) says in which form.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT` (no parent or no origin), `EXDEV` (another pool).
    #[doc(alias = "lzc_clone")]
    pub(crate) fn clone(&self, name: &str, origin: &str, props: &NvList) -> Result<(), LzcError> {
        const CALL: &str = "lzc_clone";
        let (c_name, c_origin) = (c_name(CALL, name)?, c_name(CALL, origin)?);
        // SAFETY: lzc_clone reads two C strings and a list.
        let error =
            unsafe { openzfs().lzc_clone(c_name.as_ptr(), c_origin.as_ptr(), props.as_ptr()) };
        finish(CALL, name, error, None)
    }

    /// Makes a clone independent of its origin, whose dataset becomes the clone.
    ///
    /// # Errors
    ///
    /// `EINVAL` (not a clone); `EEXIST`, with the conflicting snapshot's name as the detail;
    /// `EBUSY` (a snapshot that would move is in use).
    #[doc(alias = "lzc_promote")]
    pub(crate) fn promote(&self, name: &str) -> Result<(), LzcError> {
        const CALL: &str = "lzc_promote";
        let c_name = c_name(CALL, name)?;
        let mut conflict = [0_u8; 256];
        let room = conflict.len() as i32;
        // SAFETY: lzc_promote reads a C string, and writes one of at most `room` bytes, with its end.
        let error =
            unsafe { openzfs().lzc_promote(c_name.as_ptr(), conflict.as_mut_ptr().cast(), room) };
        finish(CALL, name, error, None).map_err(|error| {
            match CStr::from_bytes_until_nul(&conflict) {
                Ok(snapshot) if !snapshot.is_empty() => {
                    error.with_detail(snapshot.to_string_lossy())
                }
                _ => error,
            }
        })
    }

    /// Renames a dataset with its children, or a snapshot, unmounting no filesystem.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`, `EXDEV` (another pool), `ENAMETOOLONG` (also through a child or snapshot).
    #[doc(alias = "lzc_rename")]
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), LzcError> {
        const CALL: &str = "lzc_rename";
        let (c_from, c_to) = (c_name(CALL, from)?, c_name(CALL, to)?);
        // SAFETY: lzc_rename reads two C strings.
        let error = unsafe { openzfs().lzc_rename(c_from.as_ptr(), c_to.as_ptr()) };
        finish(CALL, from, error, None)
    }

    /// Destroys a filesystem or volume that has neither children nor snapshots.
    ///
    /// # Errors
    ///
    /// `EBUSY` (mounted, open, or has snapshots), `EEXIST` (has children), `ENOENT`.
    #[doc(alias = "lzc_destroy")]
    pub(crate) fn destroy(&self, name: &str) -> Result<(), LzcError> {
        const CALL: &str = "lzc_destroy";
        let c_name = c_name(CALL, name)?;
        // SAFETY: lzc_destroy reads a C string.
        let error = unsafe { openzfs().lzc_destroy(c_name.as_ptr()) };
        finish(CALL, name, error, None)
    }

    /// Sets a dataset back to a snapshot, which must be its newest.
    ///
    /// # Errors
    ///
    /// `EEXIST` (there is a newer snapshot or bookmark), `ESRCH` (no such snapshot here).
    #[doc(alias = "lzc_rollback_to")]
    pub(crate) fn rollback_to(&self, name: &str, snapshot: &str) -> Result<(), LzcError> {
        const CALL: &str = "lzc_rollback_to";
        let (c_name, c_snapshot) = (c_name(CALL, name)?, c_name(CALL, snapshot)?);
        // SAFETY: lzc_rollback_to reads two C strings.
        let error = unsafe { openzfs().lzc_rollback_to(c_name.as_ptr(), c_snapshot.as_ptr()) };
        finish(CALL, name, error, None)
    }

    /// Whether a dataset or snapshot (not a bookmark) can be looked up: whatever keeps the kernel
    /// from answering counts as no.
    ///
    /// # Errors
    ///
    /// Only for a name that can't be asked about.
    #[doc(alias = "lzc_exists")]
    pub(crate) fn exists(&self, name: &str) -> Result<bool, LzcError> {
        let c_name = c_name("lzc_exists", name)?;
        // SAFETY: lzc_exists reads a C string.
        Ok(unsafe { openzfs().lzc_exists(c_name.as_ptr()) } != c::boolean_t::B_FALSE)
    }

    /// Waits until all that is written to a pool is on disk; with `force`, even if nothing is. Takes
    /// up to three transaction groups.
    ///
    /// # Errors
    ///
    /// `ENOENT` (no such pool).
    #[doc(alias = "lzc_sync")]
    pub(crate) fn sync(&self, pool: &str, force: bool) -> Result<(), LzcError> {
        const CALL: &str = "lzc_sync";
        let c_pool = c_name(CALL, pool)?;
        let args = NvList::new()
            .and_then(|mut args| args.add_bool("force", force).map(|()| args))
            .map_err(|e| LzcError::unbuilt(CALL, pool, &e))?;
        // SAFETY: lzc_sync reads a C string and a list, and stores no result.
        let error = unsafe { openzfs().lzc_sync(c_pool.as_ptr(), args.as_ptr(), ptr::null_mut()) };
        finish(CALL, pool, error, None)
    }
}
