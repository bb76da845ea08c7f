//! A stream that is made to start from another snapshot. Pure.
//!
//! A stream says in its first record from which snapshot (by guid) it is the difference. Two
//! snapshots that have the same content, but for access times, can stand for each other there. Each
//! record has a checksum of everything before it, so all of them change with the guid.

use std::collections::BTreeSet;

use super::{
    BEGIN, CHECKSUM, END, FREE_OBJECTS, FROM_GUID, OBJECT, RECORD, Record, TO_GUID, UNION, u32_at,
    u64_at,
};

/// Rewrites the records of a stream, one after the other.
#[derive(Debug)]
pub(crate) struct Rebase {
    from: u64,
    /// Whether objects behind the stream's last one are to be freed.
    clears: bool,
    /// Objects that are to be freed where the stream has none of their number.
    nameless: BTreeSet<u64>,
    /// The guid of the snapshot that the stream makes.
    to: u64,
    /// The highest number that an object has so far, those included that a large dnode takes up.
    last: u64,
    /// The sum of the stream as it was, and as it is written.
    sums: (Fletcher4, Fletcher4),
}

impl Rebase {
    /// Makes an incremental stream start from the snapshot with this guid, and free objects that are
    /// only there.
    pub(crate) fn new(from: u64, nameless: &[u64]) -> Self {
        let nameless = nameless.iter().copied().collect();
        Self { from, clears: false, nameless, to: 0, last: 0, sums: Default::default() }
    }

    /// Makes a full stream one that starts from the snapshot with this guid, whatever is in it. A full
    /// stream tells of everything that is free (`DRR_FLAG_FREERECORDS`), up to its last object.
    pub(crate) fn replacing(from: u64) -> Self {
        Self { clears: true, ..Self::new(from, &[]) }
    }

    /// Takes payload as it passes.
    pub(super) fn pass(&mut self, payload: &[u8]) {
        self.sums.0.add(payload);
        self.sums.1.add(payload);
    }

    /// Rewrites the record, and adds it to `out`, with what has to be told before it.
    pub(super) fn write_record(&mut self, record: &mut [u8], out: &mut Vec<u8>) {
        let kind = Record::new(record).kind();
        match kind {
            BEGIN => self.to = u64_at(record, TO_GUID),
            OBJECT => {
                let record = Record::new(record);
                let (first, last) =
                    (record.object(), record.object().saturating_add(record.slots() - 1));
                self.last = self.last.max(last);
                // What has their number now takes their place by itself.
                while let Some(number) = self.nameless.range(first..=last).next().copied() {
                    self.nameless.remove(&number);
                }
            }
            END => {
                for number in std::mem::take(&mut self.nameless) {
                    out.extend_from_slice(&self.free(number, 1));
                }
                if self.clears {
                    let first = self.last + 1;
                    out.extend_from_slice(&self.free(first, u64::MAX - first));
                }
            }
            _ => {}
        }
        let (before, after) = &mut self.sums;
        before.add(&record[..CHECKSUM]);
        before.add(&record[CHECKSUM..]);
        match kind {
            BEGIN => record[FROM_GUID..FROM_GUID + 8].copy_from_slice(&self.from.to_ne_bytes()),
            // The last record begins with the sum of everything before it.
            END => record[UNION..UNION + 32].copy_from_slice(&after.bytes()),
            _ => {}
        }
        after.add(&record[..CHECKSUM]);
        if kind != BEGIN {
            record[CHECKSUM..].copy_from_slice(&after.bytes());
        }
        after.add(&record[CHECKSUM..]);
        out.extend_from_slice(record);
    }

    /// A record that frees objects.
    fn free(&mut self, first: u64, count: u64) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        let fields =
            [(0, FREE_OBJECTS.into()), (UNION, first), (UNION + 8, count), (UNION + 16, self.to)];
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

/// Fletcher's checksum of 32-bit words, in four sums.
#[derive(Debug, Default, Clone)]
pub(super) struct Fletcher4 {
    sums: [u64; 4],
    /// The begin of a word of which the rest is still to come.
    word: Vec<u8>,
}

impl Fletcher4 {
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
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

    pub(super) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, sum) in bytes.chunks_exact_mut(8).zip(self.sums) {
            place.copy_from_slice(&sum.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::passage::Passage;
    use super::super::sample::{begin, end, file, free_objects, object, record, sealed, write};
    use super::super::{FREE, SPILL, WRITE};
    use super::*;
    use proptest::prelude::*;

    fn stream(from: u64, data: &[u8]) -> Vec<u8> {
        let length = data.len() as u64;
        sealed(&[
            begin(from),
            file(3, 30),
            free_objects(5, 2),
            write(3, 0, data),
            record(
                WRITE,
                &[(UNION + 24, 4 * length, 8), (UNION + 42, 15, 1), (UNION + 88, length, 8)],
                data,
            ),
            record(SPILL, &[(UNION + 8, 8, 8)], &[1; 8]),
            record(FREE, &[], &[]),
            end(),
        ])
    }

    /// What comes out at the other side, the held record included.
    fn passed(rebase: Rebase, stream: &[u8], piece: usize) -> Vec<u8> {
        let (mut passage, mut out) = (Passage::new(Some(rebase)), Vec::new());
        for part in stream.chunks(piece) {
            passage.feed(part, &mut out).unwrap();
        }
        out.extend(passage.at_end().unwrap().0);
        out
    }

    proptest! {
        #[test]
        fn a_rebased_stream_is_as_if_it_had_been_sent_so(
            words in proptest::collection::vec(any::<u32>(), 0..200),
            from in any::<u64>(), to in any::<u64>(), piece in 1..700usize,
        ) {
            let data: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let (old, expected) = (stream(from, &data), stream(to, &data));
            prop_assert!(passed(Rebase::new(to, &[]), &old, piece) == expected);
        }
    }

    #[test]
    fn a_full_stream_frees_what_is_behind_its_last_object() {
        // The one in the middle of a dnode is no object: to free it is an error.
        let objects = [object(7, 21, 0, 3, &[]), object(3, 21, 0, 1, &[])];
        let full = sealed(&[&[begin(0)], &objects[..], &[end()]].concat());
        let rest = [free_objects(10, u64::MAX - 10), end()];
        let new = passed(Rebase::replacing(5), &full, 100);
        assert!(new == sealed(&[&[begin(5)], &objects[..], &rest].concat()));
    }

    #[test]
    fn objects_without_a_name_are_freed_where_no_other_has_their_number() {
        let objects = [object(7, 21, 0, 3, &[]), object(12, 21, 0, 1, &[])];
        let old = sealed(&[&[begin(1)], &objects[..], &[end()]].concat());
        let rest = [free_objects(6, 1), free_objects(10, 1), free_objects(13, 1), end()];
        let new = passed(Rebase::new(5, &[13, 6, 7, 8, 9, 10, 12]), &old, 333);
        assert!(new == sealed(&[&[begin(5)], &objects[..], &rest].concat()));
    }

    #[test]
    fn the_checksum_is_fletcher4() {
        let mut sum = Fletcher4::default();
        sum.add(&[1u32, 2, 3].map(u32::to_ne_bytes).concat());
        assert_eq!(sum.sums, [6, 10, 15, 21]);
    }
}
