//! The state machine: does each operation to a pool and to the reference, and compares.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::strategy::{BoxedStrategy, Just, Strategy};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::invariants::Check;
use super::mortal::Mortal;
use super::operation::{Operation, SLOTS, TARGETS, operations};
use super::reference::{
    Ending, Head, Observed, Place, Reason, Recovered, Reference, Standing, Txn,
};
use super::world::{Backend, traces};
use crate::engine::Engine;
use crate::error::{BeginError, CommitError, Conflict, RecoverError};
use crate::name::{DatasetName, TransactionId};
use crate::receipt::{Keeps, OnConflict, Receipt};
use crate::recovery::Recovery;
use crate::txn::{Kind, Transaction};
use crate::zfs::Zfs;

/// The reference, as proptest's state machine.
#[derive(Debug)]
pub(super) struct Model;

impl ReferenceStateMachine for Model {
    type State = Reference;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Reference> {
        Just(Reference::new(&[1, 2])).boxed()
    }

    fn transitions(state: &Reference) -> BoxedStrategy<Operation> {
        operations(state)
    }

    fn apply(mut state: Reference, transition: &Operation) -> Reference {
        // While sequences are made up, crashes leave what is likely.
        if let Err(error) = state.step(transition, None) {
            unreachable!("{transition:?}: {error}");
        }
        state
    }
}

/// A process that has a transaction.
#[derive(Debug)]
struct Process {
    mortal: Arc<Mortal>,
    id: TransactionId,
    target: usize,
    /// None: detached, or dead.
    transaction: Option<Transaction>,
}

/// A pool with what happens to it, and what should.
#[derive(Debug)]
pub(super) struct Machine<B> {
    processes: [Option<Process>; SLOTS],
    pub(super) reference: Reference,
    /// Datasets of others, with their guids, whose names fit.
    pub(super) bystanders: BTreeMap<String, u64>,
    pub(super) world: B,
}

/// Names that only look like a transaction's.
pub(super) const STRANGERS: [&str; 2] = ["a-txn-0123456789abcdef", "b-old-0123456789abcdef"];

impl<B: Backend> Machine<B> {
    fn new() -> Self {
        let world = B::new();
        let name = |leaf: &str| -> DatasetName {
            format!("{}/{leaf}", world.scope()).parse().expect("it is a name")
        };
        let engine = world.engine();
        let guid = |name: &DatasetName| {
            let facts = engine.facts(name.as_str()).expect("the pool can be looked at");
            facts.expect("it was made").guid.0
        };
        let mut guids = Vec::new();
        for (index, leaf) in ["a", "b"].into_iter().enumerate() {
            world.make(&name(leaf), index == 1);
            guids.push(guid(&name(leaf)));
        }
        let mut bystanders = BTreeMap::new();
        for stranger in STRANGERS.map(name) {
            if engine.facts(stranger.as_str()).expect("the pool can be looked at").is_none() {
                engine.create(&stranger, &[]).expect("it can be made");
            }
            bystanders.insert(stranger.to_string(), guid(&stranger));
        }
        drop(engine);
        let reference = Reference::new(&guids);
        let machine = Self { processes: Default::default(), reference, bystanders, world };
        for head in &machine.reference.heads {
            let path = machine.path(head, machine.target(head.target).leaf());
            let value = head.target as u64;
            machine.world.at(Path::new(&path), Some(("origin", value)));
        }
        machine
    }

    pub(super) fn target(&self, index: usize) -> DatasetName {
        let leaf = ["a", "b", "c"][index];
        format!("{}/{leaf}", self.world.scope()).parse().expect("it is a name")
    }

    fn away(&self, index: usize) -> DatasetName {
        self.target(index).with_suffix("-away").expect("it is a name")
    }

    /// The head's name, as long as it is there.
    pub(super) fn name(&self, head: &Head) -> Option<String> {
        let target = self.target(head.target);
        match head.place {
            Place::Target => Some(target.to_string()),
            Place::Away => Some(self.away(head.target).to_string()),
            Place::Predecessor(id) => Some(format!("{target}{}", id.predecessor_suffix())),
            Place::Destroyed => None,
        }
    }

    /// The mount point of a head whose name ends so.
    pub(super) fn path(&self, head: &Head, leaf: &str) -> String {
        let (scope, own) = self.world.paths();
        if head.inherits { format!("{scope}/{leaf}") } else { own }
    }

    /// A process of its own.
    fn process(&self) -> (Arc<Mortal>, Zfs) {
        let mortal = Mortal::new(self.world.engine(), self.world.scope());
        let confinement = [self.world.scope().clone()];
        let zfs = Zfs::on(Arc::clone(&mortal) as Arc<dyn Engine>, Some(&confinement));
        (mortal, zfs)
    }

    fn guid(&self, name: &str) -> u64 {
        let facts = self.world.engine().facts(name).expect("the pool can be looked at");
        facts.map_or(0, |facts| facts.guid.0)
    }

    fn workspace_guid(&self, target: usize, id: TransactionId) -> u64 {
        self.guid(&format!("{}{}", self.target(target), id.workspace_suffix()))
    }

    /// The target's mount point, as long as it has one.
    fn target_path(&self, target: usize) -> Option<String> {
        let old = self.reference.doubt(target).and_then(|doubt| doubt.head).map(|(old, _)| old);
        let head = &self.reference.heads[self.reference.targets[target].here.or(old)?];
        Some(self.path(head, self.target(target).leaf()))
    }

    /// Does an operation; says how it ended. `moment`: when its process dies.
    fn act(
        &mut self,
        operation: &Operation,
        moment: Option<(usize, super::mortal::Death)>,
    ) -> Ending {
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
                    Err(crate::error::ResumeError::NotFound { .. }) => Ending::Refused,
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
                if self.reference.targets[target].here.is_none() {
                    return Ending::Skipped;
                }
                let name =
                    self.target(target).snapshot(&format!("keep-{}", self.reference.value()));
                let taken = self.world.engine().snapshot(&name.expect("it is a name"), None);
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
                let guid = crate::receipt::Guid(self.guid(&name));
                match engine.destroy(&name, guid) {
                    Ok(_) => Ending::Done,
                    Err(_) => Ending::Refused,
                }
            }
            _ => Ending::Skipped,
        }
    }

    /// Does an operation, and holds the pool to the reference.
    pub(super) fn step(&mut self, operation: &Operation) {
        let written = match operation {
            Operation::ForeignWrite { target } => self.target_path(*target).and_then(|path| {
                self.world.at(Path::new(&path), Some(("foreign", self.reference.value())))
            }),
            _ => None,
        };
        let ending = self.act(operation, None);
        self.processes.iter().flatten().for_each(|process| process.mortal.spare());
        let view = self.world.view(false);
        let crashed = matches!(ending, Ending::Crashed { .. }) || *operation == Operation::Boot;
        let traces = match crashed {
            true => traces(self.world.engine().as_ref(), self.world.scope(), &view),
            false => Ok(BTreeMap::new()),
        };
        let traces = traces.expect("the pool can be looked at");
        let observed = Observed { ending, written, traces };
        if let Err(error) = self.reference.step(operation, Some(&observed)) {
            panic!("{operation:?}: {error}; traces: {:?}", observed.traces);
        }
        for slot in 0..SLOTS {
            if self.reference.slots[slot].is_none() {
                self.processes[slot] = None;
            }
        }
        Check { machine: self, view: &view }.all();
    }

    /// Does what is worth doing only if something is there for it.
    fn step_if(&mut self, wanted: bool, operation: &Operation) {
        if wanted {
            self.step(operation);
        }
    }

    /// Ends everything: what is left then is what nobody may remove.
    pub(super) fn end_all(&mut self) {
        for _ in 0..2 {
            for slot in 0..SLOTS {
                let standing = |machine: &Self| machine.reference.standing(slot);
                let detached = standing(self) == Some(Standing::Detached);
                self.step_if(detached, &Operation::Resume { slot });
                let open = standing(self) == Some(Standing::Open);
                self.step_if(open, &Operation::Rollback { slot });
            }
            let pending = self.reference.txns().next().is_some() || !self.reference.left.is_empty();
            self.step_if(pending, &Operation::Recover);
            // What could not be finished because of another name can be now.
            for target in 0..TARGETS {
                let free = self.reference.targets[target].here.is_none();
                self.step_if(free, &Operation::ForeignRename { target });
            }
        }
        let view = self.world.view(true);
        Check { machine: self, view: &view }.all();
        // What is detached stays so where its target has another name by now, and its name is taken.
        let away = |txn: &Txn| self.reference.targets[txn.target].away.is_some();
        let stays = |txn: &Txn| txn.standing == Standing::Detached && away(txn);
        assert!(self.reference.txns().all(stays), "I4: {:?}", self.reference.slots);
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

/// The machine on one kind of pool.
#[derive(Debug)]
pub(super) struct On<B>(std::marker::PhantomData<B>);

impl<B: Backend> StateMachineTest for On<B> {
    type SystemUnderTest = Machine<B>;
    type Reference = Model;

    fn init_test(_: &Reference) -> Machine<B> {
        Machine::new()
    }

    fn apply(mut machine: Machine<B>, _: &Reference, operation: Operation) -> Machine<B> {
        machine.step(&operation);
        machine
    }

    fn teardown(mut machine: Machine<B>, _: Reference) {
        machine.end_all();
    }
}
