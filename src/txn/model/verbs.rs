//! The verbs of an engine, on the pool in memory. Programs do here what their text in
//! `src/program` says, in the same order.

use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::memory::{Dataset, Memory, Own, Pool, Snapshot, split};
use crate::engine::{
    Concluded, Conclusion, Engine, Entry, Facts, Fault, Place, Predecessor, PreparedMount,
    Promoted, Promotion, PropertyValue, Scope, Settings,
};
use crate::errno::Errno;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::Guid;

const PREFIX: &str = "zfs-txn:";

const OPTIONS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RELATIME;

/// journal.lua's `look`, or with `snapshots` unset its `add`.
fn records(pool: &Pool, name: &str, snapshots: bool, found: &mut Vec<Entry>) {
    let Some(dataset) = pool.datasets.get(name) else { return };
    let mut add = |carrier: String, guid: u64, own: &Own| {
        for (property, value) in own.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let PropertyValue::Text(value) = value else { continue };
            let (carrier, guid) = (carrier.clone(), Guid(guid));
            let (property, value) = (property.clone(), value.clone());
            found.push(Entry { carrier, guid, property, value, local: true });
        }
    };
    add(name.to_owned(), dataset.guid, &dataset.own);
    for snapshot in dataset.snapshots.iter().filter(|s| snapshots && s.leaf.starts_with("txn-")) {
        add(format!("{name}@{}", snapshot.leaf), snapshot.guid, &snapshot.own);
    }
}

/// known.lua; false: gone.
fn known(pool: &Pool, name: &str, guid: Guid) -> Result<bool, Fault> {
    match pool.guid(name) {
        None => Ok(false),
        Some(found) if found == guid.0 => Ok(true),
        Some(_) => Err(Errno::STALE.into()),
    }
}

fn set(own: &mut Own, property: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            own.insert(property.to_owned(), PropertyValue::Text(value.to_owned()));
        }
        None => drop(own.remove(property)),
    }
}

/// The pattern of promote.lua: a snapshot that transactions take for themselves.
fn is_of_a_transaction(leaf: &str) -> bool {
    let id = leaf.strip_prefix("txn-").map(|id| id.strip_suffix("-look").unwrap_or(id));
    id.is_some_and(|id| id.parse::<TransactionId>().is_ok())
}

/// What `zfs promote` does.
fn promote(pool: &mut Pool, clone: &str, head: &str, base: &Snapshot) -> Result<(), Fault> {
    let old = pool.dataset_mut(head)?;
    let (mut moved, stay): (Vec<_>, Vec<_>) =
        old.snapshots.clone().into_iter().partition(|snapshot| snapshot.txg <= base.txg);
    let origin = old.origin;
    let own = &pool.dataset(clone)?.snapshots;
    if let Some(twice) = moved.iter().find(|moved| own.iter().any(|s| s.leaf == moved.leaf)) {
        let detail = Some(format!("in the way: {}", twice.leaf));
        return Err(Fault { errno: Errno::EXIST, detail });
    }
    let old = pool.dataset_mut(head)?;
    old.snapshots = stay;
    old.origin = Some(base.guid);
    let new = pool.dataset_mut(clone)?;
    moved.append(&mut new.snapshots);
    new.snapshots = moved;
    new.origin = origin;
    Ok(())
}

impl Engine for Memory {
    fn journal(&self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
        let pool = self.pool();
        let mut found = Vec::new();
        match scope {
            Scope::Below(scope) => {
                for name in pool.datasets.keys() {
                    let below = name.strip_prefix(scope.as_str());
                    if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                        records(&pool, name, true, &mut found);
                    }
                }
            }
            Scope::Target { target, above } => {
                above.iter().for_each(|name| records(&pool, name.as_str(), false, &mut found));
                let parent = target.parent().ok_or(Errno::INVAL)?;
                for child in pool.children(parent.as_str()) {
                    let rest = child.strip_prefix(target.as_str());
                    if rest.is_some_and(|rest| {
                        rest.is_empty() || rest.starts_with("-txn-") || rest.starts_with("-old-")
                    }) {
                        records(&pool, child, true, &mut found);
                    }
                }
            }
        }
        Ok(found)
    }

    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault> {
        let pool = self.pool();
        let Some(guid) = pool.guid(name) else { return Ok(None) };
        let (dataset, leaf) = split(name);
        let head = pool.dataset(dataset)?;
        let of_head = leaf.is_none();
        Ok(Some(Facts {
            guid: Guid(guid),
            volume: false,
            origin: head.origin.filter(|_| of_head).map(Guid),
            children: if of_head { pool.children(name).count() as u64 } else { 0 },
            creation: 0,
            mountpoint: if of_head { pool.mountpoint(name) } else { String::new() },
        }))
    }

    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault> {
        let pool = self.pool();
        let name = dataset.as_str();
        let own = pool.dataset(name)?.own.iter();
        let own = own.filter(|(name, _)| !name.starts_with(PREFIX) && *name != "zoned");
        Ok(Settings {
            own: own.map(|(name, value)| (name.clone(), value.clone())).collect(),
            readonly: false,
            encryption_root: false,
            key_loaded: true,
            zoned: pool.zoned(name),
            claim: pool.claim(name),
            permissions: None,
        })
    }

    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault> {
        let pool = self.pool();
        let snapshots = &pool.dataset(dataset.as_str())?.snapshots;
        Ok(snapshots.iter().map(|snapshot| snapshot.leaf.len()).max().unwrap_or(0))
    }

    fn snapshots_since(&self, dataset: &DatasetName, base: &str) -> Result<Vec<String>, Fault> {
        let pool = self.pool();
        let base = pool.snapshot(base).ok_or(Errno::NOENT)?.txg;
        let snapshots = pool.dataset(dataset.as_str())?.snapshots.iter();
        let newer = snapshots.filter(|snapshot| snapshot.txg > base);
        Ok(newer.map(|snapshot| format!("{dataset}@{}", snapshot.leaf)).collect())
    }

    fn find_snapshot(
        &self,
        parent: &DatasetName,
        leaf: &str,
        guid: Guid,
    ) -> Result<Option<String>, Fault> {
        let pool = self.pool();
        let mut names = pool.children(parent.as_str()).map(|child| format!("{child}@{leaf}"));
        Ok(names.find(|name| pool.is(name, guid)))
    }

    fn differs(&self, one: &SnapshotName, base: &SnapshotName) -> Result<bool, Fault> {
        let pool = self.pool();
        let content = |name: &SnapshotName| pool.snapshot(name.as_str()).map(|s| &s.content);
        let one = content(one).ok_or(Errno::NOENT)?;
        Ok(one != content(base).ok_or(Errno::NOENT)?)
    }

    fn places(&self, dataset: &DatasetName) -> Result<Vec<Place>, Fault> {
        let pool = self.pool();
        let guid = pool.guid(dataset.as_str());
        let mounts = pool.mounts.iter().filter(|mount| Some(mount.dataset) == guid);
        Ok(mounts
            .map(|mount| Place {
                replaces: Some(mount.id),
                path: mount.path.clone(),
                options: OPTIONS,
            })
            .collect())
    }

    fn mount_options(&self, dataset: &DatasetName) -> Result<MountAttrFlags, Fault> {
        self.pool().dataset(dataset.as_str()).map(|_| OPTIONS)
    }

    fn mounts_on(&self, place: &Place) -> Result<Vec<PathBuf>, Fault> {
        let pool = self.pool();
        let on = |path: &Path| path != place.path && path.starts_with(&place.path);
        Ok(pool.mounts.iter().map(|m| m.path.clone()).filter(|path| on(path)).collect())
    }

    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault> {
        let own = own.iter().cloned().collect();
        self.pool().new_dataset(name.as_str(), Dataset { own, ..Dataset::default() })
    }

    fn snapshot(&self, name: &SnapshotName, property: Option<(&str, &str)>) -> Result<(), Fault> {
        let mut pool = self.pool();
        if pool.snapshot(name.as_str()).is_some() {
            return Err(Errno::EXIST.into());
        }
        let guid = pool.tick();
        let dataset = pool.dataset_mut(name.dataset().as_str())?;
        let (leaf, content) = (name.leaf().to_owned(), dataset.content.clone());
        let mut own = Own::new();
        if let Some((property, value)) = property {
            set(&mut own, property, Some(value));
        }
        dataset.snapshots.push(Snapshot { leaf, guid, txg: guid, own, content });
        Ok(())
    }

    fn clone_snapshot(
        &self,
        name: &DatasetName,
        origin: &SnapshotName,
        own: &[(String, PropertyValue)],
    ) -> Result<(), Fault> {
        let mut pool = self.pool();
        let from = pool.snapshot(origin.as_str()).ok_or(Errno::NOENT)?.clone();
        let own = own.iter().cloned().collect();
        let (origin, content) = (Some(from.guid), from.content);
        pool.new_dataset(name.as_str(), Dataset { origin, content, own, ..Dataset::default() })
    }

    fn copy_permissions(&self, _: &DatasetName, _: &DatasetName) -> Result<(), Fault> {
        Err(Errno::NOTSUP.into())
    }

    fn promote(&self, promotion: Promotion<'_>) -> Result<Promoted, Fault> {
        let mut pool = self.pool();
        let Promotion { clone, head, head_origin, base, since, record } = promotion;
        let (clone_name, head_name) = (clone.name.as_str(), head.name.as_str());
        if !pool.is(clone_name, clone.guid) || !pool.is(head_name, head.guid) {
            return Ok(Promoted::Replaced);
        }
        let on_head = &pool.dataset(head_name)?.snapshots;
        let found = on_head.iter().find(|snapshot| snapshot.guid == base.0).cloned();
        let is_origin = pool.dataset(clone_name)?.origin == Some(base.0);
        let Some(base) = found.filter(|_| is_origin) else { return Ok(Promoted::Replaced) };
        if pool.dataset(head_name)?.origin != head_origin.map(|guid| guid.0) {
            return Ok(Promoted::Replaced);
        }
        if let Some(since) = since {
            let mut newer = on_head.iter().filter(|snapshot| snapshot.txg > base.txg);
            if let Some(newer) = newer.find(|snapshot| !is_of_a_transaction(&snapshot.leaf)) {
                return Ok(Promoted::Newer(format!("{head_name}@{}", newer.leaf)));
            }
            if pool.written(head_name, since)? {
                return Ok(Promoted::Written);
            }
        }
        promote(&mut pool, clone_name, head_name, &base)?;
        let carrier = format!("{clone_name}@{}", base.leaf);
        set(pool.own_mut(&carrier)?, record.0, Some(record.1));
        Ok(Promoted::Done)
    }

    fn conclude(&self, conclusion: Conclusion<'_>) -> Result<Concluded, Fault> {
        let mut pool = self.pool();
        let Conclusion { target, gate, marked, predecessor, carrier, property, committed } =
            conclusion;
        if !pool.is(target.name.as_str(), target.guid) {
            return Ok(Concluded::Replaced);
        }
        let mut left = None;
        let predecessor =
            predecessor.filter(|old| pool.is(old.known.name.as_str(), old.known.guid));
        if let Some(Predecessor { known, since }) = predecessor {
            let old = known.name.as_str();
            if let Some((since, guid)) = since {
                if !pool.is(since, guid) {
                    return Ok(Concluded::Replaced);
                }
                if pool.written(old, since)? {
                    return Ok(Concluded::Written);
                }
                if pool.dataset(old)?.snapshots.iter().any(|snapshot| snapshot.guid != guid.0) {
                    return Ok(Concluded::Busy(Errno::EXIST));
                }
                let own = split(since).0 == old;
                let destroyed = if own { pool.destroy(since) } else { Ok(()) };
                if let Err(errno) = destroyed.and_then(|()| pool.destroy(old)) {
                    return Ok(Concluded::Busy(errno));
                }
            } else {
                set(pool.own_mut(old)?, "mountpoint", None);
                left = Some(Errno::BUSY);
            }
        }
        for property in gate {
            set(pool.own_mut(target.name.as_str())?, property, None);
        }
        for dataset in marked
            .iter()
            .filter(|name| pool.datasets.contains_key(name.as_str()))
            .copied()
            .collect::<Vec<_>>()
        {
            set(pool.own_mut(dataset.as_str())?, crate::engine::MARK, None);
        }
        if !pool.is(carrier.0, carrier.1) {
            return Ok(Concluded::Done(left));
        }
        if split(carrier.0).1.is_none() {
            set(pool.own_mut(carrier.0)?, property, None);
            return Ok(Concluded::Done(None));
        }
        let left = left.or_else(|| pool.destroy(carrier.0).err());
        if left.is_some() {
            set(pool.own_mut(carrier.0)?, property, Some(committed));
        }
        Ok(Concluded::Done(left))
    }

    fn write_record(
        &self,
        (carrier, guid): (&str, Guid),
        property: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), Fault> {
        let mut pool = self.pool();
        if !known(&pool, carrier, guid)? {
            return Err(Errno::NOENT.into());
        }
        let own = pool.own_mut(carrier)?;
        let expected = old.map(|old| PropertyValue::Text(old.to_owned()));
        if own.get(property) != expected.as_ref() {
            return Err(Errno::STALE.into());
        }
        set(own, property, new);
        Ok(())
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault> {
        let mut pool = self.pool();
        pool.dataset(from.as_str())?;
        if pool.datasets.contains_key(to.as_str()) {
            return Err(Errno::EXIST.into());
        }
        let parent = to.parent().ok_or(Errno::INVAL)?;
        pool.dataset(parent.as_str())?;
        let below = |name: &&String| {
            let rest = name.strip_prefix(from.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let names: Vec<String> = pool.datasets.keys().filter(below).cloned().collect();
        for name in names {
            if let Some(dataset) = pool.datasets.remove(&name) {
                pool.datasets.insert(format!("{to}{}", &name[from.as_str().len()..]), dataset);
            }
        }
        Ok(())
    }

    fn destroy(&self, name: &str, guid: Guid) -> Result<bool, Fault> {
        let mut pool = self.pool();
        Ok(known(&pool, name, guid)? && pool.destroy(name).map(|()| true)?)
    }

    fn destroy_unchanged(
        &self,
        name: &str,
        guid: Guid,
        (since, since_guid): (&str, Guid),
    ) -> Result<bool, Fault> {
        let mut pool = self.pool();
        if !known(&pool, name, guid)? {
            return Ok(false);
        }
        if !pool.is(since, since_guid) {
            return Err(Errno::STALE.into());
        }
        if pool.written(name, since)? {
            return Err(Errno::TXTBSY.into());
        }
        if split(since).0 == name {
            pool.destroy(since)?;
        }
        pool.destroy(name)?;
        Ok(true)
    }

    fn destroy_workspace(
        &self,
        name: &DatasetName,
        guid: Guid,
        origin: Option<Guid>,
    ) -> Result<bool, Fault> {
        let mut pool = self.pool();
        if !known(&pool, name.as_str(), guid)? {
            return Ok(false);
        }
        let dataset = pool.dataset(name.as_str())?;
        if dataset.origin != origin.map(|guid| guid.0) {
            return Err(Errno::STALE.into());
        }
        let leaves: Vec<String> = dataset.snapshots.iter().map(|s| s.leaf.clone()).collect();
        for leaf in leaves {
            pool.destroy(&format!("{name}@{leaf}"))?;
        }
        pool.destroy(name.as_str())?;
        Ok(true)
    }

    fn inherit(&self, name: &DatasetName, guid: Guid, properties: &[&str]) -> Result<(), Fault> {
        let mut pool = self.pool();
        if !known(&pool, name.as_str(), guid)? {
            return Err(Errno::NOENT.into());
        }
        let own = pool.own_mut(name.as_str())?;
        properties.iter().for_each(|property| set(own, property, None));
        Ok(())
    }

    fn set_mountpoint(&self, name: &DatasetName, value: &str) -> Result<(), Fault> {
        set(self.pool().own_mut(name.as_str())?, "mountpoint", Some(value));
        Ok(())
    }

    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault> {
        let mut pool = self.pool();
        // noauto
        pool.own_mut(name.as_str())?.insert("canmount".to_owned(), PropertyValue::Number(2));
        Ok(())
    }

    fn mount_private(&self, dataset: &DatasetName, at: &Path) -> Result<(), Fault> {
        let mut pool = self.pool();
        let guid = pool.dataset(dataset.as_str())?.guid;
        pool.mount(guid, at);
        Ok(())
    }

    fn unmount_private(&self, at: &Path) -> Result<(), Fault> {
        let mut pool = self.pool();
        pool.unmount(at);
        // The directory can't be removed as long as something is mounted there.
        if pool.topmost(at).is_some() { Err(Errno::BUSY.into()) } else { Ok(()) }
    }

    fn unmount_stray(&self, place: &Place) -> Result<(), Fault> {
        match self.pool().unmount(&place.path) {
            true => Ok(()),
            false => Err(Errno::INVAL.into()),
        }
    }

    fn flush(&self, at: &Path) -> Result<(), Fault> {
        match self.pool().topmost(at) {
            Some(_) => Ok(()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn replay(&self, dataset: &DatasetName) -> Result<(), Fault> {
        self.pool().dataset(dataset.as_str()).map(|_| ())
    }

    fn set_ownership(&self, at: &Path, _: &Ids) -> Result<(), Fault> {
        self.flush(at)
    }

    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault> {
        let mut pool = self.pool();
        let guid = pool.dataset(dataset.as_str())?.guid;
        Ok(PreparedMount { place, mount: pool.prepare(guid)? })
    }

    fn attach(&self, prepared: PreparedMount) -> Result<bool, Fault> {
        let mut pool = self.pool();
        let PreparedMount { place, mount } = prepared;
        let dataset = pool.prepared(&mount)?;
        let below = |path: &Path| path != place.path && path.starts_with(&place.path);
        if pool.mounts.iter().any(|mount| below(&mount.path)) {
            return Err(Errno::BUSY.into());
        }
        if let Some(old) = place.replaces {
            if !pool.mounts.iter().any(|mount| mount.id == old) {
                return Ok(false);
            }
            if pool.topmost(&place.path).map(|mount| mount.id) != Some(old) {
                return Err(Errno::BUSY.into());
            }
            pool.unmount(&place.path);
        }
        pool.mount(dataset, &place.path);
        Ok(true)
    }
}
