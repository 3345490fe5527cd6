// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Histogram triggers: the kernel counts by thread, MSR and kind of access.
//!
//! ```text
//! { common_pid: CPU 0/KVM       [      1234], ecx: c0000080, write:          0 } hitcount:         10  exception:          0
//!
//! Totals:
//!     Hits: 10
//!     Entries: 1
//!     Dropped: 0
//! ```
//!
//! A histogram has up to three keys, so the number of #GPs is a sum beside the count.

use super::event::decimal;
use super::event::hexadecimal;

/// The maximum number of combinations of thread, MSR and kind of access in the kernel. It
/// allocates the memory at once: some 8 MiB.
const SIZE: u32 = 16384;

/// The text for the event's file `trigger`.
pub fn trigger(filter: Option<&str>) -> String {
    let trigger =
        format!("hist:keys=common_pid.execname,ecx.hex,write:vals=hitcount,exception:size={SIZE}");

    match filter {
        Some(filter) => format!("{trigger} if {filter}"),
        None => trigger,
    }
}

/// One line of a histogram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bin {
    /// The thread's name.
    pub comm: String,
    /// The thread.
    pub tid: u32,
    /// The MSR.
    pub index: u32,
    /// Whether these are writes.
    pub write: bool,
    /// The number of accesses.
    pub hits: u64,
    /// The number of accesses with #GP.
    pub gp: u64,
}

impl Bin {
    /// Parses a line; none if it is another kind of line.
    pub fn parse(line: &str) -> Option<Self> {
        // The name of a thread can contain any bytes, even a part of such a line.
        let (keys, values) = line.rsplit_once(" } hitcount:")?;
        let (hits, gp) = values.split_once(" exception:")?;
        let (keys, write) = keys.rsplit_once(", write:")?;
        let (keys, index) = keys.rsplit_once(", ecx:")?;
        let (comm, tid) = keys.strip_suffix(']')?.rsplit_once('[')?;
        let comm = comm.strip_prefix("{ common_pid:").unwrap_or(comm);

        Some(Bin {
            comm: comm.trim().to_owned(),
            tid: decimal(tid.trim())?,
            index: hexadecimal(index.trim())?.try_into().ok()?,
            write: match write.trim() {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            hits: decimal(hits.trim())?,
            gp: decimal(gp.trim())?,
        })
    }
}

/// The number of events for which the kernel had no room.
pub fn dropped(text: &str) -> u64 {
    text.lines()
        .rev()
        .find_map(|line| decimal(line.trim().strip_prefix("Dropped:")?.trim()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "{ common_pid: CPU 0/KVM       [      1234], ecx: c0000080, write:          \
                        1 } hitcount:         10  exception:          3";

    #[test]
    fn a_line_is_taken_apart() {
        let bin = Bin {
            comm: "CPU 0/KVM".to_owned(),
            tid: 1234,
            index: 0xc000_0080,
            write: true,
            hits: 10,
            gp: 3,
        };

        assert_eq!(Bin::parse(LINE), Some(bin.clone()));
        // The rest of a thread's name that contains a line break.
        assert_eq!(
            Bin::parse(LINE.strip_prefix("{ common_pid: CPU 0").unwrap()),
            Some(Bin {
                comm: "/KVM".to_owned(),
                ..bin
            })
        );
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "# event histogram",
            "    Hits: 10",
            "{ common_pid: x [ 1 ], ecx: 10, write: 2 } hitcount: 1  exception: 0",
            "{ common_pid: x [ 1], ecx: 100000000, write: 1 } hitcount: 1  exception: 0",
            "{ common_pid: x [ 1], ecx: 10, write: 1 } hitcount: -1  exception: 0",
        ] {
            assert_eq!(Bin::parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_dropped_is_found() {
        let text = format!("{LINE}\n\nTotals:\n    Hits: 10\n    Entries: 1\n    Dropped: 12\n");

        assert_eq!(dropped(&text), 12);
        assert_eq!(dropped(LINE), 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", at in 0usize..120, with in ".{0,4}") {
            let _ = (Bin::parse(&text), dropped(&text));
            let mut line = LINE.to_owned();

            line.replace_range(at.min(line.len())..(at + 2).min(line.len()).max(at.min(line.len())), &with);
            let _ = Bin::parse(&line);
        }
    }
}
