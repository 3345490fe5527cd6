// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `kvmsr decode`

use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;

use kvmsr::Error;
use kvmsr::cpuid::Vendor;
use kvmsr::decode;
use kvmsr::decode::FieldReport;
use kvmsr::decode::Input;
use kvmsr::decode::MsrReport;
use kvmsr::decode::Radix;
use kvmsr::number::Hex;

use crate::Common;
use crate::output;
use crate::output::BOLD;
use crate::output::ODD;
use crate::output::Output;
use crate::output::styled;
use crate::verbs::Found;

/// The maximum size of standard input.
const MAX_INPUT: u64 = 64 << 20;

// The command line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without arguments, reads standard input: a line for each MSR ('MSR=VALUE', 'MSR: VALUE' or \
'MSR VALUE'), or a snapshot. With two values, the exit code is 1 if they differ.

Examples:
  kvmsr decode EFER=0xd01
  kvmsr decode IA32_VMX_MISC=0x7004c1e7 --all
  kvmsr decode 0xc0000080=0x500,0xd01
  echo 0x1a0 $(rdmsr 0x1a0) | kvmsr decode --hex
  kvmsr snapshot | kvmsr decode --json")]
pub struct Options {
    /// An MSR and its value; or two values to compare, as MSR=OLD,NEW
    #[arg(value_name = "MSR=VALUE")]
    values: Vec<String>,
    /// The vendor whose fields to use, if they differ between vendors
    #[arg(long, value_enum)]
    vendor: Option<Vendor>,
    /// Also show fields that are 0
    #[arg(long)]
    all: bool,
    /// Read values without 0x as hexadecimal, as rdmsr prints them
    #[arg(long)]
    hex: bool,
}

/// Runs the verb.
pub fn run(options: &Options, _common: &Common, output: &mut Output) -> anyhow::Result<Found> {
    let radix = if options.hex {
        Radix::Hexadecimal
    } else {
        Radix::Decimal
    };
    let (inputs, vendor) = if options.values.is_empty() {
        let (inputs, vendor) = decode::parse_text(&read()?, radix)?;

        (inputs, options.vendor.or(vendor))
    } else {
        let inputs = options
            .values
            .iter()
            .map(|text| decode::parse_argument(text, radix))
            .collect::<Result<Vec<_>, _>>()?;

        (inputs, options.vendor)
    };

    if inputs.is_empty() {
        return Err(Error::Input(
            "there is no MSR on standard input: use MSR=VALUE, e.g. EFER=0xd01".to_owned(),
        )
        .into());
    }
    let differs = |input: &Input| input.new.is_some_and(|new| new != input.value);

    output.report(&decode::decode(&inputs, vendor), |report, to| {
        for (at, msr) in report.msrs.iter().enumerate() {
            if at > 0 {
                writeln!(to)?;
            }
            print(msr, options.all, to)?;
        }
        Ok(())
    })?;
    Ok(inputs.iter().any(differs).into())
}

fn read() -> anyhow::Result<String> {
    let stdin = io::stdin();
    let mut text = String::new();

    if stdin.is_terminal() {
        return Err(Error::Input(
            "no MSR is given: use MSR=VALUE, e.g. EFER=0xd01, or pipe in a list".to_owned(),
        )
        .into());
    }
    let bytes = stdin
        .take(MAX_INPUT + 1)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::Input(
                "standard input is not text: pipe in lines of an MSR and a value, or a snapshot"
                    .to_owned(),
            ),
            _ => Error::io("read standard input")(error),
        })?;

    if bytes as u64 > MAX_INPUT {
        return Err(Error::Input("standard input has more than 64 MiB".to_owned()).into());
    }
    Ok(text)
}

fn print(msr: &MsrReport, all: bool, to: &mut dyn Write) -> io::Result<()> {
    let name = match &msr.name {
        Some(name) => format!("{name} ({})", msr.index),
        None => msr.index.to_string(),
    };
    let value = match msr.new {
        Some(new) => format!("{} -> {new}", msr.value),
        None => msr.value.to_string(),
    };
    let shown: Vec<_> = msr
        .fields
        .iter()
        .filter(|field| all || msr.new.is_some() || is_told(field))
        .collect();

    writeln!(to, "{} = {value}", styled(BOLD, name))?;
    if !shown.is_empty() {
        let mixed = shown.iter().any(|field| field.only.is_some());
        let heads = ["  Bits", "Field", "Value", "Only"];
        let mut table = output::table(if mixed { &heads } else { &heads[..3] });

        for field in shown {
            let mut row = vec![
                format!("  {}", field.bits),
                field.name.to_owned(),
                values(field),
            ];

            if mixed {
                row.push(field.only.clone().unwrap_or_default());
            }
            table.add_row(row);
        }
        writeln!(to, "{}", table.trim_fmt())?;
    }
    match (msr.undefined, msr.new) {
        (Hex(0), None) if msr.value == Hex(0) => writeln!(to, "  no bit is set"),
        (Hex(0), Some(new)) if new == msr.value => writeln!(to, "  nothing differs"),
        (Hex(0), _) => Ok(()),
        (undefined, _) => writeln!(
            to,
            "  {}",
            styled(
                ODD,
                format_args!("{undefined}: unknown bits, maybe reserved")
            )
        ),
    }
}

/// Whether to print a field: it is not 0, or 0 has a meaning.
fn is_told(field: &FieldReport) -> bool {
    field.value != Hex(0) || field.meaning.is_some()
}

fn values(field: &FieldReport) -> String {
    let shown = |value: Hex<u64>, meaning: Option<&str>| match meaning {
        Some(meaning) => format!("{value} {meaning}"),
        None => value.to_string(),
    };
    let old = shown(field.value, field.meaning);

    match field.new {
        Some(new) => format!("{old} -> {}", shown(new, field.new_meaning)),
        None => old,
    }
}
