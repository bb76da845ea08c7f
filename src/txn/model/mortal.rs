//! An engine whose process dies: after a number of effects no call comes back, as after `SIGKILL`.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mount::MountAttrFlags;

use crate::engine::{
    AtEnd, Attached, Concluded, Conclusion, Difference, Engine, Entry, Facts, Fault, InPlaceEnd,
    Lack, Place, PreparedMount, Private, Promoted, Promotion, PropertyValue, Scope, Settings,
    Shortage, SnapshotId, Staged, Staging, Unfit, Walk, Watch,
};
use crate::errno::Errno;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::{ElsewhereMount, Guid, Leftover};
use crate::stream::passage::{Changes, FileId};
use crate::transfer::Route;
use crate::txn::journal::{Fence, id_of};

/// At which moment of its last effect the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Before,
    /// Between the two txgs of an effect that has two: a dataset is there without its properties.
    Within,
    After,
}

#[derive(Debug, Default)]
struct Life {
    /// How many effects are left to it, and how it ends; `None`: it goes on.
    left: Option<(usize, Death)>,
    dead: bool,
    /// The id of the transaction that it has begun.
    id: Option<TransactionId>,
    /// The effects that came about, each with what it was about.
    deeds: Vec<(&'static str, String)>,
}

/// One process: an engine that dies, and remembers what it did.
#[derive(Debug)]
pub(super) struct Mortal {
    inner: Arc<dyn Engine>,
    /// Nothing outside is ever touched (I7).
    scope: DatasetName,
    life: Mutex<Life>,
}

impl Mortal {
    pub(super) fn new(inner: Arc<dyn Engine>, scope: &DatasetName) -> Arc<Self> {
        Arc::new(Self { inner, scope: scope.clone(), life: Mutex::default() })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn die_after(&self, effects: usize, death: Death) {
        self.life().left = Some((effects, death));
    }

    /// It goes on, if it has not died.
    pub(super) fn spare(&self) {
        self.life().left = None;
    }

    pub(super) fn kill(&self) {
        self.life().dead = true;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.life().dead
    }

    pub(super) fn id(&self) -> Option<TransactionId> {
        self.life().id
    }

    /// Whether an effect of this kind on this name came about.
    pub(super) fn did(&self, verb: &str, subject: &str) -> bool {
        self.life().deeds.iter().any(|(done, what)| *done == verb && what == subject)
    }

    /// The transaction's id is part of the first thing that it writes.
    fn writes(&self, property: &str) {
        let mut life = self.life();
        life.id = life.id.or(id_of(property));
    }

    fn question<T>(&self, call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        if self.is_dead() { Err(Errno::IO.into()) } else { call() }
    }

    fn effect<T>(
        &self,
        verb: &'static str,
        subject: &str,
        call: impl Fn(bool) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let inside = [&subject, &subject.split('@').next().unwrap_or_default()];
        let scope = self.scope.as_str();
        let within = |name: &str| {
            name.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        assert!(
            subject.starts_with('/') || inside.iter().any(|name| within(name)),
            "I7: {verb} {subject} is outside of {scope}"
        );
        let death = {
            let mut life = self.life();
            if life.dead {
                return Err(Errno::IO.into());
            }
            match &mut life.left {
                Some((0, death)) => Some(*death),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        let result = match death {
            Some(Death::Before) => Err(Errno::IO.into()),
            death => call(death != Some(Death::Within)),
        };
        if result.is_ok() {
            self.life().deeds.push((verb, subject.to_owned()));
        }
        if death.is_some() {
            self.kill();
            return Err(Errno::IO.into());
        }
        result
    }
}

/// Forwards questions and effects, each effect with what it is about.
macro_rules! forward {
    (questions { $(fn $q:ident($($qa:ident: $qt:ty),*) -> $qr:ty;)* }
     effects { $(fn $e:ident($($ea:ident: $et:ty),*) -> $er:ty, of $subject:expr;)* }) => {
        $(fn $q(&self, $($qa: $qt),*) -> Result<$qr, Fault> {
            self.question(|| self.inner.$q($($qa),*))
        })*
        $(fn $e(&self, $($ea: $et),*) -> Result<$er, Fault> {
            self.effect(stringify!($e), $subject, |_| self.inner.$e($($ea),*))
        })*
    };
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

impl Engine for Mortal {
    forward! {
        questions {
            fn runs_programs(dataset: &DatasetName) -> bool;
            fn lacks(dataset: &DatasetName) -> Option<Lack>;
            fn shortage(dataset: &DatasetName) -> Option<Shortage>;
            fn holders(name: &str) -> Option<String>;
            fn journal(scope: Scope<'_>) -> Vec<Entry>;
            fn walk(below: &DatasetName) -> Walk;
            fn facts(name: &str) -> Option<Facts>;
            fn settings(dataset: &DatasetName) -> Settings;
            fn is_empty(dataset: &DatasetName) -> bool;
            fn longest_snapshot(dataset: &DatasetName) -> usize;
            fn snapshots_since(dataset: &DatasetName, base: &str) -> Vec<String>;
            fn snapshots_and_bookmarks(dataset: &DatasetName) -> Vec<String>;
            fn find_snapshot(target: &DatasetName, leaf: &str, id: SnapshotId) -> Option<String>;
            fn difference(one: &SnapshotName, base: &SnapshotName) -> Difference;
            fn newcomers(one: &SnapshotName, base: &SnapshotName) -> Vec<FileId>;
            fn places(dataset: &DatasetName) -> Vec<Place>;
            fn mount_options(dataset: &DatasetName) -> MountAttrFlags;
            fn mounts_on(place: &Place) -> Vec<PathBuf>;
            fn stream_length(route: Route<'_>) -> u64;
            fn changes(snapshot: &str, from: Option<&str>) -> Changes;
            fn stale_names(dataset: &DatasetName, before: &str, directories: &[FileId]) -> Vec<PathBuf>;
            fn unfit(place: &Path, shared: bool) -> Option<Unfit>;
            fn unmountable(dataset: &DatasetName, path: &Path) -> Option<Unfit>;
            fn leads_to(at: &Path, root: BorrowedFd<'_>) -> bool;
            fn displaced(dataset: &DatasetName, workspace: BorrowedFd<'_>) -> Vec<PathBuf>;
            fn is_seen_by_first(dataset: &DatasetName) -> bool;
            fn mounted_anywhere(dataset: &DatasetName) -> Vec<ElsewhereMount>;
        }
        effects {
            fn copy_permissions(from: &DatasetName, to: &DatasetName) -> (), of to.as_str();
            fn promote(promotion: Promotion<'_>) -> Promoted, of promotion.clone.name.as_str();
            fn conclude(conclusion: Conclusion<'_>) -> Concluded,
                of conclusion.target.name.as_str();
            fn stage(staging: Staging<'_>) -> Staged, of staging.workspace.name.as_str();
            fn conclude_in_place(end: InPlaceEnd<'_>) -> Option<Errno>,
                of end.target.name.as_str();
            fn destroy(name: &str, guid: Guid) -> bool, of name;
            fn destroy_unchanged(name: &str, guid: Guid, since: (&str, Guid)) -> bool, of name;
            fn destroy_workspace(name: &DatasetName, guid: Guid, origin: Option<Guid>) -> bool,
                of name.as_str();
            fn destroy_snapshots(names: &[String]) -> (), of names.first().map_or("", String::as_str);
            fn destroy_bookmarks(names: &[String]) -> (), of names.first().map_or("", String::as_str);
            fn inherit(name: &DatasetName, guid: Guid, properties: &[&str]) -> (),
                of name.as_str();
            fn set_mountpoint(name: &DatasetName, value: &OsStr) -> (), of name.as_str();
            fn fence(name: &DatasetName) -> (), of name.as_str();
            fn unfence(name: &DatasetName, guid: Guid, before: Fence) -> (), of name.as_str();
            fn keep_from_boot_mounts(name: &DatasetName) -> (), of name.as_str();
            fn mount_private(dataset: &DatasetName, at: Private<'_>) -> OwnedFd, of dataset.as_str();
            fn unmount_private(
                at: Private<'_>,
                root: Option<BorrowedFd<'_>>,
                of: &[&DatasetName]
            ) -> Option<Leftover>, of text(at.path);
            fn unmount_stray(place: &Place) -> (), of text(&place.path);
            fn unmount_unused(dataset: &DatasetName, place: &Place) -> (), of dataset.as_str();
            fn write_back(dataset: &DatasetName) -> (), of dataset.as_str();
            fn renew_deletions(dataset: &DatasetName) -> bool, of dataset.as_str();
            fn flush_workspace(root: BorrowedFd<'_>) -> (), of "/";
            fn set_ownership(root: BorrowedFd<'_>, ids: &Ids) -> (), of "/";
        }
    }

    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault> {
        self.effect("create", name.as_str(), |whole| {
            self.inner.create(name, if whole { own } else { &[] })
        })
    }

    fn clone_snapshot(
        &self,
        name: &DatasetName,
        origin: &SnapshotName,
        own: &[(String, PropertyValue)],
    ) -> Result<(), Fault> {
        self.effect("clone_snapshot", name.as_str(), |whole| {
            self.inner.clone_snapshot(name, origin, if whole { own } else { &[] })
        })
    }

    fn snapshot(&self, name: &SnapshotName, property: Option<(&str, &str)>) -> Result<(), Fault> {
        property.iter().for_each(|(property, _)| self.writes(property));
        self.effect("snapshot", name.as_str(), |_| self.inner.snapshot(name, property))
    }

    fn write_record(
        &self,
        carrier: (&str, Guid),
        property: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), Fault> {
        if old.is_none() {
            self.writes(property);
        }
        self.effect("write_record", carrier.0, |_| {
            self.inner.write_record(carrier, property, old, new)
        })
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault> {
        self.effect("rename", to.as_str(), |_| {
            self.inner.rename(from, to)?;
            self.life().deeds.push(("rename from", from.to_string()));
            Ok(())
        })
    }

    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault> {
        self.effect("prepare_mount", dataset.as_str(), |_| {
            self.inner.prepare_mount(dataset, place.clone())
        })
    }

    fn transfer(&self, route: Route<'_>, watch: Watch<'_>, at_end: AtEnd<'_>) -> Result<(), Fault> {
        let told = Mutex::new((watch, at_end));
        self.effect("transfer", route.to, |_| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (watch, at_end) = &mut *told;
            self.inner.transfer(route, &mut **watch, &mut **at_end)
        })
    }

    fn let_go_of_pages(
        &self,
        dataset: &DatasetName,
        sent: &str,
        changes: &mut Changes,
        received: bool,
    ) -> Result<Vec<PathBuf>, Fault> {
        let changes = Mutex::new(changes);
        self.effect("let_go_of_pages", dataset.as_str(), |_| {
            let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.let_go_of_pages(dataset, sent, &mut changes, received)
        })
    }

    fn attach(&self, prepared: PreparedMount) -> Result<Attached, Fault> {
        let path = prepared.place.path.clone();
        let prepared = Mutex::new(Some(prepared));
        self.effect("attach", text(&path), |_| {
            let taken = prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.map_or_else(|| Err(Errno::BADF.into()), |prepared| self.inner.attach(prepared))
        })
    }
}
