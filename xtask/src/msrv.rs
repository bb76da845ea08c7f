//! The oldest Rust toolchain that everything here must compile with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tree::Tools;

/// The root manifest, whose `rust-version` is the version.
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// Runs the tree's compiler from wherever the tree is.
const WRAPPER: &str = r#"#!/bin/sh
tree=$(dirname "$(readlink -f "$0")")
exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" \
    "$tree/usr/bin/rustc" --sysroot "$tree/usr" "$@"
"#;

/// What cargo takes as its `RUSTC`; fails unless the compiler is the one wanted.
pub(crate) fn rustc(tools: &Tools) -> Result<PathBuf> {
    let rustc = wrapper(tools);
    let wanted = version(MANIFEST).context("the root manifest has no rust-version")?;
    let text = process::output(process::bound(&rustc).arg("--version"))?;
    if !text.starts_with(&format!("rustc {wanted}.")) {
        bail!("expected rustc {wanted}, found {}", text.trim());
    }
    Ok(rustc)
}

/// Adds the wrapper to a fresh tree and tries it.
pub(crate) fn finish(tools: &Tools) -> Result<()> {
    fs::write(wrapper(tools), WRAPPER)?;
    fs::set_permissions(wrapper(tools), fs::Permissions::from_mode(0o755))?;
    rustc(tools).map(drop)
}

fn wrapper(tools: &Tools) -> PathBuf {
    tools.dir.join("rustc")
}

/// The first `rust-version` of a manifest.
fn version(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_packages_name_the_same_version() {
        assert_eq!(version(MANIFEST), Some(env!("CARGO_PKG_RUST_VERSION")));
    }
}
