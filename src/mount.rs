//! Mounts, through the kernel's mount API: no `mount` command, no libzfs, no `/etc/mtab`.
//!
//! The options of a mount are its own (`MOUNT_ATTR_*`): ZFS takes none of them from the dataset's
//! properties when it is mounted directly, so they are always passed explicitly.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::engine::Place;

/// One line of `/proc/self/mountinfo`, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    id: u64,
    parent: u64,
    /// What is mounted of the file system: `/` for the whole, else a directory in it.
    root: PathBuf,
    path: PathBuf,
    options: MountAttrFlags,
    fs_type: String,
    source: String,
}

impl MountEntry {
    /// Parses a line; `None` where it isn't of the documented form (proc_pid_mountinfo(5)).
    fn parse(line: &[u8]) -> Option<Self> {
        let text = |field: &[u8]| OsString::from_vec(unescape(field));
        let number = |field: &[u8]| text(field).to_str()?.parse().ok();
        let mut fields = line.split(|&b| b == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let root = fields.nth(1).map(text)?;
        let path = fields.next().map(text)?;
        let options = parse_options(fields.next()?);
        fields.find(|field| *field == b"-")?;
        let fs_type = text(fields.next()?).into_string().ok()?;
        let source = text(fields.next()?).into_string().ok()?;
        Some(Self { id, parent, root: root.into(), path: path.into(), options, fs_type, source })
    }
}

/// `\040` and the like stand for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { tail };
    }
    out
}

fn parse_options(field: &[u8]) -> MountAttrFlags {
    let mut options = MountAttrFlags::empty();
    // A mount that shows none of the three has strict access times.
    let mut access_times = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    for option in field.split(|&b| b == b',') {
        match option {
            b"ro" => options |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            b"nosuid" => options |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            b"nodev" => options |= MountAttrFlags::MOUNT_ATTR_NODEV,
            b"noexec" => options |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            b"nodiratime" => options |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            b"nosymfollow" => options |= MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
            b"relatime" => access_times = MountAttrFlags::MOUNT_ATTR_RELATIME,
            b"noatime" => access_times = MountAttrFlags::MOUNT_ATTR_NOATIME,
            _ => {}
        }
    }
    options | access_times
}

/// All mounts of this mount namespace, in the kernel's order.
pub(crate) fn table() -> Result<Vec<MountEntry>, Errno> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| errno_of(&error))?;
    Ok(text.split(|&b| b == b'\n').filter_map(MountEntry::parse).collect())
}

/// Where the whole of `dataset` is mounted.
pub(crate) fn places(table: &[MountEntry], dataset: &str) -> Vec<Place> {
    table
        .iter()
        .filter(|m| m.fs_type == "zfs" && m.source == dataset && m.root == Path::new("/"))
        .map(|m| Place { replaces: Some(m.id), path: m.path.clone(), options: m.options })
        .collect()
}

/// What is mounted on the mount `id`, directly or further down, but for snapshots that ZFS mounts by
/// itself under `.zfs`.
pub(crate) fn mounted_on(table: &[MountEntry], id: u64) -> Vec<PathBuf> {
    let mut on = HashSet::from([id]);
    loop {
        let found: Vec<u64> =
            table.iter().filter(|m| on.contains(&m.parent)).map(|m| m.id).collect();
        let known = on.len();
        on.extend(found);
        if on.len() == known {
            break;
        }
    }
    table
        .iter()
        .filter(|m| m.id != id && on.contains(&m.id))
        .filter(|m| !(m.fs_type == "zfs" && m.source.contains('@')))
        .map(|m| m.path.clone())
        .collect()
}

/// What is mounted below `path`, by path.
pub(crate) fn below(table: &[MountEntry], path: &Path) -> Vec<PathBuf> {
    let inside = |m: &&MountEntry| m.path != path && m.path.starts_with(path);
    table.iter().filter(inside).map(|m| m.path.clone()).collect()
}

pub(crate) fn is_mounted(table: &[MountEntry], id: u64) -> bool {
    table.iter().any(|m| m.id == id)
}

/// The number of the topmost mount at `path`, as in the mount table (Linux 5.8 and later).
fn topmost(path: &Path) -> Result<u64, Errno> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::MNT_ID)?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    if known { Ok(stat.stx_mnt_id) } else { Err(Errno::OPNOTSUPP) }
}

/// Puts `mount` in the place of the mount `old` at `path`: for two system calls nothing is there.
pub(crate) fn exchange(mount: &OwnedFd, path: &Path, old: u64) -> Result<(), Errno> {
    // Something mounted on top of it meanwhile is not ours to detach.
    if topmost(path)? != old {
        return Err(Errno::BUSY);
    }
    detach(path)?;
    attach(mount, path)
}

/// A new mount of `dataset` that is attached nowhere.
pub(crate) fn detached(dataset: &str, options: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", dataset)?;
    // Read-only is an option of the mount alone, so that another mount of the dataset may be
    // writable; but a snapshot can't be mounted in any other way.
    if dataset.contains('@') {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    // What `zfs mount` passes: ZFS then accepts a mountpoint property that isn't `legacy`.
    fsconfig_set_flag(context.as_fd(), "zfsutil")?;
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

/// Makes the directory for a private mount, where only this user looks.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), Errno> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| errno_of(&e))
}

/// Removes the directory of a private mount. Its parent stays: other transactions share it.
pub(crate) fn remove_private_directory(path: &Path) -> Result<(), Errno> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(errno_of(&error)),
        _ => Ok(()),
    }
}

/// Makes the directory for the target's mount as `zfs mount` does.
pub(crate) fn make_mount_point(path: &Path) -> Result<(), Errno> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| errno_of(&e))
}

/// Writes the dirty pages of the file system at `path`, mapped ones included, to ZFS.
pub(crate) fn flush(path: &Path) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::syncfs(rustix::fs::open(path, flags, Mode::empty())?)
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> MountEntry {
        MountEntry::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        let entry = parse(
            "61 29 0:51 / /srv/with\\040space rw,nosuid,relatime shared:7 master:1 - zfs \
             tank/with\\040space rw,xattr,noacl,casesensitive",
        );
        assert_eq!(entry.path, Path::new("/srv/with space"));
        assert_eq!(entry.source, "tank/with space");
        assert_eq!(
            entry.options,
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RELATIME
        );
    }

    #[test]
    fn options_become_flags() {
        use MountAttrFlags as F;
        assert_eq!(parse_options(b"rw"), F::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            parse_options(b"ro,nosuid,nodev,noexec,noatime,nodiratime"),
            F::MOUNT_ATTR_RDONLY
                | F::MOUNT_ATTR_NOSUID
                | F::MOUNT_ATTR_NODEV
                | F::MOUNT_ATTR_NOEXEC
                | F::MOUNT_ATTR_NOATIME
                | F::MOUNT_ATTR_NODIRATIME
        );
    }

    #[test]
    fn only_mounts_of_the_whole_dataset_are_places() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /srv/a rw,relatime - zfs tank/a rw",
            "2 0 0:1 /sub /srv/bind rw,relatime - zfs tank/a rw",
            "3 0 0:2 / /srv/ab rw,relatime - zfs tank/ab rw",
            "4 0 0:3 / /srv/x rw,relatime - ext4 tank/a rw",
        ]
        .map(parse)
        .to_vec();
        let paths: Vec<PathBuf> = places(&table, "tank/a").into_iter().map(|p| p.path).collect();
        assert_eq!(paths, [Path::new("/srv/a")]);
    }

    #[test]
    fn what_lies_below_is_found_but_for_snapshot_automounts() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /srv/a rw - zfs tank/a rw",
            "2 1 0:2 / /srv/a/.zfs/snapshot/s ro - zfs tank/a@s ro",
            "3 1 0:3 / /srv/a/data rw - tmpfs none rw",
            "5 3 0:5 / /srv/a/data/x rw - tmpfs none rw",
            "4 0 0:4 / /srv/ab rw - tmpfs none rw",
        ]
        .map(parse)
        .to_vec();
        assert_eq!(mounted_on(&table, 1), [Path::new("/srv/a/data"), Path::new("/srv/a/data/x")]);
    }

    #[test]
    fn the_table_of_this_process_is_read() {
        let table = table().unwrap();
        assert!(table.iter().any(|m| m.fs_type == "proc"), "{table:?}");
    }

    #[test]
    fn broken_lines_are_left_out() {
        for line in ["", "1 2 3", "1 0 0:1 / /x rw", "1 0 0:1 / /x rw - "] {
            assert_eq!(MountEntry::parse(line.as_bytes()), None, "{line:?}");
        }
    }
}
