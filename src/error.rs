//! Errors, one type per operation. Each names the dataset, the step, the code, and what is left.

use std::fmt;

use crate::errno::Errno;
use crate::ffi::threads::NO_THREAD;
use crate::name::{DatasetName, NameError, TransactionId};
use crate::receipt::{Leftover, Receipt};
use crate::recovery::Pending;
use crate::refusal::Refusal;
use crate::txn::{Step, Transaction};

/// Why [`Zfs::open`](crate::Zfs::open) or [`Zfs::confined_to`](crate::Zfs::confined_to) failed.
/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The ZFS module is not loaded.
    #[error("the ZFS kernel module is not loaded (no /dev/zfs): load it with `modprobe zfs`")]
    NoModule,
    /// `/dev/zfs` can't be opened by this user.
    #[error("/dev/zfs can't be opened: run as root (CAP_SYS_ADMIN)")]
    NotPermitted,
    /// OpenZFS's libraries can't be loaded.
    #[error(
        "libzfs can't be loaded; install OpenZFS's user space, 2.2 or later (Debian, Ubuntu: `apt install \
         zfsutils-linux`): {tried}"
    )]
    NoLibrary {
        /// What was looked for, and what the loader said of each.
        tried: String,
    },
    /// The kernel module or the library is of a release before 2.2.
    #[error("OpenZFS 2.2 or later is needed, library and kernel module: {found}")]
    TooOld {
        /// Which of the two is too old.
        found: String,
    },
    /// Library and module are of releases that don't understand each other: one of them, and not the other, is
    /// 2.3.1.
    #[error("OpenZFS 2.3.1 works with itself alone: {found}; update it, and load the new module")]
    Mismatch {
        /// The two releases.
        found: String,
    },
    /// A name to be confined to is not a dataset's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The library could not be opened for another reason.
    #[error("libzfs can't be opened: {0}")]
    Failed(Errno),
}

/// One step that failed: what was tried, on which dataset, and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The step.
    pub step: Step,
    /// The dataset, snapshot or path that it was about.
    pub subject: String,
    /// What the kernel said.
    pub errno: Errno,
    /// What else is known, for example the snapshot that is in the way.
    pub detail: Option<String>,
}

impl StepError {
    /// What the reader can do about it, where the code says enough.
    fn advice(&self) -> Option<&'static str> {
        if self.step == Step::CheckWorkspace && self.errno == Errno::STALE && self.detail.is_some()
        {
            return Some(
                "it was written in another mount namespace, or while the workspace was mounted elsewhere, \
                 and is not in the workspace: `mount --bind` the directory above to get at it, move what is \
                 needed into the workspace, and remove the rest; or roll back",
            );
        }
        if self.step == Step::CheckWorkspace && self.errno == Errno::STALE {
            return Some(
                "it was unmounted, moved or covered, and what was written at that path since is not in \
                 the workspace: take what is needed of it, then roll back; or have the path lead to \
                 the workspace again, where it was only moved or covered",
            );
        }
        if self.step == Step::CheckOwner {
            return Some("nothing was done: detach it there, and resume it here");
        }
        Some(match self.errno {
            Errno::PERM | Errno::ACCES if self.step == Step::SetOwnership => {
                "run as root, where the owner before and after is known (in a user namespace: mapped); what is \
                 immutable or append-only has to be released before (`chattr -i`, `chattr -a`)"
            }
            Errno::PERM | Errno::ACCES => {
                "run as root (CAP_SYS_ADMIN), or as a container's root on a dataset that was given to it"
            }
            Errno::ROFS if self.step == Step::Fence => {
                "mount it writable (`mount -o remount,rw`), or begin anew without fence()"
            }
            Errno::ROFS if self.step == Step::MountWorkspace => {
                "the directory for workspaces is on a file system that is read-only: have it writable, or name \
                 another one with workspace_for()"
            }
            Errno::ROFS => {
                "it is read-only: import the pool writable, or set readonly=off where that is set"
            }
            Errno::AGAIN if self.detail.as_deref() == Some(NO_THREAD) => {
                "a limit is reached, of threads or of memory: raise it (`ulimit -u` of the user, `pids.max` of \
                 the control group, which systemd calls TasksMax, or kernel.threads-max), or end other threads"
            }
            Errno::AGAIN => {
                "the pool is suspended after I/O errors: look at `zpool status`, repair the device, \
                 then `zpool clear`"
            }
            Errno::NOSPC => {
                "there is no room left, in the pool or under a quota (a workspace has the target's \
                 quota and needs its reservations once more): free some, or raise the quota"
            }
            Errno::DQUOT => {
                "a quota is reached, of the dataset, of one above it, or of a user, group or project in it \
                 (`zfs userspace`), or a limit of snapshots or filesystems: raise it"
            }
            Errno::EXIST if self.step.destroys() => {
                "something depends on it: `zfs list -r -t all` shows children and snapshots, the \
                 property `clones` of its snapshots shows clones"
            }
            Errno::BUSY if self.step == Step::Promote => {
                "a snapshot that is sent, mounted or looked into can't pass to another dataset: let the \
                 `zfs send` come to its end, unmount it, or leave .zfs/snapshot"
            }
            Errno::BUSY if self.step == Step::Receive => {
                "another receive into it goes on: let it come to its end, or end it, and commit again"
            }
            Errno::BUSY if self.step.destroys() => {
                "something uses it: close files opened in it, unmount it in other mount namespaces, and \
                 unmount its snapshots under .zfs; Zfs::sweep removes what is left then"
            }
            Errno::NAMETOOLONG => "use a shorter name for the target or its snapshots",
            _ => return None,
        })
    }
}

impl StepError {
    /// The code, what else is known, and what the reader can do.
    pub(crate) fn why(&self) -> String {
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{}{detail}{advice}", self.errno)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {}: {}", self.step, self.subject, self.why())
    }
}

impl std::error::Error for StepError {}

/// Shows how many bytes are missing, within a sentence.
struct Missing<'a>(&'a Option<u64>);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |missing| write!(f, ", {missing} more than there are"))
    }
}

/// Shows leftovers as the end of a sentence.
struct Left<'a>(&'a [Leftover]);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing is left behind");
        }
        for (position, leftover) in self.0.iter().enumerate() {
            write!(f, "{}{leftover}", if position > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// Why [`begin`](crate::TransactionBuilder::begin) failed.
///
/// All but [`BeginError::Failed`] and [`BeginError::Unmountable`] are found before anything is changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// A name derived from the target's would be too long for ZFS.
    #[error(
        "the name {target} is too long for a transaction: names derived from it and from its \
         snapshots would have {len} bytes, and ZFS allows {max}; shorten one by {over}",
        max = crate::name::MAX_NAME_LEN,
        over = len - crate::name::MAX_NAME_LEN
    )]
    NameTooLong {
        /// The target.
        target: DatasetName,
        /// The length in bytes of the longest name that the transaction would need.
        len: usize,
    },
    /// What the transaction has to write down would not fit into a property's value by its end.
    #[error(
        "the record of a transaction on {target} would have {length} bytes, and ZFS allows {max} in a \
         property; the path of the target's mount point, or of the place for the workspace, has to be \
         shorter (other bytes than letters, digits and _.:/@- count three times)",
        max = crate::txn::journal::MAX_LEN
    )]
    RecordTooLong {
        /// The target.
        target: DatasetName,
        /// The record's length in bytes, at its longest.
        length: usize,
    },
    /// A name for something that the caller asked for is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The target, or something that has to be made beside it, lies outside of what this
    /// [`Zfs`](crate::Zfs) is confined to.
    #[error("{name} is outside of what this handle is confined to")]
    OutsideConfinement {
        /// The name that was refused.
        name: DatasetName,
    },
    /// The pool doesn't exist or isn't imported.
    #[error("there is no pool {pool:?}: create it, or import it with `zpool import`")]
    NoSuchPool {
        /// Its name.
        pool: String,
    },
    /// The target's parent doesn't exist.
    #[error("the parent {parent} does not exist: create it, or ask for it with create_parents()")]
    NoParent {
        /// The parent's name.
        parent: DatasetName,
    },
    /// The target is a pool's root dataset, which can be neither created nor renamed.
    #[error("{target} is a pool's root dataset: use a dataset below it")]
    PoolRoot {
        /// The target.
        target: DatasetName,
    },
    /// The target is a volume, which can be changed in place alone
    /// ([`Strategy::InPlace`](crate::Strategy::InPlace)), or its parent is one.
    #[error("{name} {}", Refusal::Volume)]
    Volume {
        /// Its name.
        name: DatasetName,
    },
    /// The target is a volume, and has no files that anybody could own.
    #[error("{target} is a volume: ownership() is for filesystems")]
    OwnershipOfVolume {
        /// The target.
        target: DatasetName,
    },
    /// The target is a volume, which `readonly` keeps nobody from writing to who has it open.
    #[error("{target} is a volume: fence() is for filesystems")]
    FenceOfVolume {
        /// The target.
        target: DatasetName,
    },
    /// The target is a volume whose snapshots get devices. When something opens such a volume at the
    /// moment in which a change is received into it, OpenZFS before 2.4 comes to a deadlock
    /// (`zvol_open` and `dmu_recv_end`, by `zvol_state_lock`).
    #[error("{target} {}", Refusal::SnapshotDevices)]
    SnapshotDevices {
        /// The target.
        target: DatasetName,
    },
    /// The target is a volume with `volmode=none`, which has no block device to write to.
    #[error("{target} {}", Refusal::NoDevice)]
    NoDevice {
        /// The target.
        target: DatasetName,
    },
    /// The pool has not the feature `bookmarks`, which a change in place needs
    /// ([`Strategy::InPlace`](crate::Strategy::InPlace)).
    #[error(
        "{target} can't be changed in place, as its pool has not the feature bookmarks: enable it with \
         `zpool set feature@bookmarks=enabled {}`, or use Strategy::Promote",
        target.pool()
    )]
    NoBookmarks {
        /// The target.
        target: DatasetName,
    },
    /// A snapshot of the target has no room: what it keeps has to be reserved once more, for the target's
    /// `refreservation` (`dsl_dataset_snapshot_reserve_space`). Volumes have one unless they are sparse.
    #[error(
        "there is no room for a snapshot of {target}: what it has would have to be reserved once more for its \
         refreservation, which is {needed} bytes{}; free some, raise a quota above it, or lower the \
         refreservation (`zfs set refreservation=none {target}`)",
        Missing(missing)
    )]
    NoRoomForSnapshot {
        /// The target.
        target: DatasetName,
        /// How many bytes would have to be free.
        needed: u64,
        /// How many of them are missing; `None` where a `refquota` of the target's hides that.
        missing: Option<u64>,
    },
    /// The kernel is too old for a change in place ([`Strategy::InPlace`](crate::Strategy::InPlace)).
    #[error("{target} can't be changed in place before Linux 5.14: use Strategy::Promote")]
    KernelTooOld {
        /// The target.
        target: DatasetName,
    },
    /// The target has child datasets, which a promote commit would leave behind.
    #[error("{target} {}", Refusal::HasChildren { count: *count })]
    HasChildren {
        /// The target.
        target: DatasetName,
        /// How many.
        count: u64,
    },
    /// The target has `readonly=on`, so a workspace of it could not be written.
    #[error("{target} {}", Refusal::ReadOnly)]
    ReadOnly {
        /// The target.
        target: DatasetName,
    },
    /// The target has a receive that was interrupted and can be resumed, or one that goes on at this
    /// moment and could be (`zfs receive -s`). Resume that receive, or drop what was received with
    /// `zfs receive -A`.
    #[error("{target} {}", Refusal::PartlyReceived)]
    PartlyReceived {
        /// The target.
        target: DatasetName,
    },
    /// The target, or the dataset below which it is to be created, has `zoned=on`: it belongs to a
    /// container or jail, and this process is not in one.
    #[error("{target} {}", Refusal::Zoned)]
    Zoned {
        /// The target.
        target: DatasetName,
    },
    /// Another commit of the target has begun to swap names, and its process lives, or it was
    /// interrupted and can't be finished.
    #[error("a commit of {target} (transaction {id}) is not finished: {reason}")]
    Unfinished {
        /// The target.
        target: DatasetName,
        /// The other transaction.
        id: TransactionId,
        /// Why it is not.
        reason: String,
    },
    /// The target's encryption key is not loaded.
    #[error("{target} {}", Refusal::KeyNotLoaded)]
    KeyNotLoaded {
        /// The target.
        target: DatasetName,
    },
    /// The target is its own encryption root. A promote hands the root to the workspace, but not
    /// the loaded key (`dsl_dataset_promote_crypt_sync`): the next commit or mount would need it
    /// again.
    #[error("{target} {}", Refusal::EncryptionRoot)]
    EncryptionRoot {
        /// The target.
        target: DatasetName,
    },
    /// A snapshot with the name of the final snapshot exists.
    #[error("the snapshot {name} exists already: choose another name, or destroy or rename that")]
    SnapshotExists {
        /// Its name.
        name: crate::name::SnapshotName,
    },
    /// A user's or group's name that this system doesn't know.
    #[error("this system knows no {what} {name:?}")]
    UnknownPrincipal {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The place where the workspace would be mounted, or a directory on the way to it, is not safe:
    /// somebody else could see workspaces, or put something else in their place. Either it is what
    /// [`workspace_for`](crate::TransactionBuilder::workspace_for) was given, or `/run/zfs-txn`.
    #[error("no workspace can be mounted safely: {} {reason}", path.display())]
    UnsafePlace {
        /// What is not safe.
        path: std::path::PathBuf,
        /// Why it is not; follows the path in a sentence.
        reason: &'static str,
    },
    /// The mount point is not an absolute path, nor `none` or `legacy`.
    #[error("{mountpoint:?} is no mount point: an absolute path, none or legacy is")]
    Mountpoint {
        /// What was asked for.
        mountpoint: String,
    },
    /// The target, or a parent that is to be created for it, could not be mounted: its directory can't be
    /// made, something is mounted below it, or it isn't empty and `overlay=off`. What had been made by
    /// then was undone.
    #[error("{dataset} could not be mounted: {} {reason}", path.display())]
    Unmountable {
        /// The dataset.
        dataset: DatasetName,
        /// What is in the way: its mount point, or a path above or below that.
        path: std::path::PathBuf,
        /// Why; follows the path in a sentence.
        reason: &'static str,
    },
    /// The builder was given a mount point, but the target exists and keeps the one that it has.
    #[error("{target} exists and keeps its mount point: mountpoint() is for targets to be created")]
    MountpointOfExisting {
        /// The target.
        target: DatasetName,
    },
    /// A step failed; what had been done before it was undone.
    #[error("{error}; {}", Left(left))]
    Failed {
        /// The step.
        error: StepError,
        /// What could not be undone.
        left: Vec<Leftover>,
    },
}

impl BeginError {
    /// Whether it may come from another commit that is swapping names at this moment.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unfinished { .. } => true,
            Self::Failed { error, left } => {
                [Errno::NOENT, Errno::STALE].contains(&error.errno) && left.is_empty()
            }
            _ => false,
        }
    }
}

/// Why a commit was refused: the target is not what it was at begin. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Somebody else made the target since begin (init).
    #[error("{target} has been created since this transaction began")]
    TargetAppeared {
        /// The target.
        target: DatasetName,
    },
    /// The target is gone, or another dataset has its name (update): for example another
    /// transaction has committed.
    #[error("{target} is gone or has been replaced since this transaction began")]
    TargetReplaced {
        /// The target.
        target: DatasetName,
    },
    /// Something was written to the target since begin. Mere reading is told apart from that.
    #[error("{target} has been written to since this transaction began")]
    Modified {
        /// The target.
        target: DatasetName,
    },
    /// The target got a snapshot that is newer than the base; a commit by promote would leave it behind, and
    /// one in place, to which it goes over where it can, can't be made here.
    #[error("{snapshot} was taken since this transaction began")]
    NewerSnapshot {
        /// The snapshot.
        snapshot: String,
    },
    /// The target got child datasets; a commit would leave them behind.
    #[error("{target} got {count} child datasets since this transaction began")]
    ChildrenAppeared {
        /// The target.
        target: DatasetName,
        /// How many.
        count: u64,
    },
    /// The target's own properties or delegated permissions were changed; a commit would put the old
    /// ones back.
    #[error("properties or permissions of {target} have been changed since this transaction began")]
    SettingsChanged {
        /// The target.
        target: DatasetName,
    },
    /// The target has come into a state that begin would have refused. No commit overrides that.
    ///
    /// Of an init transaction, it is the parent that has.
    #[error("since this transaction began, things have changed: {target} {refusal}")]
    Refused {
        /// The target, or the parent.
        target: DatasetName,
        /// Which state.
        refusal: Refusal,
    },
    /// Another transaction is committing in place. If its process lives, it comes to its end by itself;
    /// else [`Zfs::recover`](crate::Zfs::recover) finishes it.
    #[error("another transaction, whose base is {base}, is being committed into {target} in place")]
    Committing {
        /// The target.
        target: DatasetName,
        /// The other transaction's base.
        base: String,
    },
    /// A process has a file of the target mapped into memory that is changed in place: it, and
    /// whoever reads the file, would go on seeing the old content. Replace such files (write a new
    /// one and rename it) instead of writing into them, or begin anew with
    /// [`Strategy::Promote`](crate::Strategy::Promote).
    ///
    /// Or others have a lease on it (fcntl(2), `F_SETLEASE`), which they have not given up in a second.
    ///
    /// Or the target is a volume, and its device is claimed by a mount, a volume group, or whoever
    /// has opened it for itself alone (`O_EXCL`).
    ///
    /// Or `path` is `object N`: others have made a file since begin that has the number, and was made in the
    /// txg, of one of the change's files. Whoever has it open would have the change's file from then on. Roll
    /// back, and begin again.
    #[error(
        "{path} of {target} is in use: mapped into memory, leased, of a number that the change has given \
         out as well, or a device that is claimed"
    )]
    InUse {
        /// The target.
        target: DatasetName,
        /// The file, below the target's root, or the device.
        path: String,
    },
    /// Something is mounted below the target's mount point, and would vanish with the old mount.
    #[error("{path} is a mount point below the target's: unmount it first")]
    MountBelow {
        /// Where it is mounted.
        path: String,
    },
    /// In place: something is mounted on a directory or file of the target that is not the same one in the
    /// workspace, because the change removes, replaces or renames it; or such a directory or file is mounted
    /// elsewhere. The kernel would take the first away, a child's mount for example, and the other would
    /// give errors. Unmount it first, or keep the directory or file: write into files rather than
    /// replacing them.
    #[error("the change would remove or replace what is mounted at {}: unmount it first", path.display())]
    Displaced {
        /// Where something is mounted; of another mount namespace, as a process there sees it.
        path: std::path::PathBuf,
    },
    /// Something has come in the way since begin of what an init transaction is to mount: see
    /// [`BeginError::Unmountable`].
    #[error("{dataset} could not be mounted: {} {reason}", path.display())]
    Unmountable {
        /// The target, or a parent that was created for it.
        dataset: DatasetName,
        /// What is in the way: its mount point, or a path above or below that.
        path: std::path::PathBuf,
        /// Why; follows the path in a sentence.
        reason: &'static str,
    },
    /// A mount of the target has an option that a new mount in its place can't be given.
    #[error("the mount at {path} is {option}, which the new one would not be: unmount it first")]
    MountOption {
        /// Where it is mounted.
        path: String,
        /// The option as in `/proc/self/mountinfo`, or what kind of mount it is.
        option: String,
    },
}

impl Conflict {
    /// Whether what would be lost can be kept in the predecessor.
    pub(crate) fn can_be_overridden(&self) -> bool {
        matches!(
            self,
            Self::Modified { .. } | Self::NewerSnapshot { .. } | Self::SettingsChanged { .. }
        )
    }
}

/// Why a commit did not take place, or did not reach its end.
///
/// It says which of two things is true: nothing has changed and the transaction is handed back, or
/// the commit is in doubt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The target is not what it was at begin. Nothing was changed.
    #[error("conflict: {conflict}; nothing was changed, and the workspace is kept")]
    Conflict {
        /// What is in the way.
        conflict: Conflict,
        /// The transaction: take what is needed from its workspace, try again, or roll back.
        /// Dropping it rolls back.
        transaction: Box<Transaction>,
    },
    /// A step before the commit point failed, and everything before it was undone.
    #[error("{error}; nothing was changed, and the workspace is kept")]
    Unchanged {
        /// The step.
        error: StepError,
        /// The transaction, as it was before this commit. Dropping it rolls back.
        transaction: Box<Transaction>,
    },
    /// A step failed, and so did undoing it or what comes after the commit point. The datasets
    /// named here are kept as they are; none of their content is lost.
    /// [`Zfs::recover`](crate::Zfs::recover) finishes the transaction when the cause is gone.
    #[error("in doubt: {}", Doubt { id, target, path, receipt, errors })]
    InDoubt {
        /// The transaction's id: part of the names of everything it made.
        id: TransactionId,
        /// The target.
        target: DatasetName,
        /// Where the workspace was mounted, and may be still.
        path: std::path::PathBuf,
        /// Present when the commit point was passed: the target has the new content.
        receipt: Option<Box<Receipt>>,
        /// Every step that failed, in order.
        errors: Vec<StepError>,
    },
}

struct Doubt<'a> {
    id: &'a TransactionId,
    target: &'a DatasetName,
    path: &'a std::path::Path,
    receipt: &'a Option<Box<Receipt>>,
    errors: &'a [StepError],
}

impl fmt::Display for Doubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, target, path, .. } = self;
        match self.receipt {
            Some(_) => write!(f, "{target} has the new content, but not everything was put right")?,
            None => write!(f, "the commit did not take place, but could not be undone")?,
        }
        write!(
            f,
            "; Zfs::recover finishes it; until then look for {target}{} (new content; it may be mounted at {}), {target}{} (old content) \
             and {target}@{}",
            id.workspace_suffix(),
            path.display(),
            id.predecessor_suffix(),
            id.base_leaf()
        )?;
        self.errors.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

/// A rollback that could not remove everything, or, in a forked process, has done nothing
/// ([`Step::CheckOwner`]). The target is untouched in any case.
#[derive(Debug, thiserror::Error)]
#[error("{}", NotAll { id, left, errors })]
pub struct RollbackError {
    /// The transaction's id.
    pub id: TransactionId,
    /// What is left.
    pub left: Vec<Leftover>,
    /// Every step that failed, in order; none where only what others wrote is left.
    pub errors: Vec<StepError>,
}

struct NotAll<'a> {
    id: &'a TransactionId,
    left: &'a [Leftover],
    errors: &'a [StepError],
}

impl fmt::Display for NotAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, left, errors } = self;
        match errors.iter().find(|error| error.step == Step::CheckOwner) {
            Some(error) => write!(f, "the transaction {id} is not rolled back: {error}"),
            None => write!(
                f,
                "the transaction {id} is rolled back, but not all of it is gone: {}",
                Left(left)
            ),
        }
    }
}

/// Why [`Transaction::detach`] failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{error}; the transaction is as it was")]
pub struct DetachError {
    /// The step.
    pub error: StepError,
    /// The transaction. Dropping it rolls back.
    pub transaction: Box<Transaction>,
}

/// Why [`Zfs::resume`](crate::Zfs::resume) failed. The transaction stays detached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The target lies outside of what this [`Zfs`](crate::Zfs) is confined to.
    #[error("{name} is outside of what this handle is confined to")]
    OutsideConfinement {
        /// The name that was refused.
        name: DatasetName,
    },
    /// There is no such transaction on this target.
    #[error("{target} has no transaction {id}")]
    NotFound {
        /// The target.
        target: DatasetName,
        /// The transaction's id.
        id: TransactionId,
    },
    /// It is not detached: a process has it, or it was interrupted.
    #[error("the transaction {id} is not detached, but {condition:?}")]
    NotDetached {
        /// The transaction's id.
        id: TransactionId,
        /// How it stands.
        condition: crate::recovery::Condition,
    },
    /// Its workspace is gone.
    #[error("the workspace {workspace} of the transaction {id} is gone")]
    NoWorkspace {
        /// The transaction's id.
        id: TransactionId,
        /// What should be there.
        workspace: DatasetName,
    },
    /// A step failed.
    #[error("{error}")]
    Failed {
        /// The step.
        error: StepError,
    },
}

/// Why records could not be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The scope lies outside of what this [`Zfs`](crate::Zfs) is confined to.
    #[error("{name} is outside of what this handle is confined to")]
    OutsideConfinement {
        /// The name that was refused.
        name: DatasetName,
    },
    /// ZFS could not be asked.
    #[error("{error}")]
    Failed {
        /// What was tried.
        error: StepError,
    },
    /// Not all of the scope could be looked at. [`Zfs::recover`](crate::Zfs::recover) and
    /// [`Zfs::sweep`](crate::Zfs::sweep) do what they can, and name the rest in
    /// [`Recovery::unread`](crate::Recovery::unread).
    #[error("not all could be looked at: {}", unread.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Incomplete {
        /// What was found in the rest.
        pending: Vec<Pending>,
        /// Datasets and snapshots whose records could not be read; what is below was not looked at.
        unread: Vec<StepError>,
    },
}

/// Any error of this crate, for callers that treat them alike.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// See [`NameError`].
    #[error(transparent)]
    Name(#[from] NameError),
    /// See [`OpenError`].
    #[error(transparent)]
    Open(#[from] OpenError),
    /// See [`BeginError`].
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// See [`CommitError`].
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// See [`RollbackError`].
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// See [`DetachError`].
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// See [`ResumeError`].
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// See [`RecoverError`].
    #[error(transparent)]
    Recover(#[from] RecoverError),
}
