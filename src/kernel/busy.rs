//! Snapshots that are in use: what ZFS has mounted by itself is unmounted, and the rest is named.

use std::os::fd::AsRawFd;

use rustix::fs::{fstat, major, minor};
use rustix::process::getpid;

use super::{Kernel, number};
use crate::engine::{Engine, Fault, Promotion};
use crate::errno::Errno;
use crate::ffi::libzfs::LibZfs;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvError, NvList, Value};
use crate::holders::{Wanted, holders};
use crate::mount;
use crate::receipt::ElsewhereMount;
use crate::volume;

/// How many mounts are named.
const MOST_MOUNTS: usize = 4;

const BUSY_SNAPSHOTS: &str = include_str!("../program/busy_snapshots.lua");

/// Unmounts what ZFS has mounted by itself of these snapshots.
pub(super) fn unmount_automounts(snapshots: &[Option<&str>]) -> Result<(), Fault> {
    Ok(mount::unmount_automounts(|snapshot| snapshots.contains(&Some(snapshot)))?)
}

/// The base of a promotion by its full name.
fn base_of(promotion: Promotion<'_>) -> String {
    let (property, _) = promotion.record;
    let id = property.rsplit(':').next().unwrap_or_default();
    format!("{}@txn-{id}", promotion.head.name)
}

/// Who uses a dataset or snapshot: mounts, processes, holds.
pub(super) fn who_holds(libzfs: LibZfs, name: &str) -> Result<Option<String>, Fault> {
    let props = libzfs.props(name)?;
    let mut said = Vec::new();
    if number(props.view(), "userrefs").unwrap_or(0) > 0 {
        said.push(format!(
            "held (`zfs holds {name}` says by which tag, and `zfs release` ends that)"
        ));
    }
    let (mounts, (found, more)) = if props.contains("volsize") {
        let devices = volume::numbers(name)?;
        let wanted = Wanted { file_system: None, devices: &devices, except: None };
        said.extend(volume::claims(&devices));
        (mount::with_device(&devices)?, holders(wanted))
    } else {
        // Of the same file system as each of its files, also of those whose mount was taken away.
        let context = |name: &str| props.list(name).ok()?.str("value").ok().map(str::to_owned);
        let contexts = if mount::has_contexts() { mount::contexts(context) } else { Vec::new() };
        let root = mount::root_as_it_is(name, &contexts);
        let number = root.as_ref().ok().and_then(|root| fstat(root).ok());
        let number = number.map(|stat| (major(stat.st_dev), minor(stat.st_dev)));
        let except = root.as_ref().ok().map(AsRawFd::as_raw_fd);
        let wanted = Wanted { file_system: number, devices: &[], except };
        let found = number.map(|_| holders(wanted)).unwrap_or_default();
        (mount::everywhere(name)?, found)
    };
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    for ElsewhereMount { pid, path } in mounts.iter().take(MOST_MOUNTS) {
        let of = match *pid == own {
            true => String::new(),
            false => format!(" in the mount namespace of process {pid}"),
        };
        said.push(format!("mounted at {path:?}{of}"));
    }
    said.extend(found.iter().map(|holder| format!("used by {holder}")));
    if more || mounts.len() > MOST_MOUNTS {
        said.push("perhaps used by others as well".to_owned());
    }
    Ok((!said.is_empty()).then(|| said.join("; ")))
}

impl Kernel {
    /// Unmounts snapshots of the head that pass to the clone, as `zfs promote` does (`zfs_ioc_promote`).
    pub(super) fn unmount_what_moves(&self, promotion: Promotion<'_>) -> Result<(), Fault> {
        let head = promotion.head.name;
        if mount::mounted_snapshots(head.as_str())?.is_empty() {
            return Ok(());
        }
        let of_head = format!("{head}@");
        let newer = self.snapshots_since(head, &base_of(promotion)).unwrap_or_default();
        let moves = |name: &str| name.starts_with(&of_head) && !newer.iter().any(|it| it == name);
        Ok(mount::unmount_automounts(moves)?)
    }

    /// Adds which snapshots keep a promotion from being made.
    pub(super) fn naming_busy(&self, promotion: Promotion<'_>, fault: Fault) -> Fault {
        if fault.errno != Errno::BUSY || fault.detail.is_some() {
            return fault;
        }
        let snapshots = self.busy_snapshots(promotion).unwrap_or_default();
        let named = snapshots.iter().map(|name| match who_holds(self.libzfs, name) {
            Ok(Some(holders)) => format!("{name} is {holders}"),
            _ => format!("{name} is sent, or mounted where this process can't see it"),
        });
        let named = named.collect::<Vec<_>>().join("; ");
        Fault { detail: (!named.is_empty()).then_some(named), ..fault }
    }

    fn busy_snapshots(&self, promotion: Promotion<'_>) -> Result<Vec<String>, Fault> {
        let head = promotion.head.name.as_str();
        if self.plain(head)?.is_some() {
            // No call but a program tells it without changing anything; but those that are mounted here.
            return Ok(mount::mounted_snapshots(head)?);
        }
        let mut args = NvList::new()?;
        args.add_str("name", head)?;
        args.add_str("base", &base_of(promotion))?;
        let out = self.program(head, BUSY_SNAPSHOTS, &args, ProgramMode::NoSync)?;
        let names = out.list("return")?;
        let names = names.iter().map(|pair| match pair? {
            (_, Value::Str(name)) => Ok(name.to_string_lossy().into_owned()),
            (position, _) => {
                let name = position.to_string_lossy().into_owned();
                Err(Fault::from(NvError::Missing { name }))
            }
        });
        names.collect()
    }
}
