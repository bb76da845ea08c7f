//! The verbs of a commit in place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, ResolveFlags, fstat, memfd_create, openat2};

use super::{Kernel, add_known, lua_guid, not_the_one};
use crate::engine::{Fault, InPlaceEnd, Staged, Staging};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvList, Value};
use crate::ffi::pages;
use crate::mount;
use crate::name::DatasetName;
use crate::patience::patiently;

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

    /// Both datasets have to be mounted for libzfs's sake.
    pub(super) fn diff(
        &self,
        dataset: &DatasetName,
        from: &str,
        to: &str,
    ) -> Result<Vec<PathBuf>, Fault> {
        let table = mount::table()?;
        let origin = from.split('@').next().unwrap_or_default();
        let mounted = |name: &str| mount::places(&table, name).into_iter().next();
        let (Some(place), Some(_)) = (mounted(dataset.as_str()), mounted(origin)) else {
            return Ok(Vec::new());
        };
        let out = memfd_create("zfs-txn-diff", MemfdFlags::CLOEXEC)?;
        self.libzfs.diff(dataset.as_str(), (from, to), &out)?;
        let mut text = Vec::new();
        let mut out = File::from(out);
        let read = out.rewind().and_then(|()| out.read_to_end(&mut text));
        read.map_err(|_| Fault::from(Errno::IO))?;
        Ok(same_files(&text, &place.path))
    }
}

/// The regular files in the output of `zfs diff` that are in both snapshots, by the names that they
/// have below the mount point; a renamed one has two.
fn same_files(text: &[u8], root: &Path) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n');
    let names = |line| -> Vec<OsString> {
        let fields: Vec<&[u8]> = <[u8]>::split(line, |byte| *byte == b'\t').collect();
        match fields[..] {
            [b"M", b"F", name, ..] => vec![unescaped(name)],
            [b"R", b"F", old, new, ..] => vec![unescaped(old), unescaped(new)],
            _ => Vec::new(),
        }
    };
    let below = |name| Path::new(&name).strip_prefix(root).ok().map(Path::to_owned);
    lines.flat_map(names).filter_map(|name: OsString| below(name)).collect()
}

/// Four octal digits after a backslash stand for a byte.
fn unescaped(field: &[u8]) -> OsString {
    let mut parts = field.split(|byte| *byte == b'\\');
    let mut name = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(part.len().min(4));
        let digit = |byte: &u8| u32::from(byte.wrapping_sub(b'0'));
        name.push(digits.iter().fold(0, |number, byte| number * 8 + digit(byte)) as u8);
        name.extend_from_slice(rest);
    }
    OsString::from_vec(name)
}

/// Files that are gone by now have no pages that anybody could read by a name.
pub(super) fn let_go_of_pages(
    dataset: &DatasetName,
    files: &[PathBuf],
) -> Result<Vec<PathBuf>, Fault> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let place = mount::places(&mount::table()?, dataset.as_str()).into_iter().next();
    let Some(place) = place else { return Ok(Vec::new()) };
    let (root, mount) = mount::topmost(&place.path)?;
    if Some(mount) != place.replaces {
        return Err(Errno::BUSY.into());
    }
    // Nobody's access times are touched.
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let mut mapped = Vec::new();
    for path in files {
        let name: &OsStr = path.as_os_str();
        let file = match openat2(&root, name.as_bytes(), flags, Mode::empty(), within) {
            Ok(file) => file,
            // Or it has another name yet, at which something else is in the target.
            Err(
                rustix::io::Errno::NOENT
                | rustix::io::Errno::NOTDIR
                | rustix::io::Errno::LOOP
                | rustix::io::Errno::XDEV
                | rustix::io::Errno::NXIO,
            ) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && !pages::let_go(file.as_fd(), stat.st_size as u64)? {
            mapped.push(path.clone());
        }
    }
    Ok(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_in_both_snapshots_are_read_from_a_diff() {
        let text = b"M\tF\t/run/w/a\nM\t/\t/run/w/\n+\tF\t/run/w/new\n-\tF\t/run/w/old\n\
            R\tF\t/run/w/b\t/run/w/d/c\nM\tF\t/run/w/l\t(+1)\nM\t@\t/run/w/s\n\
            M\tF\t/run/w/sp\\0040ace\\0134\\0303\\0244\n";
        let files = same_files(text, Path::new("/run/w"));
        let expected = ["a", "b", "d/c", "l", "sp ace\\\u{e4}"].map(PathBuf::from);
        assert_eq!(files, expected);
    }
}
