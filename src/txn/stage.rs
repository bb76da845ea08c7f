//! Carries steps out: turns each step of the plan into one verb of the engine, and keeps account
//! of what was made, by guid.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Engine, Facts, Fault, Known, Place, PreparedMount, Promotion, PropertyValue};
use crate::errno::Errno;
use crate::error::{Conflict, StepError};
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::{Guid, Leftover, Snapshot};
use crate::txn::layout::Layout;
use crate::txn::plan::{Kind, MountpointGate, Plan, Step};

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
    /// Where an init transaction mounts what it created, parents first.
    pub(crate) new_places: Vec<(DatasetName, PathBuf)>,
}

/// A transaction's state: the order, and how far it has come.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) order: Order,
    engine: Arc<dyn Engine>,
    guids: Guids,
    prepared: Vec<PreparedMount>,
    /// Where the base was when the workspace was destroyed.
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
            Step::DestroyWorkspace => self.destroy_workspace(),
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
            _ => return false,
        };
        if slot.is_none() && !existed {
            *slot = self.engine.facts(&name).ok().flatten().map(|facts| facts.guid);
        }
        slot.is_some()
    }

    /// A parent that is there although creating it was reported as failed. It may be somebody
    /// else's, so it is not destroyed (I5), but named.
    pub(crate) fn doubtful_parent(&self, error: &StepError) -> Option<Leftover> {
        let Step::CreateParent(_) = error.step else { return None };
        let guid = self.engine.facts(&error.subject).ok()??.guid;
        let reason = "it was created by this transaction, or by somebody else at the same moment";
        Some(Leftover {
            name: error.subject.clone(),
            guid,
            reason: reason.to_owned(),
            holds_changes: false,
        })
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
        let step = Step::PrepareMounts;
        let layout = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(step, fault));
        let mut prepared = Vec::new();
        match self.order.kind {
            Kind::Init => {
                for (dataset, path) in &self.order.new_places {
                    let dataset =
                        if *dataset == layout.target { &layout.workspace } else { dataset };
                    let options = self.engine.mount_options(dataset).map_err(fail)?;
                    let place = Place { replaces: None, path: path.clone(), options };
                    prepared.push(self.engine.prepare_mount(dataset, place).map_err(fail)?);
                }
            }
            Kind::Update => {
                for place in self.engine.places(&layout.target).map_err(fail)? {
                    if let Some(path) =
                        self.engine.mounts_on(&place).map_err(fail)?.into_iter().next()
                    {
                        let path = path.display().to_string();
                        return Err(Stop::Conflict(Conflict::MountBelow { path }));
                    }
                    prepared
                        .push(self.engine.prepare_mount(&layout.workspace, place).map_err(fail)?);
                }
            }
        }
        self.prepared = prepared;
        Ok(())
    }

    /// Refuses a target that is not the one of begin, or that has got what a commit would drop.
    fn check_target(&mut self) -> Result<(), Stop> {
        let fail = |fault| Stop::Failed(self.error(Step::CheckTarget, fault));
        let target = self.order.layout.target.clone();
        let replaced = || Stop::Conflict(Conflict::TargetReplaced { target: target.clone() });
        let facts = self.engine.facts(target.as_str()).map_err(fail)?.ok_or_else(replaced)?;
        let base = self.guids.base.ok_or_else(|| fail(Errno::NOENT.into()))?;
        let workspace = self.engine.facts(self.order.layout.workspace.as_str()).map_err(fail)?;
        let origin = workspace.filter(|w| Some(w.guid) == self.guids.workspace);
        let origin = origin.and_then(|workspace| workspace.origin).map(|origin| origin.guid);
        if Some(facts.guid) != self.guids.target || origin != Some(base) {
            return Err(replaced());
        }
        if facts.children > 0 {
            let count = facts.children;
            return Err(Stop::Conflict(Conflict::ChildrenAppeared { target, count }));
        }
        let newer = self.engine.snapshots_since(&target, base).map_err(fail)?;
        match newer.into_iter().find(|name| !is_base_of_a_transaction(name)) {
            Some(snapshot) => Err(Stop::Conflict(Conflict::NewerSnapshot { snapshot })),
            None => Ok(()),
        }
    }

    /// Promotes the workspace, if the target is still the head that it was cloned from and nobody
    /// has promoted another clone of it: of several commits, one gets past this.
    fn promote(&mut self) -> Result<(), Stop> {
        let Layout { workspace, target, .. } = &self.order.layout;
        match self.promote_clone((workspace, self.guids.workspace), (target, self.guids.target)) {
            Err(fault) if fault.errno == Errno::STALE => {
                Err(Stop::Conflict(Conflict::TargetReplaced { target: target.clone() }))
            }
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

    /// Renames the target out of the way. A rename goes by name alone, so what was renamed is looked
    /// at, and given its name back when it is not the target of begin.
    fn rename_aside(&mut self) -> Result<(), Stop> {
        let Layout { target, predecessor, .. } = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(Step::RenameAside, fault));
        self.rename(target, predecessor, self.guids.target).map_err(fail)?;
        let renamed = self.engine.facts(predecessor.as_str()).ok().flatten().map(|f| f.guid);
        if renamed.is_none() || renamed == self.guids.target {
            return Ok(());
        }
        self.engine.rename(predecessor, target).map_err(fail)?;
        Err(Stop::Conflict(Conflict::TargetReplaced { target: target.clone() }))
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
        for prepared in std::mem::take(&mut self.prepared) {
            let path = prepared.place.path.clone();
            match self.engine.attach(prepared) {
                Ok(()) => self.mounted.push(path),
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
        let base = format!("{target}@{}", base.leaf());
        // Comparing mounts the predecessor, and the last reader's end may write to it: look again.
        for _ in 0..4 {
            let written = self.engine.written_since(predecessor, &base)?;
            if written > 0 && self.engine.differs(predecessor, &base)? {
                break;
            }
            match self.engine.destroy_unchanged(predecessor.as_str(), guid, &base, written) {
                Err(Fault { errno: Errno::TXTBSY, .. }) => {}
                Err(fault) => return self.gone(predecessor.as_str()).ok_or(fault),
                Ok(()) => return Ok(()),
            }
        }
        Err(Fault { errno: Errno::TXTBSY, detail: Some(HOLDS_CHANGES.to_owned()) })
    }

    /// Destroys the workspace, and remembers where its base is by then: another transaction's commit
    /// may have moved it.
    fn destroy_workspace(&mut self) -> Result<(), Fault> {
        let workspace = self.order.layout.workspace.as_str();
        let facts = self.engine.facts(workspace)?;
        let guid = self.guids.workspace;
        if let Some(Facts { origin: Some(origin), .. }) = facts.filter(|f| Some(f.guid) == guid) {
            self.base_at = Some(origin.name);
        }
        self.destroy(workspace, guid)
    }

    fn restore_mountpoint(&self) -> Result<(), Fault> {
        let target = &self.order.layout.target;
        match (&self.order.gate, self.guids.workspace) {
            (MountpointGate::Open, _) => Ok(()),
            (MountpointGate::Inherit, Some(guid)) => self.engine.inherit_mountpoint(target, guid),
            (MountpointGate::Inherit, None) => Err(Errno::NOENT.into()),
            (MountpointGate::Set(path), _) => self.engine.set_mountpoint(target, path),
        }
    }

    /// Destroys the base, wherever it is by now.
    fn destroy_base(&self) -> Result<(), Fault> {
        let Some(guid) = self.guids.base else { return Ok(()) };
        let base = self.order.layout.base.to_string();
        self.destroy(self.base_at.as_ref().unwrap_or(&base), Some(guid))
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
        let name = match error.step {
            Step::UnmountWorkspace => self.order.private_path.display().to_string(),
            _ => error.subject.clone(),
        };
        let reason = if holds_changes { HOLDS_CHANGES.to_owned() } else { error.why() };
        Some(Leftover { name, guid: guid.unwrap_or(Guid(0)), reason, holds_changes })
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
