//! The difference of two snapshots, read from a stream: which objects were touched, and where. Pure.

use std::io::{self, Read};
use std::ops::{ControlFlow, Range};

use super::passage::{ChangedFile, Changes, Data, FileId};
use super::znode::Role;
use super::{END, FREE, Malformed, OBJECT, RECORD, Record, WRITE};

/// How many places of an object are told apart; more are taken together.
const MOST_RANGES: usize = 4096;

/// An object of which the stream has a record: its attributes may have changed, and, where there is a
/// range, its data was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) object: u64,
    pub(crate) role: Role,
    /// How large its blocks are, in bytes.
    pub(crate) block: u64,
    /// Where blocks were written or freed, in bytes, in ascending order.
    pub(crate) written: Vec<Range<u64>>,
    /// Behind this the object has no blocks. Where it was cut at the end of a block, nothing else tells.
    pub(crate) end: u64,
}

impl Touched {
    /// Of tables, the kernel also tells of holes behind their end (`send_cb`).
    fn add(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.end);
        if range.is_empty() {
            return;
        }
        let full = self.written.len() == MOST_RANGES;
        match self.written.last_mut() {
            Some(last) if full || range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.written.push(range),
        }
    }
}

/// Whether there is anything between a stream's begin and its end.
pub(crate) fn has_content(mut stream: impl Read) -> io::Result<bool> {
    read_record(&mut stream)?;
    let second = read_record(&mut stream)?;
    Ok(Record::new(&second.0).kind() != END)
}

/// Visits each object of which a stream tells, until it is told to stop.
///
/// # Errors
/// Where the stream ends early, or is of another form.
pub(crate) fn each_touched(
    mut stream: impl Read,
    mut visit: impl FnMut(Touched) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let mut touched: Option<Touched> = None;
    loop {
        let (record, payload) = read_record(&mut stream)?;
        let record = Record::new(&record);
        match record.kind() {
            OBJECT | END => {
                if let Some(touched) = touched.take() {
                    if visit(touched)?.is_break() {
                        return Ok(());
                    }
                }
                if record.kind() == END {
                    return Ok(());
                }
                let (object, role) = (record.object(), Role::of(record, &payload));
                let block = record.block();
                touched = Some(Touched { object, role, block, written: Vec::new(), end: u64::MAX });
            }
            WRITE | FREE => {
                let (start, length) = record.range();
                let of = touched.as_mut().filter(|touched| touched.object == record.object());
                let touched = of.ok_or_else(|| stray(record))?;
                match (record.kind(), length) {
                    (FREE, u64::MAX) => touched.end = touched.end.min(start),
                    _ => touched.add(start..start.saturating_add(length)),
                }
            }
            // Objects that are free now, and blocks of attributes, which are compared in any case.
            _ => {}
        }
    }
}

/// What a stream changes of what readers may have cached. Of each regular file it is assumed that data was
/// written.
pub(crate) fn changes(stream: impl Read) -> io::Result<Changes> {
    let mut changes = Changes::default();
    each_touched(stream, |Touched { object, role, written, .. }| {
        match role {
            Role::Znode(znode) if znode.is_regular() => {
                let id = FileId { object, generation: znode.generation };
                changes.files.push(ChangedFile { id, size: znode.size, data: Data::Written });
            }
            Role::Znode(znode) if znode.is_directory() && !written.is_empty() => {
                changes.directories.push(FileId { object, generation: znode.generation });
            }
            Role::Unknown => return Err(Malformed::Attributes(object).into()),
            Role::Znode(_) | Role::Table(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(changes)
}

/// A write before its object.
fn stray(record: Record<'_>) -> io::Error {
    let text = format!("the stream writes to object {} and does not tell of it", record.object());
    io::Error::other(text)
}

/// The next record, and the payload of an object's; other payload is skipped.
fn read_record(stream: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = vec![0; RECORD];
    stream.read_exact(&mut bytes)?;
    let record = Record::new(&bytes);
    let length = record.payload()?;
    let mut payload = Vec::new();
    let mut rest = stream.take(length);
    let read = match record.kind() {
        OBJECT => rest.read_to_end(&mut payload)? as u64,
        _ => io::copy(&mut rest, &mut io::sink())?,
    };
    if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((bytes, payload)) }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{begin, end, file, free, free_objects, object, record, write};
    use super::super::{BEGIN, PAYLOAD_LENGTH};
    use super::*;

    /// Number, what was written, and the end.
    type Seen = (u64, Vec<Range<u64>>, u64);

    fn touched(stream: &[u8]) -> io::Result<Vec<Seen>> {
        let mut found = Vec::new();
        each_touched(stream, |touched| {
            found.push((touched.object, touched.written, touched.end));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    #[test]
    fn a_stream_without_content_is_told_apart() {
        let begin = record(BEGIN, &[(PAYLOAD_LENGTH, 16, 4)], &[7; 16]);
        assert!(!has_content(&*[begin.clone(), end()].concat()).unwrap());
        assert!(has_content(&*[begin.clone(), file(1, 1), end()].concat()).unwrap());
        assert!(has_content(&*begin).is_err());
    }

    #[test]
    fn each_object_is_told_with_what_was_written() {
        let stream = [
            begin(1),
            free_objects(1, 2),
            file(7, 70),
            free(7, 600, u64::MAX),
            write(7, 0, &[1; 100]),
            write(7, 100, &[1; 100]),
            free(7, 400, 100),
            file(8, 80),
            free(8, 512, u64::MAX),
            object(9, 22, 0, 1, &[]),
            free(9, 512, u64::MAX),
            write(9, 0, &[1; 8]),
            free(9, 512, 1024),
            end(),
        ]
        .concat();
        let expected = [
            (7, vec![0..200, 400..500], 600),
            (8, vec![], 512),
            #[allow(clippy::single_range_in_vec_init, reason = "one range is what was written")]
            (9, vec![0..8], 512),
        ];
        assert_eq!(touched(&stream).unwrap(), expected);
        assert!(touched(&stream[..stream.len() - 1]).is_err());
    }

    #[test]
    fn more_places_than_are_told_apart_are_taken_together() {
        let mut stream = [begin(1), file(7, 70)].concat();
        for number in 0..MOST_RANGES as u64 + 100 {
            stream.extend(write(7, number * 100, &[1; 8]));
        }
        stream.extend(end());
        let found = touched(&stream).unwrap();
        assert_eq!(found[0].1.len(), MOST_RANGES);
        assert_eq!(found[0].1.last().unwrap().end, (MOST_RANGES as u64 + 99) * 100 + 8);
    }

    #[test]
    fn a_write_to_what_was_not_told_of_is_refused() {
        assert!(touched(&[begin(1), write(7, 0, &[1; 8]), end()].concat()).is_err());
    }
}
