// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Values as Rust literals.

use std::error::Error;
use std::fmt::Debug;
use std::fmt::Write;

/// Parses a number in the files: `0x1f` or `31`.
pub fn number(text: &str) -> Result<u64, Box<dyn Error>> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(|error| format!("{text}: {error}").into())
}

/// Parses a number of up to 32 bits.
pub fn index(text: &str) -> Result<u32, Box<dyn Error>> {
    Ok(number(text)?.try_into()?)
}

/// `Some("...")`, or `None` if there is no text.
pub fn some(text: Option<&str>) -> String {
    format!("{text:?}")
}

/// `&[a, b]`
pub fn slice<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| item.as_ref().to_owned())
        .collect();

    format!("&[{}]", items.join(", "))
}

/// A table, an item per line.
pub fn table(name: &str, of: &str, items: &[String]) -> String {
    let mut text = format!("pub(super) static {name}: [{of}; {}] = [\n", items.len());

    for item in items {
        let _ = writeln!(text, "    {item},");
    }
    text + "];\n"
}

/// A variant of `Owner`.
pub fn owner(text: &str) -> Result<&'static str, Box<dyn Error>> {
    Ok(match text {
        "intel" => "Owner::Intel",
        "amd" => "Owner::Amd",
        "both" => "Owner::Both",
        "kvm" => "Owner::Kvm",
        "hyperv" => "Owner::HyperV",
        other => return Err(format!("there is no owner '{other}'").into()),
    })
}

/// A string in quotes.
pub fn quoted(text: impl Debug) -> String {
    format!("{text:?}")
}
