//! What is built once and kept outside the checkout, keyed by what went into it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::progress::Step;

/// How long one run waits for another that builds the same artefact.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// The directory of artefacts.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// The directory of one run, locked while it is in use.
#[derive(Debug)]
pub(crate) struct RunDir {
    dir: tempfile::TempDir,
    _lock: File,
}

impl RunDir {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Cache {
    /// `$ZFS_TXN_CACHE`, else `$XDG_CACHE_HOME/zfs-txn`, else `~/.cache/zfs-txn`.
    pub(crate) fn open() -> Result<Self> {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dir = if let Some(dir) = var("ZFS_TXN_CACHE") {
            PathBuf::from(dir)
        } else if let Some(dir) = var("XDG_CACHE_HOME") {
            Path::new(&dir).join("zfs-txn")
        } else if let Some(home) = var("HOME") {
            Path::new(&home).join(".cache/zfs-txn")
        } else {
            bail!("no place for the cache: set ZFS_TXN_CACHE or HOME");
        };
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir: std::path::absolute(dir)? })
    }

    /// A cache in the directory `dir`, which is created.
    #[cfg(test)]
    pub(crate) fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        Self { dir: dir.to_owned() }
    }

    /// The directory `KIND-<hash of inputs>`, filled by `build` when it isn't there yet; `build` is
    /// given the directory to fill and a place for its log, which stays after a failure only.
    pub(crate) fn artefact(
        &self,
        kind: &str,
        inputs: &[&str],
        build: impl FnOnce(&Path, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{kind}-{}", key(inputs));
        let finished = self.dir.join(&name);
        // A rename puts a finished artefact in place, so one that exists is whole.
        if finished.exists() {
            return Ok(finished);
        }
        let lock = self.lock(&name)?;
        if !finished.exists() {
            self.remove_leftovers(&name)?;
            let part = self.dir.join(format!("{name}.part-{}", std::process::id()));
            fs::create_dir(&part).with_context(|| format!("creating {}", part.display()))?;
            let log = self.log(&name);
            if let Err(error) = build(&part, &log) {
                remove_tree(&part)?;
                return Err(error);
            }
            fs::rename(&part, &finished)
                .with_context(|| format!("moving {} into place", part.display()))?;
            discard(&log)?;
        }
        drop(lock);
        Ok(finished)
    }

    /// A place for the log of what is done under the lock `name`.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// A directory for one run, removed with the returned value or, after a crash, by a later run.
    pub(crate) fn run_dir(&self) -> Result<RunDir> {
        let _lock = self.lock("runs")?;
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("run-") {
                let in_use = File::open(entry.path())
                    .is_ok_and(|dir| flock(dir, FlockOperation::NonBlockingLockExclusive).is_err());
                if !in_use {
                    remove_tree(&entry.path())?;
                }
            }
        }
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&self.dir)?;
        let lock = File::open(dir.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(RunDir { dir, _lock: lock })
    }

    /// Keeps all other runs from what `name` stands for, until the returned file is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.dir.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = None;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => bail!("locking {}: {error}", path.display()),
            }
            waiting.get_or_insert_with(|| {
                Step::begin(format!("waiting for another run to finish with {name}"))
            });
            if Instant::now() > deadline {
                bail!("another run has held {} for too long", path.display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        if let Some(step) = waiting {
            step.done();
        }
        Ok(file)
    }

    fn remove_leftovers(&self, name: &str) -> Result<()> {
        let prefix = format!("{name}.part-");
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                eprintln!(
                    "==> removing what an interrupted build left: {}",
                    entry.path().display()
                );
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Removes a log, if there is one.
pub(crate) fn discard(log: &Path) -> Result<()> {
    match fs::remove_file(log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", log.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory tree, unless something is still mounted in it.
fn remove_tree(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        if Path::new(mount).starts_with(dir) {
            bail!("{mount} is still mounted: unmount it, then remove {}", dir.display());
        }
    }
    match fs::remove_dir_all(dir) {
        // A run that ends in another thread removes its own directory at any moment.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("removing {}", dir.display())),
    }
}

/// A short hash over `inputs`, where no two different lists run together.
fn key(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::DirEntry;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        (dir, cache)
    }

    #[test]
    fn an_artefact_is_built_once() {
        let (_dir, cache) = cache();
        let mut builds = 0;
        for _ in 0..2 {
            let path = cache.artefact("thing", &["a"], |part, log| {
                builds += 1;
                fs::write(log, "building")?;
                Ok(fs::write(part.join("file"), "text")?)
            });
            assert_eq!(fs::read_to_string(path.unwrap().join("file")).unwrap(), "text");
        }
        assert_eq!(builds, 1);
        assert!(!cache.log(&format!("thing-{}", key(&["a"]))).exists());
    }

    #[test]
    fn a_failed_build_leaves_only_its_log_and_is_tried_again() {
        let (dir, cache) = cache();
        let fails =
            |_: &Path, log: &Path| Ok(fs::write(log, "no").and(Err(ErrorKind::Other.into()))?);
        cache.artefact("thing", &["a"], fails).unwrap_err();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        left.sort_by_key(DirEntry::file_name);
        let name = format!("thing-{}", key(&["a"]));
        let left: Vec<_> = left.iter().map(DirEntry::file_name).collect();
        assert_eq!(left, [format!("{name}.lock"), format!("{name}.log")].map(OsString::from));
        cache.artefact("thing", &["a"], |_, _| Ok(())).unwrap();
    }

    #[test]
    fn what_an_interrupted_build_left_is_removed() {
        let (dir, cache) = cache();
        let left = dir.path().join(format!("thing-{}.part-1", key(&["a"])));
        fs::create_dir_all(left.join("sub")).unwrap();
        cache.artefact("thing", &["a"], |_, _| Ok(())).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn the_key_keeps_lists_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 16);
    }
}
