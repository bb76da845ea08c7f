//! Carries steps out: turns each step of the plan into one verb of the engine, and keeps account
//! of what was made, by guid.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{
    Engine, Facts, Fault, Known, Place, PreparedMount, Promotion, PropertyValue, Settings,
};
use crate::errno::Errno;
use crate::error::{Conflict, StepError};
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::{Guid, Keeps, Leftover, Snapshot};
use crate::txn::layout::Layout;
use crate::txn::plan::{GATE, Kind, MountpointGate, Plan, Step};

/// Why a step before the commit point was not done.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(StepError),
    Conflict(Conflict),
}

impl Stop {
    /// For steps at which a conflict is as bad as a failure.
    pub(crate) fn into_error(self) -> StepError {
        match self {
            Self::Failed(error) => error,
            Self::Conflict(conflict) => StepError {
                step: Step::CheckTarget,
                subject: conflict.to_string(),
                errno: Errno::EXIST,
                detail: None,
            },
        }
    }
}

/// The guids of what a transaction made or found, each recorded when it was made or found.
#[derive(Debug, Default)]
struct Guids {
    target: Option<Guid>,
    workspace: Option<Guid>,
    base: Option<Guid>,
    final_snapshot: Option<Guid>,
    parents: Vec<Option<Guid>>,
}

/// What a transaction is to do, decided at begin.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: TransactionId,
    pub(crate) kind: Kind,
    pub(crate) layout: Layout,
    pub(crate) plan: Plan,
    pub(crate) gate: MountpointGate,
    /// What the workspace is created with.
    pub(crate) properties: Vec<(String, PropertyValue)>,
    pub(crate) ownership: Option<Ids>,
    pub(crate) private_path: PathBuf,
    /// The target's guid, if it exists.
    pub(crate) target: Option<Guid>,
    /// The guid of the target's origin, if it is a clone.
    pub(crate) target_origin: Option<Guid>,
    /// The target's settings, which a commit must find unchanged.
    pub(crate) settings: Option<Settings>,
    /// What an init transaction creates and is to mount, parents first.
    pub(crate) new_mounts: Vec<DatasetName>,
}

/// A transaction's state: the order, and how far it has come.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) order: Order,
    engine: Arc<dyn Engine>,
    guids: Guids,
    /// Prepared mounts, by the name that the dataset has after the commit.
    prepared: Vec<(DatasetName, PreparedMount)>,
    /// Where the base was found, when another transaction's commit has moved it.
    base_at: Option<String>,
    pub(crate) mounted: Vec<PathBuf>,
}

impl Stage {
    pub(crate) fn new(engine: Arc<dyn Engine>, order: Order) -> Self {
        let guids = Guids {
            target: order.target,
            parents: vec![None; order.layout.missing_parents.len()],
            ..Guids::default()
        };
        Self { order, engine, guids, prepared: Vec::new(), base_at: None, mounted: Vec::new() }
    }

    /// What a step is about, for errors.
    fn subject(&self, step: Step) -> String {
        let layout = &self.order.layout;
        match step {
            Step::CreateParent(level) | Step::DestroyParent(level) => {
                layout.missing_parents.get(level).map(ToString::to_string).unwrap_or_default()
            }
            Step::DestroyBase if self.base_at.is_some() => self.base_at.clone().unwrap_or_default(),
            Step::TakeBase | Step::DestroyBase => layout.base.to_string(),
            Step::TakeFinal | Step::DestroyFinal => match &layout.final_leaf {
                Some(leaf) => format!("{}@{leaf}", layout.workspace),
                None => layout.workspace.to_string(),
            },
            Step::RenameAside | Step::DestroyPredecessor | Step::ParkPredecessor => {
                layout.predecessor.to_string()
            }
            Step::Look
            | Step::CheckTarget
            | Step::PrepareMounts
            | Step::RenameIntoPlace
            | Step::SwapMounts
            | Step::RestoreMountpoint
            | Step::DropMounts
            | Step::PromoteBack
            | Step::RenameBack => layout.target.to_string(),
            _ => layout.workspace.to_string(),
        }
    }

    fn error(&self, step: Step, fault: Fault) -> StepError {
        let Fault { errno, detail } = fault;
        StepError { step, subject: self.subject(step), errno, detail }
    }

    /// Carries `steps` out in order. What was done is added to `done`, a failed step included when
    /// its effect has come about all the same.
    pub(crate) fn run(&mut self, steps: &[Step], done: &mut Vec<Step>) -> Result<(), Stop> {
        for &step in steps {
            match self.apply(step) {
                Ok(()) => done.push(step),
                Err(stop) => {
                    if self.took_effect(step, &stop) {
                        done.push(step);
                    }
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    /// Undoes `done` in reverse. Goes on after a failure, so that as little as possible is left.
    pub(crate) fn undo(&mut self, done: &[Step]) -> Vec<StepError> {
        let inverses: Vec<Step> = done.iter().rev().filter_map(|step| step.inverse()).collect();
        inverses.into_iter().filter_map(|step| self.finish(step).err()).collect()
    }

    /// Carries out one step that can't be given up.
    pub(crate) fn finish(&mut self, step: Step) -> Result<(), StepError> {
        self.apply(step).map_err(Stop::into_error)
    }

    fn apply(&mut self, step: Step) -> Result<(), Stop> {
        let span = tracing::debug_span!("step", ?step, subject = %self.subject(step));
        let _entered = span.enter();
        let result = self.carry_out(step);
        if let Err(Stop::Failed(error)) = &result {
            tracing::debug!(%error, "step failed");
        }
        result
    }

    fn carry_out(&mut self, step: Step) -> Result<(), Stop> {
        let engine = Arc::clone(&self.engine);
        let order = &self.order;
        let layout = &order.layout;
        let result = match step {
            Step::Look => Ok(()),
            Step::CopyPermissions => engine.copy_permissions(&layout.target, &layout.workspace),
            Step::CreateParent(level) => match layout.missing_parents.get(level).cloned() {
                Some(parent) => engine.create(&parent, &[]).and_then(|()| {
                    let guid = self.guid_of(parent.as_str())?;
                    self.guids.parents[level] = Some(guid);
                    Ok(())
                }),
                None => Ok(()),
            },
            Step::CreateWorkspace => engine
                .create(&layout.workspace, &order.properties)
                .and_then(|()| self.record_workspace()),
            Step::TakeBase => engine.snapshot(&layout.base).and_then(|()| {
                self.guids.base = Some(self.guid_of(self.order.layout.base.as_str())?);
                Ok(())
            }),
            Step::CloneWorkspace => engine
                .clone_snapshot(&layout.workspace, &layout.base, &order.properties)
                .and_then(|()| self.record_workspace()),
            Step::MountWorkspace => engine.mount_private(&layout.workspace, &order.private_path),
            Step::SetOwnership => match &order.ownership {
                Some(ids) => engine.set_ownership(&order.private_path, ids),
                None => Ok(()),
            },
            Step::Flush => engine.flush(&order.private_path),
            Step::TakeFinal => self.take_final(),
            Step::PrepareMounts => return self.prepare_mounts(),
            Step::CheckTarget => return self.check_target(),
            Step::Promote => return self.promote(),
            Step::RenameAside => return self.rename_aside(),
            Step::RenameIntoPlace => return self.rename_into_place(),
            Step::SwapMounts => self.swap_mounts(),
            Step::UnmountWorkspace => engine.unmount_private(&order.private_path),
            Step::DestroyPredecessor => self.destroy_predecessor(),
            Step::ParkPredecessor => engine.keep_from_boot_mounts(&layout.predecessor),
            Step::RestoreMountpoint => self.restore_mountpoint(),
            Step::DestroyBase => self.destroy_base(),
            Step::DropMounts => {
                self.prepared.clear();
                Ok(())
            }
            Step::DestroyFinal => match &layout.final_leaf {
                Some(leaf) => {
                    self.destroy(&format!("{}@{leaf}", layout.workspace), self.guids.final_snapshot)
                }
                None => Ok(()),
            },
            Step::PromoteBack => self.promote_back(),
            Step::RenameBack => self.rename(&layout.predecessor, &layout.target, self.guids.target),
            Step::DestroyWorkspace => self.destroy(layout.workspace.as_str(), self.guids.workspace),
            Step::DestroyParent(level) => match layout.missing_parents.get(level) {
                Some(parent) => {
                    self.destroy(parent.as_str(), self.guids.parents.get(level).copied().flatten())
                }
                None => Ok(()),
            },
        };
        result.map_err(|fault| Stop::Failed(self.error(step, fault)))
    }

    /// The guid of something that was just made.
    fn guid_of(&self, name: &str) -> Result<Guid, Fault> {
        Ok(self.engine.facts(name)?.ok_or(Errno::NOENT)?.guid)
    }

    fn record_workspace(&mut self) -> Result<(), Fault> {
        self.guids.workspace = Some(self.guid_of(self.order.layout.workspace.as_str())?);
        Ok(())
    }

    /// Whether a step that reported an error has had its effect all the same, and is to be undone.
    ///
    /// Where it makes something, the name has this transaction's random id in it, or is a name in
    /// the private workspace: unless the error says that it was there before, it is ours.
    fn took_effect(&mut self, step: Step, stop: &Stop) -> bool {
        let existed = matches!(stop, Stop::Failed(StepError { errno: Errno::EXIST, .. }));
        let name = self.subject(step);
        let slot = match step {
            Step::CreateWorkspace | Step::CloneWorkspace => &mut self.guids.workspace,
            Step::TakeBase => &mut self.guids.base,
            Step::TakeFinal => &mut self.guids.final_snapshot,
            // The private mount may be half made; unmounting what isn't mounted does nothing.
            Step::MountWorkspace => return true,
            Step::RenameAside => {
                let renamed = self.engine.facts(&name).ok().flatten().map(|facts| facts.guid);
                return renamed.is_some() && renamed == self.guids.target;
            }
            _ => return false,
        };
        if slot.is_none() && !existed {
            *slot = self.engine.facts(&name).ok().flatten().map(|facts| facts.guid);
        }
        slot.is_some()
    }

    /// What may be there although making it was reported as failed: a parent, which may as well be
    /// somebody else's and so is not destroyed (I5), or something that could not be looked at.
    pub(crate) fn doubtful(&self, error: &StepError) -> Option<Leftover> {
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

    fn take_final(&mut self) -> Result<(), Fault> {
        let Some(leaf) = &self.order.layout.final_leaf else {
            return Ok(());
        };
        let name = snapshot_of(&self.order.layout.workspace, leaf)?;
        self.engine.snapshot(&name)?;
        self.guids.final_snapshot = Some(self.guid_of(name.as_str())?);
        Ok(())
    }

    /// Makes the mounts that the target will have: one for each it has now, or those of an init.
    fn prepare_mounts(&mut self) -> Result<(), Stop> {
        let layout = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(Step::PrepareMounts, fault));
        let mut prepared = Vec::new();
        for dataset in &self.order.new_mounts {
            let now = if *dataset == layout.target { &layout.workspace } else { dataset };
            let options = self.engine.mount_options(now).map_err(fail)?;
            let place = Place { replaces: None, path: PathBuf::new(), options };
            let mount = self.engine.prepare_mount(now, place).map_err(fail)?;
            prepared.push((dataset.clone(), mount));
        }
        if self.order.kind == Kind::Update {
            for place in self.engine.places(&layout.target).map_err(fail)? {
                if let Some(path) = self.engine.mounts_on(&place).map_err(fail)?.first() {
                    let path = path.display().to_string();
                    return Err(Stop::Conflict(Conflict::MountBelow { path }));
                }
                let mount = self.engine.prepare_mount(&layout.workspace, place).map_err(fail)?;
                prepared.push((layout.target.clone(), mount));
            }
        }
        self.prepared = prepared;
        Ok(())
    }

    /// Refuses a target that is not as it was at begin.
    fn check_target(&mut self) -> Result<(), Stop> {
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
    fn promote(&mut self) -> Result<(), Stop> {
        let Layout { workspace, target, .. } = &self.order.layout;
        match self.promote_clone((workspace, self.guids.workspace), (target, self.guids.target)) {
            Err(fault) if fault.errno == Errno::STALE => Err(Stop::Conflict(self.replaced())),
            result => result.map_err(|fault| Stop::Failed(self.error(Step::Promote, fault))),
        }
    }

    fn promote_back(&self) -> Result<(), Fault> {
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
                if Some(guid) == head_guid && origin.guid == base =>
            {
                Ok(())
            }
            _ => Err(fault),
        }
    }

    /// Renames the target out of the way. A rename goes by name alone, and things may have happened
    /// since the check: so what was renamed is looked at again, where nobody else looks for it, and
    /// given its name back if it is not as at begin.
    fn rename_aside(&mut self) -> Result<(), Stop> {
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
    fn rename(
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
    fn rename_into_place(&mut self) -> Result<(), Stop> {
        let Layout { workspace, target, .. } = &self.order.layout;
        match self.rename(workspace, target, self.guids.workspace) {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno == Errno::EXIST && self.order.kind == Kind::Init => {
                Err(Stop::Conflict(Conflict::TargetAppeared { target: target.clone() }))
            }
            Err(fault) => Err(Stop::Failed(self.error(Step::RenameIntoPlace, fault))),
        }
    }

    /// Attaches each prepared mount; the first that fails is reported when all were tried.
    fn swap_mounts(&mut self) -> Result<(), Fault> {
        let mut first = Ok(());
        for (dataset, mut prepared) in std::mem::take(&mut self.prepared) {
            if prepared.place.replaces.is_none() {
                // ZFS knows the path, an alternate root of the pool included.
                match self.engine.facts(dataset.as_str()) {
                    Ok(Some(facts)) if facts.mountpoint.starts_with('/') => {
                        prepared.place.path = facts.mountpoint.into();
                    }
                    Ok(_) => continue,
                    Err(fault) => {
                        first = first.and(Err(fault));
                        continue;
                    }
                }
            }
            let path = prepared.place.path.clone();
            match self.engine.attach(prepared) {
                Ok(true) => self.mounted.push(path),
                Ok(false) => {}
                Err(mut fault) => {
                    fault.detail.get_or_insert_with(|| format!("mount point {}", path.display()));
                    first = first.and(Err(fault));
                }
            }
        }
        first
    }

    /// Destroys the predecessor, unless something was written to it since the base was taken.
    fn destroy_predecessor(&self) -> Result<(), Fault> {
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

    fn restore_mountpoint(&self) -> Result<(), Fault> {
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
    fn destroy_base(&mut self) -> Result<(), Fault> {
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

    /// Destroys what has this name and guid; judges by the state when the call reports a failure.
    fn destroy(&self, name: &str, guid: Option<Guid>) -> Result<(), Fault> {
        let Some(guid) = guid else { return Ok(()) };
        let Err(fault) = self.engine.destroy(name, guid) else { return Ok(()) };
        self.gone(name).ok_or(fault)
    }

    /// Whether nothing has this name any more.
    fn gone(&self, name: &str) -> Option<()> {
        matches!(self.engine.facts(name), Ok(None)).then_some(())
    }

    pub(crate) fn workspace_guid(&self) -> Guid {
        self.guids.workspace.unwrap_or(Guid(0))
    }

    pub(crate) fn base(&self) -> Option<Snapshot> {
        let name = self.order.layout.base.clone();
        self.guids.base.map(|guid| Snapshot { name, guid })
    }

    pub(crate) fn final_snapshot(&self) -> Option<Snapshot> {
        let leaf = self.order.layout.final_leaf.as_ref()?;
        let name = snapshot_of(&self.order.layout.target, leaf).ok()?;
        self.guids.final_snapshot.map(|guid| Snapshot { name, guid })
    }

    /// The leftover that a failed step leaves; `None` where it leaves nothing.
    pub(crate) fn leftover(&self, error: &StepError) -> Option<Leftover> {
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
}

/// What a kept predecessor says of itself.
const HOLDS_CHANGES: &str =
    "it keeps what was written to the target while the transaction was open";

fn snapshot_of(dataset: &DatasetName, leaf: &str) -> Result<SnapshotName, Fault> {
    dataset.snapshot(leaf).map_err(|_| Errno::INVAL.into())
}

/// Whether a snapshot has the name of a transaction's base: it comes and goes with it.
fn is_base_of_a_transaction(name: &str) -> bool {
    name.rsplit_once("@txn-").is_some_and(|(_, id)| id.parse::<TransactionId>().is_ok())
}
