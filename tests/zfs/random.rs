//! Random sequences of begin, write, commit, rollback and drop over three datasets do what a plain
//! map of contents does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use zfs_txn::{CommitError, DatasetName, Kind, Transaction};

use crate::support::Scene;
use crate::test_write::write;

const DATASETS: usize = 3;
const SEQUENCES: usize = 200;

/// One operation; the number picks the dataset.
#[derive(Debug, Clone)]
enum Operation {
    Begin(usize),
    Write(usize, u8, u8),
    Delete(usize, u8),
    Commit(usize),
    Rollback(usize),
    Drop(usize),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let dataset = 0..DATASETS;
    let operation = prop_oneof![
        4 => dataset.clone().prop_map(Operation::Begin),
        4 => (dataset.clone(), 0..4u8, any::<u8>()).prop_map(|(d, f, c)| Operation::Write(d, f, c)),
        1 => (dataset.clone(), 0..4u8).prop_map(|(d, f)| Operation::Delete(d, f)),
        3 => dataset.clone().prop_map(Operation::Commit),
        1 => dataset.clone().prop_map(Operation::Rollback),
        1 => dataset.prop_map(Operation::Drop),
    ];
    prop::collection::vec(operation, 4..12)
}

type Content = BTreeMap<String, u8>;

/// The model of one dataset: what is committed, and open transactions, the oldest first.
#[derive(Debug, Default)]
struct Model {
    committed: Option<Content>,
    generation: u32,
    open: Vec<(Content, u32)>,
}

/// What happened, to see that all of it did.
#[derive(Debug, Default)]
struct Tally {
    inits: u32,
    updates: u32,
    conflicts: u32,
    rollbacks: u32,
    leftovers: u32,
}

fn content(directory: &std::path::Path) -> Content {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let bytes = fs::read(entry.path()).unwrap();
            assert_eq!(bytes.len(), 1);
            (entry.file_name().into_string().unwrap(), bytes[0])
        })
        .collect()
}

/// Three datasets, the model of each, and what commits could not remove.
struct World {
    scene: Scene,
    targets: Vec<DatasetName>,
    models: Vec<Model>,
    tally: Tally,
    /// Guids of reported leftovers.
    reported: BTreeSet<String>,
}

impl World {
    fn run(&mut self, operations: &[Operation]) {
        let mut open: Vec<Vec<Transaction>> = (0..DATASETS).map(|_| Vec::new()).collect();
        for operation in operations {
            self.step(operation, &mut open);
        }
        for (transactions, model) in open.into_iter().zip(&mut self.models) {
            model.open.clear();
            for transaction in transactions {
                transaction.rollback().unwrap();
            }
        }
        for (target, model) in self.targets.iter().zip(&self.models) {
            let seen = self.scene.mounted_at(target).map(|path| content(&path));
            assert_eq!(seen, model.committed, "{target} at the end");
        }
        self.sweep();
    }

    fn step(&mut self, operation: &Operation, open: &mut [Vec<Transaction>]) {
        let (Operation::Begin(index)
        | Operation::Write(index, ..)
        | Operation::Delete(index, _)
        | Operation::Commit(index)
        | Operation::Rollback(index)
        | Operation::Drop(index)) = *operation;
        let (model, target, open) =
            (&mut self.models[index], &self.targets[index], &mut open[index]);
        match *operation {
            // Two at a time are enough to have conflicts.
            Operation::Begin(_) if open.len() < 2 => {
                open.push(self.scene.begin(target));
                let start = model.committed.clone().unwrap_or_default();
                model.open.push((start, model.generation));
            }
            Operation::Write(_, file, byte) => {
                if let (Some(transaction), Some((content, _))) =
                    (open.last(), model.open.last_mut())
                {
                    let name = format!("f{file}");
                    write(transaction.path().join(&name), [byte]).unwrap();
                    content.insert(name, byte);
                }
            }
            Operation::Delete(_, file) => {
                if let (Some(transaction), Some((content, _))) =
                    (open.last(), model.open.last_mut())
                {
                    let name = format!("f{file}");
                    let there = content.remove(&name).is_some();
                    assert_eq!(fs::remove_file(transaction.path().join(&name)).is_ok(), there);
                }
            }
            // The oldest ends first, so that the younger one is in its way or in conflict.
            Operation::Commit(_) if !open.is_empty() => {
                let (content, generation) = model.open.remove(0);
                match open.remove(0).commit() {
                    Ok(receipt) => {
                        assert_eq!(generation, model.generation, "a lost update");
                        model.committed = Some(content);
                        model.generation += 1;
                        match receipt.kind {
                            Kind::Init => self.tally.inits += 1,
                            Kind::Update => self.tally.updates += 1,
                        }
                        self.reported
                            .extend(receipt.leftovers.iter().map(|left| left.guid.to_string()));
                    }
                    Err(CommitError::Conflict { transaction, .. }) => {
                        assert_ne!(generation, model.generation, "a false conflict");
                        transaction.rollback().unwrap();
                        self.tally.conflicts += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Rollback(_) if !open.is_empty() => {
                model.open.remove(0);
                open.remove(0).rollback().unwrap();
                self.tally.rollbacks += 1;
            }
            Operation::Drop(_) if !open.is_empty() => {
                model.open.remove(0);
                drop(open.remove(0));
                self.tally.rollbacks += 1;
            }
            _ => {}
        }
        let seen = self.scene.mounted_at(target).map(|path| content(&path));
        assert_eq!(seen, model.committed, "{target} after {operation:?}");
    }

    /// What no transaction needs any more was reported, and can be destroyed by hand.
    fn sweep(&mut self) {
        let pool = self.scene.pool.name();
        let list = ["list", "-Hpo", "name,guid", "-t", "all", "-r", pool];
        let left: Vec<(String, String)> = self
            .scene
            .pool
            .zfs(&list)
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(name, _)| ["-txn-", "-old-", "@txn-"].iter().any(|part| name.contains(part)))
            .map(|(name, guid)| (name.to_owned(), guid.to_owned()))
            .collect();
        for (name, guid) in &left {
            assert!(self.reported.contains(guid), "{name} is left, and was not reported");
        }
        self.tally.leftovers += left.len() as u32;
        // Predecessors before the bases that they depend on.
        for snapshot in [false, true] {
            for (name, _) in left.iter().filter(|(name, _)| name.contains('@') == snapshot) {
                self.scene.pool.zfs(&["destroy", name]);
            }
        }
    }

    /// From nothing, so that both kinds of transaction are met.
    fn start_over(&mut self) {
        for (target, model) in self.targets.iter().zip(&mut self.models) {
            if model.committed.take().is_some() {
                self.scene.pool.zfs(&["destroy", "-r", target.as_str()]);
                model.generation += 1;
            }
        }
    }
}

fn seed() -> u64 {
    match std::env::var("ZFS_TXN_SEED") {
        Ok(text) => text.parse().expect("ZFS_TXN_SEED is a number"),
        Err(_) => {
            let mut bytes = [0; 8];
            File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
            u64::from_ne_bytes(bytes)
        }
    }
}

#[test]
fn two_hundred_random_sequences_agree_with_a_map() {
    let seed = seed();
    println!("seed: {seed} (again with ZFS_TXN_SEED={seed})");
    let config = Config {
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let scene = Scene::new();
    let targets: Vec<DatasetName> = ["a", "b", "c"].map(|name| scene.name(name)).into();
    let models = (0..DATASETS).map(|_| Model::default()).collect();
    let mut world =
        World { scene, targets, models, tally: Tally::default(), reported: BTreeSet::new() };
    for sequence in 0..SEQUENCES {
        if sequence % 4 == 0 {
            world.start_over();
        }
        let mut operations = operations().new_tree(&mut runner).unwrap().current();
        if sequence % 10 == 0 {
            // Chance alone meets a conflict too seldom: two at a time, and both commit.
            let index = sequence / 10 % DATASETS;
            operations.extend([Operation::Begin(index), Operation::Begin(index)]);
            operations.extend([Operation::Commit(index), Operation::Commit(index)]);
        }
        println!("sequence {sequence}: {operations:?}");
        world.run(&operations);
    }
    let tally = &world.tally;
    println!("{SEQUENCES} sequences agree with the map: {tally:?}");
    let Tally { inits, updates, conflicts, rollbacks, leftovers } = *tally;
    assert!([inits, updates, conflicts, rollbacks, leftovers].iter().all(|&n| n > 0), "{tally:?}");
    world.scene.end();
}
