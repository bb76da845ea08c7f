//! What is on disk when the process dies right after a step: a model of the datasets, for the crash
//! table and for the tests that hold real ones against it.

use crate::txn::aftermath::{Aftermath, Named, Sighting};
use crate::txn::journal::State;
use crate::txn::plan::{Kind, Plan, Shape, Step};

/// What a transaction has left on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What recovery finds; `None` where there is no record.
    pub(crate) sighting: Option<Sighting>,
    /// How many parents it has created.
    pub(crate) parents: usize,
    /// Whether the final snapshot is there.
    pub(crate) final_snapshot: bool,
    /// Which content a boot mounts at the target's mount point.
    pub(crate) claim: Named,
}

/// Every step of a transaction that is not interrupted, with what is on disk after it.
pub(crate) fn crash_points(shape: Shape) -> Vec<(Step, Disk)> {
    let Plan { begin, commit, settle } = Plan::new(shape);
    let mut disk = Disk::before(shape);
    let steps = [begin, commit, settle].concat().into_iter();
    steps
        .map(|step| {
            disk.apply(step, shape);
            (step, disk)
        })
        .collect()
}

impl Disk {
    pub(crate) fn before(shape: Shape) -> Self {
        let claim = if shape.kind == Kind::Init { Named::Nothing } else { Named::Old };
        Self { sighting: None, parents: 0, final_snapshot: false, claim }
    }

    /// What recovery does about it.
    pub(crate) fn aftermath(&self) -> Option<Aftermath> {
        Some(self.sighting?.aftermath())
    }

    /// Does a step, or the inverse of one.
    ///
    /// # Panics
    /// Where the step could not be done, or would destroy what it must not.
    pub(crate) fn apply(&mut self, step: Step, shape: Shape) {
        if matches!(step, Step::WriteRecord | Step::TakeBase) {
            assert_eq!(self.sighting, None);
            self.sighting = Some(Sighting {
                kind: shape.kind,
                strategy: shape.strategy,
                state: State::Open,
                target: self.claim,
                workspace: false,
                predecessor: false,
                promoted: false,
                pinned: false,
                fenced: false,
                look: false,
                unproven: false,
                parents: shape.missing_parents,
            });
            return;
        }
        let Some(sighting) = &mut self.sighting else { panic!("{step:?} without a record") };
        match step {
            Step::CreateParent(level) => {
                assert_eq!(level, self.parents);
                self.parents += 1;
            }
            Step::DestroyParent(level) => {
                assert!(!sighting.workspace && sighting.target != Named::New);
                // One that was not created is left out.
                self.parents = self.parents.min(level);
            }
            Step::CreateWorkspace | Step::CloneWorkspace => sighting.workspace = true,
            Step::TakeFinal => self.final_snapshot = true,
            Step::StageChange => (self.final_snapshot, sighting.state) = (true, State::Committing),
            Step::Receive => {
                assert!(sighting.workspace && self.final_snapshot);
                (sighting.target, self.claim) = (Named::New, Named::New);
            }
            Step::Promote => {
                (sighting.promoted, sighting.state) = (true, State::Committing);
            }
            Step::PinMountpoint => {
                assert_eq!(sighting.target, Named::Old);
                sighting.pinned = true;
            }
            Step::Fence => {
                assert_eq!(sighting.target, Named::Old);
                sighting.fenced = true;
            }
            Step::Unfence => sighting.fenced = false,
            Step::RenameAside => {
                assert_eq!(sighting.target, Named::Old);
                (sighting.target, sighting.predecessor) = (Named::Nothing, true);
            }
            Step::RenameIntoPlace => {
                assert!(sighting.workspace && sighting.target == Named::Nothing);
                (sighting.target, sighting.workspace) = (Named::New, false);
                // Of an init, nothing was promoted.
                sighting.promoted = sighting.kind == Kind::Update;
            }
            Step::Conclude => {
                assert_eq!(sighting.target, Named::New);
                (self.sighting, self.claim) = (None, Named::New);
            }
            Step::RenameBack => {
                assert!(sighting.predecessor && sighting.target == Named::Nothing);
                (sighting.target, sighting.predecessor) = (Named::Old, false);
            }
            Step::UnpinMountpoint => {
                // Else the target would lose its mount point.
                assert_eq!(sighting.target, Named::Old);
                sighting.pinned = false;
            }
            Step::PromoteBack => {
                assert!(sighting.target == Named::Old && sighting.workspace && sighting.promoted);
                (sighting.promoted, sighting.state) = (false, State::Open);
                sighting.look = false;
            }
            Step::DestroyLook => sighting.look = false,
            Step::DestroyFinal => self.final_snapshot = false,
            Step::DestroyWorkspace => {
                assert!(sighting.workspace && !sighting.promoted);
                (sighting.workspace, self.final_snapshot) = (false, false);
            }
            Step::DestroyBase | Step::EraseRecord => {
                let old = sighting.predecessor || sighting.pinned || sighting.fenced;
                let rest = sighting.workspace || old;
                assert!(!rest && !sighting.look && self.parents == 0, "{step:?} {sighting:?}");
                self.sighting = None;
            }
            Step::Look
            | Step::CopyPermissions
            | Step::MountWorkspace
            | Step::CheckWorkspace
            | Step::SetOwnership
            | Step::Flush
            | Step::PrepareMounts
            | Step::CheckTarget
            | Step::LetGoOfPages
            | Step::SwapMounts
            | Step::UnmountWorkspace
            | Step::DropMounts => {}
            Step::WriteRecord
            | Step::TakeBase
            | Step::ParkPredecessor
            | Step::DestroyPredecessor
            | Step::CheckOwner
            | Step::Detach
            | Step::Resume => panic!("{step:?} is in no plan"),
        }
    }
}
