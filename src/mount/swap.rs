//! One mount takes another's place, without a moment in which nothing is there.
//!
//! The new mount goes beneath the old one, which is then taken away (Linux 6.5 and later). Where the
//! mount point's parent is shared, both pass on to its peers and slaves, in this mount namespace and
//! in others: so a place may have the new content by the time that it is its turn.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, mount_change, mount_remount,
    move_mount,
};

use super::table::{MountEntry, by_id};
use super::{Shared, attach, below, detach, make_mount_point, mounted_on, table};
use crate::engine::{Attached, Fault, Place, PreparedMount, Tie};

/// Makes the mount of `dataset` that is to be at `place`, attached nowhere yet.
pub(crate) fn prepare(
    dataset: &str,
    place: Place,
    shared: &Shared,
) -> Result<PreparedMount, Fault> {
    let path = place.path.display();
    let fault = |errno: Errno, detail| Fault { errno: errno.into(), detail: Some(detail) };
    if let Some(what) = &place.uncarried {
        let detail = format!("the mount at {path} is {what}, which a new one would not be");
        return Err(fault(Errno::NOTSUP, detail));
    }
    let old = match place.replaces {
        None => None,
        Some(number) => match topmost(&place.path) {
            Ok((old, top)) if top == number => Some(old),
            Ok(_) | Err(Errno::NOENT) => {
                return Err(fault(
                    Errno::BUSY,
                    format!("the mount at {path} is hidden by another"),
                ));
            }
            Err(errno) => return Err(errno.into()),
        },
    };
    let mount = super::detached(dataset, place.options, shared)?;
    Ok(PreparedMount { place, mount, _old: old })
}

/// Attaches a prepared mount at its place, in exchange for the mount that is there.
pub(crate) fn put(prepared: &PreparedMount) -> Result<Attached, Fault> {
    let PreparedMount { place, mount, .. } = prepared;
    let table = table()?;
    let Some(old) = place.replaces else {
        if let Some(below) = below(&table, &place.path).first() {
            return Err(in_the_way(below));
        }
        make_mount_point(&place.path)?;
        attach(mount, &place.path)?;
        return Ok(Attached::There { gap: None });
    };
    if by_id(&table, old).is_none() {
        let passed_on = adopt(mount, place)?;
        return Ok(if passed_on { Attached::There { gap: None } } else { Attached::Gone });
    }
    let covered = is_on(&table, old, device(mount)?);
    if !covered {
        refuse_covered(&table, &place.path, old)?;
        match put_beneath(mount, &place.path) {
            Ok(()) => {}
            // An older kernel, or a mount point beneath which nothing can be put.
            Err(Errno::INVAL) => {
                let gap = exchange(mount, &place.path, old)?;
                carry(mount.as_fd(), place)?;
                return Ok(Attached::There { gap: Some(gap) });
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    uncover(&place.path, old)?;
    match covered {
        false => carry(mount.as_fd(), place)?,
        // From a swap that was interrupted between its two calls: another mount than the prepared.
        true => drop(adopt(mount, place)?),
    }
    Ok(Attached::There { gap: None })
}

/// Puts a mount that is attached nowhere beneath the topmost one at `path`.
fn put_beneath(mount: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    move_mount(mount, "", CWD, path, flags)
}

/// Takes the old mount away from above the new one.
fn uncover(path: &Path, old: u64) -> Result<(), Fault> {
    refuse_covered(&table()?, path, old).map_err(|fault| Fault {
        detail: fault.detail.map(|detail| {
            format!("{detail}; the new content is mounted beneath, and appears by recovery")
        }),
        ..fault
    })?;
    remove(path, old)
}

/// Takes the old mount away and attaches the new one; says how long the path was bare.
fn exchange(mount: &OwnedFd, path: &Path, old: u64) -> Result<Duration, Fault> {
    refuse_covered(&table()?, path, old)?;
    let bare = Instant::now();
    remove(path, old)?;
    attach(mount, path)?;
    Ok(bare.elapsed())
}

/// Something that was mounted on the old mount meanwhile is not ours to take away.
fn refuse_covered(table: &[MountEntry], path: &Path, old: u64) -> Result<(), Fault> {
    if let Some(on) = mounted_on(table, old).first() {
        return Err(in_the_way(on));
    }
    let (_, top) = topmost(path)?;
    if top == old { Ok(()) } else { Err(in_the_way(path)) }
}

/// Takes the topmost mount away, which was the old one just now.
fn remove(path: &Path, old: u64) -> Result<(), Fault> {
    detach(path)?;
    if by_id(&table()?, old).is_none() {
        return Ok(());
    }
    let detail = format!("{} was mounted on in the same moment: that is gone", path.display());
    Err(Fault { errno: Errno::BUSY.into(), detail: Some(detail) })
}

/// Gives the new content that is at a place by now what belongs to the place. Says whether it is.
fn adopt(mount: &OwnedFd, place: &Place) -> Result<bool, Fault> {
    let Ok((there, number)) = topmost(&place.path) else { return Ok(false) };
    let table = table()?;
    let Some(entry) = by_id(&table, number) else { return Ok(false) };
    if entry.device != device(mount)? || entry.path != place.path {
        return Ok(false);
    }
    if entry.options != place.options {
        let flags = MountFlags::BIND | remount_flags(place.options);
        mount_remount(by_descriptor(there.as_fd()), flags, "")?;
    }
    carry(there.as_fd(), place)?;
    Ok(true)
}

/// Gives an attached mount the propagation that belongs to its place. Not before the old mount is
/// gone: the end of that one passes on by way of the new one.
fn carry(mount: BorrowedFd<'_>, place: &Place) -> Result<(), Errno> {
    use MountPropagationFlags as To;
    let wanted = &place.propagation;
    let change = |to| mount_change(by_descriptor(mount), to);
    let Some(Tie::Peer(other) | Tie::Slave(other)) = &wanted.tie else {
        return change(match wanted {
            wanted if wanted.shared => To::SHARED,
            wanted if wanted.unbindable => To::UNBINDABLE,
            _ => To::PRIVATE,
        });
    };
    change(To::PRIVATE)?;
    let (other, _) = topmost(other)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_SET_GROUP;
    match move_mount(&other, "", mount, "", flags) {
        Ok(()) => {}
        // Linux before 5.15, or the other one is not of the new content.
        Err(Errno::INVAL) => {
            tracing::warn!(path = %place.path.display(), "the mount has lost its peers");
            return if wanted.shared { change(To::SHARED) } else { Ok(()) };
        }
        Err(errno) => return Err(errno),
    }
    if matches!(wanted.tie, Some(Tie::Slave(_))) {
        change(To::DOWNSTREAM)?;
        if wanted.shared {
            change(To::SHARED)?;
        }
    }
    Ok(())
}

/// Whether the mount `old` is directly on another one of the file system with this device number.
fn is_on(table: &[MountEntry], old: u64, device: (u32, u32)) -> bool {
    let beneath = by_id(table, old).and_then(|old| by_id(table, old.parent).zip(Some(old)));
    beneath.is_some_and(|(beneath, old)| beneath.device == device && beneath.path == old.path)
}

/// The topmost mount at `path`, and its number in the mount table (Linux 5.8 and later).
pub(crate) fn topmost(path: &Path) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = rustix::fs::open(path, flags, Mode::empty())?;
    let number = number(mount.as_fd())?;
    Ok((mount, number))
}

/// The number in the mount table of the mount by which something was opened.
pub(super) fn number(opened: BorrowedFd<'_>) -> Result<u64, Errno> {
    let stat = rustix::fs::statx(opened, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    if known { Ok(stat.stx_mnt_id) } else { Err(Errno::OPNOTSUPP) }
}

fn device(mount: &OwnedFd) -> Result<(u32, u32), Errno> {
    let stat = rustix::fs::statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// A path that leads to a mount also where others lie on it.
pub(super) fn by_descriptor(mount: BorrowedFd<'_>) -> String {
    format!("/proc/thread-self/fd/{}", mount.as_raw_fd())
}

/// The same options for the older call, which takes silence about access times for "as they are".
fn remount_flags(options: MountAttrFlags) -> MountFlags {
    use MountAttrFlags as A;
    let pairs = [
        (A::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (A::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (A::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (A::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (A::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (A::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let access_times = match options {
        options if options.contains(A::MOUNT_ATTR_NOATIME) => MountFlags::NOATIME,
        options if options.contains(A::MOUNT_ATTR_STRICTATIME) => MountFlags::STRICTATIME,
        _ => MountFlags::RELATIME,
    };
    let given = pairs.into_iter().filter(|(attribute, _)| options.contains(*attribute));
    given.fold(access_times, |flags, (_, flag)| flags | flag)
}

/// Something that a mount or unmount would hide or take along.
fn in_the_way(path: &Path) -> Fault {
    let detail = format!("{} is mounted there: it is left alone", path.display());
    Fault { errno: Errno::BUSY.into(), detail: Some(detail) }
}

#[cfg(test)]
mod on_zfs;
