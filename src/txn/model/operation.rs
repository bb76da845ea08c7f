//! What happens to the pool, one thing at a time, and how it is chosen.

use proptest::prelude::*;
use proptest::sample::select;

use super::mortal::Death;
use super::reference::{Reference, Standing};

/// The first inherits its mount point, the second has its own, the third is yet to be created.
pub(super) const TARGETS: usize = 3;
/// So many transactions at most are there at a time.
pub(super) const SLOTS: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Begin {
        slot: usize,
        target: usize,
        overwrite: bool,
        last: bool,
    },
    Write {
        slot: usize,
    },
    Commit {
        slot: usize,
    },
    Rollback {
        slot: usize,
    },
    Drop {
        slot: usize,
    },
    Detach {
        slot: usize,
    },
    Resume {
        slot: usize,
    },
    ForeignWrite {
        target: usize,
    },
    /// Access times are written, content is not.
    ForeignRead {
        target: usize,
    },
    ForeignSet {
        target: usize,
    },
    ForeignSnapshot {
        target: usize,
    },
    /// Out of the way, or back.
    ForeignRename {
        target: usize,
    },
    ForeignDestroyBase {
        slot: usize,
    },
    Recover,
    Sweep,
    /// The process that does this dies after so many effects.
    Crash {
        act: Box<Operation>,
        after: usize,
        death: Death,
    },
    /// All processes die, and what claims a mount point is mounted.
    Boot,
}

impl Operation {
    fn crashing(self) -> Self {
        Self::Crash { act: Box::new(self), after: 0, death: Death::Before }
    }

    /// Gives a crash its moment.
    fn at(self, moment: usize, how: Death) -> Self {
        match self {
            Self::Crash { act, .. } => Self::Crash { act, after: moment, death: how },
            other => other,
        }
    }
}

/// What may happen next, each as often as its weight says; the simplest first, for shrinking.
fn candidates(state: &Reference) -> Vec<Operation> {
    let mut found = Vec::new();
    let mut add = |weight: usize, operation: Operation| {
        found.extend(std::iter::repeat_n(operation, weight));
    };
    let mut dead = 0;
    for slot in 0..SLOTS {
        match state.standing(slot) {
            None => {
                for target in 0..TARGETS {
                    let begin =
                        |overwrite, last| Operation::Begin { slot, target, overwrite, last };
                    add(4, begin(false, false));
                    add(1, begin(true, false));
                    add(1, begin(false, true));
                    add(1, begin(false, false).crashing());
                }
            }
            Some(Standing::Open) => {
                add(4, Operation::Write { slot });
                add(8, Operation::Commit { slot });
                add(2, Operation::Rollback { slot });
                add(1, Operation::Drop { slot });
                add(3, Operation::Detach { slot });
                add(1, Operation::ForeignDestroyBase { slot });
                add(9, Operation::Commit { slot }.crashing());
                add(2, Operation::Rollback { slot }.crashing());
                add(1, Operation::Detach { slot }.crashing());
            }
            Some(Standing::Detached) => {
                add(6, Operation::Resume { slot });
                add(1, Operation::Resume { slot }.crashing());
                add(1, Operation::ForeignDestroyBase { slot });
            }
            Some(Standing::Interrupted | Standing::Leftover) => {
                dead += 1;
                add(1, Operation::ForeignDestroyBase { slot });
            }
        }
    }
    for target in 0..TARGETS {
        add(2, Operation::ForeignWrite { target });
        add(1, Operation::ForeignRead { target });
        add(1, Operation::ForeignSet { target });
        add(1, Operation::ForeignSnapshot { target });
        add(1, Operation::ForeignRename { target });
    }
    add(1 + 5 * dead, Operation::Recover);
    add(1 + 3 * dead, Operation::Recover.crashing());
    add(1 + 2 * state.leftovers(), Operation::Sweep);
    add(state.leftovers(), Operation::Sweep.crashing());
    add(2, Operation::Boot);
    found
}

/// The most effects that any act has, and some more.
const MOMENTS: usize = 14;

pub(super) fn operations(state: &Reference) -> BoxedStrategy<Operation> {
    let deaths = select(vec![Death::Before, Death::After, Death::Within]);
    (select(candidates(state)), 0..MOMENTS, deaths)
        .prop_map(|(operation, moment, how)| operation.at(moment, how))
        .boxed()
}
