//! libzfs_core, one safe method for each call.
//!
//! Every call is atomic and takes effect in one transaction group unless its method says more. The
//! functions return their error instead of setting `errno`, and allocate what they use for each
//! call, so threads may call at the same time.

mod datasets;
mod program;
mod snapshots;
mod streams;

#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fmt;

use once_cell::sync::OnceCell;

use super::c_string;
use super::library::openzfs;
use super::nvlist::{NvError, NvList, Value};
use crate::errno::Errno;

pub(crate) use datasets::DatasetKind;
pub(crate) use program::{ProgramLimits, ProgramMode};
pub(crate) use streams::SendFlags;

/// The longest name of a dataset, snapshot or bookmark, in bytes. libzfs_core cuts longer ones off
/// in places and would then speak of another dataset.
const MAX_NAME: usize = 255;

/// Proof that libzfs_core is initialized: calling it before would abort the process.
#[derive(Clone, Copy)]
pub(crate) struct Lzc(());

// libzfs_core's only state is a file descriptor of /dev/zfs and its count of users, behind a lock.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Lzc>();
};

impl Lzc {
    /// Opens /dev/zfs, once for the process; it stays open.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENXIO`: the kernel module isn't loaded. `EACCES`: /dev/zfs isn't ours to open.
    #[doc(alias = "libzfs_core_init")]
    pub(crate) fn open() -> Result<Self, LzcError> {
        static OPENED: OnceCell<()> = OnceCell::new();
        OPENED.get_or_try_init(|| {
            // SAFETY: libzfs_core_init has no preconditions.
            let error = unsafe { openzfs().libzfs_core_init() };
            finish("libzfs_core_init", "/dev/zfs", error, None)
        })?;
        Ok(Self(()))
    }
}

impl fmt::Debug for Lzc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lzc")
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct LzcError {
    /// The C function.
    pub(crate) call: &'static str,
    /// The dataset, snapshot, bookmark or pool that the call was about; the first of several.
    pub(crate) subject: String,
    /// What the call returned.
    pub(crate) errno: Errno,
    /// Of a call about several names: which of them failed, and why.
    pub(crate) per_name: Vec<(String, Errno)>,
    /// What else is known: a channel program's message, a conflicting snapshot's name.
    pub(crate) detail: Option<String>,
}

impl LzcError {
    fn new(call: &'static str, subject: &str, errno: Errno) -> Self {
        Self { call, subject: subject.to_owned(), errno, per_name: Vec::new(), detail: None }
    }

    fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// An argument list that can't be built; the kernel never saw the call.
    fn unbuilt(call: &'static str, subject: &str, error: &NvError) -> Self {
        let errno = match error {
            NvError::NoMemory => Errno::NOMEM,
            NvError::Refused { errno, .. } => *errno,
            _ => Errno::INVAL,
        };
        Self::new(call, subject, errno).with_detail(error.to_string())
    }
}

impl fmt::Display for LzcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}` failed: {}", self.call, self.subject, self.errno)?;
        let mut separator = " (";
        for (name, errno) in &self.per_name {
            write!(f, "{separator}`{name}`: {errno}")?;
            separator = ", ";
        }
        if let Some(detail) = &self.detail {
            write!(f, "{separator}{detail}")?;
            separator = ", ";
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}

/// A name for C, which must be neither shortened nor cut off.
fn c_name(call: &'static str, name: &str) -> Result<CString, LzcError> {
    if name.len() > MAX_NAME {
        return Err(LzcError::new(call, name, Errno::NAMETOOLONG));
    }
    c_text(call, name, name)
}

/// Text for C, which must not be shortened.
fn c_text(call: &'static str, subject: &str, text: &str) -> Result<CString, LzcError> {
    c_string(text).ok_or_else(|| {
        LzcError::new(call, subject, Errno::INVAL).with_detail("the argument contains a NUL byte")
    })
}

/// A list with the names as its keys.
fn c_names(call: &'static str, names: &[&str]) -> Result<NvList, LzcError> {
    let subject = names.first().copied().unwrap_or_default();
    let mut list = NvList::new().map_err(|e| LzcError::unbuilt(call, subject, &e))?;
    for name in names {
        check_length(call, name)?;
        list.add_flag(name).map_err(|e| LzcError::unbuilt(call, name, &e))?;
    }
    Ok(list)
}

fn check_length(call: &'static str, name: &str) -> Result<(), LzcError> {
    if name.len() > MAX_NAME {
        return Err(LzcError::new(call, name, Errno::NAMETOOLONG));
    }
    Ok(())
}

/// Turns what a call returned into a result; a call that lists failed names has failed.
fn finish(
    call: &'static str,
    subject: &str,
    error: i32,
    failed: Option<NvList>,
) -> Result<(), LzcError> {
    let mut result = LzcError::new(call, subject, Errno::from_raw(error));
    for (name, value) in failed.iter().flat_map(NvList::iter).flatten() {
        match value {
            // The kernel's own way to say that its buffer was too small for them all.
            Value::I32(more) if name == "N_MORE_ERRORS" => {
                result.detail = Some(format!("and {more} more names"));
            }
            Value::I32(errno) => {
                result.per_name.push((name.to_string_lossy().into_owned(), Errno::from_raw(errno)));
            }
            _ => {}
        }
    }
    if error != 0 {
        return Err(result);
    }
    // Holds of missing snapshots are listed although the call as a whole returns no error.
    match result.per_name.first() {
        Some((_, errno)) => Err(LzcError { errno: *errno, ..result }),
        None => Ok(()),
    }
}
