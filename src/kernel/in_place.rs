//! The verbs of a commit in place.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};

use super::{Kernel, add_known, lua_guid, not_the_one};
use crate::engine::{Fault, InPlaceEnd, Staged, Staging};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvList, Value};
use crate::ffi::{handles, pages};
use crate::mount;
use crate::name::DatasetName;
use crate::patience::patiently;
use crate::stream::passage::FileId;
use crate::tree::{Below, open_below};

const STAGE: &str = include_str!("../program/stage.lua");
const CONCLUDE_IN_PLACE: &str = include_str!("../program/conclude_in_place.lua");

impl Kernel {
    pub(super) fn stage_change(&self, staging: Staging<'_>) -> Result<Staged, Fault> {
        let Staging { target, target_origin, workspace, base, since, bookmark, snapshot, record } =
            staging;
        let mut args = NvList::new()?;
        add_known(&mut args, "target", target)?;
        add_known(&mut args, "workspace", workspace)?;
        args.add_i64("target_origin", target_origin.map_or(0, lua_guid))?;
        args.add_str("base", base.0)?;
        args.add_i64("base_guid", lua_guid(base.1))?;
        args.add_str("property", record.0)?;
        args.add_str("record", record.1)?;
        args.add_str("since", since)?;
        args.add_str("bookmark", bookmark)?;
        args.add_str("snapshot", snapshot)?;
        let out = self.program(target.name.as_str(), STAGE, &args, ProgramMode::Sync)?;
        match out.get("return")? {
            Value::I64(0) => Ok(Staged::Done),
            Value::I64(errno) => Err(Errno::from_raw(errno as i32).into()),
            Value::Str("written") => Ok(Staged::Written),
            _ => Ok(Staged::Replaced),
        }
    }

    pub(super) fn end_in_place(&self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault> {
        let mut args = NvList::new()?;
        add_known(&mut args, "target", end.target)?;
        if let Some(workspace) = end.workspace {
            add_known(&mut args, "workspace", workspace)?;
        }
        let mut snapshots = NvList::new()?;
        for (name, guid) in end.snapshots {
            snapshots.add_i64(name, lua_guid(*guid))?;
        }
        args.add_nvlist("snapshots", &snapshots)?;
        args.add_str("base", end.base.0)?;
        args.add_i64("base_guid", lua_guid(end.base.1))?;
        args.add_bool("keeps", end.keeps)?;
        args.add_str("property", end.property)?;
        args.add_str("committed", end.committed)?;
        let pool = end.target.name.as_str();
        let call = || match self.program(pool, CONCLUDE_IN_PLACE, &args, ProgramMode::Sync) {
            Ok(out) => match out.get("return")? {
                Value::I64(0) => Ok(None),
                Value::I64(errno) => Ok(Some(Errno::from_raw(errno as i32))),
                _ => Err(not_the_one(end.target.name.as_str(), end.target.guid)),
            },
            Err(fault) => Err(fault),
        };
        patiently(call, |result| matches!(result, Ok(Some(Errno::BUSY))))
    }
}

/// Lets go of the cached pages of files by their numbers, so that it doesn't matter which names they have, or
/// where the dataset is mounted: all mounts share one cache. Files that are gone by now have no pages that
/// anybody could read.
pub(super) fn let_go_of_pages(
    dataset: &DatasetName,
    files: &[FileId],
) -> Result<Vec<PathBuf>, Fault> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let root = mount::root_of(dataset.as_str())?;
    let mut mapped = Vec::new();
    for file in files {
        match handles::open(root.as_fd(), *file, FOR_PAGES) {
            Ok(opened) if pages::let_go(opened.as_fd())? => {}
            Ok(opened) => mapped.push(path_of(&opened, *file)),
            Err(rustix::io::Errno::STALE) => {}
            Err(rustix::io::Errno::PERM) => return let_go_by_path(&root, files),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(mapped)
}

/// The mount has no access times, so none is touched.
const FOR_PAGES: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

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
fn let_go_by_path(root: &OwnedFd, files: &[FileId]) -> Result<Vec<PathBuf>, Fault> {
    let wanted: HashMap<u64, FileId> = files.iter().map(|file| (file.object, *file)).collect();
    let mut mapped = Vec::new();
    let mut pending = VecDeque::from([Below::root()]);
    while let Some(path) = pending.pop_front() {
        let directory = match open_below(root.as_fd(), &path, OFlags::DIRECTORY) {
            // It was renamed, or is gone: what is in it by now is a change, which the receive refuses.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
            directory => directory?,
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let below = path.join(name);
            match entry.file_type() {
                FileType::Directory => pending.push_back(below),
                FileType::RegularFile => {
                    let Some(file) = wanted.get(&entry.ino()) else { continue };
                    match open_below(root.as_fd(), &below, FOR_PAGES) {
                        Ok(opened) if !handles::is(opened.as_fd(), *file)? => {}
                        Ok(opened) if pages::let_go(opened.as_fd())? => {}
                        Ok(_) => mapped.push(below.into()),
                        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                _ => {}
            }
        }
    }
    Ok(mapped)
}

/// Has the list of files that are to be deleted written anew, by making one and deleting it; says whether
/// it is empty, as far as the kernel counts.
pub(super) fn renew_deletions(dataset: &DatasetName, objset: u64) -> Result<bool, Fault> {
    let root = mount::root_of(dataset.as_str())?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(&root, ".", flags, Mode::RUSR)?);
    let path = format!("/proc/spl/kstat/zfs/{}/objset-{objset:#x}", dataset.pool());
    let counts = std::fs::read_to_string(path).unwrap_or_default();
    let count = |name: &str| -> Option<u64> {
        let line = counts.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().last()?.parse().ok()
    };
    Ok(count("nunlinks").zip(count("nunlinked")).is_some_and(|(made, done)| made == done))
}
