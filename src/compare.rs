//! How two snapshots of a file system differ: in more than access times, or not.
//!
//! ZFS counts an access time as written data, so a target that was merely read looks written. What tells
//! is the stream from the one snapshot to the other: it has a record of every object that was touched,
//! and of every block of its data that was written. These objects are compared, and no others can
//! differ. No time decides: a store through a memory mapping moves none that could be relied on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::CString;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Dir, FileType, OFlags, SeekFrom, Stat, fstat, readlinkat, seek};
use rustix::io::Errno;

use crate::engine::Difference;
use crate::ffi::attributes::attributes;
use crate::ffi::handles;
use crate::mount::{self, Contexts};
use crate::stream::difference::{Touched, each_touched};
use crate::stream::passage::FileId;
use crate::stream::znode::{Role, Znode};
use crate::tree::{Below, open_below};

/// `dmu_object_type`: the properties of a file system, its list of files to be deleted, and its quotas.
const MASTER_NODE: u32 = 21;
const UNLINKED_SET: u32 = 22;
const QUOTAS: u32 = 40;

/// `ZFSCTL_INO_ROOT`: the inode of ZFS's own directory, `.zfs`.
pub(crate) const CONTROL_DIRECTORY: u64 = 0x0000_ffff_ffff_ffff;

/// How many bytes are compared in one go.
const PIECE: u64 = 1 << 17;

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    nameless: Vec<u64>,
    /// Whether the list of files to be deleted was written.
    deletions: bool,
    tables: bool,
    content: bool,
}

impl Found {
    fn verdict(self) -> Difference {
        match self {
            Self { content: true, .. } => Difference::Content,
            Self { tables: true, .. } => Difference::Tables,
            Self { nameless, deletions, .. } if deletions || !nameless.is_empty() => {
                Difference::Nameless(nameless)
            }
            Self { .. } => Difference::Nothing,
        }
    }

    /// Takes note of a file that could not be met by any name. One that has no link is nameless; of what
    /// has one, or can't be asked, nothing is known.
    fn add_unmet(&mut self, touched: &Touched) {
        match touched.role {
            Role::Znode(Znode { links: Some(0), .. }) => self.nameless.push(touched.object),
            _ => self.tables = true,
        }
    }

    /// Takes note of one of the file system's own objects.
    fn add_table(&mut self, kind: u32, touched: &Touched) {
        match kind {
            _ if touched.written.is_empty() => {}
            MASTER_NODE | QUOTAS => self.content = true,
            // A list of one block comes along as a whole, and one of more blocks in parts.
            UNLINKED_SET if touched.end == touched.block => self.deletions = true,
            _ => self.tables = true,
        }
    }

    /// Takes note of a file that was met in both versions.
    fn add(&mut self, likeness: Likeness) {
        match likeness {
            Likeness::Same => {}
            Likeness::OtherBlocks => self.tables = true,
            Likeness::Different => self.content = true,
        }
    }
}

/// Compares the snapshot `now` with `then`, of which `stream` is the difference.
pub(crate) fn difference(stream: impl Read, now: &str, then: &str) -> io::Result<Difference> {
    let root_of = |snapshot| mount::root_of(snapshot, &Contexts::new());
    let trees = Trees { now: root_of(now)?, then: root_of(then)? };
    let mut found = Found::default();
    // Those that could not be opened by their numbers.
    let mut unseen: BTreeMap<u64, Touched> = BTreeMap::new();
    each_touched(stream, |touched| {
        match touched.role {
            Role::Table(kind) => found.add_table(kind, &touched),
            Role::Unknown => found.content = true,
            // The file that has the attribute is compared with all of its attributes; this one was written.
            Role::Znode(znode) if znode.is_attribute => {
                found.content |= !touched.written.is_empty()
            }
            Role::Znode(znode) => {
                let file = FileId { object: touched.object, generation: znode.generation };
                match trees.same_file(file, znode.mode, &touched) {
                    Ok(Some(likeness)) => found.add(likeness),
                    Ok(None) => found.add_unmet(&touched),
                    Err(Errno::PERM) => drop(unseen.insert(touched.object, touched)),
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(if found.content { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if !unseen.is_empty() && !found.content {
        found.add(trees.compare_by_path(&mut unseen)?);
        unseen.values().for_each(|touched| found.add_unmet(touched));
    }
    Ok(found.verdict())
}

/// Files, and whatever else has a number of its own, that are in the snapshot of which `stream` is the
/// difference from `then`, and were not in `then`: with names and without.
///
/// None where the kernel refuses handles, as in a container.
pub(crate) fn newcomers(stream: impl Read, then: &str) -> io::Result<Vec<FileId>> {
    let then = mount::root_of(then, &Contexts::new())?;
    let mut found = Vec::new();
    each_touched(stream, |touched| {
        let Role::Znode(znode) = touched.role else { return Ok(ControlFlow::Continue(())) };
        let file = FileId { object: touched.object, generation: znode.generation };
        let flags = flags_for(FileType::from_raw_mode(znode.mode as u32));
        match handles::open(then.as_fd(), file, flags) {
            Ok(_) => {}
            Err(Errno::STALE) => found.push(file),
            Err(Errno::PERM) => return Ok(ControlFlow::Break(())),
            Err(errno) => return Err(errno.into()),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// How a file is in both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    Same,
    /// Nobody sees a difference, but what is to be received tells of blocks as they were: a file that was
    /// longer for a while has larger ones from then on, and a directory that had more entries has them in
    /// other places.
    OtherBlocks,
    Different,
}

/// Both versions, by their roots.
struct Trees {
    now: OwnedFd,
    then: OwnedFd,
}

impl Trees {
    /// Compares a file in both; `None` where no name leads to it now.
    fn same_file(
        &self,
        file: FileId,
        mode: u64,
        touched: &Touched,
    ) -> Result<Option<Likeness>, Errno> {
        let flags = flags_for(FileType::from_raw_mode(mode as u32));
        let now = match handles::open(self.now.as_fd(), file, flags) {
            Ok(now) => now,
            Err(Errno::STALE) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // The kernel opens it all the same, in a file system that was mounted since it lost its name.
        if fstat(&now)?.st_nlink == 0 {
            return Ok(None);
        }
        match handles::open(self.then.as_fd(), file, flags) {
            Ok(then) => Ok(Some(compare(&now, &then, touched)?)),
            // It is new, or had no name.
            Err(Errno::STALE) => Ok(Some(Likeness::Different)),
            Err(errno) => Err(errno),
        }
    }

    /// Compares the files of these numbers by going through both trees, and takes out those that were met.
    /// For whom the kernel refuses handles; costs a visit to each directory.
    fn compare_by_path(&self, touched: &mut BTreeMap<u64, Touched>) -> Result<Likeness, Errno> {
        // The roots of mounted snapshots have inode numbers of their own: they are compared in any case.
        let root = touched.remove(&handles::object_of(self.now.as_fd())?);
        let unwritten = Touched {
            object: 0,
            role: Role::Unknown,
            block: 0,
            written: Vec::new(),
            end: u64::MAX,
        };
        let mut worst = compare(&self.now, &self.then, root.as_ref().unwrap_or(&unwritten))?;
        let mut pending = VecDeque::from([Below::root()]);
        while let Some(path) = pending.pop_front() {
            if worst == Likeness::Different {
                break;
            }
            let open = |root: &OwnedFd| open_below(root.as_fd(), &path, OFlags::DIRECTORY);
            let (now, then) = (open(&self.now)?, open(&self.then)?);
            let names = entries(&now)?;
            if names != entries(&then)? {
                return Ok(Likeness::Different);
            }
            for (name, entry) in names {
                let below = path.join(name.as_bytes());
                if let Some(touched) = touched.remove(&entry.object) {
                    let flags = flags_for(entry.kind);
                    let open = |root: &OwnedFd| open_below(root.as_fd(), &below, flags);
                    worst = worst.max(compare(&open(&self.now)?, &open(&self.then)?, &touched)?);
                }
                if entry.kind == FileType::Directory {
                    pending.push_back(below);
                }
            }
        }
        Ok(worst)
    }
}

/// How to open a file of this kind without any effect.
fn flags_for(kind: FileType) -> OFlags {
    match kind {
        FileType::RegularFile => OFlags::RDONLY | OFlags::NOFOLLOW,
        FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        _ => OFlags::PATH | OFlags::NOFOLLOW,
    }
}

/// What must be equal for a file to be unchanged, but for its data. A change time that has moved, and nothing
/// else, is nothing that anybody could want to keep.
fn status(stat: &Stat) -> [u64; 8] {
    [
        stat.st_mode.into(),
        stat.st_uid.into(),
        stat.st_gid.into(),
        stat.st_nlink,
        stat.st_rdev,
        stat.st_size as u64,
        stat.st_mtime as u64,
        stat.st_mtime_nsec,
    ]
}

fn compare(now: &OwnedFd, then: &OwnedFd, touched: &Touched) -> Result<Likeness, Errno> {
    let (here, there) = (fstat(now)?, fstat(then)?);
    if status(&here) != status(&there) || extended(now)? != extended(then)? {
        return Ok(Likeness::Different);
    }
    let kind = FileType::from_raw_mode(here.st_mode);
    let (same, blocks) = match kind {
        FileType::RegularFile => (
            same_data(now, then, touched, here.st_size as u64)?,
            here.st_blksize == there.st_blksize,
        ),
        FileType::Directory => {
            let unwritten = touched.written.is_empty();
            (unwritten || entries(now)? == entries(then)?, unwritten)
        }
        FileType::Symlink => (target(now)? == target(then)?, true),
        _ => (true, true),
    };
    let has_attributes = matches!(kind, FileType::RegularFile | FileType::Directory);
    Ok(if !same || has_attributes && attributes(now)? != attributes(then)? {
        Likeness::Different
    } else if blocks {
        Likeness::Same
    } else {
        Likeness::OtherBlocks
    })
}

/// Whether the data is the same where the stream says that it was written, or cut.
fn same_data(now: &OwnedFd, then: &OwnedFd, touched: &Touched, size: u64) -> Result<bool, Errno> {
    // A file that was cut and made longer again has no blocks behind the cut.
    let cut = touched.end.min(size)..size;
    for range in touched.written.iter().cloned().chain([cut]) {
        if !same_bytes(now, then, range.start..range.end.min(size))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn target(link: &OwnedFd) -> Result<CString, Errno> {
    readlinkat(link, "", Vec::new())
}

/// The extended attributes of a file, access lists included, by name.
fn extended(file: &OwnedFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    // A descriptor for the path alone can be asked by this path only; it leads to the link itself.
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let names = match grown(|room| rustix::fs::listxattr(&path, room)) {
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        names => names?,
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| match grown(|room| rustix::fs::getxattr(&path, name, room)) {
        Ok(value) => Ok((name.to_vec(), value)),
        Err(errno) => Err(errno),
    };
    names.map(value).collect()
}

/// Asks for something whose length is not known.
fn grown(mut ask: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    // The kernel's own limit for a list and a value (`XATTR_SIZE_MAX`) is 64 KiB.
    for length in [1 << 10, 1 << 16, 1 << 20] {
        let mut room = vec![0; length];
        match ask(&mut room) {
            Err(Errno::RANGE) => {}
            answer => {
                room.truncate(answer?);
                return Ok(room);
            }
        }
    }
    Err(Errno::RANGE)
}

/// Whether a part of a file is the same in both; holes are passed over.
fn same_bytes(now: &OwnedFd, then: &OwnedFd, range: Range<u64>) -> Result<bool, Errno> {
    let mut at = range.start;
    while at < range.end {
        let data = [next_data(now, at)?, next_data(then, at)?].into_iter().flatten().min();
        let Some(data) = data.filter(|data| *data < range.end) else { return Ok(true) };
        at = data.max(at);
        let length = PIECE.min(range.end - at) as usize;
        if read_at(now, at, length)? != read_at(then, at, length)? {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

/// Where there is data next; `None`: nowhere.
fn next_data(file: &OwnedFd, from: u64) -> Result<Option<u64>, Errno> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read_at(file: &OwnedFd, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(file, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) object: u64,
    kind: FileType,
}

/// A directory's entries; ZFS's own directory, which is no content, is left out.
pub(crate) fn entries(directory: &OwnedFd) -> Result<HashMap<CString, Entry>, Errno> {
    let mut entries = HashMap::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") && entry.ino() != CONTROL_DIRECTORY {
            entries.insert(name, Entry { object: entry.ino(), kind: entry.file_type() });
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_from_quotas_and_from_the_list_of_deleted_files() {
        let touched = |written: &[Range<u64>]| {
            let written = written.to_vec();
            Touched { object: 1, role: Role::Table(0), block: 512, end: 512, written }
        };
        let verdict = |tables: &[(u32, Touched)]| {
            let mut found = Found::default();
            tables.iter().for_each(|(kind, touched)| found.add_table(*kind, touched));
            found.verdict()
        };
        let block = || touched(std::slice::from_ref(&(0..512)));
        let more = Touched { end: 1024, ..touched(std::slice::from_ref(&(0..1024))) };
        assert_eq!(verdict(&[]), Difference::Nothing);
        assert_eq!(verdict(&[(UNLINKED_SET, block())]), Difference::Nameless(Vec::new()));
        assert_eq!(verdict(&[(UNLINKED_SET, more)]), Difference::Tables);
        assert_eq!(verdict(&[(UNLINKED_SET, block()), (47, block())]), Difference::Tables);
        assert_eq!(verdict(&[(QUOTAS, block()), (47, block())]), Difference::Content);
        assert_eq!(verdict(&[(MASTER_NODE, block())]), Difference::Content);
        assert_eq!(verdict(&[(QUOTAS, touched(&[]))]), Difference::Nothing);
    }
}

#[cfg(test)]
mod on_zfs;
