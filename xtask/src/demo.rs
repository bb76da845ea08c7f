//! `cargo xtask demo`: the example program on a real directory, in the virtual machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command::{SILENCE, pass_on};
use crate::lines::Line;
use crate::payload::Payload;
use crate::progress::Step;
use crate::sysroot;
use crate::vm::{Job, Machine};

const SCRIPT: &str = include_str!("demo.sh");
const EXAMPLE: &str = "publish";
const LIMIT: Duration = Duration::from_secs(1800);

/// Beside this project's sources, but no part of them.
const WITHOUT: &[&str] = &["target", ".git"];

/// Runs the demonstration on a copy of `dir`, or of this project's sources.
pub(crate) fn run(cache: &Cache, line: &Line, dir: Option<&Path>) -> Result<ExitCode> {
    let payload =
        Payload::new(cache, "cd\nexport DEMO_DIR=/payload/dir\nexec bash /payload/demo.sh\n")?;
    payload.write("demo.sh", SCRIPT.as_bytes(), true)?;
    // First, so that a directory that won't do is refused before anything is built.
    match dir {
        Some(dir) => payload.copy_dir(dir, "dir", &[])?,
        None => payload.copy_dir(&sysroot::checkout(), "dir", WITHOUT)?,
    }
    let machine = Machine::prepare(cache, line)?;
    let step = Step::begin_quiet("building the example");
    let mut build = sysroot::guest_cargo(&machine.root, "build", &format!("vm-{}", line.zfs));
    let built = sysroot::build(build.args(["--example", EXAMPLE]))?;
    step.done();
    let example = built
        .iter()
        .find(|artefact| artefact.kind == "example")
        .context("cargo built no example")?;
    payload.copy(&example.executable, &format!("bin/{EXAMPLE}"))?;
    let job = Job { disks: &[], limit: Some(LIMIT), silence: Some(SILENCE), interactive: false };
    Ok(ExitCode::from(machine.run(&payload, &job, &mut pass_on)?))
}
