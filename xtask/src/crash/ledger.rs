//! What the load was told, and whether what is found agrees with it.
//!
//! A generation that was acknowledged, or found after an earlier power cut, must be there, or a newer
//! one. A newer one is right even when nothing is known of it: the line that announced it may have
//! been lost with the guest. It must be whole, and not one that was refused or rolled back. (The line
//! of a refusal may be lost as well; content that is to be rolled back says so itself.)

use std::collections::{BTreeMap, BTreeSet};

use crate::crash::facts::{Content, Facts, Problems};

const POOL: &str = "crash";
const PARENT: &str = "crash/data";
/// There from the first boot on.
const FIXED: [&str; 3] = ["crash/data/one", "crash/data/two", "crash/data/own"];

#[derive(Debug, Default)]
struct Target {
    /// The newest generation that must be there, or a newer one.
    acknowledged: Option<u64>,
    /// Generations that must not be there.
    refused: BTreeSet<u64>,
}

/// All that is known of the targets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    targets: BTreeMap<String, Target>,
    /// The state of everything that no commit changes, as it was made.
    reference: Option<BTreeSet<String>>,
    /// The last boot that was judged to its end: its load is the only one that may have made targets
    /// that nothing is known of.
    judged: u64,
    /// What was counted as a leftover or a loss, and may be found again.
    counted: BTreeSet<String>,
    /// How many commits were acknowledged.
    pub(crate) acknowledgements: u64,
}

/// What is wrong with a target's content.
enum Fault {
    Lost(String),
    Mixed(String),
}

impl Ledger {
    /// Takes a line of the load; what it says that may never be is returned.
    pub(crate) fn hear(&mut self, words: &[&str]) -> Option<String> {
        match *words {
            ["ack", target, generation] => {
                let known = self.targets.entry(target.to_owned()).or_default();
                known.acknowledged = known.acknowledged.max(generation.parse().ok());
                self.acknowledgements += 1;
            }
            ["refused", target, generation, ..] => {
                let known = self.targets.entry(target.to_owned()).or_default();
                known.refused.extend(generation.parse::<u64>());
            }
            // From here on it may be gone.
            ["destroy", target] => {
                self.targets.entry(target.to_owned()).or_default().acknowledged = None;
            }
            ["destroyed", target] => {
                self.targets.remove(target);
            }
            ["wrong", text] => return Some(text.to_owned()),
            _ => {}
        }
        None
    }

    /// Judges the mounts that the boot after a power cut has made.
    pub(crate) fn judge_boot(&self, facts: &Facts) -> Problems {
        let strays = facts.mounts.iter().filter(is_stray).count();
        Problems { mounts: self.wrong_mounts(facts), strays, ..Problems::default() }
    }

    fn wrong_mounts(&self, facts: &Facts) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in [POOL, PARENT] {
            let path = path_of(name);
            if facts.mounted_at(&path).collect::<Vec<_>>() != [name] {
                wrong.push(format!("{name} is not what is mounted at {path}"));
            }
        }
        for name in self.names(facts) {
            let path = path_of(&name);
            let mounted: Vec<_> = facts.mounted_at(&path).collect();
            let claims: Vec<_> = facts
                .claims
                .iter()
                .filter(|(_, claimed)| *claimed == path)
                .map(|(dataset, _)| &**dataset)
                .collect();
            let must = self.acknowledged(&name).is_some();
            if mounted.len() > 1 {
                wrong.push(format!("{mounted:?} are mounted at {path}"));
            }
            if must && mounted.is_empty() {
                wrong.push(format!("nothing is mounted at {path}"));
            }
            if claims.len() > 1 {
                wrong.push(format!("{claims:?} claim {path}"));
            }
            if let Some(Fault::Lost(text) | Fault::Mixed(text)) = self.fault(&name, facts) {
                if !mounted.is_empty() {
                    wrong.push(format!("{path}, from {mounted:?}: {text}"));
                }
            }
            let below = format!("{path}/");
            for (dataset, at) in facts.mounts.iter().filter(|(_, at)| at.starts_with(&below)) {
                wrong.push(format!("{dataset} is mounted at {at}, below {path}"));
            }
        }
        let workspaces = facts.mounts.iter().filter(|(dataset, _)| dataset.contains("-txn-"));
        for (dataset, at) in workspaces.filter(|mount| !is_stray(mount)) {
            wrong.push(format!("the workspace {dataset} is mounted, at {at}"));
        }
        wrong
    }

    /// Judges what the recovery has left, and takes over what is there as what must be there next
    /// time. `before` is what was there before the recovery.
    pub(crate) fn judge_recovered(&mut self, before: &Facts, facts: &Facts, boot: u64) -> Problems {
        let mut problems = Problems::default();
        let names = self.names(facts);
        let there: BTreeSet<_> = facts.filesystems().map(str::to_owned).collect();
        for name in &names {
            match self.fault(name, facts) {
                Some(Fault::Lost(text)) => problems.lost.push(format!("{name}: {text}")),
                Some(Fault::Mixed(text)) => problems.mixed.push(format!("{name}: {text}")),
                None => {}
            }
            let (seen, now) = (generation_at(before, name), generation_at(facts, name));
            if seen.is_some() && now < seen && self.fault(name, facts).is_none() {
                let text = format!("{name}: the boot showed {seen:?}, the recovery {now:?}");
                problems.lost.push(text);
            }
            if there.contains(name) && now.is_none() && self.acknowledged(name).is_none() {
                problems.leftovers.push(format!("{name}, which is not mounted or has no content"));
            }
        }
        self.judge_snapshots(facts, &mut problems);
        self.compare_state(facts, &mut problems);
        let mounts = facts.mounts.iter().filter(|(dataset, path)| {
            let known = [POOL, PARENT].contains(&&**dataset) || names.contains(dataset);
            !known || path_of(dataset) != *path
        });
        problems
            .leftovers
            .extend(mounts.map(|(dataset, path)| format!("mount of {dataset} at {path}")));
        let directories = facts.entries.iter().map(|entry| format!("{PARENT}/{entry}"));
        let unused = directories.filter(|name| !there.contains(name));
        problems.leftovers.extend(unused.map(|name| format!("directory /{name}")));
        problems.leftovers.retain(|text| self.counted.insert(text.clone()));
        self.settle(&names, facts);
        self.judged = boot;
        problems
    }

    /// A snapshot that others took of a target, or of its predecessor, has what was committed once; none of
    /// a workspace is left.
    fn judge_snapshots(&self, facts: &Facts, problems: &mut Problems) {
        for (name, content) in &facts.snapshots {
            let dataset = name.split('@').next().unwrap_or(name);
            let (target, suffix) = without_suffix(dataset);
            let wrong = match content {
                _ if suffix == Some("txn") => {
                    problems.leftovers.push(name.clone());
                    continue;
                }
                Content::Broken(why) => Some(why.clone()),
                Content::Whole { target: found, generation, rolled_back } => {
                    let refused = self.targets.get(target).map(|known| &known.refused);
                    let refused = refused.is_some_and(|refused| refused.contains(generation));
                    let wrong = *rolled_back || refused || found != target;
                    wrong.then(|| format!("it is generation {generation} of {found}"))
                }
            };
            problems.mixed.extend(wrong.map(|why| format!("{name}: {why}")));
        }
    }

    fn compare_state(&mut self, facts: &Facts, problems: &mut Problems) {
        let passing = |line: &&String| subject(line).is_some_and(|name| boot_of(name).is_some());
        if self.reference.is_none() {
            let lasting = facts.state.iter().filter(|line| !passing(line));
            self.reference = Some(lasting.cloned().collect());
        }
        let Some(reference) = &self.reference else { return };
        let mut expected = reference.clone();
        for name in self.names(facts) {
            if boot_of(&name).is_some() && facts.state.contains(&format!("filesystem {name}")) {
                expected.insert(format!("filesystem {name}"));
                if let Some(path) = own_path(&name) {
                    expected.insert(format!("property {name} mountpoint {path} local"));
                }
            }
        }
        problems.leftovers.extend(facts.state.difference(&expected).cloned());
        let gone = expected.difference(&facts.state).cloned();
        problems.lost.extend(gone.filter(|line| self.counted.insert(line.clone())));
    }

    fn settle(&mut self, names: &BTreeSet<String>, facts: &Facts) {
        self.targets.retain(|name, _| names.contains(name));
        for name in names {
            let found = generation_at(facts, name);
            if found.is_some() || self.targets.contains_key(name) {
                let known = self.targets.entry(name.clone()).or_default();
                known.acknowledged = found;
                known.refused.retain(|refused| found.is_none_or(|found| *refused > found));
            }
        }
        self.targets.retain(|name, known| {
            known.acknowledged.is_some() || FIXED.contains(&&**name) || !known.refused.is_empty()
        });
    }

    /// The targets that must be there or may be: those that are known, and those that the last load may
    /// have made without living to tell.
    fn names(&self, facts: &Facts) -> BTreeSet<String> {
        let mounted = facts.mounts.iter().map(|(dataset, _)| &**dataset);
        let recent = |name: &&str| boot_of(name).is_some_and(|made| made >= self.judged);
        facts
            .filesystems()
            .chain(mounted)
            .filter(recent)
            .chain(self.targets.keys().map(String::as_str))
            .chain(FIXED)
            .map(str::to_owned)
            .collect()
    }

    fn acknowledged(&self, name: &str) -> Option<u64> {
        self.targets.get(name).and_then(|known| known.acknowledged)
    }

    /// What is wrong with the content that is found where a target belongs.
    fn fault(&self, name: &str, facts: &Facts) -> Option<Fault> {
        let acknowledged = self.acknowledged(name);
        let refused = self.targets.get(name).map(|known| &known.refused);
        match facts.contents.get(&path_of(name)) {
            None => acknowledged.map(|wanted| {
                Fault::Lost(format!("generation {wanted} is wanted, nothing is there"))
            }),
            Some(Content::Broken(why)) => Some(Fault::Mixed(why.clone())),
            Some(Content::Whole { target, generation, .. }) if target != name => {
                Some(Fault::Mixed(format!("it is generation {generation} of {target}")))
            }
            Some(Content::Whole { generation, rolled_back: true, .. }) => {
                Some(Fault::Mixed(format!("generation {generation} was rolled back, and is there")))
            }
            Some(Content::Whole { generation, .. }) => match acknowledged {
                Some(wanted) if *generation < wanted => Some(Fault::Lost(format!(
                    "generation {wanted} is wanted, {generation} is there"
                ))),
                _ if refused.is_some_and(|refused| refused.contains(generation)) => {
                    Some(Fault::Mixed(format!("generation {generation} was refused, and is there")))
                }
                _ => None,
            },
        }
    }
}

fn generation_at(facts: &Facts, name: &str) -> Option<u64> {
    match facts.contents.get(&path_of(name)) {
        Some(Content::Whole { generation, .. }) => Some(*generation),
        _ => None,
    }
}

/// The dataset that a line of the state is about.
fn subject(line: &str) -> Option<&str> {
    line.split(' ').nth(1).map(|name| name.split(['@', '#']).next().unwrap_or(name))
}

/// The boot whose load made a target, by its name; `None` for other names.
fn boot_of(name: &str) -> Option<u64> {
    let leaf = name.strip_prefix(PARENT)?.strip_prefix('/')?;
    let numbers = leaf.strip_prefix("new-").or_else(|| leaf.strip_prefix("own-"))?;
    let (boot, number) = numbers.split_once('-')?;
    number.parse::<u64>().ok().and_then(|_| boot.parse().ok())
}

/// The path that a target's own mountpoint property has.
fn own_path(name: &str) -> Option<String> {
    let leaf = name.rsplit('/').next()?;
    leaf.starts_with("own").then(|| format!("/srv/{leaf}"))
}

/// A target's name, and how that of a dataset that transactions made of it goes on.
fn without_suffix(dataset: &str) -> (&str, Option<&str>) {
    let found = ["txn", "old"].into_iter().find_map(|suffix| {
        let (target, id) = dataset.rsplit_once(&format!("-{suffix}-"))?;
        let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some((target, Some(suffix)))
    });
    found.unwrap_or((dataset, None))
}

/// Whether a workspace is mounted at the path that its own name gives it. ZFS makes a dataset in one
/// txg and sets its properties in later ones: cut between them, it is one that a boot mounts. That is
/// no target's path, and the recovery removes it, as the leftovers show; it is counted.
fn is_stray((dataset, at): &&(String, String)) -> bool {
    dataset.contains("-txn-") && *at == format!("/{dataset}")
}

/// Where a dataset belongs.
fn path_of(name: &str) -> String {
    own_path(name).unwrap_or_else(|| format!("/{name}"))
}

#[cfg(test)]
mod tests;
