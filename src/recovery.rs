//! What is known of unfinished transactions, and what recovery did about them.

use std::time::{Duration, SystemTime};

use crate::error::StepError;
use crate::name::{DatasetName, TransactionId};
use crate::receipt::Leftover;
use crate::txn::Kind;

/// A transaction whose record is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// Its id, which is in the names of everything it made.
    pub id: TransactionId,
    /// The dataset or snapshot that carries its record.
    pub carrier: String,
    /// What it is about, by the name that the record has, or, in [`Zfs::pending`](crate::Zfs::pending), the
    /// one that it has by now; `None` where the record can't be read.
    pub target: Option<DatasetName>,
    /// Init or update; `None` where the record can't be read.
    pub kind: Option<Kind>,
    /// When it began, by the clock of the machine that it began on; `None` where the record can't be
    /// read.
    pub begun: Option<SystemTime>,
    /// How it stands.
    pub condition: Condition,
    /// What [`Zfs::recover`](crate::Zfs::recover) would bring it to as things are now, or the reason why it
    /// could not; `None` where it would leave the transaction alone, and of what it has left alone. That a step
    /// will fail can't be told before.
    pub outlook: Option<Result<Outcome, String>>,
}

impl Pending {
    /// How long ago it began; zero for what is in the future.
    pub fn age(&self) -> Option<Duration> {
        self.begun.map(|begun| SystemTime::now().duration_since(begun).unwrap_or_default())
    }
}

/// How a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// A living process has it: it is left alone.
    Open {
        /// The process.
        pid: u32,
    },
    /// Its process can't be seen from here, because it is in another pid or time namespace of this
    /// machine: it is left alone. Recover it from there, or after a reboot.
    OutOfSight {
        /// The process, by its number in its own namespace.
        pid: u32,
    },
    /// It was [detached](crate::Transaction::detach): it is left alone until it is
    /// [resumed](crate::Zfs::resume).
    Detached,
    /// Its process is gone, or had to give up: [`Zfs::recover`](crate::Zfs::recover) finishes it.
    Interrupted,
    /// It has ended, but something that it made could not be removed:
    /// [`Zfs::sweep`](crate::Zfs::sweep) tries again.
    Leftover,
    /// Its record is on a dataset that belongs to a container (`zoned=on`), and asks for what nobody in there
    /// could have begun: it is left alone. Where somebody began it before the dataset was given away,
    /// recover it in there.
    OfContainer,
    /// Its record can't be relied on, and is not acted on.
    Unreadable {
        /// Why not.
        reason: String,
    },
}

impl Condition {
    /// Whether recovery finishes what stands so.
    pub(crate) fn is_to_be_finished(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Leftover)
    }
}

/// What a transaction was brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It had passed its commit point: the target has the new content, and everything is put right.
    Committed,
    /// It had not: the target has the old content, and nothing of the transaction is left.
    RolledBack,
    /// It had ended before: what it had left is removed now.
    Swept,
}

/// A transaction that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Its id.
    pub id: TransactionId,
    /// What it was about.
    pub target: DatasetName,
    /// What it was brought to.
    pub outcome: Outcome,
    /// What could not be removed.
    pub leftovers: Vec<Leftover>,
    /// What keeps the target, or a parent that was created for it, from being mounted. Nothing else is
    /// missing: when that is put right, `zfs mount` or a boot mounts it.
    pub unmounted: Option<StepError>,
}

/// A transaction that could not be finished. Nothing of its content is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The transaction.
    pub pending: Pending,
    /// Why not.
    pub reason: String,
    /// The step that failed, if one did.
    pub error: Option<StepError>,
}

/// What [`Zfs::recover`](crate::Zfs::recover) or [`Zfs::sweep`](crate::Zfs::sweep) did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// What was finished.
    pub finished: Vec<Finished>,
    /// What was left alone, as its condition says.
    pub untouched: Vec<Pending>,
    /// What should have been finished, but could not be.
    pub unfinished: Vec<Unfinished>,
    /// Datasets and snapshots whose records could not be read: nothing was done about those, nor about what is
    /// below.
    pub unread: Vec<StepError>,
}
