//! What a transaction does, as ordered steps. Pure: it knows names and facts, and no ZFS.
//!
//! One [`Step`] is one durable effect. The engine carries a step out, the plan says in which order,
//! which step is the commit point, and what undoes each one before it.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::engine::PropertyValue;
use crate::receipt::Strategy;

/// One durable effect of a transaction, or the inverse of one.
///
/// Errors name the step at which something went wrong; `Display` gives it as a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Look at the target and what surrounds it. Changes nothing.
    Look,
    /// Write the record of an init transaction, on the nearest dataset above the target.
    WriteRecord,
    /// Create a missing parent of the target; the number counts from the topmost.
    CreateParent(usize),
    /// Create the workspace of an init transaction.
    CreateWorkspace,
    /// Take the base snapshot of the target, with the transaction's record on it.
    TakeBase,
    /// Clone the base: the workspace of an update transaction.
    CloneWorkspace,
    /// Give the workspace the target's delegated permissions (`zfs allow`).
    CopyPermissions,
    /// Mount the workspace where only the caller looks.
    MountWorkspace,
    /// Check that the path that the caller was given still leads to the workspace. Changes nothing.
    CheckWorkspace,
    /// Apply the ownership asked for, inside the workspace.
    SetOwnership,
    /// Write the workspace's dirty pages to the pool.
    Flush,
    /// Take the final snapshot that the caller asked for, in the workspace.
    TakeFinal,
    /// Make the mounts that the target will get, attached nowhere yet.
    PrepareMounts,
    /// Make the target read-only, so that writes to it are refused until the commit is visible.
    Fence,
    /// Check that the target is the one that was there at begin. Changes nothing.
    CheckTarget,
    /// Promote the workspace, which takes over the target's snapshots, and record that, if the
    /// target is as it was. Where something was written to it, if only access times, a snapshot of it
    /// is taken first, and compared with the base.
    Promote,
    /// Make the mount point that the target inherits its own, to keep it while it is renamed.
    PinMountpoint,
    /// Rename the target out of the way: it becomes the predecessor.
    RenameAside,
    /// Rename the workspace to the target's name.
    RenameIntoPlace,
    /// Snapshot the workspace and bookmark the base in its name space, for the stream from the one to
    /// the other, if the target is as it was.
    StageChange,
    /// Receive the workspace's change into the target. Before its end, see that no file that is changed in
    /// place is mapped into memory: its readers would go on getting the old content.
    Receive,
    /// See whether a file that was changed in place has been mapped into memory meanwhile.
    LetGoOfPages,
    /// Replace the target's old mounts by the prepared ones.
    SwapMounts,
    /// Take the private mount away.
    UnmountWorkspace,
    /// Destroy the target's old head, let the target claim its mount point, and remove the record.
    Conclude,
    /// Keep a predecessor that can't be destroyed from being mounted at boot (`canmount=noauto`).
    ParkPredecessor,
    /// Drop prepared mounts that were never attached.
    DropMounts,
    /// Destroy the final snapshot, or the one that was to be sent.
    DestroyFinal,
    /// Destroy the snapshot that [`Step::Promote`] took to compare.
    DestroyLook,
    /// Undo [`Step::Promote`]: the target takes its snapshots back.
    PromoteBack,
    /// Undo [`Step::PinMountpoint`].
    UnpinMountpoint,
    /// Undo [`Step::Fence`].
    Unfence,
    /// Undo [`Step::RenameAside`].
    RenameBack,
    /// Destroy the workspace.
    DestroyWorkspace,
    /// Destroy the base snapshot, and the record with it.
    DestroyBase,
    /// Destroy a parent that this transaction created.
    DestroyParent(usize),
    /// Remove the record of an init transaction.
    EraseRecord,
    /// Destroy a predecessor that an earlier commit had to keep.
    DestroyPredecessor,
    /// See that this process is the one that has the transaction, and not one forked from it. Changes
    /// nothing.
    CheckOwner,
    /// Record that the transaction is detached.
    Detach,
    /// Record that a detached transaction has an owner again.
    Resume,
}

impl Step {
    /// The step that undoes this one; `None` where there is nothing to undo, or no way back.
    pub(crate) fn inverse(self) -> Option<Self> {
        Some(match self {
            Self::WriteRecord => Self::EraseRecord,
            Self::CreateParent(level) => Self::DestroyParent(level),
            Self::CreateWorkspace | Self::CloneWorkspace => Self::DestroyWorkspace,
            Self::TakeBase => Self::DestroyBase,
            Self::MountWorkspace => Self::UnmountWorkspace,
            Self::TakeFinal | Self::StageChange => Self::DestroyFinal,
            Self::PrepareMounts => Self::DropMounts,
            Self::Fence => Self::Unfence,
            Self::Promote => Self::PromoteBack,
            Self::PinMountpoint => Self::UnpinMountpoint,
            Self::RenameAside => Self::RenameBack,
            _ => return None,
        })
    }

    /// Whether the step destroys something.
    pub(crate) fn destroys(self) -> bool {
        matches!(
            self,
            Self::Conclude
                | Self::DestroyPredecessor
                | Self::DestroyBase
                | Self::DestroyLook
                | Self::DestroyFinal
                | Self::DestroyWorkspace
                | Self::DestroyParent(_)
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look => "look at",
            Self::WriteRecord => "write the record on",
            Self::CreateParent(_) => "create the parent",
            Self::CreateWorkspace => "create the workspace",
            Self::TakeBase => "take the base snapshot",
            Self::CloneWorkspace => "clone the workspace",
            Self::CopyPermissions => "copy the delegated permissions to the workspace",
            Self::MountWorkspace => "mount the workspace",
            Self::CheckWorkspace => "find the workspace at its path",
            Self::SetOwnership => "set the ownership in the workspace",
            Self::Flush => "flush the workspace",
            Self::TakeFinal => "take the final snapshot",
            Self::PrepareMounts => "prepare the mounts of",
            Self::Fence => "refuse writes to",
            Self::Unfence => "allow writes again to",
            Self::CheckTarget => "check the target",
            Self::Promote => "promote the workspace",
            Self::PinMountpoint => "keep the mount point of",
            Self::RenameAside => "rename the old target to",
            Self::RenameIntoPlace => "rename the workspace to",
            Self::StageChange => "take the snapshot to be sent",
            Self::LetGoOfPages => "let go of cached pages of",
            Self::Receive => "receive the change into",
            Self::SwapMounts => "swap the mounts of",
            Self::UnmountWorkspace => "unmount the workspace",
            Self::Conclude => "conclude the commit of",
            Self::DestroyPredecessor => "destroy the predecessor",
            Self::ParkPredecessor => "keep from being mounted at boot the predecessor",
            Self::CheckOwner => "end, in a forked process, the transaction on",
            Self::Detach => "detach the workspace",
            Self::Resume => "resume with the workspace",
            Self::DestroyLook => "destroy the snapshot for comparing",
            Self::UnpinMountpoint => "give back its inherited mount point to",
            Self::EraseRecord => "remove the record on",
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
    /// How an update becomes visible; an init is always a rename.
    pub(crate) strategy: Strategy,
    /// How many parents of the target are missing and to be created (init only).
    pub(crate) missing_parents: usize,
    /// Whether the target has delegated permissions of its own (promote only).
    pub(crate) permissions: bool,
    pub(crate) ownership: bool,
    pub(crate) final_snapshot: bool,
    /// Whether writes to the target are refused from the check to the swap (update only).
    pub(crate) fence: bool,
    /// Whether the target claims a mount point that it inherits (promote only).
    pub(crate) pinned: bool,
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
            [Step::CheckWorkspace]
                .into_iter()
                .chain(optional(shape.ownership, Step::SetOwnership))
                .chain([Step::Flush])
                .chain(optional(shape.final_snapshot, Step::TakeFinal))
                .chain([Step::PrepareMounts])
        };
        // The predecessor gives up the mount point in the same txg in which the target claims it.
        let settle = vec![Step::SwapMounts, Step::UnmountWorkspace, Step::Conclude];
        match shape.kind {
            Kind::Init => Self {
                begin: [Step::WriteRecord]
                    .into_iter()
                    .chain((0..shape.missing_parents).map(Step::CreateParent))
                    .chain([Step::CreateWorkspace, Step::MountWorkspace])
                    .collect(),
                commit: prepare().chain([Step::RenameIntoPlace]).collect(),
                settle,
            },
            Kind::Update if shape.strategy == Strategy::InPlace => Self {
                begin: vec![Step::TakeBase, Step::CloneWorkspace, Step::MountWorkspace],
                commit: [Step::CheckWorkspace]
                    .into_iter()
                    .chain(optional(shape.ownership, Step::SetOwnership))
                    .chain([Step::Flush])
                    .chain(optional(shape.fence, Step::Fence))
                    .chain([Step::CheckTarget, Step::StageChange, Step::Receive])
                    .collect(),
                settle: optional(shape.fence, Step::Unfence)
                    .into_iter()
                    .chain([Step::LetGoOfPages, Step::UnmountWorkspace, Step::Conclude])
                    .collect(),
            },
            Kind::Update => Self {
                begin: [Step::TakeBase, Step::CloneWorkspace]
                    .into_iter()
                    .chain(optional(shape.permissions, Step::CopyPermissions))
                    .chain([Step::MountWorkspace])
                    .collect(),
                commit: prepare()
                    .chain(optional(shape.fence, Step::Fence))
                    .chain([Step::CheckTarget, Step::Promote])
                    .chain(optional(shape.pinned, Step::PinMountpoint))
                    .chain([Step::RenameAside, Step::RenameIntoPlace])
                    .collect(),
                settle,
            },
        }
    }
}

/// How the workspace is kept from claiming the target's mount point, and the target made to keep it,
/// while the names are swapped.
///
/// A dataset *claims* a path when a boot would mount it there: canmount is `on`, the mountpoint is a
/// path, and neither `zoned` nor systemd's generator keeps it from that. Exactly one dataset claims
/// the target's path at any moment: the old target until the commit is concluded, then the new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The path that an existing target inherits: it would lose it with its name.
    pub(crate) pin: Option<OsString>,
    /// Properties that the workspace has until the commit is concluded.
    pub(crate) properties: Vec<String>,
}

/// The gate of whom ZFS lets run no channel programs. A container's dataset is `zoned` already; and no
/// program can open this one, which can't be inherited.
pub(crate) const GATE_OF_PLAIN_CALLS: &str = "canmount";
/// `zfs mount -a` leaves out what belongs to a zone.
const ZONED: &str = "zoned";
/// zfs-mount-generator doesn't look at `zoned`, but at this (zfs-mount-generator(8)).
const IGNORE: &str = "org.openzfs.systemd:ignore";

impl Gate {
    /// The gate of a target that claims `path`, by a mountpoint property of its `own` or not;
    /// `ignored` says whether it has its own instruction for the generator.
    pub(crate) fn new(path: Option<&Path>, own: bool, ignored: bool) -> Self {
        let Some(path) = path else { return Self::default() };
        let names = if ignored { &[ZONED][..] } else { &[ZONED, IGNORE] };
        Self {
            pin: (!own).then(|| path.into()),
            properties: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// The gate for plain calls. A path that the target inherits is not pinned: only libzfs could clear
    /// that again, and would unmount.
    pub(crate) fn for_plain_calls(path: Option<&Path>) -> Self {
        let properties = path.map(|_| GATE_OF_PLAIN_CALLS.to_owned());
        Self { pin: None, properties: properties.into_iter().collect() }
    }

    /// Whether these properties are a gate that this crate makes, and no others.
    pub(crate) fn is_made_of(properties: &[String]) -> bool {
        let names: Vec<&str> = properties.iter().map(String::as_str).collect();
        matches!(names[..], [] | [ZONED] | [ZONED, IGNORE] | [GATE_OF_PLAIN_CALLS])
    }

    /// What closes it, as the kernel stores it.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (String, PropertyValue)> {
        let value = |name: &String| match name.as_str() {
            ZONED => PropertyValue::Number(1),
            // `noauto`
            GATE_OF_PLAIN_CALLS => PropertyValue::Number(2),
            _ => PropertyValue::Text("on".into()),
        };
        self.properties.iter().map(move |name| (name.clone(), value(name)))
    }

    /// The name of the generator's property.
    pub(crate) fn ignore() -> &'static str {
        IGNORE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{
        ProptestConfig, Strategy as Generator, any, prop_assert, prop_assert_eq, proptest,
    };

    fn shapes() -> impl Generator<Value = Shape> {
        (0..3, 0..4usize, any::<[bool; 5]>()).prop_map(|(kind, missing, flags)| Shape {
            kind: if kind == 0 { Kind::Init } else { Kind::Update },
            strategy: if kind == 2 { Strategy::InPlace } else { Strategy::Promote },
            missing_parents: if kind == 0 { missing } else { 0 },
            permissions: flags[0] && kind != 2,
            ownership: flags[1],
            final_snapshot: flags[2],
            pinned: flags[3] && kind == 1,
            fence: flags[4] && kind != 0,
        })
    }

    fn commit_point(shape: Shape) -> Step {
        match shape.strategy {
            Strategy::Promote => Step::RenameIntoPlace,
            Strategy::InPlace => Step::Receive,
        }
    }

    fn position(steps: &[Step], step: Step) -> Option<usize> {
        steps.iter().position(|&s| s == step)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn the_commit_point_is_the_last_step_that_can_be_given_up(shape in shapes()) {
            let plan = Plan::new(shape);
            let point = commit_point(shape);
            prop_assert_eq!(plan.commit.last(), Some(&point));
            prop_assert!(!plan.begin.contains(&point) && !plan.settle.contains(&point));
        }

        #[test]
        fn whatever_makes_something_before_the_commit_point_has_an_inverse(shape in shapes()) {
            let plan = Plan::new(shape);
            let keeps =
                [Step::CopyPermissions, Step::CheckWorkspace, Step::SetOwnership, Step::Flush,
                    Step::CheckTarget, commit_point(shape)];
            for step in plan.begin.iter().chain(&plan.commit) {
                prop_assert!(step.inverse().is_some() != keeps.contains(step), "{step:?}");
            }
        }

        #[test]
        fn the_record_is_there_before_anything_else_and_goes_last(shape in shapes()) {
            let plan = Plan::new(shape);
            prop_assert!(matches!(plan.begin[0], Step::WriteRecord | Step::TakeBase));
            prop_assert_eq!(plan.settle.last(), Some(&Step::Conclude));
        }

        #[test]
        fn an_inherited_mount_point_is_pinned_between_promote_and_the_first_rename(
            shape in shapes()
        ) {
            let commit = Plan::new(shape).commit;
            if let Some(pin) = position(&commit, Step::PinMountpoint) {
                prop_assert!(position(&commit, Step::Promote) < Some(pin));
                prop_assert!(Some(pin) < position(&commit, Step::RenameAside));
            }
            prop_assert_eq!(shape.pinned, commit.contains(&Step::PinMountpoint));
        }

        #[test]
        fn content_is_owned_flushed_and_snapshotted_in_this_order_before_it_is_visible(
            shape in shapes()
        ) {
            let commit = Plan::new(shape).commit;
            let wanted = [
                (Step::CheckWorkspace, true),
                (Step::SetOwnership, shape.ownership),
                (Step::Flush, true),
                (Step::TakeFinal, shape.final_snapshot && shape.strategy == Strategy::Promote),
                (Step::StageChange, shape.strategy == Strategy::InPlace),
                (commit_point(shape), true),
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
    fn only_a_claimed_path_is_gated_and_only_an_inherited_one_pinned() {
        assert_eq!(Gate::new(None, true, false), Gate::default());
        let inherited = Gate::new(Some(Path::new("/tank/a")), false, false);
        assert_eq!(inherited.pin, Some("/tank/a".into()));
        assert_eq!(inherited.properties, [ZONED, IGNORE]);
        let own = Gate::new(Some(Path::new("/srv/a")), true, true);
        assert_eq!((own.pin, own.properties), (None, vec![ZONED.to_owned()]));
    }
}
