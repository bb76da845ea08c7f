//! What the tests share: a scene to act in, and a pool's complete state to compare.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Barrier;
use std::time::Duration;

use zfs_txn::{CommitError, DatasetName, Receipt, Strategy, Transaction, Zfs};

use crate::test_pool::TestPool;
use crate::test_write::write;

/// A pool and an open library.
pub struct Scene {
    pub pool: TestPool,
    pub zfs: Zfs,
}

impl Scene {
    pub fn new() -> Self {
        Self::with_options(&[])
    }

    pub fn with_options(options: &[&str]) -> Self {
        Self { pool: TestPool::with_options(options), zfs: Zfs::open().unwrap() }
    }

    /// Whether the kernel puts a mount beneath another, so that no mount point is ever bare (Linux 6.5).
    pub fn swaps_without_a_gap(&self) -> bool {
        self.zfs.capabilities().unwrap().swaps_without_a_gap == Some(true)
    }

    pub fn name(&self, relative: &str) -> DatasetName {
        self.pool.dataset(relative).parse().unwrap()
    }

    /// A dataset, created by the `zfs` command, with one file.
    pub fn dataset(&self, relative: &str, options: &[&str]) -> DatasetName {
        let name = self.name(relative);
        self.pool.zfs(&[&["create"], options, &[name.as_str()]].concat());
        if let Some(path) = self.mounted_at(&name) {
            fs::write(path.join("file"), "generation 0").unwrap();
        }
        name
    }

    pub fn begin(&self, target: &DatasetName) -> Transaction {
        self.zfs.transaction(target).begin().unwrap()
    }

    /// Replaces the content of `file` in one transaction.
    pub fn publish(&self, target: &DatasetName, content: &str) -> Receipt {
        let transaction = self.begin(target);
        write(transaction.path().join("file"), content).unwrap();
        transaction.commit().unwrap()
    }

    pub fn mounted_at(&self, target: &DatasetName) -> Option<PathBuf> {
        mounts_of(target.as_str()).into_iter().next()
    }

    /// What `file` says at the target's mount point.
    pub fn read(&self, target: &DatasetName) -> String {
        let path = self.mounted_at(target).expect("the target is mounted");
        fs::read_to_string(path.join("file")).unwrap()
    }

    pub fn property(&self, name: &DatasetName, property: &str) -> (String, String) {
        let line = self.pool.zfs(&["get", "-Hpo", "value,source", property, name.as_str()]);
        let (value, source) = line.trim_end().split_once('\t').unwrap();
        (value.to_owned(), source.to_owned())
    }

    /// Ends the test: nothing of any transaction may be left, and nothing may keep the pool busy.
    pub fn end(self) {
        let left = self.pool.zfs(&["list", "-Ho", "name", "-t", "all", "-r", self.pool.name()]);
        for name in left.lines() {
            assert!(!name.contains("-txn-") && !name.contains("-old-"), "left: {name}");
            assert!(!name.contains("@txn-"), "left: {name}");
        }
        self.pool.cleanup();
    }
}

/// How much to do: by default what fits into a run of all tests under emulation.
pub fn amount(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |amount| amount.parse().unwrap())
}

/// Commits eight transactions from the same base at once: one has to win, the others to find a conflict,
/// and nothing to be left. The error says what was else.
pub fn race(zfs: &Zfs, target: &DatasetName) -> Result<(), String> {
    let start = Barrier::new(8);
    let commit = |number: usize| {
        let strategy = [Strategy::Promote, Strategy::InPlace][number % 2];
        let begun = zfs.transaction(target).strategy(strategy).begin();
        // Who couldn't begin doesn't keep the others waiting.
        start.wait();
        let transaction = begun.map_err(|error| error.to_string())?;
        write(transaction.path().join("file"), number.to_string()).unwrap();
        match transaction.commit() {
            Ok(_) => Ok(1),
            Err(CommitError::Conflict { transaction, .. }) => {
                transaction.rollback().map(|()| 0).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    let wins = std::thread::scope(|scope| {
        let commit = &commit;
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || commit(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Result<usize, String>>()
    })?;
    // What kept the winner's predecessor, the losers' bases, is gone by now.
    let parent = target.parent().unwrap();
    let swept = zfs.sweep(&parent).unwrap();
    let pending = zfs.pending(&parent).unwrap();
    match wins == 1 && swept.unfinished.is_empty() && pending.is_empty() {
        true => Ok(()),
        false => Err(format!("{wins} won; {swept:?}; {pending:?}")),
    }
}

/// Runs one test of this binary in a process of its own, with a variable set that it looks at.
pub fn again(test: &str, variable: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, value);
    command
}

/// Panics unless the test that a process ran has passed.
pub fn assert_passed(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// Starts a program that was just written: a child of another test may have its descriptor for a
/// moment, between fork and exec.
pub fn run(command: &mut Command) -> Child {
    for _ in 0..100 {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(20));
            }
            child => return child.unwrap(),
        }
    }
    command.spawn().unwrap()
}

/// Where a dataset is mounted as a whole.
pub fn mounts_of(dataset: &str) -> Vec<PathBuf> {
    mount_lines()
        .into_iter()
        .filter(|fields| fields[fields.len() - 2] == dataset && fields[3] == "/")
        .map(|fields| PathBuf::from(&fields[4]))
        .collect()
}

/// The lines of the mount table, in fields.
pub fn mount_lines() -> Vec<Vec<String>> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    // Another test may have mounted something where the path is no text.
    let table = String::from_utf8_lossy(&table);
    table.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Whether datasets keep their identity between two looks, or are replaced by a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Kept,
    Replaced,
}

/// Everything that an administrator could see of a pool: its features, properties with their sources,
/// holds, delegations, mounts with their options, and the content of each mounted filesystem.
#[derive(Debug, PartialEq, Eq)]
pub struct State(BTreeMap<String, String>);

impl State {
    pub fn of(scene: &Scene, identity: Identity) -> Self {
        // What ZFS computes from everything else, or that moves with time alone.
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
        // What is of the dataset rather than of its name.
        const IDENTITY: [&str; 5] = ["createtxg", "creation", "guid", "objsetid", "clones"];
        let pool = scene.pool.name();
        let mut state = BTreeMap::new();
        let properties =
            scene.pool.zfs(&["get", "-Hpr", "-o", "name,property,value,source", "all", pool]);
        for line in properties.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, property, value, source] = fields[..] else { panic!("{line:?}") };
            let snapshot = name.contains(['@', '#']);
            let skipped = VOLATILE.contains(&property)
                || (!snapshot && identity == Identity::Replaced && IDENTITY.contains(&property));
            if !skipped {
                state.insert(format!("{name} {property}"), format!("{value} ({source})"));
            }
        }
        for (feature, value) in features(pool) {
            state.insert(format!("{pool} {feature}"), value);
        }
        for name in scene.pool.zfs(&["list", "-Ho", "name", "-t", "snapshot", "-r", pool]).lines() {
            let holds = scene.pool.zfs(&["holds", "-H", name]);
            let tags: Vec<&str> =
                holds.lines().filter_map(|line| line.split('\t').nth(1)).collect();
            state.insert(format!("{name} holds"), tags.join(","));
        }
        for name in scene.pool.zfs(&["list", "-Ho", "name", "-r", pool]).lines() {
            state.insert(format!("{name} allow"), scene.pool.zfs(&["allow", name]));
            for space in ["userspace", "groupspace"] {
                let quotas = scene.pool.try_zfs(&[space, "-Hp", "-o", "type,name,quota", name]);
                state.insert(format!("{name} {space}"), quotas.unwrap_or_default());
            }
            for path in mounts_of(name) {
                content(&path, &format!("{name} content"), &mut state);
            }
        }
        for fields in mount_lines() {
            let source = &fields[fields.len() - 2];
            if source == pool || source.starts_with(&format!("{pool}/")) {
                let key = format!("mount of {source} at {}", fields[4]);
                // A mount's own options and the superblock's.
                let options = format!("{} {}", fields[5], fields[fields.len() - 1]);
                let entry: &mut String = state.entry(key).or_default();
                entry.push_str(&options);
                entry.push(';');
            }
        }
        Self(state)
    }

    /// The state but for what has this in its name: the id of a transaction that goes on.
    pub fn besides(mut self, part: &str) -> Self {
        // A transaction that goes on may have a bookmark, which the pool's features tell of.
        self.0.retain(|key, _| !key.contains(part) && !key.contains("feature@bookmark"));
        self
    }

    /// Panics with each difference by name.
    pub fn assert_same(&self, after: &Self) {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        let differences: Vec<String> = keys
            .into_iter()
            .filter(|key| self.0.get(*key) != after.0.get(*key))
            .map(|key| format!("{key}: {:?} -> {:?}", self.0.get(key), after.0.get(key)))
            .collect();
        assert!(differences.is_empty(), "the pool's state differs:\n{}", differences.join("\n"));
    }
}

/// The features of a pool, and whether each is in use.
pub fn features(pool: &str) -> BTreeMap<String, String> {
    // Blocks are freed, and livelists of destroyed clones worked off, in later txgs; and the first sync of
    // any file begins an intent log, whose feature goes with the log.
    const IN_TIME: [&str; 3] = ["feature@async_destroy", "feature@livelist", "feature@zilsaxattr"];
    let arguments = ["get", "-Hpo", "property,value", "all", pool];
    let output = Command::new("zpool").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let features =
        lines.filter(|(name, _)| name.starts_with("feature@") && !IN_TIME.contains(name));
    features.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn content(directory: &Path, key: &str, state: &mut BTreeMap<String, String>) {
    let meta = fs::symlink_metadata(directory).unwrap();
    let what = if meta.is_symlink() {
        format!("-> {}", fs::read_link(directory).unwrap().display())
    } else if meta.is_file() {
        format!("{:?}", fs::read(directory).unwrap())
    } else {
        "directory".to_owned()
    };
    let owner = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    state.insert(key.to_owned(), format!("{owner} {what}"));
    if meta.is_dir() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            // Other datasets of the pool are looked at by name.
            if entry.metadata().unwrap().dev() == meta.dev() {
                let name = entry.file_name().into_string().unwrap();
                content(&entry.path(), &format!("{key} {name}"), state);
            }
        }
    }
}

/// How many datasets of the pool would be mounted at `path` at the next boot.
pub fn claims(scene: &Scene, path: &Path) -> usize {
    let list =
        scene.pool.zfs(&["list", "-Ho", "canmount,zoned,mountpoint", "-r", scene.pool.name()]);
    let claim = format!("on\toff\t{}", path.display());
    list.lines().filter(|line| **line == claim).count()
}
