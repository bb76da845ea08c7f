//! Mounts on directories and files of a dataset, and mounts of such elsewhere: they go by the object that
//! is there when they are made.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::elsewhere::tables_of_this_user_namespace;
use super::table::MountEntry;
use crate::ffi::handles;

/// Mounts, by the paths at which processes of this user namespace see them, whose object is not at its path in another version of
/// the dataset: the kernel unmounts what lies on an object that is gone, and a mount of such an object
/// gives errors. `now` and `then` are the roots, without what is mounted on them.
pub(crate) fn displaced(
    dataset: &str,
    now: BorrowedFd<'_>,
    then: BorrowedFd<'_>,
) -> Result<Vec<PathBuf>, Errno> {
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for (_, table) in tables_of_this_user_namespace()? {
        for (seen, within) in inside(&table, dataset) {
            if known.insert(within.clone()) && is_displaced(now, then, &within)? {
                found.push(seen);
            }
        }
    }
    Ok(found)
}

/// Where such mounts are seen, and the path in the dataset.
fn inside(table: &[MountEntry], dataset: &str) -> Vec<(PathBuf, PathBuf)> {
    let below_root = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let mut found = Vec::new();
    let mut by_parent: HashMap<_, Vec<&MountEntry>> = HashMap::new();
    for on in table {
        by_parent.entry(on.parent).or_default().push(on);
    }
    for mount in table.iter().filter(|mount| mount.is_of(dataset)) {
        found.push((mount.path.clone(), below_root(&mount.root)));
        for on in by_parent.get(&mount.id).into_iter().flatten() {
            if let Ok(relative) = on.path.strip_prefix(&mount.path) {
                found.push((on.path.clone(), below_root(&mount.root).join(relative)));
            }
        }
    }
    // The root is always there, and snapshots are mounted in a directory that is no part of the content.
    found.retain(|(_, within)| !within.as_os_str().is_empty() && !within.starts_with(".zfs"));
    found
}

fn is_displaced(now: BorrowedFd<'_>, then: BorrowedFd<'_>, within: &Path) -> Result<bool, Errno> {
    let Some(now) = open(now, within)? else { return Ok(false) };
    let Some(then) = open(then, within)? else { return Ok(true) };
    Ok(!handles::are_same(now.as_fd(), then.as_fd())?)
}

/// Name by name: no link is followed, and the path may be longer than a call takes.
fn open(root: BorrowedFd<'_>, within: &Path) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = openat(root, ".", flags, Mode::empty())?;
    for name in within {
        opened = match openat(&opened, name, flags, Mode::empty()) {
            Ok(opened) => opened,
            // `//deleted` is written behind the path of what is gone already.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
    }
    Ok(Some(opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_inside_is_found_by_its_path_in_the_dataset() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /srv rw - zfs tank/a rw",
            "2 1 0:2 / /srv/data rw - tmpfs none rw",
            "3 2 0:3 / /srv/data/deep rw - tmpfs none rw",
            "4 1 0:4 / /srv/.zfs/snapshot/s ro - zfs tank/a@s ro",
            "5 1 0:5 / /srv rw - tmpfs none rw",
            "6 0 0:1 /etc/conf /bound rw - zfs tank/a rw",
            "7 0 0:1 /etc /etc rw - zfs tank/a rw",
            "8 7 0:6 / /etc/sub rw - zfs tank/a/child rw",
            "9 0 0:7 /x /y rw - zfs tank/b rw",
        ]
        .iter()
        .map(|line| MountEntry::parse(line.as_bytes()).unwrap())
        .collect();
        let pair = |(seen, within): (&str, &str)| (PathBuf::from(seen), PathBuf::from(within));
        let expected = [
            ("/srv/data", "data"),
            ("/bound", "etc/conf"),
            ("/etc", "etc"),
            ("/etc/sub", "etc/sub"),
        ];
        assert_eq!(inside(&table, "tank/a"), expected.map(pair));
    }
}
