//! Snapshots that ZFS mounts by itself, when somebody looks into `.zfs/snapshot`, and unmounts after five
//! minutes (`zfs_expire_snapshot`).
//!
//! A snapshot that is mounted can't pass to another dataset or be destroyed. ZFS's own calls unmount it
//! before (`zfs_unmount_snap`), but channel programs don't.

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::table;
use super::table::MountEntry;

/// Unmounts what ZFS has mounted by itself of snapshots (full names), in this mount namespace. What somebody
/// is in stays, and so does what was mounted by somebody.
pub(crate) fn unmount_automounts(is_meant: impl Fn(&str) -> bool) -> Result<(), Errno> {
    for mount in table()? {
        let Some(snapshot) = snapshot_of(&mount) else { continue };
        let (_, leaf) = snapshot.split_once('@').unwrap_or_default();
        let is_automount = mount.path.ends_with(format!(".zfs/snapshot/{leaf}"));
        if !(is_automount && is_meant(snapshot)) {
            continue;
        }
        if let Err(errno) = unmount(&mount.path, UnmountFlags::NOFOLLOW) {
            tracing::debug!(%snapshot, %errno, "the snapshot stays mounted");
        }
    }
    Ok(())
}

/// The snapshot that is mounted there. One whose name is no text is none that a call could name.
fn snapshot_of(mount: &MountEntry) -> Option<&str> {
    let source = mount.source.to_str().filter(|_| mount.fs_type == "zfs")?;
    source.contains('@').then_some(source)
}

/// The snapshots of a dataset that are mounted in this mount namespace.
pub(crate) fn mounted_snapshots(dataset: &str) -> Result<Vec<String>, Errno> {
    let table = table()?;
    let its =
        |snapshot: &&str| snapshot.split_once('@').is_some_and(|(holder, _)| holder == dataset);
    let mut found: Vec<String> =
        table.iter().filter_map(snapshot_of).filter(its).map(str::to_owned).collect();
    found.dedup();
    Ok(found)
}
