//! Transactions as a state machine: random sequences of what programs, other users, crashes and
//! recovery do, held to a reference that knows contents and names, and no steps.

mod acts;
mod found;
mod hostile;
mod invariants;
mod judge;
mod machine;
mod memory;
mod mortal;
mod on_zfs;
mod operation;
mod programs;
mod reference;
mod verbs;
mod walked;
mod world;

use std::ops::Range;

use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use machine::{Model, On};
use world::{Backend, InMemory};

/// A number that is new each time, unless one is given.
fn seed() -> u64 {
    match std::env::var("ZFS_TXN_SEED") {
        Ok(text) => text.parse().expect("ZFS_TXN_SEED is a number"),
        Err(_) => {
            let mut bytes = [0; 8];
            let len = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
            assert_eq!(len, Ok(8));
            u64::from_ne_bytes(bytes)
        }
    }
}

/// Runs sequences of so many operations, and shows the shortest one that fails.
fn run_with<B: Backend + 'static>(
    seed: u64,
    sequences: u32,
    operations: Range<usize>,
    shrinks: u32,
) {
    let config = Config {
        cases: sequences,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: shrinks,
        ..Config::default()
    };
    let strategy = <Model as ReferenceStateMachine>::sequential_strategy(operations);
    let result = TestRunner::new(config.clone()).run(&strategy, |(state, transitions, seen)| {
        On::<B>::test_sequential(config.clone(), state, transitions, seen);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (_, operations, _))) => {
            let lines = operations.iter().map(|operation| format!("  {operation:?}\n"));
            panic!("seed {seed}: {reason}, at the end of\n{}", lines.collect::<String>());
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ten_thousand_sequences_in_memory_agree_with_the_reference() {
    let seed = seed();
    println!("seed: {seed} (again with ZFS_TXN_SEED={seed})");
    run_with::<InMemory>(seed, 10_000, 12..20, 5_000);
}
