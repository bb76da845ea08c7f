//! What is being done and for how long, on stderr.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const HEARTBEAT: Duration = Duration::from_secs(30);

/// A step that takes a while; dropped without [`Step::done`], it counts as failed.
pub(crate) struct Step {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
    heartbeat: Option<(Sender<()>, JoinHandle<()>)>,
    finished: bool,
}

impl Step {
    /// Announces a step, with a spinner on a terminal.
    pub(crate) fn begin(label: impl Into<String>) -> Self {
        let step = Self::plain(label, std::io::stderr().is_terminal());
        if let Some(bar) = &step.bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        step
    }

    /// Announces a step whose command draws on the terminal by itself.
    pub(crate) fn begin_quiet(label: impl Into<String>) -> Self {
        Self::plain(label, false)
    }

    fn plain(label: impl Into<String>, spinner: bool) -> Self {
        let label = label.into();
        let started = Instant::now();
        if spinner {
            let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(label.clone());
            return Self { label, started, bar: Some(bar), heartbeat: None, finished: false };
        }
        eprintln!("==> {label}");
        let (stop, stopped) = mpsc::channel();
        let name = label.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("    still {name} ({} s)", started.elapsed().as_secs());
            }
        });
        Self { label, started, bar: None, heartbeat: Some((stop, thread)), finished: false }
    }

    /// Shows a detail next to the spinner.
    pub(crate) fn note(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.to_owned());
        }
    }

    /// Ends the step well.
    pub(crate) fn done(mut self) {
        self.finished = true;
        self.stop();
        eprintln!("==> {}: done in {:.1} s", self.label, self.started.elapsed().as_secs_f32());
    }

    fn stop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some((stop, thread)) = self.heartbeat.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.stop();
        if !self.finished {
            eprintln!(
                "==> {}: FAILED after {:.1} s",
                self.label,
                self.started.elapsed().as_secs_f32()
            );
        }
    }
}
