//! What one run brings into the guest, at `/payload`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, RunDir};
use crate::image;

const INIT: &str = include_str!("guest/init.sh");

/// The largest directory to copy: files count as whole pages, which they take in a guest's memory.
const DIR_LIMIT_MIB: u64 = 512;
const PAGE: u64 = 4096;

/// A directory that becomes the guest's `/payload`.
#[derive(Debug)]
pub(crate) struct Payload {
    run: RunDir,
}

impl Payload {
    /// A payload whose job is the shell script `job`.
    pub(crate) fn new(cache: &Cache, job: &str) -> Result<Self> {
        let payload = Self { run: cache.run_dir()? };
        payload.write(".guest/init", INIT.as_bytes(), true)?;
        payload.write(".guest/job", job.as_bytes(), true)?;
        Ok(payload)
    }

    /// Gives the job the terminal.
    pub(crate) fn interactive(&self) -> Result<()> {
        self.write(".guest/interactive", b"", false)
    }

    /// Adds a file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], executable: bool) -> Result<()> {
        let path = self.place(name)?;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("setting a mode")
    }

    /// Adds a copy of the file `from`.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let path = self.place(name)?;
        fs::copy(from, &path).with_context(|| format!("copying {}", from.display()))?;
        Ok(())
    }

    /// Adds a copy of the directory `top`, without the names in `without` directly in it.
    pub(crate) fn copy_dir(&self, top: &Path, name: &str, without: &[&str]) -> Result<()> {
        let top = top.canonicalize().with_context(|| format!("no directory {}", top.display()))?;
        let own = self.run_dir().canonicalize().context("the run's own directory")?;
        let skipped = without.iter().any(|name| own.starts_with(top.join(name)));
        if own.starts_with(&top) && !skipped {
            bail!("{} can't be copied: the cache is in it, at {}", top.display(), own.display());
        }
        let mut size = 0;
        let mut pending = vec![(top.clone(), self.place(name)?)];
        while let Some((from, to)) = pending.pop() {
            fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
            let entries =
                fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))?;
            for entry in entries {
                let entry = entry?;
                let (file, kind) = (entry.file_name(), entry.file_type()?);
                if from == top && without.iter().any(|name| file == *name) {
                    continue;
                }
                size += PAGE + entry.metadata()?.len().next_multiple_of(PAGE);
                if size > DIR_LIMIT_MIB * 1024 * 1024 {
                    bail!(
                        "{} is larger than {DIR_LIMIT_MIB} MiB, the most that the virtual machine \
                         has memory for",
                        top.display()
                    );
                }
                let target = to.join(&file);
                if kind.is_dir() {
                    pending.push((entry.path(), target));
                } else if kind.is_symlink() {
                    std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
                } else if kind.is_file() {
                    fs::copy(entry.path(), &target)
                        .with_context(|| format!("copying {}", entry.path().display()))?;
                } else {
                    bail!(
                        "{} can't be copied: it is a socket, a pipe or a device",
                        entry.path().display()
                    );
                }
            }
        }
        Ok(())
    }

    /// The payload as a disk image.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let image = self.run_dir().join("payload.img");
        image::payload(&self.content(), &image)?;
        Ok(image)
    }

    /// The run's own directory, gone with the payload.
    pub(crate) fn run_dir(&self) -> &Path {
        self.run.path()
    }

    fn content(&self) -> PathBuf {
        self.run_dir().join("payload")
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.content().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        Ok(path)
    }
}

/// `words` as one line of shell.
pub(crate) fn quote<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> =
        words.into_iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_ordinary_directory_is_copied_as_it_is() {
        let (cache, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let payload = Payload::new(&Cache::at(cache.path()), "").unwrap();
        fs::create_dir_all(from.path().join("sub/target")).unwrap();
        fs::create_dir_all(from.path().join("target/big")).unwrap();
        fs::write(from.path().join("sub/a b\n"), "text").unwrap();
        symlink("nowhere", from.path().join("link")).unwrap();
        payload.copy_dir(from.path(), "dir", &["target"]).unwrap();
        let copy = payload.content().join("dir");
        assert_eq!(fs::read_to_string(copy.join("sub/a b\n")).unwrap(), "text");
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("nowhere"));
        assert!(copy.join("sub/target").is_dir() && !copy.join("target").exists());
    }

    #[test]
    fn what_can_not_be_copied_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let payload = Payload::new(&Cache::at(&home.path().join("cache")), "").unwrap();
        let refused = |dir: &Path| payload.copy_dir(dir, "dir", &[]).unwrap_err().to_string();
        assert!(refused(home.path()).contains("the cache"));
        payload.copy_dir(home.path(), "dir", &["cache"]).unwrap();
        let dir = home.path().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::File::create(dir.join("large")).unwrap().set_len(1 << 40).unwrap();
        assert!(refused(&dir).contains("larger than 512 MiB"));
        fs::remove_file(dir.join("large")).unwrap();
        let _socket = UnixListener::bind(dir.join("socket")).unwrap();
        assert!(refused(&dir).contains("socket"));
    }

    #[test]
    fn quoted_words_mean_themselves() {
        assert_eq!(quote(["a b", "it's", "$HOME"]), r"'a b' 'it'\''s' '$HOME'");
    }
}
