//! `cargo xtask demo`: the example program on a real directory, and commits under readers, in the
//! virtual machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command::{Outcome, SILENCE, pass_on};
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::progress::Step;
use crate::sysroot;
use crate::vm::{Job, Machine, Stream};

const SCRIPT: &str = include_str!("demo.sh");
const EXAMPLES: [&str; 2] = ["publish", "watched"];
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Beside this project's sources, but no part of them.
const WITHOUT: &[&str] = &["target", ".git"];

/// The commits that are shown under readers.
#[derive(Debug)]
pub(crate) struct Show<'a> {
    pub(crate) commits: u64,
    pub(crate) reads: u64,
    pub(crate) strategy: &'a str,
}

/// Runs the demonstration on a copy of `dir`, or of this project's sources.
pub(crate) fn run(
    cache: &Cache,
    line: &Line,
    show: &Show<'_>,
    dir: Option<&Path>,
) -> Result<Outcome> {
    let (commits, reads) = (show.commits.to_string(), show.reads.to_string());
    let watched = quote(["watched", &commits, &reads, show.strategy]);
    let payload = Payload::new(
        cache,
        &format!(
            "cd\nexport DEMO_DIR=/payload/dir\nbash /payload/demo.sh || exit\nexec {watched}\n"
        ),
    )?;
    payload.write("demo.sh", SCRIPT.as_bytes(), true)?;
    // First, so that a directory that won't do is refused before anything is built.
    match dir {
        Some(dir) => payload.copy_dir(dir, "dir", &[])?,
        None => payload.copy_dir(&sysroot::checkout(), "dir", WITHOUT)?,
    }
    let machine = Machine::prepare(cache, line)?;
    let step = Step::begin_quiet("building the examples");
    let mut build = sysroot::guest_cargo(&machine.root, "build", sysroot::GUEST);
    let built = sysroot::build(build.args(EXAMPLES.map(|name| format!("--example={name}"))))?;
    step.done();
    for name in EXAMPLES {
        let example = built.iter().find(|artefact| artefact.target == name);
        let example = example.with_context(|| format!("cargo did not build {name}"))?;
        payload.copy(&example.executable, &format!("bin/{name}"))?;
    }
    let job = Job { disks: &[], limit: Some(LIMIT), silence: Some(SILENCE), interactive: false };
    let mut said = Vec::new();
    let status = machine.run(&payload, &job, &mut |stream, bytes| {
        if stream == Stream::Out {
            said.extend_from_slice(bytes);
        }
        pass_on(stream, bytes)
    })?;
    // As a terminal has them, lines of the guest may end with a carriage return.
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    Ok(Outcome { said, fine: status == 0 })
}
