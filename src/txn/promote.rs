//! The commit that swaps names: promote, two renames, and what concludes it after the commit point.

use rustix::mount::MountAttrFlags;

use crate::engine::{
    Concluded, Conclusion, Difference, Facts, Fault, Known, LOOK, Predecessor, Promoted, Promotion,
    PropertyValue, Scope, SnapshotId,
};
use crate::errno::Errno;
use crate::error::Conflict;
use crate::name::{DatasetName, SnapshotName, is_of_a_transaction};
use crate::patience::patiently;
use crate::receipt::Guid;
use crate::txn::journal::{State, property};
use crate::txn::layout::Layout;
use crate::txn::others::Final;
use crate::txn::outcome::HOLDS_CHANGES;
use crate::txn::plan::{Kind, Step};
use crate::txn::recover::cases;
use crate::txn::stage::{Stage, Stop, snapshot_of};

/// How often something that readers touch meanwhile is compared anew.
pub(super) const LOOKS: usize = 4;

/// A dataset by its name, and its guid where that is known.
type Named<'a> = (&'a DatasetName, Option<Guid>);

impl Stage {
    /// Refuses a target that is not as it was at begin.
    pub(super) fn check_target(&mut self) -> Result<(), Stop> {
        let Layout { target, base, .. } = self.order.layout.clone();
        let fail = |stage: &Self, fault| Stop::Failed(stage.error(Step::CheckTarget, fault));
        // What was stored through a memory mapping is not in the pool yet, nor is what a crash has left in the
        // intent log, if the transaction was detached before.
        let written = self.or_replaced(self.engine.write_back(&target).map(|()| None));
        if let Some(conflict) = written.map_err(|fault| fail(self, fault))? {
            return Err(Stop::Conflict(conflict));
        }
        let conflict = match self.order.is_in_place() {
            // Its other settings, its snapshots and children stay; what was written is found when the
            // change is staged.
            true => self.or_replaced(self.look_anew(&target).map(Result::err)).and_then(|found| {
                Ok(found.or(self.displaced()?.map(|path| Conflict::Displaced { path })))
            }),
            false => self.conflict(&target, base.as_str()),
        };
        match conflict.map_err(|fault| fail(self, fault))? {
            None => Ok(()),
            Some(conflict) => self.unless_overridden(conflict),
        }
    }

    /// Takes note of a conflict that the caller has asked to override; what is overridden stays
    /// with the predecessor.
    fn unless_overridden(&mut self, conflict: Conflict) -> Result<(), Stop> {
        let overwrite = self.order.record.overwrite && !self.can_go_over(&conflict);
        if !overwrite || !conflict.can_be_overridden() {
            return Err(Stop::Conflict(conflict));
        }
        // What is kept gives up its mount point, which therefore can't be overridden.
        if matches!(conflict, Conflict::SettingsChanged { .. }) && !self.has_mountpoint_of_begin() {
            return Err(Stop::Conflict(conflict));
        }
        if !self.overridden.contains(&conflict) {
            self.overridden.push(conflict);
        }
        Ok(())
    }

    /// Whether the old target, under whichever name, has the mountpoint property that the workspace
    /// was made with, or the pin.
    fn has_mountpoint_of_begin(&self) -> bool {
        let Layout { target, workspace, predecessor, .. } = &self.order.layout;
        let (pin, fence) = (self.order.record.pin.as_deref(), self.order.record.fence);
        let own = |name: &DatasetName| {
            let settings = self.engine.settings(name).ok()?.without_pin(pin).without_fence(fence);
            Some(settings.own("mountpoint").cloned())
        };
        let old = own(target).or_else(|| own(predecessor));
        old.is_some() && old == own(workspace)
    }

    /// Whether the target, under the name `at`, is another one than at begin, or has got what a
    /// commit would drop. `base` is the base's full name by now.
    fn conflict(&self, at: &DatasetName, base: &str) -> Result<Option<Conflict>, Fault> {
        self.or_replaced(self.conflict_if_there(at, base))
    }

    /// What was renamed away between two questions is no failure.
    fn or_replaced(
        &self,
        found: Result<Option<Conflict>, Fault>,
    ) -> Result<Option<Conflict>, Fault> {
        match found {
            Err(Fault { errno: Errno::NOENT, .. }) => Ok(Some(self.replaced())),
            found => found,
        }
    }

    pub(super) fn replaced(&self) -> Conflict {
        Conflict::TargetReplaced { target: self.order.layout.target.clone() }
    }

    fn conflict_if_there(&self, at: &DatasetName, base: &str) -> Result<Option<Conflict>, Fault> {
        let settings = match self.look_anew(at)? {
            Ok(settings) => settings,
            Err(conflict) => return Ok(Some(conflict)),
        };
        let newer = self.engine.snapshots_since(at, base)?;
        if let Some(snapshot) = newer.into_iter().find(|name| !is_of_a_transaction(name)) {
            return Ok(Some(Conflict::NewerSnapshot { snapshot }));
        }
        let record = &self.order.record;
        let settings = settings.without_pin(record.pin.as_deref()).without_fence(record.fence);
        let target = self.order.layout.target.clone();
        let as_at_begin = record.settings == Some(settings.fingerprint());
        Ok((!as_at_begin).then_some(Conflict::SettingsChanged { target }))
    }

    /// Promotes the workspace and records that, if the target is still the head that it was cloned
    /// from, nobody has promoted another clone of it (of several commits, one gets past this), and
    /// nothing was written to it.
    pub(super) fn promote(&mut self) -> Result<(), Stop> {
        let result = self.promote_unchanged();
        if result.is_err() {
            let target = self.order.layout.target.clone();
            self.destroy_look(&target)
                .map_err(|fault| Stop::Failed(self.error(Step::DestroyLook, fault)))?;
        }
        result
    }

    fn promote_unchanged(&mut self) -> Result<(), Stop> {
        let target = self.order.layout.target.clone();
        let fail = |stage: &Self, fault| Stop::Failed(stage.error(Step::Promote, fault));
        // What is taken from here on has what is committed.
        self.clear_workspace(Final::Stays).map_err(|fault| fail(self, fault))?;
        let mut demand = !self.order.record.overwrite;
        for look in 0..=LOOKS {
            let since = match self.look {
                Some(_) => snapshot_of(&target, &self.id().look_leaf()),
                None => Ok(self.order.layout.base.clone()),
            };
            let since = since.map_err(|fault| fail(self, fault))?;
            let promoted = self.promote_workspace(demand.then_some(since.as_str()));
            match promoted.map_err(|fault| fail(self, fault))? {
                Promoted::Done => return Ok(()),
                Promoted::Replaced => return Err(Stop::Conflict(self.replaced())),
                Promoted::Busy(base) => {
                    return Err(Stop::Conflict(Conflict::Committing { target, base }));
                }
                Promoted::Newer(snapshot) => {
                    return Err(Stop::Conflict(Conflict::NewerSnapshot { snapshot }));
                }
                Promoted::Written => {}
            }
            let written = self.engine.write_back(&target);
            let base = self.order.layout.base.clone();
            let difference = written.and_then(|()| self.take_look(&target, &base));
            if difference.map_err(|fault| fail(self, fault))? == Difference::Content {
                return Err(Stop::Conflict(Conflict::Modified { target }));
            }
            // It is read all the time, with access times on: what is written from now on is found
            // when the commit is concluded, and kept.
            demand = look + 1 < LOOKS;
        }
        Err(fail(self, Errno::TXTBSY.into()))
    }

    fn promote_workspace(&mut self, since: Option<&str>) -> Result<Promoted, Fault> {
        let Layout { workspace, target, base, .. } = &self.order.layout;
        let mut record = self.order.record.clone();
        record.state = State::Committing;
        record.workspace = self.guids.workspace;
        let (clone, head) = ((workspace, self.guids.workspace), (target, record.target_guid));
        let promoted = self.promote_clone((clone, head), since, &record.encode(), false)?;
        if promoted == Promoted::Done {
            self.base_at = Some(format!("{workspace}@{}", base.leaf()));
            self.order.record = record;
        }
        Ok(promoted)
    }

    pub(super) fn promote_back(&mut self) -> Result<(), Fault> {
        let Layout { workspace, target, base, .. } = &self.order.layout;
        let mut record = self.order.record.clone();
        record.state = State::Open;
        record.workspace = None;
        let (clone, head) = ((target, record.target_guid), (workspace, self.guids.workspace));
        match self.promote_clone((clone, head), None, &record.encode(), true)? {
            Promoted::Done => {}
            _ => return Err(Errno::STALE.into()),
        }
        self.base_at = Some(base.to_string());
        self.order.record = record;
        let target = target.clone();
        self.destroy_look(&target)
    }

    /// Promotes a clone of the base; judges by the state when the call reports a failure. The
    /// head's own origin passes to the promoted clone, so it is the same both ways.
    fn promote_clone(
        &self,
        ((clone, clone_guid), (head, head_guid)): (Named<'_>, Named<'_>),
        since: Option<&str>,
        record: &str,
        undoes: bool,
    ) -> Result<Promoted, Fault> {
        let unknown = || Fault::from(Errno::NOENT);
        let base = self.guids.base.ok_or_else(unknown)?;
        let promotion = Promotion {
            clone: Known { name: clone, guid: clone_guid.ok_or_else(unknown)? },
            head: Known { name: head, guid: head_guid.ok_or_else(unknown)? },
            head_origin: self.order.record.target_origin,
            base: base.guid,
            since,
            record: (&property(self.id()), record),
            undoes,
        };
        let fault = match self.engine.promote(promotion) {
            Ok(promoted) => return Ok(promoted),
            Err(fault) => fault,
        };
        match self.engine.facts(head.as_str()) {
            Ok(Some(Facts { guid, origin: Some(origin), .. }))
                if Some(guid) == head_guid && origin == base =>
            {
                Ok(Promoted::Done)
            }
            _ => Err(fault),
        }
    }

    /// Takes a snapshot of the old head, and says how it differs from the base: the number of bytes written
    /// is a sum, in which one change may hide another.
    pub(super) fn take_look(
        &mut self,
        head: &DatasetName,
        base: &SnapshotName,
    ) -> Result<Difference, Fault> {
        self.destroy_look(head)?;
        let look = snapshot_of(head, &self.id().look_leaf())?;
        let id = self.id().to_string();
        self.engine.snapshot(&look, Some((LOOK, &id)))?;
        self.look = Some(self.id_of_own(&look, LOOK, |value| value == id)?);
        self.engine.difference(&look, base)
    }

    /// The id of a snapshot just taken, which another commit may have moved already: it is known by
    /// its property.
    pub(super) fn id_of_own(
        &self,
        snapshot: &SnapshotName,
        property: &str,
        is_own: impl Fn(&str) -> bool,
    ) -> Result<SnapshotId, Fault> {
        if let Some(facts) = self.engine.facts(snapshot.as_str())? {
            return Ok(facts.id());
        }
        let scope = Scope { target: &self.order.layout.target, above: &[], id: None };
        let found = self.engine.journal(scope)?;
        let mut own = found.iter().filter(|entry| {
            entry.local && entry.property == property && entry.carrier.ends_with(snapshot.leaf())
        });
        let own = own.find(|entry| entry.value.to_str().is_some_and(&is_own));
        Ok(own.ok_or(Errno::NOENT)?.id)
    }

    /// Destroys it wherever it is: the head may have got another name.
    pub(super) fn destroy_look(&mut self, head: &DatasetName) -> Result<(), Fault> {
        let Some(id) = self.look else { return Ok(()) };
        let mut at = snapshot_of(head, &self.id().look_leaf())?.to_string();
        self.destroy_moving(&mut at, id)?;
        self.look = None;
        Ok(())
    }

    /// An inherited mount point is made the target's own, so that it keeps it while its name is
    /// another. One that somebody has set by now is theirs.
    pub(super) fn pin_mountpoint(&self) -> Result<(), Stop> {
        let target = &self.order.layout.target;
        let Some(path) = self.order.record.pin.as_deref() else { return Ok(()) };
        let fail = |fault| Stop::Failed(self.error(Step::PinMountpoint, fault));
        if self.engine.settings(target).map_err(fail)?.own("mountpoint").is_some() {
            return Err(Stop::Conflict(Conflict::SettingsChanged { target: target.clone() }));
        }
        if Some(self.guid_of(target.as_str()).map_err(fail)?) != self.order.record.target_guid {
            return Err(Stop::Conflict(self.replaced()));
        }
        self.engine.set_mountpoint(target, path).map_err(fail)
    }

    /// Whether the target's own mountpoint is the pin.
    pub(super) fn is_pinned(&self) -> Result<bool, Fault> {
        let pin = self.order.record.pin.clone().map(PropertyValue::Text);
        let settings = self.engine.settings(&self.order.layout.target)?;
        Ok(pin.is_some() && settings.own("mountpoint") == pin.as_ref())
    }

    pub(super) fn unpin_mountpoint(&self) -> Result<(), Fault> {
        let target = &self.order.layout.target;
        match self.order.record.target_guid {
            Some(guid) if self.is_pinned()? => self.engine.inherit(target, guid, &["mountpoint"]),
            _ => Ok(()),
        }
    }

    /// Renames the target out of the way. A rename goes by name alone, and things may have happened
    /// since the check: so what was renamed is looked at again, where nobody else looks for it, and
    /// given its name back if it is not as at begin.
    pub(super) fn rename_aside(&mut self) -> Result<(), Stop> {
        let Layout { target, predecessor, workspace, base, .. } = self.order.layout.clone();
        let fail = |stage: &Self, fault| Stop::Failed(stage.error(Step::RenameAside, fault));
        let renamed = self.rename(&target, &predecessor, self.order.record.target_guid);
        renamed.map_err(|fault| fail(self, fault))?;
        let base = format!("{workspace}@{}", base.leaf());
        // The first question, because such a target's key is no longer loaded: the second would say that.
        let found = match self.has_own_root(&workspace) {
            Ok(None) => self.conflict(&predecessor, &base),
            rooted => rooted,
        };
        let Some(conflict) = found.map_err(|fault| fail(self, fault))? else { return Ok(()) };
        self.unless_overridden(conflict).or_else(|stop| {
            let back = self.engine.rename(&predecessor, &target);
            back.map_err(|fault| fail(self, fault))?;
            Err(stop)
        })
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
        if self.order.record.kind == Kind::Init {
            let cleared = self.clear_workspace(Final::Stays);
            cleared.map_err(|fault| Stop::Failed(self.error(Step::RenameIntoPlace, fault)))?;
        }
        let Layout { workspace, target, .. } = &self.order.layout;
        let fail = |fault| Stop::Failed(self.error(Step::RenameIntoPlace, fault));
        if self.order.record.kind == Kind::Init && self.is_taken_aside().map_err(fail)? {
            return Err(Stop::Conflict(Conflict::TargetAppeared { target: target.clone() }));
        }
        match self.rename(workspace, target, self.guids.workspace) {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno == Errno::EXIST && self.order.record.kind == Kind::Init => {
                Err(Stop::Conflict(Conflict::TargetAppeared { target: target.clone() }))
            }
            Err(fault) => Err(Stop::Failed(self.error(Step::RenameIntoPlace, fault))),
        }
    }

    /// Whether the target's name is free only because another commit has not come to its end.
    fn is_taken_aside(&self) -> Result<bool, Fault> {
        let target = &self.order.layout.target;
        let others = cases(self.engine.as_ref(), Scope { target, above: &[], id: None })?;
        let mut records = others.iter().filter_map(|case| case.record.as_ref().ok());
        Ok(records.any(|record| record.state == State::Committing && record.target == *target))
    }

    /// Ends a commit, in one txg: the predecessor goes, unless something was written to it since the
    /// base was taken; the target claims its mount point; the record goes.
    pub(super) fn conclude(&mut self) -> Result<(), Fault> {
        if self.order.is_in_place() {
            return self.conclude_in_place();
        }
        let Layout { target, base, .. } = &self.order.layout;
        if self.order.record.kind == Kind::Init {
            return match self.conclude_with(None)? {
                Concluded::Done(None) => Ok(()),
                Concluded::Done(Some(errno)) | Concluded::Busy(errno) => Err(errno.into()),
                Concluded::Written | Concluded::Replaced => Err(Errno::STALE.into()),
            };
        }
        let base = snapshot_of(target, base.leaf())?;
        self.base_at = Some(base.to_string());
        self.note_changed_settings()?;
        let reason = if self.overridden.is_empty() {
            match self.conclude_without_predecessor(&base)? {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            }
        } else {
            Fault { errno: Errno::TXTBSY, detail: Some(HOLDS_CHANGES.to_owned()) }
        };
        let predecessor = self.order.layout.predecessor.clone();
        self.destroy_look(&predecessor)?;
        match self.conclude_with(None)? {
            Concluded::Done(None) => Ok(()),
            Concluded::Done(Some(_)) => {
                self.keep_predecessor(reason);
                Ok(())
            }
            Concluded::Busy(errno) => Err(errno.into()),
            Concluded::Written | Concluded::Replaced => Err(Errno::STALE.into()),
        }
    }

    /// Says why the predecessor has to be kept, if it has.
    fn conclude_without_predecessor(
        &mut self,
        base: &SnapshotName,
    ) -> Result<Result<(), Fault>, Fault> {
        let predecessor = self.order.layout.predecessor.clone();
        // The last reader's end may write to it: look again, a few times.
        for _ in 0..LOOKS {
            let (since, guid) = self.since(&predecessor, base)?;
            match self.conclude_with(Some((since.as_str(), guid)))? {
                Concluded::Done(None) => return Ok(Ok(())),
                Concluded::Done(Some(errno)) => {
                    self.keep_base(errno);
                    return Ok(Ok(()));
                }
                Concluded::Written => {}
                Concluded::Busy(errno) => {
                    // What was to be compared with may be gone by now, which is no failure.
                    return Ok(Err(errno.into()));
                }
                Concluded::Replaced => return Err(Errno::STALE.into()),
            }
            if self.take_look(&predecessor, base)? == Difference::Content {
                let detail = Some(HOLDS_CHANGES.to_owned());
                return Ok(Err(Fault { errno: Errno::TXTBSY, detail }));
            }
        }
        Ok(Err(Errno::TXTBSY.into()))
    }

    /// Overridden settings are in the predecessor alone, and no comparison of files finds them.
    fn note_changed_settings(&mut self) -> Result<(), Fault> {
        let record = &self.order.record;
        let Layout { target, predecessor, .. } = &self.order.layout;
        if !record.overwrite || self.engine.facts(predecessor.as_str())?.is_none() {
            return Ok(());
        }
        let settings = self.engine.settings(predecessor)?.without_pin(record.pin.as_deref());
        let settings = settings.without_fence(record.fence);
        let conflict = Conflict::SettingsChanged { target: target.clone() };
        // An earlier attempt of plain calls to conclude may have come as far as that.
        let gave_up = record.is_by_plain_calls();
        let as_at_begin = record.settings.is_some_and(|at| settings.had_fingerprint(at, gave_up));
        if !as_at_begin && !self.overridden.contains(&conflict) {
            self.overridden.push(conflict);
        }
        Ok(())
    }

    /// The snapshot since which nothing must have been written to the old head: the one that it was
    /// compared in, or the base.
    fn since(
        &self,
        head: &DatasetName,
        base: &SnapshotName,
    ) -> Result<(SnapshotName, Guid), Fault> {
        match (self.look, self.guids.base) {
            (Some(look), _) => Ok((snapshot_of(head, &self.id().look_leaf())?, look.guid)),
            (None, Some(id)) => Ok((base.clone(), id.guid)),
            (None, None) => Err(Errno::NOENT.into()),
        }
    }

    fn conclude_with(&self, since: Option<(&str, Guid)>) -> Result<Concluded, Fault> {
        let Layout { target, predecessor, missing_parents, .. } = &self.order.layout;
        let guid = self.guids.workspace.ok_or(Errno::NOENT)?;
        let (carrier, carrier_id) = self.carrier().ok_or(Errno::NOENT)?;
        let mut record = self.order.record.clone();
        record.state = if self.overridden.is_empty() { State::Committed } else { State::Kept };
        record.owner = None;
        let marked: Vec<&DatasetName> = match record.kind {
            Kind::Init => missing_parents.iter().chain([target]).collect(),
            Kind::Update => Vec::new(),
        };
        let known = record.target_guid.map(|guid| Known { name: predecessor, guid });
        let conclusion = Conclusion {
            target: Known { name: target, guid },
            gate: self.opens_gate.then_some(&record.gate),
            marked: &marked,
            predecessor: known.map(|known| Predecessor { known, since }),
            carrier: (&carrier, carrier_id),
            property: &property(self.id()),
            committed: &record.encode(),
        };
        let fault = match self.engine.conclude(conclusion) {
            Ok(concluded) => return Ok(concluded),
            Err(fault) => fault,
        };
        // Judge by the state: what removes the record is the last thing that is done.
        let gone = match record.kind {
            Kind::Update => self.is_base_gone(carrier_id),
            Kind::Init => self.record_is_there() == Some(false),
        };
        if gone { Ok(Concluded::Done(None)) } else { Err(fault) }
    }

    pub(super) fn is_base_gone(&self, id: SnapshotId) -> bool {
        let Layout { target, base, .. } = &self.order.layout;
        matches!(self.engine.find_snapshot(target, base.leaf(), id), Ok(None))
    }

    /// Has writes to the target refused.
    pub(super) fn fence(&mut self) -> Result<(), Stop> {
        let target = &self.order.layout.target;
        let fail = |fault| Stop::Failed(self.error(Step::Fence, fault));
        // What says `readonly=on` from now on is the fence.
        if let Some(conflict) = self.refused().map_err(fail)? {
            return Err(Stop::Conflict(conflict));
        }
        if Some(self.guid_of(target.as_str()).map_err(fail)?) != self.order.record.target_guid {
            return Err(Stop::Conflict(self.replaced()));
        }
        for place in self.engine.places(target).map_err(fail)? {
            if place.options.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
                let path = place.path.display();
                let detail = format!("{path} is mounted read-only, which would not be put back");
                return Err(fail(Fault { errno: Errno::ROFS, detail: Some(detail) }));
            }
        }
        // What was stored through a memory mapping could not be written any more.
        self.engine.write_back(target).map_err(fail)?;
        let fenced = self.engine.fence(target);
        // Also when that failed: it may have come about all the same.
        self.fenced = true;
        let target = &self.order.layout.target;
        let fail = |fault| Stop::Failed(self.error(Step::Fence, fault));
        let now = self.engine.facts(target.as_str()).map_err(fail)?;
        let stranger = now.filter(|facts| Some(facts.guid) != self.order.record.target_guid);
        if let (Some(facts), Some(before)) = (stranger, self.order.record.fence) {
            // Another commit came in between, and what was fenced may be its dataset.
            self.engine.unfence(target, facts.guid, before).map_err(fail)?;
            return Err(Stop::Conflict(self.replaced()));
        }
        fenced.map_err(fail)
    }

    /// Allows writes to the old head again, under whichever name it is.
    pub(super) fn unfence(&self) -> Result<(), Fault> {
        let Layout { target, predecessor, .. } = &self.order.layout;
        let (Some(before), Some(guid)) = (self.order.record.fence, self.order.record.target_guid)
        else {
            return Ok(());
        };
        let find = || -> Result<Option<&DatasetName>, Fault> {
            for name in [target, predecessor] {
                if self.engine.is(name.as_str(), guid)? {
                    return Ok(Some(name));
                }
            }
            // Another commit may have renamed the target aside, and may rename it back.
            if self.gone(target.as_str()).is_some() { Err(Errno::BUSY.into()) } else { Ok(None) }
        };
        match patiently(find, |found| matches!(found, Err(Fault { errno: Errno::BUSY, .. }))) {
            Ok(Some(name)) => self.engine.unfence(name, guid, before),
            // It was destroyed, replaced, or renamed by somebody.
            Ok(None) | Err(Fault { errno: Errno::BUSY, .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Keeps a predecessor from being mounted at boot; one that somebody has swept is kept from it.
    pub(super) fn park_predecessor(&self) -> Result<(), Fault> {
        self.unfence()?;
        let predecessor = &self.order.layout.predecessor;
        let Err(fault) = self.engine.keep_from_boot_mounts(predecessor) else { return Ok(()) };
        self.gone(predecessor.as_str()).ok_or(fault)
    }

    /// Destroys a predecessor that an earlier commit had to keep, if by now it can be.
    pub(super) fn destroy_predecessor(&mut self) -> Result<(), Fault> {
        let predecessor = self.order.layout.predecessor.clone();
        let Some(guid) = self.order.record.target_guid else { return Ok(()) };
        for _ in 0..LOOKS {
            self.locate_base()?;
            let Some(base) = self.base_at.clone() else { return Ok(()) };
            let base: SnapshotName = base.parse().map_err(|_| Fault::from(Errno::INVAL))?;
            let (since, since_guid) = self.since(&predecessor, &base)?;
            let since = (since.as_str(), since_guid);
            match self.engine.destroy_unchanged(predecessor.as_str(), guid, since) {
                Ok(_) => {
                    self.look = None;
                    return Ok(());
                }
                Err(Fault { errno: Errno::TXTBSY, .. }) => {}
                Err(fault) => {
                    let gone = self.gone(predecessor.as_str());
                    self.look = self.look.filter(|_| gone.is_none());
                    self.destroy_look(&predecessor)?;
                    return gone.ok_or(fault);
                }
            }
            if self.take_look(&predecessor, &base)? == Difference::Content {
                self.destroy_look(&predecessor)?;
                let detail = Some(HOLDS_CHANGES.to_owned());
                return Err(Fault { errno: Errno::TXTBSY, detail });
            }
        }
        self.destroy_look(&predecessor)?;
        Err(Errno::TXTBSY.into())
    }

    /// Destroys the base, wherever it is, and the record with it.
    pub(super) fn destroy_base(&mut self) -> Result<(), Fault> {
        let Some(id) = self.guids.base else { return Ok(()) };
        let mut at = self.base_at.take().unwrap_or_else(|| self.order.layout.base.to_string());
        let destroyed = self.destroy_moving(&mut at, id);
        self.base_at = destroyed.is_err().then_some(at);
        destroyed
    }

    /// Destroys a snapshot of the target, wherever it is by now: `at` is where it was last.
    fn destroy_moving(&self, at: &mut String, id: SnapshotId) -> Result<(), Fault> {
        for _ in 0..LOOKS {
            let Some(found) = self.locate(at, id)? else { return Ok(()) };
            *at = found;
            match self.engine.destroy(at, id.guid) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) => self.gone(at).ok_or(fault)?,
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Finds out where the base is.
    pub(super) fn locate_base(&mut self) -> Result<(), Fault> {
        let Some(id) = self.guids.base else { return Ok(()) };
        let at = self.base_at.take().unwrap_or_else(|| self.order.layout.base.to_string());
        self.base_at = self.locate(&at, id)?;
        Ok(())
    }

    /// Where a snapshot of the target is that was last seen as `at`: other transactions' commits
    /// rename what has it, or move it.
    fn locate(&self, at: &str, id: SnapshotId) -> Result<Option<String>, Fault> {
        if self.engine.is_snapshot(at, id)? {
            return Ok(Some(at.to_owned()));
        }
        let Some((_, leaf)) = at.split_once('@') else { return Ok(None) };
        self.engine.find_snapshot(&self.order.layout.target, leaf, id)
    }
}
