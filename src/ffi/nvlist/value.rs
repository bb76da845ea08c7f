//! What a name-value pair holds, and what can be wrong with it.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};
use std::slice;

use super::super::bindings as c;
use super::super::library::openzfs;
use super::NvRef;
use crate::errno::Errno;

/// Why a name-value list can't be built or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NvError {
    /// The name is not in the list.
    #[error("`{name}` is not in the list")]
    Missing { name: String },
    /// The name is in the list already.
    #[error("`{name}` is in the list already")]
    Duplicate { name: String },
    /// The name is in the list with a value of another type.
    #[error("`{name}` holds {actual} where {expected} is expected")]
    WrongType { name: String, expected: DataType, actual: DataType },
    /// C would end the text at the NUL byte.
    #[error("{text:?} contains a NUL byte")]
    Nul { text: String },
    /// The text of this name is not UTF-8, which is expected of it.
    #[error("`{name}` holds {text:?}, which is not UTF-8")]
    NotUtf8 { name: String, text: OsString },
    /// Lists are nested deeper than the kernel reads.
    #[error("the list for `{name}` is nested too deeply")]
    TooDeep { name: String },
    /// The bytes are not a packed list.
    #[error("not a packed list: {errno}")]
    Damaged { errno: Errno },
    /// libnvpair refused the name or the value.
    #[error("libnvpair refused `{name}`: {errno}")]
    Refused { name: String, errno: Errno },
    /// libnvpair could not allocate.
    #[error("out of memory for a list")]
    NoMemory,
}

/// The type of a value: C's number, because C may have more of them than are named here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataType(c::data_type_t);

impl DataType {
    /// A name without a value.
    pub(crate) const FLAG: Self = Self(c::data_type_t::DATA_TYPE_BOOLEAN);
    /// True or false.
    pub(crate) const BOOL: Self = Self(c::data_type_t::DATA_TYPE_BOOLEAN_VALUE);
    /// A signed 32-bit number.
    pub(crate) const I32: Self = Self(c::data_type_t::DATA_TYPE_INT32);
    /// An unsigned 32-bit number.
    pub(crate) const U32: Self = Self(c::data_type_t::DATA_TYPE_UINT32);
    /// A signed 64-bit number.
    pub(crate) const I64: Self = Self(c::data_type_t::DATA_TYPE_INT64);
    /// An unsigned 64-bit number.
    pub(crate) const U64: Self = Self(c::data_type_t::DATA_TYPE_UINT64);
    /// Text.
    pub(crate) const STR: Self = Self(c::data_type_t::DATA_TYPE_STRING);
    /// A nested list.
    pub(crate) const LIST: Self = Self(c::data_type_t::DATA_TYPE_NVLIST);
    /// Bytes.
    pub(crate) const BYTES: Self = Self(c::data_type_t::DATA_TYPE_BYTE_ARRAY);
    /// A sequence of unsigned 64-bit numbers.
    pub(crate) const U64S: Self = Self(c::data_type_t::DATA_TYPE_UINT64_ARRAY);
    /// A sequence of texts.
    pub(crate) const STRS: Self = Self(c::data_type_t::DATA_TYPE_STRING_ARRAY);
    /// A sequence of nested lists.
    pub(crate) const LISTS: Self = Self(c::data_type_t::DATA_TYPE_NVLIST_ARRAY);
    /// Bytes by their other name.
    const UINT8S: Self = Self(c::data_type_t::DATA_TYPE_UINT8_ARRAY);
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::FLAG => "no value",
            Self::BOOL => "a boolean",
            Self::I32 => "an int32",
            Self::U32 => "a uint32",
            Self::I64 => "an int64",
            Self::U64 => "a uint64",
            Self::STR => "a string",
            Self::LIST => "a list",
            Self::BYTES | Self::UINT8S => "bytes",
            Self::U64S => "uint64s",
            Self::STRS => "strings",
            Self::LISTS => "lists",
            Self(other) => return write!(f, "a value of type {}", other.0),
        })
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataType({self})")
    }
}

/// A decoded value, borrowed from its list where it isn't a number.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(crate) enum Value<'a> {
    /// No value: the name alone says it.
    Flag,
    /// True or false.
    Bool(bool),
    /// A signed 32-bit number.
    I32(i32),
    /// An unsigned 32-bit number.
    U32(u32),
    /// A signed 64-bit number.
    I64(i64),
    /// An unsigned 64-bit number.
    U64(u64),
    /// Text: any bytes but NUL, for nothing between here and the disk asks for UTF-8.
    Str(&'a OsStr),
    /// A nested list.
    List(NvRef<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A sequence of numbers.
    U64s(&'a [u64]),
    /// A sequence of texts.
    Strs(Vec<&'a OsStr>),
    /// A sequence of nested lists.
    Lists(Vec<NvRef<'a>>),
    /// A value of a type that ZFS's own calls don't use.
    Other(DataType),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Flag => DataType::FLAG,
            Self::Bool(_) => DataType::BOOL,
            Self::I32(_) => DataType::I32,
            Self::U32(_) => DataType::U32,
            Self::I64(_) => DataType::I64,
            Self::U64(_) => DataType::U64,
            Self::Str(_) => DataType::STR,
            Self::List(_) => DataType::LIST,
            Self::Bytes(_) => DataType::BYTES,
            Self::U64s(_) => DataType::U64S,
            Self::Strs(_) => DataType::STRS,
            Self::Lists(_) => DataType::LISTS,
            Self::Other(other) => *other,
        }
    }

    /// The error for a value that is not of the `expected` type.
    pub(crate) fn is_not(&self, name: &str, expected: DataType) -> NvError {
        NvError::WrongType { name: name.to_owned(), expected, actual: self.data_type() }
    }

    /// Decodes a pair; `name` is for the error.
    ///
    /// # Safety
    ///
    /// `pair` is in a list that is neither freed nor changed during `'a`.
    pub(super) unsafe fn of(name: &str, pair: NonNull<c::nvpair_t>) -> Result<Self, NvError> {
        let pair = pair.as_ptr();
        // SAFETY: the pair is valid, says the caller.
        let data_type = DataType(unsafe { openzfs().nvpair_type(pair) });

        /// Reads a value that C copies out.
        macro_rules! copied {
            ($get:ident, $zero:expr) => {{
                let mut value = $zero;
                // SAFETY: the function stores one value of this type in `value`, or fails.
                checked(name, unsafe { openzfs().$get(pair, &mut value) })?;
                value
            }};
        }
        /// Reads a sequence that stays in the pair: where it is, and how long.
        macro_rules! borrowed {
            ($get:ident) => {{
                let (mut at, mut count) = (ptr::null_mut(), 0);
                // SAFETY: the function stores an address in the pair, and a number of elements.
                checked(name, unsafe { openzfs().$get(pair, &mut at, &mut count) })?;
                // SAFETY: libnvpair aligns elements, and they live with the pair, for 'a.
                unsafe { elements(at.cast_const(), count) }
            }};
        }

        Ok(match data_type {
            DataType::FLAG => Self::Flag,
            DataType::BOOL => {
                let value = copied!(nvpair_value_boolean_value, c::boolean_t::B_FALSE);
                Self::Bool(value != c::boolean_t::B_FALSE)
            }
            DataType::I32 => Self::I32(copied!(nvpair_value_int32, 0)),
            DataType::U32 => Self::U32(copied!(nvpair_value_uint32, 0)),
            DataType::I64 => Self::I64(copied!(nvpair_value_int64, 0)),
            DataType::U64 => Self::U64(copied!(nvpair_value_uint64, 0)),
            DataType::STR => {
                let text = copied!(nvpair_value_string, ptr::null());
                // SAFETY: libnvpair checked that the text ends, and it lives with the pair, for 'a.
                Self::Str(os_str(unsafe { CStr::from_ptr::<'a>(text) }))
            }
            DataType::LIST => {
                let list = copied!(nvpair_value_nvlist, ptr::null_mut());
                // SAFETY: a nested list lives with the pair, for 'a.
                let list = unsafe { NvRef::from_raw(list) };
                Self::List(list.ok_or(NvError::NoMemory)?)
            }
            DataType::BYTES => Self::Bytes(borrowed!(nvpair_value_byte_array)),
            DataType::UINT8S => Self::Bytes(borrowed!(nvpair_value_uint8_array)),
            DataType::U64S => Self::U64s(borrowed!(nvpair_value_uint64_array)),
            DataType::STRS => {
                let texts = borrowed!(nvpair_value_string_array);
                // SAFETY: each is a C string that lives with the pair, for 'a.
                let texts = texts.iter().map(|text| unsafe { CStr::from_ptr::<'a>(*text) });
                Self::Strs(texts.map(os_str).collect())
            }
            DataType::LISTS => {
                let lists = borrowed!(nvpair_value_nvlist_array);
                // SAFETY: each is a list that lives with the pair, for 'a.
                let lists = lists.iter().map(|list| unsafe { NvRef::from_raw(*list) });
                Self::Lists(lists.collect::<Option<_>>().ok_or(NvError::NoMemory)?)
            }
            other => Self::Other(other),
        })
    }
}

/// A slice in C's memory; of no elements C gives no address.
///
/// # Safety
///
/// `at` is null, or aligned and the first of `count` elements that live unchanged for `'a`.
unsafe fn elements<'a, T>(at: *const T, count: u32) -> &'a [T] {
    if at.is_null() {
        return &[];
    }
    // SAFETY: what the caller promises is what from_raw_parts asks for.
    unsafe { slice::from_raw_parts(at, count as usize) }
}

/// The name of a pair.
///
/// # Safety
///
/// `pair` is in a list that is neither freed nor changed during `'a`.
pub(super) unsafe fn name_of<'a>(pair: NonNull<c::nvpair_t>) -> &'a CStr {
    // SAFETY: nvpair_name gives the address of the name, a C string inside the pair.
    unsafe { CStr::from_ptr(openzfs().nvpair_name(pair.as_ptr())) }
}

/// The text as Rust has it.
pub(super) fn os_str(text: &CStr) -> &OsStr {
    OsStr::from_bytes(text.to_bytes())
}

fn checked(name: &str, error: i32) -> Result<(), NvError> {
    super::check(name, error)
}
