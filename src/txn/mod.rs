//! Transactions. Read in this order: [`plan`] says which steps there are, this file how begin, commit
//! and rollback use them, [`stage`] what each step does, [`promote`] and [`in_place`] those around the
//! commit point. What a crash leaves is
//! recorded as [`journal`] says, judged by [`aftermath`] and finished by [`recover`].

pub(crate) mod aftermath;
mod anew;
mod go_over;
mod in_place;
pub(crate) mod journal;
pub(crate) mod layout;
mod mount_points;
mod others;
mod outcome;
pub(crate) mod plan;
mod promote;
pub(crate) mod recover;
pub(crate) mod stage;

#[cfg(test)]
mod dice;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod model;
#[cfg(test)]
mod on_zfs;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use plan::{Kind, Step};

use crate::engine::{Engine, Shortage};
use crate::errno::Errno;
use crate::error::{BeginError, CommitError, Conflict, DetachError, RollbackError, StepError};
use crate::name::{DatasetName, TransactionId};
use crate::owner::Lease;
use crate::patience::Budget;
use crate::receipt::{Leftover, Progress, Receipt};
use in_place::OnProgress;
use journal::State;
use stage::{Order, Stage, Stop};

/// How long a commit waits in all, once the change is visible, for what keeps it from cleaning up.
const SETTLE: Duration = Duration::from_secs(1);

/// A change to one dataset that is not visible yet.
///
/// Change files below [`Transaction::path`], then [`commit`](Transaction::commit) or
/// [`rollback`](Transaction::rollback). Dropping the transaction rolls it back quietly, also while
/// the thread is panicking. What drop can't cover is the end of the process without unwinding
/// (`exit`, a signal, a power cut): the target is untouched then, but the workspace, a dataset
/// named `TARGET-txn-ID`, and the base, `TARGET@txn-ID`, stay until
/// [`Zfs::recover`](crate::Zfs::recover) or the next begin on the target.
///
/// A transaction may be moved to another thread. Nothing stops several transactions on one target
/// from being open: the first one that commits wins, the others get a
/// [`Conflict`](crate::Conflict).
///
/// **After a fork** the transaction stays with the process that began or resumed it. The child's copy
/// does nothing when it is dropped, and refuses to commit, roll back or detach
/// ([`Step::CheckOwner`](crate::Step::CheckOwner)): to hand the transaction over, the parent detaches it
/// and the child [resumes](crate::Zfs::resume) it. As long as the child has the copy, it has the
/// workspace open as well, which keeps a rollback or a commit in place from removing the workspace: drop
/// the copy, or replace the child's program, which closes it.
#[derive(Debug)]
#[must_use = "dropping a transaction rolls it back"]
pub struct Transaction {
    stage: Stage,
    /// Whether the workspace is still there, to be rolled back on drop.
    open: bool,
    /// Says to recovery that this transaction has a living handle, and in which process.
    lease: Lease,
}

impl Transaction {
    /// Carries out the begin steps of an order; undoes them when one fails.
    pub(crate) fn begin(
        engine: Arc<dyn Engine>,
        order: Order,
        lease: Lease,
    ) -> Result<Self, BeginError> {
        let mut stage = Stage::new(engine, order);
        let steps = stage.order.plan.begin.clone();
        let mut done = Vec::new();
        match stage.run(&steps, &mut done) {
            Ok(()) => Ok(Self { stage, open: true, lease }),
            Err(stop) => {
                let errors = stage.undo(&done);
                stage.record_rollback(&errors);
                let stop = match stop {
                    Stop::Conflict(Conflict::Unmountable { dataset, path, reason })
                        if errors.is_empty() =>
                    {
                        return Err(BeginError::Unmountable { dataset, path, reason });
                    }
                    stop => stop,
                };
                let error = stop.into_error();
                let mut left = leftovers(&mut stage, &errors);
                left.extend(stage.doubtful(&error));
                match stage.shortage(&error) {
                    Some(Shortage { needed, missing }) if left.is_empty() => {
                        let target = stage.order.layout.target.clone();
                        Err(BeginError::NoRoomForSnapshot { target, needed, missing })
                    }
                    _ => Err(BeginError::Failed { error, left }),
                }
            }
        }
    }

    /// A transaction whose workspace is there and mounted.
    pub(crate) fn resumed(stage: Stage, lease: Lease) -> Self {
        Self { stage, open: true, lease }
    }

    /// The root directory of the workspace. Everything below it becomes the target's content. Of a
    /// volume: its block device, by a link.
    ///
    /// Only this user can reach it, and who was [let in](crate::TransactionBuilder::workspace_for); a
    /// device also whoever may open all block devices. Files may stay open across a commit by promote, and
    /// then belong to the target; a commit in place (also one by promote that goes over to that, see
    /// [`commit`](Self::commit)) and a rollback need them closed.
    ///
    /// Snapshots of the workspace, the caller's own included, don't come along: they are destroyed before
    /// a commit by promote, with the workspace in place, and by a rollback.
    ///
    /// The workspace is held open, so that it is not unmounted by accident (`umount`, `zfs unmount -a`,
    /// `zpool export`: busy). Where it is taken away all the same (`umount --lazy`), moved or covered,
    /// a commit or detach changes nothing and says so: what is written elsewhere is never published. Nor is
    /// what is written into the directory below removed: it stays, and is named among the leftovers.
    pub fn path(&self) -> &Path {
        &self.stage.order.private_path
    }

    /// Init or update, as it was found at begin.
    pub fn kind(&self) -> Kind {
        self.stage.order.record.kind
    }

    /// The dataset that this transaction is about.
    pub fn target(&self) -> &DatasetName {
        &self.stage.order.layout.target
    }

    /// What tells this transaction from all others.
    pub fn id(&self) -> TransactionId {
        self.stage.order.record.id
    }

    /// Has `callback` told how far the commit has come, from time to time and on the thread that
    /// commits. It says whether to go on: after a `Break`, [`commit`](Self::commit) fails with
    /// `ECANCELED` and hands the transaction back, unless the change is already visible.
    ///
    /// Only a commit [in place](crate::Strategy::InPlace) takes long enough to be told of; for all
    /// others this has no effect.
    pub fn on_progress(
        &mut self,
        callback: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static,
    ) {
        self.stage.on_progress = OnProgress::new(callback);
    }

    /// Makes the workspace's content the target's.
    ///
    /// **Commit point:** the rename of the workspace to the target's name, or, in place, the end of the
    /// receive: one txg. Before it,
    /// whatever fails is undone and the transaction handed back; after it, the commit goes on to
    /// the end. The ownership asked for is applied before it, in the workspace, so nobody sees the
    /// content without it.
    ///
    /// **Update by promote:** the workspace is promoted, if nothing was written to the target since begin; the
    /// target is renamed aside and the workspace renamed to the target's name. Then each mount of the
    /// target in this mount namespace is replaced, with the options and the propagation it had. A
    /// lookup of the mount point finds the old content or the new at every moment, on Linux 6.5 and
    /// later; [`Receipt::gap`] says so, or how long there was neither. Files that are open in the old
    /// content stay readable until they are closed, and keep the old content as a leftover if they are
    /// still open after a second: for no longer than that, in all, does a commit wait for what could as
    /// well be removed later. So do
    /// mounts in other mount namespaces, named in [`Receipt::mounted_elsewhere`], and what was written
    /// to the target after the check: it is found, kept, and named in [`Receipt::leftovers`].
    ///
    /// A snapshot of the target that was taken since begin would stay behind. Such a commit is made in place
    /// ([`Receipt::strategy`] tells), where Linux is 5.14 or later; before, it is a conflict.
    ///
    /// **Update in place:** what the workspace has changed is sent, and received into the target, by
    /// threads of this process that have ended when the call returns. The kernel refuses a target that
    /// was written to, in the txg in which the content is swapped (`dmu_recv_end_check`). Whoever reads
    /// the target waits for that moment; files that are open in it have the new content then, or `EIO`
    /// where they are gone.
    ///
    /// **A crash** (power, `SIGKILL`) before the commit point comes to the old content, after it to
    /// the new, when [`Zfs::recover`](crate::Zfs::recover) or the next begin on the target has
    /// finished the transaction. A boot before that mounts the old content or the new at the target's
    /// mount point, never both or neither.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] and [`CommitError::Unchanged`] hand the transaction back as it was
    /// before the call; so it is where the path has come to lead elsewhere than to the workspace, and in
    /// a forked child. [`CommitError::InDoubt`] names everything that a person needs to know.
    ///
    /// # Privileges
    /// As for [`TransactionBuilder::begin`](crate::TransactionBuilder::begin).
    pub fn commit(mut self) -> Result<Receipt, CommitError> {
        let span = tracing::info_span!("commit", target = %self.target(), id = %self.id());
        let _entered = span.enter();
        if let Err(error) = self.check_owner() {
            return Err(CommitError::Unchanged { error, transaction: Box::new(self) });
        }
        // From here on, a panic must not roll back what may be half committed.
        self.open = false;
        loop {
            let steps = self.stage.order.plan.commit.clone();
            let mut done = Vec::new();
            let ready = self.stage.start_afresh();
            let ended = ready.and_then(|()| self.stage.run(&steps, &mut done));
            let Err(stop) = ended else { return self.settle() };
            let errors = self.stage.undo(&done);
            match &stop {
                Stop::Conflict(conflict)
                    if errors.is_empty() && self.stage.can_go_over(conflict) =>
                {
                    if let Err(error) = self.stage.go_over() {
                        return Err(self.give_up(Stop::Failed(error), Vec::new()));
                    }
                }
                _ => return Err(self.give_up(stop, errors)),
            }
        }
    }

    /// Refuses in a process that was forked from the one that has the transaction.
    fn check_owner(&self) -> Result<(), StepError> {
        let Some(pid) = self.lease.elsewhere() else { return Ok(()) };
        let detail = Some(format!("process {pid} has it, which this one was forked from"));
        let subject = self.target().to_string();
        Err(StepError { step: Step::CheckOwner, subject, errno: Errno::PERM, detail })
    }

    /// Hands the transaction back, if the commit steps that were done could be undone.
    fn give_up(mut self, stop: Stop, mut errors: Vec<StepError>) -> CommitError {
        if errors.is_empty() {
            self.open = true;
            let replaced = || self.kind() == Kind::Update && self.stage.has_base() == Ok(false);
            let stop = match stop {
                // It failed because another commit came first.
                Stop::Failed(error) if replaced() => {
                    tracing::debug!(%error, "the target was replaced meanwhile");
                    Stop::Conflict(self.stage.replaced())
                }
                stop => stop,
            };
            let transaction = Box::new(self);
            return match stop {
                Stop::Failed(error) => CommitError::Unchanged { error, transaction },
                Stop::Conflict(conflict) => CommitError::Conflict { conflict, transaction },
            };
        }
        // Keep everything: a rollback on drop might destroy the only copy.
        errors.insert(0, stop.into_error());
        CommitError::InDoubt {
            id: self.id(),
            target: self.target().clone(),
            path: self.path().to_owned(),
            receipt: None,
            errors,
        }
    }

    /// Everything after the commit point. A step that fails doesn't stop those after it.
    fn settle(&mut self) -> Result<Receipt, CommitError> {
        // What is still in use then is left, and named: the caller is not to wait for others.
        let _budget = Budget::of(SETTLE);
        let steps = self.stage.order.plan.settle.clone();
        let mut errors: Vec<StepError> = Vec::new();
        for step in steps {
            // What could not be mounted yet has no other to stand in for it, and what still refuses
            // writes has to be put back: recovery tries again, as long as there is the record.
            let fenced = errors.iter().any(|error| error.step == Step::Unfence);
            let unmounted = self.kind() == Kind::Init && !errors.is_empty();
            let waits = step == Step::Conclude && (unmounted || fenced);
            if !waits {
                errors.extend(self.stage.finish(step).err());
            }
        }
        if self.stage.keeps_predecessor() {
            errors.extend(self.stage.finish(Step::ParkPredecessor).err());
        }
        let mounted_elsewhere = self.stage.mounted_elsewhere();
        let mounted_here_alone = self.stage.is_mounted_here_alone();
        let (overridden, leftovers) =
            (std::mem::take(&mut self.stage.overridden), std::mem::take(&mut self.stage.kept));
        let order = &self.stage.order;
        let receipt = Receipt {
            id: order.record.id,
            target: order.layout.target.clone(),
            guid: self.stage.target_guid(),
            kind: order.record.kind,
            strategy: order.record.strategy,
            base: self.stage.base(),
            final_snapshot: self.stage.final_snapshot(),
            mounted: std::mem::take(&mut self.stage.mounted),
            stale: std::mem::take(&mut self.stage.stale),
            gap: self.stage.gap,
            mounted_here_alone,
            mounted_elsewhere,
            workspace_snapshots: std::mem::take(&mut self.stage.workspace_snapshots),
            overridden,
            leftovers,
        };
        if errors.is_empty() {
            return Ok(receipt);
        }
        Err(CommitError::InDoubt {
            id: receipt.id,
            target: receipt.target.clone(),
            path: self.path().to_owned(),
            receipt: Some(Box::new(receipt)),
            errors,
        })
    }

    /// Gives up the handle and keeps the workspace, for [`Zfs::resume`](crate::Zfs::resume): in
    /// another process, or after a reboot. Its private mount is taken away. Recovery leaves a
    /// detached transaction alone.
    ///
    /// One txg. A crash leaves it interrupted or detached.
    ///
    /// # Errors
    /// The record could not be written, or [`path`](Self::path) has come to lead elsewhere than to the
    /// workspace. The transaction is handed back.
    ///
    /// # Privileges
    /// As for [`commit`](Self::commit).
    pub fn detach(mut self) -> Result<TransactionId, DetachError> {
        if let Err(error) = self.check_owner() {
            return Err(DetachError { error, transaction: Box::new(self) });
        }
        let mut record = self.stage.order.record.clone();
        (record.state, record.owner) = (State::Detached, None);
        // What is not in the workspace would be missing when it is resumed.
        if let Err(error) = self.stage.finish(Step::CheckWorkspace) {
            return Err(DetachError { error, transaction: Box::new(self) });
        }
        // Whoever resumes it mounts it at the same path.
        let unmounted = self.stage.finish(Step::Flush);
        let unmounted = unmounted.and_then(|()| self.stage.finish(Step::UnmountWorkspace));
        let written = unmounted.and_then(|()| {
            let written = self.stage.rewrite_record(record);
            written.map_err(|fault| self.stage.error(Step::Detach, fault))
        });
        if let Err(error) = written {
            // What could not be flushed is mounted still.
            if self.stage.root.is_none() {
                if let Err(error) = self.stage.finish(Step::MountWorkspace) {
                    tracing::warn!(%error, "the workspace could not be mounted again");
                }
            }
            return Err(DetachError { error, transaction: Box::new(self) });
        }
        self.open = false;
        Ok(self.id())
    }

    /// Removes the workspace and everything else that begin made. The target is untouched.
    ///
    /// # Errors
    /// Where something can't be removed, for example because a file in the workspace is open; or where
    /// something was written into the directory below the workspace, or beside it, which is never removed.
    /// The error lists what is left; all else is gone. In a forked child nothing is done.
    pub fn rollback(mut self) -> Result<(), RollbackError> {
        match self.check_owner() {
            Ok(()) => self.roll_back(),
            Err(error) => {
                Err(RollbackError { id: self.id(), left: Vec::new(), errors: vec![error] })
            }
        }
    }

    fn roll_back(&mut self) -> Result<(), RollbackError> {
        let span = tracing::info_span!("rollback", target = %self.target(), id = %self.id());
        let _entered = span.enter();
        self.open = false;
        self.stage.kept.clear();
        let mut done = self.stage.order.plan.begin.clone();
        // A commit may have failed to destroy it. The record stays as long as it is there.
        let mut errors: Vec<StepError> =
            self.stage.finish(Step::DestroyLook).err().into_iter().collect();
        done.retain(|step| errors.is_empty() || *step != Step::TakeBase);
        errors.extend(self.stage.undo(&done));
        self.stage.record_rollback(&errors);
        let left = leftovers(&mut self.stage, &errors);
        if errors.is_empty() && left.is_empty() {
            return Ok(());
        }
        Err(RollbackError { id: self.id(), left, errors })
    }
}

fn leftovers(stage: &mut Stage, errors: &[StepError]) -> Vec<Leftover> {
    let kept = std::mem::take(&mut stage.kept);
    errors.iter().filter_map(|error| stage.leftover(error)).chain(kept).collect()
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A forked child's copy is nothing to the transaction, which its parent has.
        if !self.open || self.lease.elsewhere().is_some() {
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
