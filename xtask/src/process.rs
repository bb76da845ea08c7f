//! Running other programs: bound to this process, logged, and never without a limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::progress::Step;

/// The longest that a command whose output is read may take: some build everything first.
const OUTPUT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A command that the kernel kills when this process dies, however it dies; the leader of a process
/// group, so that [`kill`] reaches what it starts.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
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

/// Kills a child from [`bound`] with its process group, and collects it.
pub(crate) fn kill(child: &mut Child) {
    // Once collected, its id may be another process's.
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        let _ = child.wait();
    }
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

/// The standard output of a command that must succeed; its errors are shown as they come.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    // A file, because a pipe would have to be read while waiting.
    let mut file = tempfile::tempfile().context("creating a file for output")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {}", name(command)))?;
    let status =
        wait(&mut child, Instant::now() + OUTPUT_LIMIT, || {}).with_context(|| name(command))?;
    if !status.success() {
        bail!("{}: {status}", name(command));
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a command that shows its own output, as one step.
pub(crate) fn shown(label: &str, mut command: Command, limit: Duration) -> Result<()> {
    let step = Step::begin_quiet(label);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", name(&command)))?;
    let status =
        wait(&mut child, Instant::now() + limit, || {}).with_context(|| label.to_owned())?;
    if !status.success() {
        bail!("{label}: {status}");
    }
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = bound("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_all_that_was_printed() {
        let many = "line\n".repeat(50_000);
        assert_eq!(output(&mut shell("yes line | head -n 50000")).unwrap(), many);
        let error = output(&mut shell("echo no; exit 3")).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains('3'), "{error}");
    }

    #[test]
    fn what_takes_too_long_is_killed_with_what_it_started() {
        let mut command = shell("sleep 600 & echo $!; wait");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let error = wait(&mut child, Instant::now() + Duration::from_millis(300), || {});
        assert!(error.unwrap_err().to_string().contains("too long"));
        // The pipe ends when the last process that holds it has ended.
        let mut grandchild = String::new();
        stdout.read_to_string(&mut grandchild).unwrap();
        assert!(grandchild.trim().parse::<u32>().is_ok());
    }
}
