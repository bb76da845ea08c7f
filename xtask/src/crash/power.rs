//! What a power cut leaves on a disk with a volatile write cache: everything that was written before
//! the last flush that the guest was told is done, and of what was written after it whatever chance
//! keeps.
//!
//! QEMU (`blklogwrites`) logs each write after it was done and before the guest is told, in the format
//! of the kernel's dm-log-writes: a header in a sector of its own, then the data. A log is read as it
//! was when QEMU was killed: entries that were being written then are missing or cut off. The guest
//! has not been told of those.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::crash::random::Random;

/// The size of the log's units, and what a disk writes whole or not at all.
const SECTOR: u64 = 512;
const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
/// Where the header's fields end; the rest of its sector is zero.
const HEADER: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Flush,
    Write {
        /// The first sector on the disk.
        sector: u64,
        count: u64,
        /// The first sector of the data, in the log.
        data: u64,
    },
}

/// The log of one boot.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    entries: Vec<Entry>,
}

/// What a power cut did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Flushes that were done.
    pub(crate) flushes: usize,
    /// Writes that no flush had followed.
    pub(crate) unflushed: usize,
    /// How many of those are lost, as a whole or in part.
    pub(crate) lost: usize,
}

impl Log {
    /// Reads the log of writes to a disk of `size` bytes.
    pub(crate) fn read(path: &Path, size: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let end = file.metadata()?.len() / SECTOR;
        let log = Reader { file: &file, end, disk: size / SECTOR };
        let (entries, gaps) = log.entries()?;
        if let Some(counted) = log.counted()? {
            let read = entries.len() as u64;
            if gaps == 0 && counted > read {
                bail!("{}: {counted} entries, but {read} were found", path.display());
            }
        }
        Ok(Self { file, entries })
    }

    /// Makes `disk`, as it was before the boot, what it is after the power cut.
    pub(crate) fn cut(&self, disk: &File, random: &mut Random) -> Result<Cut> {
        let durable = self.entries.iter().rposition(|&entry| entry == Entry::Flush).unwrap_or(0);
        let keep = Keep::choose(random);
        let flushes = self.entries.iter().filter(|&&entry| entry == Entry::Flush).count();
        let mut cut = Cut { flushes, ..Cut::default() };
        for (index, entry) in self.entries.iter().enumerate() {
            let Entry::Write { sector, count, data } = *entry else { continue };
            let mut kept = count;
            if index >= durable {
                cut.unflushed += 1;
                kept = keep.sectors(count, random);
                cut.lost += usize::from(kept < count);
            }
            let mut bytes = vec![0; usize::try_from(kept * SECTOR)?];
            self.file.read_exact_at(&mut bytes, data * SECTOR).context("reading the log")?;
            disk.write_all_at(&bytes, sector * SECTOR).context("writing the disk image")?;
        }
        Ok(cut)
    }
}

/// What becomes of writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    None,
    /// Each by itself: the disk may have written them in any order.
    Some,
}

impl Keep {
    fn choose(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::All,
            1 => Self::None,
            _ => Self::Some,
        }
    }

    /// How many of a write's sectors are on the disk.
    fn sectors(self, count: u64, random: &mut Random) -> u64 {
        match self {
            Self::All => count,
            Self::None => 0,
            Self::Some => match random.below(8) {
                0..=3 => count,
                4 => random.below(count),
                _ => 0,
            },
        }
    }
}

struct Reader<'a> {
    file: &'a File,
    /// The length of the log, in sectors.
    end: u64,
    /// The size of the disk, in sectors.
    disk: u64,
}

impl Reader<'_> {
    /// All entries, and how many times something was missing between two of them.
    fn entries(&self) -> Result<(Vec<Entry>, usize)> {
        let (mut entries, mut gaps) = (Vec::new(), 0);
        let mut at = 1;
        while at < self.end {
            if let Some((entry, next)) = self.entry(at)? {
                entries.push(entry);
                at = next;
                continue;
            }
            // The place of an entry that was not written yet. Others, which were given their places
            // later, may have been.
            match self.resume(at + 1)? {
                Some(next) => at = next,
                None => break,
            }
            gaps += 1;
        }
        Ok((entries, gaps))
    }

    /// The entry at a sector, and where the next one is; `None` where there is no whole one.
    fn entry(&self, at: u64) -> Result<Option<(Entry, u64)>> {
        let mut bytes = [0; SECTOR as usize];
        self.file.read_exact_at(&mut bytes, at * SECTOR).context("reading the log")?;
        let (fields, rest) = bytes.split_at(HEADER);
        let (sector, count) = (word(fields, 0), word(fields, 8));
        let (flags, length) = (word(fields, 16), word(fields, 24));
        if length != 0 || rest.iter().any(|&byte| byte != 0) {
            return Ok(None);
        }
        let next = (at + 1).saturating_add(count);
        Ok(match (flags, count) {
            (FLUSH, 0) => Some((Entry::Flush, next)),
            (0, 1..) if sector.saturating_add(count) <= self.disk && next <= self.end => {
                Some((Entry::Write { sector, count, data: at + 1 }, next))
            }
            _ => None,
        })
    }

    /// The next sector that an entry begins at: data that looks like a header is followed by another
    /// header, or the end, by accident only.
    fn resume(&self, from: u64) -> Result<Option<u64>> {
        for at in from..self.end {
            if let Some((_, next)) = self.entry(at)? {
                if next == self.end || (next < self.end && self.entry(next)?.is_some()) {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// The number of entries at the last flush, by the log's first sector.
    fn counted(&self) -> Result<Option<u64>> {
        if self.end == 0 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        self.file.read_exact_at(&mut bytes, 0).context("reading the log")?;
        match (word(&bytes, 0), word(&bytes, 8), word(&bytes, 24) & 0xffff_ffff) {
            (0, 0, 0) => Ok(None),
            (MAGIC, VERSION, SECTOR) => Ok(Some(word(&bytes, 16))),
            other => bail!("no log of writes: {other:x?}"),
        }
    }
}

/// The little-endian number at an offset.
fn word(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.iter().skip(at).take(8);
    bytes.rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 64 * SECTOR;

    /// A log being made.
    struct Made(Vec<u8>);

    impl Made {
        fn new() -> Self {
            Self(vec![0; SECTOR as usize])
        }

        fn header(&mut self, fields: [u64; 4]) {
            self.0.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            self.0.resize(self.0.len().next_multiple_of(SECTOR as usize), 0);
        }

        fn write(mut self, sector: u64, data: &[u8]) -> Self {
            self.header([sector, data.len() as u64, 0, 0]);
            self.0.extend(data.iter().flat_map(|&byte| [byte; SECTOR as usize]));
            self
        }

        fn flush(mut self) -> Self {
            self.header([0, 0, FLUSH, 0]);
            self
        }

        fn gap(mut self, sectors: usize) -> Self {
            self.0.resize(self.0.len() + sectors * SECTOR as usize, 0);
            self
        }

        fn counted(mut self, entries: u64) -> Self {
            for (at, field) in [MAGIC, VERSION, entries, SECTOR].into_iter().enumerate() {
                self.0[at * 8..at * 8 + 8].copy_from_slice(&field.to_le_bytes());
            }
            self
        }

        fn read(&self) -> Result<Log> {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &self.0).unwrap();
            Log::read(file.path(), DISK)
        }

        /// The first sectors of the disk after each of many power cuts.
        fn cuts(&self) -> Vec<Vec<u8>> {
            let log = self.read().unwrap();
            let outcomes = (0..200).map(|seed| {
                let disk = tempfile::tempfile().unwrap();
                disk.set_len(DISK).unwrap();
                log.cut(&disk, &mut Random::new(seed)).unwrap();
                let mut bytes = vec![0; DISK as usize];
                disk.read_exact_at(&mut bytes, 0).unwrap();
                bytes.chunks(SECTOR as usize).take(3).map(|sector| sector[0]).collect()
            });
            outcomes.collect()
        }
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_be_lost() {
        let log = Made::new().write(0, &[1]).write(1, &[2]).flush().write(1, &[3]).write(2, &[4]);
        let mut cuts = log.cuts();
        assert!(cuts.iter().all(|disk| disk[0] == 1), "{cuts:?}");
        cuts.sort();
        cuts.dedup();
        assert_eq!(cuts, [[1, 2, 0], [1, 2, 4], [1, 3, 0], [1, 3, 4]]);
        let nothing_lost = log.flush().cuts();
        assert!(nothing_lost.iter().all(|disk| *disk == [1, 3, 4]));
    }

    #[test]
    fn without_a_flush_everything_may_be_lost() {
        let cuts = Made::new().write(0, &[1, 1]).cuts();
        assert!(cuts.contains(&vec![0, 0, 0]) && cuts.contains(&vec![1, 1, 0]));
        // A write may be torn between sectors.
        assert!(cuts.contains(&vec![1, 0, 0]));
    }

    #[test]
    fn what_was_being_logged_is_as_if_it_was_not_written() {
        let mut torn = Made::new().write(0, &[1]).flush().write(1, &[2, 2]);
        torn.0.truncate(torn.0.len() - 1);
        assert_eq!(torn.read().unwrap().entries.len(), 2);
        let gap = Made::new().write(0, &[1]).gap(3).write(2, &[3]).flush().counted(4);
        assert!(gap.cuts().iter().all(|disk| *disk == [1, 0, 3]));
        let gap_at_the_end = Made::new().write(0, &[1]).flush().gap(5);
        assert_eq!(gap_at_the_end.read().unwrap().entries.len(), 2);
    }

    #[test]
    fn a_log_that_is_not_whole_is_noticed() {
        let log = Made::new().write(0, &[1]).flush();
        assert_eq!(log.read().unwrap().entries.len(), 2);
        assert!(log.counted(2).read().is_ok());
        let log = Made::new().write(0, &[1]).flush();
        assert!(log.counted(3).read().is_err());
        let mut other = Made::new().flush();
        other.0[0] = 1;
        assert!(other.read().is_err());
        assert!(Made(Vec::new()).read().unwrap().entries.is_empty());
    }
}
