// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr generate`: man pages and shell completions, generated from the command line's
//! definition.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::Common;
use crate::output::Output;
use crate::verbs::Found;
use crate::verbs::man;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                        kvmsr generate man man1        kvmsr.1, kvmsr-get.1 and so on\n  \
                        kvmsr generate bash            completions, to source in the shell")]
pub struct Options {
    /// What to generate
    #[arg(value_enum)]
    what: What,
    /// The directory for the files, which is created. By default, completions go to standard
    /// output, and man pages to the current directory
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum What {
    /// kvmsr.1, and a page for each verb
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
    /// Completions for elvish
    Elvish,
    /// Completions for PowerShell
    Powershell,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> Result<Found> {
    if let Some(directory) = &options.directory {
        fs::create_dir_all(directory)
            .with_context(|| format!("can't make the directory {}", directory.display()))?;
    }
    let shell = match options.what {
        What::Man => {
            let directory = options.directory.as_deref().unwrap_or(Path::new("."));

            for (name, page) in man::pages(Cli::command())? {
                let path = directory.join(name);

                fs::write(&path, page)
                    .with_context(|| format!("can't write {}", path.display()))?;
            }
            return Ok(Found::Nothing);
        }
        What::Bash => Shell::Bash,
        What::Zsh => Shell::Zsh,
        What::Fish => Shell::Fish,
        What::Elvish => Shell::Elvish,
        What::Powershell => Shell::PowerShell,
    };

    match &options.directory {
        Some(directory) => {
            clap_complete::generate_to(shell, &mut Cli::command(), "kvmsr", directory)
                .with_context(|| format!("can't write to {}", directory.display()))?;
        }
        None => {
            let mut text = Vec::new();

            clap_complete::generate(shell, &mut Cli::command(), "kvmsr", &mut text);
            output.text(String::from_utf8_lossy(&text))?;
        }
    }
    Ok(Found::Nothing)
}
