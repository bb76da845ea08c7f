//! What a guest might tell, judged.

use super::*;

/// What a guest tells whose datasets are all mounted where they belong: names and generations.
fn facts(targets: &[(&str, u64)]) -> Facts {
    let mut facts = Facts::default();
    for name in [POOL, PARENT] {
        facts.add(&["mount", name, &path_of(name)]);
        facts.add(&["claim", name, &path_of(name)]);
        facts.add(&["state", "filesystem", name]);
    }
    for (target, generation) in targets {
        let path = path_of(target);
        facts.add(&["mount", target, &path]);
        facts.add(&["claim", target, &path]);
        facts.add(&["content", &path, "whole", target, &generation.to_string(), "commit"]);
        facts.add(&["state", "filesystem", target]);
        match own_path(target) {
            Some(path) => {
                facts.add(&["state", "property", &format!("{target} mountpoint {path} local")])
            }
            None => facts.add(&["entry", target.rsplit('/').next().unwrap()]),
        };
    }
    facts
}

fn all(generation: u64) -> Vec<(&'static str, u64)> {
    FIXED.iter().map(|&target| (target, generation)).collect()
}

/// A ledger after the first boot, whose load has said these lines.
fn ledger(lines: &[&[&str]]) -> Ledger {
    let mut ledger = Ledger::default();
    let made = facts(&all(0));
    let problems = ledger.judge_recovered(&made, &made, 0);
    assert_eq!(problems, Problems::default());
    for line in lines {
        assert_eq!(ledger.hear(line), None);
    }
    ledger
}

/// What is wrong with these targets, at a boot and after its recovery.
fn judge(ledger: &mut Ledger, found: &Facts) -> Problems {
    let mounts = ledger.judge_boot(found).mounts;
    Problems { mounts, ..ledger.judge_recovered(found, found, 1) }
}

const ONE: &str = FIXED[0];
const OWN: &str = FIXED[2];
const NEW: &str = "crash/data/new-0-7";

#[test]
fn what_was_acknowledged_must_be_there_or_something_newer() {
    for (found, lost) in [(4, 1), (5, 0), (6, 0), (999, 0)] {
        let mut ledger = ledger(&[&["try", ONE, "5"], &["ack", ONE, "5"], &["try", ONE, "6"]]);
        let mut targets = all(0);
        targets[0].1 = found;
        let problems = judge(&mut ledger, &facts(&targets));
        assert_eq!((problems.lost.len(), problems.mounts.len()), (lost, lost), "{problems:?}");
        assert!(problems.mixed.is_empty() && problems.leftovers.is_empty());
        assert_eq!(ledger.acknowledgements, 1);
        // What was found must be there next time.
        targets[0].1 = found - 1;
        assert_eq!(judge(&mut ledger, &facts(&targets)).lost.len(), 1);
    }
}

#[test]
fn what_was_refused_or_rolled_back_must_not_be_there() {
    let refused: &[&[&str]] = &[&["refused", ONE, "5", "why"]];
    let mut targets = all(0);
    targets[0].1 = 5;
    assert_eq!(judge(&mut ledger(refused), &facts(&targets)).mixed.len(), 1);
    targets[0].1 = 6;
    assert_eq!(judge(&mut ledger(refused), &facts(&targets)), Problems::default());
    let mut found = facts(&all(0));
    found.add(&["content", &path_of(ONE), "whole", ONE, "6", "rollback"]);
    assert_eq!(judge(&mut ledger(&[]), &found).mixed.len(), 1);
}

#[test]
fn content_of_two_generations_or_of_another_target_is_mixed() {
    for words in [&["broken", "left/3 is missing"][..], &["whole", OWN, "1", "commit"]] {
        let mut found = facts(&all(0));
        found.add(&[&["content", &*path_of(ONE)], words].concat());
        let problems = judge(&mut ledger(&[]), &found);
        assert_eq!((problems.mixed.len(), problems.mounts.len()), (1, 1), "{problems:?}");
    }
}

#[test]
fn a_new_target_may_be_there_and_must_when_acknowledged() {
    let with = facts(&[&all(0)[..], &[(NEW, 8)]].concat());
    let without = facts(&all(0));
    let tried: &[&[&str]] = &[&["try", NEW, "8"]];
    let acknowledged: &[&[&str]] = &[&["try", NEW, "8"], &["ack", NEW, "8"]];
    for (lines, found) in [(tried, &with), (tried, &without), (acknowledged, &with), (&[], &with)] {
        assert_eq!(judge(&mut ledger(lines), found), Problems::default());
    }
    let problems = judge(&mut ledger(acknowledged), &without);
    assert_eq!((problems.lost.len(), problems.mounts.len()), (1, 1));
    // Destroyed by the load itself; it can't come back.
    let mut ledger = ledger(acknowledged);
    assert_eq!(judge(&mut ledger, &with), Problems::default());
    ledger.hear(&["destroy", NEW]);
    ledger.hear(&["destroyed", NEW]);
    assert_eq!(judge(&mut ledger, &without), Problems::default());
    assert!(!judge(&mut ledger, &with).leftovers.is_empty());
}

#[test]
fn a_target_with_a_mount_point_of_its_own_must_have_the_property() {
    let mut found = facts(&all(0));
    found.state.remove(&format!("property {OWN} mountpoint /srv/own local"));
    found.add(&["state", "property", &format!("{OWN} mountpoint none local")]);
    let problems = judge(&mut ledger(&[]), &found);
    assert_eq!((problems.lost.len(), problems.leftovers.len()), (1, 1));
}

#[test]
fn whatever_a_transaction_made_is_a_leftover_and_counted_once() {
    let lines: [&[&str]; 6] = [
        &["state", "filesystem", "crash/data/one-old-0123"],
        &["state", "snapshot", "crash/data/one@txn-0123", "17"],
        &["state", "property", "crash/data/one zfs-txn:0123 1 local"],
        &["state", "hold", "crash/data/one@kept zfs-txn"],
        &["mount", ONE, "/run/zfs-txn/0123"],
        &["entry", "one-txn-0123"],
    ];
    for line in lines {
        let mut ledger = ledger(&[]);
        let mut found = facts(&all(0));
        found.add(line);
        assert_eq!(judge(&mut ledger, &found).leftovers.len(), 1, "{line:?}");
        assert_eq!(judge(&mut ledger, &found).leftovers.len(), 0, "{line:?}");
    }
}

#[test]
fn what_lasts_must_last() {
    let mut ledger = Ledger::default();
    let mut made = facts(&all(0));
    made.add(&["state", "snapshot", "crash/data/one@kept", "17"]);
    assert_eq!(ledger.judge_recovered(&made, &made, 0), Problems::default());
    assert_eq!(judge(&mut ledger, &facts(&all(0))).lost.len(), 1);
}

#[test]
fn mounts_are_judged_before_the_recovery() {
    let workspace = "crash/data/one-txn-0123";
    let wrong: [&[&str]; 5] = [
        &["mount", workspace, "/crash/data/one"],
        &["mount", workspace, "/crash/data/one/below"],
        &["mount", workspace, "/elsewhere"],
        &["mount", "crash/data/one-old-0123", "/crash/data/one/below"],
        &["claim", "crash/data/one-old-0123", "/crash/data/one"],
    ];
    for line in wrong {
        let mut found = facts(&all(0));
        found.add(line);
        assert!(!ledger(&[]).judge_boot(&found).mounts.is_empty(), "{line:?}");
    }
    // Interrupted while it was made, a workspace is mounted where nobody looks.
    let mut found = facts(&all(0));
    found.add(&["mount", workspace, "/crash/data/one-txn-0123"]);
    assert_eq!(ledger(&[]).judge_boot(&found), Problems { strays: 1, ..Problems::default() });
    // The predecessor may stand in for the target.
    let mut found = facts(&all(0));
    for (dataset, _) in found.mounts.iter_mut().chain(&mut found.claims) {
        if dataset == ONE {
            *dataset = "crash/data/one-old-0123".to_owned();
        }
    }
    assert_eq!(ledger(&[]).judge_boot(&found), Problems::default());
    found.mounts.retain(|(_, path)| path != "/crash/data/one");
    assert!(!ledger(&[]).judge_boot(&found).mounts.is_empty());
}

#[test]
fn snapshots_of_others_have_what_was_committed_once() {
    let one = "crash/data/one";
    for (name, words, [mixed, leftovers]) in [
        ("one@auto-3", &["whole", one, "4", "commit"][..], [0, 0]),
        ("one-old-0123456789abcdef@auto-3", &["whole", one, "4", "commit"], [0, 0]),
        ("one@auto-3", &["whole", one, "4", "rollback"], [1, 0]),
        ("one@auto-3", &["whole", one, "5", "commit"], [1, 0]),
        ("one@auto-3", &["whole", OWN, "4", "commit"], [1, 0]),
        ("one-old-0123456789abcdef@auto-3", &["broken", "half of it"], [1, 0]),
        ("one-txn-0123456789abcdef@auto-3", &["whole", one, "4", "commit"], [0, 1]),
    ] {
        let mut ledger = ledger(&[&["refused", ONE, "5", "why"]]);
        let mut found = facts(&all(6));
        assert!(found.add(&[&["snapshot", &format!("{PARENT}/{name}")], words].concat()));
        let problems = judge(&mut ledger, &found);
        let counts = [problems.mixed.len(), problems.leftovers.len()];
        assert_eq!(counts, [mixed, leftovers], "{name} {words:?}: {problems:?}");
    }
}

#[test]
fn a_recovery_does_not_go_back_behind_what_the_boot_showed() {
    let mut targets = all(0);
    targets[0].1 = 6;
    let (before, after) = (facts(&targets), facts(&all(0)));
    let mut ledger = ledger(&[&["try", ONE, "6"]]);
    assert_eq!(ledger.judge_recovered(&before, &after, 1).lost.len(), 1);
}

#[test]
fn a_target_of_a_load_before_an_interrupted_recovery_is_known() {
    let mut ledger = ledger(&[]);
    let found = facts(&[&all(0)[..], &[(NEW, 8)]].concat());
    // Boot 1 was cut before it was judged: NEW is of boot 0.
    assert_eq!(ledger.judge_recovered(&found, &found, 2), Problems::default());
    let older = facts(&[&all(0)[..], &[(NEW, 8), ("crash/data/new-1-9", 9)]].concat());
    assert!(!ledger.judge_recovered(&older, &older, 3).leftovers.is_empty());
}
