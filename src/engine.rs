//! The verbs that a transaction needs of ZFS. Each one that changes something is one durable effect.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use crate::errno::Errno;
use crate::name::{DatasetName, SnapshotName};
use crate::ownership::Ids;
use crate::receipt::Guid;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) errno: Errno,
    pub(crate) detail: Option<String>,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { errno, detail: None }
    }
}

/// What ZFS knows of a filesystem, volume or snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) guid: Guid,
    pub(crate) volume: bool,
    /// The snapshot that it is a clone of.
    pub(crate) origin: Option<Guid>,
    pub(crate) children: u64,
    /// When it was made, in seconds since 1970.
    pub(crate) creation: i64,
    /// The mount point that applies to it, inherited or not; empty for what has none.
    pub(crate) mountpoint: String,
}

/// A dataset by the name that it should have and by its guid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) name: &'a DatasetName,
    pub(crate) guid: Guid,
}

/// A clone to be promoted, with all that must be true in the txg in which it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promotion<'a> {
    pub(crate) clone: Known<'a>,
    /// The dataset that holds the clone's origin.
    pub(crate) head: Known<'a>,
    /// The head's own origin.
    pub(crate) head_origin: Option<Guid>,
    /// The clone's origin.
    pub(crate) base: Guid,
}

/// A property's value as the kernel stores it: numbers and choices as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PropertyValue {
    Number(u64),
    Text(String),
}

/// The settings of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What was set on the dataset itself, native and user properties alike, and can be set on a
    /// clone of it.
    pub(crate) own: Vec<(String, PropertyValue)>,
    /// Whether canmount is `on`.
    pub(crate) canmount_on: bool,
    /// Whether `readonly=on` applies, inherited or not.
    pub(crate) readonly: bool,
    /// Whether it is encrypted and doesn't inherit its key.
    pub(crate) encryption_root: bool,
    /// False where it is encrypted and its key is not loaded.
    pub(crate) key_loaded: bool,
    /// Whether `zoned=on` applies, inherited or not.
    pub(crate) zoned: bool,
    /// The permissions delegated on the dataset itself, packed; `None` where there are none.
    pub(crate) permissions: Option<Vec<u8>>,
}

impl Settings {
    /// The dataset's own mountpoint value.
    pub(crate) fn own_mountpoint(&self) -> Option<&str> {
        self.own_text("mountpoint")
    }

    /// The dataset's own value of a property that is text.
    pub(crate) fn own_text(&self, property: &str) -> Option<&str> {
        self.own.iter().find_map(|(name, value)| match value {
            PropertyValue::Text(text) if name == property => Some(text.as_str()),
            _ => None,
        })
    }
}

/// A place where a dataset is mounted, or is to be, with the mount's own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount that is there now, by the kernel's number; `None` where nothing is to be replaced.
    pub(crate) replaces: Option<u64>,
    pub(crate) path: PathBuf,
    pub(crate) options: MountAttrFlags,
}

/// A mount that is attached nowhere yet.
#[derive(Debug)]
pub(crate) struct PreparedMount {
    pub(crate) place: Place,
    pub(crate) mount: OwnedFd,
}

/// ZFS and the mount table, as far as transactions need them.
///
/// Verbs that destroy take the guid that was recorded when the thing was made, and refuse with
/// [`Errno::STALE`] where it doesn't fit (I5). Destroying what is gone is a success.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    // Questions.
    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault>;
    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault>;
    /// The length of the longest name of a snapshot or bookmark of `dataset`, without its own part.
    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault>;
    /// Snapshots of `dataset` that are newer than the snapshot `base`, by full name.
    fn snapshots_since(&self, dataset: &DatasetName, base: &str) -> Result<Vec<String>, Fault>;
    /// The snapshot with this last part of its name and this guid, in any child of `parent`.
    fn find_snapshot(
        &self,
        parent: &DatasetName,
        leaf: &str,
        guid: Guid,
    ) -> Result<Option<String>, Fault>;
    /// Bytes written to `dataset` since `snapshot` (a full name), exact for the txg of the call.
    fn written_since(&self, dataset: &DatasetName, snapshot: &str) -> Result<u64, Fault>;
    /// Whether two snapshots of a dataset differ in more than access times.
    fn differs(&self, one: &SnapshotName, base: &SnapshotName) -> Result<bool, Fault>;
    /// Where the whole of `dataset` is mounted in this mount namespace.
    fn places(&self, dataset: &DatasetName) -> Result<Vec<Place>, Fault>;
    /// The options that the dataset's properties ask of a mount (what `zfs mount` would pass).
    fn mount_options(&self, dataset: &DatasetName) -> Result<MountAttrFlags, Fault>;
    /// What is mounted on or below the mount at `place` and is not one of ZFS's own snapshot
    /// automounts.
    fn mounts_on(&self, place: &Place) -> Result<Vec<PathBuf>, Fault>;

    // Datasets: one txg each, but for clone and create with properties.
    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault>;
    fn snapshot(&self, name: &SnapshotName) -> Result<(), Fault>;
    fn clone_snapshot(
        &self,
        name: &DatasetName,
        origin: &SnapshotName,
        own: &[(String, PropertyValue)],
    ) -> Result<(), Fault>;
    fn copy_permissions(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault>;
    /// Refuses with [`Errno::STALE`] where something is not as the promotion says.
    fn promote(&self, promotion: Promotion<'_>) -> Result<(), Fault>;
    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault>;
    /// Says whether it was there.
    fn destroy(&self, name: &str, guid: Guid) -> Result<bool, Fault>;
    /// Refuses with [`Errno::TXTBSY`] where anything was written since the snapshot `since`, which
    /// is destroyed as well if it is one of `name` itself.
    fn destroy_unchanged(&self, name: &str, guid: Guid, since: &str) -> Result<bool, Fault>;
    /// Clears properties of its own.
    fn inherit(&self, name: &DatasetName, guid: Guid, properties: &[&str]) -> Result<(), Fault>;
    fn set_mountpoint(&self, name: &DatasetName, value: &str) -> Result<(), Fault>;
    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault>;

    // Files and mounts.
    fn mount_private(&self, dataset: &DatasetName, at: &Path) -> Result<(), Fault>;
    fn unmount_private(&self, at: &Path) -> Result<(), Fault>;
    fn flush(&self, at: &Path) -> Result<(), Fault>;
    fn set_ownership(&self, at: &Path, ids: &Ids) -> Result<(), Fault>;
    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault>;
    /// Attaches a prepared mount at its place, in exchange for the mount that is there. Says whether
    /// it did: a mount that is gone by now is not replaced.
    fn attach(&self, prepared: PreparedMount) -> Result<bool, Fault>;
}
