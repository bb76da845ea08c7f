//! What a commit returns.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Conflict;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::txn::Kind;

/// ZFS's number for a dataset or snapshot: it stays when the name changes, and no two share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A snapshot, by the name it had when the commit ended, and by guid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Its guid.
    pub guid: Guid,
}

/// Something that a transaction made and could not remove.
///
/// [`Zfs::sweep`](crate::Zfs::sweep) removes it when what keeps it is gone, unless it has content
/// that is found nowhere else: see [`Leftover::keeps`], and `zfs destroy` it yourself. A directory that
/// somebody wrote into is never removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} (guid {guid}) is left: {reason}")]
pub struct Leftover {
    /// The dataset's or snapshot's name, or a path for a mount or a directory.
    pub name: String,
    /// Its guid; 0 for what has none (a mount, a directory).
    pub guid: Guid,
    /// Why it could not be removed.
    pub reason: String,
    /// Whether it has content that is found nowhere else.
    pub keeps: Keeps,
}

/// Whether a leftover has content that is found nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keeps {
    /// Nothing of worth: it may be removed.
    Nothing,
    /// What was written to the target while the transaction was open, or, at a path, into a directory
    /// that the transaction made: look before you remove it.
    Changes,
    /// Not known, for example because it is in use, and may still be written to: compare it with
    /// the base before you remove it.
    Unknown,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The transaction's id.
    pub id: TransactionId,
    /// The dataset that has the new content.
    pub target: DatasetName,
    /// The target's guid. After an update it is the workspace's: the target is a new dataset.
    pub guid: Guid,
    /// Init or update.
    pub kind: Kind,
    /// How the change became visible: as it was asked for, or in place where the target had got snapshots
    /// that a promote would have left behind.
    pub strategy: Strategy,
    /// The snapshot that the workspace was cloned from (update only). It is gone by now, unless a
    /// leftover says otherwise; its guid says what the transaction was based on.
    pub base: Option<Snapshot>,
    /// The snapshot of the committed content, where one was asked for.
    pub final_snapshot: Option<Snapshot>,
    /// Where the target is mounted now because of this commit.
    pub mounted: Vec<PathBuf>,
    /// Init: whether nobody but who is in this process's mount namespace sees the target, as the system
    /// (process 1) is in another one, to which mounts are not passed on. `zfs mount` there, or a boot,
    /// mounts it for the system.
    pub mounted_here_alone: bool,
    /// What is read as old after a commit in place ([`Strategy::InPlace`]), below the target's root:
    ///
    /// - Files that were changed in place while a process had them mapped into memory: until none has, reading
    ///   them gives old content, in part or as a whole. Only a file that was mapped at the very moment of the
    ///   commit is found here: otherwise the commit is refused ([`Conflict::InUse`]).
    /// - Names that the commit has given to another file, or to none, while the file that had the name before goes
    ///   on under another one, and somebody has it open, or something below it. Such a name leads to that file
    ///   until it is let go of and the kernel forgets the name (an unmount, or `drop_caches`). In a container
    ///   these names are not found.
    /// - Of a volume: its devices, if something has claimed one at that moment, and may have read old content.
    pub stale: Vec<PathBuf>,
    /// For how long a mount point was bare, so that a lookup of it could fail; the longest time, if
    /// there are several. `None`: no lookup could. `Some` comes from kernels before Linux 6.5.
    pub gap: Option<Duration>,
    /// Mounts that show the old content still: in other mount namespaces, and of directories inside
    /// the target. They keep the predecessor, which is then one of the leftovers, until they are
    /// unmounted.
    ///
    /// Found in the mount namespaces of those processes that this one can see, in each one below the
    /// root directory of one of them. Mounts to which this namespace passes its own on (shared
    /// mounts) are swapped along, and not among these.
    pub mounted_elsewhere: Vec<ElsewhereMount>,
    /// Snapshots and bookmarks that others, or the caller, made of the workspace while the transaction
    /// was open, by the names that they had: for example `zfs snapshot -r` of the dataset above. They had
    /// content that was never committed, and are destroyed.
    pub workspace_snapshots: Vec<String>,
    /// Conflicts that were overridden ([`OnConflict::Overwrite`]). What was overridden is kept, and
    /// named among the leftovers.
    pub overridden: Vec<Conflict>,
    /// What could not be removed, or is kept because it has content that is found nowhere else.
    pub leftovers: Vec<Leftover>,
}

/// How far the commit of a change in place has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many bytes have passed so far.
    pub bytes: u64,
    /// How many there will be, as far as ZFS can tell beforehand (`lzc_send_space`).
    pub estimate: u64,
}

/// A mount that a commit did not reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ElsewhereMount {
    /// A process in the mount namespace: this process for its own.
    pub pid: u32,
    /// Where it is mounted, as that process sees it.
    pub path: PathBuf,
}

/// How a commit makes the change visible.
///
/// | | [`Promote`](Self::Promote) | [`InPlace`](Self::InPlace) |
/// | --- | --- | --- |
/// | what it does | the workspace takes the target's name and mounts | the target receives the workspace's change |
/// | what moves | names; snapshots, one by one in memory | the changed blocks, which are written a second time |
/// | cost grows with | the number of snapshots | the amount of change |
/// | the target's identity (guid, NFS file handles) | changes: NFS clients see the old content until `exportfs -f`, then another file system | stays; files that are delegated to NFSv4 clients stay cached there |
/// | settings, permissions, holds, snapshots | carried over | not touched |
/// | children, volumes, own encryption root | refused at begin | as they are |
/// | a lookup during the commit | the old content or the new (Linux 6.5; before, a short gap) | the old content or the new |
/// | a file that is open | goes on with the old content, which stays until it is closed | has the new content; `EIO` if the file was replaced or deleted |
/// | a file that is mapped | goes on with the old content | the commit is refused if the file was written into |
/// | mounts in other mount namespaces | keep the old content | have the new content |
/// | something mounted on a directory inside | conflict | stays; conflict if the change removes or replaces the directory |
/// | snapshots that the target got meanwhile | the commit goes over to one in place | stay |
/// | snapshots that the workspace got meanwhile | are destroyed before, or refuse the commit where they are held or cloned | are destroyed with it |
/// | somebody has written to the target | conflict, in the txg of the promote | conflict, in the txg of the swap |
/// | [`OnConflict::Overwrite`] | old content kept beside the new one | kept in a snapshot; all of the workspace is sent |
/// | privileges | `CAP_SYS_ADMIN` | `CAP_SYS_ADMIN` |
/// | kernel | Linux 5.8, without a gap from 6.5 on | Linux 5.14 |
///
/// In place, write into files that others read rather than replacing them; and replace those that
/// others map, such as programs and libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// The workspace takes the target's name. Its cost does not grow with the amount of data.
    #[default]
    Promote,
    /// The target stays, and its content becomes the workspace's, in one txg. Its cost grows with the
    /// amount of changed data, which is written a second time.
    InPlace,
}

/// What a commit does about a target that was changed since begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// Refuse, and hand the transaction back.
    #[default]
    Fail,
    /// Commit all the same where only content, snapshots, properties or permissions of the target
    /// were changed. The changed target is kept beside the new one, under another name, and named in
    /// the receipt's leftovers. A target that was replaced, or got children, is a conflict still. Where the
    /// target has got snapshots, the commit is made in place, and they stay.
    ///
    /// In place, what others have written is kept in a snapshot of the target, and named in the same
    /// way; a target that is written to without a pause can be overwritten only with
    /// [`fence`](crate::TransactionBuilder::fence).
    Overwrite,
}
