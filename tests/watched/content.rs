//! The content of one generation: files that each say which generation they are of, as a whole.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::test_write;

/// With a checksum of each file.
pub(crate) const MANIFEST: &str = "manifest";
/// A program that readers may run from the target: it is mapped as long as it runs.
pub(crate) const TOOL: &str = "tool";
const TOOL_SOURCE: &str = "/bin/cat";
const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

/// What fits into a block pointer, a few sectors, and just above a record's 128 KiB.
const SIZES: [u64; 12] = [40, 904, 4_096, 8_000, 104, 1_024, 131_080, 64, 2_000, 512, 16_384, 304];

pub(crate) fn file_name(index: usize) -> String {
    format!("data/{index:02}")
}

pub(crate) fn files() -> std::ops::Range<usize> {
    0..SIZES.len()
}

/// How long a file of a generation is, in bytes.
pub(crate) fn length(generation: u64, index: usize) -> u64 {
    SIZES[index] + 8 * (generation % 5)
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The words of a file: its generation, and what follows from that.
fn words(generation: u64, index: usize) -> impl Iterator<Item = u64> {
    let seed = mix(generation << 8 | index as u64);
    let rest = (1..length(generation, index) / 8).map(move |at| seed.wrapping_mul(2 * at + 1));
    std::iter::once(generation).chain(rest)
}

/// All of a file is in whole words.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let words = bytes.chunks_exact(8);
    words.map(|word| word.try_into().map_or(0, u64::from_le_bytes))
}

fn checksum(bytes: &[u8]) -> u64 {
    words_of(bytes).fold(0, |sum: u64, word| (sum.rotate_left(5) ^ word).wrapping_mul(FACTOR))
}

/// The generation of a file that was read, if all of it is of one.
pub(crate) fn generation_of(bytes: &[u8], index: usize) -> Option<u64> {
    let generation = words_of(bytes).next()?;
    let right = bytes.len() as u64 == length(generation, index)
        && words(generation, index).eq(words_of(bytes));
    right.then_some(generation)
}

/// What a manifest says: the generation, and the first bytes' checksum of each file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) generation: u64,
    sums: Vec<u64>,
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let sums: Option<Vec<u64>> =
            lines.map(|line| u64::from_str_radix(line.split_once(' ')?.1, 16).ok()).collect();
        let sums = sums.filter(|sums| sums.len() == SIZES.len())?;
        Some(Self { generation, sums })
    }

    /// Whether a file has the checksum that it is to have.
    pub(crate) fn fits(&self, index: usize, bytes: &[u8]) -> bool {
        self.sums[index] == checksum(bytes)
    }
}

/// How files get their new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Each is written into, but for a program that runs, which stays.
    Writing,
    /// Some are written into, and some are replaced by new ones of the same name.
    Replacing,
}

/// Makes a directory's content that of one generation.
pub(crate) fn write(root: &Path, generation: u64, by: By) -> io::Result<()> {
    fs::create_dir_all(root.join("data"))?;
    let mut manifest = format!("generation {generation}\n");
    for index in files() {
        let bytes: Vec<u8> = words(generation, index).flat_map(u64::to_le_bytes).collect();
        let name = file_name(index);
        let _ = writeln!(manifest, "{name} {:x}", checksum(&bytes));
        match by {
            By::Replacing if index % 2 == 1 => {
                replace(root, &name, |new| test_write::write(new, bytes))?
            }
            _ => test_write::write(root.join(name), bytes)?,
        }
    }
    if by == By::Replacing {
        replace(root, TOOL, |new| fs::copy(TOOL_SOURCE, new).map(drop))?;
    }
    test_write::write(root.join(MANIFEST), manifest)
}

/// As most programs write: a new file takes the old one's name.
fn replace(root: &Path, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = root.join("new");
    make(&new)?;
    fs::rename(new, root.join(name))
}
