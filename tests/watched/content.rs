//! The content of one generation: files that each say which generation they are of, as a whole.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// With a checksum of each file.
pub(crate) const MANIFEST: &str = "manifest";
/// A program that readers may run from the target: it is mapped as long as it runs.
pub(crate) const TOOL: &str = "tool";
const TOOL_SOURCE: &str = "/bin/cat";

/// Below a record's 128 KiB, just above, and what fits into a block pointer.
const SIZES: [u64; 12] =
    [40, 900, 4_096, 8_000, 100, 131_072, 131_080, 64, 2_000, 512, 16_384, 300];

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
    let rest = (1..length(generation, index) / 8).map(move |at| mix(seed.wrapping_add(at)));
    std::iter::once(generation).chain(rest)
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, &byte| mix(sum ^ u64::from(byte)))
}

/// The generation of a file that was read, if all of it is of one.
pub(crate) fn generation_of(bytes: &[u8], index: usize) -> Option<u64> {
    let mut found = bytes.chunks(8).map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
    let generation = found.next()??;
    let right = bytes.len() as u64 == length(generation, index)
        && words(generation, index).skip(1).map(Some).eq(found);
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

/// Makes a directory's content that of one generation: some files are written into, some are
/// replaced, and one that readers don't know comes and goes.
pub(crate) fn write(root: &Path, generation: u64) -> io::Result<()> {
    fs::create_dir_all(root.join("data"))?;
    let mut manifest = format!("generation {generation}\n");
    for index in files() {
        let bytes: Vec<u8> = words(generation, index).flat_map(u64::to_le_bytes).collect();
        let name = file_name(index);
        let _ = writeln!(manifest, "{name} {:x}", checksum(&bytes));
        match index % 2 {
            0 => fs::write(root.join(name), bytes)?,
            _ => replace(root, &name, |new| fs::write(new, bytes))?,
        }
    }
    replace(root, TOOL, |new| fs::copy(TOOL_SOURCE, new).map(drop))?;
    fs::write(root.join(MANIFEST), manifest)
}

/// As most programs write: a new file takes the old one's name.
fn replace(root: &Path, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = root.join("new");
    make(&new)?;
    fs::rename(new, root.join(name))
}
