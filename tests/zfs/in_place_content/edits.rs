//! What is done to a tree: what is there before a transaction, and what the transaction changes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, ioctl_ficlone,
    lremovexattr, lsetxattr, makedev, mknodat,
};

/// One thing to carry, in a directory of its own.
pub struct Edit {
    pub name: &'static str,
    pub prepare: fn(&Path),
    pub change: fn(&Path),
}

pub const EDITS: &[Edit] = &[
    Edit { name: "sizes", prepare: sizes, change: other_sizes },
    Edit { name: "holes", prepare: holes, change: other_holes },
    Edit { name: "links", prepare: links, change: other_links },
    Edit { name: "names", prepare: names, change: other_names },
    Edit { name: "kinds", prepare: kinds, change: other_kinds },
    Edit { name: "modes", prepare: modes, change: other_modes },
    Edit { name: "attributes", prepare: attributes, change: other_attributes },
    Edit { name: "lists", prepare: lists, change: other_lists },
    Edit { name: "clones", prepare: clones, change: other_clones },
    Edit { name: "many", prepare: many, change: other_many },
    Edit { name: "deep", prepare: deep, change: other_deep },
    Edit { name: "projects", prepare: projects, change: other_projects },
    Edit { name: "deleted", prepare: deleted, change: deleted_while_open },
];

/// Bytes that compression makes fewer, but not few, and that are at no other place.
pub fn bytes(seed: usize, count: usize) -> Vec<u8> {
    const PIECE: usize = 4096;
    let piece: Vec<u8> = (0..PIECE).map(|n| ((n * 31 + seed * 7) ^ (n >> 5)) as u8).collect();
    let mut bytes = piece.repeat(count.div_ceil(PIECE));
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
        piece[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Tiny ones are embedded in a block pointer; the others are about one record, of any size in use.
const SIZES: [usize; 15] = [
    0, 1, 111, 112, 113, 512, 4_097, 16_383, 16_384, 16_385, 131_071, 131_072, 131_073, 1_048_576,
    1_048_577,
];

fn sizes(at: &Path) {
    for size in SIZES {
        fs::write(at.join(format!("grows-{size}")), bytes(1, size)).unwrap();
        fs::write(at.join(format!("shrinks-{size}")), bytes(2, size)).unwrap();
        fs::write(at.join(format!("patched-{size}")), bytes(3, size)).unwrap();
        fs::write(at.join(format!("same-{size}")), bytes(4, size)).unwrap();
    }
}

fn other_sizes(at: &Path) {
    let open = |name: &str, size: usize| {
        File::options().write(true).open(at.join(format!("{name}-{size}"))).unwrap()
    };
    for size in SIZES {
        open("grows", size).write_all_at(&bytes(5, 2), size as u64).unwrap();
        open("shrinks", size).set_len(size.saturating_sub(1) as u64 / 2).unwrap();
        open("patched", size).write_all_at(b"patch", size as u64 / 2).unwrap();
        fs::write(at.join(format!("new-{size}")), bytes(6, size)).unwrap();
    }
}

fn holes(at: &Path) {
    for name in ["filled", "punched", "longer"] {
        let mut file = File::create(at.join(name)).unwrap();
        file.write_all(&bytes(7, 300_000)).unwrap();
        file.seek(SeekFrom::Start(5_000_000)).unwrap();
        file.write_all(&bytes(8, 300_000)).unwrap();
        file.set_len(12_000_000).unwrap();
    }
}

fn other_holes(at: &Path) {
    let open = |name: &str| File::options().write(true).open(at.join(name)).unwrap();
    open("filled").write_all_at(&bytes(9, 2_000_000), 2_000_000).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(open("punched"), punch, 100_000, 5_000_000).unwrap();
    open("longer").set_len(20_000_000).unwrap();
    let new = File::create(at.join("new")).unwrap();
    new.set_len(1 << 33).unwrap();
    new.write_all_at(b"far away", (1 << 33) - 8).unwrap();
}

fn links(at: &Path) {
    fs::write(at.join("a"), "a").unwrap();
    fs::create_dir(at.join("directory")).unwrap();
    for name in ["b", "c", "directory/d"] {
        fs::hard_link(at.join("a"), at.join(name)).unwrap();
    }
}

fn other_links(at: &Path) {
    fs::remove_file(at.join("b")).unwrap();
    fs::rename(at.join("c"), at.join("directory/moved")).unwrap();
    fs::hard_link(at.join("a"), at.join("e")).unwrap();
    fs::remove_file(at.join("directory/d")).unwrap();
    fs::write(at.join("directory/d"), "no link any more").unwrap();
    (0..100).for_each(|n| fs::hard_link(at.join("a"), at.join(format!("many-{n}"))).unwrap());
}

/// The longest that there are, and bytes that are no text.
fn odd_names(at: &Path) -> Vec<PathBuf> {
    let odd = (1..=255_u8).filter(|byte| *byte != b'/').collect();
    [vec![b'x'; 255], odd, b" \n\t\\ ".to_vec(), "\u{fc}\u{1f980}".as_bytes().to_vec()]
        .map(|name| at.join(OsString::from_vec(name)))
        .to_vec()
}

fn names(at: &Path) {
    odd_names(at).iter().for_each(|name| fs::write(name, "content").unwrap());
    fs::create_dir(at.join("one")).unwrap();
    fs::create_dir(at.join("two")).unwrap();
    fs::write(at.join("one/file"), "one").unwrap();
    fs::write(at.join("two/file"), "two").unwrap();
}

fn other_names(at: &Path) {
    let odd = odd_names(at);
    fs::rename(&odd[0], at.join("short")).unwrap();
    fs::write(&odd[1], "changed").unwrap();
    fs::remove_file(&odd[2]).unwrap();
    fs::create_dir(&odd[2]).unwrap();
    // Two directories change places, and one goes into the other.
    fs::rename(at.join("one"), at.join("three")).unwrap();
    fs::rename(at.join("two"), at.join("one")).unwrap();
    fs::rename(at.join("three"), at.join("two")).unwrap();
    fs::rename(at.join("one"), at.join("two/one")).unwrap();
}

fn node(at: &Path, name: &str, kind: FileType, device: u64) {
    mknodat(CWD, at.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
}

fn kinds(at: &Path) {
    symlink("target", at.join("short")).unwrap();
    symlink("t".repeat(4000), at.join("long")).unwrap();
    node(at, "pipe", FileType::Fifo, 0);
    node(at, "device", FileType::CharacterDevice, makedev(1, 3));
    fs::write(at.join("file"), "a file").unwrap();
    fs::create_dir(at.join("directory")).unwrap();
}

fn other_kinds(at: &Path) {
    for name in ["short", "long", "pipe", "device", "file"] {
        fs::remove_file(at.join(name)).unwrap();
    }
    fs::remove_dir(at.join("directory")).unwrap();
    node(at, "short", FileType::BlockDevice, makedev(7, 300));
    node(at, "long", FileType::Socket, 0);
    fs::create_dir(at.join("pipe")).unwrap();
    fs::write(at.join("device"), "now a file").unwrap();
    symlink("x".repeat(200), at.join("file")).unwrap();
    fs::write(at.join("directory"), "was a directory").unwrap();
}

fn modes(at: &Path) {
    for name in ["set-id", "owner", "times"] {
        fs::write(at.join(name), name).unwrap();
    }
}

fn other_modes(at: &Path) {
    std::os::unix::fs::chown(at.join("owner"), Some(4_000_000_000), Some(70_000)).unwrap();
    fs::set_permissions(at.join("set-id"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o1777)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let file = File::options().write(true).open(at.join("times")).unwrap();
    file.set_modified(time).unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn attributes(at: &Path) {
    for name in ["changed", "grown", "removed"] {
        fs::write(at.join(name), name).unwrap();
        set(&at.join(name), "user.small", b"small");
        set(&at.join(name), "trusted.second", &bytes(10, 300));
    }
}

fn other_attributes(at: &Path) {
    set(&at.join("changed"), "user.small", b"SMALL");
    // More than a spill block has room for.
    set(&at.join("grown"), "user.large", &bytes(11, 60_000));
    (0..40).for_each(|n| set(&at.join("grown"), &format!("user.many-{n}"), &bytes(n, 500)));
    lremovexattr(at.join("removed"), "user.small").unwrap();
    lremovexattr(at.join("removed"), "trusted.second").unwrap();
    symlink("nowhere", at.join("link")).unwrap();
    set(&at.join("link"), "trusted.of-link", b"value");
    fs::create_dir(at.join("directory")).unwrap();
    set(&at.join("directory"), "user.of-directory", &bytes(12, 9_000));
}

/// As `system.posix_acl_access` has it: version 2, then tag, permissions and id of each entry.
fn list(user: u32, permissions: u16) -> Vec<u8> {
    let entries = [
        (1, 7, u32::MAX),
        (2, permissions, user),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec(), entries.into_iter().flat_map(entry).collect()].concat()
}

fn lists(at: &Path) {
    for name in ["changed", "removed"] {
        fs::write(at.join(name), name).unwrap();
        set(&at.join(name), "system.posix_acl_access", &list(1234, 6));
    }
}

fn other_lists(at: &Path) {
    set(&at.join("changed"), "system.posix_acl_access", &list(5678, 4));
    lremovexattr(at.join("removed"), "system.posix_acl_access").unwrap();
    fs::create_dir(at.join("inherited")).unwrap();
    set(&at.join("inherited"), "system.posix_acl_default", &list(1234, 5));
    fs::write(at.join("inherited/file"), "has the list of its directory").unwrap();
}

fn clones(at: &Path) {
    fs::write(at.join("source"), bytes(13, 3_000_000)).unwrap();
    fs::write(at.join("over"), bytes(14, 1_000_000)).unwrap();
}

/// Files that share blocks.
fn other_clones(at: &Path) {
    let source = File::open(at.join("source")).unwrap();
    for name in ["clone", "clone-changed", "over"] {
        let clone = File::create(at.join(name)).unwrap();
        ioctl_ficlone(&clone, &source).unwrap();
    }
    let changed = File::options().write(true).open(at.join("clone-changed")).unwrap();
    changed.write_all_at(b"changed", 1_500_000).unwrap();
}

fn many(at: &Path) {
    for n in 0..600 {
        fs::write(at.join(format!("file-{n}")), bytes(n, n)).unwrap();
    }
}

fn other_many(at: &Path) {
    for n in 0..600 {
        let name = at.join(format!("file-{n}"));
        match n % 4 {
            0 => fs::remove_file(name).unwrap(),
            1 => fs::rename(name, at.join(format!("renamed-{n}"))).unwrap(),
            2 => fs::write(at.join(format!("new-{n}")), bytes(n + 1, 4 * n)).unwrap(),
            _ => {}
        }
    }
}

fn deep_path(at: &Path) -> PathBuf {
    (0..100).fold(at.to_owned(), |path, n| path.join(format!("level-{n}")))
}

fn deep(at: &Path) {
    fs::create_dir_all(deep_path(at)).unwrap();
    fs::write(deep_path(at).join("file"), "deep").unwrap();
}

fn other_deep(at: &Path) {
    fs::write(deep_path(at).join("file"), "deeply changed").unwrap();
    fs::rename(at.join("level-0/level-1"), at.join("was-level-1")).unwrap();
}

fn project(options: &[&str], at: &Path) {
    let status = Command::new("zfs").arg("project").args(options).arg(at).status();
    assert!(status.unwrap().success());
}

fn projects(at: &Path) {
    for name in ["changed", "cleared"] {
        fs::create_dir(at.join(name)).unwrap();
        project(&["-s", "-p", "42"], &at.join(name));
        fs::write(at.join(name).join("file"), name).unwrap();
    }
}

fn other_projects(at: &Path) {
    project(&["-r", "-s", "-p", "4242"], &at.join("changed"));
    project(&["-r", "-C"], &at.join("cleared"));
    fs::write(at.join("changed/new"), "inherits").unwrap();
}

fn deleted(at: &Path) {
    fs::write(at.join("file"), bytes(15, 400_000)).unwrap();
}

fn deleted_while_open(at: &Path) {
    let old = File::options().write(true).open(at.join("file")).unwrap();
    fs::remove_file(at.join("file")).unwrap();
    old.write_all_at(b"nobody reads this", 0).unwrap();
    let new = File::create(at.join("new")).unwrap();
    rustix::fs::unlinkat(CWD, at.join("new"), AtFlags::empty()).unwrap();
    new.write_all_at(b"nor this", 0).unwrap();
}
