//! The content of one generation of a target: files that all say which generation they are of.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::random::Random;

const MANIFEST: &str = "manifest";
const FILES: u64 = 8;
const SMALLEST: u64 = 100;
const LARGEST: u64 = 200 * 1024;

/// Whether the content is written to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is.
    Commit,
    /// It is to be rolled back: nobody may ever find it in a target.
    Rollback,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }
}

/// Makes the directory's content that of one generation. No file of an older one stays as it was:
/// some are replaced, some are overwritten, and one has the generation in its name.
pub(crate) fn write(
    directory: &Path,
    target: &str,
    generation: u64,
    purpose: Purpose,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    for (name, bytes) in files(target, generation, purpose) {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// What a directory holds, in the words of a line to the host: `whole TARGET GENERATION PURPOSE`,
/// or `broken` and why.
pub(crate) fn look(directory: &Path) -> Vec<String> {
    match whole(directory) {
        Ok(words) => words,
        Err(why) => vec!["broken".to_owned(), why],
    }
}

fn whole(directory: &Path) -> Result<Vec<String>, String> {
    let found = read(directory).map_err(|error| format!("can't be read: {error}"))?;
    let named = |path: &Path| path.display().to_string();
    let Some(manifest) = found.get(Path::new(MANIFEST)) else {
        let names: Vec<_> = found.keys().map(|path| named(path)).collect();
        return Err(format!("no manifest, but {names:?}"));
    };
    let text = String::from_utf8_lossy(manifest);
    let words: Vec<_> = text.split_whitespace().collect();
    let (target, generation, purpose) = match words[..] {
        [target, number, "commit"] => (target, number.parse::<u64>(), Purpose::Commit),
        [target, number, "rollback"] => (target, number.parse::<u64>(), Purpose::Rollback),
        _ => return Err(format!("the manifest says {text:?}")),
    };
    let generation = generation.map_err(|error| format!("the manifest says {text:?}: {error}"))?;
    let expected = files(target, generation, purpose);
    let mut wrong = Vec::new();
    for (path, bytes) in &expected {
        match found.get(path) {
            Some(other) if other == bytes => {}
            Some(other) => wrong.push(format!("{} is {}", named(path), first_line(other))),
            None => wrong.push(format!("{} is missing", named(path))),
        }
    }
    let unknown = found.keys().filter(|path| !expected.contains_key(*path));
    wrong.extend(unknown.map(|path| format!("{} is there", named(path))));
    if wrong.is_empty() {
        let number = generation.to_string();
        return Ok(["whole", target, &number, purpose.word()].map(str::to_owned).to_vec());
    }
    Err(format!("the manifest says {}, but {}", text.trim(), wrong.join("; ")))
}

/// All files of one generation.
fn files(target: &str, generation: u64, purpose: Purpose) -> BTreeMap<PathBuf, Vec<u8>> {
    let word = purpose.word();
    let manifest = format!("{target} {generation} {word}\n").into_bytes();
    let mut files = BTreeMap::from([
        (MANIFEST.into(), manifest.clone()),
        (format!("only-{generation}").into(), manifest),
    ]);
    let seed = target
        .bytes()
        .fold(generation, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut random = Random::new(seed);
    for number in 0..FILES {
        // Many small ones, few large ones.
        let range = (LARGEST - SMALLEST) >> random.below(6);
        let size = usize::try_from(SMALLEST + random.below(range)).unwrap_or_default();
        let mut bytes = format!("{target} {generation} {word} {number}\n").into_bytes();
        while bytes.len() < size {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(size);
        let directory = if number % 2 == 0 { "left" } else { "right" };
        files.insert(format!("{directory}/{number}").into(), bytes);
    }
    files
}

fn read(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(inside) = pending.pop() {
        for entry in fs::read_dir(directory.join(&inside))? {
            let entry = entry?;
            let path = inside.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push(path);
            } else {
                files.insert(path, fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let shown = &line[..line.len().min(60)];
    format!("{} bytes, {:?}", bytes.len(), String::from_utf8_lossy(shown))
}
