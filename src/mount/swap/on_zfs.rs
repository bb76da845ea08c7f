//! Swaps that are interrupted, or in which somebody interferes, with real ZFS mounts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::linux;
use crate::mount::{detached, places};
use crate::test_pool::TestPool;

/// A mount of the dataset `old`, which a mount of `new` is to replace.
struct Scene {
    pool: TestPool,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let pool = TestPool::new();
        for name in ["old", "new"] {
            pool.zfs(&["create", &pool.dataset(name)]);
            fs::write(pool.mountpoint().join(name).join("file"), name).unwrap();
        }
        let path = pool.mountpoint().join("old");
        mount(&["-o", "remount,bind,ro", path.to_str().unwrap()]);
        Self { pool, path }
    }

    fn place(&self) -> Place {
        places(&table().unwrap(), &self.pool.dataset("old")).remove(0)
    }

    fn prepare(&self, place: Place) -> PreparedMount {
        prepare(&self.pool.dataset("new"), place, &Shared::default()).unwrap()
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path.join("file")).unwrap()
    }

    /// How many mounts lie upon one another at the path.
    fn layers(&self) -> usize {
        table().unwrap().iter().filter(|mount| mount.path == self.path).count()
    }
}

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}");
}

/// Puts a mount beneath the one at the path, the first half of a swap. Before Linux 6.5 there is no such half: the kernel
/// refuses and changes nothing, which is told by `false`.
fn is_put_beneath(mount: &OwnedFd, scene: &Scene) -> bool {
    let knows = !linux::is_before(6, 5);
    let result = put_beneath(mount, &scene.path);
    assert_eq!(result, if knows { Ok(()) } else { Err(Errno::INVAL) });
    let layers = if knows { 2 } else { 1 };
    assert_eq!((scene.read().as_str(), scene.layers()), ("old", layers));
    knows
}

#[test]
fn a_swap_that_was_interrupted_between_its_calls_is_taken_up() {
    let scene = Scene::new();
    let place = scene.place();
    // The options are looked at as well: it may have been prepared for another place.
    let other =
        detached(&scene.pool.dataset("new"), MountAttrFlags::empty(), &Shared::default()).unwrap();
    let half = is_put_beneath(&other, &scene);
    let prepared = scene.prepare(place.clone());
    match put(&prepared) {
        Ok(Attached::There { gap }) => assert_eq!(gap.is_none(), half),
        other => panic!("{other:?}"),
    }
    assert_eq!((scene.read().as_str(), scene.layers()), ("new", 1));
    let entry = table().unwrap().into_iter().find(|mount| mount.path == scene.path).unwrap();
    assert_eq!(entry.options, place.options);
    assert!(entry.options.contains(MountAttrFlags::MOUNT_ATTR_RDONLY));
    // Once more: the old mount is gone, the new one is there.
    assert_eq!(put(&prepared), Ok(Attached::There { gap: None }));
    assert_eq!(scene.layers(), 1);
    drop((other, prepared));
    scene.pool.cleanup();
}

#[test]
fn what_is_mounted_on_top_in_the_middle_of_a_swap_is_left_alone() {
    let scene = Scene::new();
    let prepared = scene.prepare(scene.place());
    let old = prepared.place.replaces.unwrap();
    if !is_put_beneath(&prepared.mount, &scene) {
        drop(prepared);
        return scene.pool.cleanup();
    }
    mount(&["-t", "tmpfs", "none", scene.path.to_str().unwrap()]);
    fs::write(scene.path.join("file"), "precious").unwrap();
    let fault = uncover(&scene.path, old).unwrap_err();
    assert_eq!(fault.errno, Errno::BUSY.into());
    assert!(fault.detail.unwrap().contains("beneath"));
    assert_eq!(put(&prepared).unwrap_err().errno, Errno::BUSY.into());
    assert_eq!((scene.read().as_str(), scene.layers()), ("precious", 3));
    detach(&scene.path).unwrap();
    assert_eq!(put(&prepared), Ok(Attached::There { gap: None }));
    assert_eq!((scene.read().as_str(), scene.layers()), ("new", 1));
    drop(prepared);
    scene.pool.cleanup();
}

#[test]
fn a_mount_that_somebody_took_away_is_not_put_back() {
    let scene = Scene::new();
    let prepared = scene.prepare(scene.place());
    detach(&scene.path).unwrap();
    assert_eq!(put(&prepared), Ok(Attached::Gone));
    assert_eq!(scene.layers(), 0);
    drop(prepared);
    scene.pool.cleanup();
}
