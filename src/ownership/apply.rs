//! An ownership is applied to a directory and what is in it.
//!
//! Everything is opened once, without following a link, and looked at and changed by that descriptor alone:
//! what is put in a name's place between two calls is not touched.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, StatxAttributes, StatxFlags,
    XattrFlags, chmod, chownat, fstat, getxattr, setxattr, statfs, statx,
};
use rustix::io::Errno;

use super::Ids;
use super::change::{Status, may_keep_capabilities};
use crate::engine::Fault;
use crate::ffi;
use crate::tree::{Below, open_below};

const CAPABILITIES: &str = "security.capability";
/// More than any version of `struct vfs_ns_cap_data` has.
const CAPABILITIES_ROOM: usize = 64;
const ACCESS_LIST: &str = "system.posix_acl_access";

/// What could not be done with a file.
#[derive(Debug, Clone, Copy)]
enum Act {
    Open,
    List,
    Look,
    Give,
    SetMode,
    ReadCapabilities,
    PutCapabilitiesBack,
}

impl Act {
    fn text(self) -> &'static str {
        match self {
            Self::Open => "it can't be opened",
            Self::List => "its entries can't be listed",
            Self::Look => "its status can't be read",
            Self::Give => "its owner or group can't be changed",
            Self::SetMode => "its mode can't be changed",
            Self::ReadCapabilities => "its capabilities can't be read",
            Self::PutCapabilitiesBack => "its capabilities can't be put back",
        }
    }
}

/// What has failed, and why if the file says so.
#[derive(Debug)]
struct Failure {
    act: Act,
    errno: Errno,
    flag: Option<&'static str>,
}

impl Act {
    fn failed(self, errno: Errno) -> Failure {
        Failure { act: self, errno, flag: None }
    }
}

impl Failure {
    /// Names the file; bytes that are no text are told as escapes.
    fn of(self, path: &Below) -> Fault {
        let path = PathBuf::from(path.clone());
        let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        let why = self.flag.map(|flag| format!(", it is {flag}")).unwrap_or_default();
        let detail = format!("{path:?}: {}{why}", self.act.text());
        Fault { detail: Some(detail), ..Fault::from(crate::errno::Errno::from(self.errno)) }
    }
}

impl Ids {
    /// Applies it to the directory `root`.
    pub(crate) fn apply(&self, root: BorrowedFd<'_>) -> Result<(), Fault> {
        let top = Below::root();
        if self.whole_tree {
            self.apply_below(root)?;
        }
        let stat = fstat(root).map_err(|errno| Act::Look.failed(errno).of(&top))?;
        self.put_right(root, &stat).map_err(|failure| failure.of(&top))
    }

    /// Visits directories breadth first, each by its path from the root's descriptor, so that a deep tree
    /// needs no more than three descriptors at a time.
    fn apply_below(&self, root: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut pending = VecDeque::from([Below::root()]);
        while let Some(path) = pending.pop_front() {
            let failed = |act: Act| {
                let path = &path;
                move |errno| act.failed(errno).of(path)
            };
            let directory = open_below(root, &path, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(failed(Act::Open))?;
            for entry in Dir::read_from(&directory).map_err(failed(Act::List))? {
                let entry = entry.map_err(failed(Act::List))?;
                let name = entry.file_name().to_bytes();
                // With snapdir=visible the root lists ZFS's own directory, too.
                let control = path == Below::root() && name == b".zfs";
                if control || matches!(name, b"." | b"..") {
                    continue;
                }
                let below = path.join(name);
                let kind = self.visit(directory.as_fd(), name);
                if kind.map_err(|failure| failure.of(&below))? == Some(FileType::Directory) {
                    pending.push_back(below);
                }
            }
        }
        Ok(())
    }

    /// Puts an entry of a directory right, and says what it is; `None` where something is mounted on it.
    fn visit(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Failure> {
        let name = Below::root().join(name);
        let file = match open_below(directory, &name, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::XDEV) => return Ok(None),
            file => file.map_err(|errno| Act::Open.failed(errno))?,
        };
        let stat = fstat(&file).map_err(|errno| Act::Look.failed(errno))?;
        self.put_right(file.as_fd(), &stat)?;
        Ok(Some(FileType::from_raw_mode(stat.st_mode)))
    }

    /// Changes of a file what is wrong.
    fn put_right(&self, file: BorrowedFd<'_>, stat: &Stat) -> Result<(), Failure> {
        let mut now = Status::from(stat);
        let gift = self.gift(&now);
        let mut capabilities = None;
        if let Some(gift) = gift {
            let mode = self.mode_for(&now, true).unwrap_or(now.mode);
            // Nobody can run what has no execute bit.
            let executable = now.kind == FileType::RegularFile && mode & 0o111 != 0;
            if executable && may_keep_capabilities(gift, mode) {
                capabilities = capabilities_of(file, gift.group.is_some())
                    .map_err(|errno| Act::ReadCapabilities.failed(errno))?;
            }
            chownat(file, "", gift.user, gift.group, AtFlags::EMPTY_PATH)
                .map_err(|errno| refused(file, Act::Give, errno))?;
            now = Status::from(&fstat(file).map_err(|errno| Act::Look.failed(errno))?);
        }
        if let Some(mode) = self.mode_for(&now, gift.is_some()).filter(|mode| *mode != now.mode) {
            set_mode(file, Mode::from_raw_mode(mode))
                .map_err(|errno| refused(file, Act::SetMode, errno))?;
        }
        let Some(capabilities) = capabilities else { return Ok(()) };
        path_to(file)
            .and_then(|path| setxattr(path, CAPABILITIES, &capabilities, XattrFlags::empty()))
            .map_err(|errno| refused(file, Act::PutCapabilitiesBack, errno))
    }
}

/// What has failed, and whether a flag of the file is why.
fn refused(file: BorrowedFd<'_>, act: Act, errno: Errno) -> Failure {
    let look = || statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty());
    let flag = match (errno == Errno::PERM).then(look) {
        Some(Ok(status)) if status.stx_attributes.contains(StatxAttributes::IMMUTABLE) => {
            Some("immutable")
        }
        Some(Ok(status)) if status.stx_attributes.contains(StatxAttributes::APPEND) => {
            Some("append-only")
        }
        _ => None,
    };
    Failure { flag, ..act.failed(errno) }
}

/// The capabilities that a file gives to who runs it; `None` as well where it has an access list, and its
/// group changes: then its mode doesn't say what the group may do.
fn capabilities_of(file: BorrowedFd<'_>, group: bool) -> Result<Option<Vec<u8>>, Errno> {
    let path = path_to(file)?;
    let mut room = vec![0; CAPABILITIES_ROOM];
    match getxattr(&path, CAPABILITIES, &mut room[..]) {
        Ok(length) => room.truncate(length),
        // There are none, or they are another user namespace's.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::OVERFLOW) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let mut none = [0; 0];
    match group.then(|| getxattr(&path, ACCESS_LIST, &mut none[..])) {
        None | Some(Err(Errno::NODATA | Errno::OPNOTSUPP)) => Ok(Some(room)),
        Some(Ok(_) | Err(Errno::RANGE)) => Ok(None),
        Some(Err(errno)) => Err(errno),
    }
}

/// Sets the permission bits of what is open.
fn set_mode(file: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    match ffi::mode::set_mode(file, mode) {
        // There is no such call, or a filter refuses it.
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => match path_to(file) {
            Ok(path) => chmod(path, mode),
            Err(_) => Err(errno),
        },
        result => result,
    }
}

/// A path to what is open, which the kernel follows to this very file: what a descriptor for the path alone
/// can't be used for goes by this. Refused where the kernel's `/proc` isn't there: another directory's links
/// could lead anywhere.
fn path_to(file: BorrowedFd<'_>) -> Result<String, Errno> {
    const DESCRIPTORS: &str = "/proc/thread-self/fd";
    match statfs(DESCRIPTORS)?.f_type == PROC_SUPER_MAGIC {
        true => Ok(format!("{DESCRIPTORS}/{}", file.as_raw_fd())),
        false => Err(Errno::NOENT),
    }
}

#[cfg(test)]
mod tests;
