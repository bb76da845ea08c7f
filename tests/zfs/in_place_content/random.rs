//! Random trees: what is made and changed in them, the same for the same seed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, lremovexattr, lsetxattr};

use super::edits::bytes;
use crate::memory::{make, store};
use crate::pages::Deep;

const RECORD: u64 = 131_072;
/// Directories that are longer than any path that the kernel takes, by their number and the length of
/// their names.
pub const LONG: (usize, usize) = (45, 225);
/// The name of the first of them: what is below is not found by its path.
const LONG_NAME: &str = "0ddd";

/// A generator of numbers that are the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds have little in common, and none is zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.below(all.len())]) }
    }

    fn name(&mut self) -> String {
        let names = ["", " \t\n\\", "\u{fc}\u{1f980}", "longer than others, and with a number: "];
        format!("{}{}", names[self.below(names.len())], self.below(1_000_000))
    }

    /// About a record, several of them, or a few bytes.
    fn size(&mut self) -> u64 {
        let limit = [200, 5_000, 140_000, 500_000][self.below(4)];
        self.below(limit) as u64
    }

    fn content(&mut self, count: usize) -> Vec<u8> {
        bytes(self.below(1_000), count)
    }
}

/// What is below a directory but for the long directories, in order.
fn walk(root: &Path, directories: bool) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let long = entry.file_name().as_encoded_bytes().starts_with(LONG_NAME.as_bytes());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !long {
                pending.push(entry.path());
            }
            if !long && if directories { kind.is_dir() } else { kind.is_file() } {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The regular files, in order.
pub fn files(root: &Path) -> Vec<PathBuf> {
    walk(root, false)
}

/// A name that is not taken, in one of the directories.
fn new_name(random: &mut Random, root: &Path) -> PathBuf {
    let mut directories = walk(root, true);
    directories.push(root.to_owned());
    let directory = directories[random.below(directories.len())].clone();
    loop {
        let path = directory.join(random.name());
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Makes a file somewhere.
fn created(random: &mut Random, root: &Path) {
    let path = new_name(random, root);
    create(random, &path);
}

fn create(random: &mut Random, path: &Path) {
    let size = random.size();
    if random.below(3) > 0 || size == 0 {
        let content = random.content(size as usize);
        return fs::write(path, content).unwrap();
    }
    // As a linker does: all by stores, some of it never.
    make(path, size);
    for _ in 0..=random.below(3) {
        stored(random, path, size);
    }
}

fn stored(random: &mut Random, path: &Path, size: u64) {
    let offset = random.below(size as usize);
    let count = (1 + random.below(9_000)).min(size as usize - offset);
    let content = random.content(count);
    store(path, offset, &content);
}

fn written(random: &mut Random, path: &Path, limit: u64) {
    let offset = random.below(limit.max(1) as usize) as u64;
    let count = 1 + random.below(9_000);
    let content = random.content(count.min((limit - offset.min(limit)) as usize));
    open(path).write_all_at(&content, offset).unwrap();
}

/// A tree of directories, files that were written or stored, links of which some are removed again, and
/// perhaps files at a path of ten kilobytes.
pub fn tree(random: &mut Random, root: &Path) {
    for _ in 0..3 + random.below(5) {
        fs::create_dir(new_name(random, root)).unwrap();
    }
    for _ in 0..8 + random.below(12) {
        created(random, root);
    }
    for _ in 0..random.below(8) {
        linked(random, root);
    }
    for path in files(root) {
        match random.below(8) {
            0 => attribute(random, &path),
            1 => fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap(),
            // By then it was known by one name, and has another.
            2 => {
                let link = new_name(random, root);
                fs::hard_link(&path, &link).unwrap();
                fs::remove_file([path, link][random.below(2)].as_path()).unwrap();
            }
            _ => {}
        }
    }
    for _ in 0..random.below(3) {
        renamed_directory(random, root);
    }
    if random.below(3) == 0 {
        let deep = Deep::enter(root, LONG.0, LONG.1);
        for name in ["one", "two"] {
            create(random, &deep.path(name));
        }
        fs::hard_link(deep.path("one"), deep.path("link")).unwrap();
        fs::remove_file(deep.path("link")).unwrap();
    }
}

fn linked(random: &mut Random, root: &Path) {
    let all = files(root);
    let Some(path) = random.of(&all) else { return };
    fs::hard_link(path, new_name(random, root)).unwrap();
}

fn attribute(random: &mut Random, path: &Path) {
    let name = ["user.one", "user.two", "trusted.three"][random.below(3)];
    let count = [3, 300, 20_000][random.below(3)];
    let value = random.content(count);
    lsetxattr(path, name, &value, XattrFlags::empty()).unwrap();
}

fn renamed_directory(random: &mut Random, root: &Path) {
    let all = walk(root, true);
    let Some(from) = random.of(&all) else { return };
    let to = new_name(random, root);
    if !to.starts_with(from) {
        fs::rename(from, to).unwrap();
    }
}

/// One change of a tree, by the owner of the transaction.
pub fn change(random: &mut Random, root: &Path) {
    let all = files(root);
    let Some(path) = random.of(&all) else { return created(random, root) };
    let size = fs::metadata(path).unwrap().len();
    match random.below(20) {
        0..3 => written(random, path, size + 50_000),
        3..6 if size > 0 => stored(random, path, size),
        6 => open(path).set_len(size / RECORD * RECORD).unwrap(),
        7 => open(path).set_len(size + random.size()).unwrap(),
        8 => {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (offset, count) = (random.size(), 1 + random.size());
            fallocate(open(path), punch, offset, count).unwrap();
        }
        9 => fs::rename(path, new_name(random, root)).unwrap(),
        10 => linked(random, root),
        11 => fs::remove_file(path).unwrap(),
        12 => {
            let new = new_name(random, root);
            create(random, &new);
            fs::rename(new, path).unwrap();
        }
        13 => attribute(random, path),
        14 => drop(lremovexattr(path, "user.one")),
        15 => {
            let mode = [0o600, 0o755, 0o4711][random.below(3)];
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        16 => chown(path, Some(random.below(70_000) as u32), None).unwrap(),
        17 => renamed_directory(random, root),
        18 => match random.below(4) {
            0 => fs::create_dir(new_name(random, root)).unwrap(),
            1 => symlink(path.file_name().unwrap(), new_name(random, root)).unwrap(),
            _ => {
                let all = walk(root, true);
                let empty = |path: &&PathBuf| fs::read_dir(path).unwrap().next().is_none();
                all.iter().filter(empty).for_each(|path| fs::remove_dir(path).unwrap());
            }
        },
        _ => created(random, root),
    }
}

/// Changes the files at the long path, if there are any.
pub fn change_deeply(random: &mut Random, root: &Path) {
    let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
    let long = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(LONG_NAME.as_bytes());
    if !entries.into_iter().any(|entry| long(&entry.file_name())) {
        return;
    }
    let deep = Deep::enter(root, LONG.0, LONG.1);
    written(random, &deep.path("one"), 60_000);
    create(random, &deep.path("new"));
}

/// One change of a tree by somebody else. Nothing gets larger: the file could not be made small again.
pub fn foreign_change(random: &mut Random, root: &Path) {
    let all = files(root);
    let Some(path) = random.of(&all) else { return };
    let size = fs::metadata(path).unwrap().len();
    match random.below(8) {
        0..2 if size > 0 => stored(random, path, size),
        2..4 if size > 0 => written(random, path, size),
        4 => fs::remove_file(path).unwrap(),
        5 => attribute(random, path),
        6 => fs::rename(path, new_name(random, root)).unwrap(),
        _ => fs::write(new_name(random, root), "theirs").unwrap(),
    }
}
