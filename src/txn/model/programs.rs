//! What the larger programs in `src/program` do, on the pool in memory and in the same order.

use super::memory::{Own, Pool, Snapshot, split};
use crate::engine::{
    Concluded, Conclusion, Entry, Fault, InPlaceEnd, MARK, Predecessor, Promoted, Promotion,
    PropertyValue, Scope, SnapshotId, Staged, Staging, Walk,
};
use crate::errno::Errno;
use crate::name::{DatasetName, transaction_of};
use crate::receipt::Guid;
use crate::tools;
use crate::transfer::Route;

/// What this crate's own properties begin with.
pub(super) const PREFIX: &str = "zfs-txn:";

/// journal.lua's `look`, or with `snapshots` unset its `add`.
fn records(pool: &Pool, name: &str, snapshots: bool, found: &mut Vec<Entry>) {
    let Some(dataset) = pool.datasets.get(name) else { return };
    let mut add = |carrier: String, guid: u64, createtxg: u64, own: &Own| {
        for (property, value) in own.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let PropertyValue::Text(value) = value else { continue };
            let (carrier, id) = (carrier.clone(), SnapshotId { guid: Guid(guid), createtxg });
            let (property, value) = (property.clone(), value.clone());
            found.push(Entry { carrier, id, property, value, local: true });
        }
    };
    add(name.to_owned(), dataset.guid, 0, &dataset.own);
    for snapshot in dataset.snapshots.iter().filter(|s| snapshots && s.leaf.starts_with("txn-")) {
        add(format!("{name}@{}", snapshot.leaf), snapshot.guid, snapshot.txg, &snapshot.own);
    }
}

/// known.lua; false: gone.
pub(super) fn known(pool: &Pool, name: &str, guid: Guid) -> Result<bool, Fault> {
    match pool.guid(name) {
        None => Ok(false),
        Some(found) if found == guid.0 => Ok(true),
        Some(_) => Err(Errno::STALE.into()),
    }
}

pub(super) fn set(own: &mut Own, property: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            own.insert(property.to_owned(), PropertyValue::Text(value.into()));
        }
        None => drop(own.remove(property)),
    }
}

/// What `zfs promote` does.
fn swap_origins(pool: &mut Pool, clone: &str, head: &str, base: &Snapshot) -> Result<(), Fault> {
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

/// journal.lua.
pub(super) fn journal(pool: &Pool, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
    let Scope { target, above, id } = scope;
    let mut found = Vec::new();
    above.iter().for_each(|name| records(pool, name.as_str(), false, &mut found));
    let parent = target.parent().ok_or(Errno::INVAL)?;
    for child in pool.children(parent.as_str()) {
        if scope.is_named_after_target(child) {
            records(pool, child, true, &mut found);
        }
    }
    found.retain(|entry| id.is_none_or(|id| entry.belongs_to(id)));
    Ok(found)
}

/// walk.lua.
pub(super) fn walk(pool: &Pool, below: &DatasetName) -> Walk {
    let mut walk = Walk::default();
    for name in pool.datasets.keys() {
        let rest = name.strip_prefix(below.as_str());
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            records(pool, name, true, &mut walk.entries);
        }
    }
    walk
}

/// promote.lua.
pub(super) fn promote(pool: &mut Pool, promotion: Promotion<'_>) -> Result<Promoted, Fault> {
    let Promotion { clone, head, head_origin, base, since, record, undoes: _ } = promotion;
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
    let stages = |value: &PropertyValue| match value {
        PropertyValue::Text(text) => {
            text.to_string_lossy().contains(";strategy=in-place;state=committing;")
        }
        PropertyValue::Number(_) => false,
    };
    if let Some(busy) = on_head.iter().find(|s| s.guid != base.guid && s.own.values().any(stages)) {
        return Ok(Promoted::Busy(format!("{head_name}@{}", busy.leaf)));
    }
    if let Some(since) = since {
        let mut newer = on_head.iter().filter(|snapshot| snapshot.txg > base.txg);
        if let Some(newer) = newer.find(|snapshot| transaction_of(&snapshot.leaf).is_none()) {
            return Ok(Promoted::Newer(format!("{head_name}@{}", newer.leaf)));
        }
        if pool.written(head_name, since)? {
            return Ok(Promoted::Written);
        }
    }
    swap_origins(pool, clone_name, head_name, &base)?;
    let carrier = format!("{clone_name}@{}", base.leaf);
    set(pool.own_mut(&carrier)?, record.0, Some(record.1));
    Ok(Promoted::Done)
}

/// conclude.lua.
pub(super) fn conclude(pool: &mut Pool, conclusion: Conclusion<'_>) -> Result<Concluded, Fault> {
    let Conclusion { target, gate, marked, predecessor, carrier, property, committed } = conclusion;
    if !pool.is(target.name.as_str(), target.guid) {
        return Ok(Concluded::Replaced);
    }
    let mut left = None;
    let predecessor = predecessor.filter(|old| pool.is(old.known.name.as_str(), old.known.guid));
    let before = match predecessor {
        Some(old) => pool.dataset(old.known.name.as_str())?.own.clone(),
        None => Own::new(),
    };
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
    let own = pool.own_mut(target.name.as_str())?;
    for property in gate.unwrap_or_default() {
        set(own, property, None);
    }
    let keeps_away = |(name, value): &(&String, &PropertyValue)| {
        gate.is_some()
            && tools::off(name).is_some_and(|off| **value == PropertyValue::Text(off.into()))
    };
    let closed: Vec<String> = own.iter().filter(keeps_away).map(|(name, _)| name.clone()).collect();
    for property in closed {
        match before.get(&property) {
            Some(value) => drop(own.insert(property, value.clone())),
            None => drop(own.remove(&property)),
        }
    }
    for dataset in marked
        .iter()
        .filter(|name| pool.datasets.contains_key(name.as_str()))
        .copied()
        .collect::<Vec<_>>()
    {
        set(pool.own_mut(dataset.as_str())?, MARK, None);
    }
    if !pool.is(carrier.0, carrier.1.guid) {
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

/// stage.lua; a bookmark is nothing that anybody else sees.
pub(super) fn stage(pool: &mut Pool, staging: Staging<'_>) -> Result<Staged, Fault> {
    let Staging { target, workspace, base, since, snapshot, record, .. } = staging;
    let there = pool.is(target.name.as_str(), target.guid)
        && pool.is(workspace.name.as_str(), workspace.guid)
        && pool.is(base.0, base.1);
    if !there || split(base.0).0 != target.name.as_str() {
        return Ok(Staged::Replaced);
    }
    if pool.dataset(target.name.as_str())?.origin != staging.target_origin.map(|guid| guid.0) {
        return Ok(Staged::Replaced);
    }
    if pool.written(target.name.as_str(), since)? {
        return Ok(Staged::Written);
    }
    if pool.snapshot(snapshot).is_some() {
        return Err(Errno::EXIST.into());
    }
    let (guid, leaf) = (pool.tick(), split(snapshot).1.unwrap_or_default().to_owned());
    let dataset = pool.dataset_mut(workspace.name.as_str())?;
    let (own, content) = (Own::new(), dataset.content.clone());
    dataset.snapshots.push(Snapshot { leaf, guid, txg: guid, own, content });
    set(pool.own_mut(base.0)?, record.0, Some(record.1));
    Ok(Staged::Done)
}

/// What the end of a receive does, without force.
pub(super) fn receive(pool: &mut Pool, route: Route<'_>) -> Result<(), Fault> {
    let sent = pool.snapshot(route.snapshot).ok_or(Errno::NOENT)?.clone();
    let (target, leaf) = split(route.to);
    if pool.snapshot(route.to).is_some() {
        return Err(Errno::EXIST.into());
    }
    // The bookmark has the base's leaf and guid.
    let base = route.from.and_then(|from| from.split_once('#')).map(|(_, leaf)| leaf);
    let is_base = |snapshot: &&Snapshot| match route.onto {
        Some(guid) => snapshot.guid == guid.0,
        None => Some(snapshot.leaf.as_str()) == base,
    };
    let dataset = pool.dataset(target)?;
    let base = dataset.snapshots.iter().find(is_base).ok_or(Errno::NODEV)?;
    if dataset.written > base.txg {
        return Err(Errno::TXTBSY.into());
    }
    let txg = pool.tick();
    let leaf = leaf.unwrap_or_default().to_owned();
    let dataset = pool.dataset_mut(target)?;
    (dataset.content, dataset.written) = (sent.content.clone(), txg);
    dataset.snapshots.push(Snapshot { leaf, txg, own: Own::new(), ..sent });
    Ok(())
}

/// conclude_in_place.lua.
pub(super) fn conclude_in_place(
    pool: &mut Pool,
    end: InPlaceEnd<'_>,
) -> Result<Option<Errno>, Fault> {
    if !pool.is(end.target.name.as_str(), end.target.guid) {
        return Err(Errno::STALE.into());
    }
    let mut left = None;
    if let Some(workspace) = end.workspace {
        let name = workspace.name.as_str();
        if pool.is(name, workspace.guid) {
            let dataset = pool.dataset(name)?;
            if dataset.origin != Some(end.base.1.guid.0) {
                return Err(Errno::STALE.into());
            }
            let leaves: Vec<String> = dataset.snapshots.iter().map(|s| s.leaf.clone()).collect();
            for leaf in leaves {
                left = left.or(pool.destroy(&format!("{name}@{leaf}")).err());
            }
            if left.is_none() {
                left = pool.destroy(name).err();
            }
        }
    }
    let look = end.look.map(|(name, id)| (name, id.guid));
    for (name, guid) in end.sent.into_iter().chain(look) {
        if pool.is(name, guid) {
            left = left.or(pool.destroy(name).err());
        }
    }
    if !pool.is(end.base.0, end.base.1.guid) {
        return Ok(left);
    }
    if end.keeps {
        left = left.or(Some(Errno::EXIST));
    }
    if left.is_none() {
        left = pool.destroy(end.base.0).err();
    }
    if left.is_some() {
        set(pool.own_mut(end.base.0)?, end.property, Some(end.committed));
    }
    Ok(left)
}
