//! Does operations to a pool, and says how each ended.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::machine::{Machine, Process};
use super::mortal::{Death, Mortal};
use super::operation::Operation;
use super::reference::{Ending, Reason, Recovered, Standing};
use super::world::Backend;
use crate::error::{BeginError, CommitError, Conflict, RecoverError, ResumeError};
use crate::receipt::{Guid, Keeps, OnConflict, Receipt};
use crate::recovery::Recovery;
use crate::txn::{Kind, Transaction};

impl<B: Backend> Machine<B> {
    /// Does an operation; says how it ended. `moment`: when its process dies.
    pub(super) fn act(&mut self, operation: &Operation, moment: Option<(usize, Death)>) -> Ending {
        let set = |mortal: &Mortal| {
            if let Some((after, death)) = moment {
                mortal.die_after(after, death);
            }
        };
        match *operation {
            Operation::Begin { slot, target, overwrite, last }
                if self.processes[slot].is_none() =>
            {
                if !self.reference.clone().finish_interrupted(target) && !self.may_wait() {
                    return Ending::Skipped;
                }
                let (mortal, zfs) = self.process();
                set(&mortal);
                let name = self.target(target);
                let mut builder = zfs.transaction(&name);
                if overwrite {
                    builder = builder.on_conflict(OnConflict::Overwrite);
                }
                if last {
                    builder = builder.snapshot(format!("last-{}", self.reference.value()));
                }
                let begun = builder.begin();
                if mortal.is_dead() {
                    drop(begun);
                    let id = mortal.id();
                    let guid = id.map_or(0, |id| self.workspace_guid(target, id));
                    if let Some(id) = id {
                        self.processes[slot] =
                            Some(Process { mortal, id, target, transaction: None });
                    }
                    return Ending::Crashed { id, guid, passed: false };
                }
                match begun {
                    Ok(transaction) => {
                        let (id, update) = (transaction.id(), transaction.kind() == Kind::Update);
                        let guid = self.workspace_guid(target, id);
                        let transaction = Some(transaction);
                        self.processes[slot] = Some(Process { mortal, id, target, transaction });
                        Ending::Begun { id, guid, update }
                    }
                    Err(BeginError::Unfinished { .. }) => Ending::Refused,
                    Err(error) => panic!("{operation:?}: {error}"),
                }
            }
            Operation::Write { slot } => {
                let value = self.reference.value();
                let transaction =
                    self.processes[slot].as_ref().and_then(|process| process.transaction.as_ref());
                let Some(transaction) = transaction else { return Ending::Skipped };
                let written = self.world.at(transaction.path(), Some((&format!("f{slot}"), value)));
                assert!(written.is_some(), "the workspace of {} is not mounted", transaction.id());
                Ending::Done
            }
            Operation::Commit { slot }
            | Operation::Rollback { slot }
            | Operation::Drop { slot }
            | Operation::Detach { slot } => {
                let Some(mut process) = self.processes[slot].take() else {
                    return Ending::Skipped;
                };
                let Some(transaction) = process.transaction.take() else {
                    self.processes[slot] = Some(process);
                    return Ending::Skipped;
                };
                set(&process.mortal);
                self.end(operation, slot, process, transaction)
            }
            Operation::Resume { slot } => {
                let Some(process) = &self.processes[slot] else { return Ending::Skipped };
                if self.reference.standing(slot) != Some(Standing::Detached) {
                    return Ending::Skipped;
                }
                let (id, target) = (process.id, process.target);
                let (mortal, zfs) = self.process();
                set(&mortal);
                let resumed = zfs.resume(&self.target(target), id);
                if mortal.is_dead() {
                    drop(resumed);
                    return Ending::Crashed { id: Some(id), guid: 0, passed: false };
                }
                match resumed {
                    Ok(transaction) => {
                        let transaction = Some(transaction);
                        self.processes[slot] = Some(Process { mortal, id, target, transaction });
                        Ending::Done
                    }
                    Err(ResumeError::NotFound { .. }) => Ending::Refused,
                    Err(error) => panic!("{operation:?}: {error}"),
                }
            }
            Operation::Recover | Operation::Sweep => {
                let (mortal, zfs) = self.process();
                set(&mortal);
                let scope = self.world.scope();
                let recovery = match operation {
                    Operation::Recover => zfs.recover(scope),
                    _ => zfs.sweep(scope),
                };
                if mortal.is_dead() {
                    return Ending::Crashed { id: None, guid: 0, passed: false };
                }
                Ending::Recovered(recovered(operation, recovery))
            }
            Operation::Boot => {
                for process in self.processes.iter_mut().flatten() {
                    process.mortal.kill();
                    process.transaction = None;
                }
                self.world.boot();
                Ending::Done
            }
            Operation::Crash { ref act, after, death } => self.act(act, Some((after, death))),
            _ => self.foreign(operation),
        }
    }

    /// A begin that is refused has waited for 1.5 s: a few in all are enough.
    fn may_wait(&self) -> bool {
        static WAITS: AtomicU32 = AtomicU32::new(5);
        let less = |left: u32| left.checked_sub(1);
        WAITS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn end(
        &mut self,
        operation: &Operation,
        slot: usize,
        mut process: Process,
        transaction: Transaction,
    ) -> Ending {
        let (id, target) = (process.id, process.target);
        let workspace = format!("{}{}", self.target(target), id.workspace_suffix());
        let mut back = None;
        let ending = match operation {
            Operation::Rollback { .. } => match transaction.rollback() {
                Ok(()) => Ending::Done,
                Err(error) if process.mortal.is_dead() => {
                    drop(error);
                    Ending::Skipped
                }
                Err(error) => panic!("{operation:?}: {error}"),
            },
            Operation::Drop { .. } => {
                drop(transaction);
                Ending::Done
            }
            Operation::Detach { .. } => match transaction.detach() {
                Ok(_) => {
                    self.processes[slot] = Some(process);
                    return self.dead_or(slot, Ending::Done);
                }
                Err(error) if process.mortal.is_dead() => {
                    drop(error);
                    Ending::Skipped
                }
                Err(error) => panic!("{operation:?}: {error}"),
            },
            _ => match transaction.commit() {
                Ok(receipt) => Ending::Committed { kept: kept(&receipt) },
                Err(error) if process.mortal.is_dead() => {
                    drop(error);
                    Ending::Skipped
                }
                Err(CommitError::Conflict { conflict, transaction }) => {
                    back = Some(*transaction);
                    Ending::Conflict(reason(&conflict))
                }
                Err(error) => panic!("{operation:?}: {error}"),
            },
        };
        if process.mortal.is_dead() {
            let passed = process.mortal.did("rename from", &workspace);
            drop(back);
            self.processes[slot] = Some(process);
            return Ending::Crashed { id: Some(id), guid: 0, passed };
        }
        if back.is_some() {
            process.transaction = back;
            self.processes[slot] = Some(process);
        }
        ending
    }

    fn dead_or(&self, slot: usize, ending: Ending) -> Ending {
        match &self.processes[slot] {
            Some(process) if process.mortal.is_dead() => {
                Ending::Crashed { id: Some(process.id), guid: 0, passed: false }
            }
            _ => ending,
        }
    }

    /// As `zfs snapshot -r` of the dataset above does: with the name that the target's gets.
    fn snapshot_workspaces(&self, target: usize) {
        let leaf = format!("keep-{}", self.reference.value());
        let ids = self.processes.iter().flatten().filter(|process| process.target == target);
        for id in ids.map(|process| process.id) {
            let workspace = self.target(target).with_suffix(&id.workspace_suffix());
            let workspace = workspace.expect("it is a name");
            let engine = self.world.engine();
            if engine.facts(workspace.as_str()).expect("it can be asked about").is_some() {
                let name = workspace.snapshot(&leaf).expect("it is a name");
                engine.snapshot(&name, None).expect("a snapshot can be taken");
            }
        }
    }

    fn foreign(&mut self, operation: &Operation) -> Ending {
        match *operation {
            Operation::ForeignRead { target } => {
                if let Some(path) = self.target_path(target) {
                    self.world.touch(Path::new(&path));
                }
                Ending::Done
            }
            Operation::ForeignSet { target } => {
                if self.reference.targets[target].here.is_none() {
                    return Ending::Skipped;
                }
                self.world.annotate(&self.target(target), self.reference.value());
                Ending::Done
            }
            Operation::ForeignSnapshot { target } => {
                self.snapshot_workspaces(target);
                if self.reference.targets[target].here.is_none() {
                    return Ending::Skipped;
                }
                let name =
                    self.target(target).snapshot(&format!("keep-{}", self.reference.value()));
                let engine = self.world.engine();
                // What was stored through a mapping is in nobody's snapshot before.
                let synced = engine.write_back(&self.target(target));
                let taken =
                    synced.and_then(|()| engine.snapshot(&name.expect("it is a name"), None));
                taken.expect("a snapshot can be taken");
                Ending::Done
            }
            Operation::ForeignRename { target } => {
                let Some((_, away)) = self.reference.renaming(target) else {
                    return Ending::Skipped;
                };
                let (here, there) = (self.target(target), self.away(target));
                let (from, to) = if away { (here, there) } else { (there, here) };
                self.world.rename(&from, &to);
                Ending::Done
            }
            Operation::ForeignDestroyBase { slot } => {
                let Some(txn) = &self.reference.slots[slot] else { return Ending::Skipped };
                let leaf = txn.id.base_leaf();
                let view = self.world.view(false);
                let Some(holder) = view.holder(&leaf) else { return Ending::Skipped };
                let name = format!("{holder}@{leaf}");
                let engine = self.world.engine();
                let guid = Guid(self.guid(&name));
                match engine.destroy(&name, guid) {
                    Ok(_) => Ending::Done,
                    Err(_) => Ending::Refused,
                }
            }
            _ => Ending::Skipped,
        }
    }
}

fn kept(receipt: &Receipt) -> Option<Keeps> {
    let predecessor = |name: &str| !name.contains('@') && name.contains("-old-");
    receipt.leftovers.iter().find(|left| predecessor(&left.name)).map(|left| left.keeps)
}

fn reason(conflict: &Conflict) -> Reason {
    match conflict {
        Conflict::TargetAppeared { .. } => Reason::Appeared,
        Conflict::TargetReplaced { .. } => Reason::Replaced,
        Conflict::Modified { .. } => Reason::Modified,
        Conflict::NewerSnapshot { .. } => Reason::NewerSnapshot,
        Conflict::SettingsChanged { .. } => Reason::SettingsChanged,
        other => panic!("nobody gave reason for {other}"),
    }
}

fn recovered(operation: &Operation, recovery: Result<Recovery, RecoverError>) -> Recovered {
    let recovery = recovery.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    Recovered {
        finished: recovery.finished.iter().map(|done| (done.id, done.outcome)).collect(),
        unfinished: recovery.unfinished.iter().map(|left| left.pending.id).collect(),
        untouched: recovery.untouched.iter().map(|pending| pending.id).collect(),
    }
}
