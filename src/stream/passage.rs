//! A stream on its way from a send to a receive. Pure.
//!
//! A receive can't end before it has the stream's last record, so whoever feeds it decides when the
//! content is swapped: the passage holds that record back, and tells by then which files have changed.

use super::rebase::Rebase;
use super::znode::Role;
use super::{END, Malformed, OBJECT, RECORD, Record};

/// A regular file by its object's number and its generation, which no other file has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) object: u64,
    pub(crate) generation: u64,
}

/// Takes a stream piece by piece.
#[derive(Debug)]
pub(crate) struct Passage {
    rebase: Option<Rebase>,
    files: Vec<FileId>,
    /// A record that is not complete yet.
    record: Vec<u8>,
    /// How many bytes of the payload are still to come.
    payload: u64,
    /// The payload of an object's record, so far.
    bonus: Vec<u8>,
    /// The last record, with what has to be told before it.
    end: Option<Vec<u8>>,
}

impl Passage {
    /// A stream that passes as it is, or is made to start from another snapshot.
    pub(crate) fn new(rebase: Option<Rebase>) -> Self {
        Self {
            rebase,
            files: Vec::new(),
            record: Vec::with_capacity(RECORD),
            payload: 0,
            bonus: Vec::new(),
            end: None,
        }
    }

    /// Takes the next piece, of any length, and adds to `out` what may go on.
    pub(crate) fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        while !piece.is_empty() {
            if self.end.is_some() {
                return Err(Malformed::BehindEnd);
            }
            piece = match self.payload {
                0 => self.take_record(piece, out)?,
                _ => self.take_payload(piece, out)?,
            };
        }
        Ok(())
    }

    /// The last record, once the stream has come to it, and the files that it tells of.
    pub(crate) fn at_end(&mut self) -> Option<(Vec<u8>, Vec<FileId>)> {
        let end = self.end.as_mut().map(std::mem::take)?;
        Some((end, std::mem::take(&mut self.files)))
    }

    fn take_record<'a>(
        &mut self,
        piece: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], Malformed> {
        let missing = (RECORD - self.record.len()).min(piece.len());
        let (part, rest) = piece.split_at(missing);
        self.record.extend_from_slice(part);
        if self.record.len() < RECORD {
            return Ok(rest);
        }
        let record = Record::new(&self.record);
        self.payload = record.payload()?;
        let is_end = record.kind() == END;
        let mut end = Vec::new();
        let into = if is_end { &mut end } else { out };
        match &mut self.rebase {
            Some(rebase) => rebase.write_record(&mut self.record, into),
            None => into.extend_from_slice(&self.record),
        }
        if is_end {
            self.end = Some(end);
        } else if self.payload == 0 {
            self.complete()?;
        }
        Ok(rest)
    }

    fn take_payload<'a>(
        &mut self,
        piece: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], Malformed> {
        let length = self.payload.min(piece.len() as u64) as usize;
        let (payload, rest) = piece.split_at(length);
        if let Some(rebase) = &mut self.rebase {
            rebase.pass(payload);
        }
        if Record::new(&self.record).kind() == OBJECT {
            self.bonus.extend_from_slice(payload);
        }
        out.extend_from_slice(payload);
        self.payload -= length as u64;
        if self.payload == 0 {
            self.complete()?;
        }
        Ok(rest)
    }

    /// Takes note of a record that is there with its payload.
    fn complete(&mut self) -> Result<(), Malformed> {
        let record = Record::new(&self.record);
        if record.kind() == OBJECT {
            let object = record.object();
            match Role::of(record, &self.bonus) {
                Role::Znode(znode) if znode.is_regular() => {
                    self.files.push(FileId { object, generation: znode.generation });
                }
                Role::Unknown => return Err(Malformed::Attributes(object)),
                Role::Znode(_) | Role::Table(_) => {}
            }
        }
        self.record.clear();
        self.bonus.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{begin, end, file, free, object, sealed, system_attributes, write};
    use super::*;
    use proptest::prelude::*;

    fn ids(pairs: &[(u64, u64)]) -> Vec<FileId> {
        pairs.iter().map(|&(object, generation)| FileId { object, generation }).collect()
    }

    fn stream() -> Vec<u8> {
        sealed(&[
            begin(1),
            object(1, 21, 0, 1, &[]),
            file(7, 70),
            free(7, 0, u64::MAX),
            write(7, 0, &[1; 700]),
            object(8, 20, 44, 1, &system_attributes(0o040_755, 80, 0)),
            object(9, 19, 44, 1, &system_attributes(0o120_777, 90, 0)),
            object(10, 19, 44, 1, &system_attributes(0o100_600, 91, 1)),
            file(11, 110),
            end(),
        ])
    }

    proptest! {
        #[test]
        fn all_but_the_last_record_passes_and_the_files_are_told(piece in 1..900usize) {
            let stream = stream();
            let (mut passage, mut out) = (Passage::new(None), Vec::new());
            for part in stream.chunks(piece) {
                prop_assert!(passage.at_end().is_none());
                passage.feed(part, &mut out).unwrap();
            }
            let (end, files) = passage.at_end().unwrap();
            prop_assert_eq!(files, ids(&[(7, 70), (11, 110)]));
            prop_assert!(out.len() == stream.len() - RECORD);
            out.extend_from_slice(&end);
            prop_assert!(out == stream);
        }

        #[test]
        fn no_stream_makes_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in 0..12u32, piece in 1..500usize,
        ) {
            let mut stream = bytes;
            if stream.len() >= 4 {
                stream[..4].copy_from_slice(&kind.to_ne_bytes());
            }
            let mut passage = Passage::new(None);
            let _ = stream.chunks(piece).try_for_each(|part| passage.feed(part, &mut Vec::new()));
        }
    }

    #[test]
    fn what_can_t_be_understood_is_refused() {
        let feed =
            |records: &[Vec<u8>]| Passage::new(None).feed(&records.concat(), &mut Vec::new());
        let embedded = super::super::sample::record(8, &[], &[]);
        assert_eq!(feed(&[begin(1), embedded]), Err(Malformed::Record(8)));
        assert_eq!(feed(&[object(7, 19, 44, 1, &[1; 200])]), Err(Malformed::Attributes(7)));
        assert_eq!(feed(&[end(), end()]), Err(Malformed::BehindEnd));
    }
}
