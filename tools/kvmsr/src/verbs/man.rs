// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Man pages of the program and of every verb, without warnings of `mandoc -T lint`.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::Roff;
use clap_mangen::roff::roman;

/// The date of the last change of the pages that matters to readers.
const DATE: &str = "2026-11-21";

/// All pages: their file names and contents.
pub fn pages(command: Command) -> Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    let mut pages = Vec::new();

    // This passes the global options and full names to the verbs.
    command.build();
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, String)>) -> Result<()> {
    let man = Man::new(command.clone());
    let name = man.get_filename();
    let title = name.trim_end_matches(".1").to_uppercase();
    let man = man
        .title(title)
        .date(DATE)
        .source(concat!("kvmsr ", env!("CARGO_PKG_VERSION")))
        .manual("kvmsr");
    let has_verbs = command.get_subcommands().any(|verb| !verb.is_hide_set());
    let mut text = Vec::new();

    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_verbs {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(help) = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
    {
        notes(&help.to_string()).to_writer(&mut text)?;
    }
    pages.push((name, tidy(&String::from_utf8(text)?)));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        add(verb, pages)?;
    }
    Ok(())
}

/// The text after the options in the help: examples and paragraphs.
fn notes(help: &str) -> Roff {
    let mut roff = Roff::default();
    let mut section = "";

    for paragraph in help.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let (title, body) = match paragraph.trim_start_matches('\n') {
            text if text.starts_with("Exit code") => {
                let body = text.split_once(':').map_or(text, |(_, body)| body);

                ("EXIT STATUS", body)
            }
            text => match text.split_once('\n') {
                Some((first, body)) if first.starts_with("Example") && first.ends_with(':') => {
                    ("EXAMPLES", body)
                }
                _ => ("NOTES", text),
            },
        };

        if title == section {
            roff.control("PP", []);
        } else {
            roff.control("SH", [title]);
        }
        section = title;
        lines(&mut roff, body);
    }
    roff
}

/// Keeps the line breaks of indented lines; fills others.
fn lines(roff: &mut Roff, text: &str) {
    let mut is_literal = false;

    for line in text.lines() {
        let indented = line.starts_with(' ') && line.len() - line.trim_start().len() >= 2;

        if indented != is_literal {
            roff.control(if indented { "nf" } else { "fi" }, []);
            is_literal = indented;
        }
        roff.text([roman(if indented {
            line.strip_prefix("  ").unwrap_or(line)
        } else {
            line.trim_start()
        })]);
    }
    if is_literal {
        roff.control("fi", []);
    }
}

/// Fixes the output of clap_mangen where mandoc warns.
fn tidy(page: &str) -> String {
    const WIDTH: usize = 79;
    let mut tidy: Vec<String> = Vec::new();
    let mut is_literal = false;
    let mut is_tag = false;

    for line in page.lines().map(str::trim_end) {
        // clap_mangen defines the apostrophe in every section.
        let is_repeated = line.starts_with(".ie") || line.starts_with(".el");

        if is_repeated && tidy.iter().any(|before| before == line) {
            continue;
        }
        if line.starts_with('.') {
            let after_space = tidy.last().is_some_and(|before| before == ".sp");

            is_literal = line == ".nf" || is_literal && line != ".fi";
            is_tag = line == ".TP";
            // After an empty line, .br is redundant.
            if line == ".br" && after_space {
                continue;
            }
            tidy.push(line.to_owned());
        } else if line.is_empty() && !is_literal {
            if tidy.last().is_some_and(|before| before == ".br") {
                tidy.pop();
            }
            if tidy.last().is_some_and(|before| !before.starts_with('.')) {
                tidy.push(".sp".to_owned());
            }
        } else if is_literal || is_tag {
            // The line after .TP is one tag.
            is_tag = false;
            tidy.push(line.to_owned());
        } else {
            wrap(line.trim_start(), WIDTH, &mut tidy);
        }
    }
    tidy.push(String::new());
    tidy.join("\n")
}

/// Breaks a line of text at a space, unless the next line would then start with a macro.
fn wrap(line: &str, width: usize, to: &mut Vec<String>) {
    let mut part = String::new();

    for word in line.split(' ') {
        let begins_macro = word.starts_with(['.', '\'']) || word.is_empty();

        if !part.is_empty() {
            if part.len() + 1 + word.len() > width && !begins_macro {
                to.push(std::mem::take(&mut part).trim_end().to_owned());
            } else {
                part.push(' ');
            }
        }
        part.push_str(word);
    }
    if !part.is_empty() {
        to.push(part);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let pages = pages(crate::Cli::command()).unwrap();
        let has = |name: &str| pages.iter().any(|(page, _)| page == name);

        assert!(has("kvmsr.1") && has("kvmsr-get.1") && has("kvmsr-probe.1"));
        assert!(!has("kvmsr-generate.1") && !has("kvmsr-help.1"));
        for (name, page) in &pages {
            assert!(page.contains(".SH NAME"), "{name}");
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }

    #[test]
    fn pages_are_mended() {
        assert_eq!(
            tidy(".TP\na\nb\n.br\n\n.br\nc\n\nd\n.nf\n  e\n\n  f\n.fi\n"),
            ".TP\na\nb\n.sp\nc\n.sp\nd\n.nf\n  e\n\n  f\n.fi\n"
        );
        let long = "word ".repeat(40) + ".dot 'quote";
        for line in tidy(&long).lines() {
            assert!(line.len() < 90 && !line.starts_with(['.', '\'']), "{line}");
        }
    }
}
