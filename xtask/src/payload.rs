//! What one run brings into the guest, at `/payload`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{Cache, RunDir};
use crate::image;

const INIT: &str = include_str!("guest/init.sh");

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

    /// Adds a copy of the directory `from`, without the names in `without`.
    pub(crate) fn copy_dir(&self, from: &Path, name: &str, without: &[&str]) -> Result<()> {
        let mut pending = vec![(from.to_owned(), self.place(name)?)];
        while let Some((from, to)) = pending.pop() {
            fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
            let entries =
                fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))?;
            for entry in entries {
                let entry = entry?;
                let (file, kind) = (entry.file_name(), entry.file_type()?);
                if without.iter().any(|name| file == *name) {
                    continue;
                }
                let target = to.join(&file);
                if kind.is_dir() {
                    pending.push((entry.path(), target));
                } else if kind.is_symlink() {
                    std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
                } else if kind.is_file() {
                    fs::copy(entry.path(), &target)
                        .with_context(|| format!("copying {}", entry.path().display()))?;
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
    use super::*;

    #[test]
    fn quoted_words_mean_themselves() {
        assert_eq!(quote(["a b", "it's", "$HOME"]), r"'a b' 'it'\''s' '$HOME'");
    }
}
