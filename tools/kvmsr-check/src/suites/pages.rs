// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The pages of Documentation/kvmsr: runs all commands in them as written.
//!
//! A command is a line of a literal block that starts with `$ `, together with the following lines
//! that start with `> `, as in a shell session.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::ensure;

use crate::report::Report;
use crate::run::Kvmsr;

/// Commands that exit with 1, as the page says. All others have to exit with 0.
const FINDS: &[&str] = &["kvmsr check bad.json", "kvmsr filter lint"];

/// A command that exits with 1 on hosts with performance counters.
const MAY_FIND: &str = "kvmsr diff";

/// The pages with commands.
const TASKS: &[&str] = &[
    "minimal-filter.rst",
    "one-guest-ignore-msrs.rst",
    "restore-refused.rst",
    "which-msrs.rst",
    "write-a-filter.rst",
];

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    let mut pages = match pages(&kvmsr.file("pages")) {
        Ok(pages) => pages,
        Err(error) => return report.test("are there", || Err(error)),
    };

    pages.sort();
    for page in pages {
        let name = page
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();

        report.test(&name, || {
            let (done, count) = follow(&page)?;

            ensure!(
                count > 0 || !TASKS.contains(&name.as_str()),
                "it has no commands"
            );
            Ok(done)
        });
    }
}

fn pages(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::read_dir(directory)
        .with_context(|| format!("read {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// Runs a page's commands, in a directory of their own.
fn follow(page: &Path) -> anyhow::Result<(String, usize)> {
    let text = fs::read_to_string(page)?;
    let directory = std::env::temp_dir().join(page.file_stem().unwrap_or_default());
    let commands = commands(&text);

    fs::create_dir_all(&directory)?;
    for command in &commands {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(&directory)
            .output()?;
        let code = output.status.code();

        let expected = i32::from(FINDS.iter().any(|finds| command.starts_with(finds)));

        ensure!(
            code == Some(expected) || command.starts_with(MAY_FIND) && code == Some(1),
            "`{command}` exited with {code:?}, not {expected}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok((format!("{} commands", commands.len()), commands.len()))
}

fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;

    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim_start();

        if let Some(command) = line.strip_prefix("$ ").filter(|_| indented) {
            commands.push(command.to_owned());
            open = true;
        } else if let (true, Some(last), Some(more)) =
            (open, commands.last_mut(), line.strip_prefix('>'))
        {
            last.push('\n');
            last.push_str(more.strip_prefix(' ').unwrap_or(more));
        } else {
            open = false;
        }
    }
    commands
}
