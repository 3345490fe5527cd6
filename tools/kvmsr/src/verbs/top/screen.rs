// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Draws the live table.

use ratatui::Frame;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Style;
use ratatui::style::Stylize;
use ratatui::text::Line as Text;
use ratatui::text::Span;
use ratatui::widgets::Block;
use ratatui::widgets::Cell;
use ratatui::widgets::Clear;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;
use ratatui::widgets::Table;

use kvmsr::trace::Served;

use super::once::way;
use super::view::Line;
use super::view::Prompt;
use super::view::View;

const HELP: &[(&str, &str)] = &[
    ("q", "quit"),
    ("r", "reset: count from 0"),
    ("p g", "filter by guest: its process or a part of its name"),
    ("f", "filter by MSR: its index or a part of its name"),
    ("c", "clear filters"),
    ("o", "order by rate or by total"),
    ("b", "guests separately or together"),
    ("x", "with or without MSRs"),
    ("s", "set the delay between refreshes"),
    ("↑ ↓", "scroll, also page up and down"),
    ("any", "other key: refresh now"),
];

/// The engine's pane takes at most a third of the screen.
const ENGINE_SHARE: u16 = 3;

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, view: &mut View, colour: bool) {
    let served = view.top.as_ref().map_or(&[][..], |top| &top.engine);
    let engine_height = match u16::try_from(served.len()) {
        Ok(0) => 0,
        Ok(count) => count
            .saturating_add(2)
            .min(frame.area().height / ENGINE_SHARE),
        Err(_) => frame.area().height / ENGINE_SHARE,
    };
    let [head, table, engine, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(engine_height),
        Constraint::Length(1),
    ])
    .areas(frame.area());

    frame.render_widget(Paragraph::new(head_of(view, colour)), head);
    draw_table(frame, view, table, colour);
    if let Some(top) = &view.top
        && engine_height > 0
    {
        draw_engine(frame, &top.engine, engine);
    }
    frame.render_widget(Paragraph::new(foot_of(view, colour)), foot);
    if view.help {
        draw_help(frame);
    }
}

fn coloured(style: Style, colour: bool) -> Style {
    if colour { style } else { Style::new() }
}

fn head_of(view: &View, colour: bool) -> Vec<Text<'static>> {
    let bad = coloured(Style::new().fg(Color::Red), colour);
    let Some(top) = &view.top else {
        return vec![Text::from("kvmsr top".bold())];
    };
    let mut first = vec![
        "kvmsr top".bold(),
        Span::raw(format!(
            "  {:.0} s, every {} s, counted by {}",
            top.seconds,
            view.interval.as_secs_f64(),
            way(top.counted_by)
        )),
    ];

    if top.lost > 0 {
        first.push(Span::styled(format!(", {} lost", top.lost), bad));
    }
    if let Some(status) = &view.status {
        first.push(Span::raw(format!(", {status}")));
    }
    let mut second = format!(
        "{} reads, {} writes, {} of them #GP",
        top.total.reads, top.total.writes, top.total.gp
    );
    let filters = view.filters();

    if !filters.is_empty() {
        second.push_str(&format!("; shown: {filters}"));
    }
    vec![Text::from(first), Text::from(second)]
}

fn draw_table(frame: &mut Frame<'_>, view: &mut View, area: Rect, colour: bool) {
    let lines = view.lines();
    // The header takes a line.
    let room = usize::from(area.height.saturating_sub(1));

    view.offset = view.offset.min(lines.len().saturating_sub(room));
    let (rate, total) = if view.by_rate {
        ("per second▾", "Reads")
    } else {
        ("per second", "Reads▾")
    };
    let heads = ["VM", "", "MSR", "Name", total, "Writes", "#GP", rate];
    let cells: Vec<[String; COLUMNS]> = lines
        .iter()
        .skip(view.offset)
        .take(room)
        .map(|line| cells_of(line, view.tells_vms_apart()))
        .collect();
    // The MSR's name gets the remaining width.
    let widths = (0..COLUMNS).map(|column| {
        let widest = widest(heads, &cells, column);

        match column {
            NAME => Constraint::Fill(1),
            _ => Constraint::Length(widest),
        }
    });
    let rows = cells
        .iter()
        .zip(lines.iter().skip(view.offset))
        .map(|(cells, line)| row(cells, colour && line.count.gp > 0));
    let table = Table::new(rows, widths).header(row(&heads, false).bold());

    frame.render_widget(table, area);
}

const COLUMNS: usize = 8;
const NAME: usize = 3;
const GP: usize = 6;

fn cells_of(line: &Line, with_vm: bool) -> [String; COLUMNS] {
    [
        printable(&line.guest),
        if with_vm {
            line.vm.clone()
        } else {
            String::new()
        },
        line.index.clone(),
        line.name.clone(),
        line.count.reads.to_string(),
        line.count.writes.to_string(),
        line.count.gp.to_string(),
        format!("{:.0}", line.rate),
    ]
}

/// The width of a column.
fn widest<const N: usize>(heads: [&str; N], cells: &[[String; N]], column: usize) -> u16 {
    let widest = cells
        .iter()
        .filter_map(|cells| cells.get(column))
        .map(|cell| cell.chars().count())
        .chain(heads.get(column).map(|head| head.chars().count()))
        .max();

    // A thread's name has at most 15 characters.
    u16::try_from(widest.unwrap_or(0))
        .unwrap_or(u16::MAX)
        .min(40)
}

/// Right-aligns numbers.
fn row<'a, S: AsRef<str>>(cells: &'a [S; COLUMNS], gp: bool) -> Row<'a> {
    let cells = cells.iter().enumerate().map(|(column, text)| {
        let text = Text::from(text.as_ref());
        let text = if column > NAME {
            text.right_aligned()
        } else {
            text
        };

        if gp && column == GP {
            Cell::from(text).style(Style::new().fg(Color::Red))
        } else {
            Cell::from(text)
        }
    });

    Row::new(cells)
}

/// A process's name can contain terminal escapes.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn draw_engine(frame: &mut Frame<'_>, served: &[Served], area: Rect) {
    const HEADS: [&str; 9] = [
        "VM",
        "",
        "Reads",
        "Writes",
        "Filtered",
        "To user",
        "#GP",
        "Host reads",
        "Host writes",
    ];
    let cells: Vec<[String; 9]> = served
        .iter()
        .map(|vm| {
            let counters = &vm.counters;
            let guest = match vm.pid {
                Some(pid) => format!("{} ({pid})", vm.comm),
                None => vm.comm.clone(),
            };

            [
                printable(&guest),
                vm.vm.clone(),
                counters.reads.to_string(),
                counters.writes.to_string(),
                counters.filtered.to_string(),
                counters.user_space.to_string(),
                counters.gp.to_string(),
                counters.host_reads.to_string(),
                counters.host_writes.to_string(),
            ]
        })
        .collect();
    let widths = (0..HEADS.len()).map(|column| match column {
        0 => Constraint::Fill(1),
        _ => Constraint::Length(widest(HEADS, &cells, column)),
    });
    let row = |cells: Vec<&str>| {
        let cells = cells.into_iter().enumerate().map(|(column, text)| {
            let text = Text::from(text.to_owned());

            if column > 1 {
                text.right_aligned()
            } else {
                text
            }
        });

        Row::new(cells.map(Cell::from))
    };
    let rows = cells
        .iter()
        .map(|cells| row(cells.iter().map(String::as_str).collect()));
    let table = Table::new(rows, widths)
        .header(row(HEADS.to_vec()).bold())
        .block(
            Block::new()
                .borders(ratatui::widgets::Borders::TOP)
                .title(" kvm-msr.ko's own counters "),
        );

    frame.render_widget(table, area);
}

fn foot_of(view: &View, colour: bool) -> Text<'static> {
    if let Some(complaint) = &view.complaint {
        return Text::styled(
            complaint.clone(),
            coloured(Style::new().fg(Color::Red), colour),
        );
    }
    match &view.prompt {
        Some((prompt, text)) => {
            let question = match prompt {
                Prompt::Guest => "Process or name of the guest",
                Prompt::Msr => "Index or name of the MSR",
                Prompt::Delay => "Seconds between refreshes",
            };

            Text::from(format!("{question}: {text}_"))
        }
        None => Text::from(
            "q quit  h help  r reset  p guest  f MSR  o order  b guests  x MSRs  s delay".dim(),
        ),
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = 64.min(area.width);
    // A frame, and lines that are not counted below.
    let height = u16::try_from(HELP.len() + 8)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let area = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let mut lines: Vec<Text<'_>> = HELP
        .iter()
        .map(|(key, what)| {
            Text::from(vec![
                Span::raw(format!(" {key:<4}")).bold(),
                Span::raw(*what),
            ])
        })
        .collect();

    lines.push(Text::from(""));
    lines.push(Text::from(kvmsr::trace::NOTE));
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(lines)
            .wrap(ratatui::widgets::Wrap { trim: false })
            .block(Block::bordered().title(" Keys ")),
        area,
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kvmsr::trace::Counters;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use snapbox::assert_data_eq;
    use snapbox::str;

    use super::super::view::tests::row;
    use super::super::view::tests::top;
    use super::*;

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();

        terminal.draw(|frame| draw(frame, view, true)).unwrap();
        let lines: Vec<String> = terminal
            .backend()
            .to_string()
            .lines()
            .map(|line| line.trim_matches('"').trim_end().to_owned())
            .collect();

        lines.join("\n")
    }

    fn view() -> View {
        let mut view = View::new(Duration::from_secs(1));
        let mut top = top(
            2.0,
            vec![
                row(4711, "qemu-system-x86", 0x10, 10_000, 5_000, 0),
                row(815, "crosvm\x1b[2J", 0xc000_0080, 1, 2, 3),
            ],
        );

        top.lost = 5;
        top.engine = vec![Served {
            vm: "4711-12".to_owned(),
            pid: Some(4711),
            comm: "qemu-system-x86".to_owned(),
            counters: Counters {
                reads: 10_000,
                writes: 5_000,
                host_reads: 97,
                ..Default::default()
            },
            filter: Vec::new(),
        }];
        view.take(top);
        view
    }

    #[test]
    fn the_table() {
        assert_data_eq!(
            drawn(&mut view(), 110, 10),
            str![[r#"
kvmsr top  2 s, every 1 s, counted by the kernel's histogram, 5 lost
10001 reads, 5002 writes, 3 of them #GP
VM                      MSR        Name                                           Reads Writes #GP per second▾
qemu-system-x86 (4711)  0x10       IA32_TSC                                       10000   5000   0        7500
crosvm?[2J (815)        0xc0000080                                                    1      2   3           2

 kvm-msr.ko's own counters ───────────────────────────────────────────────────────────────────────────────────
VM                                                    Reads Writes Filtered To user #GP Host reads Host writes
qemu-system-x86 (4711)                        4711-12 10000   5000        0       0   0         97           0
q quit  h help  r reset  p guest  f MSR  o order  b guests  x MSRs  s delay
"#]]
        );
    }

    #[test]
    fn the_help() {
        let mut view = view();

        view.help = true;
        assert_data_eq!(
            drawn(&mut view, 80, 24),
            str![[r#"
kvmsr top  2 s, every 1 s, counted by the kernel's histogram, 5 lost
10001 reads, 5002 writes, 3 of them #GP
VM      ┌ Keys ────────────────────────────────────────────────────────┐ second▾
qemu-sys│ q   quit                                                     │    7500
crosvm?[│ r   reset: count from 0                                      │       2
        │ p g filter by guest: its process or a part of its name       │
        │ f   filter by MSR: its index or a part of its name           │
        │ c   clear filters                                            │
        │ o   order by rate or by total                                │
        │ b   guests separately or together                            │
        │ x   with or without MSRs                                     │
        │ s   set the delay between refreshes                          │
        │ ↑ ↓ scroll, also page up and down                            │
        │ any other key: refresh now                                   │
        │                                                              │
        │Not counted, because the kernel does not trace them: MSRs that│
        │KVM passes through to the CPU (e.g. FS_BASE, often SPEC_CTRL  │
        │and TSC), and accesses that user space answers                │
        │(KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR).                     │
        │                                                              │
 kvm-msr└──────────────────────────────────────────────────────────────┘────────
VM                      Reads Writes Filtered To user #GP Host reads Host writes
qemu-system-x86 4711-12 10000   5000        0       0   0         97           0
q quit  h help  r reset  p guest  f MSR  o order  b guests  x MSRs  s delay
"#]]
        );
    }

    #[test]
    fn any_size_will_do() {
        for width in [1, 2, 7, 30, 60, 200] {
            for height in [1, 2, 3, 4, 9, 50] {
                let mut view = view();

                view.help = height % 2 == 1;
                view.offset = 1000;
                drawn(&mut view, width, height);
            }
        }
    }
}
