use super::after_step::{Disk, crash_points};
use super::*;
use crate::receipt::Strategy;
use crate::txn::plan::Shape;

/// The kinds of transaction that the crash table is about, each with all optional steps.
const SHAPES: [(&str, Shape); 4] = [
    ("An update of a target with a mount point of its own", UPDATE),
    (
        "An update of a target that inherits its mount point, with writes refused meanwhile",
        Shape { pinned: true, fence: true, ..UPDATE },
    ),
    (
        "An init with one missing parent",
        Shape { kind: Kind::Init, missing_parents: 1, permissions: false, ..UPDATE },
    ),
    (
        "An update in place, with writes refused meanwhile",
        Shape { strategy: Strategy::InPlace, permissions: false, fence: true, ..UPDATE },
    ),
];

const UPDATE: Shape = Shape {
    kind: Kind::Update,
    strategy: Strategy::Promote,
    missing_parents: 0,
    permissions: true,
    ownership: true,
    final_snapshot: true,
    pinned: false,
    fence: false,
};

const BEGIN: &str = "<!-- crash table: begin -->\n";
const END: &str = "<!-- crash table: end -->\n";

/// Every sighting that there can be, whatever somebody else may have done.
fn sightings() -> Vec<Sighting> {
    let mut all = Vec::new();
    let states = [
        State::Open,
        State::Detached,
        State::Committing,
        State::Committed,
        State::Kept,
        State::RolledBack,
    ];
    for (bits, state) in (0..1 << 6).flat_map(|bits| states.map(|state| (bits, state))) {
        for target in [Named::Nothing, Named::Old, Named::New, Named::Other] {
            let is = |bit: u8| bits & (1 << bit) != 0;
            let sighting = Sighting {
                kind: Kind::Update,
                strategy: Strategy::Promote,
                state,
                target,
                workspace: is(0),
                predecessor: is(1),
                promoted: is(2),
                pinned: is(3),
                look: is(4),
                unproven: false,
                fenced: is(5),
                parents: 0,
            };
            all.push(sighting);
            // In place, no name changes.
            if !(is(1) || is(2) || is(3)) {
                all.push(Sighting { strategy: Strategy::InPlace, ..sighting });
            }
            // An init has no old content, and nothing is promoted.
            if bits < 2 && target != Named::Old {
                all.extend([0, 2].map(|parents| Sighting {
                    kind: Kind::Init,
                    parents,
                    ..sighting
                }));
            }
        }
    }
    all
}

/// The steps, and whether they go forward, back, or sweep.
fn steps(aftermath: &Aftermath) -> (&'static str, &[Step]) {
    match aftermath {
        Aftermath::Forward(steps) => ("forward", steps),
        Aftermath::Back(steps) => ("back", steps),
        Aftermath::Sweep(steps) => ("sweep", steps),
        Aftermath::Stuck(_) => ("stuck", &[]),
    }
}

/// A record that asks for more than it can prove has no effect at all.
#[test]
fn nothing_is_done_for_a_record_that_proves_nothing() {
    for sighting in sightings() {
        let aftermath = Sighting { unproven: true, ..sighting }.aftermath();
        assert!(matches!(aftermath, Aftermath::Stuck(_)), "{sighting:?}");
    }
}

/// Checks something of each sighting and what is done about it.
fn of_each(check: impl Fn(&Sighting, &'static str, &[Step]) -> bool) {
    for sighting in sightings() {
        let aftermath = sighting.aftermath();
        let (direction, steps) = steps(&aftermath);
        assert!(check(&sighting, direction, steps), "{sighting:?}: {aftermath:?}");
    }
}

/// Whether each step of the second list comes after those of the first that are there at all.
fn in_order(steps: &[Step], first: &[Step], then: &[Step]) -> bool {
    let at = |step: &Step| steps.iter().position(|other| other == step);
    first.iter().all(|one| then.iter().all(|other| at(other).is_none() || at(one) < at(other)))
}

/// Whether the commit was concluded, so that leftovers are all there is.
fn has_ended(s: &Sighting) -> bool {
    s.kind == Kind::Update && matches!(s.state, State::Committed | State::Kept)
}

/// Whether the predecessor, or, when nothing else is left, the look, has what the commit has overridden.
fn is_kept(s: &Sighting) -> bool {
    let in_place = s.strategy == Strategy::InPlace;
    let keeps = if in_place { s.look && !s.workspace } else { s.predecessor };
    s.kind == Kind::Update && s.state == State::Kept && keeps
}

#[test]
fn forward_is_where_the_new_content_has_the_name_and_the_commit_has_not_ended() {
    of_each(|s, direction, _| {
        (direction == "forward") == (s.target == Named::New && !has_ended(s))
            && (direction == "sweep") == (has_ended(s) && !is_kept(s))
    });
}

#[test]
fn new_content_under_the_targets_name_is_never_destroyed() {
    of_each(|s, direction, steps| {
        let destroys = |step: &&Step| step.destroys() && **step != Step::Conclude;
        match direction {
            "forward" => {
                !steps.iter().any(|step| destroys(&step)) && !steps.contains(&Step::PromoteBack)
            }
            "back" => s.target != Named::New,
            _ => !steps.contains(&Step::DestroyWorkspace),
        }
    });
}

#[test]
fn a_workspace_that_holds_the_targets_snapshots_is_never_destroyed() {
    of_each(|s, _, steps| {
        let goes = steps.contains(&Step::DestroyWorkspace);
        let back = steps.contains(&Step::PromoteBack);
        let order = in_order(steps, &[Step::PromoteBack], &[Step::DestroyWorkspace]);
        (!goes || s.workspace) && (!goes || !s.promoted || back && order)
    });
}

#[test]
fn names_come_back_before_the_mount_point_and_that_before_the_snapshots() {
    of_each(|s, direction, steps| {
        let back = steps.contains(&Step::RenameBack);
        let free = s.target == Named::Nothing && s.predecessor;
        let unpins = steps.contains(&Step::UnpinMountpoint);
        let then = [Step::PromoteBack, Step::UnpinMountpoint];
        (!back || free && in_order(steps, &[Step::RenameBack], &then))
            && unpins == (direction == "back" && s.pinned)
            && (!unpins || in_order(steps, &[Step::UnpinMountpoint], &[Step::PromoteBack]))
    });
}

#[test]
fn the_record_goes_last_and_no_step_is_done_twice() {
    of_each(|s, _, steps| {
        let last = match s.kind {
            Kind::Init => [Step::EraseRecord, Step::Conclude],
            Kind::Update => [Step::DestroyBase, Step::Conclude],
        };
        let unique: std::collections::HashSet<_> = steps.iter().collect();
        let record = steps.iter().filter(|step| last.contains(step)).count();
        let ends = steps.last().is_some_and(|step| last.contains(step)) && record == 1;
        (steps.is_empty() || ends) && unique.len() == steps.len()
    });
}

#[test]
fn old_content_is_destroyed_only_when_the_commit_has_ended_and_never_if_it_was_overridden() {
    of_each(|s, direction, steps| {
        let destroys = steps.contains(&Step::DestroyPredecessor);
        let order = in_order(steps, &[Step::DestroyPredecessor], &[Step::DestroyBase]);
        destroys == (direction == "sweep" && s.predecessor) && (!destroys || order)
    });
}

#[test]
fn what_somebody_has_interfered_with_is_left_alone() {
    of_each(|s, direction, _| match (direction, s.target) {
        ("stuck", _) => s.kind == Kind::Update && (!has_ended(s) || is_kept(s)),
        // A name that somebody else has got is not needed to undo a begin.
        ("back", Named::Other) => !s.predecessor && !s.promoted,
        ("back", Named::Old) => !s.predecessor && (s.workspace || !s.promoted),
        ("back", Named::Nothing) => s.predecessor == s.promoted && (s.workspace || !s.promoted),
        _ => true,
    });
}

#[test]
fn names_and_mount_points_are_between_from_the_promote_to_the_end_of_the_commit() {
    for (_, shape) in SHAPES {
        for (step, disk) in crash_points(shape) {
            let in_place = shape.strategy == Strategy::InPlace;
            let between = disk.sighting.is_some_and(|sighting| sighting.is_between());
            let wanted = !in_place
                && matches!(
                    step,
                    Step::RenameIntoPlace
                        | Step::SwapMounts
                        | Step::UnmountWorkspace
                        | Step::Promote
                        | Step::PinMountpoint
                        | Step::RenameAside
                );
            assert_eq!(between, wanted, "{step:?}");
        }
    }
}

/// I4, in the model: from each crash, and from a crash after each step of its recovery, the same end.
#[test]
fn every_recovery_can_be_interrupted_after_each_of_its_steps() {
    for (_, shape) in SHAPES {
        let (before, mut committed) = (Disk::before(shape), false);
        for (step, disk) in crash_points(shape) {
            committed |= matches!(step, Step::RenameIntoPlace | Step::Receive);
            let done = recovered(disk, shape, committed);
            let end =
                Disk { sighting: None, claim: before.claim, parents: 0, final_snapshot: false };
            match committed {
                true => assert_eq!((done.sighting, done.claim), (None, Named::New), "{step:?}"),
                false => assert_eq!(done, end, "{step:?}"),
            }
        }
    }
}

/// Recovers to the end, and again from after each step on the way.
fn recovered(disk: Disk, shape: Shape, committed: bool) -> Disk {
    let Some(aftermath) = disk.aftermath() else { return disk };
    let (direction, steps) = steps(&aftermath);
    assert_eq!(direction, if committed { "forward" } else { "back" }, "{disk:?}");
    let mut end = disk;
    steps.iter().for_each(|step| end.apply(*step, shape));
    let mut killed = disk;
    for step in steps {
        killed.apply(*step, shape);
        if killed != disk {
            assert_eq!(recovered(killed, shape, committed), end, "{disk:?} {step:?}");
        }
    }
    end
}

/// The crash table of docs/design.md is the one that follows from the plan and from what recovery
/// does.
#[test]
fn the_crash_table_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/design.md");
    let design = std::fs::read_to_string(path).unwrap();
    let table = SHAPES.map(|(title, shape)| table(title, shape)).join("\n");
    let found = design.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let found = found.map(|(table, _)| table.trim());
    assert!(found == Some(table.trim()), "docs/design.md should have:\n{BEGIN}{table}{END}");
}

fn table(title: &str, shape: Shape) -> String {
    let header = "| after step | on disk | a boot mounts | recovery |\n| --- | --- | --- | --- |\n";
    let mut rows = String::new();
    let mut before = String::new();
    for (step, disk) in crash_points(shape) {
        let name = match step {
            Step::RenameIntoPlace | Step::Receive => {
                format!("**{}**: the commit point", phrase(step))
            }
            _ => phrase(step),
        };
        let rest = format!("{} | {} | {}", on_disk(&disk), mounts(&disk), recovery(&disk));
        let cells = if rest == before { "as before | as before | as before" } else { &rest };
        rows += &format!("| {name} | {cells} |\n");
        before = rest;
    }
    format!("{title}:\n\n{header}{rows}")
}

/// A step with what it is about, where its phrase ends in the middle.
fn phrase(step: Step) -> String {
    let object = match step {
        Step::WriteRecord | Step::EraseRecord => " A",
        Step::RenameAside => " P",
        Step::CreateParent(_) | Step::DestroyParent(_) => " M",
        Step::CheckTarget => "",
        _ if ["of", "to", "into"].iter().any(|end| step.to_string().ends_with(end)) => " T",
        _ => "",
    };
    format!("{step}{object}")
}

fn on_disk(disk: &Disk) -> String {
    let made = [(disk.parents > 0, "M")];
    let made = made.into_iter().filter_map(|(there, what)| there.then_some(what));
    let new = disk.claim == Named::New;
    let Some(s) = &disk.sighting else {
        return made.chain(new.then_some("T new")).collect::<Vec<_>>().join("; ");
    };
    let old = match (s.pinned, s.fenced) {
        (false, false) => "old",
        (true, false) => "old, pinned",
        (false, true) => "old, fenced",
        (true, true) => "old, pinned, fenced",
    };
    let workspace = match (s.promoted, disk.final_snapshot) {
        (false, false) => "W",
        (false, true) => "W, W@name",
        (true, false) => "W with T's snapshots",
        (true, true) => "W with T's snapshots, W@name",
    };
    let target = match s.target {
        Named::Old => Some(format!("T {old}")),
        Named::New if s.strategy == Strategy::InPlace => {
            Some(format!("T new, T@name{}", if s.fenced { ", fenced" } else { "" }))
        }
        Named::New => Some("T new".to_owned()),
        _ => None,
    };
    let base = match s.kind {
        Kind::Init => "the record on A".to_owned(),
        Kind::Update if s.target == Named::New || !s.promoted => "T@B".to_owned(),
        Kind::Update => "W@B".to_owned(),
    };
    let parts = s.predecessor.then(|| format!("P {old}")).into_iter().chain(target).chain([base]);
    let parts = parts.chain(made.map(str::to_owned));
    parts.chain(s.workspace.then(|| workspace.to_owned())).collect::<Vec<_>>().join("; ")
}

fn mounts(disk: &Disk) -> &'static str {
    match (disk.claim, disk.parents) {
        (Named::Old, _) => "the old content",
        (Named::New, 0) => "the new content",
        (Named::New, _) => "M, the new content",
        (_, 0) => "nothing",
        (_, _) => "M",
    }
}

fn recovery(disk: &Disk) -> String {
    let Some(aftermath) = disk.aftermath() else { return "nothing to do".to_owned() };
    let (direction, steps) = steps(&aftermath);
    let steps: Vec<String> = steps.iter().map(|step| phrase(*step)).collect();
    format!("{direction}: {}", steps.join("; "))
}
