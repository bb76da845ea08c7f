//! The walk for records through all that is below a dataset, in pieces.
//!
//! A program keeps the pool from changing as long as it runs, so none looks at more than a piece. Between
//! two pieces the pool may change: what stays where it is, is seen.

#[cfg(test)]
mod on_zfs;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

use crate::engine::{Entry, Fault, SnapshotId, Walk};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvList, NvRef, Value};
use crate::kernel::{Kernel, guid_of, not_opened, unsigned};
use crate::name::DatasetName;
use crate::txn::journal::{Record, Unreadable};

const WALK: &str = include_str!("../program/walk.lua");
const TYPE: &str = include_str!("../program/type.lua");

/// How much one piece may be.
#[derive(Clone, Copy)]
struct Limits {
    /// How many carriers it looks at.
    carriers: usize,
    /// How many properties, and names of snapshots and children, it goes through.
    names: i64,
    /// How much it returns: a fraction of what a program may use.
    bytes: i64,
}

const LIMITS: Limits = Limits { carriers: 100, names: 1_000, bytes: 4 << 20 };

impl Kernel {
    pub(super) fn walk_by_programs(&self, below: &DatasetName) -> Result<Walk, Fault> {
        self.walk_in_pieces(below, LIMITS)
    }

    fn walk_in_pieces(&self, below: &DatasetName, limits: Limits) -> Result<Walk, Fault> {
        let mut walk = Walk::default();
        let mut queue = VecDeque::from([below.to_string()]);
        let seen = self.pieces(&mut queue, true, limits, &mut walk);
        // One that is there but can't be told hides nothing below.
        match walk.unread.first() {
            Some((_, fault)) if seen == 0 => Err(fault.clone()),
            _ => Ok(walk),
        }
    }

    /// Looks at all that is in the queue, and, where it goes `deep`, at all that is below. Returns how many
    /// carriers could be looked at, or at least listed.
    fn pieces(
        &self,
        queue: &mut VecDeque<String>,
        deep: bool,
        limits: Limits,
        walk: &mut Walk,
    ) -> usize {
        let mut seen: usize = 0;
        // How many are to be looked at one by one, because one of them has made a piece fail.
        let mut alone: usize = 0;
        while let Some(first) = queue.front() {
            let most = if alone > 0 { 1 } else { limits.carriers };
            let carriers: Vec<&str> = queue.iter().take(most).map(String::as_str).collect();
            let count = carriers.len();
            let failed = match self.piece(&carriers, deep, limits) {
                Ok(piece) if piece.done > 0 => {
                    let done = piece.done.min(count);
                    queue.drain(..done);
                    queue.extend(piece.children);
                    walk.entries.extend(piece.found);
                    alone = alone.saturating_sub(done);
                    seen += done;
                    continue;
                }
                Err(_) if count > 1 => {
                    alone = count;
                    continue;
                }
                Ok(_) => None,
                Err(fault) => Some(fault),
            };
            let carrier = first.clone();
            queue.pop_front();
            alone = alone.saturating_sub(1);
            if !deep {
                let fault = failed.unwrap_or_else(|| Fault {
                    errno: Errno::TOOBIG,
                    detail: Some(format!("its records are larger than {} bytes", limits.bytes)),
                });
                walk.unread.push((carrier, fault));
                continue;
            }
            match (self.name_by_name(&carrier, limits, walk), failed) {
                (Ok(children), _) => {
                    queue.extend(children);
                    seen += 1;
                }
                // It has gone meanwhile.
                (Err(Fault { errno: Errno::NOENT, .. }), None) => seen += 1,
                (Err(fault), failed) => walk.unread.push((carrier, failed.unwrap_or(fault))),
            }
        }
        seen
    }

    /// The children of a dataset that is too much for a piece, or makes one fail, with the records on it and on its
    /// snapshots. The kernel gives the names one by one, in the order of their hashes: whatever comes and goes
    /// meanwhile, none is left out that stays (`dmu_snapshot_list_next`).
    fn name_by_name(
        &self,
        dataset: &str,
        limits: Limits,
        walk: &mut Walk,
    ) -> Result<Vec<String>, Fault> {
        if !self.opens(dataset)? {
            return Err(not_opened());
        }
        let children = self.libzfs.children(dataset)?;
        let snapshots = self.libzfs.snapshots(dataset)?;
        let of_transactions = format!("{dataset}@txn-");
        let snapshots = snapshots.into_iter().filter(|name| name.starts_with(&of_transactions));
        let mut queue = std::iter::once(dataset.to_owned()).chain(snapshots).collect();
        self.pieces(&mut queue, false, limits, walk);
        Ok(children.into_iter().map(|child| child.name).collect())
    }

    /// Whether libzfs may be asked about a dataset ([`not_opened`]).
    fn opens(&self, dataset: &str) -> Result<bool, Fault> {
        let mut args = NvList::new()?;
        args.add_str("name", dataset)?;
        let out = self.program(dataset, TYPE, &args, ProgramMode::NoSync)?;
        let out = out.list("return")?;
        if out.is_empty() {
            return Err(Errno::NOENT.into());
        }
        Ok(out.contains("type"))
    }

    fn piece(&self, carriers: &[&str], deep: bool, limits: Limits) -> Result<Piece, Fault> {
        let mut args = NvList::new()?;
        args.add_str_array("carriers", carriers)?;
        args.add_bool("deep", deep)?;
        args.add_i64("names", limits.names)?;
        args.add_i64("bytes", limits.bytes)?;
        let pool = carriers.first().copied().unwrap_or_default();
        let out = self.program(pool, WALK, &args, ProgramMode::NoSync)?;
        let out = out.list("return")?;
        let mut children = Vec::new();
        for pair in out.list("children")?.iter() {
            if let (_, Value::Str(name)) = pair? {
                children.push(name.to_string_lossy().into_owned());
            }
        }
        let done = usize::try_from(out.i64("done")?).unwrap_or(0);
        Ok(Piece { done, found: entries(out.list("found")?)?, children })
    }
}

/// What a program has told of some carriers.
struct Piece {
    done: usize,
    found: Vec<Entry>,
    children: Vec<String>,
}

/// What is kept of a property's value: nothing of a long one that is no record. On disk, 8 KB of one letter take up
/// next to nothing, and a walk keeps all that it finds.
pub(super) fn kept_of(property: &str, value: &OsStr) -> OsString {
    let is_long = value.len() > 256;
    // Nothing at all is damaged, too.
    let is_damaged = || matches!(Record::decode(property, value), Err(Unreadable::Damaged));
    if is_long && is_damaged() { OsString::new() } else { value.to_owned() }
}

/// A list of entries as programs return them.
pub(super) fn entries(list: NvRef<'_>) -> Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    for pair in list.iter() {
        let (_, Value::List(entry)) = pair? else { continue };
        let (carrier, source) = (entry.os_str("carrier")?, entry.os_str("source")?);
        // The kernel takes no other names of properties.
        let Some(property) = entry.os_str("property")?.to_str() else { continue };
        entries.push(Entry {
            carrier: carrier.to_string_lossy().into_owned(),
            id: SnapshotId {
                guid: guid_of(entry.i64("guid")?),
                createtxg: unsigned(entry.i64("createtxg")?),
            },
            property: property.to_owned(),
            value: kept_of(property, entry.os_str("value")?),
            local: source == carrier,
        });
    }
    Ok(entries)
}
