//! One run of the virtual machine: boot, run a job, collect what it says, stop.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::Cache;
use crate::console::Console;
use crate::image::{self, Boot};
use crate::lines::Line;
use crate::payload::Payload;
use crate::progress::Step;
use crate::terminal;
use crate::tree::{self, Root, Tools};
use crate::{process, qemu};

pub(crate) use crate::qemu::LoggedDisk;

/// How long QEMU may take to open its channels.
const START: Duration = Duration::from_secs(60);
/// How long a failed kernel may go on printing before QEMU is stopped.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the guest may take until the job begins; emulation on a busy machine takes a minute.
const BOOT: Duration = Duration::from_secs(4 * 60);
/// No more output for so long after the job's end: everything has arrived.
const QUIET: Duration = Duration::from_millis(60);
/// How long what QEMU left in its channels may take to arrive.
const REST: Duration = Duration::from_secs(10);
/// How long the guest may take to switch itself off.
const SWITCH_OFF: Duration = Duration::from_secs(60);
/// How often to boot, at the most: emulation on several threads now and then
/// ends in an assertion of QEMU's own (`iotlb_to_section`) while the guest sets its devices up, or
/// stands still there. Nothing has run by then.
const BOOTS: u32 = 3;
/// Console lines shown with a failure.
const SHOWN: usize = 40;

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The job's standard output, or its terminal.
    Out,
    /// The job's standard error.
    Err,
}

/// What to run, and how long to wait for it.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Extra disks, whose content stays.
    pub(crate) disks: &'a [PathBuf],
    /// The longest that the run may take.
    pub(crate) limit: Option<Duration>,
    /// The longest that it may say nothing.
    pub(crate) silence: Option<Duration>,
    /// Whether the job has this process's terminal.
    pub(crate) interactive: bool,
}

/// A run that ends with a power cut: a disk that logs what is written, and the switch.
#[derive(Debug)]
pub(crate) struct Power<'a> {
    /// The disk; the last one.
    pub(crate) disk: LoggedDisk<'a>,
    /// When to kill QEMU, set by whoever reads the output.
    pub(crate) off: &'a Cell<Option<Instant>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The job ended with this status.
    Exit(u8),
    /// QEMU was killed when it was to be.
    PowerCut,
}

/// What is needed to boot a release line.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The root tree, which programs for the guest are compiled against.
    pub(crate) root: Root,
    tools: Tools,
    boot: Boot,
}

/// How QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// QEMU crashed or stood still, the guest's kernel did not fail, and the job had not begun.
    BeforeTheJob,
    Otherwise,
}

/// Something that a channel delivered.
pub(crate) enum Event {
    /// Bytes from the guest.
    Data(&'static str, Vec<u8>),
    /// The user asked to stop an interactive run.
    Quit,
}

impl Machine {
    /// Builds, or finds in the cache, all that `line` needs.
    pub(crate) fn prepare(cache: &Cache, line: &Line) -> Result<Self> {
        let tools = tree::qemu(cache)?;
        let root = tree::root(cache, line)?;
        let boot = image::boot(cache, &root)?;
        Ok(Self { root, tools, boot })
    }

    /// Runs the job in `payload` and returns its exit status.
    pub(crate) fn run(
        &self,
        payload: &Payload,
        job: &Job<'_>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<u8> {
        match self.boot(payload, job, None, sink)? {
            End::Exit(status) => Ok(status),
            End::PowerCut => bail!("the power was cut"),
        }
    }

    /// Runs the job until it ends or the power is cut, and says nothing meanwhile.
    pub(crate) fn run_with_power(
        &self,
        payload: &Payload,
        job: &Job<'_>,
        power: &Power<'_>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<End> {
        self.boot(payload, job, Some(power), sink)
    }

    fn boot(
        &self,
        payload: &Payload,
        job: &Job<'_>,
        power: Option<&Power<'_>>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<End> {
        let disk = payload.image()?;
        for _ in 1..BOOTS {
            match self.attempt(payload.run_dir(), &disk, job, power, sink)? {
                (Ended::BeforeTheJob, Err(error)) => {
                    eprintln!("QEMU failed before the job began, booting again: {error:#}");
                }
                (_, outcome) => return outcome,
            }
        }
        self.attempt(payload.run_dir(), &disk, job, power, sink)?.1
    }

    /// One boot.
    fn attempt(
        &self,
        dir: &Path,
        disk: &Path,
        job: &Job<'_>,
        power: Option<&Power<'_>>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<(Ended, Result<End>)> {
        let listeners = listen(dir)?;
        let log = dir.join("qemu.log");
        let errors = File::create(&log).context("creating QEMU's log")?;
        let logged = power.map(|power| power.disk);
        let mut command = qemu::command(&self.tools, &self.boot, dir, disk, job.disks, logged);
        let child = command
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .context("starting QEMU")?;
        let mut guest = Guest {
            child,
            console: Console::default(),
            raw: None,
            began: false,
            stuck: false,
            off: power.map(|power| power.off),
        };
        let result = guest.attend(listeners, job, sink);
        let crashed = guest.child.try_wait()?.is_some_and(|status| !status.success());
        let emulator = crashed || guest.stuck;
        let ended = match !guest.began && emulator && guest.console.failure().is_none() {
            true => Ended::BeforeTheJob,
            false => Ended::Otherwise,
        };
        let outcome = result.map_err(|error| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let console = guest.console.tail(SHOWN);
            anyhow!("{error:#}\nlast lines of the guest's console:\n{console}{log}")
        });
        Ok((ended, outcome))
    }
}

/// Sockets that QEMU connects its channels to.
fn listen(dir: &Path) -> Result<Vec<(&'static str, UnixListener)>> {
    let handle = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    let mut listeners = Vec::new();
    for (name, _) in qemu::CHANNELS {
        // A socket's address is short, and the path of the cache may not be.
        let path = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
        // Of an earlier boot.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(path).with_context(|| format!("listening for {name}"))?;
        listener.set_nonblocking(true)?;
        listeners.push((*name, listener));
    }
    Ok(listeners)
}

/// A running QEMU, killed when dropped.
struct Guest<'a> {
    child: Child,
    console: Console,
    raw: Option<terminal::Raw>,
    /// Whether the guest has said that the job begins.
    began: bool,
    /// Whether the guest has not said so in time.
    stuck: bool,
    /// When to cut the power, of a run that ends so.
    off: Option<&'a Cell<Option<Instant>>>,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

impl Guest<'_> {
    fn attend(
        &mut self,
        listeners: Vec<(&'static str, UnixListener)>,
        job: &Job<'_>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<End> {
        let (sender, events) = mpsc::channel();
        let (mut control, mut terminal) = (None, None);
        for (name, listener) in listeners {
            let stream = self.accept(name, &listener)?;
            read_all(name, stream.try_clone()?, sender.clone());
            match name {
                "control" => control = Some(stream),
                "terminal" => terminal = Some(stream),
                _ => {}
            }
        }
        let control = control.context("no control channel")?;
        let terminal = terminal.filter(|_| job.interactive);
        let end = self.follow(&events, sender, control, terminal, job, sink)?;
        if let Some(failure) = self.console.failure() {
            bail!("the guest's kernel failed: {failure}");
        }
        end.context("the guest stopped without the job's exit status")
    }

    fn accept(&mut self, name: &str, listener: &UnixListener) -> Result<UnixStream> {
        let deadline = Instant::now() + START;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("waiting for QEMU"),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("QEMU ended before it started the guest: {status}");
            }
            if Instant::now() > deadline {
                bail!("QEMU did not open its channel {name} in {} s", START.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Passes output on until the guest is off; returns how the job ended if the guest told it.
    fn follow(
        &mut self,
        events: &Receiver<Event>,
        sender: Sender<Event>,
        mut control: UnixStream,
        mut terminal: Option<UnixStream>,
        job: &Job<'_>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<Option<End>> {
        let started = Instant::now();
        let mut heard = started;
        let mut words = Vec::new();
        let mut status = None;
        let mut answered: Option<Instant> = None;
        let mut failed: Option<Instant> = None;
        let mut ended: Option<Instant> = None;
        let mut sender = job.interactive.then_some(sender);
        // Many boots in a row are not worth two lines each.
        let mut booting = self.off.is_none().then(|| Step::begin("booting the virtual machine"));
        loop {
            let mut patience = Duration::from_millis(20);
            if let Some(off) = self.off.and_then(Cell::get) {
                patience = patience.min(off.saturating_duration_since(Instant::now()));
                if patience.is_zero() {
                    return self.cut_power(events, sink).map(Some);
                }
            }
            match events.recv_timeout(patience) {
                Ok(Event::Data(channel, bytes)) => {
                    heard = Instant::now();
                    match channel {
                        "console" => self.console.feed(&bytes),
                        "control" => words.extend_from_slice(&bytes),
                        "stderr" => sink(Stream::Err, &bytes)?,
                        _ => sink(Stream::Out, &bytes)?,
                    }
                }
                Ok(Event::Quit) => bail!("stopped by the user"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    process::wait(&mut self.child, Instant::now() + SWITCH_OFF, || {})
                        .context("QEMU, after it has closed its channels")?;
                    return Ok(status.map(End::Exit));
                }
            }
            let text = String::from_utf8_lossy(&words);
            if !self.began && text.contains("ready\n") {
                self.began = true;
                if let Some(step) = booting.take() {
                    step.done();
                }
                if let (Some(stream), Some(sender)) = (terminal.take(), sender.take()) {
                    // Until now, Ctrl-C ended this program.
                    self.raw = Some(terminal::Raw::enter()?);
                    terminal::forward(stream, sender);
                }
            }
            if !self.began && started.elapsed() > BOOT {
                self.stuck = true;
                bail!("the guest was not ready after {} s", BOOT.as_secs());
            }
            status = status.or_else(|| exit_status(&text));
            if status.is_some() && answered.is_none() && heard.elapsed() > QUIET {
                // A guest that is already off does not need the answer.
                let _ = control.write_all(b"ok\n");
                answered = Some(Instant::now());
            }
            if self.child.try_wait()?.is_some() {
                let since = *ended.get_or_insert_with(Instant::now);
                // The end of all channels ends the loop, except while input is forwarded.
                let quiet = self.raw.is_some() && heard.elapsed() > QUIET;
                if quiet || since.elapsed() > REST {
                    return Ok(status.map(End::Exit));
                }
            }
            if self.console.failure().is_some() {
                let since = *failed.get_or_insert_with(Instant::now);
                if since.elapsed() > LAST_WORDS {
                    return Ok(status.map(End::Exit));
                }
            }
            if answered.is_some_and(|since| since.elapsed() > SWITCH_OFF) {
                bail!("the guest did not switch off");
            }
            if job.limit.is_some_and(|limit| started.elapsed() > limit) {
                bail!("the run took longer than {} s", started.elapsed().as_secs());
            }
            if job.silence.is_some_and(|silence| heard.elapsed() > silence) {
                bail!("the guest said nothing for {} s", heard.elapsed().as_secs());
            }
        }
    }

    /// Kills QEMU and passes on what it had handed over by then.
    fn cut_power(
        &mut self,
        events: &Receiver<Event>,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<End> {
        let ended = self.child.try_wait()?;
        if let Some(status) = ended {
            bail!("QEMU ended before the power was cut: {status}");
        }
        process::kill(&mut self.child);
        let deadline = Instant::now() + REST;
        loop {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Data("console", bytes)) => self.console.feed(&bytes),
                Ok(Event::Data("control", _) | Event::Quit) => {}
                Ok(Event::Data("stderr", bytes)) => sink(Stream::Err, &bytes)?,
                Ok(Event::Data(_, bytes)) => sink(Stream::Out, &bytes)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(End::PowerCut),
                Err(RecvTimeoutError::Timeout) => bail!("QEMU's channels outlive it"),
            }
        }
    }
}

/// The status in a complete line `exit N`.
fn exit_status(text: &str) -> Option<u8> {
    let complete = &text[..text.rfind('\n')?];
    complete.lines().find_map(|line| line.strip_prefix("exit ")?.parse().ok())
}

/// Reads a channel to its end, so that the guest never waits for a slow reader of the output.
fn read_all(name: &'static str, mut stream: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if events.send(Event::Data(name, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_counts_only_as_a_whole_line() {
        assert_eq!(exit_status("ready\nexit 3\n"), Some(3));
        assert_eq!(exit_status("exit 1"), None);
        assert_eq!(exit_status("exit 1\nexit"), Some(1));
        assert_eq!(exit_status("exit x\n"), None);
        assert_eq!(exit_status(""), None);
    }
}
