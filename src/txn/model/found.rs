//! Sequences at which the machine once found the library wrong, kept.

use super::machine::Machine;
use super::mortal::Death;
use super::operation::Operation::{self, *};
use super::world::InMemory;

fn agree(operations: &[Operation]) {
    let mut machine = Machine::<InMemory>::new();
    operations.iter().for_each(|operation| machine.step(operation));
    machine.end_all();
}

fn begin(slot: usize, target: usize) -> Operation {
    Begin { slot, target, overwrite: false, last: false }
}

fn overwrite(slot: usize, target: usize) -> Operation {
    Begin { slot, target, overwrite: true, last: false }
}

fn crash(act: Operation, after: usize, death: Death) -> Operation {
    Crash { act: Box::new(act), after, death }
}

/// At every moment of an act, and before, within and after what it does there.
fn at_every_moment(before: &[Operation], act: &Operation, then: &[Operation]) {
    for after in 0..16 {
        for death in [Death::Before, Death::Within, Death::After] {
            let crash = crash(act.clone(), after, death);
            agree(&[before, &[crash], then].concat());
        }
    }
}

#[test]
fn a_base_that_another_commit_has_moved_is_found_by_detach() {
    agree(&[begin(1, 0), begin(2, 0), Commit { slot: 1 }, Detach { slot: 2 }]);
}

#[test]
fn a_resumed_init_is_mounted_by_its_commit() {
    let rest = [Detach { slot: 0 }, Resume { slot: 0 }, Commit { slot: 0 }];
    agree(&[&[begin(0, 2)], &rest[..]].concat());
    let winner = [begin(1, 2), begin(0, 2), Commit { slot: 1 }];
    let rest = [Detach { slot: 0 }, Resume { slot: 0 }, ForeignRename { target: 2 }];
    agree(&[&winner, &rest[..], &[Commit { slot: 0 }]].concat());
}

#[test]
fn a_snapshot_that_nobody_has_compared_proves_nothing() {
    let before = [overwrite(1, 1), ForeignWrite { target: 1 }];
    at_every_moment(&before, &Commit { slot: 1 }, &[Recover, Sweep]);
    let kept = [&before[..], &[Commit { slot: 1 }]].concat();
    at_every_moment(&kept, &Recover, &[Sweep]);
}

#[test]
fn a_leftover_is_found_again_after_a_rollback_has_moved_its_record() {
    let kept = [begin(0, 0), begin(1, 0), Commit { slot: 0 }, Rollback { slot: 1 }];
    at_every_moment(&[&kept[..], &[begin(0, 0)]].concat(), &Commit { slot: 0 }, &[Recover]);
}

#[test]
fn a_predecessor_that_a_boot_has_mounted_can_be_swept() {
    let two = [begin(0, 1), begin(2, 1)];
    at_every_moment(&two, &Commit { slot: 0 }, &[Boot, Recover]);
    let unparked = crash(Commit { slot: 0 }, 9, Death::After);
    at_every_moment(&[&two[..], &[unparked, Boot]].concat(), &Recover, &[Recover]);
}

#[test]
fn a_snapshot_for_comparing_is_destroyed_wherever_it_is() {
    let before = [begin(2, 0), ForeignWrite { target: 0 }];
    at_every_moment(&before, &Commit { slot: 2 }, &[ForeignRename { target: 0 }, Recover]);
    let before = [begin(0, 0), ForeignWrite { target: 0 }, begin(1, 0)];
    at_every_moment(&before, &Commit { slot: 0 }, &[Commit { slot: 1 }, Recover]);
}

#[test]
fn a_name_that_is_free_between_two_renames_is_not_taken() {
    let before = [begin(1, 2), begin(2, 2), Commit { slot: 2 }, begin(0, 2)];
    at_every_moment(&before, &Commit { slot: 0 }, &[Commit { slot: 1 }, Recover]);
}

#[test]
fn what_is_overridden_is_kept_after_a_crash_as_well() {
    for change in [ForeignSet { target: 0 }, ForeignSnapshot { target: 0 }] {
        let before = [overwrite(0, 0), change];
        at_every_moment(&before, &Commit { slot: 0 }, &[Recover, Recover]);
    }
}
