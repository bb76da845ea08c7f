//! All that can be seen of a directory tree, inode numbers and holes included.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, lgetxattr, llistxattr, seek};

/// What is seen of each file, and its content, by its path below the top.
pub type Tree = BTreeMap<Vec<u8>, (String, Vec<u8>)>;

/// Of a larger file only its data is read, and not its holes.
const LARGE: u64 = 64 << 20;

pub fn tree(top: &Path) -> Tree {
    let mut tree = Tree::new();
    look(top, &[], &mut tree);
    tree
}

/// Panics with each difference by name.
pub fn assert_same(what: &str, expected: &Tree, found: &Tree) {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(|name| {
            let shown = String::from_utf8_lossy(name);
            let (expected, found) = (expected.get(name), found.get(name));
            let same = expected.map(|file| &file.1) == found.map(|file| &file.1);
            let seen = [expected, found].map(|file| file.map(|file| &file.0));
            format!("{shown}: same content: {same}\n  {:?}\n  {:?}", seen[0], seen[1])
        })
        .collect();
    assert!(differences.is_empty(), "{what}: the trees differ:\n{}", differences.join("\n"));
}

/// `key` is the path below the top; `path` leads there by the descriptor of the directory above, as the
/// whole of it may be longer than the kernel takes.
fn look(path: &Path, key: &[u8], tree: &mut Tree) {
    let meta = fs::symlink_metadata(path).unwrap();
    let mut seen = format!(
        "inode {} mode {:o} owner {}:{} links {} device {} size {} modified {}.{} changed {}.{}",
        meta.ino(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.rdev(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    if meta.is_symlink() {
        seen += &format!(" -> {:?}", fs::read_link(path).unwrap());
    }
    let mut content = Vec::new();
    if meta.is_file() {
        let data = data(path, meta.size());
        seen += &format!(" data {data:?}");
        content = read(path, meta.size(), &data);
    }
    for (name, value) in attributes(path) {
        seen += &format!(" {name} of {} bytes", value.len());
        content.extend(value);
    }
    tree.insert(key.to_vec(), (seen, content));
    if meta.is_dir() {
        let directory = File::open(path).unwrap();
        let entered = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        for entry in fs::read_dir(&entered).unwrap() {
            let name = entry.unwrap().file_name();
            let separator: &[u8] = if key.is_empty() { b"" } else { b"/" };
            look(&entered.join(&name), &[key, separator, name.as_bytes()].concat(), tree);
        }
    }
}

fn read(path: &Path, size: u64, data: &[(u64, u64)]) -> Vec<u8> {
    if size <= LARGE {
        return fs::read(path).unwrap();
    }
    let file = File::open(path).unwrap();
    let mut content = Vec::new();
    for (begin, end) in data {
        let mut piece = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut piece, *begin).unwrap();
        content.append(&mut piece);
    }
    content
}

/// Where a file has data, and no holes.
fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < size {
        let Ok(begin) = seek(&file, SeekFrom::Data(at)) else { break };
        let end = seek(&file, SeekFrom::Hole(begin)).unwrap();
        found.push((begin, end));
        at = end;
    }
    found
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let count = llistxattr(path, &mut names).unwrap();
    let names = names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 17];
            let count = lgetxattr(path, name, &mut value).unwrap();
            value.truncate(count);
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .collect()
}
