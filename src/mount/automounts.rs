//! Snapshots that ZFS mounts by itself, when somebody looks into `.zfs/snapshot`, and unmounts after five
//! minutes (`zfs_expire_snapshot`).
//!
//! A snapshot that is mounted can't pass to another dataset or be destroyed. ZFS's own calls unmount it
//! before (`zfs_unmount_snap`), but channel programs don't.

use std::path::PathBuf;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::table;
use super::table::MountEntry;

/// Unmounts what ZFS has mounted by itself of snapshots (full names), in this mount namespace. What somebody
/// is in stays, and so does what was mounted by somebody.
pub(crate) fn unmount_automounts(is_meant: impl Fn(&str) -> bool) -> Result<(), Errno> {
    for mount in table()?.iter().filter(|mount| is_automount(mount) && is_meant(&mount.source)) {
        if let Err(errno) = unmount(&mount.path, UnmountFlags::NOFOLLOW) {
            tracing::debug!(snapshot = %mount.source, %errno, "the snapshot stays mounted");
        }
    }
    Ok(())
}

fn is_automount(mount: &MountEntry) -> bool {
    let Some((_, leaf)) = mount.source.split_once('@') else { return false };
    mount.fs_type == "zfs" && mount.path.ends_with(format!(".zfs/snapshot/{leaf}"))
}

/// Where a snapshot is mounted in this mount namespace.
pub(crate) fn mounts_of_snapshot(snapshot: &str) -> Result<Vec<PathBuf>, Errno> {
    let table = table()?;
    let its = table.iter().filter(|mount| mount.is_of(snapshot));
    Ok(its.map(|mount| mount.path.clone()).collect())
}

/// The snapshots of a dataset that are mounted in this mount namespace.
pub(crate) fn mounted_snapshots(dataset: &str) -> Result<Vec<String>, Errno> {
    let mut found: Vec<String> = table()?.into_iter().map(|mount| mount.source).collect();
    found.retain(|source| source.split_once('@').is_some_and(|(holder, _)| holder == dataset));
    found.dedup();
    Ok(found)
}
