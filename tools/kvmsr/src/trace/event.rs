// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Parses the lines of `trace_pipe`.
//!
//! ```text
//!  CPU 0/KVM-1234    [002] d..1.  512.034567: kvm_msr: msr_read 10 = 0x123456 (#GP)
//!  CPU:2 [LOST 17 EVENTS]
//! ```
//!
//! The name of a thread can contain any bytes, up to 15, so lines are parsed from their end.

/// One access.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// The thread's name, if the kernel remembers it.
    pub comm: String,
    /// The thread.
    pub tid: u32,
    /// Its process, if the kernel was told to record it.
    pub tgid: Option<u32>,
    /// The CPU.
    pub cpu: u32,
    /// The time on the instance's clock, in microseconds.
    pub micros: u64,
    /// Whether it is a write.
    pub write: bool,
    /// The MSR.
    pub index: u32,
    /// The value; undefined for a read with #GP.
    pub value: u64,
    /// Whether it injected #GP.
    pub gp: bool,
}

/// A line of `trace_pipe`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// An access.
    Event(Event),
    /// Events of a CPU were lost, with their number if the kernel knows it.
    Lost {
        /// The CPU.
        cpu: u32,
        /// The number.
        count: Option<u64>,
    },
}

impl Line {
    /// Parses a line without its line break; none if it is neither.
    pub fn parse(line: &str) -> Option<Self> {
        parse_lost(line).or_else(|| parse_event(line).map(Line::Event))
    }
}

fn parse_lost(line: &str) -> Option<Line> {
    let rest = line.strip_prefix("CPU:")?;
    let (cpu, lost) = rest.split_once(' ')?;
    let lost = lost.strip_prefix("[LOST ")?.strip_suffix("EVENTS]")?.trim();

    Some(Line::Lost {
        cpu: cpu.parse().ok()?,
        count: if lost.is_empty() {
            None
        } else {
            Some(decimal(lost)?)
        },
    })
}

fn parse_event(line: &str) -> Option<Event> {
    const EVENT: &str = ": kvm_msr: msr_";
    let at = line.rfind(EVENT)?;
    let (head, access) = (line.get(..at)?, line.get(at + EVENT.len()..)?);

    // read 10 = 0x123456 (#GP)
    let (access, gp) = match access.strip_suffix(" (#GP)") {
        Some(access) => (access, true),
        None => (access, false),
    };
    let (access, value) = access.split_once(" = 0x")?;
    let (access, index) = access.split_once(' ')?;
    let write = match access {
        "read" => false,
        "write" => true,
        _ => return None,
    };

    // CPU 0/KVM-1234 ( 1230) [002] d..1. 512.034567
    let (head, rest) = head.rsplit_once('[')?;
    let (cpu, rest) = rest.split_once(']')?;
    let micros = micros(rest.split_whitespace().next_back()?)?;
    let (head, tgid) = match head.trim_end().strip_suffix(')') {
        Some(inner) => {
            let (head, tgid) = inner.rsplit_once('(')?;

            // Dashes mean unknown.
            (head, decimal(tgid.trim()))
        }
        None => (head, None),
    };
    let (comm, tid) = head.trim().rsplit_once('-')?;

    Some(Event {
        comm: comm.to_owned(),
        tid: decimal(tid)?,
        tgid,
        cpu: decimal(cpu)?,
        micros,
        write,
        index: hexadecimal(index)?.try_into().ok()?,
        value: hexadecimal(value)?,
        gp,
    })
}

/// Converts `512.034567` to microseconds.
fn micros(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;

    if micros.len() != 6 {
        return None;
    }
    decimal::<u64>(seconds)?
        .checked_mul(1_000_000)?
        .checked_add(decimal(micros)?)
}

/// Only digits: `parse()` would accept a sign.
pub(super) fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}

/// Like [`decimal`], but hexadecimal.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some(())?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(line: &str) -> Event {
        match Line::parse(line) {
            Some(Line::Event(event)) => event,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_access_is_taken_apart() {
        let line = "       CPU 0/KVM-1234    [002] d..1.   512.034567: kvm_msr: msr_read c0000080 \
                    = 0xd01";

        assert_eq!(
            event(line),
            Event {
                comm: "CPU 0/KVM".to_owned(),
                tid: 1234,
                tgid: None,
                cpu: 2,
                micros: 512_034_567,
                write: false,
                index: 0xc000_0080,
                value: 0xd01,
                gp: false,
            }
        );
    }

    #[test]
    fn gp_processes_and_odd_names() {
        let line = " a-b [9] (7) c-77      (     70) [015] ..... 1.000001: kvm_msr: msr_write 10 \
                    = 0xffffffffffffffff (#GP)";
        let parsed = event(line);

        assert_eq!(parsed.comm, "a-b [9] (7) c");
        assert_eq!((parsed.tid, parsed.tgid, parsed.cpu), (77, Some(70), 15));
        assert!(parsed.write && parsed.gp);
        assert_eq!(parsed.value, u64::MAX);
        let unknown = "           <...>-77      (-------) [000] ..... 1.000001: kvm_msr: msr_read \
                       10 = 0x0 (#GP)";
        assert_eq!(event(unknown).tgid, None);
        // Without the column of interrupts, as with noirq-info.
        let bare = "x-1       [000]     1.000001: kvm_msr: msr_read 10 = 0x0";
        assert_eq!(event(bare).tid, 1);
        // A name that looks like an event.
        let sly = ": kvm_msr: msr_-9       [000] ..... 1.000001: kvm_msr: msr_read 10 = 0x0";
        assert_eq!(event(sly).comm, ": kvm_msr: msr_");
    }

    #[test]
    fn lost_events_are_counted() {
        assert_eq!(
            Line::parse("CPU:3 [LOST 4711 EVENTS]"),
            Some(Line::Lost {
                cpu: 3,
                count: Some(4711)
            })
        );
        assert_eq!(
            Line::parse("CPU:0 [LOST EVENTS]"),
            Some(Line::Lost {
                cpu: 0,
                count: None
            })
        );
    }

    #[test]
    fn what_is_no_access_is_none() {
        for line in [
            "",
            "# tracer: nop",
            "x-1 [000] ..... 1.000001: kvm_exit: reason",
            "x-1 [000] ..... 1.000001: kvm_msr: msr_read 10",
            "x-1 [000] ..... 1.000001: kvm_msr: msr_peek 10 = 0x0",
            "x-1 [000] ..... 1.000001: kvm_msr: msr_read 100000000 = 0x0",
            "x-1 [000] ..... 1.000001: kvm_msr: msr_read +1 = 0x0",
            "x-1 [000] ..... 1.1: kvm_msr: msr_read 10 = 0x0",
            "x--1 [000] ..... 1.000001: kvm_msr: msr_read 10 = 0x",
            "CPU:3 [LOST x EVENTS]",
            "CPU:3 [LOST 99999999999999999999999 EVENTS]",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            let _ = Line::parse(&line);
        }

        #[test]
        fn no_damaged_line_makes_it_panic(
            at in 0usize..100,
            with in ".{0,4}",
        ) {
            let mut line = "  CPU 0/KVM-1234  (   12) [002] d..1. 512.034567: kvm_msr: msr_read 10 \
                            = 0x123456 (#GP)".to_owned();

            line.replace_range(at.min(line.len())..line.len().min(at + 2).max(at.min(line.len())), &with);
            let _ = Line::parse(&line);
        }

        #[test]
        fn every_access_comes_back(
            comm in "[ -~]{0,13}[!-~]",
            tid in 1u32..4_194_304,
            cpu in 0u32..8192,
            write: bool,
            index: u32,
            value: u64,
            gp: bool,
        ) {
            let access = if write { "write" } else { "read" };
            let end = if gp { " (#GP)" } else { "" };
            let line = format!(
                "{comm:>16}-{tid:<7} [{cpu:03}] ..... {:5}.{:06}: kvm_msr: msr_{access} {index:x} \
                 = {value:#x}{end}", 12, 345,
            );
            let parsed = event(&line);

            prop_assert_eq!(parsed.comm.as_str(), comm.trim());
            prop_assert_eq!((parsed.tid, parsed.cpu, parsed.write), (tid, cpu, write));
            prop_assert_eq!((parsed.index, parsed.value, parsed.gp), (index, value, gp));
            prop_assert_eq!(parsed.micros, 12_000_345);
        }
    }
}
