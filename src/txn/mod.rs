//! Transactions. Read in this order: [`plan`] says which steps there are, this file how begin, commit
//! and rollback use them, [`stage`] and [`promote`] what each step does.

pub(crate) mod layout;
mod outcome;
pub(crate) mod plan;
mod promote;
pub(crate) mod stage;

#[cfg(test)]
mod on_zfs;

use std::path::Path;
use std::sync::Arc;

pub use plan::{Kind, Step};

use crate::engine::Engine;
use crate::error::{BeginError, CommitError, RollbackError, StepError};
use crate::name::{DatasetName, TransactionId};
use crate::receipt::{Leftover, Receipt, Strategy};
use stage::{Order, Stage, Stop};

/// A change to one dataset that is not visible yet.
///
/// Change files below [`Transaction::path`], then [`commit`](Transaction::commit) or
/// [`rollback`](Transaction::rollback). Dropping the transaction rolls it back quietly, also while
/// the thread is panicking. What drop can't cover is the end of the process without unwinding
/// (`exit`, a signal, a power cut): the target is untouched then, but the workspace, a dataset
/// named `TARGET-txn-ID`, and the base, `TARGET@txn-ID`, stay behind.
///
/// A transaction may be moved to another thread. Nothing stops several transactions on one target
/// from being open: the first one that commits wins, the others get a
/// [`Conflict`](crate::Conflict).
#[derive(Debug)]
#[must_use = "dropping a transaction rolls it back"]
pub struct Transaction {
    stage: Stage,
    /// Whether the workspace is still there, to be rolled back on drop.
    open: bool,
}

impl Transaction {
    /// Carries out the begin steps of an order; undoes them when one fails.
    pub(crate) fn begin(engine: Arc<dyn Engine>, order: Order) -> Result<Self, BeginError> {
        let mut stage = Stage::new(engine, order);
        let steps = stage.order.plan.begin.clone();
        let mut done = Vec::new();
        match stage.run(&steps, &mut done) {
            Ok(()) => Ok(Self { stage, open: true }),
            Err(stop) => {
                let errors = stage.undo(&done);
                let error = stop.into_error();
                let mut left = leftovers(&stage, &errors);
                left.extend(stage.doubtful(&error));
                Err(BeginError::Failed { error, left })
            }
        }
    }

    /// The root directory of the workspace. Everything below it becomes the target's content.
    ///
    /// Only this user can reach it. Files may stay open across the commit, and then belong to the
    /// target; a rollback needs them closed.
    pub fn path(&self) -> &Path {
        &self.stage.order.private_path
    }

    /// Init or update, as it was found at begin.
    pub fn kind(&self) -> Kind {
        self.stage.order.kind
    }

    /// The dataset that this transaction is about.
    pub fn target(&self) -> &DatasetName {
        &self.stage.order.layout.target
    }

    /// What tells this transaction from all others.
    pub fn id(&self) -> TransactionId {
        self.stage.order.id
    }

    /// Makes the workspace's content the target's.
    ///
    /// **Commit point:** the rename of the workspace to the target's name, one txg. Before it,
    /// whatever fails is undone and the transaction handed back; after it, the commit goes on to
    /// the end. The ownership asked for is applied before it, in the workspace, so nobody sees the
    /// content without it.
    ///
    /// **Update:** the workspace is promoted, the target renamed aside and the workspace renamed to
    /// the target's name. Then each mount of the target in this mount namespace is replaced, with
    /// the options it had; between the old mount's end and the new one's begin are two system
    /// calls. Files that are open in the old content stay readable until they are closed, and keep
    /// the old content as a leftover. What was written to the target since begin is not merged: if
    /// there was anything, the old content is kept, and named in [`Receipt::leftovers`].
    ///
    /// **A crash** (power, `SIGKILL`) before the commit point leaves the old content under the
    /// target's name, or, between two renames of an update, under `TARGET-old-ID`; after it, the
    /// new content under the target's name. What else is left is listed in `docs/design.md`.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] and [`CommitError::Unchanged`] hand the transaction back as it was
    /// before the call. [`CommitError::InDoubt`] names everything that a person needs to know.
    ///
    /// # Privileges
    /// `CAP_SYS_ADMIN` in the initial user namespace: for channel programs and for mounts.
    pub fn commit(mut self) -> Result<Receipt, CommitError> {
        let span = tracing::info_span!("commit", target = %self.target(), id = %self.id());
        let _entered = span.enter();
        let steps = self.stage.order.plan.commit.clone();
        let mut done = Vec::new();
        // From here on, a panic must not roll back what may be half committed.
        self.open = false;
        if let Err(stop) = self.stage.run(&steps, &mut done) {
            return Err(self.give_up(stop, &done));
        }
        self.settle()
    }

    /// Undoes the commit steps that were done, and hands the transaction back.
    fn give_up(mut self, stop: Stop, done: &[Step]) -> CommitError {
        let mut errors = self.stage.undo(done);
        if errors.is_empty() {
            self.open = true;
            let transaction = Box::new(self);
            return match stop {
                Stop::Failed(error) => CommitError::Unchanged { error, transaction },
                Stop::Conflict(conflict) => CommitError::Conflict { conflict, transaction },
            };
        }
        // Keep everything: a rollback on drop might destroy the only copy.
        errors.insert(0, stop.into_error());
        CommitError::InDoubt { id: self.id(), target: self.target().clone(), receipt: None, errors }
    }

    /// Everything after the commit point. A step that fails doesn't stop those after it.
    fn settle(&mut self) -> Result<Receipt, CommitError> {
        let mut errors = Vec::new();
        let mut left = Vec::new();
        let mut claimed_by_predecessor = false;
        for step in self.stage.order.plan.settle.clone() {
            if step == Step::RestoreMountpoint && claimed_by_predecessor {
                continue;
            }
            let Err(error) = self.stage.finish(step) else {
                continue;
            };
            match self.stage.leftover(&error) {
                Some(leftover) if step.may_leave_leftover() => left.push(leftover),
                _ => errors.push(error),
            }
            if step == Step::DestroyPredecessor {
                let parked = self.stage.finish(Step::ParkPredecessor);
                claimed_by_predecessor = parked.is_err();
                errors.extend(parked.err());
            }
        }
        let order = &self.stage.order;
        let receipt = Receipt {
            id: order.id,
            target: order.layout.target.clone(),
            guid: self.stage.workspace_guid(),
            kind: order.kind,
            strategy: Strategy::Promote,
            base: self.stage.base(),
            final_snapshot: self.stage.final_snapshot(),
            mounted: std::mem::take(&mut self.stage.mounted),
            leftovers: left,
        };
        if errors.is_empty() {
            return Ok(receipt);
        }
        Err(CommitError::InDoubt {
            id: receipt.id,
            target: receipt.target.clone(),
            receipt: Some(Box::new(receipt)),
            errors,
        })
    }

    /// Removes the workspace and everything else that begin made. The target is untouched.
    ///
    /// # Errors
    /// Where something can't be removed, for example because a file in the workspace is open. The
    /// error lists what is left; all else is gone.
    pub fn rollback(mut self) -> Result<(), RollbackError> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<(), RollbackError> {
        let span = tracing::info_span!("rollback", target = %self.target(), id = %self.id());
        let _entered = span.enter();
        self.open = false;
        let done = self.stage.order.plan.begin.clone();
        let errors = self.stage.undo(&done);
        if errors.is_empty() {
            return Ok(());
        }
        Err(RollbackError { id: self.id(), left: leftovers(&self.stage, &errors), errors })
    }
}

fn leftovers(stage: &Stage, errors: &[StepError]) -> Vec<Leftover> {
    errors.iter().filter_map(|error| stage.leftover(error)).collect()
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        match self.roll_back() {
            Ok(()) => tracing::warn!(
                target = %self.target(), id = %self.id(),
                "transaction dropped without commit or rollback: rolled back"
            ),
            Err(error) => tracing::warn!(
                target = %self.target(), id = %self.id(), %error,
                "transaction dropped without commit or rollback"
            ),
        }
    }
}
