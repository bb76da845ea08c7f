//! What the kernel has cached of files that a receive changes: pages, and names.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, SeekFrom, fstat, seek, statat};
use rustix::io::Errno;

use crate::compare::{CONTROL_DIRECTORY, entries};
use crate::engine::Fault;
use crate::ffi::{handles, pages};
use crate::mount::{self, Contexts};
use crate::name::DatasetName;
use crate::patience::patiently;
use crate::stream::passage::{ChangedFile, Data, FileId};
use crate::tree::{Below, open_below};

/// The mount has no access times, so none is touched.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW);

/// Lets go of the cached pages of files by their numbers, so that it doesn't matter which names they have, or
/// where the dataset is mounted: all mounts share one cache. Names those that are mapped. Leaves in the
/// list those whose data changes by what is in the snapshot `sent`.
pub(super) fn let_go_of_pages(
    dataset: &DatasetName,
    contexts: &Contexts,
    sent: &str,
    files: &mut Vec<ChangedFile>,
    received: bool,
) -> Result<Vec<PathBuf>, Fault> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let root = mount::root_as_it_is(dataset.as_str(), contexts)?;
    let (mut changed, mut mapped) = (Vec::new(), Vec::new());
    for &file in files.iter() {
        let open = |flags| handles::open(root.as_fd(), file.id, flags);
        // Whoever opens a file breaks the leases that others have on it, also for nothing.
        if file.data == Data::Same && open(LOOK).is_ok_and(|it| is_cut(&it, file) == Ok(false)) {
            continue;
        }
        let leased = |opened: &Result<_, Errno>| opened.as_ref().err() == Some(&Errno::AGAIN);
        let found = match patiently(|| open(READ), leased) {
            Ok(opened) => match let_go(&opened, file, sent, received)? {
                Pages::Same => continue,
                Pages::Gone => None,
                Pages::Mapped => Some(path_of(&opened, file.id)),
            },
            // The lease is not given up.
            Err(Errno::AGAIN) => Some(path_of(&open(LOOK)?, file.id)),
            // It is gone, or was replaced: nobody can read its pages. Or it has no name yet, and gets one.
            Err(Errno::STALE) => None,
            Err(Errno::PERM) => return by_path(&root, sent, files, received),
            Err(errno) => return Err(errno.into()),
        };
        changed.push(ChangedFile { data: Data::Written, ..file });
        mapped.extend(found);
    }
    *files = changed;
    Ok(mapped)
}

/// What there is to a file's pages.
enum Pages {
    /// The file's data stays the same.
    Same,
    Gone,
    Mapped,
}

/// Whether the data of a file is any other by the change.
fn may_change(opened: &OwnedFd, file: ChangedFile) -> Result<bool, Errno> {
    Ok(file.data != Data::Same || is_cut(opened, file)?)
}

fn is_cut(opened: &OwnedFd, file: ChangedFile) -> Result<bool, Errno> {
    Ok(fstat(opened)?.st_size as u64 > file.size)
}

fn let_go(opened: &OwnedFd, file: ChangedFile, sent: &str, received: bool) -> Result<Pages, Fault> {
    if !may_change(opened, file)? {
        return Ok(Pages::Same);
    }
    // A store that was waiting for the end of the receive has gone to a page of before.
    let is_stored_to = received && pages::are_dirty(opened.as_fd())?;
    let gone = pages::let_go(opened.as_fd())?;
    if is_stored_to {
        return Ok(Pages::Mapped);
    }
    if gone {
        return Ok(Pages::Gone);
    }
    let is_cut = is_cut(opened, file)?;
    // Holes that have always been there are told of as well; only for a file that is mapped it matters.
    if file.data == Data::Freed && !is_cut && !is_punched(opened, file, sent)? {
        return Ok(Pages::Same);
    }
    Ok(Pages::Mapped)
}

/// Whether a file has data where it is to have none.
fn is_punched(opened: &OwnedFd, file: ChangedFile, sent: &str) -> Result<bool, Fault> {
    let sent = mount::root_of(sent, &Contexts::new())?;
    let new = match handles::open(sent.as_fd(), file.id, READ) {
        Ok(new) => new,
        // Nothing can be said of it.
        Err(Errno::STALE | Errno::PERM) => return Ok(true),
        Err(errno) => return Err(errno.into()),
    };
    let mut at = 0;
    while at < file.size {
        let Some(hole) = next(&new, SeekFrom::Hole(at))?.filter(|hole| *hole < file.size) else {
            break;
        };
        let end = next(&new, SeekFrom::Data(hole))?.unwrap_or(file.size);
        if next(opened, SeekFrom::Data(hole))?.is_some_and(|data| data < end) {
            return Ok(true);
        }
        at = end;
    }
    Ok(false)
}

fn next(file: &OwnedFd, what: SeekFrom) -> Result<Option<u64>, Errno> {
    match seek(file, what) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The path of a file below the dataset's root, where it is known and not too long.
fn path_of(opened: &OwnedFd, file: FileId) -> PathBuf {
    let link = format!("/proc/thread-self/fd/{}", opened.as_raw_fd());
    let path = std::fs::read_link(link).unwrap_or_default();
    match path.strip_prefix("/") {
        Ok(below) if !below.as_os_str().is_empty() => below.to_owned(),
        _ => format!("object {}", file.object).into(),
    }
}

/// For whom the kernel refuses handles, as root of a container: goes through the whole tree, and looks at
/// the files that have these numbers.
fn by_path(
    root: &OwnedFd,
    sent: &str,
    files: &mut Vec<ChangedFile>,
    received: bool,
) -> Result<Vec<PathBuf>, Fault> {
    let mut wanted: HashMap<u64, ChangedFile> =
        files.iter().map(|file| (file.id.object, *file)).collect();
    let mut mapped = Vec::new();
    let mut pending = VecDeque::from([Below::root()]);
    while let Some(path) = pending.pop_front() {
        let directory = match open_below(root.as_fd(), &path, OFlags::DIRECTORY) {
            // It was renamed, or is gone: what is in it by now is a change, which the receive refuses.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            directory => directory?,
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || entry.ino() == CONTROL_DIRECTORY {
                continue;
            }
            let below = path.join(name);
            match entry.file_type() {
                FileType::Directory => pending.push_back(below),
                FileType::RegularFile => {
                    let Some(file) = wanted.get_mut(&entry.ino()) else { continue };
                    let opened = match open_below(root.as_fd(), &below, READ) {
                        Err(Errno::NOENT | Errno::LOOP) => continue,
                        opened => opened?,
                    };
                    if !handles::is(opened.as_fd(), file.id)? {
                        continue;
                    }
                    match let_go(&opened, *file, sent, received)? {
                        Pages::Same => drop(wanted.remove(&entry.ino())),
                        Pages::Gone => file.data = Data::Written,
                        Pages::Mapped => {
                            file.data = Data::Written;
                            mapped.push(below.into());
                        }
                    }
                }
                _ => {}
            }
        }
    }
    *files = wanted.into_values().collect();
    Ok(mapped)
}

/// Names that lead to what they led to in the snapshot `before`, though they are another file's by now, or
/// nobody's. A receive drops the names that nobody uses (`shrink_dcache_sb` in `zfs_resume_fs`), but a file that
/// is open keeps its name, and nothing asks whether it still has it (`zpl_revalidate`).
///
/// For whom the kernel refuses handles, none is found.
pub(super) fn stale_names(
    dataset: &DatasetName,
    contexts: &Contexts,
    before: &str,
    directories: &[FileId],
) -> Result<Vec<PathBuf>, Fault> {
    let mut stale = Vec::new();
    if directories.is_empty() {
        return Ok(stale);
    }
    let (root, then) = (
        mount::root_as_it_is(dataset.as_str(), contexts)?,
        mount::root_of(before, &Contexts::new())?,
    );
    let mut suspects = Vec::new();
    for &directory in directories {
        let open = |root: &OwnedFd| handles::open(root.as_fd(), directory, DIRECTORY);
        let (now, then) = match (open(&root), open(&then)) {
            (Ok(now), Ok(then)) => (now, then),
            (Err(Errno::PERM), _) => return Ok(stale),
            // It is gone; or it is new, and nobody has a name in it.
            (Err(Errno::STALE), _) | (_, Err(Errno::STALE)) => continue,
            (Err(errno), _) | (_, Err(errno)) => return Err(errno.into()),
        };
        let (has, had) = (entries(&now)?, entries(&then)?);
        for (name, entry) in &has {
            if had.get(name) != Some(entry) {
                // A directory that is found at its new place is no longer at the old one.
                let _ = statat(&now, name, AtFlags::SYMLINK_NOFOLLOW);
            }
        }
        let moved = had.into_iter().filter(|(name, entry)| has.get(name) != Some(entry));
        let names: Vec<_> =
            moved.map(|(name, _)| (has.get(&name).map(|e| e.object), name)).collect();
        if !names.is_empty() {
            suspects.push((directory, names));
        }
    }
    for (directory, names) in suspects {
        let now = match handles::open(root.as_fd(), directory, DIRECTORY) {
            Err(Errno::STALE) => continue,
            now => now?,
        };
        for (object, name) in names {
            match statat(&now, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if Some(found.st_ino) != object => {
                    let name = OsStr::from_bytes(name.as_bytes());
                    stale.push(directory_path(&now).join(name));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(stale)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The path of a directory below the dataset's root; empty for the root, and where it is too long.
fn directory_path(opened: &OwnedFd) -> PathBuf {
    let link = format!("/proc/thread-self/fd/{}", opened.as_raw_fd());
    let path = std::fs::read_link(link).unwrap_or_default();
    path.strip_prefix("/").unwrap_or(&path).to_owned()
}
