//! What the machine needs of a pool, and what is to be seen in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::memory::{Content, Dataset, Memory};
use super::reference::{Standing, Traces};
use crate::engine::{Engine, Fault, PropertyValue};
use crate::name::{DatasetName, TransactionId};
use crate::txn::journal::{Record, State, id_of};

/// The property that others set.
pub(super) const NOTE: &str = "test:note";

/// A dataset, as it is seen from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) guid: u64,
    /// The path at which a boot mounts it.
    pub(super) claim: Option<String>,
    /// The mount point that it has of its own.
    pub(super) mountpoint: Option<String>,
    pub(super) note: u64,
    /// Whether it has anything of a transaction's among its own properties.
    pub(super) gated: bool,
    /// `None` where it was not looked at.
    pub(super) content: Option<Content>,
    /// Snapshots by the last part of their names.
    pub(super) snapshots: BTreeMap<String, Option<Content>>,
}

/// All datasets of the scope, by full name, and what is mounted privately.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) datasets: BTreeMap<String, Seen>,
    pub(super) private_mounts: BTreeSet<String>,
}

impl View {
    /// Every id that is part of a name.
    pub(super) fn ids(&self) -> BTreeSet<TransactionId> {
        let in_dataset = |name: &str| {
            let at = name.rfind("-txn-").or_else(|| name.rfind("-old-"))?;
            name[at + 5..].parse().ok()
        };
        let in_snapshot = |leaf: &str| {
            leaf.strip_prefix("txn-")?.trim_end_matches("-look").parse::<TransactionId>().ok()
        };
        let mut ids: BTreeSet<TransactionId> =
            self.datasets.keys().filter_map(|n| in_dataset(n)).collect();
        for seen in self.datasets.values() {
            ids.extend(seen.snapshots.keys().filter_map(|leaf| in_snapshot(leaf)));
        }
        ids.extend(
            self.private_mounts.iter().filter_map(|name| name.parse::<TransactionId>().ok()),
        );
        ids
    }

    /// The dataset that has the snapshot.
    pub(super) fn holder(&self, leaf: &str) -> Option<&str> {
        let mut holders = self.datasets.iter().filter(|(_, d)| d.snapshots.contains_key(leaf));
        holders.next().map(|(name, _)| name.as_str())
    }

    pub(super) fn traces(&self, id: TransactionId, standing: Option<Standing>) -> Traces {
        let dataset = |suffix: String| self.datasets.keys().any(|name| name.ends_with(&suffix));
        let base = self.holder(&id.base_leaf());
        Traces {
            standing,
            base: base.is_some(),
            promoted: base.is_some_and(|name| name.ends_with(&id.workspace_suffix())),
            workspace: dataset(id.workspace_suffix()),
            predecessor: dataset(id.predecessor_suffix()),
            look: self.holder(&id.look_leaf()).is_some(),
        }
    }
}

/// How transactions stand whose process is gone, and what of them is to be seen.
pub(super) fn traces(
    engine: &dyn Engine,
    scope: &DatasetName,
    view: &View,
) -> Result<BTreeMap<TransactionId, Traces>, Fault> {
    let mut standings = BTreeMap::new();
    for entry in engine.walk(scope)?.entries {
        let Some(id) = id_of(&entry.property) else { continue };
        let record = Record::decode(&entry.property, &entry.value);
        standings.insert(
            id,
            match record.map(|record| record.state) {
                Ok(State::Detached) => Standing::Detached,
                Ok(State::Committed | State::Kept | State::RolledBack) => Standing::Leftover,
                _ => Standing::Interrupted,
            },
        );
    }
    let ids = view.ids().into_iter().chain(standings.keys().copied());
    Ok(ids.map(|id| (id, view.traces(id, standings.get(&id).copied()))).collect())
}

/// A pool, and what users do to it besides transactions. Paths are those of mounts.
pub(super) trait Backend: fmt::Debug + Sized {
    fn new() -> Self;
    fn engine(&self) -> Arc<dyn Engine>;
    /// The dataset below which all happens.
    fn scope(&self) -> &DatasetName;
    /// Makes a target, with a mount point of its own or not, and mounts it.
    fn make(&self, name: &DatasetName, own: bool);
    /// Where the scope is mounted, and the mount point that a target has of its own.
    fn paths(&self) -> (String, String);
    /// The guid of the dataset that is mounted there; writes to it if told.
    fn at(&self, path: &Path, write: Option<(&str, u64)>) -> Option<u64>;
    fn read(&self, path: &Path) -> Option<Content>;
    fn touch(&self, path: &Path);
    fn annotate(&self, name: &DatasetName, note: u64);
    /// As `zfs rename`: what is mounted where its properties say is mounted so again.
    fn rename(&self, from: &DatasetName, to: &DatasetName);
    fn boot(&self);
    /// `deep`: with all contents, at whatever cost.
    fn view(&self, deep: bool) -> View;
}

/// The pool in memory.
#[derive(Debug)]
pub(super) struct InMemory {
    memory: Arc<Memory>,
    scope: DatasetName,
}

impl Backend for InMemory {
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        for name in ["tank", "tank/scope"] {
            let made = memory.pool().new_dataset(name, Dataset::default());
            made.expect("a pool can be made");
        }
        memory.pool().boot();
        Self { memory, scope: "tank/scope".parse().expect("it is a name") }
    }

    fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.memory) as Arc<dyn Engine>
    }

    fn scope(&self) -> &DatasetName {
        &self.scope
    }

    fn make(&self, name: &DatasetName, own: bool) {
        let path = PropertyValue::Text(self.paths().1.into());
        let own = own.then(|| ("mountpoint".to_owned(), path)).into_iter().collect();
        let mut pool = self.memory.pool();
        let made = pool.new_dataset(name.as_str(), Dataset { own, ..Dataset::default() });
        made.expect("a target can be made");
        let (guid, path) = (pool.guid(name.as_str()), pool.claim(name.as_str()));
        pool.mount(guid.unwrap_or(0), Path::new(&path.unwrap_or_default()));
    }

    fn paths(&self) -> (String, String) {
        ("/tank/scope".to_owned(), "/srv/own".to_owned())
    }

    fn at(&self, path: &Path, write: Option<(&str, u64)>) -> Option<u64> {
        let mut pool = self.memory.pool();
        let guid = pool.topmost(path)?.dataset;
        let txg = pool.tick();
        let dataset = pool.datasets.values_mut().find(|dataset| dataset.guid == guid)?;
        if let Some((file, value)) = write {
            // Every other one by a memory mapping, where the kernel has not written the page yet.
            let pages = value % 2 == 0;
            let into = if pages { &mut dataset.pages } else { &mut dataset.content };
            into.insert(file.to_owned(), value);
            if !pages {
                dataset.pages.remove(file);
                dataset.written = txg;
            }
        }
        Some(guid)
    }

    fn read(&self, path: &Path) -> Option<Content> {
        let pool = self.memory.pool();
        let guid = pool.topmost(path)?.dataset;
        pool.datasets.values().find(|d| d.guid == guid).map(Dataset::seen)
    }

    fn touch(&self, path: &Path) {
        let mut pool = self.memory.pool();
        let guid = pool.topmost(path).map(|mount| mount.dataset);
        let txg = pool.tick();
        if let Some(dataset) = pool.datasets.values_mut().find(|d| Some(d.guid) == guid) {
            dataset.written = txg;
        }
    }

    fn annotate(&self, name: &DatasetName, note: u64) {
        let mut pool = self.memory.pool();
        let own = pool.own_mut(name.as_str()).expect("the target is there");
        own.insert(NOTE.to_owned(), PropertyValue::Text(note.to_string().into()));
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) {
        let was = self.memory.pool().mountpoint(from.as_str());
        self.memory.rename(from, to).expect("the target can be renamed");
        let mut pool = self.memory.pool();
        let (guid, now) = (pool.guid(to.as_str()), pool.mountpoint(to.as_str()));
        for mount in &mut pool.mounts {
            if Some(mount.dataset) == guid && mount.path == Path::new(&was) {
                mount.path = PathBuf::from(&now);
            }
        }
    }

    fn boot(&self) {
        self.memory.pool().boot();
    }

    fn view(&self, _: bool) -> View {
        let pool = self.memory.pool();
        let in_scope = |name: &str| name.starts_with(self.scope.as_str());
        let text = |dataset: &Dataset, property: &str| match dataset.own.get(property) {
            Some(PropertyValue::Text(text)) => Some(text.to_string_lossy().into_owned()),
            _ => None,
        };
        let seen = |(name, dataset): (&String, &Dataset)| {
            let snapshots = dataset.snapshots.iter();
            let foreign = |property: &String| property == NOTE || property == "mountpoint";
            let seen = Seen {
                guid: dataset.guid,
                claim: pool.claim(name),
                mountpoint: text(dataset, "mountpoint"),
                note: text(dataset, NOTE).and_then(|note| note.parse().ok()).unwrap_or(0),
                gated: !dataset.own.keys().all(foreign),
                content: Some(dataset.seen()),
                snapshots: snapshots.map(|s| (s.leaf.clone(), Some(s.content.clone()))).collect(),
            };
            (name.clone(), seen)
        };
        let private = pool.mounts.iter().filter_map(|mount| {
            let path = mount.path.strip_prefix("/run/zfs-txn").ok()?;
            Some(path.display().to_string())
        });
        View {
            datasets: pool.datasets.iter().filter(|(name, _)| in_scope(name)).map(seen).collect(),
            private_mounts: private.collect(),
        }
    }
}
