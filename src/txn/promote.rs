//! The commit that swaps names: promote, two renames, and what comes after the commit point.

use crate::engine::{Facts, Fault, Known, Promotion};
use crate::errno::Errno;
use crate::error::Conflict;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::receipt::Guid;
use crate::txn::layout::Layout;
use crate::txn::outcome::HOLDS_CHANGES;
use crate::txn::plan::{GATE, Kind, MountpointGate, Step};
use crate::txn::stage::{Stage, Stop, snapshot_of};

impl Stage {
    /// Refuses a target that is not as it was at begin.
    pub(super) fn check_target(&mut self) -> Result<(), Stop> {
        let Layout { target, base, .. } = &self.order.layout;
        match self.conflict(target, base.as_str()) {
            Ok(None) => Ok(()),
            Ok(Some(conflict)) => Err(Stop::Conflict(conflict)),
            Err(fault) => Err(Stop::Failed(self.error(Step::CheckTarget, fault))),
        }
    }

    /// Whether the target, under the name `at`, is another one than at begin, or has got what a
    /// commit would drop. `base` is the base's full name by now.
    fn conflict(&self, at: &DatasetName, base: &str) -> Result<Option<Conflict>, Fault> {
        match self.conflict_if_there(at, base) {
            // Renamed away between two questions.
            Err(Fault { errno: Errno::NOENT, .. }) => Ok(Some(self.replaced())),
            result => result,
        }
    }

    fn replaced(&self) -> Conflict {
        Conflict::TargetReplaced { target: self.order.layout.target.clone() }
    }

    fn conflict_if_there(&self, at: &DatasetName, base: &str) -> Result<Option<Conflict>, Fault> {
        let target = || self.order.layout.target.clone();
        let facts = match self.engine.facts(at.as_str())? {
            Some(facts) if Some(facts.guid) == self.guids.target => facts,
            _ => return Ok(Some(self.replaced())),
        };
        if facts.children > 0 {
            let count = facts.children;
            return Ok(Some(Conflict::ChildrenAppeared { target: target(), count }));
        }
        let newer = self.engine.snapshots_since(at, base)?;
        if let Some(snapshot) = newer.into_iter().find(|name| !is_base_of_a_transaction(name)) {
            return Ok(Some(Conflict::NewerSnapshot { snapshot }));
        }
        match self.order.settings.as_ref() == Some(&self.engine.settings(at)?) {
            true => Ok(None),
            false => Ok(Some(Conflict::SettingsChanged { target: target() })),
        }
    }

    /// Promotes the workspace, if the target is still the head that it was cloned from and nobody
    /// has promoted another clone of it: of several commits, one gets past this.
    pub(super) fn promote(&mut self) -> Result<(), Stop> {
        let Layout { workspace, target, .. } = &self.order.layout;
        match self.promote_clone((workspace, self.guids.workspace), (target, self.guids.target)) {
            Err(fault) if fault.errno == Errno::STALE => Err(Stop::Conflict(self.replaced())),
            result => result.map_err(|fault| Stop::Failed(self.error(Step::Promote, fault))),
        }
    }

    pub(super) fn promote_back(&self) -> Result<(), Fault> {
        let Layout { workspace, target, .. } = &self.order.layout;
        self.promote_clone((target, self.guids.target), (workspace, self.guids.workspace))
    }

    /// Promotes a clone of the base; judges by the state when the call reports a failure. The
    /// head's own origin passes to the promoted clone, so it is the same both ways.
    fn promote_clone(
        &self,
        (clone, clone_guid): (&DatasetName, Option<Guid>),
        (head, head_guid): (&DatasetName, Option<Guid>),
    ) -> Result<(), Fault> {
        let unknown = || Fault::from(Errno::NOENT);
        let base = self.guids.base.ok_or_else(unknown)?;
        let promotion = Promotion {
            clone: Known { name: clone, guid: clone_guid.ok_or_else(unknown)? },
            head: Known { name: head, guid: head_guid.ok_or_else(unknown)? },
            head_origin: self.order.target_origin,
            base,
        };
        let Err(fault) = self.engine.promote(promotion) else { return Ok(()) };
        match self.engine.facts(head.as_str()) {
            Ok(Some(Facts { guid, origin: Some(origin), .. }))
                if Some(guid) == head_guid && origin == base =>
            {
                Ok(())
            }
            _ => Err(fault),
        }
    }

    /// Renames the target out of the way. A rename goes by name alone, and things may have happened
    /// since the check: so what was renamed is looked at again, where nobody else looks for it, and
    /// given its name back if it is not as at begin.
    pub(super) fn rename_aside(&mut self) -> Result<(), Stop> {
        let Layout { target, predecessor, workspace, base, .. } = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(Step::RenameAside, fault));
        self.rename(target, predecessor, self.guids.target).map_err(fail)?;
        let base = format!("{workspace}@{}", base.leaf());
        match self.conflict(predecessor, &base).map_err(fail)? {
            None => Ok(()),
            Some(conflict) => {
                self.engine.rename(predecessor, target).map_err(fail)?;
                Err(Stop::Conflict(conflict))
            }
        }
    }

    /// Renames; judges by the state when the call reports a failure.
    pub(super) fn rename(
        &self,
        from: &DatasetName,
        to: &DatasetName,
        guid: Option<Guid>,
    ) -> Result<(), Fault> {
        let Err(fault) = self.engine.rename(from, to) else {
            return Ok(());
        };
        match self.engine.facts(to.as_str()) {
            Ok(Some(facts)) if Some(facts.guid) == guid => Ok(()),
            _ => Err(fault),
        }
    }

    /// The commit point.
    pub(super) fn rename_into_place(&mut self) -> Result<(), Stop> {
        let Layout { workspace, target, .. } = &self.order.layout;
        match self.rename(workspace, target, self.guids.workspace) {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno == Errno::EXIST && self.order.kind == Kind::Init => {
                Err(Stop::Conflict(Conflict::TargetAppeared { target: target.clone() }))
            }
            Err(fault) => Err(Stop::Failed(self.error(Step::RenameIntoPlace, fault))),
        }
    }

    /// Destroys the predecessor, unless something was written to it since the base was taken.
    pub(super) fn destroy_predecessor(&self) -> Result<(), Fault> {
        let Layout { target, predecessor, base, .. } = &self.order.layout;
        let Some(guid) = self.guids.target else { return Ok(()) };
        let base = snapshot_of(target, base.leaf())?;
        // The last reader's end may write to it: look again, a few times.
        for _ in 0..4 {
            let result = match self.engine.written_since(predecessor, base.as_str())? {
                0 => self.engine.destroy_unchanged(predecessor.as_str(), guid, base.as_str()),
                _ => self.destroy_if_merely_read(guid, &base),
            };
            match result {
                Ok(_) => return Ok(()),
                Err(Fault { errno: Errno::TXTBSY, detail: None }) => {}
                Err(fault) => return self.gone(predecessor.as_str()).ok_or(fault),
            }
        }
        Err(Errno::TXTBSY.into())
    }

    /// Something was written to the predecessor, if only access times. What was, is compared in a
    /// snapshot, so that the destroy can demand that nothing at all was written after it: the number
    /// of bytes written is a sum, in which one change may hide another.
    fn destroy_if_merely_read(&self, guid: Guid, base: &SnapshotName) -> Result<bool, Fault> {
        let predecessor = &self.order.layout.predecessor;
        let look = snapshot_of(predecessor, base.leaf())?;
        self.engine.snapshot(&look)?;
        let look_guid = self.guid_of(look.as_str())?;
        let result = match self.engine.differs(&look, base) {
            Ok(false) => self.engine.destroy_unchanged(predecessor.as_str(), guid, look.as_str()),
            Ok(true) => Err(Fault { errno: Errno::TXTBSY, detail: Some(HOLDS_CHANGES.to_owned()) }),
            Err(fault) => Err(fault),
        };
        if result.is_err() {
            self.engine.destroy(look.as_str(), look_guid)?;
        }
        result
    }

    pub(super) fn restore_mountpoint(&self) -> Result<(), Fault> {
        let target = &self.order.layout.target;
        let guid = self.guids.workspace.ok_or(Errno::NOENT)?;
        match &self.order.gate {
            MountpointGate::Open => Ok(()),
            MountpointGate::Inherit => self.engine.inherit(target, guid, &["mountpoint", GATE]),
            MountpointGate::Set(path) => {
                if self.guid_of(target.as_str())? != guid {
                    return Err(Errno::STALE.into());
                }
                self.engine.set_mountpoint(target, path)?;
                self.engine.inherit(target, guid, &[GATE])
            }
        }
    }

    /// Destroys the base, wherever it is: other transactions' commits move it, also meanwhile.
    pub(super) fn destroy_base(&mut self) -> Result<(), Fault> {
        let Layout { target, base, .. } = &self.order.layout;
        let Some(guid) = self.guids.base else { return Ok(()) };
        let Some(parent) = target.parent() else { return Ok(()) };
        for _ in 0..4 {
            let here = self.engine.facts(base.as_str())?.is_some_and(|facts| facts.guid == guid);
            self.base_at = match here {
                true => Some(base.to_string()),
                false => self.engine.find_snapshot(&parent, base.leaf(), guid)?,
            };
            let Some(name) = &self.base_at else { return Ok(()) };
            match self.engine.destroy(name, guid) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) => self.gone(name).ok_or(fault)?,
            }
        }
        Err(Errno::BUSY.into())
    }
}

/// Whether a snapshot has the name of a transaction's base: it comes and goes with it.
fn is_base_of_a_transaction(name: &str) -> bool {
    name.rsplit_once("@txn-").is_some_and(|(_, id)| id.parse::<TransactionId>().is_ok())
}
