//! The commit that swaps content: the workspace's change is sent and received into the target, in
//! this process, and becomes visible at the end of the receive, in one txg.
//!
//! The stream starts from a bookmark of the base in the workspace's own name space: ZFS tells by the
//! names alone that a stream makes a clone (`dmu_send`), which can't be received here.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::engine::{Difference, Fault, InPlaceEnd, Known, SnapshotId, Staged, Staging};
use crate::errno::Errno;
use crate::error::Conflict;
use crate::name::{DatasetName, SnapshotName};
use crate::receipt::{Keeps, Leftover, Progress};
use crate::stream::passage::{Changes, FileId};
use crate::transfer::Route;
use crate::txn::journal::{Record, State, property};
use crate::txn::layout::Layout;
use crate::txn::others::{Final, is_kept};
use crate::txn::plan::Step;
use crate::txn::promote::LOOKS;
use crate::txn::stage::{Stage, Stop, snapshot_of};

/// How often a receive is tried again while another one into the target is at it: 6 s in all.
const BUSY_WAITS_MS: [u64; 6] = [100, 200, 400, 800, 1_500, 3_000];

type Callback = Box<dyn FnMut(Progress) -> ControlFlow<()> + Send>;

/// What is told of a commit's progress.
#[derive(Default)]
pub(super) struct OnProgress(Option<Mutex<Callback>>);

impl OnProgress {
    pub(super) fn new(callback: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static) -> Self {
        Self(Some(Mutex::new(Box::new(callback))))
    }

    fn tell(&mut self, progress: Progress) -> ControlFlow<()> {
        match &mut self.0 {
            Some(callback) => callback.get_mut().unwrap_or_else(PoisonError::into_inner)(progress),
            None => ControlFlow::Continue(()),
        }
    }
}

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnProgress(..)" } else { "OnProgress(none)" })
    }
}

impl Stage {
    /// The snapshot that is sent, under the name of the workspace or of the target.
    fn sent(&self, dataset: &DatasetName) -> Result<SnapshotName, Fault> {
        let leaf = self.order.final_leaf().ok_or(Errno::INVAL)?;
        snapshot_of(dataset, &leaf)
    }

    /// The base by the name of a bookmark of the workspace.
    pub(super) fn bookmark(&self) -> String {
        let Layout { workspace, base, .. } = &self.order.layout;
        format!("{workspace}#{}", base.leaf())
    }

    /// Takes the snapshot to be sent if the target is as it was; access times alone are told apart by
    /// comparing.
    pub(super) fn stage_change(&mut self) -> Result<(), Stop> {
        if let Err(fault) = self.make_room_for_sent() {
            return Err(self.stopped(Step::StageChange, fault));
        }
        for _ in 0..=LOOKS {
            let staged = self.try_to_stage();
            match staged.map_err(|fault| self.stopped(Step::StageChange, fault))? {
                Staged::Done => return Ok(()),
                Staged::Replaced => return Err(self.given_up(self.replaced())),
                Staged::Written => self.look_again(Step::StageChange)?,
            }
        }
        Err(self.stopped(Step::StageChange, Errno::TXTBSY.into()))
    }

    /// A snapshot that others have taken by the name of the one to be sent would be in the way for good.
    fn make_room_for_sent(&mut self) -> Result<(), Fault> {
        let sent = self.sent(&self.order.layout.workspace)?;
        match self.engine.facts(sent.as_str())? {
            Some(_) => self.clear_workspace(Final::Goes),
            None => Ok(()),
        }
    }

    fn try_to_stage(&mut self) -> Result<Staged, Fault> {
        let Layout { target, workspace, base, .. } = self.order.layout.clone();
        let unknown = || Fault::from(Errno::NOENT);
        let since = match self.look {
            Some(_) => snapshot_of(&target, &self.id().look_leaf())?,
            None => base.clone(),
        };
        let snapshot = self.sent(&workspace)?;
        let target_guid = self.order.record.target_guid.ok_or_else(unknown)?;
        let record = Record { state: State::Committing, ..self.order.record.clone() };
        let staged = self.engine.stage(Staging {
            target_origin: self.order.record.target_origin,
            record: (&property(self.id()), &record.encode()),
            target: Known { name: &target, guid: target_guid },
            workspace: Known { name: &workspace, guid: self.guids.workspace.ok_or_else(unknown)? },
            base: (base.as_str(), self.guids.base.ok_or_else(unknown)?.guid),
            since: since.as_str(),
            bookmark: &self.bookmark(),
            snapshot: snapshot.as_str(),
        })?;
        if staged == Staged::Done {
            self.order.record = record;
            self.guids.final_snapshot = Some(self.guid_of(snapshot.as_str())?);
        }
        Ok(staged)
    }

    /// Compares the target with the base, and takes note of a snapshot of it that can stand for the
    /// base; a conflict where it can't.
    fn look_again(&mut self, step: Step) -> Result<(), Stop> {
        let Layout { target, base, .. } = self.order.layout.clone();
        let difference = self.engine.write_back(&target).and_then(|()| {
            let difference = self.take_look(&target, &base)?;
            let look = snapshot_of(&target, &self.id().look_leaf())?;
            self.strangers = match difference {
                Difference::Nothing => Vec::new(),
                _ => self.engine.newcomers(&look, &base)?,
            };
            self.see_deletions(difference, step)
        });
        self.difference = difference.map_err(|fault| self.stopped(step, fault))?;
        if self.difference != Difference::Content {
            return Ok(());
        }
        let conflict = Conflict::Modified { target };
        if !self.order.record.overwrite {
            return Err(self.given_up(conflict));
        }
        // The snapshot has what is overridden: all of the target is replaced, and it kept.
        if !self.overridden.contains(&conflict) {
            self.overridden.push(conflict);
        }
        Ok(())
    }

    /// Objects without a name may have the numbers that new files have in the workspace, and the target's
    /// list of files to be deleted has those numbers. So the workspace's list has to come along, which it
    /// does if it was written since the base, and it must have none of the base's own: those that the
    /// target has deleted by now would be in the list for good. Where that isn't so, all of the target
    /// is replaced.
    fn see_deletions(&self, difference: Difference, step: Step) -> Result<Difference, Fault> {
        if !matches!(difference, Difference::Nameless(_)) {
            return Ok(difference);
        }
        // What is to be sent is in its snapshot by now.
        let late = step == Step::Receive && !matches!(self.difference, Difference::Nameless(_));
        let renewed = !late && self.engine.renew_deletions(&self.order.layout.workspace)?;
        Ok(if renewed { difference } else { Difference::Tables })
    }

    /// Destroys the snapshot that was to be sent, and lets others commit again.
    pub(super) fn unstage(&mut self) -> Result<(), Fault> {
        let sent = self.sent(&self.order.layout.workspace)?;
        self.destroy(sent.as_str(), self.guids.final_snapshot)?;
        self.guids.final_snapshot = None;
        match self.order.record.state {
            State::Committing => {
                self.rewrite_record(Record { state: State::Open, ..self.order.record.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether the snapshot that was taken to compare has what the commit has overridden, and not
    /// access times alone.
    fn look_has_changes(&self, base: &str) -> Result<bool, Fault> {
        let record = &self.order.record;
        let Some(id) = self.look.filter(|_| record.overwrite) else { return Ok(false) };
        if record.state == State::Kept || !self.overridden.is_empty() {
            return Ok(true);
        }
        let base: SnapshotName = base.parse().map_err(|_| Fault::from(Errno::INVAL))?;
        let look = snapshot_of(&base.dataset(), &self.id().look_leaf())?;
        let there = self.engine.is_snapshot(look.as_str(), id)?;
        Ok(there && self.engine.difference(&look, &base)? == Difference::Content)
    }

    /// A conflict, when nothing of the attempt is left.
    fn given_up(&mut self, conflict: Conflict) -> Stop {
        let target = self.order.layout.target.clone();
        match self.destroy_look(&target) {
            Ok(()) => Stop::Conflict(conflict),
            Err(fault) => Stop::Failed(self.error(Step::DestroyLook, fault)),
        }
    }

    /// A failure, when nothing of the attempt is left.
    fn stopped(&mut self, step: Step, fault: Fault) -> Stop {
        let target = self.order.layout.target.clone();
        match self.destroy_look(&target) {
            Ok(()) => Stop::Failed(self.error(step, fault)),
            Err(fault) => Stop::Failed(self.error(Step::DestroyLook, fault)),
        }
    }

    /// After the commit point: takes note of files that were changed in place and mapped meanwhile, and of
    /// names that lead to what they led to before.
    pub(super) fn let_go_of_pages(&mut self) -> Result<(), Fault> {
        let stale = self.find_changed().and_then(|mut changed| {
            let target = &self.order.layout.target;
            let sent = self.sent(&self.order.layout.workspace)?;
            let mut stale =
                self.engine.let_go_of_pages(target, sent.as_str(), &mut changed, true)?;
            let before = match self.look {
                Some(_) => snapshot_of(target, &self.id().look_leaf())?.to_string(),
                None => self.base_now(),
            };
            stale.extend(self.engine.stale_names(target, &before, &changed.directories)?);
            Ok(stale)
        });
        match stale {
            Ok(stale) => self.stale = stale,
            // Another commit that swaps names at this moment takes the target away.
            Err(_) if self.has_base() == Ok(false) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// The base by the name under which it was last seen.
    fn base_now(&self) -> String {
        self.base_at.clone().unwrap_or_else(|| self.order.layout.base.to_string())
    }

    /// What the receive has changed. Who finishes what was interrupted asks for them anew.
    fn find_changed(&mut self) -> Result<Changes, Fault> {
        if let Some(changed) = self.changed.take() {
            return Ok(changed);
        }
        let sent = self.sent(&self.order.layout.workspace)?;
        let base = self.base_now();
        // What others had changed may have been replaced.
        let from = self.look.is_none().then_some(base.as_str());
        self.engine.changes(sent.as_str(), from)
    }

    /// The commit point. The receive refuses a target that was written to since the snapshot that the
    /// stream starts from, in the txg in which the content is swapped.
    pub(super) fn receive(&mut self) -> Result<(), Stop> {
        let mut waits = BUSY_WAITS_MS.into_iter();
        for _ in 0..LOOKS + BUSY_WAITS_MS.len() {
            let fault = match self.try_to_receive() {
                Ok(None) => return Ok(()),
                Ok(Some(conflict)) => return Err(self.given_up(conflict)),
                Err(fault) => fault,
            };
            // Judge by the state: what comes after the swap may have failed as well.
            match self.is_received() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) => return Err(self.stopped(Step::Receive, fault)),
            }
            match (fault.errno, waits.next()) {
                (Errno::TXTBSY, _) => self.look_again(Step::Receive)?,
                // Another receive into it is not at its end.
                (Errno::BUSY, Some(wait)) => {
                    // Or one that can be resumed, for which no waiting is enough.
                    match self.refused() {
                        Ok(Some(conflict)) => return Err(self.given_up(conflict)),
                        Ok(None) => {}
                        Err(fault) => return Err(self.stopped(Step::Receive, fault)),
                    }
                    std::thread::sleep(std::time::Duration::from_millis(wait));
                }
                (Errno::INVAL, _) if !self.overridden.is_empty() => {
                    let detail = "others have made a file of one record larger, which a receive can't \
                                  undo: roll back, and begin anew with Strategy::Promote";
                    let fault = Fault { detail: Some(detail.to_owned()), ..fault };
                    return Err(self.stopped(Step::Receive, fault));
                }
                // A snapshot that somebody took meanwhile is in its way, but no change.
                (Errno::INVAL, Some(_)) => {}
                _ => return Err(self.stopped(Step::Receive, fault)),
            }
        }
        let detail = "it is written to, or read with access times, without a pause: begin anew with \
                      fence(), or set atime=off or relatime=on";
        let fault = Fault { errno: Errno::TXTBSY, detail: Some(detail.to_owned()) };
        Err(self.stopped(Step::Receive, fault))
    }

    /// Receives; says for which conflict the receive was given up.
    fn try_to_receive(&mut self) -> Result<Option<Conflict>, Fault> {
        let mut on_progress = std::mem::take(&mut self.on_progress);
        let received = self.receive_telling(&mut on_progress);
        self.on_progress = on_progress;
        let (conflict, changed) = received?;
        self.changed = changed;
        Ok(conflict)
    }

    fn receive_telling(
        &self,
        on_progress: &mut OnProgress,
    ) -> Result<(Option<Conflict>, Option<Changes>), Fault> {
        let Layout { target, workspace, .. } = &self.order.layout;
        let (from, to, bookmark) = (self.sent(workspace)?, self.sent(target)?, self.bookmark());
        let (replaces, nameless) = match &self.difference {
            Difference::Nothing => (false, &[][..]),
            Difference::Nameless(objects) => (false, objects.as_slice()),
            Difference::Tables | Difference::Content => (true, &[][..]),
        };
        let route = Route {
            snapshot: from.as_str(),
            from: (!replaces).then_some(bookmark.as_str()),
            to: to.as_str(),
            onto: self.look.map(|look| look.guid),
            nameless,
            strangers: &self.strangers,
        };
        let estimate = self.engine.stream_length(route)?;
        let mut watch = |bytes| on_progress.tell(Progress { bytes, estimate });
        if watch(0).is_break() {
            return Err(Errno::CANCELED.into());
        }
        let (mut conflict, mut changed) = (Ok(None), None);
        // A receive that waits for its end holds nothing that these files' readers would wait for.
        let mut at_end = |mut changes: Changes| {
            conflict = self.in_the_way_of_end(from.as_str(), &mut changes);
            changed = Some(changes);
            match conflict {
                Ok(None) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        };
        let received = self.engine.transfer(route, &mut watch, &mut at_end);
        match conflict? {
            Some(conflict) => Ok((Some(conflict), None)),
            None => received.map(|()| (None, changed)),
        }
    }

    /// What the swap must not meet, looked at when nothing but the swap is missing: the stream may have taken
    /// its time.
    fn in_the_way_of_end(
        &self,
        sent: &str,
        changes: &mut Changes,
    ) -> Result<Option<Conflict>, Fault> {
        if let Some(conflict) = self.refused()? {
            return Ok(Some(conflict));
        }
        let target = self.order.layout.target.clone();
        // Numbers and generations are given out by each file system for itself. Whoever has such a file open
        // would have the new one, without being asked for a permission (`zfs_rezget`).
        if let Some(FileId { object, .. }) = changes.taken {
            return Ok(Some(Conflict::InUse { target, path: format!("object {object}") }));
        }
        let mapped = self.engine.let_go_of_pages(&target, sent, changes, false)?.into_iter().next();
        Ok(mapped.map(|path| Conflict::InUse { target, path: path.display().to_string() }))
    }

    /// Whether the target is still the dataset that it was at begin.
    pub(super) fn is_target(&self) -> Result<bool, Fault> {
        let facts = self.engine.facts(self.order.layout.target.as_str())?;
        Ok(facts.map(|facts| facts.guid) == self.order.record.target_guid)
    }

    /// Whether it is, and has the base: another commit that is at it takes that away first.
    pub(super) fn has_base(&self) -> Result<bool, Fault> {
        let base = self.engine.facts(self.order.layout.base.as_str())?.map(|facts| facts.id());
        Ok(self.is_target()? && base == self.guids.base)
    }

    /// Whether the target has the snapshot that was sent.
    pub(super) fn is_received(&self) -> Result<bool, Fault> {
        let sent = self.sent(&self.order.layout.target)?;
        let found = self.engine.facts(sent.as_str())?.map(|facts| facts.guid);
        Ok(found.is_some() && found == self.guids.final_snapshot)
    }

    /// Ends a commit, in one txg: workspace, snapshots and record go.
    pub(super) fn conclude_in_place(&mut self) -> Result<(), Fault> {
        for _ in 0..LOOKS {
            match self.end_in_place() {
                // Another commit has made another dataset the target meanwhile.
                Err(Fault { errno: Errno::STALE, .. }) => {}
                result => return result,
            }
        }
        self.end_in_place()
    }

    fn end_in_place(&mut self) -> Result<(), Fault> {
        let Layout { target, workspace, final_leaf, .. } = self.order.layout.clone();
        let unknown = || Fault::from(Errno::NOENT);
        self.locate_base()?;
        let base_id = self.guids.base.ok_or_else(unknown)?;
        // It goes last: somebody has swept the rest.
        let Some(base) = self.base_at.clone() else { return Ok(()) };
        // Later commits may have made another dataset the target, and moved its snapshots.
        let holder: SnapshotName = base.parse().map_err(|_| Fault::from(Errno::INVAL))?;
        let holder = holder.dataset();
        let target_guid = match holder == target && self.is_target()? {
            true => self.order.record.target_guid.ok_or_else(unknown)?,
            false => self.guid_of(holder.as_str())?,
        };
        let target = holder;
        let sent = match (&final_leaf, self.guids.final_snapshot) {
            (None, Some(guid)) => Some((self.sent(&target)?.to_string(), guid)),
            _ => None,
        };
        let mut record = self.order.record.clone();
        let overridden = self.look_has_changes(&base)?;
        let look = snapshot_of(&target, &self.id().look_leaf())?.to_string();
        let look = self.look.map(|id| (look, id));
        let (kept, look) = if overridden { (look, None) } else { (None, look) };
        record.state = if kept.is_some() { State::Kept } else { State::Committed };
        record.owner = None;
        // What can't be cleared stays as a whole.
        let in_the_way = match self.clear_workspace(Final::Stays) {
            Err(fault) if is_kept(&fault) => Some(fault),
            cleared => cleared.map(|()| None)?,
        };
        let to_destroy = self.guids.workspace.filter(|_| in_the_way.is_none());
        let end = InPlaceEnd {
            target: Known { name: &target, guid: target_guid },
            workspace: to_destroy.map(|guid| Known { name: &workspace, guid }),
            sent: sent.as_ref().map(|(name, guid)| (name.as_str(), *guid)),
            look: look.as_ref().map(|(name, id)| (name.as_str(), *id)),
            base: (&base, base_id),
            keeps: kept.is_some(),
            property: &property(self.id()),
            committed: &record.encode(),
        };
        let left = match self.engine.conclude_in_place(end) {
            Ok(left) => left,
            Err(_) if self.is_base_gone(base_id) => None,
            Err(fault) => return Err(fault),
        };
        self.look = None;
        let Some(errno) = left else { return Ok(()) };
        let why = self.error(Step::Conclude, in_the_way.unwrap_or_else(|| errno.into())).why();
        let why_base = match kept {
            Some((name, SnapshotId { guid, .. })) => {
                let reason = "it keeps what the commit has overridden".to_owned();
                self.kept.push(Leftover { name, guid, reason, keeps: Keeps::Changes });
                "it has the record of this commit".to_owned()
            }
            None => why.clone(),
        };
        let left = self.guids.workspace.map(|guid| (workspace.to_string(), guid));
        let look = look.map(|(name, id)| (name, id.guid));
        let left = left.into_iter().chain(sent).chain(look);
        let left = left.map(|(name, guid)| (name, guid, why.clone()));
        for (name, guid, reason) in left.chain([(base.clone(), base_id.guid, why_base)]) {
            let there = self.engine.facts(&name).map_or(true, |facts| facts.is_some());
            if there {
                self.kept.push(Leftover { name, guid, reason, keeps: Keeps::Nothing });
            }
        }
        Ok(())
    }
}
