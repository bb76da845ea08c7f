//! `cargo xtask lint`: what must hold before a test is worth its time.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::lines::Line;
use crate::tree;
use crate::{msrv, process, sysroot};

/// The longest that one check may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs every check, also after one has failed.
pub(crate) fn run(cache: &Cache, line: &Line) -> Result<ExitCode> {
    let root = tree::root(cache, line)?;
    let rust = tree::rust(cache)?;
    let target = format!("vm-{}", line.zfs);
    let mut format = sysroot::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = sysroot::guest_cargo(&root, "clippy", &target);
    clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut documentation = sysroot::guest_cargo(&root, "doc", &target);
    documentation.args(["--no-deps", "--lib"]);
    documentation.env("CARGO_ENCODED_RUSTDOCFLAGS", "-Dwarnings");
    let mut oldest = sysroot::guest_cargo(&root, "check", "msrv");
    oldest.args(["--workspace", "--all-targets"]).env("RUSTC", msrv::rustc(&rust)?);
    Ok(report([
        ("format", format),
        ("clippy", clippy),
        ("documentation", documentation),
        ("oldest supported compiler", oldest),
    ]))
}

fn report<const COUNT: usize>(checks: [(&str, Command); COUNT]) -> ExitCode {
    let mut failed = 0;
    for (label, command) in checks {
        if let Err(error) = process::shown(&format!("checking: {label}"), command, LIMIT) {
            eprintln!("error: {error:#}");
            failed += 1;
        }
    }
    println!("{} passed, {failed} failed", COUNT - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
