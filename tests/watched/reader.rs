//! A process that reads a target all the time and verifies what it finds.
//!
//! A pass reads the manifest, each file, and the manifest again, by names below the mount point or below a
//! descriptor of it that was opened just before. Each file must be wholly one generation; each is at least
//! as new as whatever was read before it; and what is of the manifest's generation has the checksum that is
//! there. So in a pass that no commit crosses, all files are of one generation.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat};

use crate::content::{self, MANIFEST, Manifest};
use crate::tally::Tally;

/// More than any file has: each is read by one call.
const BUFFER: usize = 1 << 18;

/// Where a pass looks names up.
enum Root<'a> {
    Path(&'a Path),
    Descriptor(OwnedFd),
}

impl Root<'_> {
    fn open(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
        Ok(match self {
            Self::Path(path) => openat(CWD, path.join(name), flags, Mode::empty()),
            Self::Descriptor(root) => openat(root, name, flags, Mode::empty()),
        }?)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let stat = match self {
            Self::Path(path) => statat(CWD, path.join(name), AtFlags::empty()),
            Self::Descriptor(root) => statat(root, name, AtFlags::empty()),
        };
        Ok(stat?.st_size as u64)
    }
}

pub(crate) struct Reader {
    path: PathBuf,
    buffer: Vec<u8>,
    /// The newest generation so far.
    newest: u64,
    tally: Tally,
}

impl Reader {
    pub(crate) fn new(path: &Path) -> Self {
        let (path, buffer) = (path.to_owned(), vec![0; BUFFER]);
        Self { path, buffer, newest: 0, tally: Tally::default() }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts one read and its time; `None` where it failed.
    fn timed<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<T>,
    ) -> Option<T> {
        let start = Instant::now();
        let result = read(&mut self.buffer);
        self.tally.longest = self.tally.longest.max(start.elapsed());
        self.tally.reads += 1;
        result.map_err(|error| self.tally.fail(format!("{what}: {error}"))).ok()
    }

    /// How many bytes a file has; they are in the buffer.
    fn read(&mut self, root: &Root<'_>, name: &str) -> Option<usize> {
        self.timed(name, |buffer| {
            let mut file = File::from(root.open(name, OFlags::empty())?);
            file.read(buffer)
        })
    }

    fn manifest(&mut self, root: &Root<'_>) -> Option<Manifest> {
        let count = self.read(root, MANIFEST)?;
        let manifest = Manifest::parse(&self.buffer[..count]);
        match &manifest {
            Some(manifest) => self.see(manifest.generation, MANIFEST),
            None => self.tally.mix("the manifest is none".to_owned()),
        }
        manifest
    }

    /// Nothing is older than what was there before.
    fn see(&mut self, generation: u64, what: &str) {
        if generation < self.newest {
            let newest = self.newest;
            self.tally.mix(format!("{what} is of {generation}, after something of {newest}"));
        }
        self.newest = self.newest.max(generation);
    }

    /// Reads everything once.
    pub(crate) fn pass(&mut self, by_descriptor: bool) {
        let path = self.path.clone();
        let root = match by_descriptor {
            false => Root::Path(&path),
            true => match self
                .timed("the mount point", |_| Root::Path(&path).open("", OFlags::DIRECTORY))
            {
                Some(root) => Root::Descriptor(root),
                None => return,
            },
        };
        let Some(first) = self.manifest(&root) else { return };
        let mut lengths = Vec::new();
        for index in content::files() {
            let name = content::file_name(index);
            if let Some(length) = self.timed(&name, |_| root.length(&name)) {
                lengths.push((index, length));
            }
            self.file(&root, &first, index);
        }
        self.list(&root);
        let Some(last) = self.manifest(&root) else { return };
        self.tally.crossings += u64::from(first != last);
        for (index, length) in lengths {
            let mut generations = first.generation..=last.generation;
            if !generations.any(|generation| content::length(generation, index) == length) {
                self.tally.mix(format!("file {index} has {length} bytes"));
            }
        }
    }

    fn file(&mut self, root: &Root<'_>, manifest: &Manifest, index: usize) {
        let name = content::file_name(index);
        let Some(count) = self.read(root, &name) else { return };
        let bytes = &self.buffer[..count];
        let Some(generation) = content::generation_of(bytes, index) else {
            return self.tally.mix(format!("{name} is not wholly one generation"));
        };
        if generation == manifest.generation && !manifest.fits(index, bytes) {
            self.tally.mix(format!("{name} has another checksum than the manifest says"));
        }
        self.see(generation, &name);
    }

    fn list(&mut self, root: &Root<'_>) {
        let names = self.timed("data", |_| {
            let entries = Dir::read_from(root.open("data", OFlags::DIRECTORY)?)?;
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect::<io::Result<Vec<_>>>()
        });
        let Some(mut names) = names else { return };
        names.retain(|name| name != "." && name != "..");
        names.sort();
        if !names
            .iter()
            .map(|name| format!("data/{name}"))
            .eq(content::files().map(content::file_name))
        {
            self.tally.mix(format!("the directory has {names:?}"));
        }
    }
}
