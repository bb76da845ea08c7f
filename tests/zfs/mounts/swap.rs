//! How the new mount takes the old one's place: without a gap, or with one that is told; and what
//! the place keeps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use zfs_txn::{CommitError, Conflict};

use super::{mount, unmount};
use crate::support::{Identity, Scene, State, mount_lines, mounts_of};
use crate::test_pool::figures;

/// What looks at a mount point in a loop have come to.
#[derive(Debug, Default)]
struct Looks {
    number: u64,
    errors: Vec<String>,
    /// How often a look failed after one that did not.
    gaps: u64,
    /// Since when every look has failed.
    failing: Option<Instant>,
    longest_gap: Duration,
    longest: Duration,
}

impl Looks {
    fn look(&mut self, path: &Path) {
        let start = Instant::now();
        let results = [
            fs::metadata(path).map(drop),
            fs::read_dir(path).and_then(|entries| match entries.count() {
                1 => Ok(()),
                other => Err(io::Error::other(format!("{other} entries"))),
            }),
            fs::read(path.join("file")).map(|content| assert!(!content.is_empty())),
        ];
        self.longest = self.longest.max(start.elapsed());
        self.number += 1;
        self.failing = match results.iter().any(Result::is_err) {
            true => {
                self.gaps += u64::from(self.failing.is_none());
                self.failing.or(Some(start))
            }
            false => None,
        };
        if let Some(since) = self.failing {
            self.longest_gap = self.longest_gap.max(since.elapsed());
        }
        self.errors.extend(results.into_iter().filter_map(Result::err).map(|e| e.to_string()));
    }
}

#[test]
fn no_lookup_of_a_mount_point_fails_while_commits_go_on() {
    const COMMITS: u64 = 6;
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let looks = thread::scope(|scope| {
        // Its end is dropped also where a commit panics.
        let (end, ended) = mpsc::channel::<()>();
        let reader = scope.spawn(|| {
            let ended = ended;
            let mut looks = Looks::default();
            while ended.try_recv() == Err(TryRecvError::Empty) {
                looks.look(&path);
            }
            looks
        });
        for number in 0..COMMITS {
            let receipt = scene.publish(&target, &format!("generation {number}"));
            assert_eq!(receipt.gap.is_none(), scene.swaps_without_a_gap(), "{receipt:?}");
            assert_eq!(receipt.mounted, std::slice::from_ref(&path));
        }
        drop(end);
        reader.join().unwrap()
    });
    println!("{} looks, the longest took {:?}", looks.number, looks.longest);
    assert!(looks.number > 10, "{looks:?}");
    // Before Linux 6.5 the mount point is bare for a moment, once in each commit: looks that meet the moment, however
    // many, find an empty directory.
    let most = if scene.swaps_without_a_gap() { 0 } else { COMMITS };
    assert!(looks.gaps <= most && looks.failing.is_none(), "{looks:?}");
    // By the clock of somebody who may not be running at that moment.
    assert!(looks.longest_gap < Duration::from_secs(1), "{looks:?}");
    scene.end();
}

/// From here on, the kernel answers this thread as one does that can't put a mount beneath another.
fn forbid_mounts_beneath() {
    const MOVE_MOUNT: i64 = 429;
    const BENEATH: u64 = 0x200;
    const EINVAL: u32 = 22;
    let beneath = SeccompCmpOp::MaskedEq(BENEATH);
    let beneath = SeccompCondition::new(4, SeccompCmpArgLen::Dword, beneath, BENEATH);
    let rule = SeccompRule::new(vec![beneath.unwrap()]).unwrap();
    let filter = SeccompFilter::new(
        BTreeMap::from([(MOVE_MOUNT, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(EINVAL),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn where_the_kernel_can_put_no_mount_beneath_the_gap_is_told() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let paths = shared_parents(&scene);
    mount(&["-t", "zfs", target.as_str(), text(&paths[0])]);
    let before = (State::of(&scene, Identity::Replaced), relations(&paths));
    let receipt = thread::scope(|scope| {
        let old_kernel = scope.spawn(|| {
            forbid_mounts_beneath();
            scene.publish(&target, "x")
        });
        old_kernel.join().unwrap()
    });
    let gap = receipt.gap.unwrap();
    println!("the mount point was bare for {gap:?}");
    assert!(gap > Duration::ZERO && gap < Duration::from_secs(10));
    let transaction = scene.begin(&target);
    fs::remove_file(transaction.path().join("file")).unwrap();
    let receipt = transaction.commit().unwrap();
    assert_eq!((receipt.gap.is_none(), receipt.leftovers), (scene.swaps_without_a_gap(), vec![]));
    before.0.assert_same(&State::of(&scene, Identity::Replaced));
    assert_eq!(before.1, relations(&paths));
    end_shared_parents(&scene, &paths);
    scene.end();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Three directories `t`, below a shared mount, a peer of it and a slave of it.
fn shared_parents(scene: &Scene) -> Vec<PathBuf> {
    let parents = ["shared", "peer", "slave"].map(|name| scene.pool.directory().join(name));
    for parent in &parents {
        fs::create_dir(parent).unwrap();
    }
    let [shared, peer, slave] = &parents;
    mount(&["-t", "tmpfs", "-o", "mode=755", "none", text(shared)]);
    mount(&["--make-private", text(shared)]);
    mount(&["--make-shared", text(shared)]);
    fs::create_dir(shared.join("t")).unwrap();
    mount(&["--bind", text(shared), text(peer)]);
    mount(&["--bind", text(shared), text(slave)]);
    mount(&["--make-slave", text(slave)]);
    parents.iter().map(|parent| parent.join("t")).collect()
}

fn end_shared_parents(scene: &Scene, paths: &[PathBuf]) {
    // What is mounted at one goes from all.
    unmount(&paths[0]);
    for parent in ["slave", "peer", "shared"] {
        unmount(&scene.pool.directory().join(parent));
    }
}

/// The optional fields of the mounts at some paths, with the groups numbered as they appear.
fn relations(paths: &[PathBuf]) -> Vec<String> {
    let mut groups = Vec::new();
    let lines = mount_lines();
    let at = |path: &PathBuf| lines.iter().rfind(|fields| fields[4] == text(path));
    let mut number = |field: &String| match field.split_once(':') {
        None => field.clone(),
        Some((kind, group)) => {
            let known = groups.iter().position(|known| known == group);
            let number = known.unwrap_or_else(|| {
                groups.push(group.to_owned());
                groups.len() - 1
            });
            format!("{kind}:{number}")
        }
    };
    let fields = |path| at(path).unwrap()[6..].iter().take_while(|field| *field != "-");
    paths.iter().map(|path| fields(path).map(&mut number).collect::<Vec<_>>().join(" ")).collect()
}

/// As below systemd's shared root directory: a mount is made and ended in the parent's peers and
/// slaves as well.
#[test]
fn below_a_shared_mount_the_peers_are_swapped_along_and_each_keeps_its_options() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let paths = shared_parents(&scene);
    mount(&["-t", "zfs", "-o", "nosuid", target.as_str(), text(&paths[0])]);
    mount(&["-o", "remount,bind,ro", text(&paths[1])]);
    mount(&["-o", "remount,bind,noexec,noatime", text(&paths[2])]);
    assert_eq!(relations(&paths), ["shared:0", "shared:0", "master:0"]);
    let before = State::of(&scene, Identity::Replaced);
    let mut receipt = scene.publish(&target, "x");
    receipt.mounted.sort();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!((receipt.gap.is_none(), receipt.mounted), (scene.swaps_without_a_gap(), sorted));
    for path in &paths {
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "x");
    }
    assert_eq!(mounts_of(target.as_str()).len(), 3, "one upon another");
    assert_eq!(relations(&paths), ["shared:0", "shared:0", "master:0"]);
    // A mount that was made private there stays so, although its parent is shared.
    mount(&["--make-private", text(&paths[0])]);
    let transaction = scene.begin(&target);
    fs::remove_file(transaction.path().join("file")).unwrap();
    assert_eq!(transaction.commit().unwrap().leftovers, []);
    assert_eq!(relations(&paths), ["", "shared:0", "master:0"]);
    before.assert_same(&State::of(&scene, Identity::Replaced));
    end_shared_parents(&scene, &paths);
    scene.end();
}

#[test]
fn peers_slaves_and_unbindable_mounts_of_the_target_stay_what_they_are() {
    let scene = Scene::new();
    let target = scene.dataset("t", &["-o", "mountpoint=legacy"]);
    let names = ["slave", "unbindable", "shared", "peer", "shared-slave", "its-peer"];
    let paths = names.map(|name| scene.pool.directory().join(name)).to_vec();
    for path in &paths {
        fs::create_dir(path).unwrap();
    }
    let [slave, unbindable, shared, peer, shared_slave, its_peer] = &paths[..] else { panic!() };
    mount(&["-t", "zfs", target.as_str(), text(unbindable)]);
    mount(&["--bind", text(unbindable), text(shared)]);
    mount(&["--make-unbindable", text(unbindable)]);
    mount(&["--make-shared", text(shared)]);
    for (path, change) in [(peer, "shared"), (slave, "slave"), (shared_slave, "slave")] {
        mount(&["--bind", text(shared), text(path)]);
        mount(&[&format!("--make-{change}"), text(path)]);
    }
    mount(&["--make-shared", text(shared_slave)]);
    mount(&["--bind", text(shared_slave), text(its_peer)]);
    let before = relations(&paths);
    let both = "shared:1 master:0";
    assert_eq!(before, ["master:0", "unbindable", "shared:0", "shared:0", both, both]);
    for content in ["x", "y"] {
        let receipt = scene.publish(&target, content);
        let told = (receipt.gap.is_none(), receipt.mounted.len());
        assert_eq!(told, (scene.swaps_without_a_gap(), paths.len()));
        assert_eq!(relations(&paths), before);
    }
    for path in &paths {
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "y");
        unmount(path);
    }
    scene.end();
}

#[test]
fn an_idmapped_mount_is_refused_before_anything_is_changed() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let (path, mapped) =
        (scene.mounted_at(&target).unwrap(), scene.pool.directory().join("mapped"));
    fs::create_dir(&mapped).unwrap();
    mount(&["--bind", "-o", "X-mount.idmap=b:0:1000:10", text(&path), text(&mapped)]);
    let of_target = |line: &&Vec<String>| line.iter().any(|word| word == target.as_str());
    let mut words = mount_lines().into_iter().filter(|line| of_target(&line)).flatten();
    if !words.any(|word| word.contains("idmapped")) {
        // mount(8) before util-linux 2.39 passes over the option, and there is nothing to be refused.
        figures("not tried: mount(8) makes no idmapped mount here");
        unmount(&mapped);
        return scene.end();
    }
    let before = State::of(&scene, Identity::Kept);
    let transaction = scene.begin(&target);
    fs::write(transaction.path().join("file"), "x").unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    let option = "idmapped".to_owned();
    assert_eq!(conflict, Conflict::MountOption { path: text(&mapped).to_owned(), option });
    transaction.rollback().unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    unmount(&mapped);
    scene.publish(&target, "x");
    assert_eq!(scene.read(&target), "x");
    scene.end();
}
