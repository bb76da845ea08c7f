//! Name-value lists (libnvpair): owned [`NvList`], borrowed [`NvRef`], decoded [`Value`].

mod value;
mod view;

#[cfg(test)]
mod tests;

use std::ffi::{CString, OsStr};
use std::fmt;
use std::ptr::{self, NonNull};

use super::bindings as c;
use super::c_string;
use super::library::openzfs;
use crate::errno::Errno;

pub(crate) use value::{DataType, NvError, Value};
pub(crate) use view::{Iter, NvRef};

/// How deep lists may be nested: the kernel unpacks 20 levels, and libzfs_core aborts the process
/// over a list that doesn't pack.
const MAX_DEPTH: usize = 16;

/// A list that this side owns; names are unique.
///
/// Not [`Sync`]: even reading moves a cursor inside the C list.
pub(crate) struct NvList {
    raw: NonNull<c::nvlist_t>,
}

// SAFETY: libnvpair keeps no state outside a list, so an owned one may be used and freed on any
// one thread.
unsafe impl Send for NvList {}

impl NvList {
    /// An empty list.
    pub(crate) fn new() -> Result<Self, NvError> {
        let mut raw = ptr::null_mut();
        // SAFETY: nvlist_alloc stores a new list in `raw`, or leaves it and returns an error.
        check("", unsafe { openzfs().nvlist_alloc(&mut raw, c::NV_UNIQUE_NAME, 0) })?;
        Self::from_c(raw)
    }

    /// Takes over a list that a C function allocated and handed out; null means out of memory.
    fn from_c(raw: *mut c::nvlist_t) -> Result<Self, NvError> {
        NonNull::new(raw).map(|raw| Self { raw }).ok_or(NvError::NoMemory)
    }

    /// Takes over a list that a C function handed out, if it handed one out.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a valid list that nothing else frees or uses.
    pub(super) unsafe fn take(raw: *mut c::nvlist_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw })
    }

    /// For C functions that read a list; libnvpair doesn't say `const` in all releases.
    pub(super) fn as_ptr(&self) -> *mut c::nvlist_t {
        self.raw.as_ptr()
    }

    /// The same list, for reading.
    pub(crate) fn view(&self) -> NvRef<'_> {
        NvRef::of(self)
    }

    /// Adds a name without a value.
    pub(crate) fn add_flag(&mut self, name: &str) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_boolean copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_boolean(list, key) }
        })
    }

    /// Adds true or false.
    pub(crate) fn add_bool(&mut self, name: &str, value: bool) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_boolean_value copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_boolean_value(list, key, c_bool(value)) }
        })
    }

    /// Adds a signed 32-bit number.
    pub(crate) fn add_i32(&mut self, name: &str, value: i32) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_int32 copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_int32(list, key, value) }
        })
    }

    /// Adds an unsigned 32-bit number.
    pub(crate) fn add_u32(&mut self, name: &str, value: u32) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_uint32 copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_uint32(list, key, value) }
        })
    }

    /// Adds a signed 64-bit number.
    pub(crate) fn add_i64(&mut self, name: &str, value: i64) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_int64 copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_int64(list, key, value) }
        })
    }

    /// Adds an unsigned 64-bit number.
    pub(crate) fn add_u64(&mut self, name: &str, value: u64) -> Result<(), NvError> {
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_uint64 copies `key`, a C string; `list` is valid.
            unsafe { openzfs().nvlist_add_uint64(list, key, value) }
        })
    }

    /// Adds text, which need not be UTF-8.
    pub(crate) fn add_str(
        &mut self,
        name: &str,
        value: &(impl AsRef<OsStr> + ?Sized),
    ) -> Result<(), NvError> {
        let value = to_c(value)?;
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_string copies `key` and `value`, C strings; `list` is valid.
            unsafe { openzfs().nvlist_add_string(list, key, value.as_ptr()) }
        })
    }

    /// Adds a sequence of texts.
    pub(crate) fn add_str_array(&mut self, name: &str, values: &[&str]) -> Result<(), NvError> {
        let values = values.iter().map(to_c).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<_> = values.iter().map(|value| value.as_ptr()).collect();
        let count = count(name, pointers.len())?;
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_string_array copies `count` C strings, which `values` keeps alive.
            unsafe { openzfs().nvlist_add_string_array(list, key, pointers.as_ptr(), count) }
        })
    }

    /// Adds a sequence of unsigned 64-bit numbers.
    pub(crate) fn add_u64_array(&mut self, name: &str, values: &[u64]) -> Result<(), NvError> {
        let count = count(name, values.len())?;
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_uint64_array copies `count` numbers and writes to none of them.
            unsafe {
                openzfs().nvlist_add_uint64_array(list, key, values.as_ptr().cast_mut(), count)
            }
        })
    }

    /// Adds bytes.
    pub(crate) fn add_bytes(&mut self, name: &str, values: &[u8]) -> Result<(), NvError> {
        let count = count(name, values.len())?;
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_byte_array copies `count` bytes and writes to none of them.
            unsafe { openzfs().nvlist_add_byte_array(list, key, values.as_ptr().cast_mut(), count) }
        })
    }

    /// Adds a copy of another list.
    pub(crate) fn add_nvlist(&mut self, name: &str, value: &NvList) -> Result<(), NvError> {
        if value.view().depth(MAX_DEPTH) >= MAX_DEPTH {
            return Err(NvError::TooDeep { name: name.to_owned() });
        }
        self.add(name, |list, key| {
            // SAFETY: nvlist_add_nvlist copies `value`, a valid list other than `list`.
            unsafe { openzfs().nvlist_add_nvlist(list, key, value.as_ptr()) }
        })
    }

    /// What all the above share: the name must be usable and new, because C would replace silently.
    fn add(
        &mut self,
        name: &str,
        add: impl FnOnce(*mut c::nvlist_t, *const std::ffi::c_char) -> i32,
    ) -> Result<(), NvError> {
        let key = to_c(name)?;
        if self.contains(name) {
            return Err(NvError::Duplicate { name: name.to_owned() });
        }
        check(name, add(self.raw.as_ptr(), key.as_ptr()))
    }

    /// Reads what [`NvRef::pack`] wrote.
    pub(crate) fn unpack(bytes: &[u8]) -> Result<Self, NvError> {
        // The first byte chooses the decoder; only the portable one checks all that it reads.
        if bytes.first().copied().map(u32::from) != Some(c::NV_ENCODE_XDR) {
            return Err(NvError::Damaged { errno: Errno::NOTSUP });
        }
        let mut raw = ptr::null_mut();
        // SAFETY: nvlist_unpack reads at most `len` bytes, writes to none, and hands out a new list.
        let error = unsafe {
            openzfs().nvlist_unpack(bytes.as_ptr().cast_mut().cast(), bytes.len(), &mut raw, 0)
        };
        if error != 0 {
            return Err(NvError::Damaged { errno: Errno::from_raw(error) });
        }
        Self::from_c(raw)
    }
}

/// Reading, as on [`NvRef`].
macro_rules! forward {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl NvList {$(
            $(#[$doc])*
            pub(crate) fn $name(&self $(, $arg: $type)*) -> $out {
                self.view().$name($($arg),*)
            }
        )*}
    };
}

forward! {
    /// See [`NvRef::contains`].
    contains(name: &str) -> bool;
    /// See [`NvRef::get`].
    get(name: &str) -> Result<Value<'_>, NvError>;
    /// See [`NvRef::flag`].
    flag(name: &str) -> Result<bool, NvError>;
    /// See [`NvRef::bool`].
    bool(name: &str) -> Result<bool, NvError>;
    /// See [`NvRef::i32`].
    i32(name: &str) -> Result<i32, NvError>;
    /// See [`NvRef::i64`].
    i64(name: &str) -> Result<i64, NvError>;
    /// See [`NvRef::u64`].
    u64(name: &str) -> Result<u64, NvError>;
    /// See [`NvRef::os_str`].
    os_str(name: &str) -> Result<&OsStr, NvError>;
    /// See [`NvRef::str`].
    str(name: &str) -> Result<&str, NvError>;
    /// See [`NvRef::strs`].
    strs(name: &str) -> Result<Vec<&OsStr>, NvError>;
    /// See [`NvRef::list`].
    list(name: &str) -> Result<NvRef<'_>, NvError>;
    /// See [`NvRef::iter`].
    iter() -> Iter<'_>;
    /// See [`NvRef::is_empty`].
    is_empty() -> bool;
    /// See [`NvRef::len`].
    len() -> usize;
    /// See [`NvRef::pack`].
    pack() -> Result<Vec<u8>, NvError>;
    /// See [`NvRef::try_clone`].
    try_clone() -> Result<NvList, NvError>;
}

impl Drop for NvList {
    fn drop(&mut self) {
        // SAFETY: nvlist_free frees a list and all in it; this one is owned and not used again.
        unsafe { openzfs().nvlist_free(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for NvList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

fn to_c(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<CString, NvError> {
    let text = text.as_ref();
    c_string(text).ok_or_else(|| NvError::Nul { text: text.to_string_lossy().into_owned() })
}

fn c_bool(value: bool) -> c::boolean_t {
    if value { c::boolean_t::B_TRUE } else { c::boolean_t::B_FALSE }
}

fn count(name: &str, len: usize) -> Result<c::uint_t, NvError> {
    let too_big = |_| NvError::Refused { name: name.to_owned(), errno: Errno::TOOBIG };
    c::uint_t::try_from(len).map_err(too_big)
}

fn check(name: &str, error: i32) -> Result<(), NvError> {
    match Errno::from_raw(error) {
        errno if errno.raw() == 0 => Ok(()),
        Errno::NOMEM => Err(NvError::NoMemory),
        errno => Err(NvError::Refused { name: name.to_owned(), errno }),
    }
}
