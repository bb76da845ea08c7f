//! Transactions on ZFS datasets: begin, change files in a private workspace, commit or roll back.

mod compare;
mod engine;
mod errno;
mod error;
mod ffi;
mod kernel;
mod mount;
mod name;
mod ownership;
mod receipt;
#[cfg(test)]
mod test_pool;
mod txn;
mod zfs;

pub use errno::Errno;
pub use error::{BeginError, CommitError, Conflict, Error, OpenError, RollbackError, StepError};
pub use name::{
    BookmarkName, DatasetName, MAX_DEPTH, MAX_NAME_LEN, NameError, NameReason, SnapshotName,
    TransactionId,
};
pub use ownership::{Ownership, Principal};
pub use receipt::{Guid, Leftover, Receipt, Snapshot, Strategy};
pub use txn::{Kind, Step, Transaction};
pub use zfs::{TransactionBuilder, Zfs};
