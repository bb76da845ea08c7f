//! The verbs, each as a sequence of calls.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::lock::Lock;
use super::{MOVES, Plain, made, parent_of};
use crate::engine::{
    Concluded, Conclusion, Fault, InPlaceEnd, Known, MARK, Predecessor, Promoted, Promotion,
    Staged, Staging,
};
use crate::errno::Errno;
use crate::ffi::nvlist::{NvList, Value};
use crate::kernel::{in_the_way, not_the_one};
use crate::name::{DatasetName, is_of_a_transaction};
use crate::receipt::Guid;
use crate::tools;
use crate::txn::plan::GATE_OF_PLAIN_CALLS;

impl Plain {
    /// False where nothing has this name.
    fn known(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        match self.guid(name)? {
            None => Ok(false),
            Some(found) if found == guid => Ok(true),
            Some(_) => Err(not_the_one(name, guid)),
        }
    }

    pub(in crate::kernel) fn destroy(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        let Some(id) = self.snapshot_id(name)? else { return Ok(false) };
        if id.guid != guid {
            return Err(not_the_one(name, guid));
        }
        if !name.contains('@') {
            // They are somebody's.
            if !self.bookmarks(name)?.is_empty() {
                return Err(Errno::EXIST.into());
            }
            self.destroy_dataset(name)?;
            return Ok(true);
        }
        self.destroy_snapshot(name)?;
        // A promote or a rename may have moved it after the question.
        Ok(self.whereabouts(name, id)?.is_none())
    }

    /// Destroys a dataset if nothing was written to it since a snapshot; one of its own goes with it.
    pub(in crate::kernel) fn destroy_unchanged(
        self,
        name: &str,
        guid: Guid,
        (since, since_guid): (&str, Guid),
    ) -> Result<bool, Fault> {
        if !self.known(name, guid)? {
            return Ok(false);
        }
        if !self.is(since, since_guid)? {
            return Err(not_the_one(name, guid));
        }
        if since.starts_with(&format!("{name}@")) {
            // The snapshot has to go first, which takes a txg: writes are refused meanwhile.
            let before = self.own_readonly(name)?;
            self.set(name, "readonly", "on")?;
            let destroyed = self.destroy_unwritten(name, since, true);
            if destroyed.is_err() {
                self.put_back(name, "readonly", before.map(OsStr::new));
            }
            return destroyed.map(|()| true);
        }
        self.destroy_unwritten(name, since, false).map(|()| true)
    }

    fn destroy_unwritten(self, name: &str, since: &str, and_since: bool) -> Result<(), Fault> {
        let others = self.snapshots(name)?.iter().any(|snapshot| snapshot != since);
        if others || !self.bookmarks(name)?.is_empty() {
            return Err(Errno::EXIST.into());
        }
        // What is written between this and the destroy is in use until it is in the pool, and the
        // destroy says so.
        self.lzc.sync(name.split('/').next().unwrap_or_default(), false)?;
        // Zero is exact; other numbers are sums, in which one change may hide another.
        if self.libzfs.written(name, since)? != 0 {
            return Err(Errno::TXTBSY.into());
        }
        if and_since {
            self.destroy_snapshot(since)?;
        }
        Ok(self.destroy_dataset(name)?)
    }

    pub(in crate::kernel) fn destroy_workspace(
        self,
        name: &str,
        guid: Guid,
        origin: Option<Guid>,
    ) -> Result<bool, Fault> {
        if !self.known(name, guid)? {
            return Ok(false);
        }
        // After a promote it holds the target's snapshots.
        if !self.has_origin(name, origin)? {
            return Err(not_the_one(name, guid));
        }
        self.destroy_with_snapshots(name)?;
        Ok(true)
    }

    /// What they count for in a feature of the pool, bookmarks would never give back; what has one, or a
    /// child, or a snapshot that is held or cloned, is left as a whole.
    fn destroy_with_snapshots(self, name: &str) -> Result<(), Fault> {
        if !self.bookmarks(name)?.is_empty() || !self.libzfs.children(name)?.is_empty() {
            return Err(Errno::EXIST.into());
        }
        let snapshots = self.snapshots(name)?;
        if !snapshots.is_empty() {
            let list: Vec<&str> = snapshots.iter().map(String::as_str).collect();
            self.lzc.destroy_snaps(&list, false).map_err(|error| in_the_way(self.libzfs, error))?;
            made("destroy");
        }
        Ok(self.destroy_dataset(name)?)
    }

    pub(in crate::kernel) fn inherit(
        self,
        name: &str,
        guid: Guid,
        properties: &[&str],
    ) -> Result<bool, Fault> {
        if !self.known(name, guid)? {
            return Ok(false);
        }
        properties.iter().try_for_each(|property| self.clear(name, property))?;
        Ok(true)
    }

    pub(in crate::kernel) fn write_record(
        self,
        (carrier, guid): (&str, Guid),
        property: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, Fault> {
        let _lock = Lock::take(guid)?;
        if !self.known(carrier, guid)? {
            return Ok(false);
        }
        if self.own(carrier, property)?.as_deref() != old.map(OsStr::new) {
            return Err(not_the_one(carrier, guid));
        }
        self.replace(carrier, property, new.map(OsStr::new))?;
        Ok(true)
    }

    /// After a failure, which is what the caller has to hear of.
    fn put_back(self, carrier: &str, property: &str, value: Option<&OsStr>) {
        if let Err(fault) = self.replace(carrier, property, value) {
            tracing::warn!(carrier, ?fault, "a record could not be put back");
        }
    }

    fn replace(self, carrier: &str, property: &str, value: Option<&OsStr>) -> Result<(), Fault> {
        match value {
            Some(value) => self.set(carrier, property, value),
            None => self.clear(carrier, property),
        }
    }

    pub(in crate::kernel) fn promote(self, promotion: Promotion<'_>) -> Result<Promoted, Fault> {
        let _lock = Lock::take(promotion.head.guid)?;
        // Nobody renames what is asked about, or looks for a snapshot while it becomes the clone's.
        let _names = self.lock(parent_of(promotion.clone.name.as_str()))?;
        let head = promotion.head.name.as_str();
        let base = match self.promotable(promotion) {
            Ok(Ok(base)) => base,
            Ok(Err(refused)) => return Ok(refused),
            // Renamed between two questions.
            Err(Fault { errno: Errno::NOENT, .. }) => return Ok(Promoted::Replaced),
            Err(fault) => return Err(fault),
        };
        let Promotion { clone, since, record: (property, record), undoes, .. } = promotion;
        if undoes {
            self.promote_unwritten(clone.name.as_str(), None)?;
            let leaf = base.split_once('@').map(|(_, leaf)| leaf).unwrap_or_default();
            self.set(&format!("{}@{leaf}", clone.name), property, record)?;
            return Ok(Promoted::Done);
        }
        // As long as the clone holds the base, the record has to know the clone. And with this txg,
        // all that was written before is counted.
        let before = self.own(&base, property)?;
        self.set(&base, property, record)?;
        let promoted =
            self.promote_unwritten(clone.name.as_str(), since.map(|since| (head, since)));
        if promoted != Ok(Promoted::Done) {
            self.put_back(&base, property, before.as_deref());
        }
        promoted
    }

    fn promote_unwritten(
        self,
        clone: &str,
        since: Option<(&str, &str)>,
    ) -> Result<Promoted, Fault> {
        // Zero is exact; other numbers are sums, in which one change may hide another.
        if let Some((head, since)) = since {
            if self.libzfs.written(head, since)? != 0 {
                return Ok(Promoted::Written);
            }
        }
        self.lzc.promote(clone)?;
        made("promote");
        Ok(Promoted::Done)
    }

    /// The base's full name, or why its clone can't be promoted.
    fn promotable(self, promotion: Promotion<'_>) -> Result<Result<String, Promoted>, Fault> {
        let Promotion { clone, head, head_origin, base: base_guid, since, .. } = promotion;
        let clone = (clone.name.as_str(), clone.guid);
        let head = (head.name.as_str(), head.guid);
        if !self.is(clone.0, clone.1)? || !self.is(head.0, head.1)? {
            return Ok(Err(Promoted::Replaced));
        }
        let Some(base) = self.origin(clone.0)? else { return Ok(Err(Promoted::Replaced)) };
        let is_of_head = base.strip_prefix(head.0).is_some_and(|rest| rest.starts_with('@'));
        if !is_of_head || !self.is(&base, base_guid)? || !self.has_origin(head.0, head_origin)? {
            return Ok(Err(Promoted::Replaced));
        }
        // A commit in place that has begun is not overtaken: what it receives would go to the old head.
        let snapshots = self.snapshots(head.0)?;
        for snapshot in snapshots.iter().filter(|snapshot| **snapshot != base) {
            let mut records = Vec::new();
            if is_of_a_transaction(snapshot) {
                self.records_on(snapshot, &mut records)?;
            }
            if records.iter().any(|entry| entry.local && is_staged(&entry.value)) {
                return Ok(Err(Promoted::Busy(snapshot.clone())));
            }
        }
        if since.is_some() {
            let base_txg = self.txg(&base)?;
            for snapshot in snapshots.iter().filter(|name| !is_of_a_transaction(name)) {
                if self.txg(snapshot)? > base_txg {
                    return Ok(Err(Promoted::Newer(snapshot.clone())));
                }
            }
        }
        // The kernel would panic (promote.lua says more).
        let own: HashSet<String> = self.bookmarks(clone.0)?.into_iter().collect();
        if let Some(twice) = self.bookmarks(head.0)?.iter().find(|name| own.contains(*name)) {
            let detail = Some(format!("in the way: {}#{twice}", head.0));
            return Err(Fault { errno: Errno::EXIST, detail });
        }
        Ok(Ok(base))
    }

    pub(in crate::kernel) fn conclude(
        self,
        conclusion: Conclusion<'_>,
    ) -> Result<Concluded, Fault> {
        let Conclusion { target, gate, marked, predecessor, carrier, property, committed } =
            conclusion;
        let target = (target.name.as_str(), target.guid);
        if !self.is(target.0, target.1)? {
            return Ok(Concluded::Replaced);
        }
        // As long as the predecessor is there, which has the target's own values.
        if gate.is_some() {
            self.give_back_to_tools(target.0, predecessor.map(|old| old.known))?;
        }
        let gate = gate.unwrap_or_default();
        let mut left = None;
        if let Some(Predecessor { known, since }) = predecessor {
            let there = self.is(known.name.as_str(), known.guid)?;
            match since.filter(|_| there) {
                // It gives up its claim.
                None if there => {
                    self.set(known.name.as_str(), GATE_OF_PLAIN_CALLS, "noauto")?;
                    left = Some(Errno::BUSY);
                }
                None => {}
                Some((since, guid)) if !self.is(since, guid)? => return Ok(Concluded::Replaced),
                Some(since) => {
                    // As long as it is there, it proves to recovery that the gate is the commit's to open.
                    self.set(known.name.as_str(), GATE_OF_PLAIN_CALLS, "noauto")?;
                    gate.iter().try_for_each(|property| self.open(target.0, property))?;
                    match self.destroy_unchanged(known.name.as_str(), known.guid, since) {
                        Ok(_) => {}
                        Err(Fault { errno: Errno::TXTBSY, .. }) => return Ok(Concluded::Written),
                        Err(Fault { errno, .. }) => return Ok(Concluded::Busy(errno)),
                    }
                }
            }
        }
        gate.iter().try_for_each(|property| self.open(target.0, property))?;
        if !carrier.0.contains('@') {
            if !self.is(carrier.0, carrier.1.guid)? {
                return Ok(Concluded::Done(left));
            }
            // Without its marks, what was created is known by that.
            self.set(carrier.0, property, committed)?;
            for dataset in marked {
                if self.own(dataset.as_str(), MARK)?.is_some() {
                    self.clear(dataset.as_str(), MARK)?;
                }
            }
            self.clear(carrier.0, property)?;
            return Ok(Concluded::Done(None));
        }
        let left = match left {
            None => self.destroy_moving(|| self.whereabouts(carrier.0, carrier.1))?,
            Some(errno) => self.whereabouts(carrier.0, carrier.1)?.map(|found| (found, errno)),
        };
        if let Some((found, _)) = &left {
            self.set(found, property, committed)?;
        }
        Ok(Concluded::Done(left.map(|(_, errno)| errno)))
    }

    /// Has tools heed the target as they heeded the predecessor.
    fn give_back_to_tools(self, target: &str, old: Option<Known<'_>>) -> Result<(), Fault> {
        let old = match old {
            Some(old) if self.is(old.name.as_str(), old.guid)? => Some(old.name.as_str()),
            _ => None,
        };
        let Some(props) = self.props(target)? else { return Ok(()) };
        let mut turned_off = Vec::new();
        for pair in props.iter() {
            let (property, Value::List(attributes)) = pair? else { continue };
            let own = attributes.os_str("source").is_ok_and(|source| source == target);
            let Some(property) = property.to_str().filter(|_| own) else { continue };
            let Some(off) = tools::off(property) else { continue };
            if attributes.os_str("value")? == off {
                turned_off.push((property, off));
            }
        }
        // The kernel's order is of no meaning, and another one each time.
        turned_off.sort_unstable();
        for (property, off) in turned_off {
            let before = match old {
                Some(old) => self.own_or_received(old, property)?,
                None => None,
            };
            if before.as_deref() != Some(OsStr::new(off)) {
                self.replace(target, property, before.as_deref())?;
            }
        }
        Ok(())
    }

    /// Destroys a snapshot that others' promotes may move meanwhile; or where it is, and what keeps it.
    fn destroy_moving(
        self,
        whereabouts: impl Fn() -> Result<Option<String>, Fault>,
    ) -> Result<Option<(String, Errno)>, Fault> {
        for _ in 0..MOVES {
            let Some(at) = whereabouts()? else { return Ok(None) };
            if let Err(errno) = self.destroy_snapshot(&at) {
                return Ok(whereabouts()?.map(|found| (found, errno)));
            }
        }
        Err(Errno::BUSY.into())
    }

    pub(in crate::kernel) fn stage(self, staging: Staging<'_>) -> Result<Staged, Fault> {
        let Staging { target, target_origin, workspace, base, since, bookmark, snapshot, record } =
            staging;
        let target = (target.name.as_str(), target.guid);
        let _lock = Lock::take(target.1)?;
        let is_of_target = base.0.strip_prefix(target.0).is_some_and(|rest| rest.starts_with('@'));
        if !self.is(target.0, target.1)?
            || !self.is(workspace.name.as_str(), workspace.guid)?
            || !self.is(base.0, base.1)?
            || !is_of_target
            || !self.has_origin(target.0, target_origin)?
        {
            return Ok(Staged::Replaced);
        }
        if self.lzc.exists(snapshot)? {
            return Err(Errno::EXIST.into());
        }
        // With this txg, all that was written before is counted.
        let (property, record) = record;
        let before = self.own(base.0, property)?;
        self.set(base.0, property, record)?;
        let staged = match self.libzfs.written(target.0, since) {
            // Zero is exact; other numbers are sums, in which one change may hide another.
            Ok(0) => self.take_sent(workspace.name, (bookmark, base.0), snapshot),
            Ok(_) => Ok(Staged::Written),
            Err(error) => Err(error.into()),
        };
        if staged != Ok(Staged::Done) {
            self.put_back(base.0, property, before.as_deref());
        }
        staged
    }

    fn take_sent(
        self,
        workspace: &DatasetName,
        (bookmark, base): (&str, &str),
        snapshot: &str,
    ) -> Result<Staged, Fault> {
        let leaf = bookmark.split_once('#').map(|(_, leaf)| leaf).unwrap_or_default();
        if !self.bookmarks(workspace.as_str())?.iter().any(|there| there == leaf) {
            self.lzc.bookmark(&[(bookmark, base)])?;
            made("bookmark");
        }
        let taken = self.lzc.snapshot(&[snapshot], &NvList::new()?);
        // Judge by the state: it was not there before.
        if !self.lzc.exists(snapshot)? {
            taken?;
        }
        made("snapshot");
        Ok(Staged::Done)
    }

    pub(in crate::kernel) fn conclude_in_place(
        self,
        end: InPlaceEnd<'_>,
    ) -> Result<Option<Errno>, Fault> {
        let InPlaceEnd { target, workspace, sent, look, base, keeps, property, committed } = end;
        if !self.is(target.name.as_str(), target.guid)? {
            return Err(not_the_one(target.name.as_str(), target.guid));
        }
        let mut left = None;
        let base_at = self.whereabouts(base.0, base.1)?;
        let workspace = workspace.map(|workspace| (workspace.name.as_str(), workspace.guid));
        let workspace = match workspace {
            Some((name, guid)) if self.is(name, guid)? => Some((name, guid)),
            _ => None,
        };
        // After a promote it would hold the target's snapshots.
        if let Some((name, guid)) = workspace {
            if !self.has_origin(name, Some(base.1.guid))? {
                return Err(not_the_one(name, guid));
            }
        }
        // Once the first of these is gone, it is known by that alone that the change was received.
        if let Some(base_at) = &base_at {
            self.set(base_at, property, committed)?;
        }
        if let Some((name, guid)) = sent {
            let kept = self.destroy_moving(|| self.beside(name, guid))?;
            left = left.or(kept.map(|(_, errno)| errno));
        }
        if let Some((name, id)) = look {
            let kept = self.destroy_moving(|| self.whereabouts(name, id))?;
            left = left.or(kept.map(|(_, errno)| errno));
        }
        // The last but one: as long as it is there, a sweep goes on with the rest.
        if let Some((name, _)) = workspace {
            if left.is_none() {
                left = self.destroy_with_snapshots(name).err().map(|fault| fault.errno);
            }
        }
        let left = left.or(keeps.then_some(Errno::EXIST));
        if left.is_some() || base_at.is_none() {
            return Ok(left);
        }
        match self.destroy_moving(|| self.whereabouts(base.0, base.1)) {
            Ok(kept) => Ok(kept.map(|(_, errno)| errno)),
            Err(fault) => Ok(Some(fault.errno)),
        }
    }
}

/// Whether a record tells of a commit in place that has begun.
fn is_staged(record: &OsStr) -> bool {
    let part = b";strategy=in-place;state=committing;";
    record.as_bytes().windows(part.len()).any(|window| window == part)
}
