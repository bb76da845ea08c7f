//! What is to be done about a transaction that was interrupted. Pure: from what is there under which
//! name to steps.

use crate::receipt::Strategy;
use crate::txn::journal::State;
use crate::txn::plan::{Kind, Step};

/// What the target's name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    Nothing,
    /// The dataset that it stood for at begin.
    Old,
    /// The workspace, or, in place, the old dataset with the workspace's content: the commit point
    /// was passed.
    New,
    /// A dataset that has nothing to do with the transaction.
    Other,
}

/// What is there of a transaction, each thing recognized by its guid, its origin or its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sighting {
    pub(crate) kind: Kind,
    pub(crate) strategy: Strategy,
    pub(crate) state: State,
    pub(crate) target: Named,
    /// Whether the workspace is there under its own name.
    pub(crate) workspace: bool,
    /// Whether the old target is there under the predecessor's name.
    pub(crate) predecessor: bool,
    /// Whether the workspace, under whichever name, holds the base.
    pub(crate) promoted: bool,
    /// Whether the old target, under whichever name, has its mount point pinned.
    pub(crate) pinned: bool,
    /// Whether the old target, under whichever name, still refuses writes.
    pub(crate) fenced: bool,
    /// Whether there is a snapshot that was taken to compare.
    pub(crate) look: bool,
    /// Whether the record asks for a change of the dataset that has the record, and nothing but the record
    /// says that it is the transaction's to make.
    pub(crate) unproven: bool,
    /// How many parents an init transaction was to create.
    pub(crate) parents: usize,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// The commit point was passed: finish the commit.
    Forward(Vec<Step>),
    /// It was not: undo everything.
    Back(Vec<Step>),
    /// The transaction had ended: remove what it could not.
    Sweep(Vec<Step>),
    /// Somebody has interfered, and no step is safe; the reason.
    Stuck(&'static str),
}

impl Sighting {
    pub(crate) fn aftermath(&self) -> Aftermath {
        if self.unproven {
            return Aftermath::Stuck(
                "no clone of the base is beside the target that would prove what the record says: if \
                 nobody has forged it, put zoned, canmount or readonly of the target right by hand, and \
                 destroy the snapshot that has the record",
            );
        }
        match self.kind {
            Kind::Init if self.target == Named::New => Self::forward(),
            Kind::Init => Aftermath::Back(self.back(&[])),
            Kind::Update if self.has_ended() => self.sweep(),
            Kind::Update if self.strategy == Strategy::InPlace => self.in_place(),
            Kind::Update => self.update(),
        }
    }

    /// Whether the names or mount points of the target are not as they are to stay.
    pub(crate) fn is_between(&self) -> bool {
        self.strategy == Strategy::Promote
            && !self.has_ended()
            && (self.promoted || self.pinned || self.predecessor || self.target == Named::New)
    }

    /// Whether the commit was concluded.
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Committed | State::Kept)
    }

    fn update(&self) -> Aftermath {
        use Named::{New, Nothing, Old, Other};
        match (self.target, self.predecessor, self.promoted, self.workspace) {
            (New, _, _, _) => Self::forward(),
            (Old, false, true, true) => Aftermath::Back(self.back(&[Step::PromoteBack])),
            (Old | Nothing | Other, false, false, _) => Aftermath::Back(self.back(&[])),
            (Nothing, true, true, true) => {
                Aftermath::Back(self.back(&[Step::RenameBack, Step::PromoteBack]))
            }
            (Other, true, _, _) => Aftermath::Stuck("another dataset has got the target's name"),
            (Nothing, true, _, _) => Aftermath::Stuck("the new content is not under a known name"),
            _ => Aftermath::Stuck("the old content is not under a known name"),
        }
    }

    /// No name changes: whatever is there is there under its own.
    fn in_place(&self) -> Aftermath {
        match self.target {
            Named::New => {
                let fence = self.fenced.then_some(Step::Unfence);
                let rest = [Step::LetGoOfPages, Step::UnmountWorkspace, Step::Conclude];
                Aftermath::Forward(fence.into_iter().chain(rest).collect())
            }
            _ => Aftermath::Back(self.back(&[])),
        }
    }

    fn forward() -> Aftermath {
        Aftermath::Forward(vec![Step::SwapMounts, Step::UnmountWorkspace, Step::Conclude])
    }

    /// First names and snapshots, then what begin made.
    fn back(&self, names: &[Step]) -> Vec<Step> {
        let mut steps: Vec<Step> =
            names.iter().copied().filter(|s| *s == Step::RenameBack).collect();
        steps.extend(self.pinned.then_some(Step::UnpinMountpoint));
        steps.extend(names.iter().copied().filter(|s| *s == Step::PromoteBack));
        steps.extend(self.look.then_some(Step::DestroyLook));
        steps.extend(self.fenced.then_some(Step::Unfence));
        steps.push(Step::UnmountWorkspace);
        steps.extend(self.workspace.then_some(Step::DestroyWorkspace));
        match self.kind {
            Kind::Init => {
                steps.extend((0..self.parents).rev().map(Step::DestroyParent));
                steps.push(Step::EraseRecord);
            }
            Kind::Update => steps.push(Step::DestroyBase),
        }
        steps
    }

    fn sweep(&self) -> Aftermath {
        if self.state == State::Kept && self.predecessor {
            return Aftermath::Stuck("the predecessor keeps what the commit has overridden");
        }
        let fence = self.fenced.then_some(Step::Unfence);
        if self.strategy == Strategy::InPlace {
            if self.state == State::Kept && self.look && !self.workspace {
                return Aftermath::Stuck("a snapshot keeps what the commit has overridden");
            }
            let rest = [Step::UnmountWorkspace, Step::Conclude];
            return Aftermath::Sweep(fence.into_iter().chain(rest).collect());
        }
        // A commit that could not swap the mounts left the old content mounted.
        let swap = (self.target == Named::New).then_some(Step::SwapMounts);
        let predecessor = self.predecessor.then_some(Step::DestroyPredecessor);
        let first = fence.into_iter().chain(swap).chain(predecessor);
        Aftermath::Sweep(first.chain([Step::DestroyBase]).collect())
    }
}

#[cfg(test)]
pub(crate) mod after_step;
#[cfg(test)]
mod tests;
