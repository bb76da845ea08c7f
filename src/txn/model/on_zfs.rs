//! The state machine on real ZFS.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::mount::MountAttrFlags;

use super::memory::Content;
use super::world::{Backend, Seen, View};
use super::{run_with, seed};
use crate::engine::{Engine, PropertyValue};
use crate::ffi::lzc::{Lzc, ProgramLimits, ProgramMode};
use crate::ffi::nvlist::{NvList, Value};
use crate::kernel::Kernel;
use crate::mount;
use crate::name::DatasetName;
use crate::test_pool::{TestPool, figures};
use crate::test_write;

const LOOK: &str = include_str!("look.lua");
const CLEAR: &str = include_str!("clear.lua");
const NOTE: &str = "zfs.sync.set_prop((...)['name'], 'test:note', (...)['note'])";

/// A dataset in which one thread does one sequence after the other.
#[derive(Debug, Clone)]
struct Home {
    scope: DatasetName,
    /// Where the scope's path is, and a mount point that is no dataset's by its name.
    paths: (PathBuf, PathBuf),
    engine: Arc<Kernel>,
    lzc: Lzc,
}

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

impl Home {
    fn program(&self, text: &str, args: &[(&str, &str)], mode: ProgramMode) -> NvList {
        let mut list = NvList::new().unwrap();
        args.iter().for_each(|(name, value)| list.add_str(name, value).unwrap());
        let strangers = super::machine::STRANGERS.map(|leaf| format!("{}/{leaf}", self.scope));
        list.add_str_array("but", &strangers.each_ref().map(String::as_str)).unwrap();
        let limits = ProgramLimits::default();
        self.lzc.program(self.scope.pool(), text, limits, &list, mode).unwrap()
    }

    /// Paths at which datasets of the scope are mounted, those on top last, with the datasets.
    fn mounts(&self) -> Vec<(PathBuf, String)> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = table.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let (path, source) = (fields[4], fields[fields.len() - 2]);
            let below = source.strip_prefix(self.scope.as_str())?;
            below.starts_with('/').then(|| (PathBuf::from(path), source.to_owned()))
        });
        mounts.collect()
    }

    fn mounted_at(&self, path: &Path) -> Option<String> {
        self.mounts().into_iter().rev().find(|(at, _)| at == path).map(|(_, source)| source)
    }

    fn mount(&self, dataset: &str, path: &Path) {
        let mount =
            mount::detached(dataset, MountAttrFlags::MOUNT_ATTR_RELATIME, &Default::default())
                .unwrap();
        mount::make_mount_point(path).unwrap();
        mount::attach(&mount, path).unwrap();
    }

    fn unmount_all(&self) {
        for (path, _) in self.mounts().iter().rev() {
            mount::detach(path).unwrap();
        }
    }

    fn clear(&self) {
        self.unmount_all();
        let mounted = self.mounts().into_iter().next();
        assert!(mounted.is_none(), "{:?} is still mounted", mounted.map(|(path, _)| path));
        // The end of a mount takes its time.
        for wait in [0, 10, 50, 200, 1000] {
            std::thread::sleep(Duration::from_millis(wait));
            let out = self.program(CLEAR, &[("scope", self.scope.as_str())], ProgramMode::Sync);
            if matches!(out.get("return"), Ok(Value::I64(0))) {
                return;
            }
        }
        panic!("{} can't be cleared", self.scope);
    }

    /// What is in a dataset or snapshot, mounted or not.
    fn content(&self, name: &str) -> Content {
        use std::os::fd::AsRawFd;
        let mount =
            mount::detached(name, MountAttrFlags::MOUNT_ATTR_RDONLY, &Default::default()).unwrap();
        read(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())))
    }
}

/// Whether its content is seen at no target's mount point.
fn hidden(name: &str) -> bool {
    let stranger = |leaf: &&str| name.ends_with(*leaf);
    name.contains("-old-") && !super::machine::STRANGERS.iter().any(stranger)
        || name.ends_with("-away")
}

fn read(directory: &Path) -> Content {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), text.parse().unwrap())
    });
    files.collect()
}

impl Backend for Home {
    fn new() -> Self {
        let home = HOME.with_borrow(|home| home.clone().expect("the thread has a home"));
        home.clear();
        // Past the test's own output, which is not shown before its end.
        static BEGUN: AtomicU32 = AtomicU32::new(0);
        let begun = BEGUN.fetch_add(1, Ordering::Relaxed);
        if begun % 25 == 0 {
            let _ = writeln!(std::io::stderr(), "{begun} of {} sequences", sequences());
        }
        home
    }

    fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine) as Arc<dyn Engine>
    }

    fn scope(&self) -> &DatasetName {
        &self.scope
    }

    fn make(&self, name: &DatasetName, own: bool) {
        let (scope, other) = &self.paths;
        let path = if own { other.clone() } else { scope.join(name.leaf()) };
        let text = PropertyValue::Text(path.clone().into());
        let mountpoint = ("mountpoint".to_owned(), text);
        self.engine
            .create(name, if own { std::slice::from_ref(&mountpoint) } else { &[] })
            .unwrap();
        self.mount(name.as_str(), &path);
    }

    fn paths(&self) -> (String, String) {
        (self.paths.0.display().to_string(), self.paths.1.display().to_string())
    }

    fn at(&self, path: &Path, write: Option<(&str, u64)>) -> Option<u64> {
        let dataset = self.mounted_at(path)?;
        if let Some((file, value)) = write {
            test_write::write(path.join(file), value.to_string()).unwrap();
        }
        Some(self.engine.facts(&dataset).unwrap().unwrap().guid.0)
    }

    fn read(&self, path: &Path) -> Option<Content> {
        self.mounted_at(path).map(|_| read(path))
    }

    fn touch(&self, path: &Path) {
        self.read(path);
    }

    fn annotate(&self, name: &DatasetName, note: u64) {
        let note = note.to_string();
        self.program(NOTE, &[("name", name.as_str()), ("note", &note)], ProgramMode::Sync);
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) {
        let path =
            |name: &DatasetName| self.engine.facts(name.as_str()).unwrap().unwrap().mountpoint;
        let was = path(from);
        let mounted = self.mounted_at(&was).is_some_and(|source| source == from.as_str());
        self.engine.rename(from, to).unwrap();
        let now = path(to);
        if mounted && was != now {
            mount::detach(&was).unwrap();
            self.mount(to.as_str(), &now);
        }
    }

    fn boot(&self) {
        self.unmount_all();
        for (name, seen) in self.view(false).datasets {
            if let Some(path) = seen.claim {
                self.mount(&name, Path::new(&path));
            }
        }
    }

    fn view(&self, deep: bool) -> View {
        let out = self.program(LOOK, &[("scope", self.scope.as_str())], ProgramMode::NoSync);
        let mut datasets = BTreeMap::from([(self.scope.to_string(), Seen::default())]);
        for pair in out.list("return").unwrap().iter() {
            let (name, Value::List(seen)) = pair.unwrap() else { continue };
            let name = name.to_str().unwrap();
            let text = |key: &str| seen.str(key).unwrap().to_owned();
            let (canmount, zoned) = (text("canmount") == "on", text("zoned") == "on");
            let snapshots = text("snapshots");
            let snapshots = snapshots.split_whitespace().map(|leaf| {
                let content = deep && !leaf.starts_with("txn-");
                let content = content.then(|| self.content(&format!("{name}@{leaf}")));
                (leaf.to_owned(), content)
            });
            let seen = Seen {
                guid: u64::from_ne_bytes(seen.i64("guid").unwrap().to_ne_bytes()),
                claim: (canmount && !zoned).then(|| text("path")),
                mountpoint: Some(text("own")).filter(|own| !own.is_empty()),
                note: text("note").parse().unwrap(),
                gated: seen.i64("gated").unwrap() != 0 || !canmount || zoned,
                content: (deep && hidden(name)).then(|| self.content(name)),
                snapshots: snapshots.collect(),
            };
            datasets.insert(name.to_owned(), seen);
        }
        let private = self.mounts().into_iter().filter_map(|(path, _)| {
            let id = path.strip_prefix("/run/zfs-txn").ok()?;
            Some(id.display().to_string())
        });
        View { datasets, private_mounts: private.collect() }
    }
}

/// Sequences that run at the same time share transaction groups.
const THREADS: u32 = 6;

/// How many: by default what fits into a run of all tests under emulation.
fn sequences() -> u32 {
    std::env::var("ZFS_TXN_SEQUENCES").map_or(30, |number| number.parse().unwrap())
}

#[test]
fn sequences_agree_with_the_reference() {
    let pool = TestPool::new();
    let seed = seed();
    println!("seed: {seed} (again with ZFS_TXN_SEED={seed})");
    let home = |number: u32| {
        let scope: DatasetName = pool.dataset(&format!("scope-{number}")).parse().unwrap();
        let engine = Arc::new(Kernel::open().unwrap());
        let canmount_off = ("canmount".to_owned(), PropertyValue::Number(0));
        engine.create(&scope, &[canmount_off]).unwrap();
        let own = pool.directory().join(format!("own-{number}"));
        let paths = (pool.mountpoint().join(scope.leaf()), own);
        let home = Home { scope, paths, engine, lzc: Lzc::open().unwrap() };
        for stranger in super::machine::STRANGERS {
            let name = format!("{}/{stranger}", home.scope).parse().unwrap();
            home.engine.create(&name, &[]).unwrap();
        }
        home
    };
    std::thread::scope(|threads| {
        for number in 0..THREADS {
            let home = home(number);
            threads.spawn(move || {
                HOME.set(Some(home.clone()));
                run_with::<Home>(seed.wrapping_add(number.into()), sequences() / THREADS, 5..8, 40);
                home.clear();
            });
        }
    });
    figures(&format!("{} sequences agree with the reference, 0 differences", sequences()));
    pool.cleanup();
}
