//! Lists and numbers that libzfs_core has no call for, and user properties: what channel programs know
//! by themselves.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;

use super::super::bindings as c;
use super::super::nvlist::{NvList, NvRef, Value};
use super::super::signals::Blocked;
use super::{ANY, HEAD, Handle, LibZfs, LibZfsError, error_of, failed, unbuilt};
use crate::errno::Errno;
use crate::ffi::{c_string, last_errno};

/// A dataset directly below another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// Its full name.
    pub(crate) name: String,
    /// Whether it is a filesystem or a volume. libzfs opens no other, and to be asked to may end the process
    /// (`make_dataset_handle_common`): a receive takes any type.
    pub(crate) opens: bool,
}

impl LibZfs {
    /// The datasets directly below a dataset. What of a name is not UTF-8 is replaced: nothing is found by such a
    /// name.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "zfs_iter_filesystems_v2")]
    pub(crate) fn children(&self, name: &str) -> Result<Vec<Child>, LibZfsError> {
        let opens = |kind| u64::from(HEAD) & kind != 0;
        let children = self.list("zfs_iter_filesystems_v2", name, 0)?;
        Ok(children.into_iter().map(|(name, kind)| Child { name, opens: opens(kind) }).collect())
    }

    /// The full names of a dataset's snapshots, in no order; as for [`children`](Self::children).
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "zfs_iter_snapshots")]
    pub(crate) fn snapshots(&self, name: &str) -> Result<Vec<String>, LibZfsError> {
        let snapshots = self.list("zfs_iter_snapshots", name, 1)?;
        Ok(snapshots.into_iter().map(|(name, _)| name).collect())
    }

    fn list(
        &self,
        call: &'static str,
        name: &str,
        snapshots: i32,
    ) -> Result<Vec<(String, u64)>, LibZfsError> {
        let unbuilt = |error| unbuilt(call, name, &error);
        let list = NvList::new().map_err(unbuilt)?;
        let dataset = self.dataset(name, HEAD)?;
        // SAFETY: takes an open dataset and a list, to which it adds; the handles that it opens for
        // that belong to the same library, and are closed when it returns.
        let error = unsafe { c::zfs_txn_list(dataset.raw.as_ptr(), snapshots, list.as_ptr()) };
        match error {
            0 => {}
            1.. => return Err(failed(call, name, Errno::from_raw(error))),
            _ => return Err(dataset.error(call)),
        }
        let mut found = Vec::new();
        for pair in list.iter() {
            if let (name, Value::U64(kind)) = pair.map_err(unbuilt)? {
                found.push((name.to_string_lossy().into_owned(), kind));
            }
        }
        Ok(found)
    }

    /// How many bytes were written to a filesystem or volume since a snapshot, given by its full name:
    /// one of its own, or of what it is a clone of. Exact only where it is 0.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EINVAL` (not an earlier state of it).
    #[doc(alias = "zfs_prop_get_written_int")]
    pub(crate) fn written(&self, name: &str, since: &str) -> Result<u64, LibZfsError> {
        const CALL: &str = "zfs_prop_get_written_int";
        let fail = |errno| failed(CALL, name, errno);
        let property = c_string(&format!("written@{since}")).ok_or_else(|| fail(Errno::INVAL))?;
        let dataset = self.dataset(name, HEAD)?;
        let mut bytes = 0;
        // SAFETY: takes an open dataset and a C string, and stores a number.
        let error = unsafe {
            c::zfs_prop_get_written_int(dataset.raw.as_ptr(), property.as_ptr(), &mut bytes)
        };
        // The library's own number stays as it was.
        if error == 0 { Ok(bytes) } else { Err(fail(last_errno().into())) }
    }

    /// Whether a feature of a pool is enabled, by its guid (zpool-features(7)). None is in a pool of before
    /// features.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EAGAIN` (the pool is suspended).
    #[doc(alias = "zpool_get_features")]
    pub(crate) fn has_feature(&self, pool: &str, guid: &str) -> Result<bool, LibZfsError> {
        const CALL: &str = "zpool_open";
        let c_pool = c_string(pool).ok_or_else(|| failed(CALL, pool, Errno::INVAL))?;
        let _signals = Blocked::new();
        let library = Handle::take()?;
        // SAFETY: takes a handle that nobody else has, and a C string.
        let raw = unsafe { c::zpool_open(library.0.as_ptr(), c_pool.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| error_of(&library, CALL, pool))?;
        // SAFETY: gives null, or the list inside the pool's handle, which is open until below.
        let features = unsafe { NvRef::from_raw(c::zpool_get_features(raw.as_ptr())) };
        let found = features.map(|features| features.contains(guid));
        // SAFETY: frees an open pool's handle; neither it nor the list is used again.
        unsafe { c::zpool_close(raw.as_ptr()) };
        found.ok_or_else(|| failed("zpool_get_features", pool, Errno::NOENT))
    }

    /// The mount point that applies to a filesystem, with the pool's alternate root: a path, `none` or
    /// `legacy`.
    ///
    /// # Errors
    ///
    /// `ENOENT`; `EINVAL` for a volume.
    #[doc(alias = "zfs_prop_get")]
    pub(crate) fn mountpoint(&self, name: &str) -> Result<PathBuf, LibZfsError> {
        let dataset = self.dataset(name, c::zfs_type_t::ZFS_TYPE_FILESYSTEM.0)?;
        // As long as a property can be.
        let mut path: Vec<c_char> = vec![0; 8192];
        // SAFETY: takes an open dataset, and writes a C string of at most this length.
        let error =
            unsafe { c::zfs_txn_mountpoint(dataset.raw.as_ptr(), path.as_mut_ptr(), path.len()) };
        if error != 0 {
            return Err(dataset.error("zfs_prop_get"));
        }
        // SAFETY: the call wrote a C string, into what was zeros before.
        let path = unsafe { CStr::from_ptr(path.as_ptr()) };
        Ok(OsStr::from_bytes(path.to_bytes()).into())
    }

    /// Clears a property of the dataset's or snapshot's own. Not `mountpoint`: libzfs would unmount.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EPERM`, `EINVAL` (the property can't be inherited).
    #[doc(alias = "zfs_prop_inherit")]
    pub(crate) fn inherit(&self, name: &str, property: &str) -> Result<(), LibZfsError> {
        const CALL: &str = "zfs_prop_inherit";
        let fail = || LibZfsError {
            call: CALL,
            dataset: name.to_owned(),
            errno: Errno::INVAL,
            description: format!("`{property}` can't be cleared by libzfs"),
        };
        let c_property =
            c_string(property).filter(|_| property != "mountpoint").ok_or_else(fail)?;
        let dataset = self.dataset(name, ANY)?;
        let received = c::boolean_t::B_FALSE;
        // SAFETY: takes an open dataset and a C string.
        let error =
            unsafe { c::zfs_prop_inherit(dataset.raw.as_ptr(), c_property.as_ptr(), received) };
        if error == 0 { Ok(()) } else { Err(dataset.error(CALL)) }
    }
}
