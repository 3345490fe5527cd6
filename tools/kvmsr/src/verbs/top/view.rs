// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The content of the live table, and the effect of keys. It prints nothing, so that it can be
//! tested.

use std::collections::BTreeMap;
use std::time::Duration;

use crossterm::event::KeyCode;
use crossterm::event::KeyEvent;
use crossterm::event::KeyModifiers;
use kvmsr::number::parse_u32;
use kvmsr::trace::Count;
use kvmsr::trace::Row;
use kvmsr::trace::Top;

/// What the main loop has to do after a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Draw.
    Draw,
    /// Read the counts now.
    Refresh,
    /// Count from 0.
    Reset,
    /// End.
    Quit,
}

/// The input that is being typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prompt {
    /// A process, or part of its name.
    Guest,
    /// An index or a part of a name.
    Msr,
    /// Seconds.
    Delay,
}

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The VM; empty if all are combined.
    pub guest: String,
    /// The VM's folder in debugfs.
    pub vm: String,
    /// The MSR's index; empty if all are combined.
    pub index: String,
    /// The MSR's name.
    pub name: String,
    /// The counts.
    pub count: Count,
    /// Accesses per second, between the last two readings.
    pub rate: f64,
}

/// The state of the table.
#[derive(Debug)]
pub struct View {
    /// The last reading.
    pub top: Option<Top>,
    /// The refresh interval.
    pub interval: Duration,
    /// Whether lines are sorted by rate; otherwise by total.
    pub by_rate: bool,
    /// Whether each VM has its own lines.
    pub guests_apart: bool,
    /// Whether each MSR has its own lines.
    pub msrs_apart: bool,
    /// Shows only VMs whose process or name contains this.
    pub guest: String,
    /// Shows only MSRs whose index or name contains this.
    pub msr: String,
    /// The input that is being typed, and its text so far.
    pub prompt: Option<(Prompt, String)>,
    /// The error in the last input.
    pub complaint: Option<String>,
    /// Whether the help is shown.
    pub help: bool,
    /// The number of lines scrolled.
    pub offset: usize,
    /// The state of the command, if there is one.
    pub status: Option<String>,
    rates: BTreeMap<Key, f64>,
}

/// The key by which readings are compared: process or thread, VM, index.
type Key = (Option<u32>, Option<u32>, Option<String>, u32);

fn key(row: &Row) -> Key {
    (row.pid, row.tid, row.vm.clone(), row.index.0)
}

impl View {
    /// An empty table.
    pub fn new(interval: Duration) -> Self {
        View {
            top: None,
            interval,
            by_rate: true,
            guests_apart: true,
            msrs_apart: true,
            guest: String::new(),
            msr: String::new(),
            prompt: None,
            complaint: None,
            help: false,
            offset: 0,
            status: None,
            rates: BTreeMap::new(),
        }
    }

    /// Adds a reading.
    pub fn take(&mut self, top: Top) {
        let before = self.top.take();
        // After a reset, there is no previous reading.
        let before = before.filter(|before| before.seconds <= top.seconds);
        let seconds = top.seconds - before.as_ref().map_or(0.0, |before| before.seconds);
        let earlier: BTreeMap<Key, u64> = before
            .iter()
            .flat_map(|before| &before.msrs)
            .map(|row| (key(row), row.count().all()))
            .collect();

        self.rates = top
            .msrs
            .iter()
            .map(|row| {
                let key = key(row);
                let count = row
                    .count()
                    .all()
                    .saturating_sub(earlier.get(&key).copied().unwrap_or(0));
                let rate = if seconds > 0.0 {
                    count as f64 / seconds
                } else {
                    0.0
                };

                (key, rate)
            })
            .collect();
        self.top = Some(top);
    }

    /// Forgets the last reading, as counting starts from 0.
    pub fn forget(&mut self) {
        self.top = None;
        self.rates.clear();
    }

    /// The lines of the table, sorted.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: BTreeMap<Key, Line> = BTreeMap::new();

        for row in self.top.iter().flat_map(|top| &top.msrs) {
            if !self.shows(row) {
                continue;
            }
            let all = key(row);
            let rate = self.rates.get(&all).copied().unwrap_or(0.0);
            let (pid, tid, vm, index) = all;
            let (pid, tid, vm) = if self.guests_apart {
                (pid, tid, vm)
            } else {
                (None, None, None)
            };
            let index = if self.msrs_apart { index } else { 0 };
            let line = lines
                .entry((pid, tid, vm, index))
                .or_insert_with(|| self.line(row));

            line.count += row.count();
            line.rate += rate;
        }
        let mut lines: Vec<Line> = lines.into_values().collect();

        lines.sort_by(|one, other| {
            let total = other.count.all().cmp(&one.count.all());
            let rate = other.rate.total_cmp(&one.rate);

            if self.by_rate {
                rate.then(total)
            } else {
                total.then(rate)
            }
        });
        lines
    }

    fn line(&self, row: &Row) -> Line {
        let mut line = Line::default();

        if self.guests_apart {
            line.guest = row.guest();
            line.vm = row.vm.clone().unwrap_or_default();
        }
        if self.msrs_apart {
            line.index = row.index.to_string();
            line.name = row.name.clone().unwrap_or_default();
        }
        line
    }

    fn shows(&self, row: &Row) -> bool {
        let guest = self.guest.parse().map_or_else(
            |_| row.comm.contains(&self.guest),
            |pid: u32| row.pid == Some(pid) || row.comm.contains(&self.guest),
        );
        let msr = self.msr.is_empty()
            || row.index.to_string().contains(&self.msr)
            || parse_u32(&self.msr).is_ok_and(|index| index == row.index.0)
            || row.name.as_ref().is_some_and(|name| {
                name.to_ascii_lowercase()
                    .contains(&self.msr.to_ascii_lowercase())
            });

        guest && msr
    }

    /// Whether a process has several VMs that can be told apart.
    pub fn tells_vms_apart(&self) -> bool {
        let mut of_process: BTreeMap<u32, &str> = BTreeMap::new();

        self.guests_apart
            && self.top.iter().flat_map(|top| &top.msrs).any(|row| {
                let (Some(pid), Some(vm)) = (row.pid, row.vm.as_deref()) else {
                    return false;
                };

                of_process.insert(pid, vm).is_some_and(|other| other != vm)
            })
    }

    /// The active filters as text; empty if there is none.
    pub fn filters(&self) -> String {
        [("guest", &self.guest), ("MSR", &self.msr)]
            .iter()
            .filter(|(_, filter)| !filter.is_empty())
            .map(|(what, filter)| format!("{what} '{filter}'"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Handles a key.
    pub fn press(&mut self, event: KeyEvent) -> Action {
        if event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        self.complaint = None;
        if let Some((prompt, text)) = self.prompt.take() {
            return self.typed(prompt, text, event.code);
        }
        if self.help {
            self.help = false;
            return Action::Draw;
        }
        match event.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('r') => return Action::Reset,
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Char('o') => self.by_rate = !self.by_rate,
            KeyCode::Char('b') => self.guests_apart = !self.guests_apart,
            KeyCode::Char('x') => self.msrs_apart = !self.msrs_apart,
            KeyCode::Char('c') => {
                self.guest.clear();
                self.msr.clear();
            }
            KeyCode::Char('p' | 'g') => self.prompt = Some((Prompt::Guest, String::new())),
            KeyCode::Char('f') => self.prompt = Some((Prompt::Msr, String::new())),
            KeyCode::Char('s') => self.prompt = Some((Prompt::Delay, String::new())),
            KeyCode::Down => self.offset = self.offset.saturating_add(1),
            KeyCode::Up => self.offset = self.offset.saturating_sub(1),
            KeyCode::PageDown => self.offset = self.offset.saturating_add(10),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(10),
            KeyCode::Home => self.offset = 0,
            _ => return Action::Refresh,
        }
        Action::Draw
    }

    fn typed(&mut self, prompt: Prompt, mut text: String, code: KeyCode) -> Action {
        match code {
            KeyCode::Esc => return Action::Draw,
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) if text.len() < 64 => text.push(c),
            KeyCode::Enter => {
                self.enter(prompt, text.trim());
                return Action::Draw;
            }
            _ => {}
        }
        self.prompt = Some((prompt, text));
        Action::Draw
    }

    fn enter(&mut self, prompt: Prompt, text: &str) {
        self.offset = 0;
        match prompt {
            Prompt::Guest => self.guest = text.to_owned(),
            Prompt::Msr => self.msr = text.to_owned(),
            Prompt::Delay => match text.parse::<f64>() {
                // The same limits as in kvm_stat.
                Ok(seconds) if (0.1..=25.5).contains(&seconds) => {
                    self.interval = Duration::from_secs_f64(seconds);
                }
                _ => self.complaint = Some("the delay is between 0.1 and 25.5 seconds".to_owned()),
            },
        }
    }
}

#[cfg(test)]
pub mod tests {
    use kvmsr::number::Hex;
    use kvmsr::snapshot::SCHEMA;
    use kvmsr::trace::Method;

    use super::*;

    pub fn row(pid: u32, comm: &str, index: u32, reads: u64, writes: u64, gp: u64) -> Row {
        Row {
            pid: Some(pid),
            tid: None,
            comm: comm.to_owned(),
            vm: Some(format!("{pid}-12")),
            index: Hex(index),
            name: (index == 0x10).then(|| "IA32_TSC".to_owned()),
            reads,
            writes,
            gp,
            rate: 0.0,
        }
    }

    pub fn top(seconds: f64, msrs: Vec<Row>) -> Top {
        let mut total = Count::default();

        for row in &msrs {
            total += row.count();
        }
        Top {
            schema: SCHEMA,
            counted_by: Method::Histogram,
            seconds,
            lost: 0,
            total,
            msrs,
            engine: Vec::new(),
            command: None,
            note: String::new(),
        }
    }

    fn press(view: &mut View, keys: &str) -> Action {
        let mut action = Action::Draw;

        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                key => KeyCode::Char(key),
            };

            action = view.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        action
    }

    fn looked() -> View {
        let mut view = View::new(Duration::from_secs(1));

        view.take(top(
            1.0,
            vec![
                row(7, "qemu", 0x10, 100, 0, 0),
                row(8, "crosvm", 0x10, 1, 0, 0),
            ],
        ));
        view.take(top(
            3.0,
            vec![
                row(7, "qemu", 0x10, 110, 0, 0),
                row(8, "crosvm", 0x10, 1, 40, 0),
                row(8, "crosvm", 0x6e0, 0, 8, 8),
            ],
        ));
        view
    }

    #[test]
    fn rates_are_of_the_last_interval() {
        let lines = looked().lines();
        let rates: Vec<_> = lines.iter().map(|line| line.rate).collect();

        assert_eq!(rates, [20.0, 5.0, 4.0]);
        assert_eq!(lines[0].guest, "crosvm (8)");
    }

    #[test]
    fn order_and_sums() {
        let mut view = looked();

        press(&mut view, "o");
        assert_eq!(view.lines()[0].guest, "qemu (7)");
        press(&mut view, "b");
        let lines = view.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].guest.as_str(), lines[0].count.reads), ("", 111));
        press(&mut view, "bx");
        let lines = view.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[1].guest.as_str(), lines[1].count.gp),
            ("crosvm (8)", 8)
        );
    }

    #[test]
    fn filters_are_typed_in_and_cleared() {
        let mut view = looked();

        press(&mut view, "p8\n");
        assert_eq!(view.lines().len(), 2);
        press(&mut view, "f6E0\n");
        assert_eq!(view.lines().len(), 0);
        press(&mut view, "f0x6e0\n");
        assert_eq!(view.lines().len(), 1);
        assert_eq!(view.filters(), "guest '8', MSR '0x6e0'");
        press(&mut view, "c");
        assert_eq!(view.lines().len(), 3);
        press(&mut view, "gqem\n");
        assert_eq!(view.lines().len(), 1);
    }

    #[test]
    fn the_delay_has_bounds() {
        let mut view = looked();

        press(&mut view, "s2.5\n");
        assert_eq!(view.interval, Duration::from_millis(2500));
        for bad in ["s0\n", "s26\n", "sx\n", "sNaN\n", "s\n"] {
            press(&mut view, bad);
            assert!(view.complaint.is_some(), "{bad}");
            assert_eq!(view.interval, Duration::from_millis(2500));
        }
    }

    #[test]
    fn keys_that_end_or_reset() {
        let mut view = looked();

        assert_eq!(press(&mut view, "r"), Action::Reset);
        assert_eq!(press(&mut view, "z"), Action::Refresh);
        assert_eq!(press(&mut view, "pq"), Action::Draw);
        assert_eq!(press(&mut view, "\nhq"), Action::Draw);
        assert_eq!(press(&mut view, "q"), Action::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(interrupt), Action::Quit);
    }
}
