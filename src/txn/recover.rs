//! Finishes what was interrupted: reads the records, looks at what is there, and carries out what
//! [`aftermath`](crate::txn::aftermath) says.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::{
    Engine, Entry, Facts, Fault, LOOK, MARK, Place, PropertyValue, Scope, Settings, SnapshotId,
    Walk,
};
use crate::errno::Errno;
use crate::error::StepError;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::owner::Fate;
use crate::receipt::{Guid, Strategy};
use crate::recovery::{Condition, Finished, Outcome, Pending, Unfinished};
use crate::txn::aftermath::{Aftermath, Named, Sighting};
use crate::txn::journal::{Fence, Record, State, Unreadable, id_of};
use crate::txn::layout::Layout;
use crate::txn::plan::{Gate, Kind, Plan, Shape, Step};
use crate::txn::stage::{Order, Stage};
use crate::zfs::private_path_of;

/// A record, where it was found, and the marks that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) id: TransactionId,
    pub(crate) record: Result<Record, String>,
    carrier: String,
    /// The carrier's, also where that is a dataset.
    carrier_id: SnapshotId,
    /// Shared by all that bear the id: anybody may make as many of both as there is room for.
    pub(super) marks: Arc<[Entry]>,
    /// Whether the carrier is a container's.
    of_container: bool,
}

/// Every transaction that has a record in `scope`, those first whose end sets others free.
pub(crate) fn cases(engine: &dyn Engine, scope: Scope<'_>) -> Result<Vec<Case>, Fault> {
    Ok(cases_among(engine, &engine.journal(scope)?))
}

/// The same for a dataset and everything below it, and what could not be looked at.
pub(crate) fn cases_below(engine: &dyn Engine, below: &DatasetName) -> Result<Seen, Fault> {
    let Walk { mut entries, unread } = engine.walk(below)?;
    let moved = drop_moved(engine, &mut entries);
    let unread = unread.into_iter().map(|(subject, fault)| not_looked_at(subject, fault));
    Ok(Seen { cases: cases_among(engine, &entries), unread: unread.collect(), moved })
}

/// What tells a case from every other: two records may bear one id.
pub(crate) type Key = (TransactionId, SnapshotId, String);

/// What a walk has seen.
pub(crate) struct Seen {
    pub(crate) cases: Vec<Case>,
    /// What could not be looked at.
    pub(crate) unread: Vec<StepError>,
    /// Where there is nothing any more by now.
    pub(crate) moved: Vec<Key>,
}

/// What moved during a walk may have been seen twice, under both names. Of those that are still there, each is another
/// one: two copies that were made in one txg have one [`SnapshotId`].
fn drop_moved(engine: &dyn Engine, entries: &mut Vec<Entry>) -> Vec<Key> {
    // The one that was seen last stays in any case: nothing is overlooked that moved once more.
    let last: HashMap<SnapshotId, String> =
        entries.iter().map(|entry| (entry.id, entry.carrier.clone())).collect();
    let mut known = HashMap::new();
    let mut moved = Vec::new();
    entries.retain(|Entry { carrier, id, property, .. }| {
        if last.get(id) == Some(carrier) {
            return true;
        }
        let is_gone = *known
            .entry((*id, carrier.clone()))
            .or_insert_with(|| engine.is_snapshot(carrier, *id) == Ok(false));
        let of = id_of(property).filter(|_| is_gone);
        moved.extend(of.map(|transaction| (transaction, *id, carrier.clone())));
        !is_gone
    });
    moved
}

/// Something could not be looked at.
pub(crate) fn not_looked_at(subject: String, Fault { errno, detail }: Fault) -> StepError {
    StepError { step: Step::Look, subject, errno, detail }
}

/// The datasets above a target that may be looked at, the nearest first.
pub(crate) fn above(
    target: &DatasetName,
    may_look_at: impl Fn(&DatasetName) -> bool,
) -> Vec<DatasetName> {
    std::iter::successors(target.parent(), DatasetName::parent).take_while(may_look_at).collect()
}

fn cases_among(engine: &dyn Engine, entries: &[Entry]) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut marks_of: HashMap<&OsStr, Vec<Entry>> = HashMap::new();
    let is_mark = |entry: &&Entry| entry.local && [MARK, LOOK].contains(&entry.property.as_str());
    for mark in entries.iter().filter(is_mark) {
        marks_of.entry(&mark.value).or_default().push(mark.clone());
    }
    let marks_of: HashMap<&OsStr, Arc<[Entry]>> =
        marks_of.into_iter().map(|(id, marks)| (id, marks.into())).collect();
    let mut zoned = HashMap::new();
    for entry in entries {
        let Some(id) = id_of(&entry.property) else { continue };
        let record = match entry.local {
            true => read(entry),
            false => Err("it was copied here by a receive".to_owned()),
        };
        let marks = marks_of.get(OsStr::new(&id.to_string())).cloned().unwrap_or_default();
        let (record, of_container) = match record {
            Ok(record) => match is_of_container(engine, entry, &record, &mut zoned) {
                Ok(of_container) => (Ok(record), of_container),
                Err(fault) => {
                    (Err(format!("whose it is can't be found out: {}", fault.errno)), true)
                }
            },
            Err(reason) => (Err(reason), true),
        };
        let (carrier, carrier_id) = (entry.carrier.clone(), entry.id);
        cases.push(Case { id, record, carrier, carrier_id, marks, of_container });
    }
    cases.sort_by_key(|case| match case.record.as_ref().map(|record| record.state) {
        Ok(State::Open | State::Detached | State::RolledBack) => 0,
        Ok(State::Committing) => 1,
        Ok(State::Committed | State::Kept) => 2,
        Err(_) => 3,
    });
    cases
}

/// The record, if it can be relied on where it is.
fn read(entry: &Entry) -> Result<Record, String> {
    let record = Record::decode(&entry.property, &entry.value);
    let record = record.map_err(|error: Unreadable| error.to_string())?;
    let fits = match (record.kind, entry.carrier.split_once('@')) {
        (Kind::Update, Some((_, leaf))) => leaf == record.id.base_leaf(),
        (Kind::Init, None) => true,
        _ => false,
    };
    if fits { Ok(record) } else { Err("it is not where it was written to".to_owned()) }
}

/// Whether a record is a container's: root in there may write what it likes, and nothing must follow from it
/// that root in there could not do. An update's record may be on a dataset that a commit has closed in the
/// same way, until it is concluded; a dataset that was given to a container looks no different. What counts
/// is the dataset above: it is the host's, and so is what was made beside the target.
fn is_of_container(
    engine: &dyn Engine,
    entry: &Entry,
    record: &Record,
    known: &mut HashMap<DatasetName, bool>,
) -> Result<bool, Fault> {
    let name = entry.carrier.split('@').next().unwrap_or_default();
    let holder = name.parse::<DatasetName>().ok();
    let asked = match record.kind {
        Kind::Init => holder,
        Kind::Update => holder.and_then(|holder| holder.parent()),
    };
    let Some(asked) = asked else {
        // A pool's root has nothing above it.
        return Ok(record.kind == Kind::Init || name.contains('/'));
    };
    if let Some(zoned) = known.get(&asked) {
        return Ok(*zoned);
    }
    let zoned = is_zoned(engine, &asked)?;
    known.insert(asked, zoned);
    Ok(zoned)
}

/// What isn't there under its name may be a container's, whose root may rename it at any moment.
fn is_zoned(engine: &dyn Engine, dataset: &DatasetName) -> Result<bool, Fault> {
    match engine.settings(dataset) {
        Ok(settings) => Ok(settings.zoned),
        Err(fault) if fault.errno == Errno::NOENT => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Whether the commit's own gate makes its target look like a container's.
fn is_zoning(record: &Record) -> bool {
    record.gate.iter().any(|property| property == "zoned")
}

impl Case {
    /// See [`Key`].
    pub(crate) fn key(&self) -> Key {
        (self.id, self.carrier_id, self.carrier.clone())
    }

    pub(crate) fn is_on_snapshot(&self) -> bool {
        self.carrier.contains('@')
    }

    pub(crate) fn condition(&self) -> Condition {
        let record = match &self.record {
            Ok(record) => record,
            Err(reason) => return Condition::Unreadable { reason: reason.clone() },
        };
        // In there, no dataset is closed by what has a container mount it.
        if self.of_container && is_zoning(record) {
            return Condition::OfContainer;
        }
        let owner = || record.owner.as_ref().map(|owner| (owner.fate(self.id), owner.pid()));
        match record.state {
            State::Detached => Condition::Detached,
            State::Committed | State::Kept | State::RolledBack => Condition::Leftover,
            State::Open | State::Committing => match owner() {
                Some((Fate::Alive, pid)) => Condition::Open { pid },
                Some((Fate::Unknown, pid)) => Condition::OutOfSight { pid },
                Some((Fate::Dead, _)) | None => Condition::Interrupted,
            },
        }
    }

    /// What recovery would find, and do about it.
    pub(crate) fn pending(
        &self,
        engine: &Arc<dyn Engine>,
        is_allowed: impl Fn(&DatasetName) -> bool,
    ) -> Pending {
        let mut pending = self.left_alone();
        if pending.condition.is_to_be_finished() {
            let prospect = self.prospect(engine, is_allowed, true);
            if let Ok(Prospect { survey, .. }) = &prospect {
                pending.target = Some(survey.stage.order.layout.target.clone());
            }
            let outlook = prospect.map(|prospect| prospect.outcome);
            pending.outlook = Some(outlook.map_err(|refusal| refusal.reason));
        }
        pending
    }

    /// What the record says.
    pub(crate) fn left_alone(&self) -> Pending {
        let record = self.record.as_ref().ok();
        let begun = |record: &Record| SystemTime::UNIX_EPOCH + Duration::from_secs(record.begun);
        Pending {
            id: self.id,
            carrier: self.carrier.clone(),
            target: record.map(|record| record.target.clone()),
            kind: record.map(|record| record.kind),
            begun: record.map(begun),
            condition: self.condition(),
            outlook: None,
        }
    }

    /// How it stands by now, at one moment: others may have moved or changed it since it was found, and so may the
    /// end of another one on the same target. `None`: it is gone.
    pub(crate) fn again(
        &self,
        engine: &dyn Engine,
        may_look_at: impl Fn(&DatasetName) -> bool,
    ) -> Result<Option<Self>, Fault> {
        let Ok(record) = &self.record else { return Ok(Some(self.clone())) };
        let target = self.target(engine, record)?;
        let above = above(&target, may_look_at);
        let id = Some(self.id);
        let mut entries = engine.journal(Scope { target: &target, above: &above, id })?;
        let mut found = cases_among(engine, &entries);
        found.retain(|found| found.carrier_id == self.carrier_id);
        if let Some(at) = found.iter().position(|found| found.carrier == self.carrier) {
            return Ok(Some(found.swap_remove(at)));
        }
        // A target that was renamed is not named after itself any more, but what was made beside it is.
        let holder = self.carrier.split_once('@').and_then(|(name, _)| name.parse().ok());
        if let Some(holder) = holder.filter(|_| self.is_there(engine) == Ok(true)) {
            entries.extend(engine.journal(Scope { target: &holder, above: &[], id })?);
            let found = cases_among(engine, &entries);
            return Ok(found.into_iter().find(|found| found.key() == self.key()));
        }
        // Its carrier may have got another name.
        Ok(found.pop())
    }

    /// Whether its carrier is where it was found.
    pub(crate) fn is_there(&self, engine: &dyn Engine) -> Result<bool, Fault> {
        engine.is_snapshot(&self.carrier, self.carrier_id)
    }

    /// What is there of it, and the stage to act on it; `None` for a record that can't be read.
    pub(crate) fn survey(&self, engine: &Arc<dyn Engine>) -> Result<Option<Survey>, Fault> {
        self.look(engine, false)
    }

    /// Who merely `asks` has nothing mounted for it.
    fn look(&self, engine: &Arc<dyn Engine>, asks: bool) -> Result<Option<Survey>, Fault> {
        let Ok(record) = &self.record else { return Ok(None) };
        let target = self.target(engine.as_ref(), record)?;
        Survey::new(Arc::clone(engine), self, record.clone(), &target, asks).map(Some)
    }

    /// What is there of it, and what is to be done: nothing unless all of its names are allowed.
    fn prospect(
        &self,
        engine: &Arc<dyn Engine>,
        is_allowed: impl Fn(&DatasetName) -> bool,
        asks: bool,
    ) -> Result<Prospect, Refusal> {
        let refusal = |reason: &str| Refusal { reason: reason.to_owned(), error: None };
        let survey = self.look(engine, asks).map_err(|fault| self.failed(fault))?;
        let survey = survey.ok_or_else(|| refusal("its record can't be read"))?;
        if let Some(what) = &survey.undecided {
            return Err(refusal(&format!("recovery looks at it first: it depends on {what}")));
        }
        let layout = &survey.stage.order.layout;
        if !layout.datasets().all(is_allowed) {
            return Err(refusal("it is outside of what this handle is confined to"));
        }
        if self.carrier.starts_with(&format!("{}@", layout.predecessor)) {
            return Err(refusal("the predecessor was promoted by somebody, and is theirs now"));
        }
        let (mut steps, outcome) = match survey.sighting.aftermath() {
            Aftermath::Forward(steps) => (steps, Outcome::Committed),
            Aftermath::Back(steps) => (steps, Outcome::RolledBack),
            Aftermath::Sweep(steps) => (steps, Outcome::Swept),
            Aftermath::Stuck(reason) => return Err(refusal(reason)),
        };
        // Its mounts are nowhere here.
        steps.retain(|step| !(survey.of_container && *step == Step::UnmountWorkspace));
        Ok(Prospect { survey, steps, outcome })
    }

    fn failed(&self, fault: Fault) -> Refusal {
        not_looked_at(self.carrier.clone(), fault).into()
    }

    /// Finishes it, forward or back.
    pub(crate) fn finish(
        &self,
        engine: &Arc<dyn Engine>,
        is_allowed: impl Fn(&DatasetName) -> bool,
    ) -> Result<Finished, Box<Unfinished>> {
        self.act(engine, is_allowed).map_err(|refusal| Box::new(self.refused(refusal)))
    }

    /// That how it stands could not be found out.
    pub(crate) fn not_looked_at(&self, fault: Fault) -> Unfinished {
        self.refused(self.failed(fault))
    }

    fn refused(&self, Refusal { reason, error }: Refusal) -> Unfinished {
        let outlook = Some(Err(reason.clone()));
        Unfinished { pending: Pending { outlook, ..self.left_alone() }, reason, error }
    }

    fn act(
        &self,
        engine: &Arc<dyn Engine>,
        is_allowed: impl Fn(&DatasetName) -> bool,
    ) -> Result<Finished, Refusal> {
        let fault = |fault| self.failed(fault);
        let Prospect { mut survey, steps, outcome } = self.prospect(engine, is_allowed, false)?;
        tracing::info!(id = %self.id, target = %survey.stage.order.layout.target, ?outcome, "recover");
        let mut unmounted = None;
        let unpinned = survey.is_between_unpinned();
        survey.unmount_stray_predecessor().map_err(fault)?;
        match outcome {
            Outcome::RolledBack => survey.unmount_strays().map_err(fault)?,
            Outcome::Committed | Outcome::Swept => {
                survey.drop_look().map_err(fault)?;
                match survey.adopt_mounts() {
                    Err(failed) if survey.sighting.kind == Kind::Init => {
                        unmounted = Some(survey.stage.error(Step::PrepareMounts, failed));
                    }
                    adopted => adopted.map_err(fault)?,
                }
                survey.replay_predecessor().map_err(fault)?;
                if outcome == Outcome::Swept {
                    survey.park_predecessor().map_err(fault)?;
                }
            }
        }
        let stage = &mut survey.stage;
        // Nothing of the old content is seen in their stead, and what is missing may be so for good.
        let fresh = stage.prepared.iter().all(|(_, mount)| mount.place.replaces.is_none());
        let mut leftovers = Vec::new();
        for step in steps {
            let Err(error) = stage.finish(step) else { continue };
            // A parent that others use by now is theirs.
            match (step, stage.leftover(&error)) {
                // The content is there; what can't be found out is which of it is read as old.
                (Step::SwapMounts, _) if fresh => {
                    tracing::warn!(%error, "the target is not mounted");
                    unmounted = Some(error);
                }
                (Step::LetGoOfPages, _) => tracing::warn!(%error, "cached pages may be left"),
                (Step::DestroyParent(_), Some(leftover)) => leftovers.push(leftover),
                _ => return Err(error.into()),
            }
        }
        if unpinned && outcome == Outcome::RolledBack {
            survey.mount_target().map_err(fault)?;
        }
        let stage = &mut survey.stage;
        if stage.keeps_predecessor() {
            stage.finish(Step::ParkPredecessor)?;
        }
        leftovers.append(&mut stage.kept);
        let target = stage.order.layout.target.clone();
        Ok(Finished { id: self.id, target, outcome, leftovers, unmounted })
    }

    /// Whether a dataset is a clone of what carries the record.
    fn is_origin(&self, of: &Facts) -> bool {
        of.origin == Some(self.carrier_id)
    }

    /// The target's name by now: the datasets above may have been renamed, and the record with them.
    fn target(&self, engine: &dyn Engine, record: &Record) -> Result<DatasetName, Fault> {
        let moved = match record.kind {
            Kind::Update => {
                let base = self.carrier.parse::<SnapshotName>().ok();
                let above = base.and_then(|base| base.dataset().parent());
                above.map(|above| format!("{above}/{}", record.target.leaf()))
            }
            Kind::Init => {
                let parts: Vec<&str> = record.target.as_str().rsplit('/').collect();
                let below = parts.into_iter().take(record.missing_parents + 1);
                let name = below.fold(String::new(), |name, part| format!("/{part}{name}"));
                Some(format!("{}{name}", self.carrier))
            }
        };
        let moved = moved.and_then(|name| name.parse::<DatasetName>().ok()).ok_or_else(|| {
            let detail = format!("{} where the record is by now has no name", record.target.leaf());
            Fault { errno: Errno::INVAL, detail: Some(detail) }
        })?;
        if moved == record.target {
            return Ok(moved);
        }
        // The target itself may have been renamed, away from its workspace.
        let workspace = record.target.with_suffix(&self.id.workspace_suffix());
        let stays = match workspace {
            Ok(workspace) => engine.facts(workspace.as_str()).ok().flatten(),
            Err(_) => None,
        };
        let stays = stays.is_some_and(|facts| self.is_origin(&facts));
        Ok(if stays { record.target.clone() } else { moved })
    }
}

/// What is to be done about a transaction.
struct Prospect {
    survey: Survey,
    steps: Vec<Step>,
    outcome: Outcome,
}

/// Why nothing is done, or no more.
struct Refusal {
    reason: String,
    error: Option<StepError>,
}

impl From<StepError> for Refusal {
    fn from(error: StepError) -> Self {
        Self { reason: error.to_string(), error: Some(error) }
    }
}

/// What there is of a transaction, and the stage on which it is finished.
pub(crate) struct Survey {
    pub(crate) sighting: Sighting,
    pub(crate) stage: Stage,
    /// Whether all of it is a container's: nothing of it is mounted here, or unmounted.
    of_container: bool,
    /// What only recovery looks at, as that takes a mount.
    undecided: Option<String>,
}

impl Survey {
    fn new(
        engine: Arc<dyn Engine>,
        case: &Case,
        record: Record,
        target: &DatasetName,
        asks: bool,
    ) -> Result<Self, Fault> {
        let mut missing = Vec::new();
        let mut above = target.parent();
        for _ in 0..record.missing_parents {
            let Some(parent) = above else { break };
            above = parent.parent();
            missing.insert(0, parent);
        }
        let layout = Layout::new(target, record.id, record.final_leaf.as_deref(), missing, 0)
            .map_err(|error| Fault { errno: Errno::INVAL, detail: Some(error.to_string()) })?;
        let (kind, state) = (record.kind, record.state);
        let shape = Shape {
            kind,
            strategy: record.strategy,
            missing_parents: record.missing_parents,
            permissions: false,
            ownership: record.ownership.is_some(),
            final_snapshot: record.final_leaf.is_some(),
            pinned: record.pin.is_some(),
            fence: record.fence.is_some(),
        };
        let ancestor = match kind {
            Kind::Init => case.carrier.parse().ok().map(|name| (name, case.carrier_id)),
            Kind::Update => None,
        };
        let order = Order {
            private_path: private_path_of(&record),
            plan: Plan::new(shape),
            properties: Vec::new(),
            new_mounts: Vec::new(),
            layout,
            ancestor,
            record,
        };
        let parents = order.layout.missing_parents.len();
        let stage = Stage::new(engine, order);
        let sighting = Sighting {
            kind,
            strategy: stage.order.record.strategy,
            state,
            target: Named::Nothing,
            workspace: false,
            predecessor: false,
            promoted: false,
            pinned: false,
            fenced: false,
            look: false,
            unproven: false,
            parents,
        };
        let of_container = case.of_container;
        let mut survey = Self { sighting, stage, of_container, undecided: None };
        match kind {
            Kind::Init => survey.see_init(case, asks)?,
            Kind::Update => {
                survey.find_renamed(case)?;
                survey.see_update(case)?;
                survey.see_received()?;
            }
        }
        Ok(survey)
    }

    fn see_init(&mut self, case: &Case, asks: bool) -> Result<(), Fault> {
        let Self { sighting, stage, .. } = self;
        let Layout { target, workspace, missing_parents, .. } = &stage.order.layout;
        let marked = |name: &DatasetName| {
            let mark = case.marks.iter().find(|m| m.property == MARK && m.carrier == name.as_str());
            mark.map(|mark| mark.id.guid)
        };
        stage.guids.parents = missing_parents.iter().map(marked).collect();
        let at_target = stage.engine.facts(target.as_str())?;
        let at_workspace = stage.engine.facts(workspace.as_str())?;
        // What is in a parent that somebody else has made is somebody else's.
        let mut foreign = false;
        for (parent, made) in missing_parents.iter().zip(&stage.guids.parents) {
            foreign |= made.is_none() && stage.engine.facts(parent.as_str())?.is_some();
        }
        sighting.target = match &at_target {
            None => Named::Nothing,
            // The marks go before the record, and the gate is open by then.
            Some(_) if sighting.state == State::Committed => {
                stage.opens_gate = false;
                Named::New
            }
            Some(_) if marked(target).is_some() && !foreign => Named::New,
            Some(_) => Named::Other,
        };
        let is_own = match &at_workspace {
            Some(facts) if facts.origin.is_some() || facts.volume => false,
            Some(_) if marked(workspace).is_some() => true,
            // It was interrupted between the two txgs of its making: nobody has written to it.
            Some(_) if !foreign && asks => {
                self.undecided = Some(format!("whether {workspace} is empty"));
                false
            }
            Some(_) if !foreign => stage.engine.is_empty(workspace)?,
            _ => false,
        };
        sighting.workspace = is_own;
        stage.guids.workspace = match sighting.target {
            Named::New => at_target.map(|facts| facts.guid),
            _ => at_workspace.filter(|_| is_own).map(|facts| facts.guid),
        };
        Ok(())
    }

    /// Who writes to a dataset can write a record on it. So of what the record says, that counts which the
    /// datasets say by themselves: the one that holds the base, and clones of the base.
    fn see_update(&mut self, case: &Case) -> Result<(), Fault> {
        let Self { sighting, stage, .. } = self;
        let Layout { target, workspace, predecessor, .. } = &stage.order.layout;
        let record = &stage.order.record;
        let facts = |name: &DatasetName| stage.engine.facts(name.as_str());
        let guid = |facts: &Option<Facts>| facts.as_ref().map(|facts| facts.guid);
        let holder = case.carrier.split('@').next().unwrap_or_default();
        let holds = |name: &DatasetName| holder == name.as_str();
        let holder_name = holder.parse::<DatasetName>().ok();
        let holder_stem = holder_name.as_ref().map_or(holder, DatasetName::stem);
        let is_clone =
            |facts: &Option<Facts>| facts.as_ref().is_some_and(|facts| case.is_origin(facts));
        stage.guids.base = Some(case.carrier_id);
        stage.base_at = Some(case.carrier.clone());

        let (at_target, at_workspace) = (facts(target)?, facts(workspace)?);
        // Another commit that was promoted has the base, until that is taken back.
        let has_clone = is_clone(&at_workspace);
        let is_anothers = holder_stem == target.as_str() && has_clone;
        let is_proven = holds(target) || is_clone(&at_target) || is_anothers;
        sighting.target = match guid(&at_target) {
            None => Named::Nothing,
            some if some == record.target_guid && is_proven => Named::Old,
            some if some == record.workspace && holds(target) => Named::New,
            Some(_) => Named::Other,
        };
        let is_holder = holds(workspace) && guid(&at_workspace) == record.workspace;
        sighting.workspace = at_workspace.is_some() && (has_clone || is_holder);
        sighting.promoted = match sighting.target {
            Named::New => true,
            _ => sighting.workspace && is_holder,
        };
        let at_predecessor = facts(predecessor)?;
        sighting.predecessor =
            is_clone(&at_predecessor) && guid(&at_predecessor) == record.target_guid;
        stage.guids.workspace = match sighting.target {
            Named::New => guid(&at_target),
            _ => sighting.workspace.then(|| guid(&at_workspace)).flatten(),
        };
        let old = match (sighting.target, sighting.predecessor) {
            (Named::Old, _) => Some(target),
            (_, true) => Some(predecessor),
            _ => None,
        };
        // The mount point is pinned after the promote: the old target is a clone by then.
        let pin = record.pin.as_ref().filter(|_| sighting.promoted);
        if let (Some(old), Some(pin), State::Committing) = (old, pin, record.state) {
            let settings = stage.engine.settings(old)?;
            sighting.pinned = settings.own("mountpoint") == Some(&PropertyValue::Text(pin.clone()));
        }
        let ended = matches!(sighting.state, State::Committed | State::Kept);
        let may_be_fenced = !(ended && record.strategy == Strategy::InPlace);
        if let (Some(old), Some(fence)) = (old.filter(|_| may_be_fenced), record.fence) {
            let settings = stage.engine.settings(old)?;
            let own = settings.own("readonly");
            // It is put back in two txgs: `off`, and then inherited.
            let half = fence == Fence::Inherited && own.is_some();
            sighting.fenced = own == Some(&PropertyValue::Number(1)) || half;
        }
        if sighting.target == Named::New && !sighting.predecessor {
            let settings = stage.engine.settings(target)?;
            stage.opens_gate = false;
            sighting.unproven |= !ended && is_closed(record, &settings);
        }
        // A workspace, or a predecessor, is made by who may make datasets beside the target.
        sighting.unproven |= sighting.fenced && !sighting.workspace && !sighting.predecessor;
        // Another commit may have moved it, to its own workspace or predecessor, and somebody may have renamed the
        // target since, away from what is proven to be of this transaction; nobody to whom the holder
        // belongs says anything of the snapshots of others.
        let look_leaf = format!("@{}", case.id.look_leaf());
        let is_look = |mark: &&Entry| {
            let dataset = mark.carrier.strip_suffix(&look_leaf);
            let dataset = dataset.and_then(|name| name.parse::<DatasetName>().ok());
            let is_own = |name: &DatasetName| {
                name.stem() == holder_stem
                    || (sighting.predecessor && name == predecessor)
                    || (sighting.workspace && name == workspace)
            };
            mark.property == LOOK && dataset.is_some_and(|name| is_own(&name))
        };
        let look = case.marks.iter().find(is_look);
        sighting.look = look.is_some();
        stage.look = look.map(|look| look.id);
        Ok(())
    }

    /// Somebody may have renamed a target, away from its workspace; its snapshots go with it.
    fn find_renamed(&mut self, case: &Case) -> Result<(), Fault> {
        let Self { stage, .. } = self;
        let Ok(base) = case.carrier.parse::<SnapshotName>() else { return Ok(()) };
        let holder = base.dataset();
        let guid = stage.engine.facts(holder.as_str())?.map(|facts| facts.guid);
        if stage.order.is_in_place() && guid == stage.order.record.target_guid {
            stage.order.layout.target = holder;
            stage.order.layout.base = base;
        }
        Ok(())
    }

    /// In place, the target is the new one once it has the snapshot that was sent.
    fn see_received(&mut self) -> Result<(), Fault> {
        let Self { sighting, stage, .. } = self;
        if !stage.order.is_in_place() {
            return Ok(());
        }
        let Layout { target, workspace, final_leaf, .. } = &stage.order.layout;
        stage.guids.workspace = match sighting.workspace {
            true => stage.engine.facts(workspace.as_str())?.map(|facts| facts.guid),
            false => None,
        };
        // What another target has is not its own.
        if !matches!(sighting.target, Named::Old | Named::New) {
            return Ok(());
        }
        let Some(leaf) = stage.order.final_leaf() else { return Ok(()) };
        let guid = |dataset: &DatasetName| -> Result<Option<Guid>, Fault> {
            let facts = stage.engine.facts(&format!("{dataset}@{leaf}"))?;
            Ok(facts.map(|facts| facts.guid))
        };
        let (sent, received) = (guid(workspace)?, guid(target)?);
        // A name with the id in it is nobody else's.
        let known = sent.or(received.filter(|_| final_leaf.is_none()));
        if sighting.target == Named::Old && received.is_some() && received == known {
            sighting.target = Named::New;
        }
        stage.guids.final_snapshot = known;
        Ok(())
    }

    /// A snapshot that was taken to compare says nothing: its maker may have ended before comparing.
    fn drop_look(&mut self) -> Result<(), Fault> {
        // In place, the conclusion does, or keeps it.
        if self.stage.order.is_in_place() {
            return Ok(());
        }
        let predecessor = self.stage.order.layout.predecessor.clone();
        self.stage.destroy_look(&predecessor)
    }

    /// The mounts that are still the old content's, or, of an init, not there yet. Once a commit is
    /// concluded, the predecessor may be mounted elsewhere, to be looked at.
    fn adopt_mounts(&mut self) -> Result<(), Fault> {
        if self.of_container {
            return Ok(());
        }
        let stage = &mut self.stage;
        let layout = &stage.order.layout;
        let mut prepared = Vec::new();
        match stage.order.record.kind {
            Kind::Update if self.sighting.target != Named::New || stage.order.is_in_place() => {}
            Kind::Update => {
                let mut places = stage.engine.places(&layout.predecessor)?;
                let ended = matches!(self.sighting.state, State::Committed | State::Kept);
                if ended {
                    let facts = stage.engine.facts(layout.target.as_str())?;
                    let path = facts.map(|facts| facts.mountpoint);
                    places.retain(|place| Some(&place.path) == path.as_ref());
                }
                // Killed between the old mount's end and the new one's begin, it is mounted nowhere.
                let mut own = stage.engine.places(&layout.target)?;
                own.retain(|place| place.path != stage.order.private_path);
                let gated = !stage.order.record.gate.is_empty();
                if !ended
                    && places.is_empty()
                    && own.is_empty()
                    && gated
                    && stage.opens_gate
                    && !is_another_containers(stage, &layout.target)?
                {
                    let options = stage.engine.mount_options(&layout.target)?;
                    places.push(Place::new(None, PathBuf::new(), options));
                }
                for place in places {
                    let mount = stage.engine.prepare_mount(&layout.target, place)?;
                    prepared.push((layout.target.clone(), mount));
                }
            }
            Kind::Init => {
                let parents = layout.missing_parents.iter().zip(&stage.guids.parents);
                let made = parents.filter(|(_, made)| made.is_some()).map(|(name, _)| name);
                for dataset in made.chain([&layout.target]) {
                    let facts = stage.engine.facts(dataset.as_str())?;
                    let claims = facts.is_some_and(|facts| facts.mountpoint.is_absolute());
                    // The private mount is no mount of the target's.
                    let mut places = stage.engine.places(dataset)?;
                    places.retain(|place| place.path != stage.order.private_path);
                    // What no boot would mount is mounted only where it was the commit that closed it.
                    let settings = stage.engine.settings(dataset)?;
                    let is_to_be = settings.claim.is_some()
                        || (stage.opens_gate && is_closed(&stage.order.record, &settings));
                    if claims
                        && is_to_be
                        && places.is_empty()
                        && !is_another_containers(stage, dataset)?
                    {
                        let options = stage.engine.mount_options(dataset)?;
                        let place = Place::new(None, PathBuf::new(), options);
                        let mount = stage.engine.prepare_mount(dataset, place)?;
                        prepared.push((dataset.clone(), mount));
                    }
                }
            }
        }
        stage.prepared = prepared;
        Ok(())
    }

    /// What was synced to the predecessor just before a crash is not in a snapshot, nor counted as
    /// written, until it is mounted.
    fn replay_predecessor(&self) -> Result<(), Fault> {
        let (engine, predecessor) = (&self.stage.engine, &self.stage.order.layout.predecessor);
        if self.sighting.predecessor && engine.places(predecessor)?.is_empty() {
            engine.write_back(predecessor)?;
        }
        Ok(())
    }

    /// A crash between conclusion and parking leaves a predecessor that a boot mounts under its own
    /// name. Once parked it is mounted only by somebody who wants to look at it.
    fn park_predecessor(&self) -> Result<(), Fault> {
        let (engine, predecessor) = (&self.stage.engine, &self.stage.order.layout.predecessor);
        if !self.sighting.predecessor || self.of_container {
            return Ok(());
        }
        let Some(path) = engine.settings(predecessor)?.claim else { return Ok(()) };
        let facts = engine.facts(predecessor.as_str())?;
        // With the pool's alternate root, where it has one.
        let path = facts.map_or(path, |facts| facts.mountpoint);
        for place in engine.places(predecessor)? {
            if place.path == path {
                engine.unmount_stray(&place)?;
            }
        }
        // Last: what says that the mount is nobody's is that it is not parked.
        engine.keep_from_boot_mounts(predecessor)
    }

    /// Whether a target that inherits its mount point may have lost it with its name.
    fn is_between_unpinned(&self) -> bool {
        self.sighting.is_between() && self.stage.order.record.is_by_plain_calls()
    }

    /// A boot mounts such a target under the predecessor's name.
    fn unmount_stray_predecessor(&self) -> Result<(), Fault> {
        let (engine, predecessor) = (&self.stage.engine, &self.stage.order.layout.predecessor);
        if !self.is_between_unpinned() || !self.sighting.predecessor || self.of_container {
            return Ok(());
        }
        let facts = engine.facts(predecessor.as_str())?;
        let own = facts.map(|facts| facts.mountpoint);
        let own = own.filter(|path| path.file_name() == Some(predecessor.leaf().as_ref()));
        for place in engine.places(predecessor)? {
            if Some(&place.path) == own.as_ref() {
                engine.unmount_stray(&place)?;
            }
        }
        Ok(())
    }

    /// Mounts a target that is mounted nowhere where a boot would have, had it had its name.
    fn mount_target(&self) -> Result<(), Fault> {
        let (engine, target) = (&self.stage.engine, &self.stage.order.layout.target);
        let claims = engine.settings(target)?.claim.is_some();
        if !claims || self.of_container || !engine.places(target)?.is_empty() {
            return Ok(());
        }
        let Some(facts) = engine.facts(target.as_str())? else { return Ok(()) };
        let options = engine.mount_options(target)?;
        let place = Place::new(None, facts.mountpoint, options);
        engine.attach(engine.prepare_mount(target, place)?).map(drop)
    }

    /// A boot mounts a workspace that has not got its properties yet, and the parents that an init
    /// transaction has created.
    fn unmount_strays(&self) -> Result<(), Fault> {
        let stage = &self.stage;
        if self.sighting.target == Named::New || self.of_container {
            return Ok(());
        }
        let workspace = self.sighting.workspace.then_some(&stage.order.layout.workspace);
        for place in workspace.map_or(Ok(Vec::new()), |name| stage.engine.places(name))? {
            if place.path != stage.order.private_path {
                stage.engine.unmount_stray(&place)?;
            }
        }
        let parents = stage.order.layout.missing_parents.iter().zip(&stage.guids.parents);
        for (parent, _) in parents.rev().filter(|(_, made)| made.is_some()) {
            for place in stage.engine.places(parent)? {
                stage.engine.unmount_unused(parent, &place)?;
            }
        }
        Ok(())
    }
}

/// Whether it is the container that mounts a dataset, and not this process; the commit's own gate, which
/// looks the same, is not meant.
fn is_another_containers(stage: &Stage, dataset: &DatasetName) -> Result<bool, Fault> {
    // Asked by names, at the moment: nobody in a container can take a name out of it.
    if let Some(above) = dataset.parent() {
        if is_zoned(stage.engine.as_ref(), &above)? {
            return Ok(true);
        }
    }
    let gated = stage.opens_gate && is_zoning(&stage.order.record);
    Ok(!gated && stage.engine.settings(dataset)?.zoned)
}

/// Whether a dataset has any of the properties by which the record's gate is closed.
fn is_closed(record: &Record, settings: &Settings) -> bool {
    let gate = Gate { pin: None, properties: record.gate.clone() };
    let own = |(name, value): (String, PropertyValue)| settings.own(&name) == Some(&value);
    (is_zoning(record) && settings.zoned) || gate.closed().any(own)
}
