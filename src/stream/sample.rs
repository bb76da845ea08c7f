//! Streams for tests, made by hand.

use super::*;

/// A record with its fields (place, value, size), without checksums, and its payload.
pub(crate) fn record(kind: u32, fields: &[(usize, u64, usize)], payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0; RECORD];
    record[..4].copy_from_slice(&kind.to_ne_bytes());
    for &(at, value, size) in fields {
        let bytes = match size {
            8 => value.to_ne_bytes().to_vec(),
            4 => (value as u32).to_ne_bytes().to_vec(),
            _ => vec![value as u8],
        };
        record[at..at + size].copy_from_slice(&bytes);
    }
    record.extend_from_slice(payload);
    record
}

/// An object's record.
pub(crate) fn object(number: u64, kind: u32, bonus_type: u32, slots: u8, bonus: &[u8]) -> Vec<u8> {
    let fields = [
        (UNION, number, 8),
        (OBJECT_TYPE, kind.into(), 4),
        (BONUS_TYPE, bonus_type.into(), 4),
        (UNION + 20, bonus.len() as u64, 4),
        (SLOTS, slots.into(), 1),
    ];
    record(OBJECT, &fields, bonus)
}

/// A bonus of system attributes with these three, and zeros for the rest.
pub(crate) fn system_attributes(mode: u64, generation: u64, flags: u64) -> Vec<u8> {
    let mut bonus = vec![0; 168];
    bonus[..4].copy_from_slice(&0x002f_505a_u32.to_ne_bytes());
    // Layout 2, a header of 8 bytes.
    bonus[4..6].copy_from_slice(&(1_u16 << 10 | 2).to_ne_bytes());
    for (at, value) in [(8, mode), (24, generation), (56, flags)] {
        bonus[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    bonus
}

/// A regular file's record.
pub(crate) fn file(number: u64, generation: u64) -> Vec<u8> {
    object(number, 19, 44, 1, &system_attributes(0o100_644, generation, 0))
}

/// A regular file of this length.
pub(crate) fn sized_file(number: u64, size: u64) -> Vec<u8> {
    let mut bonus = system_attributes(0o100_644, 1, 0);
    bonus[16..24].copy_from_slice(&size.to_ne_bytes());
    object(number, 19, 44, 1, &bonus)
}

/// A write of `length` bytes.
pub(crate) fn write(number: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let fields = [(UNION, number, 8), (UNION + 16, offset, 8), (UNION + 24, data.len() as u64, 8)];
    record(WRITE, &fields, data)
}

pub(crate) fn free(number: u64, offset: u64, length: u64) -> Vec<u8> {
    record(FREE, &[(UNION, number, 8), (UNION + 8, offset, 8), (UNION + 16, length, 8)], &[])
}

pub(crate) fn begin(from: u64) -> Vec<u8> {
    record(BEGIN, &[(TO_GUID, 9, 8), (FROM_GUID, from, 8)], &[])
}

pub(crate) fn end() -> Vec<u8> {
    record(END, &[], &[])
}

pub(crate) fn free_objects(first: u64, count: u64) -> Vec<u8> {
    let fields = [(UNION, first, 8), (UNION + 8, count, 8), (UNION + 16, 9, 8)];
    record(FREE_OBJECTS, &fields, &[])
}

/// A stream as the kernel writes it: with the sum of everything before in each record.
pub(crate) fn sealed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut sum = rebase::Fletcher4::default();
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
