//! Mounts, through the kernel's mount API: no `mount` command, no libzfs, no `/etc/mtab`.
//!
//! The options of a mount are its own (`MOUNT_ATTR_*`): ZFS takes none of them from the dataset's
//! properties when it is mounted directly, so they are always passed explicitly. What all mounts of a
//! dataset share is in [`filesystem`].

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, fsync, open, openat, syncfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::patience::patiently;

mod automounts;
mod elsewhere;
mod filesystem;
mod inside;
mod point;
mod private;
mod swap;
mod table;

pub(crate) use automounts::{mounted_snapshots, unmount_automounts};
pub(crate) use elsewhere::{everywhere, is_seen_by_first, on_networks, processes, some};
pub(crate) use filesystem::{Contexts, Shared, contexts, has_contexts};
pub(crate) use inside::displaced;
pub(crate) use point::{under_name, unmountable};
pub(crate) use private::{
    another_ones, attach_private, has_something_below, leads_to, link_private, make_private_place,
    take_away_private, unfit,
};
pub(crate) use swap::{prepare, put, topmost};
pub(crate) use table::{MountEntry, below, mounted_on, on_top, places, table};

/// A new mount of `dataset` that is attached nowhere.
///
/// Waits a little where the kernel says `EBUSY`: it does so, too, when it takes the dataset for another
/// one that is received into or unmounted at this moment, and had its objset at the same address
/// (`zpl_test_super` and what follows it).
pub(crate) fn detached(
    dataset: &str,
    options: MountAttrFlags,
    shared: &Shared,
) -> Result<OwnedFd, Errno> {
    // Read-only is an option of the mount alone, so that another mount of the dataset may be
    // writable; but a snapshot can't be mounted in any other way.
    let new = || new_mount(dataset, options, shared, dataset.contains('@'));
    patiently(new, |result| matches!(result, Err(Errno::BUSY)))
}

/// The root directory of a dataset or snapshot, by a mount that is attached nowhere and touches no access
/// times. The mount goes with the descriptor.
///
/// Where the dataset is mounted, in whichever mount namespace, this is the same file system, with one cache.
pub(crate) fn root_of(dataset: &str, contexts: &Contexts) -> Result<OwnedFd, Errno> {
    // A snapshot can't be mounted in any other way than read-only.
    root_with(dataset, contexts, dataset.contains('@'))
}

/// The same, but what is mounted nowhere is mounted read-only: nothing is written to it, such as what comes of
/// deleting files that are to be deleted (`zfs_unlinked_drain`).
pub(crate) fn root_as_it_is(dataset: &str, contexts: &Contexts) -> Result<OwnedFd, Errno> {
    root_with(dataset, contexts, true)
}

fn root_with(dataset: &str, contexts: &Contexts, read_only: bool) -> Result<OwnedFd, Errno> {
    let options = MountAttrFlags::MOUNT_ATTR_NOATIME;
    let shared = Shared { seen_at: None, contexts: contexts.clone() };
    let mount = || match new_mount(dataset, options, &shared, read_only) {
        // It is mounted with a file system that is the other way as a whole (`zpl_get_tree`).
        Err(Errno::BUSY) if !dataset.contains('@') => {
            new_mount(dataset, options, &shared, !read_only)
        }
        mount => mount,
    };
    let mount = patiently(mount, |result| matches!(result, Err(Errno::BUSY)))?;
    // The descriptor of a mount is for its path alone.
    openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn new_mount(
    dataset: &str,
    options: MountAttrFlags,
    shared: &Shared,
    read_only: bool,
) -> Result<OwnedFd, Errno> {
    let context = fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", dataset)?;
    if read_only {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    // What `zfs mount` passes: ZFS then accepts a mountpoint property that isn't `legacy`.
    fsconfig_set_flag(context.as_fd(), "zfsutil")?;
    shared.set(context.as_fd())?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, options)
}

/// Attaches a detached mount at `path`, which may be a link, as for `zfs mount`.
pub(crate) fn attach(mount: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, "", CWD, path, flags)
}

/// Takes the topmost mount at `path` away, at once for new lookups; files that are open in it stay
/// usable until they are closed.
pub(crate) fn detach(path: &Path) -> Result<(), Errno> {
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Takes a mount away if it is the topmost one at its path and its root an empty directory; says whether
/// it was empty, before and after.
pub(crate) fn take_away_empty(path: &Path, number: Option<u64>) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = match open(path, flags, Mode::empty()) {
        Ok(root) => root,
        // Something is mounted above it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let (_, top) = topmost(path)?;
    if Some(top) != number || !is_empty(&root)? {
        return Ok(false);
    }
    detach(path)?;
    is_empty(&root)
}

pub(crate) fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        if ![c".", c".."].contains(&entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the directory for the target's mount as `zfs mount` does.
pub(crate) fn make_mount_point(path: &Path) -> Result<(), Errno> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| errno_of(&e))
}

/// Writes the dirty pages of the file system whose root is open, mapped ones included, or those of the block
/// device, to ZFS.
pub(crate) fn flush_workspace(root: BorrowedFd<'_>) -> Result<(), Errno> {
    match FileType::from_raw_mode(fstat(root)?.st_mode) {
        FileType::BlockDevice => fsync(root),
        _ => syncfs(root),
    }
}

pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
