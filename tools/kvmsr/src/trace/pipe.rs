// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reads the events one by one.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;

use super::event::Line;
use super::tracefs;
use super::tracefs::Instance;
use crate::error::Error;
use crate::error::Result;

/// A longer line is not an event.
const MAX_LINE: usize = 4096;

/// The number of reads, of about a page each, before returning.
const READS: u32 = 8;

/// The stream of an instance's events.
#[derive(Debug)]
pub struct Pipe {
    file: File,
    path: PathBuf,
    // The beginning of an incomplete line.
    rest: Vec<u8>,
}

impl Pipe {
    /// Enables events, with a buffer of `buffer` KiB per CPU, and opens their stream.
    pub fn new(instance: &Instance, buffer: u32, filter: Option<&str>) -> Result<Self> {
        let event = |file: &str, text: &str| tracefs::write(&instance.event(file), text);

        tracefs::write(&instance.path("buffer_size_kb"), &buffer.to_string())?;
        // An instance starts with the system's options, which others may have changed. Older
        // kernels lack some of them.
        for option in [
            "noraw",
            "nohex",
            "nobin",
            "noverbose",
            "nofields",
            "nostacktrace",
            "nolatency-format",
            "noprint-parent",
            "context-info",
            "irq-info",
            "record-tgid",
        ] {
            let _ = tracefs::write(&instance.path("trace_options"), option);
        }
        // One clock for all CPUs, which other programs also use for logs.
        let _ = tracefs::write(&instance.path("trace_clock"), "mono");
        if let Some(filter) = filter {
            event("filter", filter)?;
        }
        let pipe = Pipe {
            file: instance.open_pipe()?,
            path: instance.path("trace_pipe"),
            rest: Vec::new(),
        };

        event("enable", "1")?;
        Ok(pipe)
    }

    /// Reports lines, up to some number of reads, so that the caller can look up threads before
    /// they end. Returns whether there may be more.
    pub fn read(&mut self, mut each: impl FnMut(Line)) -> Result<bool> {
        let mut block = vec![0; 64 << 10];

        for _ in 0..READS {
            let size = match self.file.read(&mut block) {
                Ok(0) => return Ok(false),
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
                Err(error) => {
                    return Err(Error::io(format!("read {}", self.path.display()))(error));
                }
            };

            feed(
                &mut self.rest,
                block.get(..size).unwrap_or_default(),
                &mut each,
            );
        }
        Ok(true)
    }
}

fn feed(rest: &mut Vec<u8>, block: &[u8], each: &mut impl FnMut(Line)) {
    for part in block.split_inclusive(|&byte| byte == b'\n') {
        rest.extend_from_slice(part);
        if part.ends_with(b"\n") {
            if let Some(line) = Line::parse(String::from_utf8_lossy(rest).trim_end()) {
                each(line);
            }
            rest.clear();
        } else if rest.len() > MAX_LINE {
            rest.clear();
        }
    }
}

/// The number of events that an instance's buffers have lost.
pub fn lost(instance: &Instance) -> Result<u64> {
    let directory = instance.path("per_cpu");
    let entries = std::fs::read_dir(&directory)
        .map_err(Error::io(format!("read {}", directory.display())))?;
    let mut lost = 0u64;

    for entry in entries.flatten() {
        // A CPU that was removed.
        let Ok(stats) = tracefs::read(&entry.path().join("stats")) else {
            continue;
        };

        lost = lost.saturating_add(lost_of(&stats));
    }
    Ok(lost)
}

fn lost_of(stats: &str) -> u64 {
    stats
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| matches!(*name, "overrun" | "commit overrun" | "dropped events"))
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let text = b"CPU:1 [LOST 2 EVENTS]\nnonsense\nCPU:3 [LOST 4 EVENTS]\nCPU:5 [LOST";

        for size in 1..text.len() {
            let mut rest = Vec::new();
            let mut lost = Vec::new();

            for block in text.chunks(size) {
                feed(&mut rest, block, &mut |line| {
                    if let Line::Lost { cpu, count } = line {
                        lost.push((cpu, count));
                    }
                });
            }
            assert_eq!(lost, [(1, Some(2)), (3, Some(4))], "blocks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut rest = Vec::new();

        for _ in 0..100 {
            feed(&mut rest, &[b'x'; 1000], &mut |_| {});
            assert!(rest.len() <= MAX_LINE + 1000);
        }
    }

    #[test]
    fn all_that_is_lost_is_summed() {
        let stats = "entries: 5\noverrun: 7\ncommit overrun: 1\nbytes: 240\noldest event ts:  12.1\n\
                     now ts:    13.4\ndropped events: 2\nread events: 9\n";

        assert_eq!(lost_of(stats), 10);
    }
}
