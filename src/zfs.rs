//! [`Zfs`], the way in, and the builder that begins transactions.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::capabilities::{Capabilities, check_releases};
use crate::engine::{
    Engine, Facts, Fault, Lack, MARK, PropertyValue, Scope, Settings, SnapshotId, Unfit,
};
use crate::errno::Errno;
use crate::error::{BeginError, OpenError, RecoverError, ResumeError, StepError};
use crate::kernel::Kernel;
use crate::name::{DatasetName, SnapshotName, TransactionId};
use crate::owner::{Lease, Owner};
use crate::ownership::{Ids, Ownership, Principal};
use crate::receipt::{OnConflict, Strategy};
use crate::recovery::{Condition, Pending, Recovery, Unfinished};
use crate::refusal::{Role, refusal};
use crate::tools;
use crate::txn::Transaction;
use crate::txn::journal::{Entrance, Fence, MAX_LEN, Record, State};
use crate::txn::layout::Layout;
use crate::txn::plan::{GATE_OF_PLAIN_CALLS, Gate, Kind, Plan, Shape, Step};
use crate::txn::recover::{Case, Key, Seen, above, cases, cases_below, not_looked_at};
use crate::txn::stage::Order;

/// Where private mounts are attached: a directory that doesn't survive a reboot, as mounts don't.
pub(crate) const PRIVATE_ROOT: &str = "/run/zfs-txn";

/// How long begin waits for another commit that is swapping names at this moment, 1.5 s in all.
const COMMIT_WAITS_MS: [u64; 5] = [50, 100, 200, 400, 800];

/// ZFS, opened: begins transactions, on all datasets or on some.
///
/// Cheap to clone, and may be used by several threads at once. It holds no lock on anything.
#[derive(Debug, Clone)]
pub struct Zfs {
    engine: Arc<dyn Engine>,
    /// The datasets that may be touched, with everything below them; `None`: all.
    confinement: Option<Arc<[DatasetName]>>,
}

impl Zfs {
    /// Opens ZFS. Changes nothing.
    ///
    /// OpenZFS's libraries are loaded here: the libzfs that the process has already, or else the newest that is
    /// installed (`libzfs.so.7`, `.so.6`, `.so.4`).
    ///
    /// # Errors
    /// When no library is there, the kernel module isn't loaded, one of them is of a release before 2.2, or
    /// `/dev/zfs` may not be opened.
    ///
    /// # Privileges
    /// None here, beyond opening `/dev/zfs`; [`TransactionBuilder::begin`] needs `CAP_SYS_ADMIN`.
    pub fn open() -> Result<Self, OpenError> {
        check_releases()?;
        let kernel = Kernel::open().map_err(|Fault { errno, .. }| match errno {
            Errno::NOENT | Errno::NXIO => OpenError::NoModule,
            Errno::PERM | Errno::ACCES => OpenError::NotPermitted,
            errno => OpenError::Failed(errno),
        })?;
        Ok(Self { engine: Arc::new(kernel), confinement: None })
    }

    /// Opens ZFS for these datasets (or whole pools) and what is below them. Every other name is
    /// refused before any call is made.
    ///
    /// A workspace is made *beside* its target, so a target must lie below one of the names: it
    /// can't be one of them itself.
    ///
    /// # Errors
    /// As [`Zfs::open`]; and when a name is not a dataset's name.
    pub fn confined_to<I>(names: I) -> Result<Self, OpenError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names: Result<Vec<DatasetName>, _> =
            names.into_iter().map(|name| name.as_ref().parse()).collect();
        let confinement = Some(Arc::from(names?));
        Ok(Self { confinement, ..Self::open()? })
    }

    /// What OpenZFS and the kernel of this machine are and can do: what a report of a bug should have in it, and
    /// the [bugs](crate::KnownBug) that are known of the module's release. Whether a pool lacks something is told
    /// by [`begin`](TransactionBuilder::begin).
    ///
    /// # Errors
    /// As [`Zfs::open`].
    ///
    /// # Examples
    /// ```no_run
    /// println!("{}", zfs_txn::Zfs::open()?.capabilities()?);
    /// # Ok::<(), zfs_txn::OpenError>(())
    /// ```
    pub fn capabilities(&self) -> Result<Capabilities, OpenError> {
        Capabilities::find()
    }

    /// Zfs on an engine of one's own, for tests.
    #[cfg(test)]
    pub(crate) fn on(engine: Arc<dyn Engine>, confinement: Option<&[DatasetName]>) -> Self {
        Self { engine, confinement: confinement.map(Arc::from) }
    }

    /// Prepares a transaction on `target`. Changes nothing until
    /// [`begin`](TransactionBuilder::begin).
    pub fn transaction<'a>(&'a self, target: &'a DatasetName) -> TransactionBuilder<'a> {
        TransactionBuilder {
            zfs: self,
            target,
            mountpoint: None,
            ownership: None,
            create_parents: false,
            final_snapshot: None,
            on_conflict: OnConflict::Fail,
            strategy: Strategy::default(),
            fence: false,
            entrance: None,
        }
    }

    /// Lists the transactions that have a record on `scope` or anything below it: those that are
    /// open, detached, interrupted, or have left something, and what [`recover`](Self::recover) would do
    /// about each. Changes nothing: a way to ask first, of a pool that comes from elsewhere above all.
    ///
    /// Takes a look at every dataset and every snapshot's name in `scope`, in pieces, so that the pool is kept
    /// waiting by none for long. What is renamed meanwhile may be left out.
    ///
    /// # Errors
    /// See [`RecoverError`].
    ///
    /// # Privileges
    /// That of reading datasets.
    pub fn pending(&self, scope: &DatasetName) -> Result<Vec<Pending>, RecoverError> {
        let allowed = |name: &DatasetName| self.check_confinement(name).is_ok();
        let mut seen = self.cases_below(scope)?;
        for _ in 0..MOST_LOOKS {
            if seen.moved.is_empty() {
                break;
            }
            seen = self.cases_below(scope)?;
        }
        let Seen { cases: found, unread, .. } = seen;
        let pending = found.iter().map(|case| case.pending(&self.engine, allowed)).collect();
        match unread.is_empty() {
            true => Ok(pending),
            false => Err(RecoverError::Incomplete { pending, unread }),
        }
    }

    /// Finishes every transaction on `scope`, and anything below it, whose process is gone: forward
    /// where the commit point was passed, back where it was not. Tries again to remove what ended
    /// transactions have left. What has a living owner, is detached or can't be read is left alone.
    ///
    /// Recovering twice is recovering once; it may be interrupted itself, and several processes may
    /// do it at the same time. To be called after the pool was imported and its datasets mounted.
    ///
    /// **Who lives:** a record has the boot's id and the process's number and start time. Another
    /// boot's process is gone, be it this machine's or another's that had the pool before: a pool is
    /// imported by one machine at a time (`multihost=on` guards that). A process in another pid
    /// namespace can't be seen, and counts as living, unless this process is in the initial one and
    /// finds nobody in the other.
    ///
    /// # Errors
    /// See [`RecoverError`]. A transaction that can't be finished is no error: it is named in
    /// [`Recovery::unfinished`].
    ///
    /// # Privileges
    /// As for [`Transaction::commit`].
    pub fn recover(&self, scope: &DatasetName) -> Result<Recovery, RecoverError> {
        self.finish_those(scope, Condition::is_to_be_finished)
    }

    /// Tries again to remove what ended transactions on `scope`, and anything below it, have left.
    /// What has content that is found nowhere else stays.
    ///
    /// # Errors
    /// As for [`recover`](Self::recover).
    ///
    /// # Privileges
    /// As for [`Transaction::commit`].
    pub fn sweep(&self, scope: &DatasetName) -> Result<Recovery, RecoverError> {
        self.finish_those(scope, |condition| *condition == Condition::Leftover)
    }

    fn finish_those(
        &self,
        scope: &DatasetName,
        is_meant: impl Fn(&Condition) -> bool,
    ) -> Result<Recovery, RecoverError> {
        let engine = self.engine.as_ref();
        let mut recovery = Recovery::default();
        let mut unfinished: Vec<(Key, Unfinished)> = Vec::new();
        let (mut tried, mut gone) = (HashSet::new(), HashSet::new());
        // Until there is nothing new: what moves during a walk may be left out by it. Who writes records all the
        // time keeps nobody busy.
        let mut walks = 0;
        loop {
            walks += 1;
            let Seen { cases: found, unread, moved } = self.cases_below(scope)?;
            let before = (tried.len(), gone.clone());
            // What was not there for a moment may be there again.
            for case in &found {
                gone.remove(&case.key());
            }
            gone.extend(moved);
            for case in &found {
                let condition = case.condition();
                // Whose it is can't be told of what has moved meanwhile.
                if condition == Condition::OfContainer && case.is_there(engine) == Ok(false) {
                    gone.insert(case.key());
                }
                if !is_meant(&condition) || tried.contains(&case.key()) {
                    continue;
                }
                let again = |case: &Case| case.again(engine, |name| self.check_look(name).is_ok());
                let now = match again(case) {
                    Ok(Some(now)) => now,
                    Ok(None) => {
                        gone.insert(case.key());
                        continue;
                    }
                    // How it stands by now is not known: nothing is done by what the walk has seen.
                    Err(fault) => {
                        tried.insert(case.key());
                        unfinished.push((case.key(), case.not_looked_at(fault)));
                        continue;
                    }
                };
                if now.key() != case.key() {
                    gone.insert(case.key());
                }
                if tried.contains(&now.key()) || !is_meant(&now.condition()) {
                    continue;
                }
                let case = now;
                tried.insert(case.key());
                // It may have been tried before the end of another one moved it.
                let (id, carrier, _) = case.key();
                let is_there = |key: &Key| found.iter().any(|it| it.key() == *key);
                unfinished.retain(|(key, _)| (key.0, key.1) != (id, carrier) || is_there(key));
                match case.finish(&self.engine, |name| self.check_confinement(name).is_ok()) {
                    Ok(finished) => recovery.finished.push(finished),
                    Err(error) => unfinished.push((case.key(), *error)),
                }
                // What is left of it may be on another dataset by now; or that is another one.
                if let Ok(Some(now)) = again(&case) {
                    if found.iter().all(|other| other.key() != now.key()) {
                        tried.insert(now.key());
                    }
                }
            }
            if (tried.len(), &gone) == (before.0, &before.1) || walks == MOST_WALKS {
                let is_settled =
                    |case: &Case| [&tried, &gone].iter().any(|set| set.contains(&case.key()));
                let untouched = found.iter().filter(|case| !is_settled(case));
                recovery.untouched = untouched.map(Case::left_alone).collect();
                recovery.unfinished = unfinished.into_iter().map(|(_, error)| error).collect();
                recovery.unread = unread;
                return Ok(recovery);
            }
        }
    }

    fn cases_below(&self, scope: &DatasetName) -> Result<Seen, RecoverError> {
        let name = scope.clone();
        self.check_look(scope).map_err(|_| RecoverError::OutsideConfinement { name })?;
        cases_below(self.engine.as_ref(), scope).map_err(|fault| RecoverError::Failed {
            error: not_looked_at(scope.to_string(), fault),
        })
    }

    /// The transactions on one target.
    fn cases_of(&self, target: &DatasetName) -> Result<Vec<Case>, Fault> {
        if target.parent().is_none() {
            return Ok(Vec::new());
        }
        let above = above(target, |name| self.check_look(name).is_ok());
        let mut found = cases(self.engine.as_ref(), Scope { target, above: &above, id: None })?;
        // A copied record on a dataset above is nobody's, and tells nothing of what is there.
        found.retain(|case| case.is_on_snapshot() || case.record.is_ok());
        found.retain(|case| case.record.as_ref().map_or(true, |record| record.target == *target));
        Ok(found)
    }

    /// Takes a transaction up again that was [detached](Transaction::detach), in this process or
    /// another, before or after a reboot. Its workspace is mounted again.
    ///
    /// One txg. A crash leaves it detached or interrupted.
    ///
    /// # Errors
    /// See [`ResumeError`].
    ///
    /// # Privileges
    /// As for [`TransactionBuilder::begin`].
    pub fn resume(
        &self,
        target: &DatasetName,
        id: TransactionId,
    ) -> Result<Transaction, ResumeError> {
        let outside = |name: &DatasetName| ResumeError::OutsideConfinement { name: name.clone() };
        self.check_confinement(target).map_err(|_| outside(target))?;
        let failed = |step, Fault { errno, detail }: Fault| {
            let error = StepError { step, subject: target.to_string(), errno, detail };
            ResumeError::Failed { error }
        };
        let found = self.cases_of(target).map_err(|fault| failed(Step::Look, fault))?;
        // Somebody else may have written a record with this id elsewhere.
        let mut refused = ResumeError::NotFound { target: target.clone(), id };
        let mut detached = None;
        for case in found.iter().filter(|case| case.id == id) {
            if detached.is_some() {
                break;
            }
            match case.condition() {
                Condition::Detached => {}
                condition => {
                    refused = ResumeError::NotDetached { id, condition };
                    continue;
                }
            }
            match case.survey(&self.engine) {
                Ok(Some(survey)) if survey.sighting.workspace => detached = Some(survey.stage),
                Ok(Some(survey)) => {
                    let workspace = survey.stage.order.layout.workspace;
                    refused = ResumeError::NoWorkspace { id, workspace };
                }
                Ok(None) => {}
                Err(fault) => refused = failed(Step::Look, fault),
            }
        }
        let Some(mut stage) = detached else { return Err(refused) };
        let owner = Owner::this_process().map_err(|errno| failed(Step::Resume, errno.into()))?;
        let lease = Lease::take(id, owner.clone());
        let resumed = stage.resume(owner);
        match resumed {
            Ok(()) => Ok(Transaction::resumed(stage, lease)),
            Err(error) => Err(ResumeError::Failed { error }),
        }
    }

    /// Whether a dataset may be created, renamed or destroyed: those named may not, only those
    /// below.
    fn check_confinement(&self, name: &DatasetName) -> Result<(), BeginError> {
        self.check(name, |root| name.is_within(root) && name != root)
    }

    /// Whether a dataset may be looked at.
    fn check_look(&self, name: &DatasetName) -> Result<(), BeginError> {
        self.check(name, |root| name.is_within(root))
    }

    fn check(
        &self,
        name: &DatasetName,
        allows: impl Fn(&DatasetName) -> bool,
    ) -> Result<(), BeginError> {
        match &self.confinement {
            Some(roots) if !roots.iter().any(allows) => {
                Err(BeginError::OutsideConfinement { name: name.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// How often a list is made anew, as long as something is seen to move meanwhile.
const MOST_LOOKS: usize = 3;

/// How often recovery goes through everything, as long as there is something new each time.
const MOST_WALKS: usize = 16;

/// The choices for a transaction; each has a default that suits most.
#[derive(Debug, Clone)]
#[must_use = "a transaction begins with begin()"]
pub struct TransactionBuilder<'a> {
    zfs: &'a Zfs,
    target: &'a DatasetName,
    mountpoint: Option<PathBuf>,
    ownership: Option<Ownership>,
    create_parents: bool,
    final_snapshot: Option<String>,
    on_conflict: OnConflict,
    strategy: Strategy,
    fence: bool,
    entrance: Option<(Principal, PathBuf)>,
}

impl TransactionBuilder<'_> {
    /// The mountpoint property of a target to be created: an absolute path, `none` or `legacy`.
    /// Without it the target inherits its parent's. A target that exists keeps what it has.
    pub fn mountpoint(mut self, mountpoint: impl AsRef<Path>) -> Self {
        self.mountpoint = Some(mountpoint.as_ref().to_owned());
        self
    }

    /// Lets `user` into the workspace as well, and mounts it below the directory `place`: for services
    /// whose workers are not root. Without it, the workspace is where only this process's user gets.
    ///
    /// [`Transaction::path`] is then `PLACE/ID/workspace`. `PLACE/ID` belongs to the user and has mode
    /// 0700, so nobody else but root gets in; everybody has to be allowed *through* the place (mode 0711,
    /// with which it is made if it isn't there). What the user may do inside is up to the content: the
    /// workspace's root has the owner and mode of the target's.
    ///
    /// The place, and each directory above it, must belong to root or this process's user, must not be
    /// writable by others (above the place: or be sticky, as `/tmp` is), and be no symbolic link:
    /// [`BeginError::UnsafePlace`]. Place and user are part of the transaction's record, so they are the
    /// same after [`Zfs::resume`] and known to [`Zfs::recover`].
    ///
    /// As `PLACE/ID` is the user's, a process of that user in a mount namespace without the workspace's
    /// mount could put a link in its stead. A commit finds that out; who writes there with more rights than
    /// the user should follow no links on the way, as here:
    ///
    /// ```no_run
    /// use std::os::unix::fs::lchown;
    /// use zfs_txn::Zfs;
    ///
    /// let zfs = Zfs::open()?;
    /// let target = "tank/site".parse()?;
    /// let txn = zfs.transaction(&target).workspace_for("builder", "/run/publisher").begin()?;
    /// lchown(txn.path(), Some(1000), None)?; // else the worker may only look
    /// println!("to the worker: fill {}", txn.path().display());
    /// // ... and when the worker has said that it is ready:
    /// txn.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn workspace_for(mut self, user: impl Into<Principal>, place: impl AsRef<Path>) -> Self {
        self.entrance = Some((user.into(), place.as_ref().to_owned()));
        self
    }

    /// Who is to own the content, and with which mode. Applied at commit, in the workspace.
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = Some(ownership);
        self
    }

    /// Create the target's missing parents, with inherited properties. A rollback removes them.
    pub fn create_parents(mut self) -> Self {
        self.create_parents = true;
        self
    }

    /// Take the snapshot `TARGET@name` of exactly the content that is committed.
    pub fn snapshot(mut self, name: impl Into<String>) -> Self {
        self.final_snapshot = Some(name.into());
        self
    }

    /// What the commit does when the target was changed since begin; without it, it fails.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// How the change of a target that exists becomes visible; see [`Strategy`]. A target that is
    /// created is always renamed into place. One that gets a snapshot while the transaction is open is
    /// changed in place, because a promote would leave the snapshot behind.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Has writes to a target that exists refused (`readonly=on`) from the commit's check to the moment
    /// in which the change is visible, for those who prefer a refused write to a kept one. It is put
    /// back whatever happens; after a crash, by [`Zfs::recover`] or the next begin on the target.
    ///
    /// Two or three txgs more. Files that are open for writing get `EROFS`. Not for volumes, whose
    /// devices heed `readonly` only when they are opened.
    pub fn fence(mut self) -> Self {
        self.fence = true;
        self
    }

    /// Finds out whether the target exists, and makes the workspace: a new dataset, or a snapshot
    /// of the target and a clone of that. It is mounted below `/run/zfs-txn`, where only this user
    /// gets.
    ///
    /// A transaction on the target that was interrupted is finished first, as by [`Zfs::recover`].
    ///
    /// Three transaction groups, one more for each quota or reservation that the target has.
    ///
    /// A crash leaves the record, `TARGET-txn-ID`, and created parents at most, until
    /// [`Zfs::recover`] or the next begin on the target.
    ///
    /// # Errors
    /// Bad input is found before anything is changed; a step that fails is undone. See
    /// [`BeginError`].
    ///
    /// # Privileges
    /// `CAP_SYS_ADMIN` in the initial user namespace: for channel programs and for mounts. Or in a user
    /// namespace that the dataset above the target was given to (`zfs zone`): all is then done by plain
    /// calls, which docs/design.md compares.
    pub fn begin(self) -> Result<Transaction, BeginError> {
        let span = tracing::info_span!("begin", target = %self.target);
        let _entered = span.enter();
        for wait in COMMIT_WAITS_MS {
            match self.begin_once() {
                Err(error) if error.may_pass() => sleep(Duration::from_millis(wait)),
                result => return result,
            }
        }
        self.begin_once()
    }

    fn begin_once(&self) -> Result<Transaction, BeginError> {
        self.zfs.check_confinement(self.target)?;
        let id = random_id().map_err(|fault| look_failed(self.target.as_str(), fault))?;
        let owner = Owner::this_process();
        let owner = owner.map_err(|errno| look_failed(self.target.as_str(), errno.into()))?;
        let ids = self.ownership.as_ref().map(Ownership::resolve).transpose()?;
        let entrance = self.entrance()?;
        self.finish_interrupted(self.target)?;
        let mut facts = self.facts(self.target)?;
        if facts.is_none() {
            // A commit may have renamed it aside since.
            self.finish_interrupted(self.target)?;
            facts = self.facts(self.target)?;
        }
        let mut order = match facts {
            Some(facts) => self.update(id, ids, &facts)?,
            None => self.init(id, ids)?,
        };
        for name in order.layout.datasets() {
            self.zfs.check_confinement(name)?;
        }
        tracing::debug!(kind = %order.record.kind, %id, "begin");
        order.record.owner = Some(owner.clone());
        order.record.entrance = entrance;
        order.private_path = private_path_of(&order.record);
        let length = order.record.longest();
        if length > MAX_LEN {
            return Err(BeginError::RecordTooLong { target: self.target.clone(), length });
        }
        Transaction::begin(Arc::clone(&self.zfs.engine), order, Lease::take(id, owner))
    }

    /// The user's number and the place for the workspace, if that can be mounted there, and nobody else
    /// could change what is on the way to it.
    fn entrance(&self) -> Result<Option<Entrance>, BeginError> {
        let entrance = match &self.entrance {
            Some((user, place)) => {
                // Without needless slashes.
                let place = place.components().collect();
                Some(Entrance { user: user.resolve_user()?, place })
            }
            None => None,
        };
        let place = entrance.as_ref().map_or(Path::new(PRIVATE_ROOT), |entrance| &entrance.place);
        if let Some(Entrance { place, .. }) = entrance.as_ref().filter(|it| !it.is_possible()) {
            let reason = "is no absolute path without `..`, or too long";
            return Err(BeginError::UnsafePlace { path: place.clone(), reason });
        }
        let unfit = self.zfs.engine.unfit(place, entrance.is_some());
        match unfit.map_err(|fault| look_failed(&place.display().to_string(), fault))? {
            Some(Unfit { path, reason }) => Err(BeginError::UnsafePlace { path, reason }),
            None => Ok(entrance),
        }
    }

    /// Finishes what was interrupted on a target, and refuses one whose names are being swapped.
    /// What else is left of other transactions is in nobody's way.
    fn finish_interrupted(&self, target: &DatasetName) -> Result<(), BeginError> {
        let look = |fault| look_failed(target.as_str(), fault);
        let found = self.zfs.cases_of(target);
        let found = found.or_else(|fault| match fault.errno {
            // The pool doesn't exist, which is said in other words.
            Errno::NOENT => Ok(Vec::new()),
            _ => Err(look(fault)),
        })?;
        let allowed = |name: &DatasetName| self.zfs.check_confinement(name).is_ok();
        for case in found {
            let unfinished = |reason: &str| BeginError::Unfinished {
                target: target.clone(),
                id: case.id,
                reason: reason.to_owned(),
            };
            let reason = match case.condition() {
                Condition::Interrupted => match case.finish(&self.zfs.engine, allowed) {
                    Ok(finished) => {
                        tracing::info!(?finished, "finished an interrupted transaction");
                        continue;
                    }
                    Err(failed) => failed.reason,
                },
                Condition::Open { pid } => format!("process {pid} is at it"),
                Condition::OutOfSight { pid } => {
                    format!("process {pid} of another pid namespace is at it")
                }
                Condition::Unreadable { reason } => {
                    if self.facts(target)?.is_none() {
                        return Err(unfinished(&format!("its record can't be used: {reason}")));
                    }
                    continue;
                }
                Condition::Detached | Condition::Leftover | Condition::OfContainer => continue,
            };
            let survey = case.survey(&self.zfs.engine).map_err(look)?;
            if survey.is_some_and(|survey| survey.sighting.is_between()) {
                return Err(unfinished(&reason));
            }
            tracing::warn!(id = %case.id, %reason, "another transaction on the target stays");
        }
        Ok(())
    }

    fn runs_programs(&self) -> Result<bool, BeginError> {
        let runs = self.zfs.engine.runs_programs(self.target);
        runs.map_err(|fault| look_failed(self.target.as_str(), fault))
    }

    fn facts(&self, name: &DatasetName) -> Result<Option<Facts>, BeginError> {
        self.zfs.engine.facts(name.as_str()).map_err(|fault| match fault.errno {
            Errno::NOENT => BeginError::NoSuchPool { pool: name.pool().to_owned() },
            _ => look_failed(name.as_str(), fault),
        })
    }

    fn settings(&self, name: &DatasetName) -> Result<Settings, BeginError> {
        let settings = self.zfs.engine.settings(name);
        settings.map_err(|fault| look_failed(name.as_str(), fault))
    }

    fn update(
        &self,
        id: TransactionId,
        ownership: Option<Ids>,
        facts: &Facts,
    ) -> Result<Order, BeginError> {
        let target = self.target.clone();
        if target.parent().is_none() {
            return Err(BeginError::PoolRoot { target });
        }
        if facts.origin == Some(SnapshotId::UNREADABLE) {
            let detail = Some("the snapshot that it is a clone of can't be read".to_owned());
            return Err(look_failed(target.as_str(), Fault { errno: Errno::IO, detail }));
        }
        let in_place = self.strategy == Strategy::InPlace;
        if facts.volume && in_place && self.fence {
            return Err(BeginError::FenceOfVolume { target });
        }
        if facts.volume && in_place && ownership.is_some() {
            return Err(BeginError::OwnershipOfVolume { target });
        }
        if self.mountpoint.is_some() {
            return Err(BeginError::MountpointOfExisting { target });
        }
        let mut settings = self.settings(&target)?;
        if settings.own(GATE_OF_PLAIN_CALLS).is_some() {
            // It may be the gate of a commit that is not concluded yet.
            self.finish_interrupted(self.target)?;
            settings = self.settings(&target)?;
        }
        if settings.zoned {
            // Perhaps by a commit that opens the gate at this moment.
            self.finish_interrupted(self.target)?;
        }
        let leaf = self.final_snapshot.as_deref();
        let taken = self.taken_snapshot(leaf)?;
        let role = Role::Target { strategy: self.strategy, fenced: false, taken: taken.as_ref() };
        if let Some(refusal) = refusal(facts, &settings, role) {
            return Err(refusal.at_begin(target));
        }
        if in_place {
            match self.zfs.engine.lacks(&target).map_err(|f| look_failed(target.as_str(), f))? {
                Some(Lack::Bookmarks) => return Err(BeginError::NoBookmarks { target }),
                Some(Lack::Kernel) => return Err(BeginError::KernelTooOld { target }),
                None => {}
            }
        }
        let longest = self.zfs.engine.longest_snapshot(&target);
        let longest = longest.map_err(|fault| look_failed(target.as_str(), fault))?;
        let layout = Layout::new(&target, id, leaf, Vec::new(), longest)?;
        let own = settings.own("mountpoint").is_some();
        let ignored = settings.own(Gate::ignore()).is_some();
        // What never gets the target's name never claims its mount point.
        let claim = settings.claim.as_deref();
        let gate = match self.strategy {
            Strategy::Promote if self.runs_programs()? => Gate::new(claim, own, ignored),
            Strategy::Promote => Gate::for_plain_calls(claim),
            Strategy::InPlace => Gate::default(),
        };
        let shape = Shape {
            kind: Kind::Update,
            strategy: self.strategy,
            missing_parents: 0,
            permissions: settings.permissions.is_some() && !in_place,
            ownership: ownership.is_some(),
            final_snapshot: leaf.is_some(),
            pinned: gate.pin.is_some(),
            fence: self.fence,
        };
        let own_readonly = settings.own("readonly").is_some();
        let fence = if own_readonly { Fence::Own } else { Fence::Inherited };
        let mut properties: Vec<(String, PropertyValue)> = match self.strategy {
            Strategy::Promote => {
                let own = settings.own.iter().filter(|(name, _)| !gate.properties.contains(name));
                own.cloned().chain(gate.closed()).collect()
            }
            Strategy::InPlace => settings.for_editing(facts.volume),
        };
        properties.retain(|(name, _)| tools::off(name).is_none());
        properties.extend(tools::left_alone(&settings.named_for_tools));
        Ok(Order {
            record: Record {
                target_guid: Some(facts.guid),
                target_origin: facts.origin.as_ref().map(|origin| origin.guid),
                settings: (!in_place).then(|| settings.fingerprint()),
                strategy: self.strategy,
                fence: self.fence.then_some(fence),
                ..self.record(id, Kind::Update, ownership, gate)
            },
            layout,
            plan: Plan::new(shape),
            properties,
            private_path: private_path(id),
            ancestor: None,
            new_mounts: Vec::new(),
        })
    }

    /// The snapshot that has the final snapshot's name already.
    fn taken_snapshot(&self, leaf: Option<&str>) -> Result<Option<SnapshotName>, BeginError> {
        let Some(leaf) = leaf else { return Ok(None) };
        let name = self.target.snapshot(leaf)?;
        let found = self.zfs.engine.facts(name.as_str());
        let found = found.map_err(|fault| look_failed(name.as_str(), fault))?;
        Ok(found.map(|_| name))
    }

    /// What both kinds of transaction put on record.
    fn record(&self, id: TransactionId, kind: Kind, ownership: Option<Ids>, gate: Gate) -> Record {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH);
        Record {
            id,
            kind,
            strategy: Strategy::Promote,
            state: State::Open,
            target: self.target.clone(),
            target_guid: None,
            target_origin: None,
            workspace: None,
            missing_parents: 0,
            pin: gate.pin,
            gate: gate.properties,
            settings: None,
            ownership,
            final_leaf: self.final_snapshot.clone(),
            overwrite: self.on_conflict == OnConflict::Overwrite,
            fence: None,
            entrance: None,
            owner: None,
            begun: begun.map_or(0, |since| since.as_secs()),
        }
    }

    fn init(&self, id: TransactionId, ownership: Option<Ids>) -> Result<Order, BeginError> {
        let target = self.target.clone();
        let (ancestor, missing_parents) = self.nearest_ancestor()?;
        let facts = self.facts(&ancestor)?;
        let facts = facts.ok_or_else(|| BeginError::NoParent { parent: ancestor.clone() })?;
        let mut above = self.settings(&ancestor)?;
        if above.zoned {
            // Perhaps by a commit of it that opens the gate at this moment.
            self.finish_interrupted(&ancestor)?;
            above = self.settings(&ancestor)?;
        }
        if let Some(refusal) = refusal(&facts, &above, Role::Parent) {
            return Err(refusal.at_begin(ancestor));
        }
        if let (Some(parent), false) = (missing_parents.last(), self.create_parents) {
            return Err(BeginError::NoParent { parent: parent.clone() });
        }
        let own = self.own_mountpoint()?;
        // A path is inherited with the names below it added; `none` and `legacy` as they are.
        let effective = own.clone().unwrap_or_else(|| facts.mountpoint.clone());
        let parents = missing_parents.iter().filter(|_| facts.mountpoint.is_absolute()).cloned();
        let new_mounts = parents.chain(effective.is_absolute().then(|| target.clone())).collect();
        let leaf = self.final_snapshot.as_deref();
        let shape = Shape {
            kind: Kind::Init,
            strategy: Strategy::Promote,
            missing_parents: missing_parents.len(),
            permissions: false,
            ownership: ownership.is_some(),
            final_snapshot: leaf.is_some(),
            pinned: false,
            fence: false,
        };
        let claim = effective.is_absolute().then_some(effective.as_path());
        let gate = match self.runs_programs()? {
            // There is nothing to pin yet.
            true => Gate { pin: None, ..Gate::new(claim, true, false) },
            false => Gate::for_plain_calls(claim),
        };
        let mark = (MARK.to_owned(), PropertyValue::Text(id.to_string().into()));
        let own = own.map(|path| ("mountpoint".to_owned(), PropertyValue::Text(path.into())));
        let left_alone = tools::left_alone(&above.named_for_tools);
        let properties = own.into_iter().chain(gate.closed()).chain([mark]).chain(left_alone);
        let properties = properties.collect();
        Ok(Order {
            record: Record {
                missing_parents: missing_parents.len(),
                ..self.record(id, Kind::Init, ownership, gate)
            },
            layout: Layout::new(&target, id, leaf, missing_parents, 0)?,
            plan: Plan::new(shape),
            properties,
            private_path: private_path(id),
            ancestor: Some((ancestor, facts.id())),
            new_mounts,
        })
    }

    /// The nearest dataset above the target that exists, and those between, topmost first.
    fn nearest_ancestor(&self) -> Result<(DatasetName, Vec<DatasetName>), BeginError> {
        let mut missing = Vec::new();
        let mut name = self.target.clone();
        while let Some(parent) = name.parent() {
            self.zfs.check_look(&parent)?;
            if self.facts(&parent)?.is_some() {
                missing.reverse();
                return Ok((parent, missing));
            }
            missing.push(parent.clone());
            name = parent;
        }
        Err(BeginError::NoSuchPool { pool: self.target.pool().to_owned() })
    }

    fn own_mountpoint(&self) -> Result<Option<PathBuf>, BeginError> {
        let Some(mountpoint) = &self.mountpoint else {
            return Ok(None);
        };
        let text = mountpoint.as_os_str();
        let is_path = mountpoint.is_absolute() && !text.as_bytes().contains(&0);
        if text == "none" || text == "legacy" || is_path && can_be_made(mountpoint) {
            return Ok(Some(mountpoint.clone()));
        }
        Err(BeginError::Mountpoint { mountpoint: mountpoint.display().to_string() })
    }
}

/// Whether a directory is there, or nothing is that would keep it from being made.
fn can_be_made(path: &Path) -> bool {
    let too_long = |part: &std::ffi::OsStr| part.len() > crate::name::MAX_NAME_LEN;
    let nearest = path.ancestors().find(|ancestor| ancestor.exists());
    !path.iter().any(too_long) && nearest.is_some_and(Path::is_dir)
}

fn look_failed(subject: &str, Fault { errno, detail }: Fault) -> BeginError {
    let error = StepError { step: Step::Look, subject: subject.to_owned(), errno, detail };
    BeginError::Failed { error, left: Vec::new() }
}

/// Where the workspace of a transaction is mounted.
pub(crate) fn private_path_of(record: &Record) -> PathBuf {
    match &record.entrance {
        Some(Entrance { place, .. }) => place.join(record.id.to_string()).join("workspace"),
        None => private_path(record.id),
    }
}

/// The same, by default.
pub(crate) fn private_path(id: TransactionId) -> PathBuf {
    Path::new(PRIVATE_ROOT).join(id.to_string())
}

fn random_id() -> Result<TransactionId, Fault> {
    let mut bytes = [0; 8];
    let len = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    match len {
        8 => Ok(TransactionId::from_bits(u64::from_ne_bytes(bytes))),
        _ => Err(Errno::IO.into()),
    }
}
