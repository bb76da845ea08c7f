//! I4, by SIGKILL: for each kind of transaction, a process is killed right after each effect of it,
//! and recovery is, too, after each of its own; then the whole pool is as before or as after.
//!
//! A process does the same job in many cases at once, each in a thread that stops for ever after its
//! effect; it is killed when all have.

mod child;
mod scene;
mod state;

use std::collections::HashSet;

use crate::receipt::Strategy;
use crate::test_pool::figures;
use crate::txn::aftermath::after_step::crash_points;
use crate::txn::plan::{Kind, Plan, Shape, Step};
use child::{Effect, Job, NO_STEP, WITHIN};
use scene::{End, Kill, Scene};

/// What a transaction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// It has a mount point of its own.
    Own,
    /// It inherits its mount point, and access times are kept: each transaction reads a file of it.
    Inherited,
    /// It doesn't exist, nor does its parent.
    Missing,
    /// As [`Target::Own`], and changed in place, with writes refused meanwhile.
    InPlace,
}

impl Target {
    fn strategy(self) -> Strategy {
        if self == Self::InPlace { Strategy::InPlace } else { Strategy::Promote }
    }
}

/// How verbs with several effects have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// In one txg.
    Programs,
    /// One after the other; the process is killed after each of these as well.
    PlainCalls,
}

/// A job that is killed after each of its effects.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    test: &'static str,
    target: Target,
    job: Job,
    by: By,
}

macro_rules! scenarios {
    ($($test:ident: $target:ident, $job:ident, $by:ident;)*) => {
        const SCENARIOS: &[Scenario] = &[$(Scenario {
            test: stringify!($test),
            target: Target::$target,
            job: Job::$job,
            by: By::$by,
        }),*];
        $(
            #[test]
            fn $test() {
                let scenario = SCENARIOS.iter().find(|s| s.test == stringify!($test));
                killed_after_each_effect(*scenario.unwrap());
            }
        )*
    };
}

// The longest first.
scenarios! {
    an_update_by_plain_calls_is_killed: Inherited, Commit, PlainCalls;
    an_update_in_place_by_plain_calls_is_killed: InPlace, Commit, PlainCalls;
    an_init_by_plain_calls_is_killed: Missing, Commit, PlainCalls;
    the_undoing_of_an_update_by_plain_calls_is_killed: Inherited, UndoneCommit, PlainCalls;
    a_commit_by_plain_calls_that_goes_over_is_killed: Own, GoOver, PlainCalls;
    a_commit_that_goes_over_is_killed: Own, GoOver, Programs;
    a_commit_by_plain_calls_that_keeps_the_predecessor_is_killed: Own, Overwrite, PlainCalls;
    a_commit_in_place_by_plain_calls_that_keeps_a_snapshot_is_killed: InPlace, Overwrite, PlainCalls;
    an_update_with_an_inherited_mount_point_is_killed: Inherited, Commit, Programs;
    an_update_is_killed: Own, Commit, Programs;
    an_init_is_killed: Missing, Commit, Programs;
    an_update_in_place_is_killed: InPlace, Commit, Programs;
    the_undoing_of_an_update_in_place_is_killed: InPlace, UndoneCommit, Programs;
    the_detaching_and_resuming_of_an_update_in_place_is_killed: InPlace, Detach, Programs;
    the_rollback_of_an_update_in_place_is_killed: InPlace, Rollback, Programs;
    the_undoing_of_an_update_with_an_inherited_mount_point_is_killed: Inherited, UndoneCommit, Programs;
    the_undoing_of_an_update_is_killed: Own, UndoneCommit, Programs;
    the_undoing_of_an_init_is_killed: Missing, UndoneCommit, Programs;
    a_commit_that_keeps_the_predecessor_is_killed: Own, Overwrite, Programs;
    the_detaching_and_resuming_of_an_update_is_killed: Own, Detach, Programs;
    the_detaching_and_resuming_of_an_init_is_killed: Missing, Detach, Programs;
    the_rollback_of_an_update_is_killed: Own, Rollback, Programs;
    the_rollback_of_an_init_is_killed: Missing, Rollback, Programs;
    the_undoing_of_a_begun_update_is_killed: Own, UndoneBegin, Programs;
    the_undoing_of_a_begun_init_is_killed: Missing, UndoneBegin, Programs;
    a_sweep_is_killed: Own, Recover, Programs;
}

/// Why there is nothing to be killed after a step; `None` for all others.
fn no_effect(step: Step) -> Option<&'static str> {
    match step {
        Step::Look | Step::CheckOwner | Step::CheckWorkspace | Step::CheckTarget => {
            Some("it asks only")
        }
        Step::DropMounts => Some("it closes descriptors, as a kill does"),
        _ => None,
    }
}

/// Steps that are found in recoveries alone, and a scenario that has them there.
const IN_RECOVERY: [(Target, Job, Step); 1] = [(Target::Inherited, Job::Commit, Step::DestroyLook)];

impl Scenario {
    fn shape(self) -> Shape {
        let Self { target, by, .. } = self;
        Shape {
            kind: if target == Target::Missing { Kind::Init } else { Kind::Update },
            strategy: target.strategy(),
            missing_parents: usize::from(target == Target::Missing),
            permissions: matches!(target, Target::Own | Target::Inherited),
            ownership: true,
            final_snapshot: true,
            pinned: target == Target::Inherited && by == By::Programs,
            fence: target == Target::InPlace,
        }
    }

    /// The steps that the process dies after, in order, as the plan has them.
    fn steps(self) -> Vec<Step> {
        let Plan { begin, commit, settle } = Plan::new(self.shape());
        let undone =
            |steps: &[Step]| steps.iter().rev().filter_map(|step| step.inverse()).collect();
        let steps: Vec<Step> = match self.job {
            Job::Commit => [begin, commit, settle].concat(),
            Job::Overwrite if self.target == Target::InPlace => {
                let at = settle.iter().position(|step| *step == Step::UnmountWorkspace);
                settle[at.unwrap_or_default()..].to_vec()
            }
            Job::Overwrite => [&settle[1..], &[Step::ParkPredecessor]].concat(),
            Job::UndoneCommit => undone(&[&begin[..], &commit[..commit.len() - 1]].concat()),
            Job::GoOver => {
                let at = commit.iter().position(|step| *step == Step::CheckTarget);
                let begun = &commit[..at.unwrap_or_default()];
                let over = Plan::new(Shape {
                    strategy: Strategy::InPlace,
                    permissions: false,
                    pinned: false,
                    ..self.shape()
                });
                // The record is rewritten as it is for a detaching.
                [begun, &undone(begun), &[Step::Detach], &over.commit, &over.settle].concat()
            }
            Job::Rollback | Job::UndoneBegin => undone(&begin),
            Job::Detach => vec![
                Step::Flush,
                Step::UnmountWorkspace,
                Step::Detach,
                Step::Resume,
                Step::UnmountWorkspace,
                Step::MountWorkspace,
            ],
            Job::Recover => vec![Step::DestroyPredecessor, Step::DestroyBase],
        };
        steps.into_iter().filter(|step| no_effect(*step).is_none()).collect()
    }

    /// Whether the predecessor is kept for its content, or, in place, a snapshot, and the commit's record
    /// with it.
    fn keeps_predecessor(self) -> bool {
        self.job == Job::Overwrite
    }

    /// The numbers of the effects that the process dies after: those of other scenarios are left
    /// out.
    fn kills(self, effects: &[Effect]) -> std::ops::RangeInclusive<usize> {
        let all = effects.len();
        let number_of = |wanted: &dyn Fn(&Effect) -> bool| {
            effects.iter().position(wanted).map(|at| at + 1).unwrap()
        };
        match self.job {
            Job::Commit | Job::Recover => 1..=all,
            Job::Overwrite => number_of(&|e| e.step == "UnmountWorkspace")..=all,
            Job::GoOver => number_of(&|e| e.step == "SetOwnership")..=all,
            Job::UndoneCommit | Job::UndoneBegin => number_of(&|e| e.failed) + 1..=all,
            Job::Rollback => number_of(&|e| e.step == "UnmountWorkspace")..=all,
            Job::Detach => {
                let mounted = effects.iter().rposition(|e| e.step == "MountWorkspace").unwrap() + 1;
                number_of(&|e| e.step == "Flush")..=mounted
            }
        }
    }

    /// What it comes to in the end when the process dies after the effect with this number.
    fn end(self, effects: &[Effect], number: usize) -> End {
        let records = |e: &&Effect| e.step == NO_STEP && e.verb == "write_record";
        match self.job {
            Job::Recover => End::After,
            Job::Commit | Job::Overwrite | Job::GoOver => {
                if effects[..number].iter().any(is_commit_point) { End::After } else { End::Before }
            }
            // Written once when it is detached, and once when it is resumed.
            Job::Detach if effects[..number].iter().filter(records).count() == 1 => End::Detached,
            _ => End::Before,
        }
    }
}

fn is_commit_point(effect: &Effect) -> bool {
    let is_point = effect.step == "RenameIntoPlace" || effect.verb == "transfer";
    is_point && !effect.failed
}

/// The steps of some effects, each once where several effects in a row belong to it.
fn steps_of(effects: &[Effect]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for effect in effects {
        let step = match effect.step.as_str() {
            // The records of these two, and of a commit that goes over, are written outside of steps.
            NO_STEP if steps.iter().any(|step| step == "Detach") => "Resume",
            NO_STEP => "Detach",
            step => step,
        };
        if steps.last().is_none_or(|last| last != step) {
            steps.push(step.to_owned());
        }
    }
    steps
}

fn killed_after_each_effect(scenario: Scenario) {
    if child::is_one() {
        return;
    }
    let started = std::time::Instant::now();
    let mut scene = Scene::new(scenario);
    let effects = scene.learn();
    let kills = scenario.kills(&effects);
    let expected: Vec<String> = scenario.steps().iter().map(|step| format!("{step:?}")).collect();
    assert_eq!(steps_of(&effects[kills.start() - 1..*kills.end()]), expected, "{scenario:?}");
    let points = match scenario.job {
        Job::Commit => crash_points(scenario.shape()),
        _ => Vec::new(),
    };
    let disk = |number: usize| {
        let step = &effects[number - 1].step;
        let is_last = effects.get(number).is_none_or(|next| next.step != *step);
        // A step may come twice.
        let before = steps_of(&effects[..number]);
        let nth = before.iter().filter(|earlier| *earlier == step).count().checked_sub(1)?;
        let mut same = points.iter().filter(|(known, _)| format!("{known:?}") == *step);
        let point = same.nth(nth).filter(|_| is_last);
        point.map(|(_, disk)| disk)
    };
    let kill = |number: usize| Kill {
        number,
        second: None,
        boot: false,
        end: scenario.end(&effects, number),
        disk: disk(number),
    };
    let once: Vec<Kill<'_>> = kills.map(kill).collect();
    let (_, counts) = scene.run(&effects, &once);
    // Two of each kill take half of all tests' time: a part is enough where nothing has changed.
    let every: usize =
        std::env::var("ZFS_TXN_KILLS_ONE_IN").map_or(4, |number| number.parse().unwrap());
    let again = |(kill, count): (&Kill<'_>, &usize)| {
        let kill = Kill { disk: None, ..*kill };
        // With programs, recovery is killed at each of its effects; with plain calls, where it is another
        // one, for updates that inherit their mount point, and else at one.
        let another = effects[kill.number - 1].verb.starts_with(WITHIN);
        let all = scenario.by == By::Programs || another && scenario.target == Target::Inherited;
        let (number, count) = (kill.number, *count);
        let only = (!all).then(|| 1 + number % count.max(1));
        let seconds = (1..=count).filter(move |second| match only {
            Some(only) => *second == only,
            None => count < every || (number + second) % every == 0,
        });
        seconds.map(move |second| Kill { second: Some(second), ..kill })
    };
    // A boot mounts parents of an init; and with plain calls, it does not find each mount point claimed
    // by the right dataset.
    let boots = (scenario.by == By::PlainCalls && scenario.target == Target::Inherited)
        || scenario.target == Target::Missing;
    if boots && scenario.job == Job::Commit {
        let booted = once.iter().map(|kill| Kill { boot: true, ..*kill });
        scene.run(&effects, &booted.collect::<Vec<_>>());
    }
    let twice: Vec<Kill<'_>> = once.iter().zip(&counts).flat_map(again).collect();
    let (recoveries, _) = scene.run(&effects, &twice);
    let seconds = started.elapsed().as_secs_f32();
    let (once, twice) = (once.len(), twice.len());
    let test = scenario.test;
    figures(&format!("{test}: {once} kills and {twice} in recovery, {seconds:.1} s"));
    let steps_of_recovery: HashSet<&str> =
        recoveries.iter().flatten().map(|effect| effect.step.as_str()).collect();
    for (target, job, step) in IN_RECOVERY {
        let there = steps_of_recovery.contains(&*format!("{step:?}"));
        let wanted = (scenario.target, scenario.job, scenario.by) == (target, job, By::Programs);
        assert!(there || !wanted, "{step:?}");
    }
    scene.end();
}

/// No step without its case: taken from the source of the enum, so that none is forgotten.
#[test]
fn each_step_is_in_a_scenario_or_has_no_effect() {
    let source = include_str!("../plan.rs");
    let (_, variants) = source.split_once("pub enum Step {\n").unwrap();
    let (variants, _) = variants.split_once("\n}").unwrap();
    let variants = variants.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let name = |step: &str| step.trim_end_matches(',').split('(').next().unwrap().to_owned();
    let variants: HashSet<String> = variants.map(name).collect();
    assert!(variants.len() > 30 && variants.contains("CreateParent"), "{variants:?}");
    let killed = SCENARIOS.iter().flat_map(|scenario| scenario.steps());
    let killed = killed.chain(IN_RECOVERY.map(|(_, _, step)| step));
    let without =
        [Step::Look, Step::CheckOwner, Step::CheckWorkspace, Step::CheckTarget, Step::DropMounts];
    assert!(without.iter().all(|step| no_effect(*step).is_some()));
    let known: HashSet<String> =
        killed.chain(without).map(|step| name(&format!("{step:?}"))).collect();
    assert_eq!(known, variants);
}
