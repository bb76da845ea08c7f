//! A send stream that is made to start from another snapshot. Pure.
//!
//! A stream says in its first record from which snapshot (by guid) it is the difference. Two
//! snapshots that have the same content, but for access times, can stand for each other there. Each
//! record has a checksum of everything before it, so all of them change with the guid.
//!
//! The format is `dmu_replay_record` of OpenZFS's `zfs_ioctl.h`, as the host's own byte order writes
//! it: records of [`RECORD`] bytes, each followed by its payload.

use std::io::{self, Read};

/// The length of a record, in bytes.
const RECORD: usize = 312;
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
/// Where an object's record has the number of slots of its dnode; 0 stands for 1.
const SLOTS: usize = UNION + 26;
/// Where a spill block's record has its flags.
const SPILL_FLAGS: usize = UNION + 24;
const SPILL_UNMODIFIED: u8 = 1 << 2;

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
#[error("the stream has a record that is not known (type {0})")]
pub(crate) struct UnknownRecord(u32);

/// Whether there is anything between a stream's begin and its end.
pub(crate) fn has_content(mut stream: impl Read) -> io::Result<bool> {
    let mut record = [0; RECORD];
    stream.read_exact(&mut record)?;
    let payload = u32_at(&record, PAYLOAD_LENGTH).into();
    io::copy(&mut stream.by_ref().take(payload), &mut io::sink())?;
    stream.read_exact(&mut record)?;
    Ok(u32_at(&record, 0) != END)
}

/// Whether a difference has more than objects' attributes: a block of any object was written.
pub(crate) fn has_blocks(mut stream: impl Read) -> io::Result<bool> {
    let mut record = [0; RECORD];
    loop {
        stream.read_exact(&mut record)?;
        let kind = u32_at(&record, 0);
        match kind {
            END => return Ok(false),
            BEGIN | OBJECT | FREE_OBJECTS | FREE => {}
            // Comes along with each object that has one.
            SPILL if record[SPILL_FLAGS] & SPILL_UNMODIFIED != 0 => {}
            _ => return Ok(true),
        }
        let payload = payload(kind, &record).map_err(io::Error::other)?;
        io::copy(&mut stream.by_ref().take(payload), &mut io::sink())?;
    }
}

/// Rewrites a stream, piece by piece.
#[derive(Debug)]
pub(crate) struct Rebase {
    from: u64,
    /// Whether objects behind the stream's last one are to be freed.
    clears: bool,
    /// The guid of the snapshot that the stream makes.
    to: u64,
    /// The highest number that an object has so far, those included that a large dnode takes up.
    last: u64,
    /// The sum of the stream as it was, and as it is written.
    sums: (Fletcher4, Fletcher4),
    /// A record that is not complete yet.
    record: Vec<u8>,
    /// How many bytes of the payload are still to come.
    payload: u64,
}

impl Rebase {
    /// Makes an incremental stream start from the snapshot with this guid.
    pub(crate) fn new(from: u64) -> Self {
        let record = Vec::with_capacity(RECORD);
        Self { from, clears: false, to: 0, last: 0, sums: Default::default(), record, payload: 0 }
    }

    /// Makes a full stream one that starts from the snapshot with this guid, whatever is in it. A full
    /// stream tells of everything that is free (`DRR_FLAG_FREERECORDS`), up to its last object.
    pub(crate) fn replacing(from: u64) -> Self {
        Self { clears: true, ..Self::new(from) }
    }

    /// Takes the next piece, of any length, and adds what is complete to `out`.
    pub(crate) fn feed(
        &mut self,
        mut piece: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), UnknownRecord> {
        while !piece.is_empty() {
            if self.payload > 0 {
                let length = self.payload.min(piece.len() as u64) as usize;
                let (payload, rest) = piece.split_at(length);
                self.sums.0.add(payload);
                self.sums.1.add(payload);
                out.extend_from_slice(payload);
                self.payload -= length as u64;
                piece = rest;
                continue;
            }
            let missing = (RECORD - self.record.len()).min(piece.len());
            let (part, rest) = piece.split_at(missing);
            self.record.extend_from_slice(part);
            piece = rest;
            if self.record.len() == RECORD {
                self.write_record(out)?;
                self.record.clear();
            }
        }
        Ok(())
    }

    fn write_record(&mut self, out: &mut Vec<u8>) -> Result<(), UnknownRecord> {
        let kind = u32_at(&self.record, 0);
        match kind {
            BEGIN => self.to = u64_at(&self.record, TO_GUID),
            OBJECT => {
                let slots = self.record[SLOTS].max(1);
                self.last = self.last.max(u64_at(&self.record, UNION) + u64::from(slots) - 1);
            }
            END if self.clears => out.extend_from_slice(&self.free_rest()),
            _ => {}
        }
        self.payload = payload(kind, &self.record)?;
        let (before, after) = &mut self.sums;
        before.add(&self.record[..CHECKSUM]);
        before.add(&self.record[CHECKSUM..]);
        match kind {
            BEGIN => {
                self.record[FROM_GUID..FROM_GUID + 8].copy_from_slice(&self.from.to_ne_bytes())
            }
            // The last record begins with the sum of everything before it.
            END => self.record[UNION..UNION + 32].copy_from_slice(&after.bytes()),
            _ => {}
        }
        after.add(&self.record[..CHECKSUM]);
        if kind != BEGIN {
            let sum = after.bytes();
            self.record[CHECKSUM..].copy_from_slice(&sum);
        }
        after.add(&self.record[CHECKSUM..]);
        out.extend_from_slice(&self.record);
        Ok(())
    }
}

impl Rebase {
    /// A record that frees each object behind the last one.
    fn free_rest(&mut self) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        let first = self.last + 1;
        let fields = [
            (0, FREE_OBJECTS.into()),
            (UNION, first),
            (UNION + 8, u64::MAX - first),
            (UNION + 16, self.to),
        ];
        for (at, value) in fields {
            record[at..at + 8].copy_from_slice(&u64::to_ne_bytes(value));
        }
        let sum = &mut self.sums.1;
        sum.add(&record[..CHECKSUM]);
        record[CHECKSUM..].copy_from_slice(&sum.bytes());
        sum.add(&record[CHECKSUM..]);
        record
    }
}

/// How many bytes follow a record (`DRR_OBJECT_PAYLOAD_SIZE` and its like).
fn payload(kind: u32, record: &[u8]) -> Result<u64, UnknownRecord> {
    let fields = &record[UNION..];
    let in_words = |length: u64| length.next_multiple_of(8);
    Ok(match kind {
        BEGIN => u32_at(record, PAYLOAD_LENGTH).into(),
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
        other => return Err(UnknownRecord(other)),
    })
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

/// Fletcher's checksum of 32-bit words, in four sums.
#[derive(Debug, Default, Clone)]
struct Fletcher4 {
    sums: [u64; 4],
    /// The begin of a word of which the rest is still to come.
    word: Vec<u8>,
}

impl Fletcher4 {
    fn add(&mut self, mut bytes: &[u8]) {
        while !self.word.is_empty() && !bytes.is_empty() {
            self.word.push(bytes[0]);
            bytes = &bytes[1..];
            if self.word.len() == 4 {
                self.step(u32_at(&self.word, 0));
                self.word.clear();
            }
        }
        let words = bytes.chunks_exact(4);
        self.word.extend_from_slice(words.remainder());
        for word in words {
            self.step(u32_at(word, 0));
        }
    }

    fn step(&mut self, word: u32) {
        let [a, b, c, d] = &mut self.sums;
        *a = a.wrapping_add(word.into());
        *b = b.wrapping_add(*a);
        *c = c.wrapping_add(*b);
        *d = d.wrapping_add(*c);
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, sum) in bytes.chunks_exact_mut(8).zip(self.sums) {
            place.copy_from_slice(&sum.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record with its fields, without checksums.
    fn record(kind: u32, fields: &[(usize, u64, usize)], payload: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..4].copy_from_slice(&kind.to_ne_bytes());
        for &(at, value, size) in fields {
            let bytes = if size == 8 {
                value.to_ne_bytes().to_vec()
            } else if size == 4 {
                (value as u32).to_ne_bytes().to_vec()
            } else {
                vec![value as u8]
            };
            record[at..at + size].copy_from_slice(&bytes);
        }
        record.extend_from_slice(payload);
        record
    }

    /// A stream as the kernel writes it: with the sum of everything before in each record.
    fn sealed(records: &[Vec<u8>]) -> Vec<u8> {
        let mut sum = Fletcher4::default();
        let mut stream = Vec::new();
        for record in records {
            let mut record = record.clone();
            let kind = u32_at(&record, 0);
            if kind == END {
                record[UNION..UNION + 32].copy_from_slice(&sum.bytes());
            }
            sum.add(&record[..CHECKSUM]);
            if kind != BEGIN {
                let bytes = sum.bytes();
                record[CHECKSUM..RECORD].copy_from_slice(&bytes);
            }
            sum.add(&record[CHECKSUM..]);
            stream.extend_from_slice(&record);
        }
        stream
    }

    fn stream(from: u64, data: &[u8]) -> Vec<u8> {
        let length = data.len() as u64;
        let bonus = vec![7; 24];
        sealed(&[
            record(BEGIN, &[(FROM_GUID, from, 8)], &[]),
            record(OBJECT, &[(UNION + 20, 21, 4)], &bonus),
            record(FREE_OBJECTS, &[], &[]),
            record(WRITE, &[(UNION + 24, length, 8)], data),
            record(
                WRITE,
                &[(UNION + 24, 4 * length, 8), (UNION + 42, 15, 1), (UNION + 88, length, 8)],
                data,
            ),
            record(SPILL, &[(UNION + 8, 8, 8)], &[1; 8]),
            record(FREE, &[], &[]),
            record(END, &[], &[]),
        ])
    }

    proptest! {
        #[test]
        fn a_rebased_stream_is_as_if_it_had_been_sent_so(
            words in proptest::collection::vec(any::<u32>(), 0..200),
            from in any::<u64>(), to in any::<u64>(), piece in 1..700usize,
        ) {
            let data: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let (old, expected) = (stream(from, &data), stream(to, &data));
            let (mut rebase, mut new) = (Rebase::new(to), Vec::new());
            for part in old.chunks(piece) {
                rebase.feed(part, &mut new).unwrap();
            }
            prop_assert!(new == expected);
        }
    }

    #[test]
    fn a_full_stream_frees_what_is_behind_its_last_object() {
        let begin = |from| record(BEGIN, &[(TO_GUID, 9, 8), (FROM_GUID, from, 8)], &[]);
        // The one in the middle of a dnode is no object: to free it is an error.
        let large = record(OBJECT, &[(UNION, 7, 8), (SLOTS, 3, 1)], &[]);
        let objects = [large, record(OBJECT, &[(UNION, 3, 8)], &[])];
        let free = [(UNION, 10, 8), (UNION + 8, u64::MAX - 10, 8), (UNION + 16, 9, 8)];
        let full = sealed(&[&[begin(0)], &objects[..], &[record(END, &[], &[])]].concat());
        let rest = [record(FREE_OBJECTS, &free, &[]), record(END, &[], &[])];
        let mut new = Vec::new();
        Rebase::replacing(5).feed(&full, &mut new).unwrap();
        assert!(new == sealed(&[&[begin(5)], &objects[..], &rest].concat()));
    }

    #[test]
    fn the_checksum_is_fletcher4() {
        let mut sum = Fletcher4::default();
        sum.add(&[1u32, 2, 3].map(u32::to_ne_bytes).concat());
        assert_eq!(sum.sums, [6, 10, 15, 21]);
    }

    #[test]
    fn a_stream_without_content_is_told_apart() {
        let begin = record(BEGIN, &[(PAYLOAD_LENGTH, 16, 4)], &[7; 16]);
        let end = record(END, &[], &[]);
        assert!(!has_content(&*[begin.clone(), end].concat()).unwrap());
        assert!(has_content(&*stream(1, &[1; 8])).unwrap());
        assert!(has_content(&*begin).is_err());
    }

    #[test]
    fn what_is_no_more_than_attributes_is_told_apart() {
        let (begin, end) = (record(BEGIN, &[], &[]), record(END, &[], &[]));
        let object = record(OBJECT, &[(UNION + 20, 21, 4)], &[7; 24]);
        let spill = |flags| record(SPILL, &[(UNION + 8, 8, 8), (SPILL_FLAGS, flags, 1)], &[1; 8]);
        let same = spill(SPILL_UNMODIFIED.into());
        let (free, gone) = (record(FREE, &[], &[]), record(FREE_OBJECTS, &[], &[]));
        let attributes = [&begin[..], &object, &same, &free, &gone].concat();
        assert!(!has_blocks(&*[&attributes[..], &end].concat()).unwrap());
        for block in [record(WRITE, &[(UNION + 24, 8, 8)], &[1; 8]), record(8, &[], &[]), spill(0)]
        {
            assert!(has_blocks(&*[&attributes[..], &block, &end].concat()).unwrap());
        }
        assert!(has_blocks(&*attributes).is_err());
    }

    #[test]
    fn a_record_of_another_type_is_refused() {
        let embedded = record(8, &[], &[]);
        let error = Rebase::new(1).feed(&embedded, &mut Vec::new()).unwrap_err();
        assert_eq!(error, UnknownRecord(8));
    }
}
