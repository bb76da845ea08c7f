//! `cargo xtask lint`: what must hold before a test is worth its time.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::lines::Line;
use crate::sysroot::GUEST;
use crate::{bindings, msrv, process, sysroot, tree};

/// The longest that one check may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs every check, also after one has failed.
pub(crate) fn run(cache: &Cache, line: &Line) -> Result<ExitCode> {
    let root = tree::root(cache, line)?;
    let rust = tree::rust(cache)?;
    let mut format = sysroot::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = sysroot::guest_cargo(&root, "clippy", GUEST);
    clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut documentation = sysroot::guest_cargo(&root, "doc", GUEST);
    documentation.args(["--no-deps", "--lib"]);
    documentation.env("CARGO_ENCODED_RUSTDOCFLAGS", "-Dwarnings");
    let mut oldest = sysroot::guest_cargo(&root, "check", "msrv");
    oldest.args(["--workspace", "--all-targets"]).env("RUSTC", msrv::rustc(&rust)?);
    let bindings = bindings::check(&root);
    Ok(report(
        bindings,
        [
            ("format", format),
            ("clippy", clippy),
            ("documentation", documentation),
            ("oldest supported compiler", oldest),
        ],
    ))
}

fn report<const COUNT: usize>(bindings: Result<()>, checks: [(&str, Command); COUNT]) -> ExitCode {
    let mut results = vec![bindings];
    for (label, command) in checks {
        results.push(process::shown(&format!("checking: {label}"), command, LIMIT));
    }
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    for error in &errors {
        eprintln!("error: {error:#}");
    }
    let failed = errors.len();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
