//! This process's terminal as the guest's.

use std::io::{IsTerminal, Read, Write, stdin};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::vm::Event;

/// Ctrl-], which stops a run whose guest no longer answers.
const QUIT: u8 = 0x1d;
/// Ctrl-D, the end of input on a terminal.
const END: u8 = 0x04;
/// How often the end of input is repeated: a program in the guest may take one for itself.
const REPEAT: Duration = Duration::from_secs(1);
/// The longest run after the end of input, in repeats.
const REPEATS: u32 = 24 * 60 * 60;

/// Raw mode of a terminal, ended when dropped; nothing where stdin is no terminal.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Passes every key on, also Ctrl-C.
    pub(crate) fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(stdin()).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).context("setting the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Shell commands that give the guest's terminal the size and kind of this one.
pub(crate) fn setup() -> String {
    let kind = std::env::var("TERM").unwrap_or_default();
    let known =
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let kind = if known { &kind } else { "vt100" };
    let size = match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            format!("stty rows {} cols {}\n", size.ws_row, size.ws_col)
        }
        _ => String::new(),
    };
    format!("export TERM={kind}\n{size}")
}

/// Sends this process's input to the guest, in the background.
pub(crate) fn forward(mut guest: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdin().read(&mut buffer) {
            let bytes = &buffer[..count];
            if bytes.contains(&QUIT) && stdin().is_terminal() {
                let _ = events.send(Event::Quit);
                return;
            }
            if guest.write_all(bytes).is_err() {
                return;
            }
        }
        for _ in 0..REPEATS {
            std::thread::sleep(REPEAT);
            if guest.write_all(&[END]).is_err() {
                return;
            }
        }
    });
}
