//! Looks anew, in a commit, at what begin has refused targets for: somebody may have brought the target
//! into such a state meanwhile.

use crate::engine::{Fault, Settings};
use crate::errno::Errno;
use crate::error::Conflict;
use crate::name::DatasetName;
use crate::refusal::{Refusal, Role, refusal};
use crate::txn::plan::Kind;
use crate::txn::stage::{Stage, snapshot_of};

impl Stage {
    /// What begin would refuse by now: of the target, or of the dataset above it where the target is to be
    /// created. A target that is gone or replaced is found by later steps.
    pub(super) fn refused(&self) -> Result<Option<Conflict>, Fault> {
        let target = &self.order.layout.target;
        let found = match self.order.record.kind {
            Kind::Init => self.parent_refused(target),
            Kind::Update => self.look_anew(target).map(Result::err),
        };
        match found {
            Ok(Some(Conflict::TargetReplaced { .. })) => Ok(None),
            Err(Fault { errno: Errno::NOENT, .. }) => Ok(None),
            found => found,
        }
    }

    /// Looks at the old target once more, under the name `at`: its settings, or the conflict.
    pub(super) fn look_anew(&self, at: &DatasetName) -> Result<Result<Settings, Conflict>, Fault> {
        let settings = self.engine.settings(at)?;
        // The guid is asked for last. Another commit that takes the name away never gives it back, so the
        // settings are those of the dataset with this guid.
        let facts = match self.engine.facts(at.as_str())? {
            Some(facts) if Some(facts.guid) == self.order.record.target_guid => facts,
            _ => return Ok(Err(self.replaced())),
        };
        // By promote, a snapshot of that name is newer than the base, and stays with the predecessor.
        let leaf = self.order.layout.final_leaf.as_ref().filter(|_| self.order.is_in_place());
        let taken = match leaf {
            Some(leaf) => {
                let name = snapshot_of(at, leaf)?;
                self.engine.facts(name.as_str())?.map(|_| name)
            }
            None => None,
        };
        let strategy = self.order.record.strategy;
        let role = Role::Target { strategy, fenced: self.fenced, taken: taken.as_ref() };
        Ok(match refusal(&facts, &settings, role) {
            Some(refusal) => Err(refusal.meanwhile(self.order.layout.target.clone())),
            None => Ok(settings),
        })
    }

    /// Whether the promote has made the workspace an encryption root: the target had become one just
    /// before. Promoted back, the target has its root and its loaded key again.
    pub(super) fn has_own_root(&self, workspace: &DatasetName) -> Result<Option<Conflict>, Fault> {
        let rooted = self.engine.settings(workspace)?.encryption_root;
        let target = self.order.layout.target.clone();
        Ok(rooted.then_some(Conflict::Refused { target, refusal: Refusal::EncryptionRoot }))
    }

    fn parent_refused(&self, target: &DatasetName) -> Result<Option<Conflict>, Fault> {
        let Some(parent) = target.parent() else { return Ok(None) };
        let settings = self.engine.settings(&parent)?;
        let Some(facts) = self.engine.facts(parent.as_str())? else { return Ok(None) };
        Ok(refusal(&facts, &settings, Role::Parent).map(|refusal| refusal.meanwhile(parent)))
    }
}
