//! `cargo xtask bench`: the benchmarks, in the virtual machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::command::{SILENCE, pass_on};
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::progress::Step;
use crate::sysroot;
use crate::vm::{Job, Machine};

const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Runs every benchmark program, with the directory `benches` beside it.
pub(crate) fn run(cache: &Cache, line: &Line) -> Result<ExitCode> {
    let machine = Machine::prepare(cache, line)?;
    let step = Step::begin_quiet("building the benchmarks");
    let mut build = sysroot::guest_cargo(&machine.root, "bench", &format!("vm-{}", line.zfs));
    let built = sysroot::build(build.args(["--no-run", "--benches"]))?;
    step.done();
    let benches: Vec<_> = built.iter().filter(|artefact| artefact.kind == "bench").collect();
    if benches.is_empty() {
        bail!("there are no benchmarks");
    }
    let mut script = "cd /payload\nstatus=0\n".to_owned();
    for bench in &benches {
        let program = format!("/payload/bin/{}", bench.target);
        script += &format!("{} --bench || status=$?\n", quote([&*program]));
    }
    script += "exit $status\n";
    let payload = Payload::new(cache, &script)?;
    for bench in &benches {
        payload.copy(&bench.executable, &format!("bin/{}", bench.target))?;
    }
    payload.copy_dir(&sysroot::checkout().join("benches"), "benches", &[])?;
    let job = Job { disks: &[], limit: Some(LIMIT), silence: Some(SILENCE), interactive: false };
    Ok(ExitCode::from(machine.run(&payload, &job, &mut pass_on)?))
}
