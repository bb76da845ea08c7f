//! What a commit returns.

use std::fmt;
use std::path::PathBuf;

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
/// that is found nowhere else: see [`Leftover::keeps`], and `zfs destroy` it yourself.
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
    /// What was written to the target while the transaction was open: look before you remove it.
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
    /// How the change became visible.
    pub strategy: Strategy,
    /// The snapshot that the workspace was cloned from (update only). It is gone by now, unless a
    /// leftover says otherwise; its guid says what the transaction was based on.
    pub base: Option<Snapshot>,
    /// The snapshot of the committed content, where one was asked for.
    pub final_snapshot: Option<Snapshot>,
    /// Where the target is mounted now because of this commit.
    pub mounted: Vec<PathBuf>,
    /// Conflicts that were overridden ([`OnConflict::Overwrite`]). What was overridden is kept, and
    /// named among the leftovers.
    pub overridden: Vec<Conflict>,
    /// What could not be removed, or is kept because it has content that is found nowhere else.
    pub leftovers: Vec<Leftover>,
}

/// How a commit makes the change visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// The workspace takes the target's name. Its cost does not grow with the amount of data.
    #[default]
    Promote,
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
    /// the receipt's leftovers. A target that was replaced, or got children, is a conflict still.
    Overwrite,
}
