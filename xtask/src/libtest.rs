//! What Rust's test programs print.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many tests of a program run at once.
pub(crate) const THREADS: usize = 2;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed.
    Ok,
    /// It failed.
    Failed,
    /// It did not run.
    Ignored,
}

/// The tests that a program lists with `--list --format terse`.
pub(crate) fn listed(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(|name| plain(name).to_owned()).collect()
}

/// A name without what some listings and some results add to it: rustdoc names examples that are
/// only compiled with a suffix, but not in every listing.
fn plain(name: &str) -> &str {
    let suffixes = [" - should panic", " - compile fail", " - compile"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// The name and outcome in a line `test NAME ... OUTCOME`.
fn result(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome {
        "ok" => Outcome::Ok,
        "FAILED" => Outcome::Failed,
        other if other.starts_with("ignored") || other.starts_with("FAILED") => {
            if other.starts_with("ignored") { Outcome::Ignored } else { Outcome::Failed }
        }
        _ => return None,
    };
    Some((plain(name), outcome))
}

/// Begins a line that a test writes for whoever watches, though it passes.
const FIGURES: &str = "figures: ";

/// Follows the output of one test program and holds it to what it listed.
#[derive(Debug)]
pub(crate) struct Watch {
    label: String,
    order: Vec<String>,
    outcomes: HashMap<String, Outcome>,
    started: Instant,
    ends: Vec<Instant>,
    wrong: Vec<String>,
    details: Vec<String>,
}

/// The verdict on a test program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How many tests passed.
    pub(crate) passed: usize,
    /// What failed, by name.
    pub(crate) failed: Vec<String>,
    /// What the program printed about its failures.
    pub(crate) details: String,
}

impl Watch {
    /// Expects a result for each of `names`; starts the clock.
    pub(crate) fn new(label: &str, names: &[String]) -> Self {
        Self {
            label: label.to_owned(),
            order: names.to_owned(),
            outcomes: HashMap::new(),
            started: Instant::now(),
            ends: Vec::new(),
            wrong: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Starts the clock again.
    pub(crate) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// Takes a line of output; returns what to show of it.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(figures) = line.strip_prefix(FIGURES) {
            return Some(format!("{:<5} {figures}", self.label));
        }
        let Some((name, outcome)) = result(line) else {
            self.details.push(line.to_owned());
            return None;
        };
        let Some(index) = self.order.iter().position(|listed| listed == name) else {
            self.wrong.push(format!("{name} (ran but was not listed)"));
            return None;
        };
        if self.outcomes.insert(name.to_owned(), outcome).is_some() {
            self.wrong.push(format!("{name} (reported twice)"));
        }
        let took = self.took(index);
        let word = match outcome {
            Outcome::Ok => "ok    ",
            Outcome::Failed => "FAILED",
            Outcome::Ignored => "IGNORED",
        };
        Some(format!("{:<5} {word} {name} ({:.1}s)", self.label, took.as_secs_f32()))
    }

    /// Takes what a program that has ended left of a line.
    pub(crate) fn end(&mut self, lines: &Lines) {
        if !lines.partial.is_empty() {
            self.details.push(String::from_utf8_lossy(&lines.partial).into_owned());
        }
    }

    /// How long the test at `index` took: tests start in order, as soon as a thread is free.
    fn took(&mut self, index: usize) -> Duration {
        let now = Instant::now();
        let freed = index.checked_sub(THREADS).and_then(|earlier| self.ends.get(earlier));
        let start = freed.copied().unwrap_or(self.started);
        self.ends.push(now);
        now.duration_since(start)
    }

    /// The verdict, where `status` is the program's exit status if it ended by itself.
    pub(crate) fn verdict(self, status: Option<i32>) -> Verdict {
        let mut verdict = Verdict { failed: self.wrong, ..Verdict::default() };
        for name in &self.order {
            match self.outcomes.get(name) {
                Some(Outcome::Ok) => verdict.passed += 1,
                Some(Outcome::Failed) => verdict.failed.push(name.clone()),
                Some(Outcome::Ignored) => verdict.failed.push(format!("{name} (ignored)")),
                None => verdict.failed.push(format!("{name} (no result)")),
            }
        }
        if status != Some(0) && verdict.failed.is_empty() {
            let status = status.map_or("none".to_owned(), |status| status.to_string());
            verdict.failed.push(format!("the test program itself (exit status: {status})"));
        }
        if !verdict.failed.is_empty() {
            verdict.details = self.details.join("\n");
        }
        for failure in &mut verdict.failed {
            *failure = format!("{:<5} {failure}", self.label);
        }
        verdict
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(names: &[&str]) -> Watch {
        Watch::new("host", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_listing_is_read() {
        let text = "a::b: test\nbench_c: benchmark\nsrc/lib.rs - f (line 3) - compile: test\n";
        assert_eq!(listed(text), ["a::b", "src/lib.rs - f (line 3)"]);
    }

    #[test]
    fn result_lines_are_read() {
        assert_eq!(result("test a::b ... ok"), Some(("a::b", Outcome::Ok)));
        assert_eq!(result("test a::b ... FAILED"), Some(("a::b", Outcome::Failed)));
        assert_eq!(result("test a ... ignored, needs x"), Some(("a", Outcome::Ignored)));
        assert_eq!(result("test a - should panic ... ok"), Some(("a", Outcome::Ok)));
        assert_eq!(
            result("test src/lib.rs - f (line 3) ... ok").unwrap().0,
            "src/lib.rs - f (line 3)"
        );
        for line in
            ["running 2 tests", "test result: ok. 2 passed; 0 failed", "test a ... 5 ns", ""]
        {
            assert_eq!(result(line), None, "{line}");
        }
    }

    #[test]
    fn each_listed_test_must_pass_exactly_once() {
        let mut watch = watch(&["a", "b", "c", "d"]);
        assert!(watch.line("test a ... ok").unwrap().starts_with("host  ok     a ("));
        watch.line("test b ... ignored");
        watch.line("test c ... FAILED");
        watch.line("test e ... ok");
        watch.line("test a ... ok");
        watch.line("---- c stdout ----");
        let verdict = watch.verdict(Some(101));
        assert_eq!(verdict.passed, 1);
        let names: Vec<_> = verdict.failed.iter().map(|name| &name[6..]).collect();
        assert_eq!(
            names,
            [
                "e (ran but was not listed)",
                "a (reported twice)",
                "b (ignored)",
                "c",
                "d (no result)"
            ]
        );
        assert_eq!(verdict.details, "---- c stdout ----");
    }

    #[test]
    fn figures_are_shown_and_decide_nothing() {
        let mut watch = watch(&["a"]);
        let shown = watch.line("figures: 3 rounds of 8");
        assert_eq!(shown.as_deref(), Some("host  3 rounds of 8"));
        watch.line("test a ... ok");
        assert_eq!(watch.verdict(Some(0)), Verdict { passed: 1, ..Verdict::default() });
    }

    #[test]
    fn a_program_that_fails_after_its_tests_fails() {
        for status in [Some(134), None] {
            let mut watch = watch(&["a"]);
            watch.line("test a ... ok");
            assert_eq!(watch.verdict(status).failed.len(), 1);
        }
        let mut watch = watch(&["a"]);
        watch.line("test a ... ok");
        assert_eq!(watch.verdict(Some(0)), Verdict { passed: 1, ..Verdict::default() });
    }

    #[test]
    fn what_a_program_printed_before_it_died_is_shown() {
        let (mut watch, mut lines) = (watch(&["a", "b"]), Lines::default());
        for line in lines.feed(b"test a ... ok\nabout b\nmore ab") {
            watch.line(&line);
        }
        watch.end(&lines);
        assert_eq!(watch.verdict(None).details, "about b\nmore ab");
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"te").is_empty());
        assert_eq!(lines.feed(b"st a\nb\nc"), ["test a", "b"]);
        assert_eq!(lines.feed(b"\n"), ["c"]);
    }
}
