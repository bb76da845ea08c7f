//! Publishes a directory into a ZFS dataset: `publish SOURCE DATASET [MOUNTPOINT]`, as root.
//!
//! The first time the dataset is created, afterwards it is updated; readers see the old tree or the
//! new one. Whatever goes wrong on the way, such as a file that can't be read or a socket that can't
//! be copied, leaves the published tree as it was.

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use zfs_txn::{CommitError, DatasetName, Kind, Receipt, Zfs};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match &arguments[..] {
        [source, dataset] => publish(source.as_ref(), dataset, None),
        [source, dataset, mountpoint] => publish(source.as_ref(), dataset, Some(mountpoint)),
        _ => Err("usage: publish SOURCE DATASET [MOUNTPOINT]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not published: {error}");
            ExitCode::FAILURE
        }
    }
}

fn publish(source: &Path, dataset: &OsString, mountpoint: Option<&OsString>) -> Result<()> {
    let target: DatasetName = dataset.to_string_lossy().parse()?;
    let zfs = Zfs::open()?;
    let mut builder = zfs.transaction(&target).create_parents();
    if let Some(mountpoint) = mountpoint {
        builder = builder.mountpoint(mountpoint);
    }
    let transaction = builder.begin()?;

    // An error from here on drops the transaction, and that rolls it back.
    let done = Mirror::new(source)?.copy(source, transaction.path())?;
    let kind = transaction.kind();
    match transaction.commit() {
        Ok(receipt) => report(&receipt, kind, &done),
        // The workspace would still be there, to try again; this program leaves it at that.
        Err(CommitError::Conflict { conflict, transaction }) => {
            transaction.rollback()?;
            return Err(conflict.into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn report(receipt: &Receipt, kind: Kind, done: &Done) {
    println!(
        "published {} ({kind}): {} files copied, {} unchanged, {} removed",
        receipt.target, done.copied, done.unchanged, done.removed
    );
    println!("  transaction {}, dataset guid {}", receipt.id, receipt.guid);
    for path in &receipt.mounted {
        println!("  mounted at {}", path.display());
    }
    for leftover in &receipt.leftovers {
        println!("  note: {leftover}");
    }
}

/// What a copy has done, in files.
#[derive(Default)]
struct Done {
    copied: u64,
    unchanged: u64,
    removed: u64,
}

/// Makes one tree like another, touching only what differs.
struct Mirror {
    bar: ProgressBar,
    done: Done,
}

impl Mirror {
    fn new(source: &Path) -> Result<Self> {
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} {msg}")?;
        let bar = ProgressBar::new(size_of_tree(source)?).with_style(style);
        Ok(Self { bar, done: Done::default() })
    }

    fn copy(mut self, source: &Path, to: &Path) -> Result<Done> {
        self.directory(source, to)?;
        self.bar.finish_and_clear();
        Ok(self.done)
    }

    fn directory(&mut self, from: &Path, to: &Path) -> Result<()> {
        let mut names = HashSet::new();
        for entry in entries(from)? {
            let name = entry.file_name().unwrap_or_default().to_owned();
            self.entry(&entry, &to.join(&name))?;
            names.insert(name);
        }
        for entry in entries(to)? {
            if !names.contains(entry.file_name().unwrap_or_default()) {
                remove(&entry)?;
                self.done.removed += 1;
            }
        }
        like(to, &fs::metadata(from)?)
    }

    fn entry(&mut self, from: &Path, to: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(from).map_err(|error| about(from, &error))?;
        let there = fs::symlink_metadata(to).ok();
        let same_type = |there: &Metadata| there.file_type() == meta.file_type();
        if there.as_ref().is_some_and(|there| !same_type(there)) {
            remove(to)?;
        }
        let there = there.filter(same_type);
        if meta.is_dir() {
            if there.is_none() {
                fs::create_dir(to)?;
            }
            return self.directory(from, to);
        }
        if meta.is_symlink() {
            let points_to = fs::read_link(from)?;
            if there.is_some() && fs::read_link(to)? == points_to {
                self.done.unchanged += 1;
                return Ok(());
            }
            let _ = fs::remove_file(to);
            symlink(points_to, to)?;
            lchown(to, Some(meta.uid()), Some(meta.gid()))?;
            self.done.copied += 1;
            return Ok(());
        }
        if !meta.is_file() {
            return Err(format!("{} is a {}", from.display(), special(&meta)).into());
        }
        let unchanged = |there: &Metadata| {
            there.len() == meta.len() && there.modified().ok() == meta.modified().ok()
        };
        if there.as_ref().is_some_and(unchanged) {
            self.done.unchanged += 1;
            self.bar.inc(meta.len());
        } else {
            self.file(from, to).map_err(|error| about(from, &error))?;
            self.done.copied += 1;
        }
        like(to, &meta)
    }

    fn file(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        self.bar.set_message(name.into_owned());
        let (mut input, mut output) = (File::open(from)?, File::create(to)?);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let len = input.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            output.write_all(&buffer[..len])?;
            self.bar.inc(len as u64);
        }
    }
}

/// Owner, mode and modification time; the owner first, because changing it clears set-id bits.
fn like(path: &Path, meta: &Metadata) -> Result<()> {
    lchown(path, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(path, meta.permissions())?;
    File::open(path)?.set_modified(meta.modified()?)?;
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(directory).map_err(|error| about(directory, &error))?;
    let mut paths = read.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn remove(path: &Path) -> Result<()> {
    let directory = fs::symlink_metadata(path)?.is_dir();
    if directory {
        fs::remove_dir_all(path)?
    } else {
        fs::remove_file(path)?
    }
    Ok(())
}

fn size_of_tree(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path).map_err(|error| about(path, &error))?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    entries(path)?.iter().map(|entry| size_of_tree(entry)).sum()
}

fn special(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_fifo() {
        "named pipe, which can't be published"
    } else if kind.is_socket() {
        "socket, which can't be published"
    } else {
        "device, which can't be published"
    }
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
