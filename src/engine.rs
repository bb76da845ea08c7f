//! The verbs that a transaction needs of ZFS. Each one that changes something is one durable effect, where
//! channel programs can be run.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountAttrFlags;

use crate::errno::Errno;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::{ElsewhereMount, Guid, Leftover};
use crate::stream::passage::{Changes, FileId};
use crate::transfer::Route;
use crate::txn::journal::{Fence, fingerprint, id_of};

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

/// A snapshot, and none that was made as a copy of it later. A receive gives its snapshot the guid that the stream says,
/// which may be that of any other one in the pool; but `createtxg` is the txg of the receive, in which the other one was
/// there already (`dsl_dataset_snapshot_sync_impl`, `dmu_recv_end_sync`). Neither a promote nor a rename changes one of
/// the two. Copies that are made in one txg may be equal to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SnapshotId {
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
}

impl SnapshotId {
    /// That of an origin that can't be read, as it is damaged: no snapshot has it.
    pub(crate) const UNREADABLE: Self = Self { guid: Guid(0), createtxg: 0 };
}

/// What ZFS knows of a filesystem, volume or snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
    pub(crate) volume: bool,
    /// The snapshot that it is a clone of, or [`SnapshotId::UNREADABLE`].
    pub(crate) origin: Option<SnapshotId>,
    pub(crate) children: u64,
    /// The mount point that applies to it, inherited or not: an absolute path, `none` or `legacy`; empty
    /// for what has none.
    pub(crate) mountpoint: PathBuf,
}

impl Facts {
    /// What tells a snapshot from its copies.
    pub(crate) fn id(&self) -> SnapshotId {
        SnapshotId { guid: self.guid, createtxg: self.createtxg }
    }
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
    /// Refuse where the head was written to since this snapshot (a full name), or has one that is
    /// newer than the base; without it, both is allowed.
    pub(crate) since: Option<&'a str>,
    /// What is written onto the base in the same txg: property and value.
    pub(crate) record: (&'a str, &'a str),
    /// Whether it undoes another promotion, so that the record may know less than before.
    pub(crate) undoes: bool,
}

/// What a promotion came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Promoted {
    Done,
    /// Clone, head or base is not what it should be.
    Replaced,
    /// The head was written to.
    Written,
    /// The head has this snapshot, which is newer than the base.
    Newer(String),
    /// A commit in place has begun; this is its base.
    Busy(String),
}

/// The end of a commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conclusion<'a> {
    pub(crate) target: Known<'a>,
    /// Properties of the target to be cleared. With them go those that have had tools leave the workspace
    /// alone: the predecessor's own values come back. `None`: that was done.
    pub(crate) gate: Option<&'a [String]>,
    /// Datasets that have the user property [`MARK`] of this transaction.
    pub(crate) marked: &'a [&'a DatasetName],
    pub(crate) predecessor: Option<Predecessor<'a>>,
    /// Where the record is: a snapshot is destroyed with it.
    pub(crate) carrier: (&'a str, SnapshotId),
    pub(crate) property: &'a str,
    /// The record that stays, where the snapshot has to.
    pub(crate) committed: &'a str,
}

/// The old head, and when it may be destroyed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predecessor<'a> {
    pub(crate) known: Known<'a>,
    /// Only if nothing was written to it since this snapshot (full name and guid), which is
    /// destroyed as well if it is its own; `None`: not at all.
    pub(crate) since: Option<(&'a str, Guid)>,
}

/// What a conclusion came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Concluded {
    /// The target claims its mount point. `None`: the record is gone; else what keeps it.
    Done(Option<Errno>),
    /// The predecessor was written to: nothing was done.
    Written,
    /// The predecessor can't be destroyed: nothing was done, but for the snapshot `since`.
    Busy(Errno),
    /// The target is not the one that it should be: nothing was done.
    Replaced,
}

/// A workspace's change that is to be made ready to be sent, with all that must be true in the txg
/// in which it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staging<'a> {
    pub(crate) target: Known<'a>,
    /// The target's own origin.
    pub(crate) target_origin: Option<Guid>,
    pub(crate) workspace: Known<'a>,
    /// The workspace's origin: full name and guid.
    pub(crate) base: (&'a str, Guid),
    /// Refuse where the target was written to since this snapshot (a full name).
    pub(crate) since: &'a str,
    /// The bookmark of the base in the workspace's name space; it may be there already.
    pub(crate) bookmark: &'a str,
    pub(crate) snapshot: &'a str,
    /// What is written onto the base in the same txg: property and value.
    pub(crate) record: (&'a str, &'a str),
}

/// What a staging came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staged {
    Done,
    /// Target, workspace or base is not what it should be.
    Replaced,
    /// The target was written to.
    Written,
}

/// The end of a commit in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InPlaceEnd<'a> {
    pub(crate) target: Known<'a>,
    pub(crate) workspace: Option<Known<'a>>,
    /// The snapshot that was sent, as the target has it, where nobody asked for it. Its guid is the workspace's
    /// one's: nothing else is known of it.
    pub(crate) sent: Option<(&'a str, Guid)>,
    /// The snapshot that was taken to compare.
    pub(crate) look: Option<(&'a str, SnapshotId)>,
    /// The base, which has the record.
    pub(crate) base: (&'a str, SnapshotId),
    /// Whether the record stays in any case.
    pub(crate) keeps: bool,
    pub(crate) property: &'a str,
    /// The record that stays, where the base has to.
    pub(crate) committed: &'a str,
}

/// Is told how many bytes have passed; says whether to go on.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Is told what a receive is about to change, when nothing but its end is missing; says whether to
/// go on.
pub(crate) type AtEnd<'a> = &'a mut dyn FnMut(Changes) -> ControlFlow<()>;

/// How a dataset differs between two snapshots of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// In access times at most.
    Nothing,
    /// In objects that no name leads to, these among them, and in the list of such that are to be deleted.
    Nameless(Vec<u64>),
    /// In nothing that has a name; but in tables of the file system's own as well.
    Tables,
    /// In content: what somebody could read, or a quota.
    Content,
}

/// The user property of what an init transaction created, with its id, until it is concluded.
pub(crate) const MARK: &str = "zfs-txn:made-by";

/// The user property of a snapshot that was taken to compare, with the transaction's id.
pub(crate) const LOOK: &str = "zfs-txn:look";

/// Where records of transactions on one target are: on it, on what is named after it, and on datasets above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) target: &'a DatasetName,
    pub(crate) above: &'a [DatasetName],
    /// Only what belongs to this one, however much else there is.
    pub(crate) id: Option<TransactionId>,
}

impl Scope<'_> {
    /// Whether a dataset is the target, or bears a name that transactions give to what is beside it.
    pub(crate) fn is_named_after_target(&self, dataset: &str) -> bool {
        dataset.strip_prefix(self.target.as_str()).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with("-txn-") || rest.starts_with("-old-")
        })
    }
}

/// What was found on a dataset and everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) entries: Vec<Entry>,
    /// Datasets and snapshots that could not be looked at; what is below them may not have been either.
    pub(crate) unread: Vec<(String, Fault)>,
}

/// A user property of this crate, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What of the name is not UTF-8 is replaced: such a name can't be parsed.
    pub(crate) carrier: String,
    /// The carrier's, also where that is a dataset.
    pub(crate) id: SnapshotId,
    pub(crate) property: String,
    pub(crate) value: OsString,
    /// Whether it was set here; false: a receive brought it.
    pub(crate) local: bool,
}

impl Entry {
    /// Whether it is the transaction's record, or marks something as made by it.
    pub(crate) fn belongs_to(&self, id: TransactionId) -> bool {
        let is_mark = [MARK, LOOK].contains(&self.property.as_str());
        id_of(&self.property) == Some(id) || is_mark && self.value == OsStr::new(&id.to_string())
    }
}

/// A property's value as the kernel stores it: numbers and choices as numbers, and text as bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PropertyValue {
    Number(u64),
    Text(OsString),
}

impl fmt::Debug for PropertyValue {
    /// Fingerprints on disk are made of this: two values never look the same, and UTF-8 looks as a `str`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.debug_tuple("Number").field(number).finish(),
            Self::Text(text) => match text.to_str() {
                Some(utf8) => f.debug_tuple("Text").field(&utf8).finish(),
                None => f.debug_tuple("Text").field(text).finish(),
            },
        }
    }
}

/// The settings of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What was set on the dataset itself, native and user properties alike, and can be set on a
    /// clone of it.
    pub(crate) own: Vec<(String, PropertyValue)>,
    /// Whether `readonly=on` applies, inherited or not.
    pub(crate) readonly: bool,
    /// Whether it is encrypted and doesn't inherit its key.
    pub(crate) encryption_root: bool,
    /// Whether it is a volume to which `snapdev=visible` applies, inherited or not.
    pub(crate) snapshot_devices: bool,
    /// Whether it is a volume to which `volmode=none` applies, inherited or not.
    pub(crate) no_device: bool,
    /// Whether a receive into it can be resumed (`receive_resume_token`), or goes on and could be.
    pub(crate) partly_received: bool,
    /// False where it is encrypted and its key is not loaded.
    pub(crate) key_loaded: bool,
    /// Whether it belongs to a container (`zoned=on`, inherited or not), and not to this process's.
    pub(crate) zoned: bool,
    /// The path at which a boot mounts it, without an alternate root of the pool.
    pub(crate) claim: Option<PathBuf>,
    /// Properties that apply, inherited or not, by which a tool knows which of its snapshots to take.
    pub(crate) named_for_tools: Vec<String>,
    /// The permissions delegated on the dataset itself, packed; `None` where there are none.
    pub(crate) permissions: Option<Vec<u8>>,
}

impl Settings {
    /// Those of a dataset that nobody has set anything on.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            own: Vec::new(),
            readonly: false,
            encryption_root: false,
            snapshot_devices: false,
            no_device: false,
            partly_received: false,
            key_loaded: true,
            zoned: false,
            claim: None,
            named_for_tools: Vec::new(),
            permissions: None,
        }
    }

    /// The dataset's own value of a property.
    pub(crate) fn own(&self, property: &str) -> Option<&PropertyValue> {
        self.own.iter().find_map(|(name, value)| (name == property).then_some(value))
    }

    /// Takes out a mountpoint that is there only as long as names are swapped.
    pub(crate) fn without_pin(mut self, pin: Option<&OsStr>) -> Self {
        self.own.retain(|(name, value)| {
            name != "mountpoint" || pin.is_none_or(|pin| *value != PropertyValue::Text(pin.into()))
        });
        self
    }

    /// What a clone needs in which files are only edited: its blocks are to be written as the
    /// target's would be, and all that is about its place, its size or others' access is left out.
    pub(crate) fn for_editing(&self, volume: bool) -> Vec<(String, PropertyValue)> {
        const LEFT_OUT: [&str; 13] = [
            "canmount",
            "filesystem_limit",
            "mountpoint",
            "quota",
            "refquota",
            "refreservation",
            "reservation",
            "sharenfs",
            "sharesmb",
            "snapdev",
            "snapdir",
            "snapshot_limit",
            "volmode",
        ];
        let own = self.own.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
        let fixed = match volume {
            // A device, of which nobody looks for partitions (`dev`), and none of its snapshots.
            true => [("volmode", 2), ("snapdev", 0)],
            // No boot mounts it (`noauto`), and nobody sees its `.zfs` (`hidden`).
            false => [("canmount", 2), ("snapdir", 0)],
        };
        let number = |(name, value): (&str, u64)| (name.to_owned(), PropertyValue::Number(value));
        // Whoever sets the mount point of a dataset above mounts anew, in public, what inherits it and
        // is mounted (`changelist_postfix`).
        let nowhere = ("mountpoint".to_owned(), PropertyValue::Text("none".into()));
        own.cloned().chain(fixed.map(number)).chain((!volume).then_some(nowhere)).collect()
    }

    /// Takes out a `readonly` that is there only to refuse writes during a commit.
    pub(crate) fn without_fence(mut self, fence: Option<Fence>) -> Self {
        let is_fence = |name: &str, value: &PropertyValue| {
            name == "readonly" && *value == PropertyValue::Number(1)
        };
        match fence {
            Some(Fence::Inherited) => self.own.retain(|(name, value)| !is_fence(name, value)),
            Some(Fence::Own) => self
                .own
                .iter_mut()
                .filter(|(name, value)| is_fence(name, value))
                .for_each(|(_, value)| *value = PropertyValue::Number(0)),
            None => {}
        }
        self
    }

    /// Whether these have this fingerprint, or had it until the dataset `gave_up` its claim by
    /// `canmount=noauto`.
    pub(crate) fn had_fingerprint(&self, fingerprint: u64, gave_up: bool) -> bool {
        let with = |canmount: Option<u64>| {
            let mut before = self.clone();
            before.own.retain(|(name, _)| name != "canmount");
            let own = canmount.map(|value| ("canmount".to_owned(), PropertyValue::Number(value)));
            before.own.extend(own);
            before.own.sort_by(|(one, _), (other, _)| one.cmp(other));
            before.fingerprint() == fingerprint
        };
        let noauto = self.own("canmount") == Some(&PropertyValue::Number(2));
        self.fingerprint() == fingerprint || gave_up && noauto && (with(None) || with(Some(1)))
    }

    /// A number that changes with whatever a commit would put back to the old.
    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint(format!("{:?} {:?}", self.own, self.permissions).as_bytes())
    }
}

/// A place where a dataset is mounted, or is to be, with the mount's own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount that is there now, by the kernel's number; `None` where nothing is to be replaced.
    pub(crate) replaces: Option<u64>,
    pub(crate) path: PathBuf,
    pub(crate) options: MountAttrFlags,
    pub(crate) propagation: Propagation,
    /// What the mount that is there has, and a new one can't be given.
    pub(crate) uncarried: Option<String>,
}

impl Place {
    /// A place for a mount of its own.
    pub(crate) fn new(replaces: Option<u64>, path: PathBuf, options: MountAttrFlags) -> Self {
        Self { replaces, path, options, propagation: Propagation::default(), uncarried: None }
    }
}

/// How mounts that are made on a mount pass on to others, and the other way round
/// (mount_namespaces(7)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) shared: bool,
    pub(crate) unbindable: bool,
    /// The place that it has to do with; that one is swapped before.
    pub(crate) tie: Option<Tie>,
}

/// What a mount is to another one of the same dataset, by that one's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tie {
    Peer(PathBuf),
    Slave(PathBuf),
}

/// A mount that is attached nowhere yet.
#[derive(Debug)]
pub(crate) struct PreparedMount {
    pub(crate) place: Place,
    pub(crate) mount: OwnedFd,
    /// The mount that is to be replaced: its number means no other one as long as this is open.
    pub(crate) _old: Option<OwnedFd>,
}

/// What became of a prepared mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attached {
    /// The new content is at the place. The gap is how long nothing was in between; `None`: a lookup
    /// found the old mount or the new one at every moment, or nothing was there before.
    There { gap: Option<Duration> },
    /// The mount that was to be replaced is gone by now, and nothing was done.
    Gone,
}

/// Where a workspace is mounted, or the link to a volume's device is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Private<'a> {
    pub(crate) path: &'a Path,
    /// The user who may get there, by the directory above, which is this user's; `None`: the user of
    /// this process alone, to whom all below that directory belongs.
    pub(crate) user: Option<u32>,
    /// The dataset that the workspace becomes.
    pub(crate) becomes: Option<&'a DatasetName>,
}

/// What a commit in place needs of the kernel or the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Linux 5.14.
    Kernel,
    /// The pool's feature `bookmarks`: the stream starts from one (`dsl_bookmark_create_check`). Nothing else
    /// is needed: what the stream has of other features is in the same pool already.
    Bookmarks,
}

/// Room that there would have to be for a snapshot beside the dataset's `refreservation`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// What the snapshot would keep of what the reservation was for.
    pub(crate) needed: u64,
    /// How much is missing; `None`: the dataset's `refquota` hides it.
    pub(crate) missing: Option<u64>,
}

/// What makes a place unfit for mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) path: PathBuf,
    /// Follows the path in a sentence.
    pub(crate) reason: &'static str,
}

/// ZFS and the mount table, as far as transactions need them.
///
/// Verbs that destroy take the guid that was recorded when the thing was made, and refuse with
/// [`Errno::STALE`] where it doesn't fit (I5). Destroying what is gone is a success.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    // Questions.
    /// Whether this process may run channel programs on the pool of `dataset`. Else a verb that has
    /// several effects has them one after the other.
    fn runs_programs(&self, dataset: &DatasetName) -> Result<bool, Fault>;
    /// What a commit in place needs, and is not here.
    fn lacks(&self, dataset: &DatasetName) -> Result<Option<Lack>, Fault>;
    /// This crate's own user properties, all at one moment where programs can be run.
    fn journal(&self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault>;
    /// Those on a dataset and everything below it, one after the other: what stays where it is meanwhile is found.
    /// What moves may be found twice, or not at all.
    fn walk(&self, below: &DatasetName) -> Result<Walk, Fault>;
    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault>;

    /// Whether a dataset or snapshot is there, and is this one.
    fn is(&self, name: &str, guid: Guid) -> Result<bool, Fault> {
        Ok(self.facts(name)?.is_some_and(|facts| facts.guid == guid))
    }

    /// Whether a snapshot is there, and is this one and no copy of it.
    fn is_snapshot(&self, name: &str, id: SnapshotId) -> Result<bool, Fault> {
        Ok(self.facts(name)?.is_some_and(|facts| facts.id() == id))
    }

    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault>;
    /// Whether a snapshot of `dataset` has no room because of its `refreservation`.
    fn shortage(&self, dataset: &DatasetName) -> Result<Option<Shortage>, Fault>;
    /// Whether a filesystem has nothing in its root directory.
    fn is_empty(&self, dataset: &DatasetName) -> Result<bool, Fault>;
    /// The length of the longest name of a snapshot or bookmark of `dataset`, without its own part.
    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault>;
    /// Snapshots of `dataset` that are newer than the snapshot `base`, by full name.
    fn snapshots_since(&self, dataset: &DatasetName, base: &str) -> Result<Vec<String>, Fault>;
    /// The full names of a dataset's snapshots and bookmarks; none where it isn't there.
    fn snapshots_and_bookmarks(&self, dataset: &DatasetName) -> Result<Vec<String>, Fault>;
    /// The full name of this snapshot, with this last part of it, on `target` or any dataset beside it. An error
    /// where it isn't found, and one on what is named after the target can't be read.
    fn find_snapshot(
        &self,
        target: &DatasetName,
        leaf: &str,
        id: SnapshotId,
    ) -> Result<Option<String>, Fault>;
    /// How two snapshots of a dataset differ, but for an intent log. Exact: each object that was written
    /// since the base is compared.
    fn difference(&self, one: &SnapshotName, base: &SnapshotName) -> Result<Difference, Fault>;
    /// Files that are in the snapshot `one` and were not in `base`, named or not.
    fn newcomers(&self, one: &SnapshotName, base: &SnapshotName) -> Result<Vec<FileId>, Fault>;
    /// Where the whole of `dataset` is mounted in this mount namespace.
    fn places(&self, dataset: &DatasetName) -> Result<Vec<Place>, Fault>;
    /// The options that the dataset's properties ask of a mount (what `zfs mount` would pass).
    fn mount_options(&self, dataset: &DatasetName) -> Result<MountAttrFlags, Fault>;
    /// What is mounted on or below the mount at `place` and is not one of ZFS's own snapshot
    /// automounts.
    fn mounts_on(&self, place: &Place) -> Result<Vec<PathBuf>, Fault>;
    /// What makes a directory, or one above it, unfit for private mounts; `shared`: others may enter it.
    fn unfit(&self, place: &Path, shared: bool) -> Result<Option<Unfit>, Fault>;
    /// What keeps `dataset` from being mounted at a path, where its directory is made if it isn't there.
    fn unmountable(&self, dataset: &DatasetName, path: &Path) -> Result<Option<Unfit>, Fault>;
    /// Whether the path still leads to the workspace whose root or device this is. [`Errno::STALE`] with a
    /// detail where it does, but something is in the directory below.
    fn leads_to(&self, at: &Path, root: BorrowedFd<'_>) -> Result<bool, Fault>;
    /// Mounts, in whichever mount namespace, on directories or files of `dataset` that are not the same ones in
    /// the workspace, and mounts of such elsewhere.
    fn displaced(
        &self,
        dataset: &DatasetName,
        workspace: BorrowedFd<'_>,
    ) -> Result<Vec<PathBuf>, Fault>;
    /// Who uses a dataset or snapshot, so that it is busy, as far as that can be seen.
    fn holders(&self, name: &str) -> Result<Option<String>, Fault>;
    /// Whether the first process has `dataset` mounted; also where that can't be known.
    fn is_seen_by_first(&self, dataset: &DatasetName) -> Result<bool, Fault>;
    /// Where `dataset`, or a directory in it, is mounted in whichever mount namespace.
    fn mounted_anywhere(&self, dataset: &DatasetName) -> Result<Vec<ElsewhereMount>, Fault>;

    // Datasets: one txg each, but for clone and create with properties.
    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault>;
    /// Takes a snapshot that has a user property from the beginning, where one is given.
    fn snapshot(&self, name: &SnapshotName, property: Option<(&str, &str)>) -> Result<(), Fault>;
    fn clone_snapshot(
        &self,
        name: &DatasetName,
        origin: &SnapshotName,
        own: &[(String, PropertyValue)],
    ) -> Result<(), Fault>;
    fn copy_permissions(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault>;
    fn promote(&self, promotion: Promotion<'_>) -> Result<Promoted, Fault>;
    fn conclude(&self, conclusion: Conclusion<'_>) -> Result<Concluded, Fault>;
    fn stage(&self, staging: Staging<'_>) -> Result<Staged, Fault>;
    /// How long the stream will be, in bytes, as far as can be known.
    fn stream_length(&self, route: Route<'_>) -> Result<u64, Fault>;
    /// Sends one snapshot's change, and receives it into another dataset, without force.
    fn transfer(&self, route: Route<'_>, watch: Watch<'_>, at_end: AtEnd<'_>) -> Result<(), Fault>;
    /// Says what keeps the record; `None`: it is gone.
    fn conclude_in_place(&self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault>;
    /// Replaces a user property of `carrier`; refuses with [`Errno::STALE`] where its own value is
    /// not `old`.
    fn write_record(
        &self,
        carrier: (&str, Guid),
        property: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), Fault>;
    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault>;
    /// Says whether it was there; false also for a snapshot that is elsewhere by now.
    fn destroy(&self, name: &str, guid: Guid) -> Result<bool, Fault>;
    /// Refuses with [`Errno::TXTBSY`] where anything was written since the snapshot `since`, which
    /// is destroyed as well if it is one of `name` itself.
    fn destroy_unchanged(&self, name: &str, guid: Guid, since: (&str, Guid))
    -> Result<bool, Fault>;
    /// Destroys a workspace with its own snapshots; refuses with [`Errno::STALE`] where it is not a
    /// clone of `origin` (`None`: no clone). Says whether it was there.
    fn destroy_workspace(
        &self,
        name: &DatasetName,
        guid: Guid,
        origin: Option<Guid>,
    ) -> Result<bool, Fault>;
    /// Destroys snapshots of one dataset by name, all or none; names those that can't be. What is gone
    /// is no failure.
    fn destroy_snapshots(&self, names: &[String]) -> Result<(), Fault>;
    /// The same for bookmarks.
    fn destroy_bookmarks(&self, names: &[String]) -> Result<(), Fault>;
    /// Clears properties of its own.
    fn inherit(&self, name: &DatasetName, guid: Guid, properties: &[&str]) -> Result<(), Fault>;
    fn set_mountpoint(&self, name: &DatasetName, value: &OsStr) -> Result<(), Fault>;
    /// Has writes to a dataset refused, also those through files that are open.
    fn fence(&self, name: &DatasetName) -> Result<(), Fault>;
    /// Allows them again, and puts `readonly` back.
    fn unfence(&self, name: &DatasetName, guid: Guid, before: Fence) -> Result<(), Fault>;
    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault>;

    // Files and mounts.
    /// Returns the root of the workspace: as long as that is open, nobody unmounts it by accident. Of
    /// a volume, makes a link to its device, and returns the device: as long as that is open, its
    /// number is no other one's.
    fn mount_private(&self, dataset: &DatasetName, at: Private<'_>) -> Result<OwnedFd, Fault>;
    /// Takes the private mount away, wherever it is by now, and removes its directory if nothing was
    /// written there; else returns it. Without the `root`: what is mounted at the path, or the link there,
    /// if that is one of the datasets `of`.
    fn unmount_private(
        &self,
        at: Private<'_>,
        root: Option<BorrowedFd<'_>>,
        of: &[&DatasetName],
    ) -> Result<Option<Leftover>, Fault>;
    /// Takes a mount of `dataset` away that nobody asked for, and its directory if it is empty.
    fn unmount_stray(&self, place: &Place) -> Result<(), Fault>;
    /// The same for a mount of `dataset` that somebody may have begun to use: what has anything in it
    /// stays.
    fn unmount_unused(&self, dataset: &DatasetName, place: &Place) -> Result<(), Fault>;
    /// Writes what is in the caches of the workspace to the pool.
    fn flush_workspace(&self, root: BorrowedFd<'_>) -> Result<(), Fault>;
    /// What of a snapshot is other than in `from`, as a stream tells it; `None`: all.
    fn changes(&self, snapshot: &str, from: Option<&str>) -> Result<Changes, Fault>;
    /// Lets go of the kernel's cached pages of files of `dataset`, in whichever mount namespace it is
    /// mounted; names those that have some all the same, because they are mapped into memory. What the
    /// files become is in the snapshot `sent`; those whose data stays the same are taken out of the list.
    /// When the change is `received`, those as well that have been stored to since: of an old page, which is
    /// written over the new content.
    /// Of a volume, lets go of those of its devices, and names the one that something has claimed.
    fn let_go_of_pages(
        &self,
        dataset: &DatasetName,
        sent: &str,
        changes: &mut Changes,
        received: bool,
    ) -> Result<Vec<PathBuf>, Fault>;
    /// Names in these directories that lead to a file which had the name in the snapshot `before`, and has
    /// it no more: the kernel keeps a name as long as somebody holds the file.
    fn stale_names(
        &self,
        dataset: &DatasetName,
        before: &str,
        directories: &[FileId],
    ) -> Result<Vec<PathBuf>, Fault>;
    /// Has what readers of a dataset see written to the pool: pages that were stored into, in whichever
    /// mount namespace it is mounted; of what is not mounted, also what a crash has left in its intent
    /// log; of a volume, its devices' caches.
    fn write_back(&self, dataset: &DatasetName) -> Result<(), Fault>;
    /// Has the list of files of `dataset` that are to be deleted written anew; says whether it is empty.
    fn renew_deletions(&self, dataset: &DatasetName) -> Result<bool, Fault>;
    fn set_ownership(&self, root: BorrowedFd<'_>, ids: &Ids) -> Result<(), Fault>;
    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault>;
    /// Attaches a prepared mount at its place, in exchange for the mount that is there; a mount that
    /// is gone by now is not replaced.
    fn attach(&self, prepared: PreparedMount) -> Result<Attached, Fault>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_fingerprint_tells_bytes_apart_and_is_the_same_as_ever_for_utf8() {
        let with = |value: &[u8]| {
            let value = PropertyValue::Text(OsStr::from_bytes(value).to_owned());
            Settings { own: vec![("a:b".to_owned(), value)], ..Settings::plain() }
        };
        let utf8 = fingerprint(br#"[("a:b", Text("it's \"\u{1}\" \\xfc"))] None"#);
        assert_eq!(with(b"it's \"\x01\" \\xfc").fingerprint(), utf8);
        let values = [&b"\xfc"[..], b"\xfd", b"\\xFC", b"\\xfc", "\u{fffd}".as_bytes()];
        let prints: std::collections::HashSet<u64> =
            values.iter().map(|value| with(value).fingerprint()).collect();
        assert_eq!(prints.len(), values.len());
    }
}
