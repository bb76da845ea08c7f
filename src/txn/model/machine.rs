//! The state machine: does each operation to a pool and to the reference, and compares.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::strategy::{BoxedStrategy, Just, Strategy};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::invariants::Check;
use super::mortal::Mortal;
use super::operation::{Operation, SLOTS, TARGETS, operations};
use super::reference::{Ending, Head, Observed, Place, Reference, Standing, Txn};
use super::world::{Backend, traces};
use crate::engine::Engine;
use crate::name::{DatasetName, TransactionId};
use crate::txn::Transaction;
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
pub(super) struct Process {
    pub(super) mortal: Arc<Mortal>,
    pub(super) id: TransactionId,
    pub(super) target: usize,
    /// None: detached, or dead.
    pub(super) transaction: Option<Transaction>,
}

/// A pool with what happens to it, and what should.
#[derive(Debug)]
pub(super) struct Machine<B> {
    pub(super) processes: [Option<Process>; SLOTS],
    pub(super) reference: Reference,
    /// Datasets of others, with their guids, whose names fit.
    pub(super) bystanders: BTreeMap<String, u64>,
    pub(super) world: B,
}

/// Names that only look like a transaction's.
pub(super) const STRANGERS: [&str; 2] = ["a-txn-0123456789abcdef", "b-old-0123456789abcdef"];

impl<B: Backend> Machine<B> {
    pub(super) fn new() -> Self {
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

    pub(super) fn away(&self, index: usize) -> DatasetName {
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
    pub(super) fn process(&self) -> (Arc<Mortal>, Zfs) {
        let mortal = Mortal::new(self.world.engine(), self.world.scope());
        let confinement = [self.world.scope().clone()];
        let zfs = Zfs::on(Arc::clone(&mortal) as Arc<dyn Engine>, Some(&confinement));
        (mortal, zfs)
    }

    pub(super) fn guid(&self, name: &str) -> u64 {
        let facts = self.world.engine().facts(name).expect("the pool can be looked at");
        facts.map_or(0, |facts| facts.guid.0)
    }

    pub(super) fn workspace_guid(&self, target: usize, id: TransactionId) -> u64 {
        self.guid(&format!("{}{}", self.target(target), id.workspace_suffix()))
    }

    /// The target's mount point, as long as it has one.
    pub(super) fn target_path(&self, target: usize) -> Option<String> {
        let old = self.reference.doubt(target).and_then(|doubt| doubt.head).map(|(old, _)| old);
        let head = &self.reference.heads[self.reference.targets[target].here.or(old)?];
        Some(self.path(head, self.target(target).leaf()))
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
