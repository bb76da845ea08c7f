//! Carries steps out: turns each step of the plan into one verb of the engine, and keeps account
//! of what was made, by guid.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Engine, Fault, Place, PreparedMount, PropertyValue, Settings};
use crate::errno::Errno;
use crate::error::{Conflict, StepError};
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::ownership::Ids;
use crate::receipt::Guid;
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
pub(super) struct Guids {
    pub(super) target: Option<Guid>,
    pub(super) workspace: Option<Guid>,
    pub(super) base: Option<Guid>,
    pub(super) final_snapshot: Option<Guid>,
    pub(super) parents: Vec<Option<Guid>>,
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
    pub(super) engine: Arc<dyn Engine>,
    pub(super) guids: Guids,
    /// Prepared mounts, by the name that the dataset has after the commit.
    pub(super) prepared: Vec<(DatasetName, PreparedMount)>,
    /// Where the base was found last: another transaction's commit may have moved it.
    pub(super) base_at: Option<String>,
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
            Step::TakeBase => layout.base.to_string(),
            Step::DestroyBase => self.base_at.clone().unwrap_or_else(|| layout.base.to_string()),
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

    pub(super) fn error(&self, step: Step, fault: Fault) -> StepError {
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
    pub(super) fn guid_of(&self, name: &str) -> Result<Guid, Fault> {
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

    /// Destroys what has this name and guid; judges by the state when the call reports a failure.
    pub(super) fn destroy(&self, name: &str, guid: Option<Guid>) -> Result<(), Fault> {
        let Some(guid) = guid else { return Ok(()) };
        let Err(fault) = self.engine.destroy(name, guid) else { return Ok(()) };
        self.gone(name).ok_or(fault)
    }

    /// Whether nothing has this name any more.
    pub(super) fn gone(&self, name: &str) -> Option<()> {
        matches!(self.engine.facts(name), Ok(None)).then_some(())
    }
}

pub(super) fn snapshot_of(dataset: &DatasetName, leaf: &str) -> Result<SnapshotName, Fault> {
    dataset.snapshot(leaf).map_err(|_| Errno::INVAL.into())
}
