//! What a transaction tells of its end: guids, snapshots, and what is left.

use crate::engine::{Fault, Shortage, SnapshotId};
use crate::errno::Errno;
use crate::error::{Conflict, StepError};
use crate::receipt::{ElsewhereMount, Guid, Keeps, Leftover, Snapshot};
use crate::txn::plan::Step;
use crate::txn::stage::{Stage, snapshot_of};

/// What a kept predecessor says of itself.
pub(super) const HOLDS_CHANGES: &str =
    "it keeps what was written to the target while the transaction was open";

impl Stage {
    /// The guid of what has the target's name after the commit.
    pub(super) fn target_guid(&self) -> Guid {
        let guid = match self.order.is_in_place() {
            true => self.order.record.target_guid,
            false => self.guids.workspace,
        };
        guid.unwrap_or(Guid(0))
    }

    pub(super) fn base(&self) -> Option<Snapshot> {
        let name = self.order.layout.base.clone();
        self.guids.base.map(|base| Snapshot { name, guid: base.guid })
    }

    pub(super) fn final_snapshot(&self) -> Option<Snapshot> {
        let leaf = self.order.layout.final_leaf.as_ref()?;
        let name = snapshot_of(&self.order.layout.target, leaf).ok()?;
        self.guids.final_snapshot.map(|guid| Snapshot { name, guid })
    }

    /// Whether the target's `refreservation` has left no room for the base.
    pub(super) fn shortage(&self, error: &StepError) -> Option<Shortage> {
        let target = &self.order.layout.target;
        let is_it = error.step == Step::TakeBase && error.errno == Errno::NOSPC;
        is_it.then(|| self.engine.shortage(target).ok().flatten()).flatten()
    }

    /// The leftover that a failed step leaves; `None` where it leaves nothing.
    pub(super) fn leftover(&self, error: &StepError) -> Option<Leftover> {
        let guid = match error.step {
            Step::DestroyBase => self.guids.base.map(|base| base.guid),
            Step::DestroyFinal => self.guids.final_snapshot,
            Step::DestroyLook => self.look.map(|look| look.guid),
            Step::DestroyWorkspace => self.guids.workspace,
            Step::DestroyParent(level) => self.guids.parents.get(level).copied().flatten(),
            Step::UnmountWorkspace => None,
            _ => return None,
        };
        let name = match error.step {
            Step::UnmountWorkspace => self.order.private_path.display().to_string(),
            _ => error.subject.clone(),
        };
        let guid = guid.unwrap_or(Guid(0));
        Some(Leftover { name, guid, reason: error.why(), keeps: Keeps::Nothing })
    }

    /// Takes note that the predecessor stays, and the base, which it is a clone of.
    pub(super) fn keep_predecessor(&mut self, reason: Fault) {
        let changed = reason.detail.as_deref() == Some(HOLDS_CHANGES);
        if changed && self.order.record.overwrite && self.overridden.is_empty() {
            let target = self.order.layout.target.clone();
            self.overridden.push(Conflict::Modified { target });
        }
        let (keeps, reason) = match changed {
            true => (Keeps::Changes, HOLDS_CHANGES.to_owned()),
            false => (Keeps::Unknown, self.error(Step::DestroyPredecessor, reason).why()),
        };
        let name = self.order.layout.predecessor.to_string();
        let guid = self.order.record.target_guid.unwrap_or(Guid(0));
        self.kept.push(Leftover { name, guid, reason, keeps });
        let reason = "the predecessor is a clone of it; it has the record of this commit";
        self.keep_base_because(reason.to_owned());
    }

    pub(super) fn keep_base(&mut self, errno: Errno) {
        let reason = self.error(Step::DestroyBase, errno.into()).why();
        self.keep_base_because(reason);
    }

    fn keep_base_because(&mut self, reason: String) {
        let Some(SnapshotId { guid, .. }) = self.guids.base else { return };
        let name = self.base_at.clone().unwrap_or_else(|| self.order.layout.base.to_string());
        self.kept.push(Leftover { name, guid, reason, keeps: Keeps::Nothing });
    }

    /// Whether the predecessor stays beside the target.
    pub(super) fn keeps_predecessor(&self) -> bool {
        let predecessor = self.order.layout.predecessor.as_str();
        self.kept.iter().any(|leftover| leftover.name == predecessor)
    }

    /// Where the predecessor is mounted still. One that was destroyed was mounted nowhere.
    pub(super) fn mounted_elsewhere(&self) -> Vec<ElsewhereMount> {
        if !self.keeps_predecessor() {
            return Vec::new();
        }
        let found = self.engine.mounted_anywhere(&self.order.layout.predecessor);
        found.unwrap_or_else(|fault| {
            tracing::warn!(?fault, "it is not known where the old content is mounted");
            Vec::new()
        })
    }

    /// What may be there although making it was reported as failed: a parent, which may as well be
    /// somebody else's and so is not destroyed (I5), or something that could not be looked at.
    pub(super) fn doubtful(&self, error: &StepError) -> Option<Leftover> {
        let facts = self.engine.facts(&error.subject);
        let (guid, reason) = match (error.step, facts) {
            (Step::CreateParent(_), Ok(Some(facts))) => (
                facts.guid,
                "it was created by this transaction, or by somebody else at the same moment",
            ),
            (
                Step::CreateParent(_)
                | Step::CreateWorkspace
                | Step::CloneWorkspace
                | Step::TakeBase,
                Err(_),
            ) => (Guid(0), "it could not be looked at, and may be there"),
            _ => return None,
        };
        let (name, reason) = (error.subject.clone(), reason.to_owned());
        Some(Leftover { name, guid, reason, keeps: Keeps::Nothing })
    }
}
