//! Files at paths that are longer than any path that the kernel takes: who goes there step by step, reads
//! them as well as others.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::{SIZE, assert_clean, begin, change, content};
use crate::memory::map_once_of;
use crate::support::Scene;

/// A directory that was entered step by step.
pub struct Deep(OwnedFd);

impl Deep {
    /// Enters a directory so many levels below `top`, with names of so many bytes; makes what isn't there.
    pub fn enter(top: &Path, levels: usize, length: usize) -> Self {
        let open = |at: &OwnedFd, name: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(at, name, flags, Mode::empty())
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = openat(CWD, top, flags, Mode::empty()).unwrap();
        for level in 0..levels {
            let name = PathBuf::from(format!("{level:d<length$}"));
            let next = open(&directory, &name).or_else(|_| {
                mkdirat(&directory, &name, Mode::RWXU)?;
                open(&directory, &name)
            });
            directory = next.unwrap();
        }
        Self(directory)
    }

    /// The path of something in it, for this process, as long as this value is there.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

fn read_as_new_at_a_path_of(levels: usize, length: usize) {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let root = scene.mounted_at(&target).unwrap();
    let deep = Deep::enter(&root, levels, length);
    for name in ["changed", "linked", "untouched"] {
        fs::write(deep.path(name), vec![b'o'; SIZE]).unwrap();
    }
    fs::hard_link(deep.path("linked"), deep.path("link")).unwrap();
    fs::remove_file(deep.path("link")).unwrap();
    scene.pool.sync();
    let mut held = ["changed", "linked"].map(|name| File::open(deep.path(name)).unwrap());
    held.iter().for_each(map_once_of);
    let transaction = begin(&scene, &target);
    let inside = Deep::enter(transaction.path(), levels, length);
    for name in ["changed", "linked"] {
        change(&inside.path(name));
    }
    fs::write(inside.path("new"), "new").unwrap();
    drop(inside);
    assert_clean(&transaction.commit().unwrap());
    let again = Deep::enter(&root, levels, length);
    for (name, file) in ["changed", "linked"].into_iter().zip(&mut held) {
        for found in [content(file), fs::read(again.path(name)).unwrap()] {
            assert!(found[SIZE - 3_000..] == [b'n'; 3_000] && found[0] == b'o', "{name} is old");
        }
    }
    assert_eq!(fs::read_to_string(again.path("new")).unwrap(), "new");
    assert!(fs::read(again.path("untouched")).unwrap() == vec![b'o'; SIZE]);
    drop((held, deep, again));
    scene.end();
}

#[test]
fn a_file_at_a_path_of_5000_bytes_is_read_as_new() {
    read_as_new_at_a_path_of(40, 125);
}

#[test]
fn a_file_at_a_path_of_10000_bytes_is_read_as_new() {
    read_as_new_at_a_path_of(45, 230);
}
