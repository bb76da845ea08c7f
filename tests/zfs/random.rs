//! Random sequences of begin, write, commit, rollback and drop over three datasets do what a plain
//! map of contents does.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use zfs_txn::{CommitError, DatasetName, Transaction};

use crate::support::Scene;

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

fn run(scene: &Scene, targets: &[DatasetName], operations: &[Operation]) {
    let mut models: Vec<Model> = (0..DATASETS).map(|_| Model::default()).collect();
    for (model, target) in models.iter_mut().zip(targets) {
        // What earlier sequences committed is where this one starts.
        model.committed = scene.mounted_at(target).map(|path| content(&path));
    }
    let mut open: Vec<Vec<Transaction>> = (0..DATASETS).map(|_| Vec::new()).collect();
    for operation in operations {
        let index = match *operation {
            Operation::Begin(d)
            | Operation::Write(d, ..)
            | Operation::Delete(d, _)
            | Operation::Commit(d)
            | Operation::Rollback(d)
            | Operation::Drop(d) => d,
        };
        let (model, target, open) = (&mut models[index], &targets[index], &mut open[index]);
        match *operation {
            // Two at a time are enough to have conflicts.
            Operation::Begin(_) if open.len() < 2 => {
                open.push(scene.begin(target));
                let start = model.committed.clone().unwrap_or_default();
                model.open.push((start, model.generation));
            }
            Operation::Write(_, file, byte) => {
                if let (Some(transaction), Some((content, _))) =
                    (open.last(), model.open.last_mut())
                {
                    let name = format!("f{file}");
                    fs::write(transaction.path().join(&name), [byte]).unwrap();
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
                    Ok(_) => {
                        assert_eq!(generation, model.generation, "a lost update");
                        model.committed = Some(content);
                        model.generation += 1;
                    }
                    Err(CommitError::Conflict { transaction, .. }) => {
                        assert_ne!(generation, model.generation, "a false conflict");
                        transaction.rollback().unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Rollback(_) if !open.is_empty() => {
                model.open.remove(0);
                open.remove(0).rollback().unwrap();
            }
            Operation::Drop(_) if !open.is_empty() => {
                model.open.remove(0);
                drop(open.remove(0));
            }
            _ => {}
        }
        let seen = scene.mounted_at(target).map(|path| content(&path));
        assert_eq!(seen, model.committed, "{target} after {operation:?}");
    }
    for transaction in open.into_iter().flatten() {
        transaction.rollback().unwrap();
    }
}

#[test]
fn two_hundred_random_sequences_agree_with_a_map() {
    let seed = match std::env::var("ZFS_TXN_SEED") {
        Ok(text) => text.parse().expect("ZFS_TXN_SEED is a number"),
        Err(_) => std::process::id().into(),
    };
    println!("seed: {seed}");
    let config = Config {
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let scene = Scene::new();
    let targets: Vec<DatasetName> = ["a", "b", "c"].map(|name| scene.name(name)).into();
    let mut done = 0;
    for sequence in 0..SEQUENCES {
        // Now and then from nothing, so that both kinds of transaction are met.
        if sequence % 4 == 0 {
            for target in &targets {
                let _ = scene.pool.try_zfs(&["destroy", "-R", target.as_str()]);
            }
        }
        let operations = operations().new_tree(&mut runner).unwrap().current();
        eprintln!("seed {seed}, sequence {sequence}: {operations:?}");
        run(&scene, &targets, &operations);
        done += 1;
    }
    println!("sequences: {done}, differences: 0, seed: {seed}");
    scene.pool.cleanup();
}
