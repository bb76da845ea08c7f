//! Transactions on ZFS datasets: begin, change files in a private workspace, commit or roll back.
//!
//! ```no_run
//! use zfs_txn::{DatasetName, Zfs};
//!
//! let zfs = Zfs::open()?;
//! let target: DatasetName = "tank/repos/alpha".parse()?;
//! let txn = zfs.transaction(&target).begin()?;
//! std::fs::write(txn.path().join("index"), "generation 7")?;
//! let receipt = txn.commit()?;
//! assert!(receipt.leftovers.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Words
//! - The *target* is the dataset that a transaction is about. It may not exist yet.
//! - *Init* and *update* are the two kinds of transaction: the target doesn't exist, or does.
//! - The *workspace* is the private dataset that begin makes: a new one, or a clone of the target.
//! - The *base* is the snapshot of the target that the workspace is a clone of.
//! - The *commit point* is the transaction group (txg) before which a crash means that nothing has
//!   happened, and after which the target has the new content.
//! - A change *in place* makes the workspace's content the target's, and leaves all else of it alone.
//! - The *predecessor* is the target's old head after the commit point, until it is destroyed.
//! - A *leftover* is what a transaction made and could not remove. It is always reported.
//!
//! # What it does
//! - The workspace is mounted where only this user looks, with the target's properties, quotas and
//!   delegated permissions. It is never mounted by a boot, and never claims the target's mount point.
//! - Commit applies the ownership asked for in the workspace, promotes it, and gives it the target's
//!   name and mounts; or it receives the workspace's change into the target ([`Strategy`]). What
//!   fails before the commit point is undone, in reverse.
//! - Every transaction has a record on the pool, as user properties. After a crash,
//!   [`Zfs::recover`], or the next begin on the target, finishes what was interrupted: the old content
//!   or the new, whole, and nothing left over.
//! - Nothing is destroyed whose guid is not the one recorded when it was made.
//! - Every effect is a [`tracing`] span of level debug; begin, commit and rollback are of level info.
//!
//! # What it doesn't
//! - It starts no process, and installs no signal handler. It starts no thread either, but during a
//!   commit in place, when what others have written to a target is looked at, and to find out who keeps
//!   something busy: those have ended when the call returns, but for one of the last kind that another
//!   process may keep waiting.
//! - It doesn't merge: of two transactions on one target one wins.
//! - It doesn't promote datasets with children, volumes, or targets that are their own encryption
//!   root: those can be changed in place.
//!
//! # Async callers
//! All calls block, some for several transaction groups. Run them where blocking is allowed, for
//! example in tokio's `spawn_blocking`; a [`Transaction`] may move between threads. All of them must have
//! one table of descriptors: none that has called `unshare(CLONE_FILES)` may make calls of this crate.

mod aside;
mod capabilities;
mod compare;
mod engine;
mod errno;
mod error;
mod ffi;
mod holders;
mod kernel;
mod known_bugs;
mod linux;
mod mount;
mod name;
mod owner;
mod ownership;
mod patience;
mod receipt;
mod recovery;
mod refusal;
mod stream;
#[cfg(test)]
mod test_pool;
#[cfg(test)]
mod test_write;
mod tools;
mod transfer;
mod tree;
mod txn;
mod volume;
mod zfs;

pub use capabilities::Capabilities;
pub use errno::Errno;
pub use error::{
    BeginError, CommitError, Conflict, DetachError, Error, OpenError, RecoverError, ResumeError,
    RollbackError, StepError,
};
pub use known_bugs::KnownBug;
pub use name::{
    BookmarkName, DatasetName, MAX_DEPTH, MAX_NAME_LEN, NameError, NameReason, SnapshotName,
    TransactionId,
};
pub use ownership::{Ownership, Principal};
pub use receipt::{
    ElsewhereMount, Guid, Keeps, Leftover, OnConflict, Progress, Receipt, Snapshot, Strategy,
};
pub use recovery::{Condition, Finished, Outcome, Pending, Recovery, Unfinished};
pub use refusal::Refusal;
pub use txn::{Kind, Step, Transaction};
pub use zfs::{TransactionBuilder, Zfs};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Handles may be shared between threads, and transactions moved.
const _: () = {
    const fn is<T: Send + Sync>() {}
    is::<Zfs>();
    is::<Transaction>();
    is::<CommitError>();
};
