//! The private mount of a workspace: made, found again, and taken away with its directory.
//!
//! It is in a directory where only this user looks; or in one that belongs to another user, the gate. What
//! is above must be nobody else's to change: so no name on the way can be swapped, and no link is there.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Uid, chmodat, fchmod, fchown,
    fstat, mkdirat, open, openat, openat2, stat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::geteuid;

use super::detach;
use super::swap::{by_descriptor, number, topmost};
use crate::engine::{Fault, Private, Unfit};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const MARK: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many mounts may lie on a workspace.
const MOST_COVERS: usize = 100;

/// Attaches a detached mount privately; returns its root, opened.
pub(crate) fn attach_private(mount: &OwnedFd, at: Private<'_>) -> Result<OwnedFd, Fault> {
    // Opened before anybody else can reach it by the path.
    let root = openat(mount, ".", DIRECTORY, Mode::empty())?;
    let (directory, name) = make_directory(at)?;
    make_in(&directory, name, Mode::RWXU)?;
    let point = openat(&directory, name, MARK, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", point, "", flags)?;
    Ok(root)
}

/// Makes a private link to a device.
pub(crate) fn link_private(device: &Path, at: Private<'_>) -> Result<(), Fault> {
    let (directory, name) = make_directory(at)?;
    Ok(symlinkat(device, directory, name)?)
}

/// Takes a private mount away, with all that is mounted in it. By its root it is found wherever it is;
/// without that, it is the topmost mount at the path.
pub(crate) fn detach_private(at: Private<'_>, root: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let detached = match root {
        // A device is mounted nowhere.
        Some(root) if kind(&fstat(root)?) != FileType::Directory => return Ok(()),
        Some(root) => detach_by_root(root),
        None => detach(at.path),
    };
    match detached {
        // It is no mount (any more), so there is nothing (more) to unmount.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
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

/// Removes the directory of a private mount, or the link to a volume, or the gate with all that is in it;
/// and what was written there after somebody had taken the mount away. What is mounted in there stays,
/// and is an error. The parent stays: other transactions share it.
pub(crate) fn remove_private(at: Private<'_>) -> Result<(), Errno> {
    let made = match at.user {
        Some(_) => at.path.parent().ok_or(Errno::INVAL)?,
        None => at.path,
    };
    let (parent, name) = split(made)?;
    match openat2(CWD, parent, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        parent => {
            remove(parent?.as_fd(), &CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?)
        }
    }
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
    let same = if kind(&own) == FileType::BlockDevice {
        stat(at).map(|there| (kind(&there), there.st_rdev) == (kind(&own), own.st_rdev))
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

/// What makes a place unfit for private mounts, if anything does. What doesn't exist yet is fit.
pub(crate) fn unfit(place: &Path, shared: bool) -> Result<Option<Unfit>, Errno> {
    match walk(place, shared, false)? {
        Ok(_) => Ok(None),
        Err(unfit) => Ok(Some(unfit)),
    }
}

/// Makes the directory where only this user looks, if it isn't there, and opens it.
pub(crate) fn make_private_place(place: &Path) -> Result<OwnedFd, Fault> {
    make_place(place, false)
}

fn make_place(place: &Path, shared: bool) -> Result<OwnedFd, Fault> {
    match walk(place, shared, true)? {
        Ok(Some(place)) => Ok(place),
        Ok(None) => Err(Errno::NOENT.into()),
        Err(Unfit { path, reason }) => {
            let detail = Some(format!("{} {reason}", path.display()));
            Err(Fault { detail, ..Errno::NOTSUP.into() })
        }
    }
}

/// Makes the directory in which a private mount point, or a link, is to be; its name in there as well.
fn make_directory(at: Private<'_>) -> Result<(OwnedFd, &OsStr), Fault> {
    let (parent, name) = split(at.path)?;
    let Some(user) = at.user else { return Ok((make_place(parent, false)?, name)) };
    let (place, gate) = split(parent)?;
    let place = make_place(place, true)?;
    make_in(&place, gate, Mode::RWXU)?;
    let gate = openat(&place, gate, DIRECTORY, Mode::empty())?;
    fchmod(&gate, Mode::RWXU)?;
    fchown(&gate, Some(Uid::from_raw(user)), None)?;
    Ok((gate, name))
}

fn split(path: &Path) -> Result<(&Path, &OsStr), Errno> {
    path.parent().zip(path.file_name()).ok_or(Errno::INVAL)
}

fn make_in(directory: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    match mkdirat(directory, name, mode) {
        // Past the mask of this process.
        Ok(()) => chmodat(directory, name, mode, AtFlags::empty()),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Goes down to a directory, link by link, and looks at each on the way: whether it is somebody else's to
/// change. `shared` says that others may enter it. Nothing is opened where it doesn't exist and is not to
/// be made.
fn walk(place: &Path, shared: bool, make: bool) -> Result<Result<Option<OwnedFd>, Unfit>, Errno> {
    let mode = if shared { Mode::from_raw_mode(0o711) } else { Mode::RWXU };
    let mut path = PathBuf::from("/");
    let mut here = open(&path, MARK, Mode::empty())?;
    let mut rest = place.components().skip(1).peekable();
    loop {
        let last = rest.peek().is_none();
        if let Some(reason) = reason_against(&fstat(&here)?, last, shared) {
            return Ok(Err(Unfit { path, reason }));
        }
        let Some(component) = rest.next() else { return Ok(Ok(Some(here))) };
        let Component::Normal(name) = component else { return Err(Errno::INVAL) };
        path.push(name);
        let open = || openat(&here, name, MARK, Mode::empty());
        let mut next = open();
        if next.as_ref().err() == Some(&Errno::NOENT) {
            if !make {
                return Ok(Ok(None));
            }
            make_in(&here, name, mode)?;
            next = open();
        }
        here = match next {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let reason = "is a symbolic link, or no directory: name what it leads to";
                return Ok(Err(Unfit { path, reason }));
            }
            next => next?,
        };
    }
}

/// Why a directory on the way to a private mount, or the `last` one, is not to be trusted.
fn reason_against(stat: &Stat, last: bool, shared: bool) -> Option<&'static str> {
    let mode = stat.st_mode;
    let others = mode & 0o002 != 0 || mode & 0o020 != 0 && (last || stat.st_gid != 0);
    // In a sticky directory nobody moves what is another's.
    let sticky = mode & 0o1000 != 0 && !last;
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        Some("belongs to another user, who could put something else in its place")
    } else if others && !sticky {
        Some("may be written to by others: take that away (chmod go-w)")
    } else if last && !shared && mode & 0o077 != 0 {
        Some("may be entered by others, who would see workspaces: take that away (chmod go=)")
    } else {
        None
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_place_is_unfit_where_others_may_write_or_enter() {
        let (_directory, top) = directory();
        let place = top.join("a/b");
        assert_eq!(unfit(&place, false), Ok(None));
        assert!(!top.join("a").exists());
        fs::create_dir_all(&place).unwrap();
        for (above, own, private, shared) in [
            (0o755, 0o700, true, true),
            (0o755, 0o711, false, true),
            (0o755, 0o755, false, true),
            (0o755, 0o770, false, false),
            (0o755, 0o702, false, false),
            (0o755, 0o1777, false, false),
            (0o777, 0o700, false, false),
            (0o1777, 0o700, true, true),
        ] {
            set_mode(&top.join("a"), above);
            set_mode(&place, own);
            let fit = |shared| unfit(&place, shared).unwrap().is_none();
            assert_eq!((fit(false), fit(true)), (private, shared), "{above:o} {own:o}");
            assert_eq!((make_place(&place, false).is_ok(), mode(&place)), (private, own));
        }
        set_mode(&place, 0o770);
        assert_eq!(unfit(&place, false).unwrap().unwrap().path, place);
    }

    #[test]
    fn a_link_on_the_way_is_refused() {
        let (_directory, top) = directory();
        fs::create_dir_all(top.join("real/place")).unwrap();
        symlink(top.join("real"), top.join("link")).unwrap();
        symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        for (place, named) in
            [("link/place", "link"), ("link", "link"), ("dangling", "dangling"), ("file/x", "file")]
        {
            let unfit = unfit(&top.join(place), true).unwrap().unwrap();
            assert_eq!(unfit.path, top.join(named));
            assert!(make_place(&top.join(place), true).is_err());
        }
        assert!(!top.join("nowhere").exists());
    }

    #[test]
    fn what_is_made_has_its_mode_whatever_the_mask() {
        let (_directory, top) = directory();
        make_place(&top.join("shared/deep"), true).unwrap();
        make_place(&top.join("private"), false).unwrap();
        let modes = ["shared", "shared/deep", "private"].map(|name| mode(&top.join(name)));
        assert_eq!(modes, [0o711, 0o711, 0o700]);
    }

    #[test]
    fn a_tree_is_removed_without_following_links() {
        let (_directory, top) = directory();
        let (at, other) = (top.join("at"), top.join("other"));
        fs::create_dir_all(at.join("deep/er")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "x").unwrap();
        fs::write(at.join("deep/file"), "x").unwrap();
        symlink(&other, at.join("deep/er/link")).unwrap();
        let private = Private { path: &at, user: None };
        remove_private(private).unwrap();
        assert!(!at.exists());
        symlink(&other, &at).unwrap();
        remove_private(private).unwrap();
        remove_private(private).unwrap();
        assert!(fs::symlink_metadata(&at).is_err());
        assert_eq!(fs::read(other.join("file")).unwrap(), b"x");
    }
}
