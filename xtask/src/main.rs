//! Developer commands: tests on real ZFS in a virtual machine, lints, benchmarks.

mod bench;
mod bindings;
mod cache;
mod command;
mod console;
mod crash;
mod demo;
mod guest;
mod host;
mod image;
mod libtest;
mod lines;
mod lint;
mod measured;
mod mirror;
mod msrv;
mod payload;
mod process;
mod progress;
mod qemu;
mod suite;
mod sysroot;
mod terminal;
mod test;
mod tree;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cache::Cache;

/// Developer commands of zfs-txn.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command, or without one a root shell, in a virtual machine with ZFS.
    Vm {
        /// The OpenZFS release line.
        #[arg(long, default_value = "2.3")]
        zfs: String,
        /// The longest that the command may take, in seconds.
        #[arg(long, default_value_t = 1800)]
        timeout: u64,
        /// A raw disk image to attach; what is written to it stays. The first one is /dev/vdc.
        #[arg(long = "disk", value_name = "FILE")]
        disks: Vec<PathBuf>,
        /// The command and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run all tests, those that need ZFS in a virtual machine.
    Test {
        /// The OpenZFS release line, or several with commas between them, or `all`: the first one is tested in
        /// full, each other one by what depends on kernel and module most.
        #[arg(long, default_value = "2.3")]
        zfs: String,
        /// Only the tests whose name contains this.
        filter: Option<String>,
    },
    /// On each line run the tests of what kernel and module do, 200 commits of each strategy under readers, and 50
    /// power cuts, and write what came of it into the table in README.md.
    Lines {
        /// The OpenZFS release line, or several with commas between them, or `all`.
        #[arg(long, default_value = "all")]
        zfs: String,
    },
    /// Check format, lints, documentation, bindings and the oldest supported compiler.
    Lint,
    /// Write the bindings to OpenZFS's C libraries anew.
    Bindings,
    /// Publish a directory, by default this project's sources, in a virtual machine; then commit under
    /// readers that verify all they see.
    Demo {
        /// The OpenZFS release line.
        #[arg(long, default_value = "2.3")]
        zfs: String,
        /// How many commits land under readers.
        #[arg(long, default_value_t = 50)]
        commits: u64,
        /// How many reads there are to be at least, with more commits if need be.
        #[arg(long, default_value_t = 0)]
        reads: u64,
        /// How these commits become visible: promote, in-place, or both in turn.
        #[arg(long, default_value = "both")]
        strategy: String,
        /// The directory to copy into the virtual machine, of at most 512 MiB.
        dir: Option<PathBuf>,
    },
    /// Cut the power of a virtual machine while transactions run, recover, and check what is there.
    Crash {
        /// The OpenZFS release line.
        #[arg(long, default_value = "2.3")]
        zfs: String,
        /// How often to cut the power.
        #[arg(long, default_value_t = 20)]
        cuts: u64,
        /// The seed of all that is random, of an earlier run to repeat.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run the benchmarks in a virtual machine.
    Bench {
        /// The OpenZFS release line.
        #[arg(long, default_value = "2.3")]
        zfs: String,
        /// Only the one of this name.
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let cache = Cache::open()?;
    host::prepare(&cache, matches!(command, Command::Lint | Command::Bindings))?;
    match command {
        Command::Vm { zfs, timeout, disks, command } => {
            command::run(&cache, lines::find(&zfs)?, timeout, &disks, &command)
        }
        Command::Test { zfs, filter } => {
            test::run(&cache, &lines::chosen(&zfs)?, filter.as_deref())
        }
        Command::Lines { zfs } => measured::run(&cache, &lines::chosen(&zfs)?),
        Command::Lint => lint::run(&cache, &lines::LINES[0]),
        Command::Bindings => {
            bindings::write(&tree::root(&cache, &lines::LINES[0])?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo { zfs, commits, reads, strategy, dir } => {
            let show = demo::Show { commits, reads, strategy: &strategy };
            Ok(demo::run(&cache, lines::find(&zfs)?, &show, dir.as_deref())?.code())
        }
        Command::Crash { zfs, cuts, seed } => {
            Ok(crash::run(&cache, lines::find(&zfs)?, cuts, seed)?.code())
        }
        Command::Bench { zfs, name } => bench::run(&cache, lines::find(&zfs)?, name.as_deref()),
    }
}
