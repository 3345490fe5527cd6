// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Spellings of a name that are treated as equal. The build uses this, too.

/// The number of spellings.
pub const FORMS: usize = 3;

/// A name in lower case, the same without `MSR_`, and without `IA32_`, which Linux puts before
/// more names than the manuals.
///
/// They are tried in this order, as a few MSRs differ in these prefixes only.
pub fn forms(name: &str) -> [String; FORMS] {
    let exact = name.trim().to_ascii_lowercase();
    let plain = exact.strip_prefix("msr_").unwrap_or(&exact).to_owned();
    let short = plain.strip_prefix("ia32_").unwrap_or(&plain).to_owned();

    [exact, plain, short]
}
