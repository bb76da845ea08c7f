//! Snapshots that are in use: what ZFS has mounted by itself is unmounted, and the rest is named.

use super::Kernel;
use crate::engine::{Engine, Fault, Promotion};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvError, NvList, Value};
use crate::mount;

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
        let named = snapshots.iter().map(|name| match mount::mounts_of_snapshot(name) {
            Ok(paths) if !paths.is_empty() => {
                let paths: Vec<String> =
                    paths.iter().map(|path| path.display().to_string()).collect();
                format!("{name} is mounted at {}", paths.join(", "))
            }
            _ => format!("{name} is sent, or mounted in another mount namespace"),
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
