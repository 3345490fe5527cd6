// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr filter compile`

use std::io;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvmsr::filter;
use kvmsr::filter::Filter;
use kvmsr::filter::FilterFile;
use kvmsr::filter::Refused;
use kvmsr::filter::Runs;
use kvmsr::filter::Source;
use kvmsr::policy::Action;
use kvmsr::policy::Policy;

use crate::output::BAD;
use crate::output::Output;
use crate::output::styled;
use crate::output::table;
use crate::verbs::Found;

// Not a doc comment: clap would print it as the description of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kvmsr filter compile rules.txt
  kvmsr filter compile rules.txt --format c --name guest_msrs > guest_msrs.h
  kvmsr filter compile learned.json            what 'kvmsr learn' wrote
  printf 'default deny\\nallow read 0x10\\n' | kvmsr filter compile - --json

The number of ranges is the minimum. Exit code 1: the rules need more than
KVM's 16 ranges; the message suggests what to change.")]
pub struct Options {
    /// Rules, what 'kvmsr learn' wrote, or a filter to compile again; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Print a policy for kvm-msr.ko that denies the same, instead of a filter
    #[arg(long, conflicts_with_all = ["format", "name"])]
    policy: bool,
    /// The name in Rust and C
    #[arg(long, default_value = "msr_filter", value_name = "NAME", value_parser = identifier)]
    name: String,
}

/// How to print a filter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// For kvmsr and other programs; same as --json
    Json,
    /// For VmFd::set_msr_filter() of kvm-ioctls
    Rust,
    /// For ioctl(vm, KVM_X86_SET_MSR_FILTER, …)
    C,
}

/// A name that is valid in Rust and C.
fn identifier(name: &str) -> Result<String, String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');

    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(name.to_owned())
    } else {
        Err(
            "a name consists of letters, digits and '_', and does not start with a digit"
                .to_owned(),
        )
    }
}

pub fn run(options: &Options, output: &mut Output) -> anyhow::Result<Found> {
    let source = super::read(&options.file)?;
    let policy = source
        .policy()
        .with_context(|| super::name(&options.file))?;

    if options.policy {
        let rules = Policy::from_filter(&policy, Action::Gp);

        crate::verbs::policy::compile::print(&source, &rules, output)?;
        return Ok(Found::Nothing);
    }
    let (compiled, warnings) = match &source {
        Source::Rules(rules) => (filter::compile_rules(rules, &policy), rules.warnings()),
        Source::Filter(_) => (filter::compile(&policy), Vec::new()),
    };
    let filter = match compiled {
        Ok(filter) => filter,
        Err(refused) => {
            refuse(&refused, output)?;
            return Ok(Found::Something);
        }
    };

    if !output.json() && options.format != Format::Json {
        for warning in &warnings {
            output.note(warning);
        }
    }
    match options.format {
        Format::Rust if !output.json() => {
            output.text(filter::rust_source(&filter, &options.name))?;
        }
        Format::C if !output.json() => output.text(filter::c_source(&filter, &options.name))?,
        Format::Json if !output.json() => {
            let file = FilterFile::new(filter, warnings);

            output.text(format_args!("{}\n", serde_json::to_string_pretty(&file)?))?;
        }
        _ => {
            output.report(&FilterFile::new(filter, warnings), |file, to| {
                print(&file.clone().into(), to)
            })?;
        }
    }
    Ok(Found::Nothing)
}

fn print(filter: &Filter, to: &mut dyn Write) -> io::Result<()> {
    let unlike = filter.default.opposite();
    let mut ranges = table(&["Range", "Access", "MSRs", "Bits", &unlike.to_string()]);

    for (number, range) in filter.ranges.iter().enumerate() {
        ranges.add_row([
            number.to_string(),
            range.flags.to_string(),
            range.run().map(|run| run.to_string()).unwrap_or_default(),
            range.nmsrs.to_string(),
            abridged(&filter.unlike_default(range)),
        ]);
    }
    if !filter.ranges.is_empty() {
        writeln!(to, "{ranges}")?;
    }
    writeln!(
        to,
        "default {}; {} of {} ranges",
        filter.default,
        filter.ranges.len(),
        filter::MAX_RANGES
    )
}

/// The first runs, for people.
fn abridged(runs: &Runs) -> String {
    const SHOWN: usize = 8;
    let first: Vec<String> = runs.iter().take(SHOWN).map(|run| run.to_string()).collect();
    let more = runs.iter().skip(SHOWN).count();
    let first = first.join(" ");

    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

/// Prints why there is no filter.
fn refuse(refused: &Refused, output: &mut Output) -> anyhow::Result<()> {
    if output.json() {
        return output.report(refused, |_, _| Ok(()));
    }
    // Print as many as there are too many, and some more to choose from.
    let shown = refused.needs.map_or(0, |needs| needs - filter::MAX_RANGES) + 4;
    let mut clusters = table(&["MSRs", "Access", "From", "To", "By"]);

    for cluster in refused.clusters.iter().take(shown.min(32)) {
        let rules: Vec<String> = cluster.rules.iter().map(ToString::to_string).collect();

        clusters.add_row([
            cluster.msrs.to_string(),
            cluster.flags.to_string(),
            cluster.first.to_string(),
            cluster.last.to_string(),
            rules.join(", "),
        ]);
    }
    output.note(format_args!("{} {refused}", styled(BAD, "refused:")));
    if !refused.clusters.is_empty() {
        output.note(format_args!("groups with the fewest MSRs:\n{clusters}"));
    }
    Ok(())
}
