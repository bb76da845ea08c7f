//! Pools for tests on real ZFS: one sparse file each, in a temporary directory of their own.
//!
//! Needs root, the zfs module and the `zpool` and `zfs` commands. Self-contained, so that the
//! integration tests can include it by path.
#![allow(dead_code, unreachable_pub, reason = "not every includer uses every method")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails, fails the test")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// How large the pool's only device is; sparse, so it takes up what is written.
const SIZE: u64 = 1 << 30;

/// What the lines of [`figures`] begin with; the test run shows them.
pub const FIGURES: &str = "figures: ";

/// Tells whoever watches the test run of what a test that passes has counted or measured. Past libtest,
/// which shows only what failing tests print; in one call, so that lines stay whole.
pub fn figures(text: &str) {
    let _ = std::io::stdout().write_all(format!("{FIGURES}{text}\n").as_bytes());
}

/// A pool of this test alone, destroyed with it.
#[derive(Debug)]
pub struct TestPool {
    name: String,
    directory: tempfile::TempDir,
    destroyed: bool,
}

impl TestPool {
    /// Creates a pool, mounted in a temporary directory and in no cache file.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(&[])
    }

    /// Creates a pool with further options of `zpool create`, such as `-o feature@x=disabled`.
    #[must_use]
    pub fn with_options(options: &[&str]) -> Self {
        Self::create(options, None)
    }

    /// Creates a pool on a disk that a test has for itself alone.
    #[must_use]
    pub fn on_device(device: &Path) -> Self {
        Self::create(&[], Some(device))
    }

    fn create(options: &[&str], device: Option<&Path>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zfstxn-test-{}-{number}", process::id());
        let directory = tempfile::Builder::new().prefix("zfstxn-").tempdir_in("/tmp").unwrap();
        let file = directory.path().join("device");
        if device.is_none() {
            File::create(&file).and_then(|file| file.set_len(SIZE)).unwrap();
        }
        let mountpoint = format!("mountpoint={}", directory.path().join("mnt").display());
        run(Command::new("zpool")
            .args(["create", "-o", "cachefile=none", "-O", &mountpoint, "-O", "atime=off"])
            .args(options)
            .arg(&name)
            .arg(device.unwrap_or(&file)))
        .unwrap_or_else(|error| panic!("{error}"));
        Self { name, directory, destroyed: false }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full name of a dataset, snapshot or bookmark: `a/b`, `a@s`, or `@s` of the pool itself.
    #[must_use]
    pub fn dataset(&self, relative: &str) -> String {
        match relative.chars().next() {
            None | Some('@' | '#') => format!("{}{relative}", self.name),
            Some(_) => format!("{}/{relative}", self.name),
        }
    }

    /// Where the pool's own filesystem is mounted; datasets `a/b` are at `a/b` below.
    #[must_use]
    pub fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// The temporary directory, on another filesystem than the pool.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `zfs` and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails, with what it said.
    pub fn zfs(&self, args: &[&str]) -> String {
        self.try_zfs(args).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `zfs` and returns what it printed, or how it failed.
    pub fn try_zfs(&self, args: &[&str]) -> Result<String, String> {
        run(Command::new("zfs").args(args))
    }

    /// Runs `zpool` and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails, with what it said.
    pub fn zpool(&self, args: &[&str]) -> String {
        run(Command::new("zpool").args(args)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Writes out what the pool has in memory. Without a name `zpool sync` would take the pools of other
    /// tests along, and fail where one of them goes.
    ///
    /// # Panics
    ///
    /// When `zpool` fails.
    pub fn sync(&self) {
        self.zpool(&["sync", &self.name]);
    }

    /// Exports the pool and imports it again, as a reboot would, mounting what is to be mounted.
    ///
    /// # Panics
    ///
    /// When something is in use.
    pub fn reimport(&self) {
        self.reimport_with(&[]);
    }

    /// As [`TestPool::reimport`], with further options of `zpool import`, such as `-N`.
    ///
    /// # Panics
    ///
    /// When something is in use.
    pub fn reimport_with(&self, options: &[&str]) {
        let export = || run(Command::new("zpool").args(["export", &self.name]));
        patiently(export).unwrap_or_else(|error| panic!("{error}"));
        let directory = self.directory.path();
        run(Command::new("zpool")
            .args(["import", "-o", "cachefile=none", "-d"])
            .arg(directory)
            .args(options)
            .arg(&self.name))
        .unwrap_or_else(|error| panic!("{error}"));
    }

    /// From here on nothing reaches the device but what is synced to an intent log: an import after
    /// that finds what a power cut would have left. The log must have been used before.
    ///
    /// # Panics
    ///
    /// When `zpool` fails.
    pub fn freeze(&self) {
        self.zpool(&["freeze", &self.name]);
    }

    /// Destroys the pool and says so if that fails.
    ///
    /// # Panics
    ///
    /// When something is still in use.
    pub fn cleanup(mut self) {
        self.destroy().unwrap_or_else(|error| panic!("{error}"));
    }

    fn destroy(&mut self) -> Result<(), String> {
        self.destroyed = true;
        patiently(|| run(Command::new("zpool").args(["destroy", "-f", &self.name]))).map(drop)
    }
}

impl Drop for TestPool {
    /// A failed test leaves its pool to this; the files go with the temporary directory.
    fn drop(&mut self) {
        if !self.destroyed {
            if let Err(error) = self.destroy() {
                eprintln!("test pool {} stays: {error}", self.name);
            }
        }
    }
}

/// Tries again what is refused as busy, for ten seconds: a mount namespace that another test makes
/// has copies of this pool's mounts, and a child between fork and exec has copies of descriptors.
fn patiently(act: impl Fn() -> Result<String, String>) -> Result<String, String> {
    for _ in 0..40 {
        match act() {
            Err(error) if error.contains("busy") => sleep(Duration::from_millis(250)),
            result => return result,
        }
    }
    act()
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()))
}
