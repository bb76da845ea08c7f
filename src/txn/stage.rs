//! Carries steps out: turns each step of the plan into one verb of the engine, and keeps account
//! of what was made, by guid.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    Attached, Difference, Engine, Entry, Fault, MARK, Place, PreparedMount, Private, PropertyValue,
    Scope, SnapshotId,
};
use crate::errno::Errno;
use crate::error::{Conflict, StepError};
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::owner::Owner;
use crate::receipt::{Guid, Leftover, Strategy};
use crate::stream::passage::{Changes, FileId};
use crate::txn::in_place::OnProgress;
use crate::txn::journal::{Record, State, property};
use crate::txn::layout::Layout;
use crate::txn::others::Final;
use crate::txn::plan::{Kind, Plan, Step};
use crate::txn::promote::LOOKS;

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
    pub(super) workspace: Option<Guid>,
    pub(super) base: Option<SnapshotId>,
    pub(super) final_snapshot: Option<Guid>,
    pub(super) parents: Vec<Option<Guid>>,
}

/// What a transaction is to do, decided at begin.
#[derive(Debug)]
pub(crate) struct Order {
    /// The transaction's record, as it is when it begins.
    pub(crate) record: Record,
    pub(crate) layout: Layout,
    pub(crate) plan: Plan,
    /// What the workspace is created with.
    pub(crate) properties: Vec<(String, PropertyValue)>,
    pub(crate) private_path: PathBuf,
    /// The dataset that carries the record of an init transaction; an update's is on its base.
    pub(crate) ancestor: Option<(DatasetName, SnapshotId)>,
    /// What an init transaction creates and is to mount, parents first.
    pub(crate) new_mounts: Vec<DatasetName>,
}

impl Order {
    pub(super) fn is_in_place(&self) -> bool {
        self.record.strategy == Strategy::InPlace
    }

    pub(super) fn private(&self) -> Private<'_> {
        let user = self.record.entrance.as_ref().map(|entrance| entrance.user);
        let becomes = (!self.is_in_place()).then_some(&self.layout.target);
        Private { path: &self.private_path, user, becomes }
    }

    /// The last part of the name of the snapshot that the commit takes in the workspace.
    pub(super) fn final_leaf(&self) -> Option<String> {
        let sent = self.is_in_place().then(|| self.record.id.sent_leaf());
        self.layout.final_leaf.clone().or(sent)
    }
}

/// A transaction's state: the order, and how far it has come.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) order: Order,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) guids: Guids,
    /// Prepared mounts, by the name that the dataset has after the commit.
    pub(super) prepared: Vec<(DatasetName, PreparedMount)>,
    /// Where the base is, as far as is known: promotes move it, also those of other transactions.
    pub(super) base_at: Option<String>,
    /// The snapshot of the target that was taken to compare.
    pub(super) look: Option<SnapshotId>,
    /// The root of the workspace, or its device, for as long as this handle has it mounted. Nobody
    /// unmounts the workspace by accident, and what is done to its content is done by this.
    pub(super) root: Option<OwnedFd>,
    /// What the receive changes, once that is known.
    pub(super) changed: Option<Changes>,
    /// How the target differs from the base by now; what decides what is sent.
    pub(super) difference: Difference,
    /// Files that others have made in the target since the base.
    pub(super) strangers: Vec<FileId>,
    /// Files of those that were mapped into memory during the commit.
    pub(crate) stale: Vec<PathBuf>,
    pub(super) on_progress: OnProgress,
    /// Whether this handle has begun to refuse writes to the target.
    pub(super) fenced: bool,
    /// Whether the gate is this transaction's to open: of one that is recovered, not by its record alone.
    pub(super) opens_gate: bool,
    /// Conflicts that the caller has asked to override.
    pub(crate) overridden: Vec<Conflict>,
    pub(crate) mounted: Vec<PathBuf>,
    /// The longest time for which a mount point was bare.
    pub(crate) gap: Option<Duration>,
    /// Snapshots and bookmarks that others, or the caller, made of the workspace, and that are gone.
    pub(crate) workspace_snapshots: Vec<String>,
    /// What could not be removed after the commit point, and what was written beside the workspace.
    pub(crate) kept: Vec<Leftover>,
}

impl Stage {
    pub(crate) fn new(engine: Arc<dyn Engine>, order: Order) -> Self {
        let parents = vec![None; order.layout.missing_parents.len()];
        Self {
            order,
            engine,
            guids: Guids { parents, ..Guids::default() },
            prepared: Vec::new(),
            base_at: None,
            look: None,
            root: None,
            changed: None,
            difference: Difference::Nothing,
            strangers: Vec::new(),
            stale: Vec::new(),
            on_progress: OnProgress::default(),
            fenced: false,
            opens_gate: true,
            overridden: Vec::new(),
            mounted: Vec::new(),
            gap: None,
            workspace_snapshots: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Begins another attempt to commit: nothing of an earlier one counts any more, and the target must
    /// not be what begin would have refused.
    pub(super) fn start_afresh(&mut self) -> Result<(), Stop> {
        // An earlier attempt may have failed to destroy it. It must not stand for the base in this one:
        // what was written before it was taken would be lost.
        let target = self.order.layout.target.clone();
        let destroyed = self.destroy_look(&target);
        destroyed.map_err(|fault| Stop::Failed(self.error(Step::DestroyLook, fault)))?;
        // Each field is named, so that nobody adds one without a thought about this.
        let Self {
            // What the transaction is, and what begin has made.
            order: _,
            engine: _,
            base_at: _,
            root: _,
            on_progress: _,
            opens_gate: _,
            workspace_snapshots: _,
            guids: Guids { workspace: _, base: _, parents: _, final_snapshot },
            // What an attempt has found and done.
            look: _,
            prepared,
            changed,
            difference,
            strangers,
            stale,
            fenced,
            overridden,
            mounted,
            gap,
            kept,
        } = self;
        *final_snapshot = None;
        (*changed, *gap, *fenced) = (None, None, false);
        *difference = Difference::Nothing;
        prepared.clear();
        strangers.clear();
        stale.clear();
        overridden.clear();
        mounted.clear();
        kept.clear();
        let refused =
            self.refused().map_err(|fault| Stop::Failed(self.error(Step::Look, fault)))?;
        refused.map_or(Ok(()), |conflict| Err(Stop::Conflict(conflict)))
    }

    /// What a step is about, for errors.
    fn subject(&self, step: Step) -> String {
        let layout = &self.order.layout;
        match step {
            Step::CreateParent(level) | Step::DestroyParent(level) => {
                layout.missing_parents.get(level).map(ToString::to_string).unwrap_or_default()
            }
            Step::TakeBase => layout.base.to_string(),
            Step::WriteRecord | Step::EraseRecord => {
                self.order.ancestor.as_ref().map(|(name, _)| name.to_string()).unwrap_or_default()
            }
            Step::DestroyBase => self.base_at.clone().unwrap_or_else(|| layout.base.to_string()),
            Step::DestroyLook => format!("{}@{}", layout.target, self.id().look_leaf()),
            Step::TakeFinal | Step::StageChange | Step::DestroyFinal => {
                match self.order.final_leaf() {
                    Some(leaf) => format!("{}@{leaf}", layout.workspace),
                    None => layout.workspace.to_string(),
                }
            }
            Step::CheckWorkspace => self.order.private_path.display().to_string(),
            Step::RenameAside | Step::DestroyPredecessor | Step::ParkPredecessor => {
                layout.predecessor.to_string()
            }
            Step::Look
            | Step::CheckOwner
            | Step::CheckTarget
            | Step::PrepareMounts
            | Step::RenameIntoPlace
            | Step::SwapMounts
            | Step::LetGoOfPages
            | Step::Receive
            | Step::Fence
            | Step::Unfence
            | Step::Conclude
            | Step::PinMountpoint
            | Step::UnpinMountpoint
            | Step::DropMounts
            | Step::PromoteBack
            | Step::RenameBack => layout.target.to_string(),
            _ => layout.workspace.to_string(),
        }
    }

    pub(super) fn error(&self, step: Step, fault: Fault) -> StepError {
        let Fault { errno, mut detail } = fault;
        if errno == Errno::BUSY && detail.is_none() {
            detail = self.busy(step).and_then(|name| self.engine.holders(&name).ok().flatten());
        }
        StepError { step, subject: self.subject(step), errno, detail }
    }

    /// What was to be destroyed by a step, and may be in use.
    fn busy(&self, step: Step) -> Option<String> {
        let layout = &self.order.layout;
        match step {
            Step::Conclude if self.order.is_in_place() => Some(layout.workspace.to_string()),
            Step::Conclude => Some(layout.predecessor.to_string()),
            step => step.destroys().then(|| self.subject(step)),
        }
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
        let mut errors = Vec::new();
        for step in inverses {
            // The record stays as long as anything that it tells of.
            if step == Step::EraseRecord && !errors.is_empty() {
                continue;
            }
            // The workspace proves to recovery that the fence is the transaction's.
            let fenced = errors.iter().any(|error: &StepError| error.step == Step::Unfence);
            if step == Step::DestroyWorkspace && fenced {
                continue;
            }
            // One that can't be empty stays, with its mark.
            let below = errors.iter().any(|error| error.step == Step::DestroyWorkspace);
            if matches!(step, Step::DestroyParent(_)) && below {
                continue;
            }
            errors.extend(self.finish(step).err());
            // Names and snapshots go back in order or not at all: recovery takes it up from here.
            let names = [Step::RenameBack, Step::UnpinMountpoint, Step::PromoteBack];
            if names.contains(&step) && !errors.is_empty() {
                break;
            }
        }
        errors
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
            Step::Look | Step::CheckOwner | Step::Detach | Step::Resume => Ok(()),
            Step::CopyPermissions => engine.copy_permissions(&layout.target, &layout.workspace),
            Step::WriteRecord => match &order.ancestor {
                Some((name, id)) => engine.write_record(
                    (name.as_str(), id.guid),
                    &property(self.id()),
                    None,
                    Some(&order.record.encode()),
                ),
                None => Ok(()),
            },
            Step::EraseRecord => self.erase_record(),
            Step::CreateParent(level) => match layout.missing_parents.get(level).cloned() {
                Some(parent) => engine.create(&parent, &[self.mark()]).and_then(|()| {
                    let guid = self.guid_of(parent.as_str())?;
                    self.guids.parents[level] = Some(guid);
                    Ok(())
                }),
                None => Ok(()),
            },
            Step::CreateWorkspace => {
                let created = engine.create(&layout.workspace, &order.properties);
                match created.and_then(|()| self.record_workspace()) {
                    Ok(()) => return self.check_mount_points(step),
                    failed => failed,
                }
            }
            Step::TakeBase => {
                let (name, record) = (property(order.record.id), order.record.encode());
                let record = Some((name.as_str(), record.as_str()));
                // What readers see is not in the pool yet where it was stored through a mapping, and what a
                // crash has left in the intent log is seen by none until the next mount.
                let written = engine.write_back(&layout.target);
                written.and_then(|()| engine.snapshot(&layout.base, record)).and_then(|()| {
                    self.guids.base =
                        Some(self.id_of_own(&self.order.layout.base, &name, |_| true)?);
                    Ok(())
                })
            }
            Step::CloneWorkspace => engine
                .clone_snapshot(&layout.workspace, &layout.base, &order.properties)
                .and_then(|()| self.record_workspace()),
            Step::MountWorkspace => engine
                .mount_private(&layout.workspace, order.private())
                .map(|root| self.root = Some(root)),
            Step::CheckWorkspace => self.check_workspace(),
            Step::SetOwnership => match &order.record.ownership {
                Some(ids) => self.root().and_then(|root| engine.set_ownership(root, ids)),
                None => Ok(()),
            },
            Step::Flush => self.root().and_then(|root| engine.flush_workspace(root)),
            Step::TakeFinal => self.take_final(),
            Step::Fence => return self.fence(),
            Step::Unfence => self.unfence(),
            Step::StageChange => return self.stage_change(),
            Step::LetGoOfPages => self.let_go_of_pages(),
            Step::Receive => return self.receive(),
            Step::PrepareMounts => return self.prepare_mounts(),
            Step::CheckTarget => return self.check_target(),
            Step::Promote => return self.promote(),
            Step::PinMountpoint => return self.pin_mountpoint(),
            Step::UnpinMountpoint => self.unpin_mountpoint(),
            Step::RenameAside => return self.rename_aside(),
            Step::RenameIntoPlace => return self.rename_into_place(),
            Step::SwapMounts => self.swap_mounts(),
            Step::UnmountWorkspace => {
                let root = self.root.take();
                self.unmount_private(root.as_ref().map(AsFd::as_fd))
            }
            Step::Conclude => self.conclude(),
            Step::ParkPredecessor => self.park_predecessor(),
            Step::DestroyPredecessor => self.destroy_predecessor(),
            Step::DestroyBase => self.destroy_base(),
            Step::DropMounts => {
                self.prepared.clear();
                Ok(())
            }
            Step::DestroyFinal if order.is_in_place() => self.unstage(),
            Step::DestroyFinal => match order.final_leaf() {
                Some(leaf) => {
                    self.destroy(&format!("{}@{leaf}", layout.workspace), self.guids.final_snapshot)
                }
                None => Ok(()),
            },
            Step::DestroyLook => self.destroy_look(&layout.target.clone()),
            Step::PromoteBack => self.promote_back(),
            Step::RenameBack => {
                self.rename(&layout.predecessor, &layout.target, order.record.target_guid)
            }
            Step::DestroyWorkspace => self.destroy_workspace(),
            Step::DestroyParent(level) => self.destroy_parent(level),
        };
        result.map_err(|fault| Stop::Failed(self.error(step, fault)))
    }

    pub(super) fn id(&self) -> TransactionId {
        self.order.record.id
    }

    /// The root of the workspace.
    pub(super) fn root(&self) -> Result<BorrowedFd<'_>, Fault> {
        Ok(self.root.as_ref().ok_or(Errno::BADF)?.as_fd())
    }

    /// Without the `root`, only what is the workspace, by whichever name, is taken away from the path: the
    /// id in a record, and so the path, may be another transaction's.
    fn unmount_private(&mut self, root: Option<BorrowedFd<'_>>) -> Result<(), Fault> {
        let Layout { target, workspace, .. } = &self.order.layout;
        let mut names = Vec::new();
        for name in [workspace, target] {
            let guid = self.engine.facts(name.as_str())?.map(|facts| facts.guid);
            names.extend((guid.is_some() && guid == self.guids.workspace).then_some(name));
        }
        // Nor is the directory that a record names touched on its word alone.
        if root.is_none() && names.is_empty() {
            return Ok(());
        }
        let left = self.engine.unmount_private(self.order.private(), root, &names)?;
        self.kept.extend(left);
        Ok(())
    }

    /// Refuses where the path that the caller writes to has come to lead elsewhere, or had: part of the
    /// change may be there.
    fn check_workspace(&self) -> Result<(), Fault> {
        match self.engine.leads_to(&self.order.private_path, self.root()?)? {
            true => Ok(()),
            false => Err(Errno::STALE.into()),
        }
    }

    /// The property by which an init transaction's own datasets are known.
    pub(super) fn mark(&self) -> (String, PropertyValue) {
        (MARK.to_owned(), PropertyValue::Text(self.id().to_string().into()))
    }

    /// Where the record is.
    pub(super) fn carrier(&self) -> Option<(String, SnapshotId)> {
        match &self.order.ancestor {
            Some((name, id)) => Some((name.to_string(), *id)),
            None => {
                let name = self.base_at.clone();
                let name = name.unwrap_or_else(|| self.order.layout.base.to_string());
                self.guids.base.map(|base| (name, base))
            }
        }
    }

    /// Replaces the record on disk, and then the one in memory.
    pub(crate) fn rewrite_record(&mut self, record: Record) -> Result<(), Fault> {
        let (old, new) = (self.order.record.encode(), record.encode());
        let name = property(self.id());
        let mut written = Err(Errno::NOENT.into());
        // Another commit may move it before it is written to.
        for _ in 0..LOOKS {
            self.locate_base()?;
            let (carrier, SnapshotId { guid, .. }) = self.carrier().ok_or(Errno::NOENT)?;
            written = self.engine.write_record((&carrier, guid), &name, Some(&old), Some(&new));
            if !matches!(written, Err(Fault { errno: Errno::NOENT, .. })) {
                break;
            }
        }
        written?;
        self.order.record = record;
        Ok(())
    }

    /// Records that a rollback could not remove everything, so that a sweep goes on with it.
    pub(crate) fn record_rollback(&mut self, errors: &[StepError]) {
        if errors.is_empty() {
            return;
        }
        let mut record = self.order.record.clone();
        (record.state, record.owner) = (State::RolledBack, None);
        if let Err(fault) = self.rewrite_record(record) {
            // Then it counts as interrupted, which comes to the same.
            tracing::debug!(?fault, "the rollback's rest is not recorded");
        }
    }

    /// Takes up a detached transaction: of several processes that try, one gets it.
    pub(crate) fn resume(&mut self, owner: Owner) -> Result<(), StepError> {
        let detached = self.order.record.clone();
        let open = Record { state: State::Open, owner: Some(owner), ..detached.clone() };
        self.rewrite_record(open).map_err(|fault| self.error(Step::Resume, fault))?;
        // There may be a mount of before, if this is the same boot.
        let mounted = self
            .find_new_mounts()
            .map_err(|fault| self.error(Step::Look, fault))
            .and_then(|()| self.finish(Step::UnmountWorkspace))
            .and_then(|()| self.finish(Step::MountWorkspace));
        // What stays at its path by now is in the way of a commit, and told of then.
        self.kept.clear();
        if let Err(error) = mounted {
            if let Err(fault) = self.rewrite_record(detached) {
                tracing::warn!(?fault, "the transaction could not be detached again");
            }
            return Err(error);
        }
        Ok(())
    }

    /// What an init transaction made, and is to mount where it is not mounted by now.
    fn find_new_mounts(&mut self) -> Result<(), Fault> {
        let Layout { target, workspace, missing_parents, .. } = &self.order.layout;
        let parents = missing_parents.iter().zip(&self.guids.parents);
        let made = parents.filter(|(_, guid)| guid.is_some()).map(|(name, _)| (name, name));
        let target = (self.order.record.kind == Kind::Init).then_some((target, workspace));
        let mut new_mounts = Vec::new();
        for (name, now) in made.chain(target) {
            let facts = self.engine.facts(now.as_str())?;
            let is_path = facts.is_some_and(|facts| facts.mountpoint.is_absolute());
            // Whatever is mounted for the target's name by now is not the workspace.
            let mounted = name == now && !self.engine.places(name)?.is_empty();
            if is_path && !mounted {
                new_mounts.push(name.clone());
            }
        }
        self.order.new_mounts = new_mounts;
        Ok(())
    }

    fn erase_record(&self) -> Result<(), Fault> {
        let Some((name, SnapshotId { guid, .. })) = &self.order.ancestor else { return Ok(()) };
        let (property, value) = (property(self.id()), self.order.record.encode());
        self.engine.write_record((name.as_str(), *guid), &property, Some(&value), None)
    }

    /// Destroys the workspace with the snapshots that were taken in it; never after a promote, which
    /// makes the target's snapshots its own. One that is held keeps all of it.
    fn destroy_workspace(&mut self) -> Result<(), Fault> {
        let Some(guid) = self.guids.workspace else { return Ok(()) };
        let cleared = self.clear_workspace(Final::Goes);
        let name = &self.order.layout.workspace;
        let origin = self.guids.base.map(|base| base.guid);
        let destroyed =
            cleared.and_then(|()| self.engine.destroy_workspace(name, guid, origin).map(drop));
        destroyed.or_else(|fault| self.gone(name.as_str()).ok_or(fault))
    }

    /// Destroys a parent; one that is in use, or not empty, stays, and is no longer marked as made for this.
    fn destroy_parent(&self, level: usize) -> Result<(), Fault> {
        let guid = self.guids.parents.get(level).copied().flatten();
        let parent = self.order.layout.missing_parents.get(level);
        let (Some(parent), Some(guid)) = (parent, guid) else { return Ok(()) };
        // A file that somebody has put there may be found nowhere else.
        let result = match self.engine.is_empty(parent) {
            Ok(true) => self.destroy(parent.as_str(), Some(guid)),
            Ok(false) => Err(Fault {
                errno: Errno::EXIST,
                detail: Some("something was written into it".to_owned()),
            }),
            Err(fault) => self.gone(parent.as_str()).ok_or(fault),
        };
        if result.is_err() {
            self.engine.inherit(parent, guid, &[MARK])?;
        }
        result
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
        let refused = matches!(stop, Stop::Failed(StepError { errno: Errno::PERM, .. }));
        let name = self.subject(step);
        let slot = match step {
            Step::CreateWorkspace | Step::CloneWorkspace => &mut self.guids.workspace,
            Step::TakeBase => {
                if self.guids.base.is_none() && !existed {
                    let found = self.engine.facts(&name).ok().flatten();
                    self.guids.base = found.map(|facts| facts.id());
                }
                return self.guids.base.is_some();
            }
            Step::TakeFinal | Step::StageChange => &mut self.guids.final_snapshot,
            // The private mount may be half made; unmounting what isn't mounted does nothing. Who may not
            // mount may not unmount either.
            Step::MountWorkspace => return !refused,
            // Removing a record that isn't there is refused; one that is, is this transaction's.
            Step::WriteRecord => return self.record_is_there() == Some(true),
            Step::PinMountpoint => return self.is_pinned() == Ok(true),
            // Nobody else can have: it was off just before.
            Step::Fence => return self.fenced,
            Step::CreateParent(level) => {
                let marked = self.marked_as_ours(&name);
                if let (Some(slot), Some(_)) = (self.guids.parents.get_mut(level), marked) {
                    *slot = marked;
                }
                return marked.is_some();
            }
            Step::RenameAside => {
                let renamed = self.engine.facts(&name).ok().flatten().map(|facts| facts.guid);
                return renamed.is_some() && renamed == self.order.record.target_guid;
            }
            _ => return false,
        };
        if slot.is_none() && !existed {
            *slot = self.engine.facts(&name).ok().flatten().map(|facts| facts.guid);
        }
        let took_effect = slot.is_some();
        if took_effect && step == Step::StageChange {
            // Written in the same txg.
            self.order.record.state = State::Committing;
        }
        took_effect
    }

    /// The guid of a dataset that has this transaction's mark.
    fn marked_as_ours(&self, name: &str) -> Option<Guid> {
        let above = [name.parse().ok()?];
        let scope = Scope { target: &self.order.layout.target, above: &above, id: None };
        let (mark, id) = (MARK, self.id().to_string());
        let is = |e: &&Entry| e.carrier == name && e.property == mark && e.value == *id && e.local;
        Some(self.engine.journal(scope).ok()?.iter().find(is)?.id.guid)
    }

    /// Whether an init transaction's record is where it was to be written; `None`: not known.
    pub(super) fn record_is_there(&self) -> Option<bool> {
        let (ancestor, _) = self.order.ancestor.as_ref()?;
        let above = std::slice::from_ref(ancestor);
        let scope = Scope { target: &self.order.layout.target, above, id: None };
        let entries = self.engine.journal(scope).ok()?;
        let name = property(self.id());
        let is = |entry: &Entry| entry.property == name && entry.carrier == ancestor.as_str();
        Some(entries.iter().any(is))
    }

    fn take_final(&mut self) -> Result<(), Fault> {
        let Some(leaf) = &self.order.layout.final_leaf else {
            return Ok(());
        };
        let name = snapshot_of(&self.order.layout.workspace, leaf)?;
        // One by this name that others have taken would be in the way for good.
        self.clear_workspace(Final::Goes)?;
        self.engine.snapshot(&name, None)?;
        self.guids.final_snapshot = Some(self.guid_of(name.as_str())?);
        Ok(())
    }

    /// Makes the mounts that the target will have: one for each it has now, or those of an init.
    fn prepare_mounts(&mut self) -> Result<(), Stop> {
        let layout = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(Step::PrepareMounts, fault));
        let mut prepared = Vec::new();
        self.check_mount_points(Step::PrepareMounts)?;
        for dataset in &self.order.new_mounts {
            let now = self.name_now(dataset);
            let options = self.engine.mount_options(now).map_err(fail)?;
            let place = Place::new(None, PathBuf::new(), options);
            let mount = self.engine.prepare_mount(now, place).map_err(fail)?;
            prepared.push((dataset.clone(), mount));
        }
        if self.order.record.kind == Kind::Update {
            for place in self.engine.places(&layout.target).map_err(fail)? {
                if let Some(path) = self.engine.mounts_on(&place).map_err(fail)?.first() {
                    let path = path.display().to_string();
                    return Err(Stop::Conflict(Conflict::MountBelow { path }));
                }
                if let Some(option) = place.uncarried {
                    let path = place.path.display().to_string();
                    return Err(Stop::Conflict(Conflict::MountOption { path, option }));
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
            // What is below a parent that is not mounted would be in the parent's way later.
            if first.is_err() && self.order.record.kind == Kind::Init {
                break;
            }
            if prepared.place.replaces.is_none() {
                // ZFS knows the path, an alternate root of the pool included.
                match self.engine.facts(dataset.as_str()) {
                    Ok(Some(facts)) if facts.mountpoint.is_absolute() => {
                        prepared.place.path = facts.mountpoint;
                        let path = &prepared.place.path;
                        if let Err(fault) = self.refuse_unmountable(&dataset, path) {
                            first = first.and(Err(fault));
                            continue;
                        }
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
                Ok(Attached::There { gap }) => {
                    self.mounted.push(path);
                    self.gap = self.gap.max(gap);
                }
                Ok(Attached::Gone) => {}
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
