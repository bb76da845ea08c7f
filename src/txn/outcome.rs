//! What a transaction tells of its end: guids, snapshots, and what is left.

use crate::error::StepError;
use crate::receipt::{Guid, Keeps, Leftover, Snapshot};
use crate::txn::plan::Step;
use crate::txn::stage::{Stage, snapshot_of};

/// What a kept predecessor says of itself.
pub(super) const HOLDS_CHANGES: &str =
    "it keeps what was written to the target while the transaction was open";

impl Stage {
    pub(super) fn workspace_guid(&self) -> Guid {
        self.guids.workspace.unwrap_or(Guid(0))
    }

    pub(super) fn base(&self) -> Option<Snapshot> {
        let name = self.order.layout.base.clone();
        self.guids.base.map(|guid| Snapshot { name, guid })
    }

    pub(super) fn final_snapshot(&self) -> Option<Snapshot> {
        let leaf = self.order.layout.final_leaf.as_ref()?;
        let name = snapshot_of(&self.order.layout.target, leaf).ok()?;
        self.guids.final_snapshot.map(|guid| Snapshot { name, guid })
    }

    /// The leftover that a failed step leaves; `None` where it leaves nothing.
    pub(super) fn leftover(&self, error: &StepError) -> Option<Leftover> {
        let guid = match error.step {
            Step::DestroyPredecessor => self.guids.target,
            Step::DestroyBase => self.guids.base,
            Step::DestroyFinal => self.guids.final_snapshot,
            Step::DestroyWorkspace => self.guids.workspace,
            Step::DestroyParent(level) => self.guids.parents.get(level).copied().flatten(),
            Step::UnmountWorkspace => None,
            _ => return None,
        };
        let holds_changes = error.detail.as_deref() == Some(HOLDS_CHANGES);
        let keeps = match error.step {
            Step::DestroyPredecessor if holds_changes => Keeps::Changes,
            Step::DestroyPredecessor => Keeps::Unknown,
            _ => Keeps::Nothing,
        };
        let name = match error.step {
            Step::UnmountWorkspace => self.order.private_path.display().to_string(),
            _ => error.subject.clone(),
        };
        let reason = if holds_changes { HOLDS_CHANGES.to_owned() } else { error.why() };
        Some(Leftover { name, guid: guid.unwrap_or(Guid(0)), reason, keeps })
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
