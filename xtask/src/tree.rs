//! Directory trees of Debian packages: the guest's root, QEMU, and an old Rust toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::Cache;
use crate::lines::{Line, Pin};
use crate::payload::quote;
use crate::{host, mirror, msrv, process, qemu};

/// Building zfs.ko takes five minutes on two cores.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// The suite that QEMU and the old Rust toolchain come from.
const TOOLS_SUITE: &str = "trixie";

/// The suite with the oldest C library of any line: what is linked against that one runs on all.
const OLDEST_SUITE: &str = "bookworm";

/// Changing what is done to a tree after mmdebstrap needs a new number here.
const RECIPE: &str = "1";

/// Bulk that neither the guest nor the compiler needs once zfs.ko is built.
const PRUNED: &[&str] = &[
    "usr/src",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/lib/dkms",
    "var/lib/apt/lists",
    "var/cache/apt",
];

/// A root tree with a kernel, zfs.ko for it, and OpenZFS's libraries and headers.
#[derive(Debug)]
pub(crate) struct Root {
    /// The tree's directory.
    pub(crate) dir: PathBuf,
    /// The kernel's release, as in `/lib/modules/RELEASE`.
    pub(crate) kernel: String,
    /// The release of OpenZFS.
    pub(crate) zfs: String,
    /// The tree with the C library that programs for the guest are linked against.
    pub(crate) libc: PathBuf,
}

/// A tree of unpacked packages, whose programs run through the tree's own loader.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The tree's directory.
    pub(crate) dir: PathBuf,
}

/// The root tree of `line`, built when needed.
pub(crate) fn root(cache: &Cache, line: &Line) -> Result<Root> {
    let what = format!("{line:?}");
    let kind = format!("root-{}", line.zfs);
    let dir = cache.artefact(&kind, &[RECIPE, &what, &PRUNED.join(" ")], |part, log| {
        let label = format!("building a root tree with OpenZFS {} (about 6 min)", line.zfs);
        let mut command = mmdebstrap()?;
        command.args(["--variant=minbase", "--components=main,contrib"]);
        command.arg(format!("--include={}", line.packages.join(",")));
        // Backports and suites in the making have no point releases: a mirror's index may be past its date.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        if let Some(pin) = &line.pin {
            command.arg(format!(
                "--setup-hook=sed -n 's/ {0} / {1} /p' \"$1\"/etc/apt/sources.list \
                 > \"$1\"/etc/apt/sources.list.d/pinned.list",
                line.suite, pin.suite
            ));
            command.arg(format!(
                "--setup-hook=printf %s {} > \"$1\"/etc/apt/preferences.d/pinned",
                quote([&*preferences(pin)])
            ));
        }
        run(&label, command, line.suite, part, log).map_err(|error| {
            // The module's build log says more than dpkg's last words.
            match build_log(part) {
                Some(log) => error.context(process::tail(&log, 40)),
                None => error,
            }
        })?;
        let kernel = kernel(part)?;
        if !has_module(&part.join("lib/modules").join(&kernel), "zfs") {
            let log = build_log(part).map(|log| process::tail(&log, 40)).unwrap_or_default();
            bail!("no zfs.ko was built for kernel {kernel}\n{log}");
        }
        for bulk in PRUNED {
            let path = part.join(bulk);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("removing {bulk}"))?;
            }
        }
        let found = release(part)?;
        if !found.starts_with(line.release) {
            bail!("{} has OpenZFS {found}, not {}", line.suite, line.release);
        }
        relink(&part.join("usr/lib/x86_64-linux-gnu"), part)?;
        relink(&part.join("usr/lib64"), part)
    })?;
    let (kernel, zfs, libc) = (kernel(&dir)?, release(&dir)?, libc(cache)?.dir);
    Ok(Root { dir, kernel, zfs, libc })
}

/// The release of a tree's OpenZFS, as its development files tell.
fn release(tree: &Path) -> Result<String> {
    let path = libraries(tree).join("pkgconfig/libzfs.pc");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(version.with_context(|| format!("no version in {}", path.display()))?.to_owned())
}

/// The tree of the C library that programs for any guest are linked against.
fn libc(cache: &Cache) -> Result<Tools> {
    tools(cache, "libc", OLDEST_SUITE, &["libc6-dev", "libgcc-s1"], |tree| {
        relink(&tree.dir.join("lib64"), &tree.dir)
    })
}

/// The tree of QEMU, so that the host's own version does not matter.
pub(crate) fn qemu(cache: &Cache) -> Result<Tools> {
    tools(
        cache,
        "qemu",
        TOOLS_SUITE,
        &["qemu-system-x86", "seabios", "ipxe-qemu"],
        qemu::check_version,
    )
}

/// The tree of the oldest Rust toolchain that the library supports.
pub(crate) fn rust(cache: &Cache) -> Result<Tools> {
    tools(cache, "rust", TOOLS_SUITE, &["rustc", "libstd-rust-dev"], msrv::finish)
}

impl Tools {
    /// A command for a program of this tree.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = process::bound(loader(&self.dir));
        command.arg("--library-path").arg(libraries(&self.dir)).arg(self.dir.join(program));
        command
    }
}

/// The dynamic loader of a tree.
pub(crate) fn loader(tree: &Path) -> PathBuf {
    tree.join("usr/lib64/ld-linux-x86-64.so.2")
}

/// The library directory of a tree.
pub(crate) fn libraries(tree: &Path) -> PathBuf {
    tree.join("usr/lib/x86_64-linux-gnu")
}

fn tools(
    cache: &Cache,
    kind: &str,
    suite: &str,
    packages: &[&str],
    finish: fn(&Tools) -> Result<()>,
) -> Result<Tools> {
    let packages = packages.join(",");
    let dir = cache.artefact(kind, &[RECIPE, suite, &packages], |part, log| {
        let mut command = mmdebstrap()?;
        command.args(["--variant=extract", "--components=main"]);
        command.arg(format!("--include={packages}"));
        run(&format!("unpacking {packages}"), command, suite, part, log)?;
        finish(&Tools { dir: part.to_owned() })
    })?;
    Ok(Tools { dir })
}

/// mmdebstrap in namespaces of its own: nothing it starts or mounts outlives it.
fn mmdebstrap() -> Result<Command> {
    if !host::is_root() {
        bail!("building a tree of Debian packages needs root");
    }
    // Trees are built beside tests, which come first.
    let mut command = process::bound("nice");
    command.args(["-n", "10", "unshare"]);
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args(["mmdebstrap", "--mode=root", "--format=directory", "--architectures=amd64"]);
    command.args(["--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\""]);
    Ok(command)
}

fn run(label: &str, mut command: Command, suite: &str, part: &Path, log: &Path) -> Result<()> {
    command.arg(suite).arg(part).args(mirror::of_host());
    process::logged(label, command, log, LIMIT)
}

/// apt preferences that take the pinned package, and all built from its source, from its suite.
fn preferences(pin: &Pin) -> String {
    format!("Package: {}\nPin: release n={}\nPin-Priority: 990\n", pin.package, pin.suite)
}

/// The one kernel release of a tree.
fn kernel(tree: &Path) -> Result<String> {
    let modules = tree.join("lib/modules");
    let releases: Vec<_> = fs::read_dir(&modules)
        .with_context(|| format!("reading {}", modules.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    match releases.as_slice() {
        [one] => Ok(one.clone()),
        other => Err(anyhow!("expected one kernel in {}, found {other:?}", modules.display())),
    }
}

fn has_module(dir: &Path, name: &str) -> bool {
    let dep = fs::read_to_string(dir.join("modules.dep")).unwrap_or_default();
    dep.lines().filter_map(|line| line.split_once(':')).any(|(path, _)| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(stem, _)| stem == name)
    })
}

/// dkms's log of building the module, wherever its version put it.
fn build_log(tree: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(tree.join("var/lib/dkms/zfs")).ok()?.flatten();
    versions
        .flat_map(|version| ["build/make.log", "log/make.log"].map(|log| version.path().join(log)))
        .find(|log| log.is_file())
}

/// Points absolute links in `dir` into the tree: the linker would follow them out of it.
fn relink(dir: &Path, tree: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        if let Ok(inside) = target.strip_prefix("/") {
            fs::remove_file(entry.path())?;
            std::os::unix::fs::symlink(tree_relative(dir, tree).join(inside), entry.path())?;
        }
    }
    Ok(())
}

/// The way up from `dir` to `tree`, which holds it.
fn tree_relative(dir: &Path, tree: &Path) -> PathBuf {
    let depth = dir.strip_prefix(tree).map(|below| below.components().count()).unwrap_or(0);
    PathBuf::from_iter(std::iter::repeat_n("..", depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_links_are_pointed_into_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        let dir = tree.path().join("usr/lib");
        fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/lib/libx.so.1", dir.join("libx.so")).unwrap();
        std::os::unix::fs::symlink("liby.so.1", dir.join("liby.so")).unwrap();
        relink(&dir, tree.path()).unwrap();
        assert_eq!(fs::read_link(dir.join("libx.so")).unwrap(), Path::new("../../lib/libx.so.1"));
        assert_eq!(fs::read_link(dir.join("liby.so")).unwrap(), Path::new("liby.so.1"));
    }

    #[test]
    fn a_pinned_package_is_preferred_over_the_rest_of_its_suite() {
        let pin = Pin { suite: "trixie-backports", package: "src:zfs-linux" };
        assert_eq!(
            preferences(&pin),
            "Package: src:zfs-linux\nPin: release n=trixie-backports\nPin-Priority: 990\n"
        );
    }

    #[test]
    fn a_module_is_found_by_its_exact_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("modules.dep"),
            "updates/dkms/zfs.ko.xz: updates/dkms/spl.ko.xz\n",
        )
        .unwrap();
        assert!(has_module(dir.path(), "zfs"));
        assert!(!has_module(dir.path(), "spl"));
    }
}
