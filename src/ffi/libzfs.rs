//! The little that only libzfs can do: native properties and delegated permissions.
//!
//! None of the methods starts a process or unmounts anything. libzfs can do both, but not on these
//! ways through it: it runs modprobe only where /dev/zfs is missing, exportfs and Samba's `net` only
//! when it shares, and mount helpers only when it mounts and `ZFS_MOUNT_HELPER` is set.

use std::env;
use std::ffi::{CStr, CString, OsStr};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use super::bindings as c;
use super::library::openzfs;
use super::lzc::Lzc;
use super::nvlist::{NvError, NvList, NvRef};
use super::signals::Blocked;
use super::{c_string, last_errno};
use crate::errno::Errno;

/// libzfs, opened.
///
/// A handle must not be used by two at the same time, and a call may wait for a txg, which a suspended pool
/// doesn't have. So each call has a handle of its own, and no lock is held as long as it takes.
#[derive(Clone, Copy)]
pub(crate) struct LibZfs(());

/// A handle for one call.
struct Handle(NonNull<c::libzfs_handle_t>);

/// A handle that nobody uses at the moment.
struct Idle(NonNull<c::libzfs_handle_t>);

// SAFETY: a libzfs handle isn't bound to the thread that made it; it must only not be used by two at the
// same time, and an idle one is used by none.
unsafe impl Send for Idle {}

static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

/// How many idle handles are kept: each is a descriptor. Where more threads call at once, the others are made
/// anew.
const KEPT: usize = 8;

impl Handle {
    /// An idle one, or a new one.
    fn take() -> Result<Self, LibZfsError> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(Self::make, |Idle(raw)| Ok(Self(raw)))
    }

    fn make() -> Result<Self, LibZfsError> {
        static MAKING: Mutex<()> = Mutex::new(());
        let fail = |errno| failed("libzfs_init", "/dev/zfs", errno);
        let would_load = !Path::new("/dev/zfs").exists()
            || (cfg!(target_os = "linux")
                && env::var_os("ZFS_MODULE_LOADING").is_some()
                && !Path::new("/sys/module/zfs").exists());
        if would_load {
            return Err(fail(Errno::NXIO));
        }
        // libzfs_init asks nothing about pools, so it waits for none.
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: libzfs_init gives a new handle, or null and errno. It writes tables that all handles share
        // (zfs_prop_init, zpool_feature_init): one call at a time, and the first before any other call
        // (`LibZfs::open`). Later ones write what is there already.
        let raw = unsafe { openzfs().libzfs_init() };
        let raw = NonNull::new(raw).ok_or_else(|| fail(last_errno().into()))?;
        // SAFETY: the handle is valid; errors are to be returned, not printed.
        unsafe { openzfs().libzfs_print_on_error(raw.as_ptr(), c::boolean_t::B_FALSE) };
        Ok(Self(raw))
    }

    /// Whether a call has failed: the library keeps the error, and a later call that fails without a word would
    /// seem to have failed with it.
    fn has_failed(&self) -> bool {
        // SAFETY: the handle is valid, and this thread's.
        unsafe { openzfs().libzfs_errno(self.0.as_ptr()) != 0 }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && !self.has_failed() {
            return idle.push(Idle(self.0));
        }
        drop(idle);
        // SAFETY: frees a handle that isn't used again, with its descriptor. That of libzfs_core stays open,
        // as `Lzc` is one more user of it.
        unsafe { openzfs().libzfs_fini(self.0.as_ptr()) }
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} of `{dataset}` failed: {description}")]
pub(crate) struct LibZfsError {
    /// The C function.
    pub(crate) call: &'static str,
    /// The dataset that the call was about.
    pub(crate) dataset: String,
    /// The nearest error of the operating system: libzfs has its own numbers.
    pub(crate) errno: Errno,
    /// libzfs's words.
    pub(crate) description: String,
}

impl LibZfs {
    /// Opens libzfs, if it isn't open yet.
    ///
    /// That [`Lzc`] is open shows that the kernel module is loaded, so libzfs has no need to load it.
    ///
    /// # Errors
    ///
    /// `ENXIO` where libzfs would nevertheless try to load the module: /dev/zfs has gone since, or
    /// /sys isn't mounted and `ZFS_MODULE_LOADING` asks 2.1's libzfs to run modprobe. A later call has the
    /// same error, and `EMFILE`, if it needs a handle more than there are.
    #[doc(alias = "libzfs_init")]
    pub(crate) fn open(_loaded: Lzc) -> Result<Self, LibZfsError> {
        Handle::take().map(|_| Self(()))
    }

    /// The properties of a filesystem, volume or snapshot: each name with a list of `value`, a `u64`
    /// or a string, and for one that can be set also `source`, the dataset that it comes from.
    /// Properties at their default are absent.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "zfs_get_all_props")]
    pub(crate) fn props(&self, name: &str) -> Result<NvList, LibZfsError> {
        const CALL: &str = "zfs_get_all_props";
        let dataset = self.dataset(name, ANY)?;
        // SAFETY: gives the list inside the dataset's handle, which is open until the function ends.
        let props = unsafe { NvRef::from_raw(openzfs().zfs_get_all_props(dataset.raw.as_ptr())) };
        match props {
            Some(props) => props.try_clone(),
            None => NvList::new(),
        }
        .map_err(|e| unbuilt(CALL, name, &e))
    }

    /// Sets a property of a filesystem, volume or snapshot and leaves its mounts where they are, so that
    /// a new mountpoint counts from the next mount on. The value is text, as for `zfs set`.
    ///
    /// Of a mounted filesystem, libzfs applies `atime`, `devices`, `exec`, `readonly`, `relatime`,
    /// `setuid` and `xattr` to the mount as well, by mount_setattr(2) or by a remount.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EPERM`, `EINVAL` (the property or its value).
    #[doc(alias = "zfs_prop_set_list_flags")]
    pub(crate) fn set_without_mounting(
        &self,
        name: &str,
        property: &str,
        value: &(impl AsRef<OsStr> + ?Sized),
    ) -> Result<(), LibZfsError> {
        const CALL: &str = "zfs_prop_set_list_flags";
        let props = NvList::new()
            .and_then(|mut props| props.add_str(property, value).map(|()| props))
            .map_err(|e| unbuilt(CALL, name, &e))?;
        let dataset = self.dataset(name, ANY)?;
        let flags = c::ZFS_SET_NOMOUNT as i32;
        // SAFETY: takes an open dataset and a list, which it reads.
        let error = unsafe {
            openzfs().zfs_prop_set_list_flags(dataset.raw.as_ptr(), props.as_ptr(), flags)
        };
        if error == 0 { Ok(()) } else { Err(dataset.error(CALL)) }
    }

    /// The delegated permissions that hold for a filesystem or volume: for itself and each dataset
    /// above that has some, a list of whom (`ul$1000`, …) with a list of what.
    ///
    /// # Errors
    ///
    /// `ENOENT`.
    #[doc(alias = "zfs_get_fsacl")]
    pub(crate) fn permissions(&self, name: &str) -> Result<NvList, LibZfsError> {
        const CALL: &str = "zfs_get_fsacl";
        let dataset = self.dataset(name, HEAD)?;
        let mut out = ptr::null_mut();
        // SAFETY: takes an open dataset, and stores a new list in `out`, or fails.
        let error = unsafe { openzfs().zfs_get_fsacl(dataset.raw.as_ptr(), &mut out) };
        if error != 0 {
            return Err(dataset.error(CALL));
        }
        // SAFETY: the call stored null or a list that is the caller's to free.
        match unsafe { NvList::take(out) } {
            Some(list) => Ok(list),
            None => NvList::new().map_err(|e| unbuilt(CALL, name, &e)),
        }
    }

    /// Adds delegated permissions to a filesystem or volume: whom with a list of what, the inner
    /// lists of [`permissions`](Self::permissions). Those that it has already stay.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EPERM`.
    #[doc(alias = "zfs_set_fsacl")]
    pub(crate) fn set_permissions(
        &self,
        name: &str,
        permissions: &NvList,
    ) -> Result<(), LibZfsError> {
        let dataset = self.dataset(name, HEAD)?;
        let add = c::boolean_t::B_FALSE;
        // SAFETY: takes an open dataset and a list, which it reads.
        let error =
            unsafe { openzfs().zfs_set_fsacl(dataset.raw.as_ptr(), add, permissions.as_ptr()) };
        if error != 0 { Err(dataset.error("zfs_set_fsacl")) } else { Ok(()) }
    }

    /// Opens a dataset, with a handle of its own until it is closed.
    fn dataset(&self, name: &str, types: u32) -> Result<Dataset, LibZfsError> {
        const CALL: &str = "zfs_open";
        let c_name: CString = c_string(name).ok_or_else(|| LibZfsError {
            call: CALL,
            dataset: name.to_owned(),
            errno: Errno::INVAL,
            description: "the name contains a NUL byte".to_owned(),
        })?;
        let signals = Blocked::new();
        let library = Handle::take()?;
        // SAFETY: takes a handle that nobody else has, and a C string.
        let raw = unsafe { openzfs().zfs_open(library.0.as_ptr(), c_name.as_ptr(), types as i32) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Dataset { raw, library, _signals: signals, name: name.to_owned() }),
            None => Err(error_of(&library, CALL, name)),
        }
    }
}

const HEAD: u32 = c::zfs_type_t::ZFS_TYPE_FILESYSTEM.0 | c::zfs_type_t::ZFS_TYPE_VOLUME.0;
const ANY: u32 = HEAD | c::zfs_type_t::ZFS_TYPE_SNAPSHOT.0;

/// An open dataset, and the handle that it belongs to.
struct Dataset {
    raw: NonNull<c::zfs_handle_t>,
    library: Handle,
    _signals: Blocked,
    name: String,
}

impl Dataset {
    fn error(&self, call: &'static str) -> LibZfsError {
        error_of(&self.library, call, &self.name)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // SAFETY: zfs_close frees an open dataset's handle; this one isn't used again.
        unsafe { openzfs().zfs_close(self.raw.as_ptr()) }
    }
}

/// The library's latest error.
fn error_of(library: &Handle, call: &'static str, dataset: &str) -> LibZfsError {
    let handle = library.0.as_ptr();
    // SAFETY: the handle is valid, and this thread's.
    let code = unsafe { openzfs().libzfs_errno(handle) };
    // SAFETY: gives a C string that lives until the library's next error.
    let description = unsafe { CStr::from_ptr(openzfs().libzfs_error_description(handle)) };
    LibZfsError {
        call,
        dataset: dataset.to_owned(),
        errno: nearest_errno(c::zfs_error(code as _)),
        description: description.to_string_lossy().into_owned(),
    }
}

/// libzfs's own numbers say more than this crate distinguishes, and change between releases.
fn nearest_errno(code: c::zfs_error) -> Errno {
    use c::zfs_error as e;
    match code {
        e::EZFS_NOENT => Errno::NOENT,
        e::EZFS_EXISTS => Errno::EXIST,
        e::EZFS_BUSY => Errno::BUSY,
        e::EZFS_PERM | e::EZFS_NODELEGATION => Errno::PERM,
        e::EZFS_NOSPC | e::EZFS_PROPSPACE => Errno::NOSPC,
        e::EZFS_NOMEM => Errno::NOMEM,
        e::EZFS_NAMETOOLONG => Errno::NAMETOOLONG,
        e::EZFS_DSREADONLY | e::EZFS_POOLREADONLY => Errno::ROFS,
        e::EZFS_CROSSTARGET => Errno::XDEV,
        e::EZFS_INTR => Errno::INTR,
        e::EZFS_POOLUNAVAIL => Errno::AGAIN,
        e::EZFS_NOTSUP | e::EZFS_BADVERSION | e::EZFS_IOC_NOTSUPPORTED => Errno::NOTSUP,
        e::EZFS_WRONG_PARENT => Errno::ZFS_ERR_WRONG_PARENT,
        e::EZFS_IO => Errno::IO,
        // `EZFS_UNKNOWN` comes last, and moves with each that is added before it: 2098 in OpenZFS 2.2.0, 2100
        // from 2.2.4 on.
        other if other.0 >= e::EZFS_RAIDZ_EXPAND_IN_PROGRESS.0 => Errno::IO,
        _ => Errno::INVAL,
    }
}

/// A failure that the system's number says all of.
fn failed(call: &'static str, dataset: &str, errno: Errno) -> LibZfsError {
    let description = errno.to_string();
    LibZfsError { call, dataset: dataset.to_owned(), errno, description }
}

fn unbuilt(call: &'static str, dataset: &str, error: &NvError) -> LibZfsError {
    LibZfsError {
        call,
        dataset: dataset.to_owned(),
        errno: if *error == NvError::NoMemory { Errno::NOMEM } else { Errno::INVAL },
        description: error.to_string(),
    }
}

mod questions;
pub(crate) use questions::Child;
#[cfg(test)]
mod tests;
