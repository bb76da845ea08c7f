//! What this machine must have, and how it gets it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cache::{self, Cache};
use crate::process;

const INSTALL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A Debian package and the sign that it, or its like elsewhere, is there.
type Needed = (&'static str, fn() -> bool);

const NEEDED: &[Needed] = &[
    ("mmdebstrap", || program("mmdebstrap").is_some()),
    ("debian-archive-keyring", || {
        Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists()
    }),
    ("e2fsprogs", || program("mke2fs").is_some()),
    ("util-linux", || program("setpriv").is_some() && program("unshare").is_some()),
    ("gcc", || program("gcc").is_some()),
    ("libc6-dev", || Path::new("/usr/include/stdio.h").exists()),
];

/// What bindgen needs: libclang, and clang's own headers.
const NEEDED_FOR_BINDINGS: Needed = ("libclang-dev", || has_libclang() && has_clang_headers());

/// Makes sure that all needed packages are there, installing them where that can be done.
pub(crate) fn prepare(cache: &Cache, bindings: bool) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "the virtual machine and its tools are for x86_64 Linux only; this is {} {}",
            std::env::consts::ARCH,
            std::env::consts::OS
        );
    }
    if missing(bindings).is_empty() {
        return Ok(());
    }
    let _lock = cache.lock("apt")?;
    // Another run may have installed them meanwhile.
    let missing = missing(bindings);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() || program("apt-get").is_none() {
        bail!("this machine lacks: {list}\ninstall them (Debian's package names), then try again");
    }
    let log = cache.log("apt");
    let apt = |arguments: &[&str]| {
        let mut command = process::bound("apt-get");
        command.args(["-o", "DPkg::Lock::Timeout=600"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::logged("updating the package lists", apt(&["update"]), &log, INSTALL_LIMIT)?;
    let mut install = apt(&["install", "-y", "--no-install-recommends"]);
    install.args(&missing);
    process::logged(&format!("installing {list}"), install, &log, INSTALL_LIMIT)?;
    let still = self::missing(bindings);
    if !still.is_empty() {
        bail!("installed, but still not found: {}", still.join(" "));
    }
    cache::discard(&log)
}

/// Whether this process may build root trees and install packages.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command for a program that may be outside an ordinary user's search path.
pub(crate) fn tool(name: &str) -> Command {
    process::bound(program(name).unwrap_or_else(|| name.into()))
}

/// Whether hardware virtualization is there; a `/dev/kvm` without these flags can hang a guest.
pub(crate) fn has_kvm() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flag = cpu
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm");
    flag && std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// How many virtual machines with tests run at the same time: tests wait for the pool more than they compute. Each has
/// 4 GiB, and QEMU wants some for itself.
pub(crate) fn guests() -> usize {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    if kib.is_some_and(|kib| kib >= 12 << 20) { 2 } else { 1 }
}

fn missing(bindings: bool) -> Vec<&'static str> {
    let for_bindings = bindings.then_some(&NEEDED_FOR_BINDINGS);
    NEEDED
        .iter()
        .chain(for_bindings)
        .filter(|(_, is_there)| !is_there())
        .map(|(package, _)| *package)
        .collect()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn has_libclang() -> bool {
    let lib = Path::new("/usr/lib");
    env::var_os("LIBCLANG_PATH").is_some()
        || ["/usr/lib64", "/usr/lib"].iter().any(|dir| contains_libclang(Path::new(dir)))
        || entries(lib)
            .iter()
            .any(|dir| contains_libclang(dir) || contains_libclang(&dir.join("lib")))
}

fn contains_libclang(dir: &Path) -> bool {
    entries(dir).iter().any(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        (name.starts_with("libclang.so") || name.starts_with("libclang-")) && name.contains(".so")
    })
}

fn has_clang_headers() -> bool {
    let mut roots = vec![PathBuf::from("/usr/lib/clang"), PathBuf::from("/usr/lib64/clang")];
    roots.extend(entries(Path::new("/usr/lib")).iter().map(|dir| dir.join("lib/clang")));
    roots
        .iter()
        .flat_map(|root| entries(root))
        .any(|version| version.join("include/stddef.h").exists())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}
