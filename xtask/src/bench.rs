//! `cargo xtask bench`: the benchmarks, in the virtual machine.

use std::fs::File;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{SILENCE, pass_on};
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::progress::Step;
use crate::sysroot;
use crate::vm::{Job, Machine};

const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// A sparse disk for a benchmark to make a pool on.
const DISK_SIZE: u64 = 16 << 30;
/// Its name in the guest.
const DISK: &str = "/dev/vdc";

/// Runs every benchmark program, or the one that is named, with the directory `benches` beside it.
pub(crate) fn run(cache: &Cache, line: &Line, name: Option<&str>) -> Result<ExitCode> {
    let machine = Machine::prepare(cache, line)?;
    let step = Step::begin_quiet("building the benchmarks");
    let mut build = sysroot::guest_cargo(&machine.root, "bench", sysroot::GUEST);
    let built = sysroot::build(build.args(["--no-run", "--benches"]))?;
    step.done();
    let wanted = |bench: &str| name.is_none_or(|name| name == bench);
    let benches: Vec<_> = built
        .iter()
        .filter(|artefact| artefact.kind == "bench" && wanted(&artefact.target))
        .collect();
    if benches.is_empty() {
        bail!("there is no such benchmark");
    }
    let mut script = format!("cd /payload\nexport ZFS_TXN_BENCH_DISK={DISK}\nstatus=0\n");
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
    let disk = payload.run_dir().join("disk.img");
    let created = File::create(&disk).and_then(|file| file.set_len(DISK_SIZE));
    created.with_context(|| format!("creating {}", disk.display()))?;
    let disks = [disk];
    let job = Job { disks: &disks, limit: Some(LIMIT), silence: Some(SILENCE), interactive: false };
    Ok(ExitCode::from(machine.run(&payload, &job, &mut pass_on)?))
}
