//! Lists and numbers that libzfs_core has no call for, and user properties: what channel programs know
//! by themselves.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};

use super::super::bindings as c;
use super::super::library::openzfs;
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

/// What is listed.
#[derive(Clone, Copy)]
enum Below {
    Datasets,
    Snapshots,
}

/// Adds a dataset's full name with its type to a list, and closes the dataset. The type of what is neither a
/// filesystem nor a volume is a snapshot's (`make_dataset_simple_handle_zc`).
///
/// # Safety
///
/// `dataset` is open and the callee's to close, and `list` is a valid list that nobody else uses.
unsafe extern "C" fn add_name(dataset: *mut c::zfs_handle_t, list: *mut c_void) -> c_int {
    // SAFETY: both are what the caller says; the name is a C string inside the handle, which is open until the
    // last of these calls and not used after that.
    unsafe {
        let name = openzfs().zfs_get_name(dataset);
        let kind = openzfs().zfs_get_type(dataset);
        let error = openzfs().nvlist_add_uint64(list.cast(), name, u64::from(kind.0));
        openzfs().zfs_close(dataset);
        error
    }
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
        let children = self.list("zfs_iter_filesystems_v2", name, Below::Datasets)?;
        Ok(children.into_iter().map(|(name, kind)| Child { name, opens: opens(kind) }).collect())
    }

    /// The full names of a dataset's snapshots, in no order; as for [`children`](Self::children).
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "zfs_iter_snapshots")]
    pub(crate) fn snapshots(&self, name: &str) -> Result<Vec<String>, LibZfsError> {
        let snapshots = self.list("zfs_iter_snapshots", name, Below::Snapshots)?;
        Ok(snapshots.into_iter().map(|(name, _)| name).collect())
    }

    fn list(
        &self,
        call: &'static str,
        name: &str,
        of: Below,
    ) -> Result<Vec<(String, u64)>, LibZfsError> {
        let unbuilt = |error| unbuilt(call, name, &error);
        let list = NvList::new().map_err(unbuilt)?;
        let dataset = self.dataset(name, HEAD)?;
        let (from, to) = (dataset.raw.as_ptr(), list.as_ptr().cast());
        let error = match of {
            // SAFETY: takes an open dataset, and a function with its argument, a list to which the function adds.
            // The handles that are opened for that belong to the same library, and the function closes them. No
            // property and no range of txgs is asked for.
            Below::Snapshots => unsafe {
                openzfs().zfs_iter_snapshots(from, c::boolean_t::B_TRUE, Some(add_name), to, 0, 0)
            },
            // SAFETY: as above.
            Below::Datasets => unsafe {
                let simple = c::ZFS_ITER_SIMPLE as i32;
                openzfs().zfs_iter_filesystems_v2(from, simple, Some(add_name), to)
            },
        };
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
            openzfs().zfs_prop_get_written_int(dataset.raw.as_ptr(), property.as_ptr(), &mut bytes)
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
        let raw = unsafe { openzfs().zpool_open(library.0.as_ptr(), c_pool.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| error_of(&library, CALL, pool))?;
        // SAFETY: gives null, or the list inside the pool's handle, which is open until below.
        let features = unsafe { NvRef::from_raw(openzfs().zpool_get_features(raw.as_ptr())) };
        let found = features.map(|features| features.contains(guid));
        // SAFETY: frees an open pool's handle; neither it nor the list is used again.
        unsafe { openzfs().zpool_close(raw.as_ptr()) };
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
        // SAFETY: reads a C string.
        let property = unsafe { openzfs().zfs_name_to_prop(c"mountpoint".as_ptr()) };
        // SAFETY: takes an open dataset, and writes a C string of at most this length. Where the value comes from
        // isn't asked for: null, and no room.
        let error = unsafe {
            openzfs().zfs_prop_get(
                dataset.raw.as_ptr(),
                property,
                path.as_mut_ptr(),
                path.len(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
                c::boolean_t::B_FALSE,
            )
        };
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
        let error = unsafe {
            openzfs().zfs_prop_inherit(dataset.raw.as_ptr(), c_property.as_ptr(), received)
        };
        if error == 0 { Ok(()) } else { Err(dataset.error(CALL)) }
    }
}
