//! Whether two versions of a file system differ in more than access times.
//!
//! ZFS counts an access time as written data, so a target that was merely read looks written. A
//! file's change time tells: it moves with every change of content or metadata but for flags and
//! projects, which are asked for, and no user can set it back. It is coarse, so files that were
//! changed about when the base was taken are read.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::ffi::attributes::attributes;

/// What must be equal for a file to be unchanged.
#[derive(PartialEq, Eq)]
struct Identity {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: i64,
    device: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            links: stat.st_nlink,
            size: stat.st_size,
            device: stat.st_rdev,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Compares two trees by the descriptors of their roots; `taken` is when the older one was, in
/// seconds since 1970. Costs a visit to each file.
pub(crate) fn differs(one: &OwnedFd, other: &OwnedFd, taken: i64) -> Result<bool, Errno> {
    // The root of a mounted snapshot has an inode number of its own.
    let root = |fd| Ok(Identity { inode: 0, ..Identity::from(&rustix::fs::fstat(fd)?) });
    let top = OsString::from(".");
    // The descriptors of mounts can't be asked for more than a status.
    let attributes_of = |fd| attributes(open(fd, &top, OFlags::DIRECTORY)?);
    if root(one)? != root(other)? || attributes_of(one)? != attributes_of(other)? {
        return Ok(true);
    }
    let mut pending = VecDeque::from([top]);
    while let Some(path) = pending.pop_front() {
        let (here, there) = (entries(one, &path)?, entries(other, &path)?);
        if here != there {
            return Ok(true);
        }
        for (name, identity) in here {
            let mut below = path.clone().into_vec();
            below.push(b'/');
            below.extend_from_slice(name.as_bytes());
            let below = OsString::from_vec(below);
            let kind = FileType::from_raw_mode(identity.mode);
            let read = kind == FileType::RegularFile && identity.changed.0 >= taken - COARSE;
            if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                continue;
            }
            let file = |root| Ok(File::from(open(root, &below, OFlags::empty())?));
            let (here, there) = (file(one)?, file(other)?);
            if attributes(&here)? != attributes(&there)? || (read && !same_bytes(here, there)?) {
                return Ok(true);
            }
            if kind == FileType::Directory {
                pending.push_back(below);
            }
        }
    }
    Ok(false)
}

/// By how many seconds a change time and the time of a snapshot may be off.
const COARSE: i64 = 2;

fn open(root: &OwnedFd, path: &OsString, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

fn same_bytes(one: File, other: File) -> Result<bool, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (here, there) = (one.fill_buf().map_err(errno)?, other.fill_buf().map_err(errno)?);
        let len = here.len().min(there.len());
        if here[..len] != there[..len] || (len == 0 && here.len() != there.len()) {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        one.consume(len);
        other.consume(len);
    }
}

/// A directory's entries.
fn entries(root: &OwnedFd, path: &OsString) -> Result<BTreeMap<CString, Identity>, Errno> {
    let directory = open(root, path, OFlags::DIRECTORY)?;
    let mut entries = BTreeMap::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        entries.insert(name, Identity::from(&stat));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn root(path: &Path) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn a_tree_equals_itself_and_differs_from_another() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        assert!(!differs(&root(dir.path()), &root(dir.path()), 0).unwrap());
        let other = tempfile::tempdir().unwrap();
        assert!(differs(&root(dir.path()), &root(other.path()), 0).unwrap());
    }

    #[test]
    fn bytes_are_compared_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            move || File::open(&path).unwrap()
        };
        let long = vec![7; 100_000];
        let (a, b, c) = (file("a", &long), file("b", &long), file("c", &long[1..]));
        let mut other = long.clone();
        other[99_999] = 8;
        let d = file("d", &other);
        assert!(same_bytes(a(), b()).unwrap());
        assert!(!same_bytes(a(), c()).unwrap() && !same_bytes(c(), a()).unwrap());
        assert!(!same_bytes(a(), d()).unwrap());
    }

    #[test]
    fn each_kind_of_change_shows_in_the_identity() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let look = || entries(&root(dir.path()), &OsString::from(".")).unwrap();
        let before = look();
        assert!(look() == before);
        std::thread::sleep(std::time::Duration::from_millis(20));
        // Same length, and the modification time put back: the change time still tells.
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "y").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert!(look() != before);
    }
}
