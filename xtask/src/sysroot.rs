//! Compiling for the guest on the host: cargo with the oldest C library of any guest as the sysroot. OpenZFS isn't
//! needed for that, as its libraries are loaded at run time, so that one program runs on all lines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::tree::{self, Root};

/// Given explicitly, so that flags for the guest never reach build scripts and proc macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The checkout that this xtask belongs to.
pub(crate) fn checkout() -> PathBuf {
    // Cargo sets this at run time; the compiled-in value is for a direct start.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_owned).unwrap_or(xtask)
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command =
        process::bound(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(checkout());
    command
}

/// The target directory of what is built for guests.
pub(crate) const GUEST: &str = "vm";

/// `cargo SUBCOMMAND` for the guest, with a target directory of its own named `target/NAME`.
pub(crate) fn guest_cargo(root: &Root, subcommand: &str, name: &str) -> Command {
    let sysroot = format!("--sysroot={}", root.libc.display());
    let libraries = tree::libraries(&root.libc);
    // gcc looks for libraries beside itself before it looks in the sysroot, unless told with -B.
    let first = format!("-B{}/", libraries.display());
    // Encoded flags may hold spaces, as the path of a tree may.
    let flags = format!("-C\u{1f}link-arg={sysroot}\u{1f}-C\u{1f}link-arg={first}");
    let mut command = cargo();
    command
        .args([subcommand, "--target", TARGET])
        .env("CARGO_TARGET_DIR", checkout().join("target").join(name))
        // Enough for backtraces, and much less to bring into the guest.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTDOCFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", &flags)
        .env("CARGO_ENCODED_RUSTDOCFLAGS", &flags)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner(&root.dir));
    command
}

/// A program of the guest, run here: the guest's C library may be newer than this machine's.
pub(crate) fn on_host(root: &Root, program: &Path) -> Command {
    let mut command = process::bound(tree::loader(&root.dir));
    command.arg("--library-path").arg(tree::libraries(&root.dir)).arg(program);
    command.current_dir(checkout()).env("CARGO_MANIFEST_DIR", checkout());
    // For `tests/abi.rs`.
    command.env("ZFS_TXN_HEADERS", &root.dir);
    command
}

fn runner(tree: &Path) -> String {
    let (loader, libraries) = (tree::loader(tree), tree::libraries(tree));
    format!("{} --library-path {}", loader.display(), libraries.display())
}

/// What a C compiler must be told to find OpenZFS's headers of a tree.
pub(crate) fn header_arguments(root: &Root) -> Vec<String> {
    let include = root.dir.join("usr/include");
    let mut arguments =
        vec![format!("--sysroot={}", root.dir.display()), "-D_GNU_SOURCE".to_owned()];
    for place in ["libspl", "libzfs"] {
        arguments.push(format!("-I{}", include.join(place).display()));
    }
    arguments
}

/// A program that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Artefact {
    /// The target's name.
    pub(crate) target: String,
    /// The target's kind: `lib`, `test`, `bin`, `bench`, `example`.
    pub(crate) kind: String,
    /// The program.
    pub(crate) executable: PathBuf,
    /// Whether the program runs tests.
    pub(crate) is_test: bool,
}

/// Runs a cargo command with JSON messages and returns the programs that it built.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Artefact>> {
    command.arg("--message-format=json-render-diagnostics");
    Ok(artefacts(&process::output(command)?))
}

fn artefacts(messages: &str) -> Vec<Artefact> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    parsed
        .filter_map(|message: serde_json::Value| {
            let target = &message["target"];
            Some(Artefact {
                executable: PathBuf::from(message["executable"].as_str()?),
                target: target["name"].as_str()?.to_owned(),
                kind: target["kind"][0].as_str()?.to_owned(),
                is_test: message["profile"]["test"].as_bool()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargo_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"zfs_txn","kind":["lib"]},"profile":{"test":true},"executable":null}
{"reason":"compiler-artifact","target":{"name":"zfs","kind":["test"]},"profile":{"test":true},"executable":"/t/zfs-1"}
not json
{"reason":"build-finished","success":true}
"#;
        let programs = artefacts(messages);
        assert_eq!(programs.len(), 1);
        assert_eq!((&*programs[0].target, &*programs[0].kind), ("zfs", "test"));
        assert_eq!(programs[0].executable, Path::new("/t/zfs-1"));
    }
}
