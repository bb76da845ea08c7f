//! `cargo xtask lines`: on each line the tests of what kernel and module do, commits under readers and power cuts;
//! and the table in README that says what came of them. A row is written when all of a line has been run, or can't be.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::demo::Show;
use crate::lines::Line;
use crate::{crash, demo, process, sysroot, test};

/// Commits under readers, of each strategy.
const COMMITS: u64 = 200;
const CUTS: u64 = 50;
const BEGIN: &str = "<!-- written by cargo xtask lines -->\n";
const END: &str = "<!-- the end of it -->";
const HEAD: &str = "\
| `--zfs` | OpenZFS, Linux | tests passed, failed | can't | promote under readers | in place under readers | power cuts | at |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

/// Runs all of it on each of `lines`, one after the other.
pub(crate) fn run(cache: &Cache, lines: &[&Line]) -> Result<ExitCode> {
    let readme = sysroot::checkout().join("README.md");
    let commit = commit()?;
    let mut code = ExitCode::SUCCESS;
    for line in lines {
        let row = match measured(cache, line, &commit) {
            Ok((row, fine)) => {
                if !fine {
                    code = ExitCode::FAILURE;
                }
                row
            }
            // Not passed, and not left out either.
            Err(error) => {
                eprintln!("error: {error:#}");
                code = ExitCode::FAILURE;
                let reason = format!("{error:#}").replace('|', "/");
                let reason = reason.lines().next().unwrap_or_default();
                format!("| `{}` | missing: {reason} | | | | | | {commit} |\n", line.zfs)
            }
        };
        write(&readme, line, &row)?;
        print!("{row}");
    }
    Ok(code)
}

/// The line's row, and whether all is as it should be.
fn measured(cache: &Cache, line: &Line, commit: &str) -> Result<(String, bool)> {
    let tests = test::of_line(cache, line)?;
    let shown = |strategy| {
        let show = Show { commits: COMMITS, reads: 0, strategy };
        demo::run(cache, line, &show, None)
    };
    let (promote, in_place) = (shown("promote")?, shown("in-place")?);
    let cuts = crash::run(cache, line, CUTS, None)?;
    let fine = tests.failed == 0 && tests.passed > 0 && promote.fine && in_place.fine && cuts.fine;
    let row = format!(
        "| `{}` | {}, {} | {}, {} | {} | {} | {} | {} | {commit} |\n",
        line.zfs,
        tests.zfs,
        tests.kernel,
        tests.passed,
        tests.failed,
        unable(&promote.said),
        told(closing(&promote.said)?, promote.fine),
        told(closing(&in_place.said)?, in_place.fine),
        told(&cuts.said, cuts.fine)
    );
    Ok((row, fine))
}

/// What a run has said, and that it has failed: it may have ended before it was through.
fn told(said: &str, fine: bool) -> String {
    let failed = if fine { "" } else { " (failed)" };
    format!("{said}{failed}")
}

/// What the demonstration says of the machine's capabilities that it lacks.
fn unable(said: &str) -> String {
    let lacking: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_suffix(": no"))
        .filter(|what| *what != "in a container")
        .collect();
    if lacking.is_empty() { "-".to_owned() } else { lacking.join("; ") }
}

/// The demonstration's last line about the crate's own commits.
fn closing(said: &str) -> Result<&str> {
    let last = said.lines().rev().find_map(|line| line.strip_prefix("demo: "));
    last.context("the demonstration has no closing line")
}

/// The commit that is measured.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        process::output(git.arg("-C").arg(sysroot::checkout()).args(arguments))
    };
    let commit = git(&["rev-parse", "--short=7", "HEAD"])?.trim().to_owned();
    // But for the table itself.
    let changed = git(&["status", "--porcelain", "--", ".", ":!README.md"])?;
    Ok(if changed.is_empty() { commit } else { format!("{commit}, changed") })
}

/// Puts a row into the table, in place of the line's earlier one.
fn write(readme: &Path, line: &Line, row: &str) -> Result<()> {
    let text = std::fs::read_to_string(readme).context("reading README.md")?;
    let text =
        with_row(&text, line.zfs, row).context("README.md has no place for the table of lines")?;
    std::fs::write(readme, text).context("writing README.md")
}

fn with_row(text: &str, name: &str, row: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    let start = format!("| `{name}` |");
    let mut rows: Vec<String> = table
        .lines()
        .skip(2)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    match rows.iter_mut().find(|line| line.starts_with(&start)) {
        Some(earlier) => row.clone_into(earlier),
        None => rows.push(row.to_owned()),
    }
    Some(format!("{before}{BEGIN}{HEAD}{}{END}{after}", rows.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_the_lines_earlier_one() {
        let text = format!("a\n{BEGIN}{HEAD}| `1` | x |\n| `2` | y |\n{END}\nb\n");
        let one = with_row(&text, "1", "| `1` | z |\n").unwrap();
        assert_eq!(one, text.replace("| x |", "| z |"));
        let three = with_row(&text, "3", "| `3` | z |\n").unwrap();
        assert_eq!(three, text.replace(END, &format!("| `3` | z |\n{END}")));
        assert_eq!(with_row("no table", "1", ""), None);
    }

    #[test]
    fn the_first_row_makes_the_table() {
        let text = format!("a\n{BEGIN}{END}\n");
        let row = "| `1` | x |\n";
        assert_eq!(with_row(&text, "1", row).unwrap(), format!("a\n{BEGIN}{HEAD}{row}{END}\n"));
    }

    #[test]
    fn what_is_said_is_read() {
        let said =
            "in a container: no\nswaps: no\nzfs commands: 1 commits\ndemo: 9 commits, 5 reads\n";
        assert_eq!(unable(said), "swaps");
        assert_eq!(closing(said).unwrap(), "9 commits, 5 reads");
        assert!(closing("").is_err());
        assert_eq!(told("19 cuts", false), "19 cuts (failed)");
        assert_eq!(told("50 cuts", true), "50 cuts");
    }
}
