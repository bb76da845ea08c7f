//! The oldest Rust toolchain that the library must compile with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::process;
use crate::tree::Tools;

/// The version, as in the root manifest's `rust-version`.
const VERSION: &str = "1.85";

/// Runs the tree's compiler from wherever the tree is.
const WRAPPER: &str = r#"#!/bin/sh
tree=$(dirname "$(readlink -f "$0")")
exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" \
    "$tree/usr/bin/rustc" --sysroot "$tree/usr" "$@"
"#;

/// What cargo takes as its `RUSTC`.
pub(crate) fn rustc(tools: &Tools) -> PathBuf {
    tools.dir.join("rustc")
}

/// Adds the wrapper to a fresh tree; fails unless the compiler is the one wanted.
pub(crate) fn finish(tools: &Tools) -> Result<()> {
    fs::write(rustc(tools), WRAPPER)?;
    fs::set_permissions(rustc(tools), fs::Permissions::from_mode(0o755))?;
    let text = process::output(process::bound(rustc(tools)).arg("--version"))?;
    if !text.starts_with(&format!("rustc {VERSION}.")) {
        bail!("expected rustc {VERSION}, found {}", text.trim());
    }
    Ok(())
}
