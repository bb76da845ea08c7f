//! Disk images and the initramfs that the virtual machine boots from.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::tree::Root;
use crate::{host, process};

const INITRAMFS: &str = include_str!("guest/initramfs.sh");
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Changing how images are made needs a new number here.
const RECIPE: &str = "1";

/// What the guest needs before it can mount its root; most kernels have some of it built in.
const EARLY_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// The files that a boot starts from.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initramfs: PathBuf,
    /// The root file system.
    pub(crate) disk: PathBuf,
}

/// The boot files for `root`, made when needed.
pub(crate) fn boot(cache: &Cache, root: &Root) -> Result<Boot> {
    let tree = root.dir.to_string_lossy();
    let dir = cache.artefact("boot", &[RECIPE, INITRAMFS, &tree], |part, log| {
        fs::write(part.join("initramfs"), initramfs(root)?)?;
        fs::copy(
            root.dir.join("boot").join(format!("vmlinuz-{}", root.kernel)),
            part.join("kernel"),
        )
        .context("copying the kernel")?;
        ext4("making the root disk", &root.dir, &part.join("root.img"), 512, log)
    })?;
    Ok(Boot {
        kernel: dir.join("kernel"),
        initramfs: dir.join("initramfs"),
        disk: dir.join("root.img"),
    })
}

/// Makes an ext4 image of `tree` with `spare` MiB to write to, saying so.
fn ext4(label: &str, tree: &Path, image: &Path, spare: u64, log: &Path) -> Result<()> {
    process::logged(label, mke2fs(tree, image, spare)?, log, LIMIT)
}

/// Makes an ext4 image of a run's payload.
pub(crate) fn payload(tree: &Path, image: &Path) -> Result<()> {
    let mut child = mke2fs(tree, image, 256)?.spawn().context("starting mke2fs")?;
    let status = process::wait(&mut child, Instant::now() + LIMIT, || {}).context("mke2fs")?;
    if !status.success() {
        bail!("mke2fs: {status}");
    }
    Ok(())
}

fn mke2fs(tree: &Path, image: &Path, spare: u64) -> Result<std::process::Command> {
    let (bytes, files) = usage(tree)?;
    let size = bytes + bytes / 8 + spare * 1024 * 1024;
    fs::File::create(image)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("creating {}", image.display()))?;
    let mut command = host::tool("mke2fs");
    // The image is thrown away after a run, so it needs no journal.
    command.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N"]);
    command.arg((files * 5 / 4 + 4096).to_string()).arg("-d").args([tree, image]);
    Ok(command)
}

/// Bytes on disk and number of files below `dir`.
fn usage(dir: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.len().max(metadata.blocks() * 512).next_multiple_of(4096);
            files += 1;
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    Ok((bytes, files))
}

fn initramfs(root: &Root) -> Result<Vec<u8>> {
    let modules = root.dir.join("lib/modules").join(&root.kernel);
    let dep = fs::read_to_string(modules.join("modules.dep")).context("reading modules.dep")?;
    let builtin =
        fs::read_to_string(modules.join("modules.builtin")).context("reading modules.builtin")?;
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "sys", "root", "modules"] {
        archive.add(dir, DIRECTORY, &[]);
    }
    let busybox = root.dir.join("usr/bin/busybox");
    archive.add("bin/busybox", PROGRAM, &fs::read(&busybox).context("reading busybox")?);
    archive.add("init", PROGRAM, INITRAMFS.as_bytes());
    for (index, path) in load_order(&dep, &builtin, EARLY_MODULES)?.iter().enumerate() {
        let name = path.rsplit('/').next().unwrap_or(path);
        let bytes = fs::read(modules.join(path)).with_context(|| format!("reading {path}"))?;
        archive.add(&format!("modules/{index:02}-{name}"), PROGRAM, &bytes);
    }
    Ok(archive.finish())
}

/// The module files to load for `wanted`, dependencies first, without what is built in.
fn load_order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let is = |path: &str, name: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    };
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        if builtin.lines().any(|path| is(path, name)) {
            continue;
        }
        let line = dep.lines().filter_map(|line| line.split_once(':'));
        let Some((path, needs)) = line.into_iter().find(|(path, _)| is(path, name)) else {
            bail!("the kernel has no module {name}");
        };
        // modules.dep lists what a module needs in the reverse of the order to load it in.
        for one in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|seen| seen == one) {
                order.push(one.to_owned());
            }
        }
    }
    Ok(order)
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// A cpio archive in the "newc" format, which the kernel unpacks.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0, // device, two parts
            0,
            0, // device of a device node, two parts
            0,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let dep =
            "a/virtio_blk.ko.xz:\nb/crc.ko:\nb/lib.ko: b/crc.ko\nfs/ext-4.ko: b/lib.ko b/crc.ko\n";
        let order =
            load_order(dep, "kernel/virtio_pci.ko\n", &["virtio_pci", "virtio_blk", "ext_4"]);
        assert_eq!(order.unwrap(), ["a/virtio_blk.ko.xz", "b/crc.ko", "b/lib.ko", "fs/ext-4.ko"]);
        assert!(load_order(dep, "", &["nothing"]).is_err());
    }

    #[test]
    fn an_archive_is_laid_out_in_words_of_four() {
        let mut archive = Archive::default();
        archive.add("init", PROGRAM, b"hello");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
