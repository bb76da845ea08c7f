//! The private mount of a workspace: made, found again, and taken away with its directory.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, stat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::swap::{by_descriptor, number, topmost};
use super::{detach, errno_of};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the directory for a private mount, where only this user looks.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), Errno> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| errno_of(&e))
}

/// How many mounts may lie on a workspace.
const MOST_COVERS: usize = 100;

/// Attaches a detached mount where only this user looks; returns its root, opened.
pub(crate) fn attach_private(mount: &OwnedFd, at: &Path) -> Result<OwnedFd, Errno> {
    // Opened before anybody else can reach it by the path.
    let root = openat(mount, ".", DIRECTORY, Mode::empty())?;
    make_private_directory(at)?;
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(root)
}

/// Takes a private mount away, with all that is mounted in it. By its root it is found wherever it is;
/// without that, it is the topmost mount at the path.
pub(crate) fn detach_private(at: &Path, root: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let detached = match root {
        // A device is mounted nowhere.
        Some(root) if !is_directory(root)? => return Ok(()),
        Some(root) => detach_by_root(root),
        None => detach(at),
    };
    match detached {
        // It is no mount (any more), so there is nothing (more) to unmount.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Takes away what is mounted on a root, and the mount of the root itself: the kernel takes the topmost
/// one.
fn detach_by_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    for _ in 0..MOST_COVERS {
        unmount(by_descriptor(root), UnmountFlags::DETACH)?;
    }
    Err(Errno::BUSY)
}

/// Removes the directory of a private mount, or the link to a volume, and what was written there after
/// somebody had taken these away. What is mounted in there stays, and is an error. The parent stays:
/// other transactions share it.
pub(crate) fn remove_private(at: &Path) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = match openat(CWD, parent, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        parent => parent?,
    };
    let name = std::ffi::CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    remove(parent.as_fd(), &name)
}

/// Removes a file or a tree, following no link and going into no mount.
fn remove(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY) => {}
        Err(errno) => return Err(errno),
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let inside = openat2(directory, name, DIRECTORY, Mode::empty(), resolve)?;
    for entry in Dir::read_from(&inside)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            remove(inside.as_fd(), entry.file_name())?;
        }
    }
    unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Whether the path leads to this root of a mount, by this very mount, or to this device.
pub(crate) fn leads_to(at: &Path, root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let own = fstat(root)?;
    let same = if FileType::from_raw_mode(own.st_mode) == FileType::BlockDevice {
        stat(at).map(|there| {
            (there.st_mode & FORMAT, there.st_rdev) == (own.st_mode & FORMAT, own.st_rdev)
        })
    } else {
        // The mount's number is not given to another one as long as the root is open.
        let own = (own.st_dev, own.st_ino, number(root)?);
        topmost(at).and_then(|(there, number)| {
            let there = fstat(&there)?;
            Ok((there.st_dev, there.st_ino, number) == own)
        })
    };
    match same {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        same => same,
    }
}

/// The part of a mode that says what kind of file it is.
const FORMAT: u32 = 0o170_000;

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}
