//! What channel programs know by themselves, asked call by call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::{MOVES, Plain};
use crate::engine::{Entry, Facts, Fault, Scope, SnapshotId, Walk};
use crate::errno::Errno;
use crate::ffi::libzfs::{Child, LibZfsError};
use crate::ffi::nvlist::{NvList, NvRef, Value};
use crate::kernel::walk::kept_of;
use crate::kernel::{OWN_PROPERTIES, check_name, not_opened, number};
use crate::name::{DatasetName, MAX_NAME_LEN};
use crate::receipt::Guid;

/// The children of a dataset by guid.
type Places = BTreeMap<u64, (String, Option<String>)>;

/// Children that could not be asked about.
type Unread = Vec<(String, Fault)>;

impl Plain {
    pub(in crate::kernel) fn journal(self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
        let Scope { target, above, id } = scope;
        let parent = target.parent().ok_or(Errno::INVAL)?;
        let ask = |children: &[String]| {
            let mut found = Vec::new();
            for dataset in above {
                self.records_on(dataset.as_str(), &mut found)?;
            }
            for child in children.iter().filter(|name| scope.is_named_after_target(name)) {
                let Some(id) = id else {
                    let mut walk = Walk::default();
                    self.records_of(child, &mut walk)?;
                    if let Some((snapshot, fault)) = walk.unread.pop() {
                        return Err(Fault { detail: Some(snapshot), ..fault });
                    }
                    found.append(&mut walk.entries);
                    continue;
                };
                self.records_on(child, &mut found)?;
                let leaves = [id.base_leaf(), id.look_leaf()];
                for name in leaves.iter().filter_map(|leaf| snapshot_name(child, leaf)) {
                    self.records_on(&name, &mut found)?;
                }
            }
            found.retain(|entry| id.is_none_or(|id| entry.belongs_to(id)));
            Ok(found)
        };
        let (found, unread) = self.at_rest(parent.as_str(), ask)?;
        // What libzfs doesn't open was not made by a transaction; a target can't be one.
        let is_ours = |(name, fault): &(String, Fault)| {
            scope.is_named_after_target(name) && (*fault != not_opened() || name == target.as_str())
        };
        match unread.into_iter().find(is_ours) {
            Some((_, fault)) => Err(fault),
            None => Ok(found),
        }
    }

    pub(in crate::kernel) fn walk(self, below: &DatasetName) -> Result<Walk, Fault> {
        let mut walk = Walk::default();
        if let Err(fault) = self.records_of(below.as_str(), &mut walk) {
            // One that is there but can't be told hides nothing below.
            if self.libzfs.children(below.as_str()).is_err() {
                return Err(fault);
            }
            walk.unread.push((below.to_string(), fault));
        }
        self.walk_below(below.as_str(), &mut walk);
        Ok(walk)
    }

    /// Asks about the children of a dataset while no commit moves names or snapshots, because what is
    /// moved may be seen in neither place; again, if somebody who keeps no lock has done so. Returns also which
    /// children could not be asked about.
    fn at_rest<T>(
        self,
        parent: &str,
        ask: impl Fn(&[String]) -> Result<T, Fault>,
    ) -> Result<(T, Unread), Fault> {
        let _lock = match self.lock(parent) {
            // Who may make no lock can't commit either, and gets an answer all the same.
            Err(Fault { errno: Errno::PERM | Errno::ACCES | Errno::ROFS, .. }) => None,
            lock => lock?,
        };
        let (mut before, mut unread) = self.places(parent)?;
        for _ in 0..MOVES {
            let names: Vec<String> = before.values().map(|(name, _)| name.clone()).collect();
            let answer = ask(&names)?;
            let (after, unread_after) = self.places(parent)?;
            // A promote changes the origin of two, at least one of which was there before.
            let stays = |(guid, place)| after.get(guid).is_none_or(|now| now == place);
            if before.iter().all(stays) {
                return Ok((answer, unread));
            }
            (before, unread) = (after, unread_after);
        }
        let detail = Some(format!("what is below {parent} is renamed all the time"));
        Err(Fault { errno: Errno::BUSY, detail })
    }

    /// The children of a dataset by guid: their names, and the snapshots that they are clones of. One that can't
    /// be asked about hides no other.
    fn places(self, parent: &str) -> Result<(Places, Unread), Fault> {
        let (mut places, mut unread) = (Places::new(), Unread::new());
        let children = if_there(self.libzfs.children(parent))?.unwrap_or_default();
        for Child { name, opens } in children.into_iter().filter(|child| is_sound(&child.name)) {
            let props = if opens { self.props(&name) } else { Err(not_opened()) };
            let props = match props {
                Ok(Some(props)) => props,
                Ok(None) => continue,
                Err(fault) => {
                    unread.push((name, fault));
                    continue;
                }
            };
            let Some(guid) = number(props.view(), "guid") else { continue };
            let origin = origin_of(props.view());
            places.insert(guid, (name, origin));
        }
        Ok((places, unread))
    }

    fn walk_below(self, dataset: &str, walk: &mut Walk) {
        let ask = |children: &[String]| {
            let mut seen = Walk::default();
            for child in children {
                if let Err(fault) = self.records_of(child, &mut seen) {
                    seen.unread.push((child.clone(), fault));
                }
            }
            Ok((children.to_vec(), seen))
        };
        match self.at_rest(dataset, ask) {
            Ok(((children, seen), unread)) => {
                walk.entries.extend(seen.entries);
                walk.unread.extend(seen.unread);
                walk.unread.extend(unread);
                children.iter().for_each(|child| self.walk_below(child, walk));
            }
            Err(fault) => walk.unread.push((dataset.to_owned(), fault)),
        }
    }

    /// Those on a dataset and on its snapshots. A snapshot that can't be read hides no other.
    fn records_of(self, dataset: &str, walk: &mut Walk) -> Result<(), Fault> {
        let look = |carrier: &str, walk: &mut Walk| -> Result<(), Fault> {
            let known = walk.entries.len();
            self.records_on(carrier, &mut walk.entries)?;
            for entry in &mut walk.entries[known..] {
                entry.value = kept_of(&entry.property, &entry.value);
            }
            Ok(())
        };
        look(dataset, walk)?;
        let of_transactions = format!("{dataset}@txn-");
        let snapshots = if_there(self.libzfs.snapshots(dataset))?.unwrap_or_default();
        for name in snapshots.iter().filter(|name| name.starts_with(&of_transactions)) {
            if !is_sound(name) {
                continue;
            }
            if let Err(fault) = look(name, walk) {
                walk.unread.push((name.clone(), fault));
            }
        }
        Ok(())
    }

    pub(super) fn records_on(self, carrier: &str, found: &mut Vec<Entry>) -> Result<(), Fault> {
        let Some(props) = self.props(carrier)? else { return Ok(()) };
        let Some(id) = id_of(props.view()) else { return Ok(()) };
        for pair in props.iter() {
            let (property, Value::List(attributes)) = pair? else { continue };
            // The kernel takes no other names of properties.
            let Some(property) = property.to_str() else { continue };
            let source = attributes.os_str("source").unwrap_or_default();
            if property.starts_with(OWN_PROPERTIES) && (source == carrier || source == "$recvd") {
                found.push(Entry {
                    carrier: carrier.to_owned(),
                    id,
                    property: property.to_owned(),
                    value: attributes.os_str("value")?.to_owned(),
                    local: source == carrier,
                });
            }
        }
        Ok(())
    }

    pub(in crate::kernel) fn facts(self, name: &str) -> Result<Option<Facts>, Fault> {
        let Some((props, origin)) = self.props_and_origin(name)? else { return Ok(None) };
        let SnapshotId { guid, createtxg } = id_of(props.view()).ok_or(Errno::INVAL)?;
        let mut facts = Facts {
            guid,
            createtxg,
            volume: false,
            origin,
            children: 0,
            mountpoint: PathBuf::new(),
        };
        if name.contains('@') {
            return Ok(Some(facts));
        }
        facts.volume = props.contains("volsize");
        let Some(children) = if_there(self.libzfs.children(name))? else { return Ok(None) };
        facts.children = children.len() as u64;
        if !facts.volume {
            let Some(path) = if_there(self.libzfs.mountpoint(name))? else { return Ok(None) };
            facts.mountpoint = path;
        }
        Ok(Some(facts))
    }

    pub(in crate::kernel) fn longest_snapshot(self, dataset: &str) -> Result<usize, Fault> {
        let snapshots = self.snapshots(dataset)?;
        let leaves =
            snapshots.iter().filter_map(|name| name.split_once('@')).map(|(_, leaf)| leaf.len());
        let bookmarks = self.bookmarks(dataset)?;
        Ok(leaves.chain(bookmarks.iter().map(String::len)).max().unwrap_or(0))
    }

    pub(in crate::kernel) fn snapshots_since(
        self,
        dataset: &str,
        base: &str,
    ) -> Result<Vec<String>, Fault> {
        let base = self.txg(base)?.ok_or(Errno::NOENT)?;
        let mut newer = Vec::new();
        for snapshot in self.snapshots(dataset)? {
            if self.txg(&snapshot)?.is_some_and(|txg| txg > base) {
                newer.push(snapshot);
            }
        }
        Ok(newer)
    }

    /// By what name a snapshot is there that was `name`, or may have been: on any dataset beside.
    pub(in crate::kernel) fn find_snapshot(
        self,
        name: &str,
        id: SnapshotId,
    ) -> Result<Option<String>, Fault> {
        self.search(name, |found, _| found == id)
    }

    /// The first snapshot that is meant, of those with the last part of `name` on datasets beside. What can't be read
    /// stops the search where it is named after the same target; what is anybody else's stops nobody.
    fn search(
        self,
        name: &str,
        is_meant: impl Fn(SnapshotId, bool) -> bool,
    ) -> Result<Option<String>, Fault> {
        let Some((parent, leaf)) = above_and_leaf(name) else { return Ok(None) };
        let stem = |name: &str| {
            let holder = name.split('@').next()?.parse::<DatasetName>().ok()?;
            Some(holder.stem().to_owned())
        };
        let own = stem(name);
        let is_own = |name: &str| stem(name) == own;
        let ask = |children: &[String]| {
            let mut unread = None;
            for name in children.iter().filter_map(|child| snapshot_name(child, leaf)) {
                match self.snapshot_id(&name) {
                    Ok(Some(id)) if is_meant(id, is_own(&name)) => return Ok(Some(name)),
                    Ok(_) => {}
                    // Damaged, or of a forged type. That of anybody else stops nobody.
                    Err(fault) if fault.errno == Errno::IO || fault == not_opened() => {
                        unread = unread.or(is_own(&name).then_some(fault));
                    }
                    Err(fault) => return Err(fault),
                }
            }
            unread.map_or(Ok(None), Err)
        };
        let (found, unread) = self.at_rest(parent, ask)?;
        // What libzfs doesn't open is the clone of nothing that is looked for.
        let mut unread = unread.into_iter();
        match unread.find(|(name, fault)| is_own(name) && *fault != not_opened()) {
            Some((_, fault)) if found.is_none() => Err(fault),
            _ => Ok(found),
        }
    }

    pub(super) fn props(self, name: &str) -> Result<Option<NvList>, Fault> {
        check_name(name)?;
        if_there(self.libzfs.props(name))
    }

    pub(super) fn guid(self, name: &str) -> Result<Option<Guid>, Fault> {
        Ok(self.props(name)?.and_then(|props| number(props.view(), "guid")).map(Guid))
    }

    pub(super) fn snapshot_id(self, name: &str) -> Result<Option<SnapshotId>, Fault> {
        Ok(self.props(name)?.and_then(|props| id_of(props.view())))
    }

    pub(super) fn is(self, name: &str, guid: Guid) -> Result<bool, Fault> {
        Ok(self.guid(name)? == Some(guid))
    }

    pub(super) fn txg(self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.props(name)?.and_then(|props| number(props.view(), "createtxg")))
    }

    /// The full name of the snapshot that a dataset is a clone of.
    pub(super) fn origin(self, name: &str) -> Result<Option<String>, Fault> {
        let props = self.props(name)?;
        Ok(props.and_then(|props| origin_of(props.view())))
    }

    /// The properties of a dataset with its origin, which others' commits may move between the two questions.
    /// None is also the origin that can't be seen.
    fn props_and_origin(self, name: &str) -> Result<Option<(NvList, Option<SnapshotId>)>, Fault> {
        let mut tries = MOVES;
        loop {
            let Some(props) = self.props(name)? else { return Ok(None) };
            let Some(origin) = origin_of(props.view()) else { return Ok(Some((props, None))) };
            let id = match self.snapshot_id(&origin) {
                // What asks for the dataset alone goes on.
                Err(Fault { errno: Errno::IO, .. }) => Some(SnapshotId::UNREADABLE),
                id => id?,
            };
            tries -= 1;
            if id.is_some() || tries == 0 {
                return Ok(Some((props, id)));
            }
        }
    }

    pub(in crate::kernel) fn snapshots(self, name: &str) -> Result<Vec<String>, Fault> {
        Ok(self.libzfs.snapshots(name)?)
    }

    /// The last parts of the names of a dataset's bookmarks.
    pub(in crate::kernel) fn bookmarks(self, name: &str) -> Result<Vec<String>, Fault> {
        let bookmarks = self.lzc.get_bookmarks(name, &[])?;
        let names =
            bookmarks.iter().map(|pair| pair.map(|(name, _)| name.to_string_lossy().into_owned()));
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// The own value of `readonly`, in words.
    pub(super) fn own_readonly(self, name: &str) -> Result<Option<&'static str>, Fault> {
        let Some(props) = self.props(name)? else { return Ok(None) };
        let Ok(attributes) = props.list("readonly") else { return Ok(None) };
        let own = attributes.os_str("source").is_ok_and(|source| source == name);
        Ok(own.then(|| if attributes.u64("value") == Ok(1) { "on" } else { "off" }))
    }

    /// The own value of a user property, or one that a receive brought.
    pub(super) fn own_or_received(
        self,
        name: &str,
        property: &str,
    ) -> Result<Option<OsString>, Fault> {
        let Some(props) = self.props(name)? else { return Ok(None) };
        let Ok(attributes) = props.list(property) else { return Ok(None) };
        let source = attributes.os_str("source").unwrap_or_default();
        let own = source == name || source == "$recvd";
        Ok(if own { Some(attributes.os_str("value")?.to_owned()) } else { None })
    }

    /// The own value of a user property.
    pub(super) fn own(self, name: &str, property: &str) -> Result<Option<OsString>, Fault> {
        Ok(self.props(name)?.and_then(|props| own_of(props.view(), name, property)))
    }

    /// The name by which a snapshot is there, if it is: promotes and renames of others move it.
    pub(super) fn whereabouts(self, name: &str, id: SnapshotId) -> Result<Option<String>, Fault> {
        if self.snapshot_id(name)? == Some(id) {
            return Ok(Some(name.to_owned()));
        }
        self.find_snapshot(name, id)
    }

    /// The same for one that is known by its guid alone: it is looked for only where commits move it, as copies of it
    /// may be anywhere.
    pub(super) fn beside(self, name: &str, guid: Guid) -> Result<Option<String>, Fault> {
        if self.is(name, guid)? {
            return Ok(Some(name.to_owned()));
        }
        self.search(name, |found, is_own| is_own && found.guid == guid)
    }

    pub(super) fn is_receiving(self, dataset: &str) -> bool {
        self.lzc.exists(&format!("{dataset}/%recv")).unwrap_or(false)
    }

    /// Whether a dataset is there, and is a clone of this snapshot.
    pub(super) fn has_origin(self, name: &str, origin: Option<Guid>) -> Result<bool, Fault> {
        let found = self.props_and_origin(name)?;
        Ok(found.is_some_and(|(_, found)| found.map(|found| found.guid) == origin))
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

/// Among the properties of `name`, the value of one that was set there.
fn own_of(props: NvRef<'_>, name: &str, property: &str) -> Option<OsString> {
    let attributes = props.list(property).ok()?;
    let is_own = attributes.os_str("source").is_ok_and(|source| source == name);
    let value = attributes.os_str("value").ok()?;
    is_own.then(|| value.to_owned())
}

/// The name of a dataset's snapshot, unless it would be longer than there can be one.
fn snapshot_name(dataset: &str, leaf: &str) -> Option<String> {
    Some(format!("{dataset}@{leaf}")).filter(|name| name.len() <= MAX_NAME_LEN)
}

/// What tells it from copies.
fn id_of(props: NvRef<'_>) -> Option<SnapshotId> {
    let (guid, createtxg) = (number(props, "guid")?, number(props, "createtxg")?);
    Some(SnapshotId { guid: Guid(guid), createtxg })
}

/// What is above the dataset of a snapshot, and the last part of its name.
fn above_and_leaf(name: &str) -> Option<(&str, &str)> {
    let (dataset, leaf) = name.split_once('@')?;
    Some((dataset.rsplit_once('/')?.0, leaf))
}

/// The name of a clone's origin.
fn origin_of(props: NvRef<'_>) -> Option<String> {
    let origin = props.list("origin").ok()?.os_str("value").ok()?;
    Some(origin.to_string_lossy().into_owned())
}

/// Whether libzfs takes a name as one. A channel program checks none that it makes.
fn is_sound(name: &str) -> bool {
    if !name.is_ascii() {
        tracing::warn!(name, "not a name that ZFS allows: no record is looked for there");
    }
    name.is_ascii()
}
