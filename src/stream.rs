//! A send stream: the form of its records. Pure.
//!
//! A stream is a sequence of records of [`RECORD`] bytes, each followed by its payload
//! (`dmu_replay_record` of OpenZFS's `zfs_ioctl.h`, in the host's byte order). [`passage`] has a stream
//! pass and tells what it changes, [`rebase`] makes it start from another snapshot, and [`difference`]
//! reads one to its end.

use std::fmt;

pub(crate) mod difference;
pub(crate) mod passage;
pub(crate) mod rebase;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod znode;

/// The length of a record, in bytes.
pub(crate) const RECORD: usize = 312;
/// Where a record's own checksum begins, to its end; the first record has none.
const CHECKSUM: usize = RECORD - 32;
/// Where the payload's length is in the first record.
const PAYLOAD_LENGTH: usize = 4;
/// Where the fields that depend on the type begin.
const UNION: usize = 8;
/// Where the first record has the guid of the snapshot that the stream makes.
const TO_GUID: usize = UNION + 32;
/// Where it has the guid of the snapshot that the stream starts from.
const FROM_GUID: usize = UNION + 40;
/// Where an object's record has the object's type, and that of its bonus.
const OBJECT_TYPE: usize = UNION + 8;
const BONUS_TYPE: usize = UNION + 12;
/// Where an object's record has the number of slots of its dnode; 0 stands for 1.
const SLOTS: usize = UNION + 26;

/// The longest payload that OpenZFS sends (`SPA_MAXBLOCKSIZE`).
const MAX_PAYLOAD: u64 = 16 << 20;

/// `drr_type`.
const BEGIN: u32 = 0;
const OBJECT: u32 = 1;
const FREE_OBJECTS: u32 = 2;
const WRITE: u32 = 3;
const FREE: u32 = 4;
const END: u32 = 5;
const SPILL: u32 = 7;

/// A stream that isn't of the form that this crate asks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// A record of a type that is not asked for.
    #[error("the stream has a record that is not known (type {0})")]
    Record(u32),
    /// A payload that is longer than any block.
    #[error("the stream has a payload of {0} bytes")]
    Payload(u64),
    /// A file whose attributes can't be read, so that nobody can say whose pages it has.
    #[error("the attributes of object {0} are of a form that is not known")]
    Attributes(u64),
    /// A record behind the last one.
    #[error("the stream goes on behind its end")]
    BehindEnd,
}

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::other(malformed)
    }
}

/// A complete record, without its payload.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a>(&'a [u8]);

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record(type {})", self.kind())
    }
}

impl<'a> Record<'a> {
    /// # Panics
    /// Where there are fewer than [`RECORD`] bytes: a mistake of this crate.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(&bytes[..RECORD])
    }

    fn kind(self) -> u32 {
        u32_at(self.0, 0)
    }

    /// The number of the object that the record is about.
    fn object(self) -> u64 {
        u64_at(self.0, UNION)
    }

    /// How many numbers an object's record takes up.
    fn slots(self) -> u64 {
        self.0[SLOTS].max(1).into()
    }

    /// How large the blocks of an object are, in bytes.
    fn block(self) -> u64 {
        u32_at(self.0, UNION + 16).into()
    }

    /// Where the bytes of a write or a free are, and how many; `u64::MAX` stands for all behind.
    fn range(self) -> (u64, u64) {
        match self.kind() {
            WRITE => (u64_at(self.0, UNION + 16), u64_at(self.0, UNION + 24)),
            _ => (u64_at(self.0, UNION + 8), u64_at(self.0, UNION + 16)),
        }
    }

    /// How many bytes follow the record (`DRR_OBJECT_PAYLOAD_SIZE` and its like).
    fn payload(self) -> Result<u64, Malformed> {
        let fields = &self.0[UNION..];
        let in_words = |length: u64| length.next_multiple_of(8);
        let length = match self.kind() {
            BEGIN => u32_at(self.0, PAYLOAD_LENGTH).into(),
            OBJECT => match u32_at(fields, 28) {
                0 => in_words(u32_at(fields, 20).into()),
                raw => raw.into(),
            },
            WRITE if fields[42] != 0 => u64_at(fields, 88),
            WRITE => u64_at(fields, 24),
            SPILL => match u64_at(fields, 32) {
                0 => u64_at(fields, 8),
                compressed => compressed,
            },
            FREE_OBJECTS | FREE | END => 0,
            other => return Err(Malformed::Record(other)),
        };
        if length > MAX_PAYLOAD { Err(Malformed::Payload(length)) } else { Ok(length) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(number)
}
