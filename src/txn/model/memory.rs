//! A pool in memory: datasets, snapshots, properties and mounts, as far as transactions can tell it
//! from a real one. [`verbs`](super::verbs) makes an engine of it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::{Entry, Fault, PropertyValue};
use crate::errno::Errno;
use crate::name::DatasetName;
use crate::receipt::Guid;

/// What is in the files of a dataset, by their names.
pub(super) type Content = BTreeMap<String, u64>;

/// Properties that were set on the dataset or snapshot itself.
pub(super) type Own = BTreeMap<String, PropertyValue>;

#[derive(Debug, Clone, Default)]
pub(super) struct Dataset {
    pub(super) guid: u64,
    pub(super) origin: Option<u64>,
    pub(super) own: Own,
    pub(super) content: Content,
    /// What was stored through a memory mapping, and is not in the pool yet: readers see it, snapshots
    /// and destroys don't.
    pub(super) pages: Content,
    /// The txg of the last write.
    pub(super) written: u64,
    /// The oldest first.
    pub(super) snapshots: Vec<Snapshot>,
}

impl Dataset {
    /// What readers of a mount see.
    pub(super) fn seen(&self) -> Content {
        self.content.clone().into_iter().chain(self.pages.clone()).collect()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) leaf: String,
    pub(super) guid: u64,
    pub(super) txg: u64,
    pub(super) own: Own,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) id: u64,
    pub(super) dataset: u64,
    pub(super) path: PathBuf,
}

/// A mount that is attached nowhere: alive as long as the other end of the pipe is open.
#[derive(Debug)]
struct Prepared {
    given: RawFd,
    kept: OwnedFd,
    dataset: u64,
}

impl Prepared {
    fn is_alive(&self) -> bool {
        rustix::io::read(&self.kept, &mut [0; 1]) == Err(rustix::io::Errno::AGAIN)
    }
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Serves as txg, and as the source of guids and mount numbers.
    clock: u64,
    pub(super) datasets: BTreeMap<String, Dataset>,
    /// Those on top are last.
    pub(super) mounts: Vec<Mount>,
    prepared: Vec<Prepared>,
    /// What the next walk has seen, whatever there is by now.
    pub(super) seen: Option<Vec<Entry>>,
    /// What somebody renames before the walk after that.
    pub(super) renamed_then: Option<[DatasetName; 2]>,
    /// What looking at one transaction fails with.
    pub(super) journal_fails: Option<Errno>,
}

/// The pool, shared by those who use it.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Pool>);

impl Memory {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dataset and last part of a snapshot's name.
pub(super) fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(dataset, leaf)| (dataset, Some(leaf)))
}

impl Pool {
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn dataset(&self, name: &str) -> Result<&Dataset, Fault> {
        self.datasets.get(name).ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn dataset_mut(&mut self, name: &str) -> Result<&mut Dataset, Fault> {
        self.datasets.get_mut(name).ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        let (dataset, leaf) = split(name);
        self.datasets.get(dataset)?.snapshots.iter().find(|s| Some(s.leaf.as_str()) == leaf)
    }

    pub(super) fn guid(&self, name: &str) -> Option<u64> {
        match split(name) {
            (dataset, None) => self.datasets.get(dataset).map(|dataset| dataset.guid),
            _ => self.snapshot(name).map(|snapshot| snapshot.guid),
        }
    }

    /// The oldest snapshot with this guid: those that a receive has made with it are younger.
    pub(super) fn first_named(&self, guid: u64) -> Option<String> {
        let all =
            self.datasets.iter().flat_map(|(name, it)| it.snapshots.iter().map(move |s| (name, s)));
        let first = all.filter(|(_, s)| s.guid == guid).min_by_key(|(_, s)| s.txg);
        first.map(|(name, snapshot)| format!("{name}@{}", snapshot.leaf))
    }

    /// Of datasets none is kept.
    pub(super) fn createtxg(&self, name: &str) -> u64 {
        self.snapshot(name).map_or(0, |snapshot| snapshot.txg)
    }

    pub(super) fn is(&self, name: &str, guid: Guid) -> bool {
        self.guid(name) == Some(guid.0)
    }

    pub(super) fn own_mut(&mut self, name: &str) -> Result<&mut Own, Fault> {
        let (dataset, leaf) = split(name);
        let dataset = self.dataset_mut(dataset)?;
        match leaf {
            None => Ok(&mut dataset.own),
            Some(leaf) => {
                let snapshot = dataset.snapshots.iter_mut().find(|s| s.leaf == leaf);
                snapshot.map(|s| &mut s.own).ok_or_else(|| Errno::NOENT.into())
            }
        }
    }

    pub(super) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a String> {
        self.datasets
            .keys()
            .filter(move |child| child.rsplit_once('/').is_some_and(|(parent, _)| parent == name))
    }

    /// The nearest dataset at or above `name` that has a value of its own.
    pub(super) fn inherited(&self, name: &str, property: &str) -> Option<(String, &PropertyValue)> {
        let mut at = Some(name);
        while let Some(name) = at {
            let own = self.datasets.get(name).and_then(|dataset| dataset.own.get(property));
            if let Some(value) = own {
                return Some((name.to_owned(), value));
            }
            at = name.rsplit_once('/').map(|(parent, _)| parent);
        }
        None
    }

    pub(super) fn zoned(&self, name: &str) -> bool {
        matches!(self.inherited(name, "zoned"), Some((_, PropertyValue::Number(1))))
    }

    /// The mount point that applies, with the names below the dataset that has it.
    pub(super) fn mountpoint(&self, name: &str) -> String {
        match self.inherited(name, "mountpoint") {
            Some((source, PropertyValue::Text(path))) => match path.to_string_lossy() {
                path if path.starts_with('/') => {
                    format!("{path}{}", name.strip_prefix(&source).unwrap_or_default())
                }
                other => other.into_owned(),
            },
            _ => format!("/{name}"),
        }
    }

    /// The path at which a boot mounts it.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        let own = &self.datasets.get(name)?.own;
        let on = !matches!(own.get("canmount"), Some(PropertyValue::Number(n)) if *n != 1);
        let path = self.mountpoint(name);
        (on && !self.zoned(name) && path.starts_with('/')).then_some(path)
    }

    /// Whether something was written since a snapshot was taken.
    pub(super) fn written(&self, name: &str, since: &str) -> Result<bool, Fault> {
        let taken = self.snapshot(since).map(|snapshot| snapshot.txg);
        Ok(self.dataset(name)?.written > taken.ok_or(Errno::CHRNG)?)
    }

    pub(super) fn new_dataset(&mut self, name: &str, dataset: Dataset) -> Result<(), Fault> {
        let parent = name.rsplit_once('/').map(|(parent, _)| parent);
        if parent.is_some_and(|parent| !self.datasets.contains_key(parent)) {
            return Err(Errno::NOENT.into());
        }
        if self.datasets.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let guid = self.tick();
        self.datasets.insert(name.to_owned(), Dataset { guid, ..dataset });
        Ok(())
    }

    fn busy(&mut self, guid: u64) -> bool {
        self.prepared.retain(Prepared::is_alive);
        self.mounts.iter().any(|mount| mount.dataset == guid)
            || self.prepared.iter().any(|prepared| prepared.dataset == guid)
    }

    /// Destroys one dataset or snapshot.
    pub(super) fn destroy(&mut self, name: &str) -> Result<(), Errno> {
        let guid = self.guid(name).ok_or(Errno::NOENT)?;
        let (dataset, leaf) = split(name);
        if leaf.is_some() {
            // What has got the guid of another one by a receive has no clones.
            let is_first = self.first_named(guid).as_deref() == Some(name);
            if is_first && self.datasets.values().any(|clone| clone.origin == Some(guid)) {
                return Err(Errno::EXIST);
            }
            let dataset = self.datasets.get_mut(dataset).ok_or(Errno::NOENT)?;
            dataset.snapshots.retain(|snapshot| Some(snapshot.leaf.as_str()) != leaf);
            return Ok(());
        }
        if self.busy(guid) || !self.datasets[name].snapshots.is_empty() {
            return Err(Errno::BUSY);
        }
        if self.children(name).next().is_some() {
            return Err(Errno::EXIST);
        }
        self.datasets.remove(name);
        Ok(())
    }

    pub(super) fn prepare(&mut self, dataset: u64) -> Result<OwnedFd, Fault> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (kept, given) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Numbers are used again when a mount was dropped.
        self.prepared.retain(|prepared| prepared.given != given.as_raw_fd());
        self.prepared.push(Prepared { given: given.as_raw_fd(), kept, dataset });
        Ok(given)
    }

    /// Which dataset a detached mount, or an open root, is of.
    pub(super) fn prepared(&self, mount: impl AsFd) -> Result<u64, Fault> {
        let found =
            self.prepared.iter().find(|prepared| prepared.given == mount.as_fd().as_raw_fd());
        Ok(found.ok_or(Errno::BADF)?.dataset)
    }

    pub(super) fn mount(&mut self, dataset: u64, path: &Path) {
        let id = self.tick();
        self.mounts.push(Mount { id, dataset, path: path.to_owned() });
    }

    pub(super) fn topmost(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.path == path)
    }

    /// The end of a mount writes the pages, as a sync does.
    pub(super) fn unmount(&mut self, path: &Path) -> bool {
        let top = self.mounts.iter().rposition(|mount| mount.path == path);
        let ended = top.map(|top| self.mounts.remove(top));
        if let Some(mount) = &ended {
            self.write_back(mount.dataset);
        }
        ended.is_some()
    }

    /// Has stored pages come into the pool, as a write.
    pub(super) fn write_back(&mut self, guid: u64) {
        let txg = self.tick();
        let dataset = self.datasets.values_mut().find(|dataset| dataset.guid == guid);
        if let Some(dataset) = dataset.filter(|dataset| !dataset.pages.is_empty()) {
            dataset.content = dataset.seen();
            dataset.pages.clear();
            dataset.written = txg;
        }
    }

    /// Ends all mounts, in order, and mounts what claims a path.
    pub(super) fn boot(&mut self) {
        for mount in std::mem::take(&mut self.mounts) {
            self.write_back(mount.dataset);
        }
        let claims: Vec<_> = self
            .datasets
            .iter()
            .filter_map(|(name, dataset)| Some((dataset.guid, self.claim(name)?)))
            .collect();
        for (guid, path) in claims {
            self.mount(guid, Path::new(&path));
        }
    }
}
