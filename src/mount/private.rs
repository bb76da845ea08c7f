//! The private mount of a workspace: made, found again, and taken away with its directory.
//!
//! It is in a directory where only this user looks; or in one that belongs to another user, the gate. What
//! is above must be nobody else's to change: so no name on the way can be swapped, and no link is there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat,
    open, openat, openat2, stat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::process::geteuid;

use super::is_empty;
use super::swap::{by_descriptor, number, topmost};
use crate::engine::{Fault, Private, Unfit};
use crate::receipt::{Guid, Keeps, Leftover};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const MARK: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why a directory is not opened.
const COVERED: &str = "has something mounted on it: it is left alone";

/// How many mounts may lie on a workspace.
const MOST_COVERS: usize = 100;

/// Attaches a detached mount privately; returns its root, opened.
pub(crate) fn attach_private(mount: &OwnedFd, at: Private<'_>) -> Result<OwnedFd, Fault> {
    // Opened before anybody else can reach it by the path.
    let root = openat(mount, ".", DIRECTORY, Mode::empty())?;
    let (directory, name) = make_directory(at)?;
    make_in(&directory, name, Mode::RWXU)?;
    let point = match open_own(&directory, name, at.user)? {
        Ok(point) => point,
        // A mount of before that could not be taken away: the new one lies on it.
        Err(COVERED) => openat(&directory, name, MARK, Mode::empty())?,
        Err(reason) => return Err(not_fit(at.path, reason)),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", point, "", flags)?;
    let_in(&directory, at.user)?;
    Ok(root)
}

/// Makes a private link to a device.
pub(crate) fn link_private(device: &Path, at: Private<'_>) -> Result<(), Fault> {
    let (directory, name) = make_directory(at)?;
    symlinkat(device, &directory, name)?;
    Ok(let_in(&directory, at.user)?)
}

/// Takes a private mount away, with all that is mounted in it, and removes its directory; or the link to a
/// volume. By its root the mount is found wherever it is; without that, it is the topmost mount at the path.
///
/// Of the directories, the gate included, only empty ones are removed: what somebody has written there, or
/// mounted, may be found nowhere else. What stays is returned, and so is a path that is somebody else's to
/// change by now: nothing at it is touched. The parent stays: other transactions share it.
pub(crate) fn take_away_private(
    at: Private<'_>,
    root: Option<BorrowedFd<'_>>,
) -> Result<Option<Leftover>, Errno> {
    if let Some(root) = root {
        unmounted(detach_by_root(root))?;
    }
    let (parent, name) = split(at.path)?;
    let (place, gate) = match at.user {
        Some(_) => split(parent).map(|(place, gate)| (place, Some(gate)))?,
        None => (parent, None),
    };
    let place = match walk(place, gate.is_some(), false)? {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(None),
        Err(Unfit { path, reason }) => {
            let reason = format!("{} {reason}", path.display());
            return Ok(Some(leftover(at.path, reason, Keeps::Unknown)));
        }
    };
    let Some(gate_name) = gate else {
        return take_away_in(&place, name, at.path, root.is_some());
    };
    // From now on who was let in can make nothing there.
    let gate = match open_own(&place, gate_name, at.user) {
        Ok(Ok(gate)) => gate,
        Ok(Err(reason)) => {
            let reason = format!("{} {reason}", parent.display());
            return Ok(Some(leftover(at.path, reason, Keeps::Unknown)));
        }
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match take_away_in(&gate, name, at.path, root.is_some())? {
        None => Ok(remove(&place, gate_name, parent)),
        left => Ok(left),
    }
}

fn take_away_in(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    is_unmounted: bool,
) -> Result<Option<Leftover>, Errno> {
    if !is_unmounted {
        let topmost = openat(directory, name, MARK, Mode::empty());
        unmounted(
            topmost.and_then(|mount| unmount(by_descriptor(mount.as_fd()), UnmountFlags::DETACH)),
        )?;
    }
    Ok(remove(directory, name, path))
}

/// It is no mount (any more), so there is nothing (more) to unmount.
fn unmounted(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        result => result,
    }
}

/// Takes away what is mounted on a root, and the mount of the root itself: the kernel takes the topmost
/// one.
fn detach_by_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    // A device is mounted nowhere.
    if kind(&fstat(root)?) != FileType::Directory {
        return Ok(());
    }
    for _ in 0..MOST_COVERS {
        unmount(by_descriptor(root), UnmountFlags::DETACH)?;
    }
    Err(Errno::BUSY)
}

/// Removes a link or an empty directory; says what stays.
fn remove(directory: &OwnedFd, name: &OsStr, path: &Path) -> Option<Leftover> {
    let is_link = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| kind(&stat) == FileType::Symlink);
    let flags = if is_link { AtFlags::empty() } else { AtFlags::REMOVEDIR };
    let (reason, keeps) = match unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => return None,
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
            let reason = "something was written there that is no part of the workspace: look at it, take \
                          what is needed, and remove it";
            (reason.to_owned(), Keeps::Changes)
        }
        Err(errno) => (format!("it could not be removed: {errno}"), Keeps::Unknown),
    };
    Some(leftover(path, reason, keeps))
}

fn leftover(path: &Path, reason: String, keeps: Keeps) -> Leftover {
    Leftover { name: path.display().to_string(), guid: Guid(0), reason, keeps }
}

/// What is at the path of a workspace and is none of this transaction's.
pub(crate) fn another_ones(path: &Path) -> Leftover {
    let reason =
        "what is mounted there, or the link there, is another transaction's: it is left alone";
    leftover(path, reason.to_owned(), Keeps::Unknown)
}

/// Whether something is in the directory below the mount at the path: it was written there in another mount
/// namespace, or while the mount was away. `false` where the kernel doesn't let the directory be seen.
pub(crate) fn has_something_below(at: &Path) -> Result<bool, Errno> {
    let (parent, name) = split(at)?;
    // A copy of the mount above, without those on it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let Ok(above) = open_tree(CWD, parent, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW) else {
        return Ok(false);
    };
    match openat(&above, name, DIRECTORY, Mode::empty()) {
        Ok(below) => Ok(!is_empty(&below)?),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(errno) => Err(errno),
    }
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
        Err(Unfit { path, reason }) => Err(not_fit(&path, reason)),
    }
}

fn not_fit(path: &Path, reason: &str) -> Fault {
    let detail = Some(format!("{} {reason}", path.display()));
    Fault { detail, ..Errno::NOTSUP.into() }
}

/// Makes the directory in which a private mount point, or a link, is to be; its name in there as well. Nobody
/// else can enter it until somebody is let in.
fn make_directory(at: Private<'_>) -> Result<(OwnedFd, &OsStr), Fault> {
    let (parent, name) = split(at.path)?;
    if at.user.is_none() {
        return Ok((make_place(parent, false)?, name));
    }
    let (place, gate) = split(parent)?;
    let place = make_place(place, true)?;
    make_in(&place, gate, Mode::RWXU)?;
    let gate = open_own(&place, gate, at.user)?.map_err(|reason| not_fit(parent, reason))?;
    Ok((gate, name))
}

/// Opens a directory that this transaction has made, and that may have been the user's since; takes it back,
/// for this process alone. Or says why it can't be that directory.
fn open_own(
    directory: &OwnedFd,
    name: &OsStr,
    user: Option<u32>,
) -> Result<Result<OwnedFd, &'static str>, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let own = match openat2(directory, name, DIRECTORY, Mode::empty(), resolve) {
        Ok(own) => own,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(Err("is a symbolic link, or no directory: it is left alone"));
        }
        Err(Errno::XDEV) => return Ok(Err(COVERED)),
        Err(errno) => return Err(errno),
    };
    let (owner, myself) = (fstat(&own)?.st_uid, geteuid());
    if ![Some(0), Some(myself.as_raw()), user].contains(&Some(owner)) {
        return Ok(Err("belongs to another user: it is left alone"));
    }
    // First the owner, who could change the mode.
    fchown(&own, Some(myself), None)?;
    fchmod(&own, Mode::RWXU)?;
    Ok(Ok(own))
}

/// Has the user own the gate, when all that is to be in it is there.
fn let_in(gate: &OwnedFd, user: Option<u32>) -> Result<(), Errno> {
    user.map_or(Ok(()), |user| fchown(gate, Some(Uid::from_raw(user)), None))
}

fn split(path: &Path) -> Result<(&Path, &OsStr), Errno> {
    path.parent().zip(path.file_name()).ok_or(Errno::INVAL)
}

fn make_in(directory: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    match mkdirat(directory, name, mode) {
        // Past the mask of this process.
        Ok(()) => fchmod(openat(directory, name, DIRECTORY, Mode::empty())?, mode),
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
    // The group's bits also stand for whatever an access control list grants to others.
    let others = mode & 0o022 != 0;
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
            (0o775, 0o700, false, false),
            (0o1775, 0o700, true, true),
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
    fn what_was_written_into_a_directory_stays_and_an_empty_one_goes() {
        let (_directory, top) = directory();
        let (at, other) = (top.join("at"), top.join("other"));
        fs::create_dir_all(at.join("deep")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "x").unwrap();
        set_mode(&top, 0o700);
        let private = Private { path: &at, user: None, becomes: None };
        let left = || take_away_private(private, None).unwrap().map(|left| (left.name, left.keeps));
        let stays = || Some((at.display().to_string(), Keeps::Changes));
        assert_eq!(left(), stays());
        assert!(at.join("deep").exists());
        fs::remove_dir(at.join("deep")).unwrap();
        assert_eq!(left(), None);
        assert!(!at.exists());
        fs::write(&at, "x").unwrap();
        assert_eq!(left(), stays());
        assert_eq!(fs::read(&at).unwrap(), b"x");
        fs::remove_file(&at).unwrap();
        symlink(&other, &at).unwrap();
        assert_eq!((left(), left()), (None, None));
        assert!(fs::symlink_metadata(&at).is_err());
        assert_eq!(fs::read(other.join("file")).unwrap(), b"x");
        set_mode(&top, 0o777);
        fs::create_dir(&at).unwrap();
        assert_eq!(left(), Some((at.display().to_string(), Keeps::Unknown)));
        assert!(at.exists());
    }
}
