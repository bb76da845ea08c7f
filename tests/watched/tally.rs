//! What readers have met, counted.

use std::time::Duration;

/// How many problems are told in words.
const TOLD: usize = 5;
const MIXED: &str = "mixed: ";

/// What one reader, or several, have met.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Files read and verified, status and directories asked for.
    pub(crate) reads: u64,
    /// What the kernel refused.
    pub(crate) failed: u64,
    /// What was not wholly one generation, or older than what was read before.
    pub(crate) mixed: u64,
    /// Passes over the files during which a commit has landed.
    pub(crate) crossings: u64,
    /// The longest that one read took.
    pub(crate) longest: Duration,
    pub(crate) problems: Vec<String>,
}

impl Tally {
    pub(crate) fn problem(&mut self, problem: String) {
        // However many reads have failed, what was mixed is told.
        let at = if problem.starts_with(MIXED) { 0 } else { self.problems.len() };
        self.problems.insert(at, problem);
        self.problems.truncate(TOLD);
    }

    pub(crate) fn fail(&mut self, problem: String) {
        self.failed += 1;
        self.problem(problem);
    }

    pub(crate) fn mix(&mut self, problem: String) {
        self.mixed += 1;
        self.problem(format!("{MIXED}{problem}"));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.failed += other.failed;
        self.mixed += other.mixed;
        self.crossings += other.crossings;
        self.longest = self.longest.max(other.longest);
        other.problems.iter().for_each(|problem| self.problem(problem.clone()));
    }

    /// A line for the process that has started this one.
    pub(crate) fn line(&self) -> String {
        let numbers =
            [self.reads, self.failed, self.mixed, self.crossings, self.longest.as_micros() as u64];
        let numbers = numbers.map(|number| number.to_string()).join(" ");
        format!("{numbers}\t{}", self.problems.join("\t"))
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split('\t');
        let numbers: Result<Vec<u64>, _> = parts.next()?.split(' ').map(str::parse).collect();
        let [reads, failed, mixed, crossings, longest] = numbers.ok()?[..] else { return None };
        let problems = parts.filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let longest = Duration::from_micros(longest);
        Some(Self { reads, failed, mixed, crossings, longest, problems })
    }
}
