//! The same verbs without channel programs, for whom ZFS lets run none: root in a container that a
//! dataset was given to (zfs-zone(8)).
//!
//! Each function does what the program of its name does (`src/program`), by one call after the other.
//! So what is checked can change before the effect; commits of one mount namespace on one target keep
//! out of each other's way by a lock. The calls come in an order in which recovery knows whatever is left when the
//! process dies between two of them.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat, unlink};

use super::not_the_one;
use crate::engine::{
    Concluded, Conclusion, Entry, Facts, Fault, InPlaceEnd, MARK, Predecessor, Promoted, Promotion,
    Scope, Staged, Staging,
};
use crate::errno::Errno;
use crate::ffi::libzfs::{LibZfs, LibZfsError};
use crate::ffi::lzc::{Lzc, LzcError};
use crate::ffi::nvlist::{NvList, NvRef, Value};
use crate::mount;
use crate::name::{DatasetName, is_of_a_transaction};
use crate::receipt::Guid;
use crate::txn::plan::GATE_OF_PLAIN_CALLS;
use crate::zfs::PRIVATE_ROOT;

/// How often a lock is tried, and how long it is waited for in between: a minute in all.
const LOCK_TRIES: usize = 6_000;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// How often a snapshot that others' promotes move is looked for.
const MOVES: usize = 20;

/// Begins the names of this crate's own properties.
const OWN: &str = "zfs-txn:";

#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) lzc: Lzc,
    pub(super) libzfs: LibZfs,
}

// Questions.
impl Plain {
    pub(super) fn journal(self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
        match scope {
            Scope::Below(dataset) => {
                let mut found = Vec::new();
                self.records_below(dataset.as_str(), &mut found)?;
                Ok(found)
            }
            Scope::Target { target, above } => {
                let parent = target.parent().ok_or(Errno::INVAL)?;
                self.at_rest(parent.as_str(), |children| {
                    let mut found = Vec::new();
                    for dataset in above {
                        self.records_on(dataset.as_str(), &mut found)?;
                    }
                    let rests = children
                        .iter()
                        .filter_map(|name| Some((name, name.strip_prefix(target.as_str())?)));
                    let ours = rests.filter(|(_, rest)| {
                        rest.is_empty() || rest.starts_with("-txn-") || rest.starts_with("-old-")
                    });
                    for (child, _) in ours {
                        self.records_of(child, &mut found)?;
                    }
                    Ok(found)
                })
            }
        }
    }

    /// Asks about the children of a dataset, again if others' commits have moved names or snapshots
    /// meanwhile: what is moved may be seen in neither place.
    fn at_rest<T>(
        self,
        parent: &str,
        ask: impl Fn(&[String]) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let see = || -> Result<_, Fault> {
            let children = if_there(self.libzfs.children(parent))?.unwrap_or_default();
            let mut origins = Vec::new();
            for child in &children {
                let props = self.props(child)?;
                let props = props.as_ref().map(NvList::view);
                let guid = props.and_then(|props| number(props, "guid"));
                let origin = props.and_then(|props| text(props, "origin")).map(str::to_owned);
                origins.push((guid, origin));
            }
            Ok((children, origins))
        };
        let mut before = see()?;
        for _ in 0..MOVES {
            let answer = ask(&before.0)?;
            let after = see()?;
            if after == before {
                return Ok(answer);
            }
            before = after;
        }
        let detail = Some(format!("what is below {parent} changes all the time"));
        Err(Fault { errno: Errno::BUSY, detail })
    }

    fn records_below(self, dataset: &str, found: &mut Vec<Entry>) -> Result<(), Fault> {
        self.records_of(dataset, found)?;
        let children = if_there(self.libzfs.children(dataset))?.unwrap_or_default();
        children.iter().try_for_each(|child| self.records_below(child, found))
    }

    /// Those on a dataset and on its snapshots.
    fn records_of(self, dataset: &str, found: &mut Vec<Entry>) -> Result<(), Fault> {
        self.records_on(dataset, found)?;
        let of_transactions = format!("{dataset}@txn-");
        let snapshots = if_there(self.libzfs.snapshots(dataset))?.unwrap_or_default();
        let mut snapshots = snapshots.iter().filter(|name| name.starts_with(&of_transactions));
        snapshots.try_for_each(|snapshot| self.records_on(snapshot, found))
    }

    fn records_on(self, carrier: &str, found: &mut Vec<Entry>) -> Result<(), Fault> {
        let Some(props) = self.props(carrier)? else { return Ok(()) };
        let Some(guid) = number(props.view(), "guid").map(Guid) else { return Ok(()) };
        for pair in props.iter() {
            let (property, Value::List(attributes)) = pair? else { continue };
            let source = attributes.str("source").unwrap_or_default();
            if property.starts_with(OWN) && (source == carrier || source == "$recvd") {
                found.push(Entry {
                    carrier: carrier.to_owned(),
                    guid,
                    property: property.to_owned(),
                    value: attributes.str("value")?.to_owned(),
                    local: source == carrier,
                });
            }
        }
        Ok(())
    }

    pub(super) fn facts(self, name: &str) -> Result<Option<Facts>, Fault> {
        let Some(props) = self.props(name)? else { return Ok(None) };
        let number = |property| number(props.view(), property).ok_or(Errno::INVAL);
        let mut facts = Facts {
            guid: Guid(number("guid")?),
            creation: number("creation")? as i64,
            volume: false,
            origin: None,
            children: 0,
            mountpoint: String::new(),
        };
        if name.contains('@') {
            return Ok(Some(facts));
        }
        facts.volume = props.contains("volsize");
        if let Some(origin) = text(props.view(), "origin") {
            facts.origin = self.guid(origin)?;
        }
        let Some(children) = if_there(self.libzfs.children(name))? else { return Ok(None) };
        facts.children = children.len() as u64;
        if !facts.volume {
            let Some(path) = if_there(self.libzfs.mountpoint(name))? else { return Ok(None) };
            facts.mountpoint = path;
        }
        Ok(Some(facts))
    }

    pub(super) fn longest_snapshot(self, dataset: &str) -> Result<usize, Fault> {
        let snapshots = self.snapshots(dataset)?;
        let leaves =
            snapshots.iter().filter_map(|name| name.split_once('@')).map(|(_, leaf)| leaf.len());
        let bookmarks = self.bookmarks(dataset)?;
        Ok(leaves.chain(bookmarks.iter().map(String::len)).max().unwrap_or(0))
    }

    pub(super) fn snapshots_since(self, dataset: &str, base: &str) -> Result<Vec<String>, Fault> {
        let base = self.txg(base)?.ok_or(Errno::NOENT)?;
        let mut newer = Vec::new();
        for snapshot in self.snapshots(dataset)? {
            if self.txg(&snapshot)?.is_some_and(|txg| txg > base) {
                newer.push(snapshot);
            }
        }
        Ok(newer)
    }

    pub(super) fn find_snapshot(
        self,
        parent: &str,
        leaf: &str,
        guid: Guid,
    ) -> Result<Option<String>, Fault> {
        self.at_rest(parent, |children| {
            for child in children {
                let name = format!("{child}@{leaf}");
                if self.is(&name, guid)? {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        })
    }

    fn props(self, name: &str) -> Result<Option<NvList>, Fault> {
        if_there(self.libzfs.props(name))
    }

    fn guid(self, name: &str) -> Result<Option<Guid>, Fault> {
        Ok(self.props(name)?.and_then(|props| number(props.view(), "guid")).map(Guid))
    }

    fn is(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        Ok(self.guid(name)? == Some(guid))
    }

    fn txg(self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.props(name)?.and_then(|props| number(props.view(), "createtxg")))
    }

    /// The full name of the snapshot that a dataset is a clone of.
    fn origin(self, name: &str) -> Result<Option<String>, Fault> {
        let props = self.props(name)?;
        Ok(props.and_then(|props| text(props.view(), "origin").map(str::to_owned)))
    }

    fn snapshots(self, name: &str) -> Result<Vec<String>, Fault> {
        Ok(self.libzfs.snapshots(name)?)
    }

    /// The last parts of the names of a dataset's bookmarks.
    fn bookmarks(self, name: &str) -> Result<Vec<String>, Fault> {
        let bookmarks = self.lzc.get_bookmarks(name, &[])?;
        let names = bookmarks.iter().map(|pair| pair.map(|(name, _)| name.to_owned()));
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// The own value of `readonly`, in words.
    fn own_readonly(self, name: &str) -> Result<Option<&'static str>, Fault> {
        let Some(props) = self.props(name)? else { return Ok(None) };
        let Ok(attributes) = props.list("readonly") else { return Ok(None) };
        let own = attributes.str("source").is_ok_and(|source| source == name);
        Ok(own.then(|| if attributes.u64("value") == Ok(1) { "on" } else { "off" }))
    }

    /// The own value of a user property.
    fn own(self, name: &str, property: &str) -> Result<Option<String>, Fault> {
        let Some(props) = self.props(name)? else { return Ok(None) };
        let Ok(attributes) = props.list(property) else { return Ok(None) };
        let own = attributes.str("source").is_ok_and(|source| source == name);
        Ok(if own { attributes.str("value").ok().map(str::to_owned) } else { None })
    }
}

// Calls that change something, each in one txg.
impl Plain {
    fn set(self, name: &str, property: &str, value: &str) -> Result<(), Fault> {
        self.libzfs.set_without_mounting(name, property, value)?;
        made("set");
        Ok(())
    }

    fn clear(self, name: &str, property: &str) -> Result<(), Fault> {
        self.libzfs.inherit(name, property)?;
        made("clear");
        Ok(())
    }

    /// Opens the gate that a property closes.
    fn open(self, name: &str, property: &str) -> Result<(), Fault> {
        match property {
            // It can't be inherited.
            GATE_OF_PLAIN_CALLS => self.set(name, property, "on"),
            _ => self.clear(name, property),
        }
    }

    fn destroy_dataset(self, name: &str) -> Result<(), Errno> {
        // The kernel would destroy a receive that could be resumed, and try again (`zfs_ioc_destroy`).
        if self.is_receiving(name) {
            return Err(Errno::EXIST);
        }
        self.lzc.destroy(name).map_err(|error| error.errno)?;
        made("destroy");
        Ok(())
    }

    /// A snapshot that isn't there is destroyed.
    fn destroy_snapshot(self, name: &str) -> Result<(), Errno> {
        let destroyed = self.lzc.destroy_snaps(&[name], false);
        destroyed.map_err(|error| first_errno(&error))?;
        made("destroy");
        Ok(())
    }

    /// The name by which a snapshot is there, if it is: promotes of others move it.
    fn find(self, name: &str, guid: Guid) -> Result<Option<String>, Fault> {
        let Some((dataset, leaf)) = name.split_once('@') else { return Ok(None) };
        let Some((parent, _)) = dataset.rsplit_once('/') else { return Ok(None) };
        self.find_snapshot(parent, leaf, guid)
    }
}

// Verbs.
impl Plain {
    /// False where nothing has this name.
    fn known(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        match self.guid(name)? {
            None => Ok(false),
            Some(found) if found == guid => Ok(true),
            Some(_) => Err(not_the_one(name, guid)),
        }
    }

    pub(super) fn destroy(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        if !self.known(name, guid)? {
            return Ok(false);
        }
        let Some((dataset, _)) = name.split_once('@') else {
            self.destroy_dataset(name)?;
            return Ok(true);
        };
        match self.destroy_snapshot(name) {
            Ok(()) => Ok(self.find(name, guid)?.is_none()),
            // A receive in place clones the newest snapshot, whoever's it is, until it has ended.
            Err(Errno::EXIST) if self.is_receiving(dataset) => Err(Errno::BUSY.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Destroys a dataset if nothing was written to it since a snapshot; one of its own goes with it.
    pub(super) fn destroy_unchanged(
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
                self.put_back(name, "readonly", before);
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

    fn is_receiving(self, dataset: &str) -> bool {
        self.lzc.exists(&format!("{dataset}/%recv")).unwrap_or(false)
    }

    pub(super) fn destroy_workspace(
        self,
        name: &str,
        guid: Guid,
        origin: Option<Guid>,
    ) -> Result<bool, Fault> {
        if !self.known(name, guid)? {
            return Ok(false);
        }
        let found = self.origin(name)?;
        let found = found.map(|found| self.guid(&found)).transpose()?.flatten();
        // After a promote it holds the target's snapshots.
        if found != origin {
            return Err(not_the_one(name, guid));
        }
        for snapshot in self.snapshots(name)? {
            self.destroy_snapshot(&snapshot)?;
        }
        self.destroy_dataset(name)?;
        Ok(true)
    }

    pub(super) fn inherit(
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

    pub(super) fn write_record(
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
        if self.own(carrier, property)?.as_deref() != old {
            return Err(not_the_one(carrier, guid));
        }
        self.replace(carrier, property, new)?;
        Ok(true)
    }

    /// After a failure, which is what the caller has to hear of.
    fn put_back(self, carrier: &str, property: &str, value: Option<&str>) {
        if let Err(fault) = self.replace(carrier, property, value) {
            tracing::warn!(carrier, ?fault, "a record could not be put back");
        }
    }

    fn replace(self, carrier: &str, property: &str, value: Option<&str>) -> Result<(), Fault> {
        match value {
            Some(value) => self.set(carrier, property, value),
            None => self.clear(carrier, property),
        }
    }

    pub(super) fn promote(self, promotion: Promotion<'_>) -> Result<Promoted, Fault> {
        let _lock = Lock::take(promotion.head.guid)?;
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
            self.lzc.promote(clone.name.as_str())?;
            made("promote");
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

    /// Whether a dataset is there, and is a clone of this snapshot.
    fn has_origin(self, name: &str, origin: Option<Guid>) -> Result<bool, Fault> {
        let Some(props) = self.props(name)? else { return Ok(false) };
        let found = text(props.view(), "origin").map(|found| self.guid(found)).transpose()?;
        Ok(found.flatten() == origin)
    }

    pub(super) fn conclude(self, conclusion: Conclusion<'_>) -> Result<Concluded, Fault> {
        let Conclusion { target, gate, marked, predecessor, carrier, property, committed } =
            conclusion;
        let target = (target.name.as_str(), target.guid);
        if !self.is(target.0, target.1)? {
            return Ok(Concluded::Replaced);
        }
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
                    match self.destroy_unchanged(known.name.as_str(), known.guid, since) {
                        Ok(_) => {}
                        Err(Fault { errno: Errno::TXTBSY, .. }) => return Ok(Concluded::Written),
                        Err(Fault { errno, .. }) => return Ok(Concluded::Busy(errno)),
                    }
                }
            }
        }
        gate.iter().try_for_each(|property| self.open(target.0, property))?;
        if !self.is(carrier.0, carrier.1)? {
            return Ok(Concluded::Done(left));
        }
        if !carrier.0.contains('@') {
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
        let mut at = carrier.0.to_owned();
        for _ in 0..MOVES {
            if left.is_none() {
                left = self.destroy_snapshot(&at).err();
            }
            match (self.find(&at, carrier.1)?, left) {
                (None, _) => return Ok(Concluded::Done(None)),
                (Some(found), Some(_)) => {
                    self.set(&found, property, committed)?;
                    return Ok(Concluded::Done(left));
                }
                (Some(elsewhere), None) => at = elsewhere,
            }
        }
        Err(Errno::BUSY.into())
    }

    pub(super) fn stage(self, staging: Staging<'_>) -> Result<Staged, Fault> {
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

    pub(super) fn conclude_in_place(self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault> {
        let InPlaceEnd { target, workspace, snapshots, base, keeps, property, committed } = end;
        if !self.is(target.name.as_str(), target.guid)? {
            return Err(not_the_one(target.name.as_str(), target.guid));
        }
        let mut left = None;
        let base_is_there = self.is(base.0, base.1)?;
        let workspace = workspace.map(|workspace| (workspace.name.as_str(), workspace.guid));
        let workspace = match workspace {
            Some((name, guid)) if self.is(name, guid)? => Some((name, guid)),
            _ => None,
        };
        // After a promote it would hold the target's snapshots.
        if let Some((name, guid)) = workspace {
            if !self.has_origin(name, Some(base.1))? {
                return Err(not_the_one(name, guid));
            }
        }
        // Once the first of these is gone, it is known by that alone that the change was received.
        if base_is_there {
            self.set(base.0, property, committed)?;
        }
        for (snapshot, guid) in snapshots {
            if self.is(snapshot, *guid)? {
                left = left.or(self.destroy_snapshot(snapshot).err());
            }
        }
        // The last but one: as long as it is there, a sweep goes on with the rest.
        if let Some((name, _)) = workspace {
            for snapshot in self.snapshots(name)? {
                left = left.or(self.destroy_snapshot(&snapshot).err());
            }
            if left.is_none() {
                left = self.destroy_dataset(name).err();
            }
        }
        let left = left.or(keeps.then_some(Errno::EXIST));
        if left.is_some() || !base_is_there {
            return Ok(left);
        }
        match self.destroy(base.0, base.1) {
            Ok(_) => Ok(None),
            Err(fault) => Ok(Some(fault.errno)),
        }
    }
}

/// Of a dataset that may have gone meanwhile.
fn if_there<T>(result: Result<T, LibZfsError>) -> Result<Option<T>, Fault> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn number(props: NvRef<'_>, name: &str) -> Option<u64> {
    props.list(name).ok()?.u64("value").ok()
}

fn text<'a>(props: NvRef<'a>, name: &str) -> Option<&'a str> {
    props.list(name).ok()?.str("value").ok()
}

/// Whether a record tells of a commit in place that has begun.
fn is_staged(record: &str) -> bool {
    record.contains(";strategy=in-place;state=committing;")
}

/// Of a call about one name.
fn first_errno(error: &LzcError) -> Errno {
    error.per_name.first().map_or(error.errno, |(_, errno)| *errno)
}

/// Keeps other commits on a dataset away, those of this mount namespace, until it is dropped.
struct Lock {
    path: PathBuf,
    _file: OwnedFd,
}

impl Lock {
    fn take(guid: Guid) -> Result<Self, Fault> {
        mount::make_private_directory(Path::new(PRIVATE_ROOT))?;
        let path = Path::new(PRIVATE_ROOT).join(format!("{guid}.lock"));
        for _ in 0..LOCK_TRIES {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    sleep(LOCK_WAIT);
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            }
            // Whoever had it before has removed the file; another one may be there by now.
            let here = fstat(&file)?.st_ino;
            if stat(&path).is_ok_and(|there| there.st_ino == here) {
                return Ok(Self { path, _file: file });
            }
        }
        let detail = Some(format!("another commit has locked {}", path.display()));
        Err(Fault { errno: Errno::BUSY, detail })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // As long as it is locked. Left behind, it would be in nobody's way.
        let _ = unlink(&self.path);
    }
}

#[cfg(not(test))]
fn made(_: &'static str) {}

#[cfg(test)]
use observed::made;
#[cfg(test)]
pub(crate) use observed::observe;

/// For tests: each call that changed something is told to whom it concerns.
#[cfg(test)]
mod observed {
    use std::cell::Cell;

    thread_local! {
        static OBSERVER: Cell<fn(&'static str)> = const { Cell::new(|_| ()) };
    }

    pub(super) fn made(call: &'static str) {
        OBSERVER.get()(call);
    }

    /// Has this thread's calls told to `observer`, from now on.
    pub(crate) fn observe(observer: fn(&'static str)) {
        OBSERVER.set(observer);
    }
}
