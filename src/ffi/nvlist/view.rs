//! Reading a list: by name, and from end to end.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use super::super::bindings as c;
use super::super::library::openzfs;
use super::value::{self, DataType, NvError, Value};
use super::{NvList, check};

/// A list that something else owns: an [`NvList`], the list that it is nested in, or C.
#[derive(Clone, Copy)]
pub(crate) struct NvRef<'a> {
    raw: NonNull<c::nvlist_t>,
    owner: PhantomData<&'a NvList>,
}

impl<'a> NvRef<'a> {
    /// Borrows an owned list.
    pub(super) fn of(list: &'a NvList) -> Self {
        Self { raw: list.raw, owner: PhantomData }
    }

    /// Borrows a list that C owns.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a valid list that is neither freed nor changed during `'a`, nor used by
    /// another thread.
    pub(in crate::ffi) unsafe fn from_raw(raw: *mut c::nvlist_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, owner: PhantomData })
    }

    /// Whether the name is in the list, whatever its value.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The value of a name.
    pub(crate) fn get(&self, name: &str) -> Result<Value<'a>, NvError> {
        let pair = self.find(name).ok_or_else(|| NvError::Missing { name: name.to_owned() })?;
        // SAFETY: `pair` is in this list, which lives unchanged for 'a.
        unsafe { Value::of(name, pair) }
    }

    /// Whether a name without a value is in the list; with a value, it is an error.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, NvError> {
        match self.get(name) {
            Ok(Value::Flag) => Ok(true),
            Ok(other) => Err(other.is_not(name, DataType::FLAG)),
            Err(NvError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True or false.
    pub(crate) fn bool(&self, name: &str) -> Result<bool, NvError> {
        match self.get(name)? {
            Value::Bool(value) => Ok(value),
            other => Err(other.is_not(name, DataType::BOOL)),
        }
    }

    /// A signed 32-bit number.
    pub(crate) fn i32(&self, name: &str) -> Result<i32, NvError> {
        match self.get(name)? {
            Value::I32(value) => Ok(value),
            other => Err(other.is_not(name, DataType::I32)),
        }
    }

    /// A signed 64-bit number.
    pub(crate) fn i64(&self, name: &str) -> Result<i64, NvError> {
        match self.get(name)? {
            Value::I64(value) => Ok(value),
            other => Err(other.is_not(name, DataType::I64)),
        }
    }

    /// An unsigned 64-bit number.
    pub(crate) fn u64(&self, name: &str) -> Result<u64, NvError> {
        match self.get(name)? {
            Value::U64(value) => Ok(value),
            other => Err(other.is_not(name, DataType::U64)),
        }
    }

    /// Text, byte by byte.
    pub(crate) fn os_str(&self, name: &str) -> Result<&'a OsStr, NvError> {
        match self.get(name)? {
            Value::Str(value) => Ok(value),
            other => Err(other.is_not(name, DataType::STR)),
        }
    }

    /// Text that is UTF-8, such as the name of a dataset.
    pub(crate) fn str(&self, name: &str) -> Result<&'a str, NvError> {
        let text = self.os_str(name)?;
        let not_utf8 = || NvError::NotUtf8 { name: name.to_owned(), text: text.to_owned() };
        text.to_str().ok_or_else(not_utf8)
    }

    /// A sequence of texts.
    pub(crate) fn strs(&self, name: &str) -> Result<Vec<&'a OsStr>, NvError> {
        match self.get(name)? {
            Value::Strs(values) => Ok(values),
            other => Err(other.is_not(name, DataType::STRS)),
        }
    }

    /// A nested list.
    pub(crate) fn list(&self, name: &str) -> Result<NvRef<'a>, NvError> {
        match self.get(name)? {
            Value::List(list) => Ok(list),
            other => Err(other.is_not(name, DataType::LIST)),
        }
    }

    /// Names and values, in the order of the list.
    pub(crate) fn iter(&self) -> Iter<'a> {
        Iter { pairs: self.pairs() }
    }

    /// Whether nothing is in the list.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs().next().is_none()
    }

    /// The number of names.
    pub(crate) fn len(&self) -> usize {
        self.pairs().count()
    }

    /// The list as bytes, in the portable encoding (XDR).
    pub(crate) fn pack(&self) -> Result<Vec<u8>, NvError> {
        let encoding = c::NV_ENCODE_XDR as i32;
        let mut len = 0;
        // SAFETY: nvlist_size reads the list and stores a size in `len`.
        check("", unsafe { openzfs().nvlist_size(self.raw.as_ptr(), &mut len, encoding) })?;
        let mut bytes = vec![0_u8; len];
        let mut at = bytes.as_mut_ptr().cast();
        // SAFETY: given a buffer, nvlist_pack writes at most `len` bytes to it and allocates none.
        check("", unsafe {
            openzfs().nvlist_pack(self.raw.as_ptr(), &mut at, &mut len, encoding, 0)
        })?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// A deep copy.
    pub(crate) fn try_clone(&self) -> Result<NvList, NvError> {
        let mut raw = ptr::null_mut();
        // SAFETY: nvlist_dup reads this list and hands out a new one.
        check("", unsafe { openzfs().nvlist_dup(self.raw.as_ptr(), &mut raw, 0) })?;
        NvList::from_c(raw)
    }

    /// The levels of lists in this one, counted to `limit` at most.
    pub(super) fn depth(&self, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let nested = self.iter().flatten().map(|(_, value)| match value {
            Value::List(list) => list.depth(limit - 1),
            Value::Lists(lists) => lists.iter().map(|l| l.depth(limit - 1)).max().unwrap_or(0),
            _ => 0,
        });
        1 + nested.max().unwrap_or(0)
    }

    /// Compares byte by byte: C's own lookup reads `[…]` in a name as an index.
    fn find(&self, name: &str) -> Option<NonNull<c::nvpair_t>> {
        self.pairs().find(|pair| {
            // SAFETY: the pair is in this list, which lives unchanged for 'a.
            unsafe { value::name_of(*pair) }.to_bytes() == name.as_bytes()
        })
    }

    fn pairs(&self) -> Pairs<'a> {
        Pairs { list: *self, last: ptr::null_mut() }
    }
}

impl fmt::Debug for NvRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for entry in self.iter() {
            match entry {
                Ok((name, value)) => map.entry(&name, &value),
                Err(error) => map.entry(&"?", &error),
            };
        }
        map.finish()
    }
}

/// The pairs of a list, undecoded.
struct Pairs<'a> {
    list: NvRef<'a>,
    last: *mut c::nvpair_t,
}

impl Iterator for Pairs<'_> {
    type Item = NonNull<c::nvpair_t>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: nvlist_next_nvpair takes null, or a pair of this list, which lives unchanged.
        let next = unsafe { openzfs().nvlist_next_nvpair(self.list.raw.as_ptr(), self.last) };
        let next = NonNull::new(next)?;
        self.last = next.as_ptr();
        Some(next)
    }
}

/// Names and values of a list; an error stands for a pair that can't be decoded.
pub(crate) struct Iter<'a> {
    pairs: Pairs<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<(&'a OsStr, Value<'a>), NvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.pairs.next()?;
        // SAFETY: the pair is in a list that lives unchanged for 'a.
        let name: &'a OsStr = value::os_str(unsafe { value::name_of(pair) });
        // SAFETY: as above.
        let value = unsafe { Value::of(&name.to_string_lossy(), pair) };
        Some(value.map(|value| (name, value)))
    }
}
