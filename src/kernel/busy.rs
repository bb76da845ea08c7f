//! Snapshots that are in use: what ZFS has mounted by itself is unmounted, and the rest is named.

use std::os::fd::AsRawFd;
use std::time::Instant;

use rustix::fs::{fstat, major, minor};
use rustix::process::getpid;

use super::{Kernel, number};
use crate::engine::{Engine, Fault, Promotion};
use crate::errno::Errno;
use crate::ffi::libzfs::LibZfs;
use crate::ffi::lzc::{LzcError, ProgramMode};
use crate::ffi::nvlist::{NvError, NvList, Value};
use crate::holders::{LONGEST, Users, Wanted, users};
use crate::mount;
use crate::patience::Budget;
use crate::receipt::ElsewhereMount;
use crate::volume;

/// Of how many snapshots it is looked for who uses them.
const MOST_EXPLAINED: usize = 4;
/// How many more are named.
const MOST_LISTED: usize = 100;

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

/// Who uses a dataset or snapshot: mounts, processes, holds. Nobody is waited for longer than until then.
pub(super) fn who_holds(
    libzfs: LibZfs,
    name: &str,
    until: Instant,
) -> Result<Option<String>, Fault> {
    let props = libzfs.props(name)?;
    let mut said = Vec::new();
    if number(props.view(), "userrefs").unwrap_or(0) > 0 {
        said.push(format!(
            "held (`zfs holds {name}` says by which tag, and `zfs release` ends that)"
        ));
    }
    let left = until.saturating_duration_since(Instant::now());
    let Users { mounts, processes, more, ended } = if left.is_zero() {
        Users { more: true, ..Users::default() }
    } else if props.contains("volsize") {
        let devices = volume::numbers(name)?;
        said.extend(volume::claims(&devices));
        let wanted = Wanted { file_system: None, devices: devices.clone(), except: None };
        users(wanted, move |mount| devices.contains(&mount.device), until)
    } else {
        // Of the same file system as each of its files, also of those whose mount was taken away.
        let context = |name: &str| props.list(name).ok()?.str("value").ok().map(str::to_owned);
        let contexts = if mount::has_contexts() { mount::contexts(context) } else { Vec::new() };
        let _budget = Budget::of(left);
        let root = mount::root_as_it_is(name, &contexts).ok();
        let stat = root.as_ref().and_then(|root| fstat(root).ok());
        let file_system = stat.map(|stat| (major(stat.st_dev), minor(stat.st_dev)));
        let except = root.as_ref().map(AsRawFd::as_raw_fd);
        let wanted = Wanted { file_system, devices: Vec::new(), except };
        let dataset = name.to_owned();
        users(wanted, move |mount| mount.is_of(&dataset), until)
    };
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    for ElsewhereMount { pid, path } in &mounts {
        let of = match *pid == own {
            true => String::new(),
            false => format!(" in the mount namespace of process {pid}"),
        };
        said.push(format!("mounted at {path:?}{of}"));
    }
    said.extend(processes.iter().map(|holder| format!("used by {holder}")));
    match (more, ended) {
        (false, _) => {}
        (true, true) => said.push("perhaps used by others as well".to_owned()),
        (true, false) => {
            said.push("perhaps used by others, whom it took too long to find".to_owned())
        }
    }
    Ok((!said.is_empty()).then(|| said.join("; ")))
}

/// What keeps snapshots from being destroyed, or from passing to another dataset, and what to do about it.
pub(super) fn explain(libzfs: LibZfs, refused: &[(String, Errno)]) -> String {
    let until = Instant::now() + LONGEST;
    let why = |(name, errno): &(String, Errno)| match *errno {
        Errno::BUSY => match who_holds(libzfs, name, until) {
            Ok(Some(holders)) => format!("{name} is {holders}"),
            _ => format!("{name} is held, sent, or mounted where this process can't see it"),
        },
        Errno::EXIST => format!("{name} has a clone: `zfs get clones {name}`"),
        errno => format!("{name}: {errno}"),
    };
    let (explained, listed) = refused.split_at(refused.len().min(MOST_EXPLAINED));
    let mut said: Vec<String> = explained.iter().map(why).collect();
    if !listed.is_empty() {
        let names = listed.iter().take(MOST_LISTED).map(|(name, _)| name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let rest = if listed.len() > MOST_LISTED { ", ..." } else { "" };
        said.push(format!("and {} more: {names}{rest}", listed.len()));
    }
    said.join("; ")
}

/// Of snapshots that were to be destroyed.
pub(super) fn in_the_way(libzfs: LibZfs, error: LzcError) -> Fault {
    let Some((_, errno)) = error.per_name.first() else { return error.into() };
    Fault { errno: *errno, detail: Some(explain(libzfs, &error.per_name)) }
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
        let busy: Vec<_> = snapshots.into_iter().map(|name| (name, Errno::BUSY)).collect();
        let named = explain(self.libzfs, &busy);
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
