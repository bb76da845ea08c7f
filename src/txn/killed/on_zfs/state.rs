//! The complete state of each case, at the price of one `zfs` command for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::engine::{Engine, LOOK};
use crate::ffi::nvlist::{NvList, NvRef, Value};
use crate::test_pool::TestPool;
use crate::txn::journal;

/// What ZFS computes from everything else, or that moves with time alone.
const VOLATILE: [&str; 14] = [
    "available",
    "compressratio",
    "logicalreferenced",
    "logicalused",
    "refcompressratio",
    "referenced",
    "snapshots_changed",
    "unique",
    "used",
    "usedbychildren",
    "usedbydataset",
    "usedbyrefreservation",
    "usedbysnapshots",
    "written",
];
/// What is of the dataset rather than of its name.
const IDENTITY: [&str; 4] = ["createtxg", "creation", "guid", "objsetid"];

/// By a dataset's or snapshot's name and by what it is about.
type Facts = BTreeMap<(String, String), String>;

/// What there is in one case, under names that are the same for all cases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Properties with their sources, permissions, mounts, and the content of what is mounted.
    pub(super) facts: Facts,
    /// Which datasets and snapshots these are.
    pub(super) identity: Facts,
}

impl State {
    /// Of each case, by the name of its dataset.
    pub(super) fn of_each(pool: &TestPool, engine: &dyn Engine, cases: &[&str]) -> Vec<Self> {
        let mut states = Self::properties(pool, cases, "all");
        for (case, state) in cases.iter().zip(&mut states) {
            let filesystem = |(name, about): &(String, String), value: &str| {
                (about == "type" && value.starts_with("filesystem")).then(|| name.clone())
            };
            let own = |name: &str| !name.contains("-ID");
            let names: Vec<String> =
                state.facts.iter().filter_map(|(key, value)| filesystem(key, value)).collect();
            for name in names.into_iter().filter(|name| own(name)) {
                let dataset = name.replace(CASE, case).parse().unwrap();
                let permissions = engine.settings(&dataset).unwrap().permissions;
                let permissions = permissions.map(|packed| NvList::unpack(&packed).unwrap());
                let listed = permissions.as_ref().map(|list| sorted(list.view()));
                state.facts.insert((name, "allow".to_owned()), listed.unwrap_or_default());
            }
            state.add_mounts(case);
        }
        states
    }

    /// Identities alone.
    pub(super) fn identities(pool: &TestPool, cases: &[&str]) -> Vec<Self> {
        Self::properties(pool, cases, &IDENTITY.join(","))
    }

    fn properties(pool: &TestPool, cases: &[&str], which: &str) -> Vec<Self> {
        let command = ["get", "-Hpr", "-o", "name,property,value,source", which];
        let mut states = vec![Self::default(); cases.len()];
        for line in pool.zfs(&[&command, cases].concat()).lines() {
            let [name, property, value, source] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line:?}")
            };
            let at = cases.iter().position(|case| is_within(name, case)).unwrap();
            // A record says when and by whom it was begun.
            let value = match journal::id_of(property) {
                Some(_) => value.split(';').find(|field| field.starts_with("state=")).unwrap(),
                None if property == LOOK => "ID",
                None => value,
            };
            let (general, state) = (|text: &str| general(text, cases[at]), &mut states[at]);
            let map =
                if IDENTITY.contains(&property) { &mut state.identity } else { &mut state.facts };
            if !VOLATILE.contains(&property) {
                let key = (general(name), general(property));
                map.insert(key, general(&format!("{value} ({source})")));
            }
        }
        states
    }

    fn add_mounts(&mut self, case: &str) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for fields in table.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
            let (source, path) = (fields[fields.len() - 2], fields[4]);
            if is_within(source, case) {
                let source = general(source, case);
                let key = (source.clone(), format!("mount at {}", general(path, case)));
                // The mount's own options and the superblock's.
                let options = format!("{} {};", fields[5], fields[fields.len() - 1]);
                *self.facts.entry(key).or_default() += &options;
                content(Path::new(path), &source, "content", &mut self.facts);
            }
        }
    }

    /// Panics with each difference by name.
    pub(super) fn assert_same(&self, expected: &Self, case: &str) {
        compare(&self.facts, &expected.facts, case);
        compare(&self.identity, &expected.identity, case);
    }

    /// Panics where anything is named as transactions name what they make.
    pub(super) fn assert_no_trace(&self, case: &str) {
        for ((name, about), value) in &self.facts {
            for text in [name, about, value] {
                let traces = ["-txn-", "-old-", "@txn-", "zfs-txn", "systemd:ignore"];
                // The first one is the pool's own name.
                let text = text.replace("zfstxn-", "");
                let trace = traces.into_iter().find(|trace| text.contains(trace));
                assert_eq!(trace, None, "{case}: {name} {about} {value}");
            }
        }
    }
}

/// Stands for the dataset of the case, and for its last part.
const CASE: &str = "CASE";

fn general(text: &str, case: &str) -> String {
    let leaf = case.rsplit('/').next().unwrap();
    without_ids(&text.replace(case, CASE).replace(leaf, CASE))
}

fn is_within(name: &str, case: &str) -> bool {
    name.strip_prefix(case).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
}

pub(super) fn compare(found: &Facts, expected: &Facts, case: &str) {
    let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key:?}: {:?}, not {:?}", found.get(key), expected.get(key)))
        .collect();
    assert!(differences.is_empty(), "{case}:\n{}", differences.join("\n"));
}

/// The kernel lists permissions in no order that would be the same for each dataset.
fn sorted(list: NvRef<'_>) -> String {
    let entry = |pair: Result<(&std::ffi::OsStr, Value<'_>), _>| match pair.unwrap() {
        (name, Value::List(below)) => format!("{name:?} ({})", sorted(below)),
        (name, _) => format!("{name:?}"),
    };
    let entries: BTreeSet<String> = list.iter().map(entry).collect();
    entries.into_iter().collect::<Vec<_>>().join(", ")
}

/// Replaces what follows the beginnings that transactions give to names.
fn without_ids(text: &str) -> String {
    let mut text = text.to_owned();
    for beginning in ["-txn-", "-old-", "@txn-", "zfs-txn:"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(beginning) {
            from += at + beginning.len();
            let id = from..from + 16;
            if text.get(id.clone()).is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit())) {
                text.replace_range(id, "ID");
            }
        }
    }
    text
}

fn content(path: &Path, source: &str, about: &str, state: &mut BTreeMap<(String, String), String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let what =
        if meta.is_file() { format!("{:?}", fs::read(path).unwrap()) } else { String::new() };
    let value = format!("{:o} {}:{} {what}", meta.mode(), meta.uid(), meta.gid());
    state.insert((source.to_owned(), about.to_owned()), value);
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            // Other datasets of the pool have their own line in the mount table.
            if entry.metadata().unwrap().dev() == meta.dev() {
                let name = entry.file_name().into_string().unwrap();
                content(&entry.path(), source, &format!("{about} {name}"), state);
            }
        }
    }
}
