//! The verbs of an engine, on the pool in memory.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::memory::{Dataset, Memory, Own, Snapshot, split};
use super::programs::{self, PREFIX, known, set};
use crate::engine::{
    AtEnd, Attached, Concluded, Conclusion, Difference, Engine, Entry, Facts, Fault, InPlaceEnd,
    Lack, Place, PreparedMount, Private, Promoted, Promotion, PropertyValue, Scope, Settings,
    Shortage, SnapshotId, Staged, Staging, Unfit, Walk, Watch,
};
use crate::errno::Errno;
use crate::mount::another_ones;
use crate::name::{DatasetName, SnapshotName};
use crate::ownership::Ids;
use crate::receipt::{ElsewhereMount, Guid, Leftover};
use crate::stream::passage::{Changes, FileId};
use crate::transfer::Route;
use crate::txn::journal::Fence;

const OPTIONS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RELATIME;

impl Engine for Memory {
    fn runs_programs(&self, _: &DatasetName) -> Result<bool, Fault> {
        Ok(true)
    }

    fn journal(&self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
        let pool = self.pool();
        match pool.journal_fails.filter(|_| scope.id.is_some()) {
            Some(errno) => Err(errno.into()),
            None => programs::journal(&pool, scope),
        }
    }

    fn walk(&self, below: &DatasetName) -> Result<Walk, Fault> {
        let mut pool = self.pool();
        if let Some(entries) = pool.seen.take() {
            return Ok(Walk { entries, unread: Vec::new() });
        }
        let renamed = pool.renamed_then.take();
        drop(pool);
        if let Some([from, to]) = renamed {
            self.rename(&from, &to)?;
        }
        Ok(programs::walk(&self.pool(), below))
    }

    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault> {
        let pool = self.pool();
        let Some(guid) = pool.guid(name) else { return Ok(None) };
        let createtxg = pool.createtxg(name);
        let (dataset, leaf) = split(name);
        let head = pool.dataset(dataset)?;
        let of_head = leaf.is_none();
        Ok(Some(Facts {
            guid: Guid(guid),
            createtxg,
            volume: false,
            origin: head.origin.filter(|_| of_head).and_then(|guid| {
                let name = pool.first_named(guid)?;
                let createtxg = pool.createtxg(&name);
                Some(SnapshotId { guid: Guid(guid), createtxg })
            }),
            children: if of_head { pool.children(name).count() as u64 } else { 0 },
            mountpoint: if of_head { pool.mountpoint(name).into() } else { PathBuf::new() },
        }))
    }

    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault> {
        let pool = self.pool();
        let name = dataset.as_str();
        let own = pool.dataset(name)?.own.iter();
        let own = own.filter(|(name, _)| !name.starts_with(PREFIX) && *name != "zoned");
        Ok(Settings {
            own: own.map(|(name, value)| (name.clone(), value.clone())).collect(),
            zoned: pool.zoned(name),
            claim: pool.claim(name).map(PathBuf::from),
            ..Settings::plain()
        })
    }

    fn is_empty(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        Ok(self.pool().dataset(dataset.as_str())?.seen().is_empty())
    }

    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault> {
        let pool = self.pool();
        let snapshots = &pool.dataset(dataset.as_str())?.snapshots;
        Ok(snapshots.iter().map(|snapshot| snapshot.leaf.len()).max().unwrap_or(0))
    }

    /// The reference doesn't know of commits in place.
    fn lacks(&self, _: &DatasetName) -> Result<Option<Lack>, Fault> {
        Ok(Some(Lack::Kernel))
    }

    fn shortage(&self, _: &DatasetName) -> Result<Option<Shortage>, Fault> {
        Ok(None)
    }

    fn holders(&self, _: &str) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    fn snapshots_and_bookmarks(&self, dataset: &DatasetName) -> Result<Vec<String>, Fault> {
        let pool = self.pool();
        let Ok(found) = pool.dataset(dataset.as_str()) else { return Ok(Vec::new()) };
        Ok(found.snapshots.iter().map(|snapshot| format!("{dataset}@{}", snapshot.leaf)).collect())
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
        target: &DatasetName,
        leaf: &str,
        id: SnapshotId,
    ) -> Result<Option<String>, Fault> {
        let pool = self.pool();
        let Some(parent) = target.parent() else { return Ok(None) };
        let mut names = pool.children(parent.as_str()).map(|child| format!("{child}@{leaf}"));
        Ok(names.find(|name| pool.is(name, id.guid) && pool.createtxg(name) == id.createtxg))
    }

    fn newcomers(&self, _: &SnapshotName, _: &SnapshotName) -> Result<Vec<FileId>, Fault> {
        Ok(Vec::new())
    }

    fn difference(&self, one: &SnapshotName, base: &SnapshotName) -> Result<Difference, Fault> {
        let pool = self.pool();
        let content = |name: &SnapshotName| pool.snapshot(name.as_str()).map(|s| &s.content);
        let one = content(one).ok_or(Errno::NOENT)?;
        // There are no objects without a name.
        Ok(match one == content(base).ok_or(Errno::NOENT)? {
            true => Difference::Nothing,
            false => Difference::Content,
        })
    }

    fn places(&self, dataset: &DatasetName) -> Result<Vec<Place>, Fault> {
        let pool = self.pool();
        let guid = pool.guid(dataset.as_str());
        let mounts = pool.mounts.iter().filter(|mount| Some(mount.dataset) == guid);
        Ok(mounts.map(|mount| Place::new(Some(mount.id), mount.path.clone(), OPTIONS)).collect())
    }

    fn mount_options(&self, dataset: &DatasetName) -> Result<MountAttrFlags, Fault> {
        self.pool().dataset(dataset.as_str()).map(|_| OPTIONS)
    }

    fn mounts_on(&self, place: &Place) -> Result<Vec<PathBuf>, Fault> {
        let pool = self.pool();
        let on = |path: &Path| path != place.path && path.starts_with(&place.path);
        Ok(pool.mounts.iter().map(|m| m.path.clone()).filter(|path| on(path)).collect())
    }

    // There is one mount namespace here, and nothing but whole datasets is mounted.
    fn displaced(&self, _: &DatasetName, _: BorrowedFd<'_>) -> Result<Vec<PathBuf>, Fault> {
        Ok(Vec::new())
    }

    fn is_seen_by_first(&self, _: &DatasetName) -> Result<bool, Fault> {
        Ok(true)
    }

    fn mounted_anywhere(&self, _: &DatasetName) -> Result<Vec<ElsewhereMount>, Fault> {
        Ok(Vec::new())
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
        programs::promote(&mut self.pool(), promotion)
    }

    fn conclude(&self, conclusion: Conclusion<'_>) -> Result<Concluded, Fault> {
        programs::conclude(&mut self.pool(), conclusion)
    }

    fn stage(&self, staging: Staging<'_>) -> Result<Staged, Fault> {
        programs::stage(&mut self.pool(), staging)
    }

    fn stream_length(&self, _: Route<'_>) -> Result<u64, Fault> {
        Ok(0)
    }

    fn transfer(&self, route: Route<'_>, _: Watch<'_>, at_end: AtEnd<'_>) -> Result<(), Fault> {
        if at_end(Changes::default()).is_break() {
            return Err(Errno::CANCELED.into());
        }
        programs::receive(&mut self.pool(), route)
    }

    fn conclude_in_place(&self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault> {
        programs::conclude_in_place(&mut self.pool(), end)
    }

    fn changes(&self, _: &str, _: Option<&str>) -> Result<Changes, Fault> {
        Ok(Changes::default())
    }

    fn let_go_of_pages(
        &self,
        _: &DatasetName,
        _: &str,
        _: &mut Changes,
        _: bool,
    ) -> Result<Vec<PathBuf>, Fault> {
        Ok(Vec::new())
    }

    fn stale_names(&self, _: &DatasetName, _: &str, _: &[FileId]) -> Result<Vec<PathBuf>, Fault> {
        Ok(Vec::new())
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
        let expected = old.map(|old| PropertyValue::Text(old.into()));
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

    fn destroy_snapshots(&self, names: &[String]) -> Result<(), Fault> {
        let mut pool = self.pool();
        let held = names.iter().filter_map(|name| pool.guid(name));
        let is_origin = |guid: u64| pool.datasets.values().any(|clone| clone.origin == Some(guid));
        if held.into_iter().any(is_origin) {
            return Err(Errno::EXIST.into());
        }
        for name in names {
            match pool.destroy(name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn destroy_bookmarks(&self, _: &[String]) -> Result<(), Fault> {
        Ok(())
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

    fn set_mountpoint(&self, name: &DatasetName, value: &OsStr) -> Result<(), Fault> {
        set(self.pool().own_mut(name.as_str())?, "mountpoint", value.to_str());
        Ok(())
    }

    fn fence(&self, name: &DatasetName) -> Result<(), Fault> {
        let mut pool = self.pool();
        pool.own_mut(name.as_str())?.insert("readonly".to_owned(), PropertyValue::Number(1));
        Ok(())
    }

    fn unfence(&self, name: &DatasetName, guid: Guid, before: Fence) -> Result<(), Fault> {
        match before {
            Fence::Inherited => self.inherit(name, guid, &["readonly"]),
            Fence::Own => Err(Errno::NOTSUP.into()),
        }
    }

    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault> {
        let mut pool = self.pool();
        // noauto
        pool.own_mut(name.as_str())?.insert("canmount".to_owned(), PropertyValue::Number(2));
        Ok(())
    }

    fn unfit(&self, _: &Path, _: bool) -> Result<Option<Unfit>, Fault> {
        Ok(None)
    }

    fn unmountable(&self, _: &DatasetName, _: &Path) -> Result<Option<Unfit>, Fault> {
        Ok(None)
    }

    fn leads_to(&self, at: &Path, root: BorrowedFd<'_>) -> Result<bool, Fault> {
        let pool = self.pool();
        let dataset = pool.prepared(root)?;
        Ok(pool.topmost(at).is_some_and(|mount| mount.dataset == dataset))
    }

    fn mount_private(&self, dataset: &DatasetName, at: Private<'_>) -> Result<OwnedFd, Fault> {
        let mut pool = self.pool();
        let guid = pool.dataset(dataset.as_str())?.guid;
        pool.mount(guid, at.path);
        // What is open keeps it busy, as a prepared mount does.
        pool.prepare(guid)
    }

    fn unmount_private(
        &self,
        at: Private<'_>,
        root: Option<BorrowedFd<'_>>,
        of: &[&DatasetName],
    ) -> Result<Option<Leftover>, Fault> {
        let at = at.path;
        let mut pool = self.pool();
        let own = |dataset: u64| of.iter().any(|name| pool.guid(name.as_str()) == Some(dataset));
        match pool.topmost(at).map(|mount| own(mount.dataset)) {
            Some(false) if root.is_none() => return Ok(Some(another_ones(at))),
            _ => drop(pool.unmount(at)),
        }
        // The directory can't be removed as long as something is mounted there.
        if pool.topmost(at).is_some() { Err(Errno::BUSY.into()) } else { Ok(None) }
    }

    fn unmount_stray(&self, place: &Place) -> Result<(), Fault> {
        match self.pool().unmount(&place.path) {
            true => Ok(()),
            false => Err(Errno::INVAL.into()),
        }
    }

    fn unmount_unused(&self, _: &DatasetName, place: &Place) -> Result<(), Fault> {
        self.unmount_stray(place)
    }

    fn write_back(&self, dataset: &DatasetName) -> Result<(), Fault> {
        let mut pool = self.pool();
        let guid = pool.dataset(dataset.as_str())?.guid;
        pool.write_back(guid);
        Ok(())
    }

    fn renew_deletions(&self, _: &DatasetName) -> Result<bool, Fault> {
        Ok(true)
    }

    fn flush_workspace(&self, root: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut pool = self.pool();
        let guid = pool.prepared(root)?;
        pool.write_back(guid);
        Ok(())
    }

    fn set_ownership(&self, root: BorrowedFd<'_>, _: &Ids) -> Result<(), Fault> {
        self.flush_workspace(root)
    }

    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault> {
        let mut pool = self.pool();
        let guid = pool.dataset(dataset.as_str())?.guid;
        Ok(PreparedMount { place, mount: pool.prepare(guid)?, _old: None })
    }

    fn attach(&self, prepared: PreparedMount) -> Result<Attached, Fault> {
        let mut pool = self.pool();
        let PreparedMount { place, mount, .. } = prepared;
        let dataset = pool.prepared(&mount)?;
        let below = |path: &Path| path != place.path && path.starts_with(&place.path);
        if pool.mounts.iter().any(|mount| below(&mount.path)) {
            return Err(Errno::BUSY.into());
        }
        if let Some(old) = place.replaces {
            if !pool.mounts.iter().any(|mount| mount.id == old) {
                return Ok(Attached::Gone);
            }
            if pool.topmost(&place.path).map(|mount| mount.id) != Some(old) {
                return Err(Errno::BUSY.into());
            }
            pool.unmount(&place.path);
        }
        pool.mount(dataset, &place.path);
        Ok(Attached::There { gap: None })
    }
}
