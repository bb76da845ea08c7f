//! Random trees by each way that a change can go: what is published has the workspace's content and
//! attributes, for whoever looks anew, and for whoever has had files mapped or open.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zfs_txn::{OnConflict, Strategy};

use super::random::{Random, change, change_deeply, files, foreign_change, tree as random_tree};
use super::tree::{Tree, assert_same, tree};
use crate::memory::{Elsewhere, NoFlusher, map_once_of, remount};
use crate::pages::Deep;
use crate::support::{Scene, amount};
use crate::test_pool::figures;

const EIO: i32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Promote,
    Plain,
    /// The target was read, with access times.
    Rebased,
    /// Others have written to the target.
    Replacing,
}

const WAYS: [Way; 4] = [Way::Promote, Way::Plain, Way::Rebased, Way::Replacing];

/// Readers of a target that have files open, all of which were mapped once, by their inode numbers.
struct Readers(BTreeMap<u64, (File, Result<Vec<u8>, i32>)>);

fn content(mut file: &File) -> Result<Vec<u8>, i32> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    let read = file.read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| error.raw_os_error().unwrap())
}

/// Opens some of the files, and the ones at the long path.
fn open(random: &mut Random, root: &Path) -> Vec<File> {
    let some = files(root).into_iter().filter(|_| random.below(3) > 0);
    let mut open: Vec<File> = some.map(|path| File::open(path).unwrap()).collect();
    if root.join(format!("{:d<1$}", 0, super::random::LONG.1)).exists() {
        let deep = Deep::enter(root, super::random::LONG.0, super::random::LONG.1);
        open.extend(["one", "two"].map(|name| File::open(deep.path(name)).unwrap()));
    }
    open
}

impl Readers {
    fn new(files: Vec<File>) -> Self {
        let read = |file: File| {
            if file.metadata().unwrap().len() > 0 {
                map_once_of(&file);
            }
            let content = content(&file);
            (file.metadata().unwrap().ino(), (file, content))
        };
        Self(files.into_iter().map(read).collect())
    }

    /// After a promote they go on with what they have; in place they have what the same file is now, or
    /// an error where it is none any more.
    fn see(&self, what: &str, way: Way, now: &BTreeMap<u64, Vec<u8>>, deleted: &BTreeSet<u64>) {
        for (inode, (file, before)) in &self.0 {
            let found = content(file);
            let same = match (way, now.get(inode)) {
                (Way::Promote, _) => found == *before,
                // One that others had deleted is there again, for them or for others alone.
                (_, Some(_)) if deleted.contains(inode) && found == Err(EIO) => true,
                (_, Some(now)) => found.as_ref() == Ok(now),
                (_, None) => found == Err(EIO),
            };
            let old = found == *before;
            let lengths = [found.map(|bytes| bytes.len()).ok(), now.get(inode).map(Vec::len)];
            assert!(
                same,
                "{what}: a reader of inode {inode} sees something else; as before: {old}, length as \
                 seen and expected: {lengths:?}"
            );
        }
    }
}

/// One tree by one way; says how many files there were.
fn carried(scene: &Scene, seed: u64, way: Way) -> usize {
    let what = format!("ZFS_TXN_SEED={seed}, {way:?}");
    let mut random = Random::new(seed);
    let times: &[&str] = match way {
        Way::Rebased => &["-o", "atime=on", "-o", "relatime=off"],
        _ => &[],
    };
    let target = scene.dataset("t", &[&["-o", "xattr=sa"], times].concat());
    let path = scene.mounted_at(&target).unwrap();
    random_tree(&mut random, &path);
    let elsewhere = Elsewhere::mount(scene, &target);
    let readers = open(&mut random, &path);
    let readers = Readers::new(readers);
    let (strategy, on_conflict) = match way {
        Way::Promote => (Strategy::Promote, OnConflict::Fail),
        Way::Replacing => (Strategy::InPlace, OnConflict::Overwrite),
        _ => (Strategy::InPlace, OnConflict::Fail),
    };
    let builder = scene.zfs.transaction(&target).strategy(strategy).on_conflict(on_conflict);
    let transaction = builder.begin().unwrap();
    let root = transaction.path();
    let before = tree(&path);
    assert_same(&format!("{what}, the workspace at begin"), &before, &tree(root));

    // What becomes of each file that there is, whatever its name is afterwards.
    let mut ours: Vec<File> =
        files(root).into_iter().map(|path| File::open(path).unwrap()).collect();
    ours.extend(open(&mut Random::new(seed), root));
    for _ in 0..15 + random.below(25) {
        change(&mut random, root);
    }
    change_deeply(&mut random, root);
    rustix::fs::sync();
    let now: BTreeMap<u64, Vec<u8>> = ours
        .iter()
        .map(|file| (file, file.metadata().unwrap()))
        .filter(|(_, meta)| meta.nlink() > 0)
        .map(|(file, meta)| (meta.ino(), content(file).unwrap()))
        .collect();
    drop(ours);
    // As it is stored: a link, or an extended attribute, gives the inode in memory a change time that may
    // be a tick later (zpl_link, zpl_xattr_set_sa).
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let expected = tree(root);
    let mut deleted = BTreeSet::new();
    match way {
        Way::Promote | Way::Plain => {}
        Way::Rebased => {
            files(&path).first().map(|some| fs::read(some).unwrap());
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        }
        Way::Replacing => {
            // In another txg: files of one number and one generation are a conflict.
            scene.pool.sync();
            (0..5).for_each(|_| foreign_change(&mut random, &path));
            fs::write(path.join("foreign"), "foreign").unwrap();
            // Of what they have written as well.
            for (inode, (file, _)) in &readers.0 {
                let meta = file.metadata().unwrap();
                if meta.len() > 0 {
                    map_once_of(file);
                }
                if meta.nlink() == 0 {
                    deleted.insert(*inode);
                }
            }
        }
    }
    let receipt = transaction.commit().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(receipt.overridden.len(), usize::from(way == Way::Replacing), "{what}");
    readers.see(&what, way, &now, &deleted);
    // A file that is open keeps a name that it has no more: that is told, and nothing else may differ.
    let stale: Vec<PathBuf> = receipt.stale;
    let but_stale = |mut tree: Tree| {
        let below =
            |name: &[u8], stale: &Path| Path::new(OsStr::from_bytes(name)).starts_with(stale);
        tree.retain(|name, _| !stale.iter().any(|stale| below(name, stale)));
        tree
    };
    let now = but_stale(tree(&path));
    assert_same(&format!("{what}, as mounted"), &but_stale(expected.clone()), &now);
    let there = if way == Way::Promote { &before } else { &expected };
    let now = but_stale(tree(&elsewhere.file("")));
    assert_same(&format!("{what}, elsewhere"), &but_stale(there.clone()), &now);
    drop((readers, elsewhere));
    remount(scene, &target);
    assert_same(&format!("{what}, mounted anew"), &expected, &tree(&path));
    let swept = scene.zfs.sweep(&target).unwrap();
    assert_eq!(swept.unfinished.len(), usize::from(way == Way::Replacing), "{what}: {swept:?}");
    scene.pool.zfs(&["destroy", "-r", target.as_str()]);
    expected.len()
}

/// As many trees as are asked for, of seeds from one on: `ZFS_TXN_SEED`, `ZFS_TXN_TREES`.
#[test]
fn random_trees_are_carried_by_each_way() {
    let trees = amount("ZFS_TXN_TREES", 4);
    let first = amount("ZFS_TXN_SEED", 1) as u64;
    let _no_flusher = NoFlusher::new();
    let scene = Scene::new();
    let mut files = 0;
    for seed in first..first + trees as u64 {
        files += WAYS.map(|way| carried(&scene, seed, way)).iter().sum::<usize>();
        if seed % 20 == 0 {
            figures(&format!("random trees up to seed {seed}: {files} files so far"));
        }
    }
    figures(&format!("{trees} random trees by {} ways: {files} files, 0 differences", WAYS.len()));
    scene.end();
}
