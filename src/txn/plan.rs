//! What a transaction does, as ordered steps. Pure: it knows names and facts, and no ZFS.
//!
//! One [`Step`] is one durable effect. The engine carries a step out, the plan says in which order,
//! which step is the commit point, and what undoes each one before it.

use std::fmt;

/// One durable effect of a transaction, or the inverse of one.
///
/// Errors name the step at which something went wrong; `Display` gives it as a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Look at the target and what surrounds it. Changes nothing.
    Look,
    /// Create a missing parent of the target; the number counts from the topmost.
    CreateParent(usize),
    /// Create the workspace of an init transaction.
    CreateWorkspace,
    /// Take the base snapshot of the target.
    TakeBase,
    /// Clone the base: the workspace of an update transaction.
    CloneWorkspace,
    /// Give the workspace the target's delegated permissions (`zfs allow`).
    CopyPermissions,
    /// Mount the workspace where only the caller looks.
    MountWorkspace,
    /// Apply the ownership asked for, inside the workspace.
    SetOwnership,
    /// Write the workspace's dirty pages to the pool.
    Flush,
    /// Take the final snapshot that the caller asked for, in the workspace.
    TakeFinal,
    /// Make the mounts that the target will get, attached nowhere yet.
    PrepareMounts,
    /// Check that the target is the one that was there at begin. Changes nothing.
    CheckTarget,
    /// Promote the workspace: it takes over the target's snapshots.
    Promote,
    /// Rename the target out of the way: it becomes the predecessor.
    RenameAside,
    /// Rename the workspace to the target's name.
    RenameIntoPlace,
    /// Replace the target's old mounts by the prepared ones.
    SwapMounts,
    /// Take the private mount away.
    UnmountWorkspace,
    /// Destroy the target's old head.
    DestroyPredecessor,
    /// Keep a predecessor that can't be destroyed from being mounted at boot (`canmount=noauto`).
    ParkPredecessor,
    /// Give the target its mount point property back.
    RestoreMountpoint,
    /// Destroy the base snapshot.
    DestroyBase,
    /// Drop prepared mounts that were never attached.
    DropMounts,
    /// Destroy the final snapshot.
    DestroyFinal,
    /// Undo [`Step::Promote`]: the target takes its snapshots back.
    PromoteBack,
    /// Undo [`Step::RenameAside`].
    RenameBack,
    /// Destroy the workspace.
    DestroyWorkspace,
    /// Destroy a parent that this transaction created.
    DestroyParent(usize),
}

impl Step {
    /// The step that undoes this one; `None` where there is nothing to undo, or no way back.
    pub(crate) fn inverse(self) -> Option<Self> {
        Some(match self {
            Self::CreateParent(level) => Self::DestroyParent(level),
            Self::CreateWorkspace | Self::CloneWorkspace => Self::DestroyWorkspace,
            Self::TakeBase => Self::DestroyBase,
            Self::MountWorkspace => Self::UnmountWorkspace,
            Self::TakeFinal => Self::DestroyFinal,
            Self::PrepareMounts => Self::DropMounts,
            Self::Promote => Self::PromoteBack,
            Self::RenameAside => Self::RenameBack,
            _ => return None,
        })
    }

    /// Whether the step destroys something.
    pub(crate) fn destroys(self) -> bool {
        matches!(
            self,
            Self::DestroyPredecessor
                | Self::DestroyBase
                | Self::DestroyFinal
                | Self::DestroyWorkspace
                | Self::DestroyParent(_)
        )
    }

    /// Whether failing at this step after the commit point leaves a leftover rather than a doubt.
    pub(crate) fn may_leave_leftover(self) -> bool {
        matches!(self, Self::DestroyPredecessor | Self::DestroyBase)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look => "look at",
            Self::CreateParent(_) => "create the parent",
            Self::CreateWorkspace => "create the workspace",
            Self::TakeBase => "take the base snapshot",
            Self::CloneWorkspace => "clone the workspace",
            Self::CopyPermissions => "copy the delegated permissions to the workspace",
            Self::MountWorkspace => "mount the workspace",
            Self::SetOwnership => "set the ownership in the workspace",
            Self::Flush => "flush the workspace",
            Self::TakeFinal => "take the final snapshot",
            Self::PrepareMounts => "prepare the mounts of",
            Self::CheckTarget => "check the target",
            Self::Promote => "promote the workspace",
            Self::RenameAside => "rename the old target to",
            Self::RenameIntoPlace => "rename the workspace to",
            Self::SwapMounts => "swap the mounts of",
            Self::UnmountWorkspace => "unmount the workspace",
            Self::DestroyPredecessor => "destroy the predecessor",
            Self::ParkPredecessor => "keep from being mounted at boot the predecessor",
            Self::RestoreMountpoint => "restore the mountpoint property of",
            Self::DestroyBase => "destroy the base snapshot",
            Self::DropMounts => "drop the prepared mounts of",
            Self::DestroyFinal => "destroy the final snapshot",
            Self::PromoteBack => "promote back the target",
            Self::RenameBack => "rename back the target",
            Self::DestroyWorkspace => "destroy the workspace",
            Self::DestroyParent(_) => "destroy the parent",
        })
    }
}

/// The two kinds of transaction, found at begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The target doesn't exist: the workspace is a new dataset, renamed into place.
    Init,
    /// The target exists: the workspace is a clone of it, which takes its place.
    Update,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Update => "update",
        })
    }
}

/// What decides which steps a transaction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// How many parents of the target are missing and to be created (init only).
    pub(crate) missing_parents: usize,
    /// Whether the target has delegated permissions of its own (update only).
    pub(crate) permissions: bool,
    pub(crate) ownership: bool,
    pub(crate) final_snapshot: bool,
    /// Whether the workspace's mountpoint property waits for [`Step::RestoreMountpoint`].
    pub(crate) gated: bool,
}

/// The steps of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Carried out by begin; their inverses, in reverse, are the rollback.
    pub(crate) begin: Vec<Step>,
    /// Carried out by commit up to and including the commit point, which is the last of them;
    /// their inverses, in reverse, bring the transaction back to where begin left it.
    pub(crate) commit: Vec<Step>,
    /// Carried out after the commit point: nothing here is undone.
    pub(crate) settle: Vec<Step>,
}

impl Plan {
    pub(crate) fn new(shape: Shape) -> Self {
        let optional = |wanted: bool, step: Step| wanted.then_some(step);
        let prepare = || {
            optional(shape.ownership, Step::SetOwnership)
                .into_iter()
                .chain([Step::Flush])
                .chain(optional(shape.final_snapshot, Step::TakeFinal))
                .chain([Step::PrepareMounts])
        };
        match shape.kind {
            Kind::Init => Self {
                begin: (0..shape.missing_parents)
                    .map(Step::CreateParent)
                    .chain([Step::CreateWorkspace, Step::MountWorkspace])
                    .collect(),
                commit: prepare().chain([Step::RenameIntoPlace]).collect(),
                // Where to mount is asked of ZFS when the property is right.
                settle: [Step::UnmountWorkspace]
                    .into_iter()
                    .chain(optional(shape.gated, Step::RestoreMountpoint))
                    .chain([Step::SwapMounts])
                    .collect(),
            },
            Kind::Update => Self {
                begin: [Step::TakeBase, Step::CloneWorkspace]
                    .into_iter()
                    .chain(optional(shape.permissions, Step::CopyPermissions))
                    .chain([Step::MountWorkspace])
                    .collect(),
                commit: prepare()
                    .chain([
                        Step::CheckTarget,
                        Step::Promote,
                        Step::RenameAside,
                        Step::RenameIntoPlace,
                    ])
                    .collect(),
                // The predecessor gives up the mount point before the target claims it.
                settle: [Step::SwapMounts, Step::UnmountWorkspace, Step::DestroyPredecessor]
                    .into_iter()
                    .chain(optional(shape.gated, Step::RestoreMountpoint))
                    .chain([Step::DestroyBase])
                    .collect(),
            },
        }
    }
}

/// How the workspace's own mountpoint property is kept from claiming the target's mount point, and
/// what the target's is to be after the commit.
///
/// A dataset *claims* a path when `zfs mount -a` would mount it there: canmount is `on` and the
/// mountpoint is a path. The workspace of a target that claims one starts with `mountpoint=none`,
/// and with [`GATE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountpointGate {
    /// The target claims nothing: the workspace has the final properties from the start.
    Open,
    /// The target inherits its mount point: the property is cleared after the commit point.
    Inherit,
    /// The target's mount point is its own: the property is set after the commit point.
    Set(String),
}

/// The user property that says, as long as a dataset is gated, what its mountpoint is to be.
pub(crate) const GATE: &str = "zfs-txn:mountpoint";

impl MountpointGate {
    /// The value of [`GATE`]; `None` where there is no gate.
    pub(crate) fn record(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Inherit => Some("inherit"),
            Self::Set(path) => Some(path),
        }
    }

    /// `own` is the dataset's own mountpoint value, if it has one; `effective` what applies to it.
    pub(crate) fn new(own: Option<&str>, effective: &str, canmount_on: bool) -> Self {
        match own {
            _ if !canmount_on || !effective.starts_with('/') => Self::Open,
            None => Self::Inherit,
            Some(path) => Self::Set(path.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        (any::<bool>(), 0..4usize, any::<[bool; 4]>()).prop_map(|(init, missing, flags)| Shape {
            kind: if init { Kind::Init } else { Kind::Update },
            missing_parents: if init { missing } else { 0 },
            permissions: flags[0],
            ownership: flags[1],
            final_snapshot: flags[2],
            gated: flags[3],
        })
    }

    fn position(steps: &[Step], step: Step) -> Option<usize> {
        steps.iter().position(|&s| s == step)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn the_commit_point_is_the_last_step_that_can_be_given_up(shape in shapes()) {
            let plan = Plan::new(shape);
            prop_assert_eq!(plan.commit.last(), Some(&Step::RenameIntoPlace));
            prop_assert!(!plan.begin.contains(&Step::RenameIntoPlace));
            prop_assert!(!plan.settle.contains(&Step::RenameIntoPlace));
        }

        #[test]
        fn whatever_makes_something_before_the_commit_point_has_an_inverse(shape in shapes()) {
            let plan = Plan::new(shape);
            let keeps = [Step::CopyPermissions, Step::SetOwnership, Step::Flush, Step::CheckTarget,
                Step::RenameIntoPlace];
            for step in plan.begin.iter().chain(&plan.commit) {
                prop_assert!(step.inverse().is_some() != keeps.contains(step), "{step:?}");
            }
        }

        #[test]
        fn the_predecessor_gives_up_the_mount_point_before_the_target_claims_it(shape in shapes()) {
            let settle = Plan::new(shape).settle;
            if let Some(restore) = position(&settle, Step::RestoreMountpoint) {
                if let Some(destroy) = position(&settle, Step::DestroyPredecessor) {
                    prop_assert!(destroy < restore);
                }
            }
            prop_assert_eq!(shape.gated, position(&settle, Step::RestoreMountpoint).is_some());
        }

        #[test]
        fn content_is_owned_flushed_and_snapshotted_in_this_order_before_it_is_visible(
            shape in shapes()
        ) {
            let commit = Plan::new(shape).commit;
            let wanted = [
                (Step::SetOwnership, shape.ownership),
                (Step::Flush, true),
                (Step::TakeFinal, shape.final_snapshot),
                (Step::RenameIntoPlace, true),
            ];
            let expected: Vec<Step> =
                wanted.iter().filter(|(_, there)| *there).map(|(step, _)| *step).collect();
            let is_wanted = |step: &&Step| wanted.iter().any(|(wanted, _)| wanted == *step);
            let found: Vec<Step> = commit.iter().filter(is_wanted).copied().collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_step_is_done_twice(shape in shapes()) {
            let plan = Plan::new(shape);
            let all: Vec<Step> = [plan.begin, plan.commit, plan.settle].concat();
            let unique: std::collections::HashSet<Step> = all.iter().copied().collect();
            prop_assert_eq!(unique.len(), all.len());
        }
    }

    #[test]
    fn only_a_claimed_path_is_gated() {
        use MountpointGate::{Inherit, Open, Set};
        let gate = MountpointGate::new;
        assert_eq!(gate(None, "/tank/a", true), Inherit);
        assert_eq!(gate(Some("/srv/a"), "/srv/a", true), Set("/srv/a".into()));
        assert_eq!(gate(Some("/srv/a"), "/srv/a", false), Open);
        assert_eq!(gate(None, "none", true), Open);
        assert_eq!(gate(Some("legacy"), "legacy", true), Open);
    }
}
