//! A stream on its way from a send to a receive. Pure.
//!
//! A receive can't end before it has the stream's last record, so whoever feeds it decides when the
//! content is swapped: the passage holds that record back, and tells by then which files have changed.

use std::collections::HashSet;

use super::rebase::Rebase;
use super::znode::{Role, Znode};
use super::{END, FREE, Malformed, OBJECT, RECORD, Record, WRITE};

/// A file by its object's number and its generation. A later file with the number has another generation,
/// in 32 bits of which a handle tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) object: u64,
    pub(crate) generation: u64,
}

impl FileId {
    /// With as much of the generation as the kernel compares (`zfs_rezget`, `zfs_fh_to_dentry`).
    fn as_handles_tell(self) -> Self {
        Self { generation: self.generation & u64::from(u32::MAX), ..self }
    }
}

/// What a stream tells of a file's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: the file's object shares a block with another one that has changed, or its attributes have
    /// changed. Where it is shorter than before, it was cut at the end of a block, of which nothing else tells.
    Same,
    /// Parts of it are free. The kernel tells so of holes that have always been there as well.
    Freed,
    /// Parts of it were written.
    Written,
}

/// A regular file of which a stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangedFile {
    pub(crate) id: FileId,
    /// How long it is from now on, in bytes.
    pub(crate) size: u64,
    pub(crate) data: Data,
}

/// What a stream changes of what readers may have cached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) files: Vec<ChangedFile>,
    /// Directories of which entries were written.
    pub(crate) directories: Vec<FileId>,
    /// A file that the receiver has as another one, under the same number and generation.
    pub(crate) taken: Option<FileId>,
}

/// Takes a stream piece by piece.
#[derive(Debug)]
pub(crate) struct Passage {
    rebase: Option<Rebase>,
    changes: Changes,
    /// Files that the receiver has and the sender has not, by number and generation.
    strangers: HashSet<FileId>,
    /// The directory of which records are being told.
    directory: Option<FileId>,
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
            changes: Changes::default(),
            strangers: HashSet::new(),
            directory: None,
            record: Vec::with_capacity(RECORD),
            payload: 0,
            bonus: Vec::new(),
            end: None,
        }
    }

    /// Has the passage tell when the stream has one of these files: it would become that one, for whoever has it
    /// open.
    pub(crate) fn watching(mut self, strangers: &[FileId]) -> Self {
        self.strangers = strangers.iter().map(|file| file.as_handles_tell()).collect();
        self
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

    /// The last record, once the stream has come to it, and what it changes.
    pub(crate) fn at_end(&mut self) -> Option<(Vec<u8>, Changes)> {
        let end = self.end.as_mut().map(std::mem::take)?;
        Some((end, std::mem::take(&mut self.changes)))
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
        let object = record.object();
        match record.kind() {
            OBJECT => {
                self.directory = None;
                match Role::of(record, &self.bonus) {
                    Role::Znode(znode) => self.begin(object, znode),
                    Role::Unknown => return Err(Malformed::Attributes(object)),
                    Role::Table(_) => {}
                }
            }
            kind @ (WRITE | FREE) => {
                if kind == WRITE {
                    let directory = self.directory.take_if(|it| it.object == object);
                    self.changes.directories.extend(directory);
                }
                let last = self.changes.files.last_mut();
                match last.filter(|file| file.id.object == object) {
                    Some(file) if kind == WRITE => file.data = Data::Written,
                    // All behind its end is free in any case; but it may have been cut before its end, and made
                    // longer again, or punched there.
                    Some(file) if file.data == Data::Same => {
                        let (start, length) = record.range();
                        if length != u64::MAX || start < file.size {
                            file.data = Data::Freed;
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        self.record.clear();
        self.bonus.clear();
        Ok(())
    }

    fn begin(&mut self, object: u64, znode: Znode) {
        let id = FileId { object, generation: znode.generation };
        if self.strangers.contains(&id.as_handles_tell()) {
            self.changes.taken = Some(id);
        }
        if znode.is_regular() {
            self.changes.files.push(ChangedFile { id, size: znode.size, data: Data::Same });
        } else if znode.is_directory() {
            self.directory = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{
        begin, end, file, free, object, sealed, sized_file, system_attributes, write,
    };
    use super::*;
    use proptest::prelude::*;

    fn changed(object: u64, generation: u64, data: Data) -> ChangedFile {
        ChangedFile { id: FileId { object, generation }, size: 0, data }
    }

    fn stream() -> Vec<u8> {
        sealed(&[
            begin(1),
            object(1, 21, 0, 1, &[]),
            file(7, 70),
            free(7, 0, u64::MAX),
            write(7, 0, &[1; 700]),
            object(8, 20, 44, 1, &system_attributes(0o040_755, 80, 0)),
            free(8, 1024, u64::MAX),
            write(8, 0, &[1; 512]),
            write(8, 512, &[1; 512]),
            object(13, 20, 44, 1, &system_attributes(0o040_755, 81, 0)),
            object(14, 20, 44, 1, &system_attributes(0o040_755, 82, 1)),
            write(14, 0, &[1; 512]),
            object(9, 19, 44, 1, &system_attributes(0o120_777, 90, 0)),
            object(10, 19, 44, 1, &system_attributes(0o100_600, 91, 1)),
            file(11, 110),
            free(11, 512, u64::MAX),
            file(12, 120),
            free(12, 512, u64::MAX),
            free(12, 0, 512),
            sized_file(15, 300_000),
            free(15, 131_072, u64::MAX),
            sized_file(16, 131_072),
            free(16, 131_072, u64::MAX),
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
            let (end, changes) = passage.at_end().unwrap();
            let expected = [
                changed(7, 70, Data::Written),
                changed(11, 110, Data::Same),
                changed(12, 120, Data::Freed),
                ChangedFile { size: 300_000, ..changed(15, 1, Data::Freed) },
                ChangedFile { size: 131_072, ..changed(16, 1, Data::Same) },
            ];
            prop_assert_eq!(changes.files, expected);
            prop_assert_eq!(changes.directories, [FileId { object: 8, generation: 80 }]);
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

    /// The generation is the txg in which a file was made: two file systems of a pool give the same.
    #[test]
    fn a_file_that_the_receiver_has_as_another_one_is_told() {
        let taken = |object: u64, generation: u64| {
            let stranger = FileId { object, generation };
            let mut passage = Passage::new(None).watching(&[stranger]);
            passage.feed(&stream(), &mut Vec::new()).unwrap();
            passage.at_end().unwrap().1.taken.map(|file| file.object)
        };
        assert_eq!(taken(7, 70), Some(7));
        assert_eq!(taken(7, 70 + (1 << 32)), Some(7));
        // A directory as well.
        assert_eq!(taken(8, 80), Some(8));
        for (object, generation) in [(7, 71), (9, 70), (1, 1)] {
            assert_eq!(taken(object, generation), None);
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
