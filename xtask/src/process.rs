//! Running other programs: bound to this process, logged, and never without a limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// A command that the kernel kills when this process dies, however it dies.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The first words of a command, without what binds it to this process.
pub(crate) fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    let own = words.iter().position(|word| word == "--").map_or(0, |separator| separator + 1);
    words[own..].iter().take(4).map(|word| &**word).collect::<Vec<_>>().join(" ")
}

/// Waits for `child` at most until `deadline`, then kills it; calls `meanwhile` now and then.
pub(crate) fn wait(
    child: &mut Child,
    deadline: Instant,
    mut meanwhile: impl FnMut(),
) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            kill(child);
            bail!("took too long and was killed");
        }
        std::thread::sleep(Duration::from_millis(50));
        meanwhile();
    }
}

/// Kills `child` and collects it.
pub(crate) fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs `command` as one step, its output going to `log`, whose end is shown on failure.
pub(crate) fn logged(label: &str, mut command: Command, log: &Path, limit: Duration) -> Result<()> {
    let step = Step::begin(label);
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {}", name(&command)))?;
    let status = wait(&mut child, Instant::now() + limit, || step.note(&last_line(log)))
        .with_context(|| label.to_owned())?;
    if !status.success() {
        bail!("{label}: {status}\n{}", tail(log, 30));
    }
    step.done();
    Ok(())
}

/// The last line of a growing file.
fn last_line(path: &Path) -> String {
    let mut end = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(200)))?;
        file.read_to_end(&mut end)
    });
    let text = String::from_utf8_lossy(&end);
    read.ok().and_then(|_| text.lines().last()).unwrap_or_default().to_owned()
}

/// The last `count` lines of a file.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("starting {}", name(command)))?;
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        bail!("{}: {}\n{}", name(command), result.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs a command that shows its own output, as one step.
pub(crate) fn shown(label: &str, mut command: Command, limit: Duration) -> Result<()> {
    let step = Step::begin_quiet(label);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", name(&command)))?;
    let status = wait(&mut child, Instant::now() + limit, || {})?;
    if !status.success() {
        bail!("{label}: {status}");
    }
    step.done();
    Ok(())
}
